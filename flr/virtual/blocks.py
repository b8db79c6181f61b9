# SPDX-License-Identifier: Apache-2.0
"""Where a virtual disk's blocks come from: a restore point's map, or a disk that can be read (an image, a page blob).

Both say which blocks one request brings, and bring them. Both are safe for many threads. Not here: what is kept.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from flr.virtual.cache import Data
from mover.disk.source import DiskSource
from mover.disk_restore import DiskRestore, RestoreWork
from mover.repository.map_store import pages_kept
from mover.repository.maps import BLOCK_SIZE, MapEntry
from mover.repository.repository import Point, Repository
from mover.restore_steps import Want, neighbours

Request = Any
"""What one round to the store brings; only its maker looks into it."""


class Blocks(Protocol):
    """Blocks of BLOCK_SIZE bytes, the last one perhaps shorter, of a disk of `size` bytes."""

    size: int
    sector_size: int

    def plan(self, blocks: Sequence[int]) -> tuple[list[tuple[Request, list[int]]], list[int]]:
        """The requests that bring these blocks, each with the blocks that it brings; and the blocks that are zeros, without one.

        What `mover.repository.reader` raises when the map cannot be read."""

    def fetch(self, request: Request) -> Iterator[tuple[int, Data]]:
        """(block, its bytes) of each. What the store and `mover.repository.reader` raise."""


class PointBlocks:
    """Disk `number` of a restore point, of which the caller holds the point; `check` raises when it no longer does."""

    def __init__(self, repository: Repository, point: Point, number: int, check: Callable[[], None]) -> None:
        self._check = check
        self._restore = DiskRestore(RestoreWork(repository, point, lambda: None), number)
        self._map = self._restore.reader(pages_kept(len(point.header.disks)))
        self.size = self._restore.size
        self.sector_size = point.body.disks[number].sector_size if number < len(point.body.disks) else 512

    def plan(self, blocks: Sequence[int]) -> tuple[list[tuple[Request, list[int]]], list[int]]:
        self._check()
        wants: dict[MapEntry, Want] = {}
        zeros = []
        for block in blocks:
            entry = self._map.entry(block)
            if entry is None:
                zeros.append(block)
            else:
                wants.setdefault(entry, Want(entry, [])).blocks.append(block)
        runs = neighbours(sorted(wants.values(), key=lambda want: want.entry.place))
        return [(run, [block for want in run for block in want.blocks]) for run in runs], zeros

    def fetch(self, request: Request) -> Iterator[tuple[int, Data]]:
        for offset, _, data in self._restore.fetched(request):
            yield offset // BLOCK_SIZE, data


class SourceBlocks:
    """A disk that can be read as it is."""

    AT_ONCE = 4
    """Blocks of one request."""

    def __init__(self, source: DiskSource) -> None:
        self._source = source
        self.size = source.size
        self.sector_size = source.sector_size
        self._lock = threading.Lock()
        self._known: bytearray | None = None

    def plan(self, blocks: Sequence[int]) -> tuple[list[tuple[Request, list[int]]], list[int]]:
        allocated = self._allocated()
        zeros = [block for block in blocks if not allocated[block >> 3] >> (block & 7) & 1]
        runs: list[list[int]] = []
        for block in sorted(set(blocks) - set(zeros)):
            if runs and runs[-1][-1] == block - 1 and len(runs[-1]) < self.AT_ONCE:
                runs[-1].append(block)
            else:
                runs.append([block])
        return [(run, run) for run in runs], zeros

    def _allocated(self) -> bytearray:
        """A bit for each block: whether anything of it is allocated. Told by the source once, when it is first needed."""
        with self._lock:
            if self._known is None:
                known = bytearray(self.size // BLOCK_SIZE // 8 + 1)
                for offset, length in self._source.extents():
                    for block in range(offset // BLOCK_SIZE, (offset + length - 1) // BLOCK_SIZE + 1):
                        known[block >> 3] |= 1 << (block & 7)
                self._known = known
            return self._known

    def fetch(self, request: Request) -> Iterator[tuple[int, Data]]:
        start = request[0] * BLOCK_SIZE
        buffers = [bytearray(min(BLOCK_SIZE, self.size - block * BLOCK_SIZE)) for block in request]
        self._source.read_into(start, buffers)
        yield from zip(request, buffers, strict=True)
