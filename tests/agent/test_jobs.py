# SPDX-License-Identifier: Apache-2.0
"""Job records on the stores that keep them: one worker at a time, answered once, cancelled, kept small, tidied."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import records as records_module
from agent.errors import JobBusy
from agent.jobs import Ended, HeldJob, JobStore
from agent.protocol import ErrorBody, LogItem, ProgressEvent, Result
from agent.records import JobRecord, WorkerRecord, decode_record, encode_record
from mover.errors import ConditionFailed, Damaged, MoverError, SessionLost, StoreUnavailable, UnsupportedFormat
from mover.repository.leased import LEASE_SECONDS
from mover.store.base import Store, Written
from mover.store.local import LocalStore
from mover.store.memory import MemoryStore
from mover.store.wrapper import Wrapper
from tests.agent.rig import job_record
from tests.mover.store.clock import ManualClock

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "local"])
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> Iterator[Store]:
    made: Store = MemoryStore(clock) if request.param == "memory" else LocalStore(tmp_path / "state", clock)
    yield made
    made.close()


def fresh(
    job: str = "Job:1", command: str = "c1", *, message: str = "m1", worker: str = "w1", at: int = 0
) -> JobRecord:
    asked = NOW + timedelta(seconds=at)
    body = msgspec.Raw(b'{"kind":"backup"}')
    return job_record(NOW, job=job, command=command, message=message, worker=worker, asked=asked, body=body)


def result(status: str = "success", command: str = "c1", job: str = "Job:1") -> Result:
    return Result(command=command, job=job, time=NOW, kind="backup", status=status)  # type: ignore[arg-type]


def held(found: HeldJob | Ended) -> HeldJob:
    assert isinstance(found, HeldJob)
    return found


def test_one_worker_at_a_time(store: Store, clock: ManualClock) -> None:
    mine = held(JobStore(store, clock).claim(fresh()))
    with pytest.raises(JobBusy) as busy:
        JobStore(store, clock).claim(fresh(worker="w2", message="m2"))
    assert busy.value.holder is not None
    assert (busy.value.holder.worker, busy.value.holder.message) == ("w1", "m1")
    mine.end(result())
    done = JobStore(store, clock).claim(fresh(worker="w2", message="m2"))
    assert isinstance(done, Ended)
    assert done.result.status == "success"


def test_a_dead_worker_s_job_is_taken_over_and_counted(store: Store, clock: ManualClock) -> None:
    first = held(JobStore(store, clock).claim(fresh()))
    clock.advance(LEASE_SECONDS + 1)
    second = held(JobStore(store, clock).claim(fresh(worker="w2")))
    assert (first.record.attempts, second.record.attempts) == (1, 2)
    for use in (first.tick, lambda: first.end(result()), lambda: first.give_back(NOW)):
        with pytest.raises(SessionLost):
            use()
    first.abandon()
    second.end(result())
    record = JobStore(store, clock).read("Job:1")
    assert record is not None
    assert (record.state, record.worker, record.attempts) == ("ended", "w2", 0)


def test_a_lease_that_is_renewed_is_not_taken(store: Store, clock: ManualClock) -> None:
    mine = held(JobStore(store, clock).claim(fresh()))
    for _ in range(10):
        clock.advance(LEASE_SECONDS / 3)
        mine.tick()
        assert mine.sure
        with pytest.raises(JobBusy):
            JobStore(store, clock).claim(fresh(worker="w2"))
    clock.advance(LEASE_SECONDS)
    assert not mine.sure


def test_a_lapsed_lease_that_nobody_took_goes_on(store: Store, clock: ManualClock) -> None:
    mine = held(JobStore(store, clock).claim(fresh()))
    clock.advance(10 * LEASE_SECONDS)
    mine.end(result())
    assert isinstance(JobStore(store, clock).claim(fresh()), Ended)


def test_an_orderly_stop_is_no_attempt(store: Store, clock: ManualClock) -> None:
    for number in range(1, 4):
        mine = held(JobStore(store, clock).claim(fresh(worker=f"w{number}")))
        assert mine.record.attempts == 1
        mine.give_back(NOW)
    passing = ErrorBody(what="gone", exit_code=7)
    for number in range(3):
        mine = held(JobStore(store, clock).claim(fresh()))
        assert mine.record.retries == number
        mine.give_back(NOW, retry=passing)
    assert held(JobStore(store, clock).claim(fresh())).record.last_error == passing


@pytest.mark.parametrize(
    ("status", "command", "at", "again"),
    [
        ("success", "c1", 0, False),  # delivered once more, or replayed
        ("failed", "c1", 0, False),
        ("success", "c2", 5, False),  # asked for again: it is done
        ("warning", "c2", 5, False),
        ("failed", "c2", 5, True),  # asked for again: it is tried again
        ("cancelled", "c2", 5, True),
        ("failed", "c0", -5, False),  # an older command that comes late
    ],
)
def test_what_a_command_of_an_ended_job_gets(
    store: Store, clock: ManualClock, status: str, command: str, at: int, again: bool
) -> None:
    held(JobStore(store, clock).claim(fresh())).end(result(status))
    found = JobStore(store, clock).claim(fresh(command=command, at=at))
    assert isinstance(found, HeldJob) == again
    if isinstance(found, Ended):
        assert found.result.status == status
    else:
        assert found.record.state == "running"
        found.end(result("success", command))
        for old in ("c1", command):
            assert isinstance(JobStore(store, clock).claim(fresh(command=old, at=at)), Ended)


def test_a_command_that_is_done_is_not_begun_while_another_of_its_job_waits(store: Store, clock: ManualClock) -> None:
    records = JobStore(store, clock)
    held(records.claim(fresh())).end(result("failed"))
    held(records.claim(fresh(command="c2", at=5))).give_back(NOW)
    again = records.claim(fresh())
    assert isinstance(again, Ended)
    assert again.result.status == "failed"
    assert held(records.claim(fresh(command="c2", at=5))).record.command == "c2"


def test_attempts_count_until_an_orderly_end_whichever_command_they_are_of(store: Store, clock: ManualClock) -> None:
    records = JobStore(store, clock)
    for attempt in range(1, 7):
        now = held(records.claim(fresh(command=f"c{attempt % 2}")))
        assert now.record.attempts == attempt
        clock.advance(LEASE_SECONDS + 1)
    now = held(records.claim(fresh(command="c2", at=5)))
    now.give_back(NOW, retry=ErrorBody(what="x", exit_code=7))
    now = held(records.claim(fresh(command="c3", at=6)))
    assert (now.record.attempts, now.record.retries) == (1, 1)
    now.end(result("failed", "c3"))
    now = held(records.claim(fresh(command="c4", at=7)))
    assert (now.record.attempts, now.record.retries) == (1, 0)


def test_what_was_begun_is_remembered_whichever_command_came_after_it(store: Store, clock: ManualClock) -> None:
    records = JobStore(store, clock)
    assert not records.has_begun("Job:1", "c1")
    held(records.claim(fresh())).give_back(NOW)
    held(records.claim(fresh(command="c2", at=1))).end(result(command="c2"))
    assert records.has_begun("Job:1", "c1")
    assert records.has_begun("Job:1", "c2")
    assert not records.has_begun("Job:1", "c3")
    for number in range(200):
        held(records.claim(fresh("many", f"c{number}", at=number))).give_back(NOW)
    assert records.has_begun("many", "c199")
    assert not records.has_begun("many", "c0")


def test_a_damaged_record_keeps_no_other_from_being_tidied(store: Store, clock: ManualClock) -> None:
    records = JobStore(store, clock)
    held(records.claim(fresh("done"))).end(result(job="done"))
    store.create_record("jobs/" + "0" * 32, b"{", {})
    assert records.tidy(NOW + timedelta(seconds=1), NOW + timedelta(seconds=1)) == 1


def test_a_wish_to_cancel_is_for_commands_issued_before_it(store: Store, clock: ManualClock) -> None:
    records = JobStore(store, clock)
    assert not records.is_cancelled("Job:1", NOW)
    records.cancel("Job:1", NOW, "c1")
    records.cancel("Job:1", NOW - timedelta(days=1), "c0")  # an older wish that comes late takes nothing back
    assert records.is_cancelled("Job:1", NOW)
    assert not records.is_cancelled("Job:1", NOW + timedelta(seconds=1))
    assert not records.is_cancelled("Job:2", NOW)
    records.cancel("Job:1", NOW + timedelta(hours=1), "c1")  # the same one put again is no new wish
    assert not records.is_cancelled("Job:1", NOW + timedelta(seconds=1))
    records.cancel("Job:1", NOW + timedelta(seconds=1), "c2")
    assert records.is_cancelled("Job:1", NOW + timedelta(seconds=1))


class LostAnswers(Wrapper):
    """Every write is done, and its answer lost once."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.lose = False

    def replace_record(self, name: str, data: bytes, metadata: Any, *, etag: str, lease: str | None) -> Written:
        written = super().replace_record(name, data, metadata, etag=etag, lease=lease)
        if self.lose:
            self.lose = False
            raise ConditionFailed("a retry met what its first try wrote", name)
        return written


