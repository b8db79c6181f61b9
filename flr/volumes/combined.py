# SPDX-License-Identifier: Apache-2.0
"""Volumes made of several others: one after the other, and in stripes.

A mirror needs nothing of its own: it is one of its copies. A part is a volume of exactly the size that is used of it (a `Window`),
so nothing outside of the parts can be read, whatever a guest wrote. Not here: which parts belong together (`lvm_group`, `md`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate

from flr.blocks import Segment, Volume, joined


class Concatenated(Volume):
    """The parts one after the other. A read costs one read of each part that it touches."""

    def __init__(self, parts: Sequence[Volume]) -> None:
        self._parts = [part for part in parts if part.size]
        self._starts = [0, *accumulate(part.size for part in self._parts)]
        self.size = self._starts.pop()
        self.sector_size = max((part.sector_size for part in self._parts), default=512)

    def _pieces(self, offset: int, length: int) -> Iterator[tuple[Volume, int, int]]:
        """(part, offset in it, bytes) in the volume's order."""
        index = bisect_right(self._starts, offset) - 1
        while length:
            part, at = self._parts[index], offset - self._starts[index]
            take = min(length, part.size - at)
            yield part, at, take
            offset, length, index = offset + take, length - take, index + 1

    def pread(self, offset: int, length: int) -> bytes:
        self.check(offset, length)
        return b"".join(part.pread(at, take) for part, at, take in self._pieces(offset, length))

    def locate(self, offset: int, length: int) -> list[Segment]:
        self.check(offset, length)
        return joined(s for part, at, take in self._pieces(offset, length) for s in part.locate(at, take))

    def prefetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        wanted: dict[int, tuple[Volume, list[tuple[int, int]]]] = {}
        for offset, length in ranges:
            if offset >= 0 and length >= 0 and offset + length <= self.size:
                for part, at, take in self._pieces(offset, length):
                    wanted.setdefault(id(part), (part, []))[1].append((at, take))
        for part, inside in wanted.values():
            part.prefetch(inside)


class Striped(Volume):
    """Chunks of `chunk` bytes in turn from each part. Parts are of one size; where it is no multiple of `chunk`, the last chunk
    of each is the shorter.

    What one read wants of a part stands there in one piece, so a read costs one read of each part, however many chunks it has.
    """

    def __init__(self, parts: Sequence[Volume], chunk: int) -> None:
        if chunk <= 0 or not parts or len({part.size for part in parts}) != 1:
            raise ValueError("stripes want parts of one size, and chunks")
        self._parts = list(parts)
        self._chunk = chunk
        self._whole = parts[0].size // chunk * chunk
        self.size = parts[0].size * len(parts)
        self.sector_size = max(part.sector_size for part in parts)

    def _pieces(self, offset: int, length: int) -> Iterator[tuple[int, int, int]]:
        """(part's number, offset in it, bytes) in the volume's order, a chunk at a time."""
        count, tail = len(self._parts), self._parts[0].size - self._whole
        while length:
            if offset < self._whole * count:
                number, within = divmod(offset, self._chunk)
                row, part = divmod(number, count)
                at, left = row * self._chunk + within, self._chunk - within
            else:
                part, within = divmod(offset - self._whole * count, tail)
                at, left = self._whole + within, tail - within
            take = min(length, left)
            yield part, at, take
            offset, length = offset + take, length - take

    def _spans(self, offset: int, length: int) -> dict[int, tuple[int, int]]:
        """By part's number: from where to where it is wanted. Whole rows in the middle want all of every part."""
        spans: dict[int, tuple[int, int]] = {}
        row = self._chunk * len(self._parts)
        ends = [(offset, length)]
        if length > 2 * row:
            ends = [(offset, row), (offset + length - row, row)]
        for start, size in ends:
            for part, at, take in self._pieces(start, size):
                low, high = spans.get(part, (at, at))
                spans[part] = min(low, at), max(high, at + take)
        return spans

    def pread(self, offset: int, length: int) -> bytes:
        self.check(offset, length)
        spans = self._spans(offset, length)
        read = {part: memoryview(self._parts[part].pread(low, high - low)) for part, (low, high) in spans.items()}
        return b"".join(
            read[part][at - spans[part][0] : at - spans[part][0] + take]
            for part, at, take in self._pieces(offset, length)
        )

    def locate(self, offset: int, length: int) -> list[Segment]:
        self.check(offset, length)
        return joined(s for part, at, take in self._pieces(offset, length) for s in self._parts[part].locate(at, take))

    def prefetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        wanted: dict[int, list[tuple[int, int]]] = {}
        for offset, length in ranges:
            if offset >= 0 and length >= 0 and offset + length <= self.size:
                for part, (low, high) in self._spans(offset, length).items():
                    wanted.setdefault(part, []).append((low, high - low))
        for part, inside in wanted.items():
            self._parts[part].prefetch(inside)
