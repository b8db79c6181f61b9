# SPDX-License-Identifier: Apache-2.0
"""Sets of block numbers as sorted, disjoint, half-open intervals. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator

Interval = tuple[int, int]


class Blocks:
    """A set of block numbers; a disk of 33 million blocks with few changes costs what its changes cost."""

    def __init__(self, intervals: Iterable[Interval] = ()) -> None:
        merged: list[list[int]] = []
        for start, end in sorted(intervals):
            if start >= end:
                continue
            if merged and start <= merged[-1][1]:
                merged[-1][1] = max(merged[-1][1], end)
            else:
                merged.append([start, end])
        self._intervals: list[Interval] = [(start, end) for start, end in merged]
        self._starts = [start for start, _ in self._intervals]
        self._before: list[int] = []
        total = 0
        for start, end in self._intervals:
            self._before.append(total)
            total += end - start
        self._total = total

    @classmethod
    def of_ranges(cls, ranges: Iterable[tuple[int, int]], block_size: int) -> Blocks:
        """Every block that one of the byte ranges (offset, length) touches."""
        return cls(
            (offset // block_size, -(-(offset + length) // block_size)) for offset, length in ranges if length > 0
        )

    def __len__(self) -> int:
        return self._total

    def __iter__(self) -> Iterator[Interval]:
        return iter(self._intervals)

    def __contains__(self, block: int) -> bool:
        at = bisect_right(self._starts, block) - 1
        return at >= 0 and block < self._intervals[at][1]

    def __or__(self, other: Blocks) -> Blocks:
        return Blocks([*self._intervals, *other._intervals])

    def __sub__(self, other: Blocks) -> Blocks:
        parts: list[Interval] = []
        for start, end in self._intervals:
            at = start
            for hole_start, hole_end in other.within(start, end):
                parts.append((at, hole_start))
                at = hole_end
            parts.append((at, end))
        return Blocks(parts)

    def __and__(self, other: Blocks) -> Blocks:
        return Blocks(part for start, end in self._intervals for part in other.within(start, end))

    def within(self, start: int, end: int) -> Iterator[Interval]:
        """The intervals, cut to [start, end), ascending."""
        at = max(0, bisect_right(self._starts, start) - 1)
        while at < len(self._intervals) and self._intervals[at][0] < end:
            low, high = max(start, self._intervals[at][0]), min(end, self._intervals[at][1])
            if low < high:
                yield low, high
            at += 1

    def nth(self, number: int) -> int:
        """The block with `number` members before it."""
        at = bisect_right(self._before, number) - 1
        return self._intervals[at][0] + number - self._before[at]
