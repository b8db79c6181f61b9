# SPDX-License-Identifier: Apache-2.0
"""Inodes: a file's attributes, and the two forks that its content and its extended attributes begin in.

From "XFS Algorithms & Data Structures", chapter "On-disk Inode". An inode is refused when it is no inode or another's; what
only looks strange (a size beyond the volume, a wrong checksum) is shown and said. Not here: what the forks hold (`extents`,
`directory`, `attributes`), how many inodes are read at once (`listing`).
"""

from __future__ import annotations

import os
import struct

import msgspec

from flr.errors import Corrupt, NodeNotFound
from flr.fs.base import Attributes, Flag
from flr.fs.xfs.superblock import Superblock

DEVICE, LOCAL, EXTENTS, BTREE = range(4)
"""What a fork holds: a device number, the bytes themselves, extents, the root of a tree of extents."""

CORE = struct.Struct(">HHBBHIII12xQQQqQ18xHI4x4s16xQ16xQQ")
"""magic, mode, version, format, links of version 1, owner, group, links, accessed, modified, changed, size, blocks, flags,
generation; of version 3 also checksum, flags2, created, number."""
_FORKS = struct.Struct(">24xQ44xIHBb")
"""Large count of extents, count of extents, of those of attributes, where the second fork begins, its format."""
_MAGIC = 0x494E
_HEADER = 100
_HEADER_V3 = 176
CHECKSUM = 100
"""Where an inode of version 3 has its checksum."""

_REALTIME, _IMMUTABLE, _APPEND = 0x1, 0x8, 0x10
_FLAGGED = _IMMUTABLE | _APPEND
_BIG_TIME, _LARGE_COUNTS = 0x8, 0x10  # bits of flags2
_BIG_TIME_EPOCH = (1 << 31) * 10**9
_DIRECTORY, _PLAIN = 0o040, 0o100  # S_IFMT >> 9
_DEVICES = frozenset({0o020, 0o060})
_TYPES = _DEVICES | {0o010, _DIRECTORY, _PLAIN, 0o120, 0o140}


class Fork(msgspec.Struct, frozen=True):
    """`data` is what stands in the inode itself; `extents` how many the inode says that there are."""

    format: int
    data: bytes
    extents: int


class Inode(msgspec.Struct, frozen=True):
    attributes: Attributes
    data: Fork
    extra: Fork | None  # of extended attributes
    realtime: bool


def _time(value: int) -> int:
    """Seconds and nanoseconds as two signed numbers of 32 bits, as ns since 1970."""
    seconds = value >> 32
    return (seconds - (seconds >> 31 << 32)) * 10**9 + (value & 0xFFFFFFFF)


def attributes(sb: Superblock, number: int, data: bytes, at: int = 0) -> Attributes:
    """Of the inode at `at`. NodeNotFound where a free one stands, Corrupt where none or another does."""
    (
        magic, mode, version, _format, links_v1, owner, group, links, accessed, modified, changed, size, blocks, bits, generation,
        _crc, bits2, created, own,
    ) = CORE.unpack_from(data, at)  # fmt: skip
    if magic != _MAGIC or version not in (1, 2, 3) or (version == 3 and own != number):
        raise Corrupt("no inode stands where one should", f"inode {number}")
    if mode == 0:
        raise NodeNotFound("the file does not exist", f"inode {number} is free")
    kind = mode >> 9 & 0o170
    if size < 0 or (kind != _PLAIN and kind not in _TYPES):
        raise Corrupt("an inode contradicts itself", f"inode {number}: mode {mode:o}, size {size}")
    born: int | None = None
    if version == 3 and bits2 & _BIG_TIME:
        accessed -= _BIG_TIME_EPOCH
        modified -= _BIG_TIME_EPOCH
        changed -= _BIG_TIME_EPOCH
        born = created - _BIG_TIME_EPOCH
    else:
        accessed, modified, changed = _time(accessed), _time(modified), _time(changed)
        if version == 3:
            born = _time(created)
        elif version == 1:
            links = links_v1
    flags = 0
    if bits & _FLAGGED:
        flags = (bits & _IMMUTABLE and int(Flag.IMMUTABLE)) | (bits & _APPEND and int(Flag.APPEND_ONLY))
    if size > sb.size or (blocks > sb.blocks and not bits & _REALTIME):
        flags |= Flag.SUSPICIOUS
    if sb.case_folded and kind == _DIRECTORY:
        flags |= Flag.CASE_FOLDED
    device = 0
    if kind in _DEVICES:
        # 14 bits of the major number and 18 of the minor, unlike the kernel's own form
        value = int.from_bytes(data[at + (header := _HEADER_V3 if version == 3 else _HEADER) : at + header + 4], "big")
        device = os.makedev(value >> 18, value & 0x3FFFF)
    taken = min(blocks << sb.block_log, (1 << 63) - 1)  # a lie of 64 bits of blocks, too, shall cross the socket
    return Attributes(
        number, generation, mode, links, owner, group, size, taken, modified, changed, accessed, born, device, flags
    )


def inode(sb: Superblock, number: int, data: bytes) -> Inode:
    """Whole, from exactly its bytes. Errors as in `attributes`."""
    told = attributes(sb, number, data)
    version, form = data[4], data[5]
    flags2 = int.from_bytes(data[120:128], "big") if version == 3 else 0
    many, count, few, where, extra_form = _FORKS.unpack_from(data)
    if flags2 & _LARGE_COUNTS:
        count, few = many, count
    header = _HEADER_V3 if version == 3 else _HEADER
    end = header + where * 8
    if where and end >= len(data):
        raise Corrupt("an inode contradicts itself", f"inode {number}: its second fork begins at {end}")
    extra = Fork(extra_form, data[end:], few) if where else None
    realtime = bool(int.from_bytes(data[90:92], "big") & _REALTIME)
    return Inode(told, Fork(form, data[header : end if where else len(data)], count), extra, realtime)
