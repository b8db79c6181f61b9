# SPDX-License-Identifier: Apache-2.0
"""Which bytes of a page blob hold data, kept so that a read asks for no more than that. Pure; 16 bytes a range.

A 1 MiB block of a fragmented disk may hold one page of data: Azure gives a page blob so many bytes and so many requests a
second, and reading the rest of such blocks as zeros costs eight times what their data costs (docs/performance.md).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

GAP = 512 << 10
"""Zeros that cost less to read than another request."""


class PageMap:
    """Of ranges, an offset and a length in turn; in any order, overlapping or not."""

    def __init__(self, ranges: array[int]) -> None:
        pairs = np.asarray(ranges, np.int64).reshape(-1, 2)
        order = np.argsort(pairs[:, 0], kind="stable")
        starts, ends = pairs[order, 0], np.maximum.accumulate(pairs[order].sum(axis=1)) if len(pairs) else pairs[:, 0]
        begins = np.ones(len(starts), np.bool_)  # of a run of ranges that touch
        begins[1:] = starts[1:] > ends[:-1]
        self._starts: NDArray[np.int64] = starts[begins]
        self._ends: NDArray[np.int64] = ends[np.append(begins[1:], True)] if len(ends) else ends

    def within(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Parts [low, high) of [start, end) to read, ascending: all that holds data, and gaps of less than GAP between."""
        first = int(np.searchsorted(self._ends, start, side="right"))
        last = int(np.searchsorted(self._starts, end, side="left"))
        low = high = -GAP
        for at in range(first, last):
            begin, stop = max(start, int(self._starts[at])), min(end, int(self._ends[at]))
            if begin - high < GAP and high >= 0:
                high = stop
                continue
            if high >= 0:
                yield low, high
            low, high = begin, stop
        if high >= 0:
            yield low, high
