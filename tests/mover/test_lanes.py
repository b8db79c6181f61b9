# SPDX-License-Identifier: Apache-2.0
"""Whose turn it is among disks that are read side by side."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from mover.lanes import QUEUED, Lane, Lanes

READERS = 3


def lanes_of(sizes: list[int]) -> list[Lane[int]]:
    return [Lane(iter(range(size))) for size in sizes]


@given(st.lists(st.integers(0, 20), min_size=1, max_size=5), st.data())
def test_every_run_is_read_once_in_its_order_and_each_lane_has_its_share(sizes: list[int], data: st.DataObject) -> None:
    made = lanes_of(sizes)
    lanes = Lanes(made, READERS)
    taken: dict[Lane[int], list[int]] = {lane: [] for lane in made}
    put: Counter[Lane[int]] = Counter()
    reading: list[Lane[int]] = []
    while sum(map(len, taken.values())) < sum(sizes) or not lanes.all_fed():
        ready = sum(put.values()) - sum(map(len, taken.values()))
        choices = (
            ["feed"] * (not lanes.all_fed())
            + ["take"] * (ready > 0 and len(reading) < READERS)
            + ["done"] * bool(reading)
        )
        what = data.draw(st.sampled_from(choices))
        if what == "done":
            lanes.done(reading.pop(data.draw(st.integers(0, len(reading) - 1))))
        elif what == "take":
            found = lanes.take()
            assert found is not None
            lane, run = found
            waiting = [other for other in made if put[other] > len(taken[other])]
            assert reading.count(lane) == min(reading.count(other) for other in waiting)
            taken[lane].append(run)
            reading.append(lane)
        elif (hungry := lanes.hungry(0.0)) is not None:
            assert put[hungry] - len(taken[hungry]) < QUEUED * READERS
            run = next(hungry.runs, None)
            if run is None:
                lanes.fed(hungry)
            else:
                lanes.put(hungry, run)
                put[hungry] += 1
    lanes.close()
    assert lanes.take() is None
    assert [taken[lane] for lane in made] == [list(range(size)) for size in sizes]


def test_the_last_lane_has_all_the_readers() -> None:
    first, last = made = lanes_of([1, READERS + 1])
    lanes = Lanes(made, READERS)
    for lane in made:
        for run in lane.runs:
            lanes.put(lane, run)
    taken = [lanes.take() for _ in range(READERS)]
    assert [found and found[0] for found in taken] == [first, last, last]
    lanes.done(first)
    found = lanes.take()
    assert found is not None
    assert found[0] is last
