# SPDX-License-Identifier: Apache-2.0
"""A volume with some of its blocks replaced in memory: what a journal's replay would have written.

Not here: how a journal is read (`flr.fs.ext.journal`, `flr.fs.xfs.log`). The volume below is never written.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flr.blocks import Literal, Places, Records, Segment, Volume, joined
from flr.errors import TooMuch

MOST_BYTES = 256 << 20
"""That replays may hold; the largest journal that mkfs makes by default is 1 GiB of ext or 2 GiB of XFS, seldom full."""
LOOKED_UP = 64
"""Blocks of a read that are looked for one by one; of a longer one by their order."""


class Overlay(Volume):
    """Replaced blocks of `unit` bytes each, over `volume`."""

    def __init__(self, volume: Volume, unit: int) -> None:
        self.size = volume.size
        self.sector_size = volume.sector_size
        self.unit = unit
        self._volume = volume
        self._blocks: dict[int, bytes] = {}
        self._sorted: Places | None = None

    def __len__(self) -> int:
        """Replaced blocks."""
        return len(self._blocks)

    def put(self, offset: int, data: bytes) -> None:
        """`data` in place of what stands at `offset`. OutOfBounds outside of the volume, TooMuch beyond MOST_BYTES."""
        self.check(offset, len(data))
        unit = self.unit
        end = offset + len(data)
        first, last = offset // unit * unit, -(-end // unit) * unit
        if first != offset or last != end:
            last = min(last, self.size)
            data = self.pread(first, offset - first) + data + self.pread(end, last - end)
        for at in range(0, len(data), unit):
            self._blocks[(first + at) // unit] = data[at : at + unit]
        self._sorted = None
        if len(self._blocks) * unit > MOST_BYTES:
            raise TooMuch("a journal holds more than can be replayed in memory", f"{len(self._blocks) * unit} bytes")

    def _within(self, offset: int, length: int) -> list[int]:
        """Replaced blocks that have bytes of the range, ascending."""
        first, end = offset // self.unit, -(-(offset + length) // self.unit)
        if end - first <= LOOKED_UP:
            return [number for number in range(first, end) if number in self._blocks]
        replaced = self._ascending()
        low, high = np.searchsorted(replaced, (first, end)).tolist()
        found: list[int] = replaced[low:high].tolist()
        return found

    def _ascending(self) -> Places:
        if self._sorted is None:
            self._sorted = np.array(sorted(self._blocks), np.int64)
        return self._sorted

    def replaced(self, offset: int, length: int) -> bool:
        """Whether any of these bytes are."""
        return bool(self._blocks) and bool(self._within(offset, length))

    def pread(self, offset: int, length: int) -> bytes:
        data = self._volume.pread(offset, length)
        blocks = self._blocks
        if not blocks:
            return data
        unit = self.unit
        first, within = divmod(offset, unit)
        if within + length <= unit:  # nearly every read of a structure
            block = blocks.get(first)
            return data if block is None else block[within : within + length]
        found = self._within(offset, length)
        if not found:
            return data
        made = bytearray(data)
        for number in found:
            at = number * unit - offset
            low, high = max(at, 0), min(at + unit, length)
            made[low:high] = blocks[number][low - at : high - at]
        return bytes(made)

    def locate(self, offset: int, length: int) -> list[Segment]:
        self.check(offset, length)
        made: list[Segment] = []
        at, end = offset, offset + length
        for number in self._within(offset, length):
            low, high = max(number * self.unit, offset), min((number + 1) * self.unit, end)
            made += self._volume.locate(at, low - at)
            made.append(Literal(self._blocks[number][low - number * self.unit : high - number * self.unit]))
            at = high
        made += self._volume.locate(at, end - at)
        return joined(made)

    def gather(self, places: Places, size: int) -> Records:
        found = self._volume.gather(places, size)
        if self._blocks and len(places):
            replaced = self._ascending()
            first = np.searchsorted(replaced, places // self.unit)
            last = np.searchsorted(replaced, (places + size - 1) // self.unit, side="right")
            for k in np.flatnonzero(last > first).tolist():
                found[k] = np.frombuffer(self.pread(int(places[k]), size), np.uint8)
        return found

    def prefetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        self._volume.prefetch(ranges)
