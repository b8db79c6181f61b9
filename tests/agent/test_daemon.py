# SPDX-License-Identifier: Apache-2.0
"""A worker's process as it is put together: which stores, what keeps its watchdog quiet, how it ends before it was ready."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent import config
from agent.jobs import JobStore, digest
from agent.process import Daemon
from agent.protocol import Heartbeat, Result, decode_event
from agent.records import JobRecord, encode_record, metadata_of
from agent.run import Run
from mover.clock import SYSTEM
from mover.errors import AccessDenied, StoreUnavailable
from mover.keeper import Keeper
from mover.store.limit import LimitStore
from mover.store.local import LocalStore
from mover.store.memory import MemoryStore
from mover.store.meter import MeterStore
from tests.agent.conftest import Place
from tests.agent.rig import Rig, command, job_record
from tests.agent.waiting import wait_for
from tests.mover.store.clock import ManualClock

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def daemon(folder: Path, stop: threading.Event, clock: Any = SYSTEM, **options: object) -> Daemon:
    values = {"queue.service": str(folder / "queue.db"), "worker.name": "w", "log.level": "error", **options}
    return Daemon(config.load(None, {}, values), {"WATCHDOG_USEC": "3000000"}, stop, clock)


def ended(job: str, at: datetime) -> JobRecord:
    result = Result(command="c1", job=job, time=at, kind="backup", status="success")
    return job_record(at, job=job, state="ended", result=result)


def put(store: Any, record: JobRecord) -> None:
    store.create_record("jobs/" + digest(record.job), encode_record(record), metadata_of(record))


def test_bandwidth_is_for_disks_not_for_records(tmp_path: Path) -> None:
    made = daemon(tmp_path, threading.Event(), **{"worker.bandwidth": 1})
    made._open()
    assert made._settings.bandwidth == 1
    store = made._store
    while True:
        assert not isinstance(store, LimitStore)
        if not hasattr(store, "_inner"):
            break
        store = store._inner
    made._close()


def test_a_worker_that_is_told_to_stop_before_it_was_ready_ends_in_good_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = threading.Event()

    def away(*_: object) -> None:
        stop.set()
        raise StoreUnavailable("no answer", "x")

    monkeypatch.setattr(LocalStore, "create_record", away)
    assert daemon(tmp_path, stop).run() == 0


def test_a_worker_that_is_refused_at_first_says_so_once_and_becomes_ready_when_it_is_let_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, clock = threading.Event(), ManualClock()
    made = daemon(tmp_path, stop, clock)
    made._open()
    notified: list[str] = []
    made._notify = notified.append
    write, refusals = LocalStore.create_record, 3

    def refuse(store: LocalStore, *words: Any) -> Any:
        nonlocal refusals
        refusals -= 1
        if refusals >= 0:
            raise AccessDenied("the store refused access", "x")
        return write(store, *words)

    monkeypatch.setattr(LocalStore, "create_record", refuse)
    assert made._get_ready()
    told = [decode_event(waiting.body) for waiting in made._service.queue(made._events).peek(32)]
    assert [type(event).__name__ for event in told if not isinstance(event, Heartbeat)] == ["Failed", "Ready"]
    states = [event.state for event in told if isinstance(event, Heartbeat)]
    assert [states[0], states[-1]] == ["starting", "idle"]
    assert "recovering" in states
    assert sum(line.startswith("EXTEND_TIMEOUT_USEC=") for line in notified) >= 3
    made._close()


def test_removing_old_records_is_life_and_can_be_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record takes longer to read than a third of the watchdog's time; a thousand of them are no hang."""
    stop, clock = threading.Event(), ManualClock()
    made = daemon(tmp_path, stop, clock)
    made._open()
    long_ago = datetime.fromtimestamp(clock.wall(), UTC) - timedelta(days=400)
    for number in range(20):
        put(made._store, ended(f"j{number}", long_ago))
    read = LocalStore.read_record
    silent: list[str] = []
    count = 0

    def slow(store: LocalStore, name: str) -> Any:
        nonlocal count
        count += name.startswith("jobs/")
        clock.advance(1.1)
        silent.extend(made._watchdog.silent())
        if count == 15:
            stop.set()
        return read(store, name)

    monkeypatch.setattr(LocalStore, "read_record", slow)
    made._watchdog.watch(threading.current_thread().name)
    made._tidy()
    assert (silent, count) == ([], 15)
    made._close()


def test_young_records_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    records = JobStore(store, SYSTEM)
    for number in range(50):
        put(store, ended(f"j{number}", NOW))
        records.cancel(f"j{number}", NOW, "c")
    put(store, ended("old", NOW - timedelta(days=2)))
    monkeypatch.setattr(MemoryStore, "read_record", reads := Counted(MemoryStore.read_record))
    assert records.tidy(NOW - timedelta(days=1), NOW) == 1
    assert reads.count == 1


class Counted:
    def __init__(self, call: Callable[..., Any]) -> None:
        self._call, self.count = call, 0

    def __get__(self, store: object, kind: type) -> Callable[..., Any]:
        def counted(*arguments: object) -> Any:
            self.count += 1
            return self._call(store, *arguments)

        return counted


def test_what_a_keeper_asks_is_no_sign_of_work(place: Place, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that hangs has leases renewed and the collector's state polled for it; the watchdog is not to be fed by that."""
    rig.submit(command(place))
    seen: list[str] = []
    real = Run.execute

    def execute(run: Run) -> Result:
        beats: list[int] = []
        run._beat = lambda: beats.append(1)
        store = MeterStore(MemoryStore(), lambda name: "", SYSTEM, run._settings.heard)
        store.put("x", [b"x"])
        seen.append(f"worked {len(beats)}")
        polled = threading.Event()

        def poll() -> None:
            store.read("x", 0, 1)
            polled.set()

        with Keeper(poll, SYSTEM, 0.01):
            wait_for(polled.is_set)
        seen.append(f"kept {len(beats)}")
        return real(run)

    monkeypatch.setattr(Run, "execute", execute)
    assert rig.worker().serve("w", once=True) == 0
    assert seen == ["worked 1", "kept 1"]


def test_a_record_s_listing_tells_how_old_it_is() -> None:
    store = MemoryStore()
    records = JobStore(store, SYSTEM)
    records.cancel("j", NOW, "c")
    (entry,) = store.list("cancels/")
    assert dict(entry.metadata) == {"updated": "2026-01-01T00:00:00+00:00"}
