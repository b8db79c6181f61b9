# SPDX-License-Identifier: Apache-2.0
"""Folders: blocks of entries one after the other, whatever index lies beside them.

An index block looks like an empty entry that fills it, so the entries alone are read, in their order on disk. Format:
Documentation/filesystems/ext4/directory.rst.
"""

from __future__ import annotations

import stat
import struct
from typing import NamedTuple

_ENTRY = struct.Struct("<IHBB")
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
