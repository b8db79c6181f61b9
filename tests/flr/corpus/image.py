# SPDX-License-Identifier: Apache-2.0
"""Volumes for tests: an image file that counts what is read of it, and one in which bytes are changed without touching the file."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from flr.blocks import Extent, MemoryDisk, Segment, Volume

CHUNK = 20
"""Log2 of the chunks in which a restore point is fetched."""


@contextmanager
def opened(image: Path) -> Iterator[MemoryDisk]:
    """The image as a disk; nothing holds the file afterwards."""
    with open(image, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
        yield MemoryDisk(data)  # type: ignore[arg-type]  # sliced as bytes are


class Image(Volume):
    """Disk 0. `reads` counts requests, `chunks` holds the numbers of the chunks that they touched, `sectors` those of sectors."""

    def __init__(self, path: Path, sector_size: int = 512) -> None:
        self.sector_size = sector_size
        with open(path, "rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        self.size = len(self._map)
        self.reads = 0
        self.chunks: set[int] = set()
        self.sectors: set[int] = set()
        self.hints = 0

    def pread(self, offset: int, length: int) -> bytes:
        self.check(offset, length)
        self.reads += 1
        if length:
            self.chunks.update(range(offset >> CHUNK, ((offset + length - 1) >> CHUNK) + 1))
            self.sectors.update(range(offset // 512, (offset + length - 1) // 512 + 1))
        return self._map[offset : offset + length]

    def locate(self, offset: int, length: int) -> list[Segment]:
        self.check(offset, length)
        return [Extent(0, offset, length)] if length else []

    def prefetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        self.hints += 1


class Changed(Volume):
    """Another volume with some bytes in place of its own."""

    def __init__(self, volume: Volume, size: int | None = None) -> None:
        self._volume = volume
        self.size = volume.size if size is None else size
        self.sector_size = volume.sector_size
        self._changes: list[tuple[int, bytes]] = []

    def put(self, offset: int, data: bytes) -> None:
        self._changes.append((offset, data))

    def pread(self, offset: int, length: int) -> bytes:
        self.check(offset, length)
        data = bytearray(self._volume.pread(offset, length))
        for at, new in self._changes:
            low, high = max(at, offset), min(at + len(new), offset + length)
            if low < high:
                data[low - offset : high - offset] = new[low - at : high - at]
        return bytes(data)

    def locate(self, offset: int, length: int) -> list[Segment]:
        self.check(offset, length)
        return [Extent(0, offset, length)] if length else []
