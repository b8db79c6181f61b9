# SPDX-License-Identifier: Apache-2.0
"""Disks for the tests of volumes: files that are read by position, changed in memory, and watched."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Callable, Sequence
from pathlib import Path

from flr.blocks import Extent, MemoryDisk, Segment, Volume, read_segments

STEP = (1 << 20) + 12345
"""Bytes of a read when a whole volume is read: no multiple of anything."""


class Changed(Volume):
    """Disk `number` from a file or bytes, with some of them replaced in memory, perhaps cut."""

    def __init__(self, content: Path | bytes, number: int = 0, size: int | None = None) -> None:
        self._data = content if isinstance(content, bytes) else self._mapped(content)
        self.size = len(self._data) if size is None else size
        self._number = number
        self._replaced: dict[int, bytes] = {}

    @staticmethod
    def _mapped(file: Path) -> mmap.mmap:
        with open(file, "rb") as opened:
            return mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)

    def put(self, offset: int, data: bytes) -> Changed:
        self._replaced[offset] = data
        return self

    def clear(self) -> None:
        self._replaced.clear()

    def pread(self, offset: int, length: int) -> bytes:
        self.check(offset, length)
        made = bytearray(self._data[offset : offset + length])
        for at, data in self._replaced.items():
            low, high = max(at, offset), min(at + len(data), offset + length)
            if low < high:
                made[low - offset : high - offset] = data[low - at : high - at]
        return bytes(made)

    def locate(self, offset: int, length: int) -> list[Segment]:
        self.check(offset, length)
        return [Extent(self._number, offset, length)] if length else []


def files(disk: Callable[[str], Path], *names: str) -> list[Changed]:
    return [Changed(disk(name), number) for number, name in enumerate(names)]


def digest(volume: Volume) -> str:
    """SHA-256 of all of it, read in steps of no round size."""
    made = hashlib.sha256()
    for at in range(0, volume.size, STEP):
        made.update(volume.pread(at, min(STEP, volume.size - at)))
    return made.hexdigest()


def located(disks: Sequence[Volume], volume: Volume) -> str:
    """The same by `locate`, from the disks themselves."""
    made = hashlib.sha256()
    for at in range(0, volume.size, STEP):
        made.update(read_segments(disks, volume.locate(at, min(STEP, volume.size - at))))
    return made.hexdigest()


def disk(*parts: tuple[int, bytes], size: int = 1 << 20, number: int = 0) -> MemoryDisk:
    """A disk of zeros with these bytes at these offsets."""
    data = bytearray(size)
    for at, part in parts:
        data[at : at + len(part)] = part
    return MemoryDisk(bytes(data), number)
