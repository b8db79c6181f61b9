# SPDX-License-Identifier: Apache-2.0
"""From a file's blocks to the volume's: extent trees and the older indirect blocks.

Both answer `spans(inode, first, end)`: (first block of the file, blocks, block of the volume) ascending, of what is stored and
written; everything between is a hole, and so is an extent that is allocated but unwritten. Trees are gone down by an explicit
path, and entries must ascend and stay within what their parent says, so that a block that points at itself is an error and not an
endless tree. Format: Documentation/filesystems/ext4/{ifork,dynamic}.rst.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from flr.blocks import Volume
from flr.errors import Corrupt
from flr.fs.ext.checksum import crc32c
from flr.fs.ext.inode import HAS_EXTENTS, Inode
from flr.fs.ext.superblock import Superblock

EXTENT_MAGIC = 0xF30A
DEEPEST = 5
_HEADER = struct.Struct("<HHHH")
_LEAF = struct.Struct("<IHHI")
_INDEX = struct.Struct("<IIH2x")
UNWRITTEN = 32768
"""An extent of more blocks than this is one of (blocks - UNWRITTEN) that were never written."""
MOST_BLOCKS_READ = 4096
"""Of a tree, for one question: what comes after it is answered when it is asked for again."""


class Span(NamedTuple):
    logical: int
    blocks: int
    physical: int


class Stopped(NamedTuple):
    """Nothing more is known from `logical` on: the question was too large for one answer."""

    logical: int


class Mapping:
    def __init__(self, volume: Volume, superblock: Superblock, warn: Callable[[str], None]) -> None:
        self._volume = volume
        self._super = superblock
        self._warn = warn

    def spans(self, inode: Inode, first: int, end: int) -> Iterator[Span | Stopped]:
        """Within the file's blocks `first` to `end`. Corrupt, OutOfBounds."""
        if inode.flags & HAS_EXTENTS:
            return self._extents(inode, first, end)
        return self._indirect(inode, first, end)

    def _checked(self, inode: Inode, physical: int, count: int) -> None:
        s = self._super
        if physical <= s.first_block or physical + count > s.blocks:
            value = f"inode {inode.number}: {count} blocks at {physical}, of {s.blocks}"
            raise Corrupt("a file's blocks stand outside of its file system", value)

    # -- extents

    def _extents(self, inode: Inode, first: int, end: int) -> Iterator[Span | Stopped]:
        end = min(end, 1 << 32)
        todo: list[tuple[int, int, int]] = []  # (first block, end, block of the tree), the next one last
        node, low, high, depth = inode.block, 0, 1 << 32, -1
        levels: list[int] = []
        at = 0
        reads = 0
        while True:
            magic, count, most, height = _HEADER.unpack_from(node)
            right = magic == EXTENT_MAGIC and count <= most <= (len(node) - 12) // 12
            if not right or height > DEEPEST or (depth >= 0 and height != depth - 1):
                raise Corrupt("an extent tree's block is none", f"inode {inode.number}, file block {low}")
            if height == 0:
                for k in range(count):
                    logical, length, upper, lower = _LEAF.unpack_from(node, 12 + 12 * k)
                    unwritten = length > UNWRITTEN
                    length -= UNWRITTEN if unwritten else 0
                    if logical < max(at, low) or logical + length > high or not length:
                        raise Corrupt("an extent is out of order", f"inode {inode.number}, file block {logical}")
                    at = logical + length
                    if at <= first or unwritten:
                        continue
                    if logical >= end:
                        return
                    physical = lower | upper << 32
                    self._checked(inode, physical, length)
                    cut = max(first - logical, 0)
                    yield Span(logical + cut, min(at, end) - logical - cut, physical + cut)
            else:
                below: list[tuple[int, int, int]] = []
                for k in range(count):
                    logical, lower, upper = _INDEX.unpack_from(node, 12 + 12 * k)
                    if logical < low or logical >= high or (below and logical <= below[-1][0]):
                        raise Corrupt("an extent tree is out of order", f"inode {inode.number}, file block {logical}")
                    if below:
                        below[-1] = (below[-1][0], logical, below[-1][2])
                    below.append((logical, high, lower | upper << 32))
                chosen = [entry for entry in below if entry[1] > first and entry[0] < end]
                todo.extend(reversed(chosen))
                levels.extend([height] * len(chosen))
            if not todo:
                return
            low, high, block = todo.pop()
            depth = levels.pop()
            if reads == MOST_BLOCKS_READ:
                if low > first:
                    yield Stopped(low)
                    return
                raise Corrupt("an extent tree leads nowhere", f"inode {inode.number}, file block {low}")
            reads += 1
            self._checked(inode, block, 1)
            node = self._volume.pread(block * self._super.block_size, self._super.block_size)
            self._check_tree_block(inode, node)

    def _check_tree_block(self, inode: Inode, node: bytes) -> None:
        """Its checksum stands behind the last entry that would have room."""
        if not self._super.checksums:
            return
        tail = 12 + 12 * ((len(node) - 12) // 12)
        if tail + 4 <= len(node) and crc32c(inode.seed, node[:tail]) != struct.unpack_from("<I", node, tail)[0]:
            self._warn(f"inode {inode.number}: a block of its extent tree has a wrong checksum")

    # -- indirect blocks

    def _indirect(self, inode: Inode, first: int, end: int) -> Iterator[Span | Stopped]:
        per = self._super.block_size // 4
        roots = struct.unpack("<15I", inode.block)
        # (first file block, block of the volume, levels below it), the next one last
        todo: list[tuple[int, int, int]] = []
        start = 12
        for levels in (1, 2, 3):
            todo.append((start, roots[11 + levels], levels))
            start += per**levels
        todo.reverse()
        todo.extend((k, roots[k], 0) for k in range(11, -1, -1))
        pending: Span | None = None
        reads = 0
        while todo:
            logical, block, levels = todo.pop()
            if logical >= end:
                break
            if logical + per**levels <= first or not block:
                continue
            if levels == 0:
                self._checked(inode, block, 1)
                if pending and (pending.logical + pending.blocks, pending.physical + pending.blocks) == (
                    logical,
                    block,
                ):
                    pending = Span(pending.logical, pending.blocks + 1, pending.physical)
                else:
                    if pending:
                        yield pending
                    pending = Span(logical, 1, block)
                continue
            if reads == MOST_BLOCKS_READ:
                if pending:
                    yield pending
                if logical <= first:
                    raise Corrupt("a file's indirect blocks lead nowhere", f"inode {inode.number}")
                yield Stopped(logical)
                return
            reads += 1
            self._checked(inode, block, 1)
            raw = self._volume.pread(block * self._super.block_size, self._super.block_size)
            size = per ** (levels - 1)
            low = max(0, (first - logical) // size)
            high = min(per, -(-(end - logical) // size))
            below = struct.unpack_from(f"<{high - low}I", raw, 4 * low)
            todo.extend(
                (logical + (low + k) * size, below[k], levels - 1) for k in range(high - low - 1, -1, -1) if below[k]
            )
        if pending:
            yield pending
