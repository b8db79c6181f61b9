# SPDX-License-Identifier: Apache-2.0
"""One record of the MFT: its update sequence put right, its header, and its attributes as they stand.

What an attribute means is for others. A record whose sectors do not belong together was torn by a crash and is an error, never
half of it. Format: libyal's NTFS documentation, "MFT entry", "Fix-up values", "MFT attribute".
"""

from __future__ import annotations

import struct

import msgspec

from flr.errors import Corrupt

STRIDE = 512
"""Of the update sequence, whatever the disk's sectors are."""
IN_USE, DIRECTORY = 1, 2
STANDARD, LIST, NAME, OBJECT_ID, SECURITY, VOLUME_NAME, VOLUME_INFORMATION, DATA, INDEX_ROOT, INDEX, BITMAP, REPARSE = (
    0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x80, 0x90, 0xA0, 0xB0, 0xC0,
)  # fmt: skip
END = 0xFFFFFFFF
COMPRESSED, ENCRYPTED, SPARSE = 0x00FF, 0x4000, 0x8000
"""Flags of an attribute; the first is a method, of which only 1 (LZNT1) exists."""
NUMBER = (1 << 48) - 1
"""A reference is a record's number, and above these bits its sequence."""

# magic, update sequence: offset, words; sequence, links, first attribute, flags, bytes used, base record
_HEAD = struct.Struct("<4sHH8xHHHHI4xQ")
# type, length, non-resident, name: characters, offset; flags; when it is resident, the value's length and offset
_ATTRIBUTE = struct.Struct("<IIBBHHxxIH")
# first and last cluster, run list's offset, log2 of the compression unit, allocated, size, initialized
_AWAY = struct.Struct("<QQHH4xQQQ")
_TOTAL = struct.Struct("<Q")
RESIDENT_HEAD, AWAY_HEAD = 24, 64


class Attribute(msgspec.Struct, array_like=True, gc=False):
    """`name` is UTF-16. Resident: `value`. Otherwise `value` is its run list, and what follows says what that maps: clusters
    `first` to `last`, and when `first` is 0 the sizes in bytes; `unit` is log2 of the clusters that are compressed together."""

    kind: int
    name: bytes
    flags: int
    resident: bool
    value: bytes
    first: int = 0
    last: int = -1
    unit: int = 0
    allocated: int = 0
    size: int = 0
    initialized: int = 0


class Record(msgspec.Struct, array_like=True):
    """`base` is the number of the record that this one continues, or 0. `attributes` in the record's order."""

    number: int
    sequence: int
    links: int
    flags: int
    base: int
    attributes: list[Attribute]

    def find(self, kind: int, name: bytes = b"") -> list[Attribute]:
        return [a for a in self.attributes if a.kind == kind and a.name == name]


def fixed(data: bytes, magic: bytes, what: str) -> bytes:
    """The structure with the last two bytes of each of its sectors put back. Corrupt when they do not belong together."""
    if data[:4] != magic:
        if data[:4] == b"BAAD":
            raise Corrupt("a check of the disk found this structure damaged", what)
        raise Corrupt("this structure is not what should stand here", f"{what}: it begins with {data[:4].hex()}")
    at, words = struct.unpack_from("<HH", data, 4)
    if (words - 1) * STRIDE != len(data) or at + 2 * words > STRIDE - 2 or at & 1:
        raise Corrupt("an update sequence has an impossible size", f"{what}: {words} words at {at}")
    check = data[at : at + 2]
    made: list[bytes] = []
    for end in range(STRIDE, len(data) + 1, STRIDE):
        if data[end - 2 : end] != check:
            raise Corrupt("a structure was torn while it was written", f"{what}, before byte {end}")
        at += 2
        made += (data[end - STRIDE : end - 2], data[at : at + 2])
    return b"".join(made)


def parse(raw: bytes, number: int) -> Record:
    """Of the record's bytes as they stand on the disk. Corrupt."""
    data = fixed(raw, b"FILE", f"record {number}")
    _, _, _, sequence, links, at, flags, used, base = _HEAD.unpack_from(data)
    end = min(used, len(data))
    found: list[Attribute] = []
    attribute = _ATTRIBUTE.unpack_from
    while at + RESIDENT_HEAD <= end:
        kind, length, outside, characters, name_at, attribute_flags, size, value_at = attribute(data, at)
        if kind == END:
            break
        after = at + length
        if length < RESIDENT_HEAD or after > end or name_at + 2 * characters > length:
            raise Corrupt("an attribute has an impossible length", f"record {number} at {at}: {length} bytes")
        name = data[at + name_at : at + name_at + 2 * characters] if characters else b""
        if not outside:
            if value_at + size > length:
                raise Corrupt("an attribute's value is cut", f"record {number} at {at}: {size} bytes")
            value_at += at
            value = data[value_at : value_at + size]
            found.append(Attribute(kind, name, attribute_flags, True, value, 0, -1, 0, 0, size))
        else:
            found.append(_away(data, at, after, kind, name, attribute_flags, number))
        at = after
    return Record(number, sequence, links, flags, base & NUMBER, found)


def _away(data: bytes, at: int, after: int, kind: int, name: bytes, flags: int, number: int) -> Attribute:
    if after - at < AWAY_HEAD:
        raise Corrupt("an attribute is cut", f"record {number} at {at}")
    first, last, runs_at, unit, allocated, size, initialized = _AWAY.unpack_from(data, at + 16)
    # With a compression unit, or sparse, what it really takes follows.
    if flags & (COMPRESSED | SPARSE) and runs_at >= AWAY_HEAD + 8 and after - at >= AWAY_HEAD + 8:
        (allocated,) = _TOTAL.unpack_from(data, at + AWAY_HEAD)
    runs = data[at + runs_at : after]
    return Attribute(kind, name, flags, False, runs, first, last, unit, allocated, size, initialized)
