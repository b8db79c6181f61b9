# SPDX-License-Identifier: Apache-2.0
"""What sessions and holds make of a store that fails in passing, that is full, or that others delete from meanwhile."""

from __future__ import annotations

import dataclasses
import random
import threading
from pathlib import Path

import pytest

from mover.errors import Cancelled, StoreFull, StoreUnavailable
from mover.repository import record
from mover.repository.collector_state import read_state
from mover.repository.hold import Hold
from mover.repository.names import COLLECTOR_STATE
from mover.repository.repository import Repository
from mover.repository.session import Session, SessionSettings
from mover.store.base import Record, Written
from mover.store.memory import MemoryStore
from mover.store.retry import RetryStore
from tests.mover.disks import MIB, MemoryDisk, back_up, restore
from tests.mover.store.clock import ManualClock


class Failing(MemoryStore):
    """`fails`: what every write of a session's record ends with, or None."""

    fails: Exception | None = None

    def create_record(self, name: str, *arguments: object) -> Written:
        if self.fails:
            raise self.fails
        return super().create_record(name, *arguments)  # type: ignore[arg-type]

    def replace_record(self, name: str, *arguments: object, **named: object) -> Written:
        if self.fails and name != COLLECTOR_STATE:
            raise self.fails
        return super().replace_record(name, *arguments, **named)  # type: ignore[arg-type]


def disk() -> MemoryDisk:
    made = MemoryDisk(4 * MIB)
    made.fill(random.Random(1), range(4))
    return made


def generation_of(store: MemoryStore, name: str) -> int:
    return record.decode_header(store.read_record(name).data, name).generation


def next_generation(store: MemoryStore) -> None:
    state = read_state(store)
    state = dataclasses.replace(state, write_id="f" * 32, generation=state.generation + 1)
    etag = store.read_record(COLLECTOR_STATE).etag
    store.replace_record(COLLECTOR_STATE, state.encode(), {}, etag=etag, lease=None)


@pytest.mark.parametrize("kind", ["session", "hold"])
def test_i14_an_acknowledgement_that_failed_in_passing_is_made_at_the_next_poll(kind: str) -> None:
    store, clock = Failing(), ManualClock()
    repository = Repository.create(store, clock=clock)
    kept: Session | Hold
    if kind == "hold":
        point = repository.read_point(back_up(repository, "one", disk()).point)
        opened = repository.hold(point)
        assert isinstance(opened, Hold)
        kept = opened
    else:
        begun = repository.begin(resource_name="vm", job="one", body=record.Body(), settings=SessionSettings(uploads=0))
        assert isinstance(begun, Session)
        kept = begun
    next_generation(store)
    store.fails = StoreUnavailable("not now")
    clock.advance(31)
    with pytest.raises(StoreUnavailable):
        kept.tick()
    store.fails = None
    clock.advance(31)
    kept.tick()
    assert generation_of(store, kept.name) == 2


def test_a_full_repository_can_be_restored_from(tmp_path: Path) -> None:
    store = Failing()
    repository = Repository.create(store)
    source = disk()
    point = back_up(repository, "one", source).point
    store.fails = StoreFull("no space left")
    notes: list[str] = []
    restore(repository, point, str(tmp_path / "out"), notes=notes)
    assert "no space left for a hold: the restore point is not held" in notes[0]
    assert (tmp_path / "out").read_bytes() == source.data


def test_i2_anothers_record_that_is_deleted_meanwhile_costs_its_runs_only() -> None:
    store = MemoryStore()
    repository = Repository.create(store)
    other = back_up(repository, "one", disk(), resource="other").point
    item = store._items[other]
    item.metadata = {"state": "committed", "resource": item.metadata["resource"], "sequence": "1"}  # more than 8 runs
    names = store.list

    def deleted_meanwhile(prefix: str):  # type: ignore[no-untyped-def]
        found = list(names(prefix))
        if prefix == "points/" and any(entry.name == other for entry in found):
            store.delete(other)
        return iter(found)

    store.list = deleted_meanwhile  # type: ignore[method-assign]
    assert back_up(repository, "three", disk(), resource="third").statistics.new == 4 * MIB


class Unanswered(MemoryStore):
    """The commit's answer is lost, and meanwhile the job is cancelled; `happens`: the store had made the write. `silent`: from
    then on it answers nothing."""

    def __init__(self, *, happens: bool, silent: bool) -> None:
        super().__init__()
        self._happens, self._silent = happens, silent
        self.cancel, self._lost = threading.Event(), False

    def replace_record(self, name: str, data: bytes, *arguments: object, **named: object) -> Written:
        if not name.startswith("points/") or record.decode_header(data, name).state != record.COMMITTED:
            return super().replace_record(name, data, *arguments, **named)  # type: ignore[arg-type]
        if self._happens:
            super().replace_record(name, data, *arguments, **named)  # type: ignore[arg-type]
        self.cancel.set()
        self._lost = True
        raise StoreUnavailable("no answer")

    def read_record(self, name: str) -> Record:
        if self._lost and self._silent:
            raise StoreUnavailable("no answer")
        return super().read_record(name)


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize("happens", [False, True])
def test_i11_a_commit_whose_answer_was_lost_is_no_cancelled_one(happens: bool, silent: bool) -> None:
    store = Unanswered(happens=happens, silent=silent)
    Repository.create(store)
    repository = Repository.open(RetryStore(store, ManualClock(), cancel=store.cancel))
    if happens and not silent:
        assert back_up(repository, "one", disk()).point
    else:
        with pytest.raises(Cancelled) as caught:
            back_up(repository, "one", disk())
        assert ("did not answer" in str(caught.value)) == silent
    states = [entry.metadata["state"] for entry in store.list("points/")]
    assert states == [record.COMMITTED if happens else record.OPEN]
