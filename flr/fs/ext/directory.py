# SPDX-License-Identifier: Apache-2.0
"""Folders: blocks of entries one after the other, whatever index lies beside them.

An index block looks like an empty entry that fills it, so the entries alone are read, in their order on disk. Format:
Documentation/filesystems/ext4/directory.rst.
"""

from __future__ import annotations

import stat
import struct
from typing import NamedTuple

import numpy as np

_ENTRY = struct.Struct("<IHBB")
_LENGTH = struct.Struct("<H")
TAIL = 0xDE
TYPES: tuple[int, ...] = (
    0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFLNK,
)  # fmt: skip


def type_of(kind: int) -> int:
    """As `Entry.kind`, of what an entry says of itself."""
    return TYPES[kind] if kind < len(TYPES) else 0


class Names(NamedTuple):
    """Of each entry: its name, its inode, its type as in `Entry`, and the position behind it."""

    names: list[bytes]
    inodes: list[int]
    kinds: list[int]
    ends: list[int]


def parse_sound(data: bytes, at: int, block_size: int, found: Names) -> bool:
    """As `parse`, of typed entries in whole blocks that hold together, by operations on arrays. False, and nothing added, where
    something does not."""
    if block_size > 32768:
        return False
    places: list[int] = []
    add = places.append
    unpack = _LENGTH.unpack_from
    for block_end in range((at // block_size + 1) * block_size, len(data) + 1, block_size):
        while at < block_end:
            (length,) = unpack(data, at + 4)
            if length < 8 or length & 3 or at + length > block_end:
                return False
            add(at)
            at += length
    offsets = np.array(places, np.int64)
    words = np.frombuffer(data, "<u4")
    inodes, rest = words[offsets >> 2], words[(offsets >> 2) + 1]
    lengths, kinds = (rest >> 16) & 0xFF, rest >> 24
    if (lengths + 8 > rest & 0xFFFF).any():
        return False
    used = (inodes != 0) & (kinds != TAIL)
    for k in np.flatnonzero(used & (lengths <= 2)).tolist():
        used[k] = data[places[k] + 8 : places[k] + 8 + int(lengths[k])] not in (b".", b"..")
    begins = offsets[used] + 8
    ends = begins + lengths[used]
    found.names.extend([data[low:high] for low, high in zip(begins.tolist(), ends.tolist(), strict=True)])
    found.inodes.extend(inodes[used].tolist())
    found.kinds.extend(kinds[used].tolist())
    found.ends.extend((offsets + (rest & 0xFFFF))[used].tolist())
    return True


def parse(data: bytes, at: int, end: int, block_size: int, typed: bool, found: Names) -> tuple[int, str] | None:
    """Adds the entries of `data[at:end]`; whole blocks, but for the first's beginning. What ended them early, and where.

    Position 0 of `data` is the beginning of a block. `.` and `..` are left out. `typed`: an entry says what it leads to; else its
    name's length has 16 bits.
    """
    add_name = found.names.append
    add_inode, add_kind, add_end = found.inodes.append, found.kinds.append, found.ends.append
    unpack = _ENTRY.unpack_from
    large = block_size > 32768
    while at < end:
        block_end = min((at // block_size + 1) * block_size, end)
        while at < block_end:
            if at + 8 > block_end:
                return at, "an entry is cut"
            inode, length, name_length, kind = unpack(data, at)
            if large:  # 16 bits hold a length of 65,536 in this way
                length = block_size if length in (0, 0xFFFF) else length & 0xFFFC | (length & 3) << 16
            if not typed:
                name_length |= kind << 8
                kind = 0
            if name_length + 8 > length or length & 3 or at + length > block_end:
                return at, f"an entry has an impossible length: {length}"
            if inode and kind != TAIL:
                name = data[at + 8 : at + 8 + name_length]
                if name_length > 2 or (name != b"." and name != b".."):
                    add_name(name)
                    add_inode(inode)
                    add_kind(kind)
                    add_end(at + length)
            at += length
    return None
