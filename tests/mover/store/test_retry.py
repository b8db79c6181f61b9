# SPDX-License-Identifier: Apache-2.0
"""What is repeated, what is not, and what a lost answer comes to."""

from __future__ import annotations

import random
import threading

import pytest

from mover.errors import (
    AccessDenied,
    Cancelled,
    ConditionFailed,
    LeaseLost,
    ObjectExists,
    ObjectNotFound,
    StoreError,
    StoreUnavailable,
)
from mover.store.base import Entry
from mover.store.fault import Fault, FaultStore
from mover.store.memory import MemoryStore
from mover.store.patience import RetryLater, ended_by
from mover.store.retry import RetryStore
from tests.mover.store.clock import ManualClock


class World:
    def __init__(self, *faults: Fault, patience: float = 300.0) -> None:
        self.clock = ManualClock()
        self.memory = MemoryStore(self.clock)
        self.faulty = FaultStore(self.memory, faults)
        self.cancel = threading.Event()
        self.store = RetryStore(self.faulty, self.clock, patience=patience, cancel=self.cancel, chosen=random.Random(1))


def test_a_passing_failure_is_repeated_with_growing_pauses() -> None:
    world = World(Fault("read_into", "fail", times=5))
    world.store.put("a", [b"data"])
    assert world.store.read_all("a") == b"data"
    assert len(world.clock.waits) == 5
    for number, wait in enumerate(world.clock.waits):
        assert 0.25 * 2**number <= wait <= 0.5 * 2**number


def test_pauses_do_not_grow_for_ever_and_patience_ends() -> None:
    world = World(Fault("size", "fail", times=1_000_000), patience=300)
    with pytest.raises(StoreUnavailable, match="scripted"):
        world.store.size("a")
    assert max(world.clock.waits) <= 30
    assert 200 < sum(world.clock.waits) <= 300


def test_two_workers_do_not_come_back_in_step() -> None:
    pauses = []
    for seed in (1, 2):
        world = World(Fault("size", "fail", times=5))
        world.store = RetryStore(world.faulty, world.clock, chosen=random.Random(seed))
        world.memory.put("a", [b""])
        world.store.size("a")
        pauses.append(world.clock.waits)
    assert pauses[0] != pauses[1]


def test_the_store_s_own_wish_is_kept() -> None:
    world = World(Fault("size", "fail", error=lambda name: RetryLater("busy", name, 17.0)))
    world.memory.put("a", [b"x"])
    assert world.store.size("a") == 1
    assert world.clock.waits == [17.0]


@pytest.mark.parametrize("kind", [AccessDenied, ConditionFailed, StoreError])
def test_nothing_else_is_repeated(kind: type[StoreError]) -> None:
    world = World(Fault("size", "fail", error=lambda name: kind("refused", name)))
    with pytest.raises(kind):
        world.store.size("a")
    assert world.clock.waits == []


def test_cancel_ends_a_wait() -> None:
    world = World(Fault("size", "fail"))
    world.cancel.set()
    with pytest.raises(Cancelled):
        world.store.size("a")


def test_a_put_whose_answer_was_lost_is_a_success() -> None:
    world = World(Fault("put", "lose"))
    world.store.put("a", [b"da", b"ta"])
    assert world.memory.read_all("a") == b"data"


def test_a_put_that_finds_another_size_is_not() -> None:
    world = World(Fault("put", "fail"))
    world.memory.put("a", [b"of another"])
    with pytest.raises(ObjectExists):
        world.store.put("a", [b"data"])


def test_a_first_put_that_finds_the_name_taken_is_not() -> None:
    world = World()
    world.memory.put("a", [b"data"])
    with pytest.raises(ObjectExists):
        world.store.put("a", [b"data"])


def test_a_record_s_write_whose_answer_was_lost_is_for_the_caller_to_resolve() -> None:
    world = World(Fault("create_record", "lose"), Fault("replace_record", "lose"))
    with pytest.raises(ObjectExists):
        world.store.create_record("a", b"write id 1", {})
    found = world.store.read_record("a")
    assert found.data == b"write id 1"
    with pytest.raises(ConditionFailed):
        world.store.replace_record("a", b"write id 2", {}, etag=found.etag, lease=None)
    assert world.store.read_record("a").data == b"write id 2"


def test_a_record_s_write_that_was_not_carried_out_is_repeated() -> None:
    world = World(Fault("create_record", "fail"), Fault("replace_record", "fail"))
    etag = world.store.create_record("a", b"1", {}).etag
    world.store.replace_record("a", b"2", {}, etag=etag, lease=None)
    assert world.memory.read_record("a").data == b"2"


def test_a_deletion_and_a_release_whose_answers_were_lost_are_done() -> None:
    world = World(Fault("release_lease", "lose"), Fault("delete", "lose"))
    world.store.create_record("a", b"", {})
    world.store.release_lease("a", world.store.acquire_lease("a", 60))
    world.store.delete("a")
    with pytest.raises(ObjectNotFound):
        world.memory.size("a")


def test_a_first_deletion_or_release_of_nothing_is_an_error() -> None:
    world = World()
    with pytest.raises(ObjectNotFound):
        world.store.delete("a")
    with pytest.raises(LeaseLost):
        world.store.release_lease("a", "x")


def test_a_listing_that_breaks_goes_on_where_it_was() -> None:
    world = World(
        Fault("list", "break", entries=3), Fault("list", "break", nth=2, entries=5), Fault("list", "fail", nth=3)
    )
    names = [f"{number:02d}" for number in range(10)]
    for name in names:
        world.memory.put(name, [b"x"])
    assert list(world.store.list("")) == [Entry(name, 1) for name in names]
    assert len(world.clock.waits) == 3
    assert max(world.clock.waits[:2]) <= 0.5  # progress was made between them: patience begins anew


def test_a_listing_that_never_comes_further_fails() -> None:
    world = World(Fault("list", "break", entries=1, times=1_000_000))
    for name in "abc":
        world.memory.put(name, [b"x"])
    listing = world.store.list("")
    assert next(listing).name == "a"
    with pytest.raises(StoreUnavailable):
        next(listing)


def test_a_wait_ends_with_what_the_thread_works_for() -> None:
    world = World(Fault("size", "fail", times=1_000_000))
    end = threading.Event()
    wait = world.clock.wait

    def passing(event: threading.Event, seconds: float) -> bool:
        if sum(world.clock.waits) >= 20:
            end.set()
        return wait(event, seconds)

    world.clock.wait = passing  # type: ignore[method-assign]
    with ended_by(end), pytest.raises(Cancelled):
        world.store.size("a")
    assert sum(world.clock.waits) <= 22
    end.set()
    with pytest.raises(StoreUnavailable):  # outside it only the store's own end counts
        world.store.size("a")
