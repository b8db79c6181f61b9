# SPDX-License-Identifier: Apache-2.0
"""The store in memory passes the suite, and repeats itself exactly."""

from __future__ import annotations

import pytest

from mover.store.memory import MemoryStore
from tests.mover.store.clock import ManualClock
from tests.mover.store.conformance import Conformance, LapsedLeases, Place


@pytest.fixture(scope="class")
def place() -> Place:
    clock = ManualClock()
    store = MemoryStore(clock)
    return Place(lambda: store, clock.pass_until)


class TestMemory(Conformance):
    pass


class TestMemoryLapsedLeases(LapsedLeases):
    pass


def test_it_is_deterministic() -> None:
    def run() -> list[object]:
        store = MemoryStore(ManualClock())
        first = store.create_record("a", b"1", {})
        lease = store.acquire_lease("a", 15)
        second = store.replace_record("a", b"2", {}, etag=first.etag, lease=lease)
        return [first, lease, second, store.read_record("a"), list(store.list(""))]

    assert run() == run()


def test_lease_ids_come_from_the_factory() -> None:
    ids = iter(["x", "y"])
    store = MemoryStore(ManualClock(), new_lease_id=lambda: next(ids))
    store.create_record("a", b"", {})
    store.create_record("b", b"", {})
    assert [store.acquire_lease("a", 15), store.acquire_lease("b", 15)] == ["x", "y"]


def test_a_lease_lapses_at_its_second() -> None:
    clock = ManualClock()
    store = MemoryStore(clock)
    store.create_record("a", b"", {})
    store.acquire_lease("a", 15)
    clock.advance(14.9)
    assert store.read_record("a").leased
    clock.advance(0.1)
    assert not store.read_record("a").leased
