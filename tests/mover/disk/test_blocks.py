# SPDX-License-Identifier: Apache-2.0
"""Sets of blocks against Python's own sets."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mover.disk.blocks import Blocks, runs

SIZES = st.one_of(st.integers(1, 70), st.integers(1000, 1100), st.integers(2040, 2060))


@st.composite
def rows(draw: st.DrawFn) -> tuple[int, list[tuple[int, int]], list[tuple[int, int]]]:
    size = draw(SIZES)
    ranges = st.lists(st.tuples(st.integers(0, size), st.integers(0, size + 9)), max_size=8)
    return size, draw(ranges), draw(ranges)


def members(size: int, ranges: list[tuple[int, int]]) -> set[int]:
    return {block for offset, length in ranges for block in range(offset, min(size, offset + length))}


def assert_is(blocks: Blocks, expected: set[int]) -> None:
    found = list(runs(blocks.mask(0, blocks.size), 0))
    assert {block for start, end in found for block in range(start, end)} == expected
    assert all(start < end for start, end in found)
    assert all(one[1] < two[0] for one, two in pairwise(found))  # sorted, apart, never touching
    assert len(blocks) == len(expected)
    assert list(blocks.nth(range(len(blocks)))) == sorted(expected)


@given(rows())
def test_sets(case: tuple[int, list[tuple[int, int]], list[tuple[int, int]]]) -> None:
    size, one, two = case
    left, right = Blocks.of_ranges(size, one, 1), Blocks.of_ranges(size, two, 1)
    assert_is(left, members(size, one))
    assert_is(left | right, members(size, one) | members(size, two))
    assert_is(left & right, members(size, one) & members(size, two))
    assert_is(left - right, members(size, one) - members(size, two))


@given(rows(), st.data())
def test_parts(case: tuple[int, list[tuple[int, int]], list[tuple[int, int]]], data: st.DataObject) -> None:
    size, one, _ = case
    start = data.draw(st.integers(0, size))
    end = data.draw(st.integers(start, size))
    blocks, inside = Blocks.of_ranges(size, one, 1), members(size, one) & set(range(start, end))
    assert {start + k for k, member in enumerate(blocks.mask(start, end)) if member} == inside
    assert {block for low, high in runs(blocks.mask(start, end), start) for block in range(low, high)} == inside
    assert blocks.any(start, end) == bool(inside)


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 90)), max_size=6), st.sampled_from([1, 7, 64]))
def test_ranges_touch_whole_blocks(ranges: list[tuple[int, int]], block_size: int) -> None:
    touched = {byte // block_size for offset, length in ranges for byte in range(offset, offset + length)}
    assert_is(Blocks.of_ranges(600, ranges, block_size), touched)


def test_sets_of_two_sizes_are_not_combined() -> None:
    with pytest.raises(ValueError, match="sets of 8 and 9 blocks"):
        _ = Blocks.of_ranges(8, [], 1) | Blocks.of_ranges(9, [], 1)


def test_every_other_block_of_32_tib_is_bounded_memory() -> None:
    """16 million fragments cost what one costs."""
    size = 32 << 20
    tracemalloc.start()
    try:
        ones = Blocks(size, Blocks.of_ranges(8, [(0, 1), (2, 1), (4, 1), (6, 1)], 1)._bits.repeat(size // 8))
        rest = (ones | Blocks.of_ranges(size, [(1, 2)], 1)) - ones
        assert (len(ones), len(rest)) == (size // 2, 1)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 << 20
