# SPDX-License-Identifier: Apache-2.0
"""Items of the log decoded: which sectors a buffer's parts replace, and an inode as it would stand on the disk.

From "XFS Algorithms & Data Structures", chapter "Journaling Log", with the log of a little-endian machine: inodes' fixed part and
the roots of trees are logged as they are in memory and are turned into the disk's form here. Not here: which items are applied
and in which order (`replay`).
"""

from __future__ import annotations

import struct

import msgspec

from flr.errors import Corrupt
from flr.fs.xfs.superblock import Superblock
from flr.fs.xfs.transactions import Item

INODE, BUFFER, CREATED = 0x123B, 0x123C, 0x123F
MAP, MAP_DONE, ATTRIBUTE, ATTRIBUTE_DONE, EXCHANGE, EXCHANGE_DONE = 0x1244, 0x1245, 0x1246, 0x1247, 0x1248, 0x1249
FIRST_KNOWN, LAST_KNOWN = 0x1236, 0x124F
"""The others between them are of quota, free space and counts of references, which no reader looks at."""

INODE_LINKS, CANCEL = 0x1, 0x2
QUOTA = 0x4 | 0x8 | 0x10
_CHUNK = 128  # bytes that a bit of a buffer's map stands for
_BUFFER = struct.Struct("<HHHHqI")
_INODE = struct.Struct("<HHIHH4xQ16xqii")
_INODE_32 = struct.Struct("<HHIHHQ16xqii")  # of a machine of 32 bits, without the gap
_CLUSTER = struct.Struct("<qi4x")  # at the end of either
_CREATED = struct.Struct(">IIIIII")
_DEVICE_AT = {_INODE.size: 24, _INODE_32.size: 20}

_DATA = 0x2 | 0x4 | 0x8  # bits of an inode's fields: the fork's bytes, extents, root of a tree
_DATA_ROOT = 0x8
_DEVICE = 0x10
_EXTRA = 0x40 | 0x80 | 0x100
_EXTRA_ROOT = 0x100

_CORE, _CORE_V3 = 96, 104  # what is behind the former is of version 3 only; what is between them is not logged
_HEADER, _HEADER_V3 = 100, 176
_BIG_TIME, _LARGE_COUNTS = 0x8, 0x10
_MOST_CREATED = 256
"""Inodes of one chunk: 64, or as many as a block of 64 KiB holds."""


def _both(form: str) -> tuple[struct.Struct, struct.Struct]:
    return struct.Struct("<" + form), struct.Struct(">" + form)


_FIXED = {
    (large, big_time): _both("HHBB2sIIIHH" + ("Q" if large else "6sH") + ("3Q" if big_time else "6i") + "QQIIHBBIHHI")
    for large in (False, True)
    for big_time in (False, True)
}
_FIXED_V3 = {big_time: _both("QQQI12s" + ("Q" if big_time else "2i") + "Q16s") for big_time in (False, True)}


def place(item: Item) -> tuple[int, int, int]:
    """Of a buffer: its flags, and its offset and length in bytes of the volume."""
    if len(item[0]) < _BUFFER.size:
        raise Corrupt("a buffer of the log contradicts itself", f"{len(item[0])} bytes")
    _, _, flags, length, sector, _ = _BUFFER.unpack_from(item[0])
    if sector < 0 or not length:
        raise Corrupt("a buffer of the log contradicts itself", f"{length} sectors at {sector}")
    return flags, sector * 512, length * 512


class Buffer(msgspec.Struct, frozen=True):
    """`offset` and `length` in bytes of the volume; `parts` are places within and what belongs there."""

    flags: int
    offset: int
    length: int
    parts: list[tuple[int, bytes]]


