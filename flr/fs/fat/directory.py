# SPDX-License-Identifier: Apache-2.0
"""Entries of FAT's and exFAT's folders: 32 bytes each, several of which make one file with its long name.

Times carry no zone in FAT and are read as UTC; exFAT's say their distance from UTC where the writer knew it. Short names are
taken for code page 437, their NT flags for lower case. A long name whose parts or checksum do not fit is passed over and the short
one shown. Format: FAT specification, "Directory structure"; exFAT specification, 6 and 7.
"""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

SIZE = 32
MOST_FAT, MOST_EXFAT = 2 << 20, 256 << 20
"""Bytes of a folder, by the specifications."""
READ_ONLY, HIDDEN, SYSTEM, LABEL, FOLDER, ARCHIVE, LONG = 1, 2, 4, 8, 16, 32, 15
RESERVED = 0xC0
LONGEST_SET = 21
"""Entries of one file: 20 of a long name, and itself; exFAT has at most 19."""
SECOND = 10**9
# name, attributes, case, tenths; created: time, date; accessed; cluster; modified: time, date; cluster, size
_SHORT = struct.Struct("<11sBBBHHHHHHHI")
_LONG = struct.Struct("<B10sBBB12sH4s")
# type, secondaries, checksum, attributes; created, modified, accessed; tens of ms of two; distances of three
_FILE = struct.Struct("<BBHH2xIIIBBBBB")
# type, flags, name's length; valid size, first cluster, size
_STREAM = struct.Struct("<BB x B 4x Q 4x I Q")
FILE, STREAM, NAME, NAME_UNITS = 0x85, 0xC0, 0xC1, 15
BITMAP, LABEL_ENTRY, IN_USE = 0x81, 0x83, 0x80
CONTIGUOUS = 2


class Item(NamedTuple):
    """A file or folder. `raw` is what its node is known by; `offset` is where that stands in its folder, `after` where the next
    entry does. `name` is UTF-8. `problem` is set when the entry is not whole."""

    name: bytes
    attributes: int
    cluster: int
    size: int
    valid: int
    contiguous: bool
    created: int | None
    modified: int | None
    accessed: int | None
    offset: int
    after: int
    raw: bytes
    problem: str = ""


@lru_cache(4096)
def _day(date: int) -> int | None:
    """Seconds since 1970 of a date; None when it is unset or none."""
    try:
        return int(datetime(1980 + (date >> 9), date >> 5 & 15, date & 31, tzinfo=UTC).timestamp())
    except ValueError:
        return None


def time(date: int, clock: int, hundredths: int = 0, zone: int = 0) -> int | None:
    """Nanoseconds since 1970. `zone` is exFAT's: quarters of an hour, if its highest bit is set."""
    day = _day(date)
    if day is None:
        return None
    seconds = day + (clock >> 11) * 3600 + (clock >> 5 & 63) * 60 + (clock & 31) * 2
    if zone & 0x80:
        seconds -= (((zone & 0x7F) ^ 0x40) - 0x40) * 900
    return seconds * SECOND + min(hundredths, 199) * 10_000_000


def text(units: bytes) -> bytes:
    """UTF-16 as UTF-8; an unpaired surrogate keeps its place in three bytes, half a unit at the end is dropped."""
    return units[: len(units) & ~1].decode("utf-16-le", "surrogatepass").encode("utf-8", "surrogatepass")


def checksum(short: bytes) -> int:
    """Of a short name, as its long name's entries carry it."""
    total = 0
    for byte in short:
        total = ((total & 1) << 7) + (total >> 1) + byte & 0xFF
    return total


def set_is_sound(entries: bytes) -> bool:
    """Whether exFAT's entries of one file have the checksum that they carry; its own two bytes are left out of it. This takes
    longer than all else of an entry, so a listing does not ask."""
    total = 0
    for at, byte in enumerate(entries):
        if at not in (2, 3):
            total = ((total & 1) << 15) + (total >> 1) + byte & 0xFFFF
    return total == int.from_bytes(entries[2:4], "little")


def short_name(raw: bytes) -> bytes:
    base, extension = raw[:8], raw[8:11]
    if base[:1] == b"\x05":
        base = b"\xe5" + base[1:]
    one, two = base.decode("cp437").rstrip(" "), extension.decode("cp437").rstrip(" ")
    if raw[12] & 8:
        one = one.lower()
    if raw[12] & 16:
        two = two.lower()
    return (f"{one}.{two}" if two else one).encode()


