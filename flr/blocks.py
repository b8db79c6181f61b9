# SPDX-License-Identifier: Apache-2.0
"""Bytes by position: what every reader of partitions, volumes and file systems reads from, and how it says where a file lies.

A `Volume` is read-only and of a fixed size: a disk, a window of one, or something put together from several. `locate` tells
where its bytes stand on the disks, so that whoever wants a large file's bytes can fetch them from the disks and need not pass
them through the reader. Not here: caches, restore points, files (`flr.virtual`). Nothing here is for many threads: a volume
belongs to the thread that reads a file system.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from itertools import pairwise

import msgspec
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from flr.errors import OutOfBounds


class Hole(msgspec.Struct, frozen=True, array_like=True, tag="h"):
    """`length` bytes that read as zeros and are stored nowhere."""

    length: int


class Extent(msgspec.Struct, frozen=True, array_like=True, tag="x"):
    """`length` bytes of disk `disk` (counted from 0) from `offset` on."""

    disk: int
    offset: int
    length: int


class Literal(msgspec.Struct, frozen=True, array_like=True, tag="l"):
    """Bytes that stand on no disk in this form: of a journal, of an inode, compressed ones."""

    data: bytes

    @property
    def length(self) -> int:
        return len(self.data)


Segment = Hole | Extent | Literal


Places = NDArray[np.int64]
Records = NDArray[np.uint8]
PIECE = 1 << 18
"""Bytes of a volume that `gather` reads as one piece."""


def records(data: bytes | bytearray, places: Places, size: int) -> Records:
    """A row of `size` bytes from each of `places` in `data`."""
    return sliding_window_view(np.frombuffer(data, np.uint8), size)[places]


def joined(segments: Iterable[Segment]) -> list[Segment]:
    """The same bytes in as few segments as possible, none of them empty."""
    made: list[Segment] = []
    for segment in segments:
        if segment.length == 0:
            continue
        last = made[-1] if made else None
        if isinstance(segment, Hole) and isinstance(last, Hole):
            made[-1] = Hole(last.length + segment.length)
        elif (
            isinstance(segment, Extent)
            and isinstance(last, Extent)
            and (segment.disk, segment.offset) == (last.disk, last.offset + last.length)
        ):
            made[-1] = Extent(last.disk, last.offset, last.length + segment.length)
        else:
            made.append(segment)
    return made


class Volume(ABC):
    """`size` in bytes; `sector_size` is the disk's logical one, in bytes."""

    size: int
    sector_size: int = 512

    @abstractmethod
    def pread(self, offset: int, length: int) -> bytes:
        """Exactly so many bytes. OutOfBounds where the volume has not so many; nothing outside of it is ever read."""

    @abstractmethod
    def locate(self, offset: int, length: int) -> list[Segment]:
        """Where these bytes stand. OutOfBounds as in `pread`."""

    def prefetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        """These (offset, length) will be read soon: a hint. What lies outside of the volume is passed over."""

    def gather(self, places: Places, size: int) -> Records:
        """A record of `size` bytes from each of `places`, which ascend: many small ones of a table. OutOfBounds as in `pread`."""
        if not len(places):
            return np.zeros((0, size), np.uint8)
        self.check(int(places[0]), 0)
        self.check(int(places[-1]), size)
        pieces = []
        cuts = np.searchsorted(places, np.arange(int(places[0]) // PIECE + 1, int(places[-1]) // PIECE + 1) * PIECE)
        for low, high in pairwise([0, *cuts.tolist(), len(places)]):
            if low < high:
                start = int(places[low])
                data = self.pread(start, int(places[high - 1]) + size - start)
                pieces.append(records(data, places[low:high] - start, size))
        return np.concatenate(pieces)

    def check(self, offset: int, length: int) -> None:
        """OutOfBounds unless the volume has these bytes."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise OutOfBounds(
                "something points outside of its volume", f"{length} bytes at {offset}, of {self.size} bytes"
            )


class Window(Volume):
    """A part of another volume, as a partition is."""

    def __init__(self, volume: Volume, start: int, size: int) -> None:
        volume.check(start, size)
        self.size = size
        self.sector_size = volume.sector_size
        self._volume = volume
        self._start = start

    def pread(self, offset: int, length: int) -> bytes:
        self.check(offset, length)
        return self._volume.pread(self._start + offset, length)

    def locate(self, offset: int, length: int) -> list[Segment]:
        self.check(offset, length)
        return self._volume.locate(self._start + offset, length)

    def gather(self, places: Places, size: int) -> Records:
        if len(places):
            self.check(int(places[0]), 0)
            self.check(int(places[-1]), size)
        return self._volume.gather(places + self._start, size)

    def prefetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        inside = [(self._start + at, length) for at, length in ranges if at >= 0 and at + length <= self.size]
        self._volume.prefetch(inside)


class MemoryDisk(Volume):
    """Disk `number`, from memory."""

    def __init__(self, data: bytes, number: int = 0, sector_size: int = 512) -> None:
        self.size = len(data)
        self.sector_size = sector_size
        self._data = data
        self._number = number

    def pread(self, offset: int, length: int) -> bytes:
        self.check(offset, length)
        return self._data[offset : offset + length]

    def locate(self, offset: int, length: int) -> list[Segment]:
        self.check(offset, length)
        return [Extent(self._number, offset, length)] if length else []


def read_segments(disks: Sequence[Volume], segments: Iterable[Segment]) -> bytes:
    """The bytes that the segments name."""
    return b"".join(
        bytes(s.length)
        if isinstance(s, Hole)
        else s.data
        if isinstance(s, Literal)
        else disks[s.disk].pread(s.offset, s.length)
        for s in segments
    )
