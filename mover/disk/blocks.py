# SPDX-License-Identifier: Apache-2.0
"""Sets of a disk's block numbers, a bit a block: 4 MiB for 32 TiB however scattered the members are. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
"""A part of a set: one truth value a block."""

_GROUP = 128
"""Bytes whose members are counted together: 1,024 blocks."""


class Blocks:
    """A set of block numbers below `size`. Sets of one size can be combined; nothing changes one that exists."""

    __slots__ = ("_bits", "size")

    def __init__(self, size: int, bits: NDArray[np.uint8]) -> None:
        self.size = size
        self._bits = bits

    @classmethod
    def of_ranges(cls, size: int, ranges: Iterable[tuple[int, int]], block_size: int) -> Blocks:
        """Every block that one of the byte ranges (offset, length) touches; what lies beyond `size` blocks is left out."""
        mask = np.zeros(size, dtype=np.bool_)
        for offset, length in ranges:
            if length > 0:
                mask[offset // block_size : -(-(offset + length) // block_size)] = True
        return cls(size, np.packbits(mask, bitorder="little"))

    def __or__(self, other: Blocks) -> Blocks:
        return Blocks(self._same_size(other), self._bits | other._bits)

    def __and__(self, other: Blocks) -> Blocks:
        return Blocks(self._same_size(other), self._bits & other._bits)

    def __sub__(self, other: Blocks) -> Blocks:
        return Blocks(self._same_size(other), self._bits & ~other._bits)

    def _same_size(self, other: Blocks) -> int:
        if self.size != other.size:
            raise ValueError(f"sets of {self.size} and {other.size} blocks")
        return self.size

    def __len__(self) -> int:
        return int(np.bitwise_count(self._bits).sum(dtype=np.int64))

    def mask(self, start: int, end: int) -> Mask:
        """Which of the blocks from `start` to `end` are members; an array of the caller's own."""
        bits = np.unpackbits(self._bits[start // 8 : -(-end // 8)], bitorder="little")
        return bits[start % 8 : start % 8 + end - start].astype(np.bool_)

    def any(self, start: int, end: int) -> bool:
        """Whether there is a member from `start` to `end`."""
        return bool(self.mask(start, end).any())

    def nth(self, numbers: Iterable[int]) -> Iterator[int]:
        """For each number the member with so many members before it."""
        padded = np.pad(self._bits, (0, -len(self._bits) % _GROUP)).reshape(-1, _GROUP)
        upto = np.bitwise_count(padded).sum(axis=1, dtype=np.int64).cumsum()
        for number in numbers:
            group = int(np.searchsorted(upto, number, side="right"))
            members = np.flatnonzero(np.unpackbits(padded[group], bitorder="little"))
            before = int(upto[group - 1]) if group else 0
            yield group * _GROUP * 8 + int(members[number - before])


def runs(mask: Mask, start: int) -> Iterator[tuple[int, int]]:
    """The intervals [start, end) of a mask's members, ascending; its first value is block `start`."""
    edges = np.flatnonzero(np.diff(mask.view(np.int8), prepend=0, append=0)) + start
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