def short_item(raw: bytes, name: bytes, offset: int, wide: bool) -> Item:
    """`wide`: of FAT32, whose clusters have high bits."""
    _, attributes, _, tenths, c_time, c_date, a_date, high, m_time, m_date, low, size = _SHORT.unpack_from(raw)
    return Item(
        name,
        attributes,
        (high & 0x0FFF) << 16 | low if wide else low,
        size,
        size,
        False,
        time(c_date, c_time, tenths),
        time(m_date, m_time),
        time(a_date, 0),
        offset,
        offset + SIZE,
        raw,
    )


class Parsed(NamedTuple):
    """`rest` is where a file's entries begin that go on beyond what was parsed; `ended`: the folder has no more; `odd` counts what
    cannot be an entry."""

    items: list[Item]
    rest: int
    ended: bool
    label: bytes
    odd: int = 0


def parse_fat(data: bytes, base: int, wide: bool) -> Parsed:
    """`base` is where `data` begins in its folder."""
    items: list[Item] = []
    label = b""
    parts: list[bytes] = []
    begins = wanted = check = odd = 0
    for at in range(0, len(data) - SIZE + 1, SIZE):
        first, attributes = data[at], data[at + 11]
        if first == 0:
            return Parsed(items, base + at, True, label, odd)
        if first == 0xE5:
            parts = []
            continue
        if attributes & 0x3F == LONG:
            order, one, _, _, code, two, _, three = _LONG.unpack_from(data, at)
            if order & 0x40:
                parts, begins, wanted, check = [], at, order & 0x1F, code
            if order & 0x1F == wanted - len(parts) and code == check and wanted - len(parts) > 0:
                parts.append(one + two + three)
            else:
                parts = []
            continue
        raw = data[at : at + SIZE]
        if attributes & RESERVED or (min(raw[:11]) < 0x20 and not (first == 5 and min(raw[1:11]) >= 0x20)):
            odd += 1
        elif attributes & LABEL:
            label = label or raw[:11]
        elif raw[:2] not in (b". ", b".."):
            whole = len(parts) == wanted and parts and check == checksum(raw[:11])
            name = text(_until_zero(b"".join(reversed(parts)))) if whole else b""
            items.append(short_item(raw, name or short_name(raw), base + at, wide))
        parts = []
    return Parsed(items, base + (begins if parts else len(data) // SIZE * SIZE), False, label, odd)


def _until_zero(units: bytes) -> bytes:
    for at in range(0, len(units), 2):
        if units[at : at + 2] == b"\0\0":
            return units[:at]
    return units


def parse_set(data: bytes, offset: int) -> Item:
    """exFAT's entries of one file, from its first on; whatever is wrong with them is told in the item."""
    _, more, _, attributes, created, modified, accessed, c_ms, m_ms, c_zone, m_zone, a_zone = _FILE.unpack_from(data)
    length = (more + 1) * SIZE
    entries = data[:length]
    problem = ""
    flags = characters = valid = cluster = size = 0
    name = b""
    if len(entries) < length or not 2 <= more < LONGEST_SET or entries[SIZE] != STREAM:
        problem = "its entries in the folder are cut"
    else:
        _, flags, characters, valid, cluster, size = _STREAM.unpack_from(entries, SIZE)
        parts = [entries[at + 2 : at + SIZE] for at in range(2 * SIZE, length, SIZE) if entries[at] == NAME]
        name = text(b"".join(parts)[: 2 * characters])
        if len(parts) * NAME_UNITS < characters:
            problem = "its name is cut"
    return Item(
        name,
        attributes,
        cluster,
        size,
        min(valid, size),
        bool(flags & CONTIGUOUS),
        time(created >> 16, created & 0xFFFF, c_ms, c_zone),
        time(modified >> 16, modified & 0xFFFF, m_ms, m_zone),
        time(accessed >> 16, accessed & 0xFFFF, 0, a_zone),
        offset,
        offset + max(length, SIZE),
        entries,
        problem,
    )


def parse_exfat(data: bytes, base: int) -> Parsed:
    items: list[Item] = []
    label = b""
    at = 0
    while at + SIZE <= len(data):
        kind = data[at]
        if kind == 0:
            return Parsed(items, base + at, True, label)
        if kind == FILE:
            length = (data[at + 1] + 1) * SIZE
            if at + length > len(data) and length <= LONGEST_SET * SIZE:
                break
            # What does not hold together is not trusted to say where the next begins.
            item = parse_set(data[at : at + length], base + at)
            at += SIZE if item.problem else length
            items.append(item)
            continue
        if kind == LABEL_ENTRY:
            label = data[at + 2 : at + 2 + 2 * min(data[at + 1], 11)]
        at += SIZE
    return Parsed(items, base + at, False, label)
