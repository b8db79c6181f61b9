# SPDX-License-Identifier: Apache-2.0
"""Which parts of a span hold data."""

from __future__ import annotations

import itertools
from array import array
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st

from mover.disk import page_map
from mover.disk.page_map import PageMap

SIZE = 60


@given(
    st.lists(st.tuples(st.integers(0, SIZE - 1), st.integers(1, 12)), max_size=12),
    st.integers(0, SIZE - 1),
    st.integers(1, SIZE),
    st.integers(1, 9),
)
def test_all_data_is_within_and_nothing_but_data_and_small_gaps(
    ranges: list[tuple[int, int]], start: int, length: int, gap: int
) -> None:
    end = start + length
    data = {at for offset, count in ranges for at in range(offset, offset + count)}
    with mock.patch.object(page_map, "GAP", gap):
        parts = list(PageMap(array("q", itertools.chain.from_iterable(ranges))).within(start, end))
    inside = [at for low, high in parts for at in range(low, high)]
    assert inside == sorted(set(inside))
    assert data & set(range(start, end)) <= set(inside) <= set(range(start, end))
    for low, high in parts:
        assert {low, high - 1} <= data
        holes = [at for at in range(low, high) if at not in data]
        assert not any(set(range(at, at + gap)) <= set(holes) for at in holes)
    assert all(later[0] - earlier[1] >= gap for earlier, later in itertools.pairwise(parts))
