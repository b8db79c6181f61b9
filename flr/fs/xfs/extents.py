# SPDX-License-Identifier: Apache-2.0
"""Where the blocks of a fork are: extents in the inode, or in a tree below it.

From "XFS Algorithms & Data Structures", chapter "Data Extents". The tree is descended without recursion, each level one lower
than the one above it, and positions only ascend: so no cycle is walked twice, and work ends with the blocks that the volume
has. An extent that was allocated and never written is a hole: what stands there belonged to others.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator
from itertools import pairwise

import msgspec

from flr.errors import Corrupt
from flr.fs.xfs.blocks import Blocks
from flr.fs.xfs.inode import BTREE, EXTENTS, Fork

_RECORD = struct.Struct(">QQ")
_ROOT = struct.Struct(">HH")
_NODE = struct.Struct(">4sHH")
_OWNER = struct.Struct(">Q")
_DEEPEST = 12
"""Levels; 2^54 blocks need fewer even with the smallest blocks."""


class Mapping(msgspec.Struct, frozen=True):
    """`count` blocks of a fork from `start` on, in the file system's from `block` on. Unwritten ones read as zeros."""

    start: int
    block: int
    count: int
    unwritten: bool

    @property
    def end(self) -> int:
        return self.start + self.count


def mappings(blocks: Blocks, number: int, fork: Fork, first: int = 0) -> Iterator[Mapping]:
    """In order, from the one on that has block `first` of the fork or follows it.

    Corrupt, at its place, where the fork of inode `number` is none of extents or contradicts itself or the file system.
    """
    if fork.format == EXTENTS:
        if fork.extents * 16 > len(fork.data):
            raise Corrupt("an inode contradicts itself", f"inode {number}: {fork.extents} extents within it")
        lists = iter([fork.data[: fork.extents * 16]])
    elif fork.format == BTREE:
        lists = _leaves(blocks, number, fork.data, first)
    else:
        raise Corrupt("an inode contradicts itself", f"inode {number}: its blocks are kept in form {fork.format}")
    end = 0
    for records in lists:
        for high, low in _RECORD.iter_unpack(records):
            start, count = high >> 9 & 0x3FFFFFFFFFFFFF, low & 0x1FFFFF
            block = (high & 0x1FF) << 43 | low >> 21
            if start < end or not count:
                raise Corrupt("extents are out of order", f"inode {number}, block {start} of the file")
            end = start + count
            if end > first:
                yield Mapping(start, block, count, bool(high >> 63))


def _leaves(blocks: Blocks, number: int, root: bytes, first: int) -> Iterator[bytes]:
    """The records of each leaf from the one on that may have block `first`."""
    level, count = _ROOT.unpack_from(root)
    if not 0 < level <= _DEEPEST:
        raise Corrupt("a tree of extents contradicts itself", f"inode {number}: {level} levels")
    todo = [(level, pointer) for pointer in _children(root[4:], count, first, number)]
    while todo:
        above, block = todo.pop()
        data = blocks.read(block)
        head, offset = (72, blocks.offset(block, 1)) if blocks.v5 else (24, 0)
        magic, level, count = _NODE.unpack_from(data)
        if magic != (b"BMA3" if blocks.v5 else b"BMAP") or level != above - 1:
            raise Corrupt("a tree of extents contradicts itself", f"inode {number}: block {block:#x}")
        if blocks.v5:
            blocks.verify(data, 64, offset, f"the tree of extents of inode {number}")
            if _OWNER.unpack_from(data, 56)[0] != number:
                raise Corrupt("a tree of extents is another file's", f"inode {number}: block {block:#x}")
        if level:
            todo += [(level, pointer) for pointer in _children(data[head:], count, first, number)]
        elif not 0 < count * 16 <= len(data) - head:
            raise Corrupt("a tree of extents contradicts itself", f"inode {number}: {count} records in a block")
        else:
            yield data[head : head + count * 16]


def _children(data: bytes, count: int, first: int, number: int) -> list[int]:
    """Pointers of a node, last one first: from the one on below which block `first` may be."""
    room = len(data) // 16
    if not 0 < count <= room:
        raise Corrupt("a tree of extents contradicts itself", f"inode {number}: {count} children in a block")
    keys = struct.unpack_from(f">{count}Q", data)
    pointers = struct.unpack_from(f">{count}Q", data, room * 8)
    if any(a >= b for a, b in pairwise(keys)):
        raise Corrupt("extents are out of order", f"inode {number}, in the tree above them")
    return list(reversed(pointers[max(bisect_right(keys, first) - 1, 0) :]))
