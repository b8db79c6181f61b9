# SPDX-License-Identifier: Apache-2.0
"""Whose turn it is among disks that are read side by side."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from types import FrameType
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mover.lanes import LEAST_QUEUED, QUEUED, Crew, Lane, Lanes
from tests.mover.disks import until

READERS = 3


def lanes_of(sizes: list[int]) -> list[Lane[int]]:
    return [Lane(iter(range(size))) for size in sizes]


def none_between(sizes: list[int]) -> list[Lane[int]]:
    """Plans that look in vain before each run."""
    return [Lane(run if looked else None for run in range(size) for looked in (False, True)) for size in sizes]


def last(turns: list[Lane[int]], lane: Lane[int]) -> int:
    """When it had its last turn; -1 when never."""
    return max((k for k, one in enumerate(turns) if one is lane), default=-1)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=5), st.data())
def test_every_run_is_read_once_in_its_order_and_each_lane_has_its_share(sizes: list[int], data: st.DataObject) -> None:
    made = none_between(sizes)
    lanes = Lanes(made, READERS)
    asked: list[Lane[int]] = []
    turns: list[Lane[int]] = []
    fed: set[Lane[int]] = set()
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
            assert lane == min(waiting, key=lambda other: (reading.count(other), last(turns, other)))
            turns.append(lane)
            taken[lane].append(run)
            reading.append(lane)
        elif (hungry := lanes.hungry(0.0)) is not None:
            room = max(LEAST_QUEUED, QUEUED * READERS // (len(made) - len(fed)))
            with_room = [other for other in made if other not in fed and put[other] - len(taken[other]) < room]
            assert hungry == min(with_room, key=lambda other: last(asked, other))
            asked.append(hungry)
            try:
                run = next(hungry.runs)
            except StopIteration:
                lanes.fed(hungry)
                fed.add(hungry)
                continue
            if run is not None:
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
            assert run is not None
            lanes.put(lane, run)
    taken = [lanes.take() for _ in range(READERS)]
    assert [found and found[0] for found in taken] == [first, last, last]
    lanes.done(first)
    found = lanes.take()
    assert found is not None
    assert found[0] is last


# -- a crew


def nothing() -> None:
    """Between."""


def crew_of(runs: int) -> Crew[Lane[int]]:
    return Crew(Lanes(lanes_of([runs]), READERS), nothing)


def test_threads_end_when_one_of_them_cannot_be_started() -> None:
    crew = crew_of(1)
    start, started = threading.Thread.start, []

    def refused(thread: threading.Thread) -> None:
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    def work() -> None:
        with mock.patch.object(threading.Thread, "start", refused), crew:
            crew.start(lambda: crew.serve(lambda lane, run: None), 3, "test")

    with pytest.raises(RuntimeError, match="start new thread"):
        work()
    assert [thread.is_alive() for thread in started] == [False, False]


def test_an_interrupt_does_not_leave_threads_behind_nor_does_a_second_one() -> None:
    crew = crew_of(1)
    main = threading.get_ident()
    interrupts: list[int] = []
    ended: list[bool] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        interrupts.append(number)
        raise KeyboardInterrupt

    def do(lane: Lane[int], run: int) -> None:
        until(lambda: crew._lanes._closed)  # nothing is left but to wait
        for count in (1, 2):
            signal.pthread_kill(main, signal.SIGINT)
            until(lambda count=count: len(interrupts) == count and crew.stopped.is_set())
        ended.append(True)

    def work() -> None:
        with crew:
            crew.start(lambda: crew.serve(do), 1, "test")
            crew.feed()

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            work()
        assert ended
    finally:
        signal.signal(signal.SIGINT, lambda number, frame: interrupts.append(number))  # of a crew that did not wait
        until(lambda: ended)
        signal.signal(signal.SIGINT, before)


def test_after_a_failure_nothing_more_is_begun() -> None:
    crew = crew_of(QUEUED * READERS - 1)  # all of them wait before a thread begins
    done: list[int] = []

    def do(lane: Lane[int], run: int) -> None:
        done.append(run)
        if run == 0:
            until(lambda: len(done) == READERS)
            raise ValueError("the first")
        until(crew.stopped.is_set)

    def work() -> None:
        with crew:
            crew.feed()
            crew.start(lambda: crew.serve(do), READERS, "test")

    with pytest.raises(ValueError, match="the first"):
        work()
    assert sorted(done) == list(range(READERS))


def test_a_plan_that_finds_nothing_is_no_reason_not_to_look_around() -> None:
    asked: list[Any] = []
    with Crew(Lanes([Lane(iter([None] * 10))], READERS), lambda: asked.append(None)) as crew:
        crew.feed()
    assert len(asked) >= 10
