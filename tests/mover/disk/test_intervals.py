# SPDX-License-Identifier: Apache-2.0
"""Sets of blocks against Python's own sets."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from mover.disk.intervals import Blocks

intervals = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=10)


def members(rows: list[tuple[int, int]]) -> set[int]:
    return {block for start, end in rows for block in range(start, end)}


def assert_is(blocks: Blocks, expected: set[int]) -> None:
    rows = list(blocks)
    assert members(rows) == expected
    assert all(start < end for start, end in rows)
    assert all(one[1] < two[0] for one, two in pairwise(rows))  # sorted, apart, never touching
    assert len(blocks) == len(expected)
    assert [block for block in range(-1, 62) if block in blocks] == sorted(expected)
    assert [blocks.nth(k) for k in range(len(blocks))] == sorted(expected)


@given(intervals, intervals)
def test_sets(one: list[tuple[int, int]], two: list[tuple[int, int]]) -> None:
    assert_is(Blocks(one), members(one))
    assert_is(Blocks(one) | Blocks(two), members(one) | members(two))
    assert_is(Blocks(one) & Blocks(two), members(one) & members(two))
    assert_is(Blocks(one) - Blocks(two), members(one) - members(two))


@given(intervals, st.integers(0, 60), st.integers(0, 60))
def test_within(rows: list[tuple[int, int]], start: int, end: int) -> None:
    assert members(list(Blocks(rows).within(start, end))) == members(rows) & set(range(start, end))


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 90)), max_size=6), st.sampled_from([1, 7, 64]))
def test_ranges_touch_whole_blocks(ranges: list[tuple[int, int]], block_size: int) -> None:
    touched = {byte // block_size for offset, length in ranges for byte in range(offset, offset + length)}
    assert members(list(Blocks.of_ranges(ranges, block_size))) == touched


def test_a_large_disk_costs_what_its_changes_cost() -> None:
    whole = Blocks([(0, 1 << 40)])
    assert len(whole - Blocks([(5, 6), (1 << 39, (1 << 39) + 2)])) == (1 << 40) - 3