def buffer(item: Item) -> Buffer:
    flags, offset, length = place(item)
    first = item[0]
    words = int.from_bytes(first[16:20], "little")
    if len(first) < _BUFFER.size + words * 4:
        raise Corrupt("a buffer of the log contradicts itself", f"a map of {words} words")
    parts: list[tuple[int, bytes]] = []
    bits = int.from_bytes(first[_BUFFER.size : _BUFFER.size + words * 4], "little")
    at = 0
    for region in item[1:]:
        rest = bits >> at
        if not rest:
            raise Corrupt("a buffer of the log has more parts than its map")
        gap = (rest & -rest).bit_length() - 1
        rest >>= gap
        at += gap
        count = min((rest ^ rest + 1).bit_length() - 1, len(region) // _CHUNK)  # bits set in a row
        if not count or (at + count) * _CHUNK > length:
            raise Corrupt("a buffer of the log contradicts itself", f"{len(region)} bytes at {at * _CHUNK}")
        parts.append((at * _CHUNK, region[: count * _CHUNK]))
        at += count
    return Buffer(flags, offset, length, parts)


def cluster(item: Item) -> tuple[int, int]:
    """Of an inode: where the inodes stand that are read and written with it, offset and length in bytes of the volume."""
    sector, length = (
        _CLUSTER.unpack_from(item[0], len(item[0]) - _CLUSTER.size) if len(item[0]) >= _CLUSTER.size else (0, 0)
    )
    return sector * 512, length * 512


class LoggedInode(msgspec.Struct, frozen=True):
    number: int
    fields: int
    buffer: tuple[int, int]
    """Offset and length of the cluster of inodes that it stands in, in bytes of the volume."""
    offset: int
    device: bytes
    core: bytes
    forks: list[bytes]


def inode(item: Item) -> LoggedInode:
    first = item[0]
    form = {_INODE.size: _INODE, _INODE_32.size: _INODE_32}.get(len(first))
    if form is None or len(item) < 2:
        raise Corrupt("an inode of the log contradicts itself", f"{len(first)} bytes, {len(item)} regions")
    _, _, fields, _, _, number, sector, length, within = form.unpack_from(first)
    if sector < 0 or length <= 0 or not 0 <= within < length * 512:
        raise Corrupt(
            "an inode of the log contradicts itself", f"inode {number}: {within} of {length} sectors at {sector}"
        )
    at = _DEVICE_AT[len(first)]
    return LoggedInode(
        number, fields, (sector * 512, length * 512), sector * 512 + within, first[at : at + 4], item[1], item[2:]
    )


def on_disk(sb: Superblock, logged: LoggedInode, current: bytes, lsn: int) -> bytes:
    """The inode as it would be written over `current`, but for its checksum."""
    core = logged.core
    version = core[4] if len(core) >= _CORE else 0
    header = _HEADER_V3 if version == 3 else _HEADER
    if core[:2] != b"NI" or version not in (1, 2, 3) or (version == 3 and len(core) < header):
        raise Corrupt("an inode of the log contradicts itself", f"inode {logged.number}: {len(core)} bytes of it")
    made = bytearray(current)
    flags2 = int.from_bytes(core[120:128], "little") if version == 3 else 0
    big_time = bool(flags2 & _BIG_TIME)
    little, big = _FIXED[bool(flags2 & _LARGE_COUNTS), big_time]
    made[:_CORE] = big.pack(*little.unpack_from(core))
    if version == 3:
        little, big = _FIXED_V3[big_time]
        made[_CORE_V3:header] = big.pack(*little.unpack_from(core, _CORE_V3))
        made[112:120] = lsn.to_bytes(8, "big")
    if logged.fields & _DEVICE:
        made[header : header + 4] = logged.device[::-1]
    middle = header + made[82] * 8
    forks = list(logged.forks)
    for wanted, root, start, end in (
        (_DATA, _DATA_ROOT, header, middle if made[82] else len(made)),
        (_EXTRA, _EXTRA_ROOT, middle, len(made)),
    ):
        if not logged.fields & wanted:
            continue
        fork = forks.pop(0) if forks else b""
        if logged.fields & root:
            fork = _root(sb, fork, end - start)
        if not 0 < len(fork) <= end - start:
            raise Corrupt(
                "an inode of the log contradicts itself", f"inode {logged.number}: a fork of {len(fork)} bytes"
            )
        made[start : start + len(fork)] = fork
    return bytes(made)


def _root(sb: Superblock, block: bytes, room: int) -> bytes:
    """The root of a tree of extents, kept in memory with the header of a whole block, as it stands in an inode of `room` bytes."""
    header = 72 if sb.version == 5 else 24
    most = (len(block) - header) // 16
    fits = (room - 4) // 16
    count = int.from_bytes(block[6:8], "big")
    if not 0 < count <= min(most, fits):
        raise Corrupt("a root in the log contradicts itself", f"{count} children, room for {fits} and {most}")
    made = bytearray(room)
    made[:4] = block[4:8]
    made[4 : 4 + count * 8] = block[header : header + count * 8]
    pointers = header + most * 8
    made[4 + fits * 8 : 4 + (fits + count) * 8] = block[pointers : pointers + count * 8]
    return bytes(made)


class Created(msgspec.Struct, frozen=True):
    """A chunk of new, free inodes: `block` counts from the beginning of the volume, `first` is the first one's number."""

    block: int
    blocks: int
    count: int
    first: int
    generation: int


def created(sb: Superblock, item: Item) -> Created:
    """Its numbers are in the disk's byte order, unlike all others of the log."""
    first = item[0]
    if len(first) < 4 + _CREATED.size:
        raise Corrupt("new inodes of the log contradict themselves", f"{len(first)} bytes")
    group, block, count, size, length, generation = _CREATED.unpack_from(first, 4)
    if size != sb.inode_size or count << sb.inode_log != length << sb.block_log or not 0 < count <= _MOST_CREATED:
        raise Corrupt("new inodes of the log contradict themselves", f"{count} of {size} bytes in {length} blocks")
    number = (group << sb.group_log | block) << sb.inodes_per_block_log
    return Created(group * sb.group_blocks + block, length, count, number, generation)


def fresh(sb: Superblock, made: Created) -> bytes:
    """The chunk's bytes, but for checksums."""
    one = bytearray(sb.inode_size)
    one[:6] = b"IN\0\0\3\0"
    one[92:100] = made.generation.to_bytes(4, "big") + b"\xff" * 4
    one[160:176] = sb.metadata_uuid
    data = bytearray()
    for number in range(made.first, made.first + made.count):
        one[152:160] = number.to_bytes(8, "big")
        data += one
    return bytes(data)