def test_a_write_whose_answer_was_lost_is_one_s_own(store: Store, clock: ManualClock) -> None:
    """I11: a retry after a lost answer is refused; the write id tells whose write that was."""
    losing = LostAnswers(store)
    mine = held(JobStore(losing, clock).claim(fresh()))
    losing.lose = True
    mine.give_back(NOW)
    record = JobStore(store, clock).read("Job:1")
    assert record is not None
    assert record.state == "waiting"


def test_a_store_that_is_gone_is_told(store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = held(JobStore(store, clock).claim(fresh()))
    monkeypatch.setattr(store, "renew_lease", raising(StoreUnavailable("gone")))
    clock.advance(30)
    with pytest.raises(StoreUnavailable):
        mine.tick()
    monkeypatch.undo()
    mine.tick()
    mine.end(result())


def raising(error: MoverError) -> Any:
    def call(*_: object, **__: object) -> None:
        raise error

    return call


def test_what_operators_see_is_written_now_and_then(store: Store, clock: ManualClock) -> None:
    mine = held(JobStore(store, clock).claim(fresh()))

    def seen() -> JobRecord:
        record = JobStore(store, clock).read("Job:1")
        assert record is not None
        return record

    for done in range(4):
        mine.note(progress(done), every=2.0)
    assert seen().progress is None
    clock.advance(2.5)
    mine.note(progress(4), every=2.0)
    assert seen().progress == progress(4)
    mine.note(item("a line"), every=0.0)
    assert [line.message for line in seen().log] == ["a line"]
    for number in range(2 * records_module.LOG_LINES):
        mine.note(item(f"line {number}"), every=0.0)
    assert len(seen().log) == records_module.LOG_LINES
    assert [(line.job, line.state) for line in JobStore(store, clock).lines()] == [("Job:1", "running")]


def progress(done: int) -> ProgressEvent:
    return ProgressEvent(command="c1", job="Job:1", time=NOW, stage="s", done=done, total=10, rate=1.0, eta=None)


def item(message: str) -> LogItem:
    return LogItem(command="c1", job="Job:1", time=NOW, status="success", message=message, resource="vm", start=NOW)


def test_workers_come_and_go(store: Store, clock: ManualClock) -> None:
    records = JobStore(store, clock)
    one = WorkerRecord(
        version=1, worker="w1", state="idle", since=NOW, updated=NOW, seal=b"k" * 32, queue="workers", release="1"
    )
    records.publish(one)
    records.publish(msgspec.structs.replace(one, state="busy", jobs=("Job:1",)))
    records.publish(msgspec.structs.replace(one, worker="w2"))
    assert {(w.worker, w.state) for w in records.workers()} == {("w1", "busy"), ("w2", "idle")}
    records.withdraw("w1")
    records.withdraw("w1")
    assert [w.worker for w in records.workers()] == ["w2"]


def test_old_records_go_and_unfinished_jobs_stay(store: Store, clock: ManualClock) -> None:
    records = JobStore(store, clock)
    held(records.claim(fresh("done"))).end(result(job="done"))
    held(records.claim(fresh("given-back"))).give_back(NOW)
    held(records.claim(fresh("running")))
    records.cancel("done", NOW, "c")
    assert records.tidy(NOW, NOW) == 0
    assert records.tidy(NOW + timedelta(seconds=1), NOW + timedelta(seconds=1)) == 2
    assert {line.job for line in records.lines()} == {"given-back", "running"}


@given(
    st.integers(0, records_module.LOG_LINES),
    st.integers(0, 20_000),
    st.integers(0, 90_000),
    st.integers(0, 300),
)
def test_a_record_stays_under_64_kib(lines: int, message: int, body: int, notes: int) -> None:
    """The store's records are small, whatever a job has to say."""
    long = msgspec.structs.replace(
        fresh(),
        log=tuple(item("x" * (message // 10)) for _ in range(lines)),
        body=msgspec.Raw(b'"' + b"b" * body + b'"'),
        state="ended",
        result=msgspec.structs.replace(result(), notes=tuple("n" * 400 for _ in range(notes))),
    )
    data = encode_record(long)
    assert len(data) <= 64 * 1024
    assert decode_record(data, "r").result is not None


def test_a_record_that_is_damaged_or_newer_is_told_by_its_name(store: Store, clock: ManualClock) -> None:
    for data, error in ((b"{", Damaged), (b'{"version": 1}', Damaged), (b'{"version": 2}', UnsupportedFormat)):
        with pytest.raises(error, match="jobs/x"):
            decode_record(data, "jobs/x")
