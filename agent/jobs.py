# SPDX-License-Identifier: Apache-2.0
"""Job records in the state store: what became of each job, whoever works on it and whoever asks.

A job is worked on by the holder of its record's lease, and only by it: a command that is delivered twice, to two workers at
once, or again after a crash meets the record first. A command whose job has ended is answered from the record and never
carried out again. Every write names lease and ETag, and carries a write id, so that a lost answer is told from another
worker's write, as sessions do in a repository (docs/concurrency.md, I4 and I11). Records hold no secret.

Objects: `jobs/<h>` the records, `cancels/<h>` the wish that a job shall end, `workers/<h>` who is there; h is a digest of the name.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from agent.errors import JobBusy
from agent.protocol import ErrorBody, LogItem, ProgressEvent, Result
from agent.records import (
    CANCELS_KEPT,
    LOG_LINES,
    VERSION,
    CancelWish,
    JobRecord,
    WorkerRecord,
    decode,
    decode_record,
    encode_record,
    metadata_of,
    newest,
    told_of,
)
from mover.clock import Clock
from mover.errors import (
    ConditionFailed,
    Damaged,
    LeaseConflict,
    LeaseLost,
    MoverError,
    ObjectExists,
    ObjectNotFound,
    SessionLost,
    UnsupportedFormat,
)
from mover.repository.leased import LEASE_SECONDS, RENEW_SECONDS
from mover.repository.names import random_id
from mover.store.base import Store

JOBS, CANCELS, WORKERS = "jobs/", "cancels/", "workers/"
_Free = TypeVar("_Free", CancelWish, WorkerRecord)


@dataclass(frozen=True, slots=True)
class JobLine:
    """What a listing shows of a job without reading its record."""

    job: str
    kind: str
    state: str
    updated: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The command's work was done before; `result` is the answer that it got."""

    record: JobRecord
    result: Result


def digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def _let_go(store: Store, name: str, lease: str) -> None:
    try:
        store.release_lease(name, lease)
    except MoverError:
        pass  # it lapses by itself


class HeldJob:
    """A job whose lease this incarnation holds. `worked_before`: a run before this one may have changed something. `tick` is
    called by a keeper thread, everything else by the thread that works; thread-safe. Any method may raise
    SessionLost: then another worker has the job, and nothing of it may be written or said."""

    def __init__(
        self, jobs: JobStore, name: str, lease: str, etag: str, record: JobRecord, *, leased_at: float
    ) -> None:
        store, clock = jobs.store, jobs._clock
        self._redact = jobs._redact
        self._store = store
        self._clock = clock
        self._name = name
        self._lease = lease
        self._etag = etag
        self._lock = threading.RLock()
        self._renewed_at = leased_at
        self._written_at = clock.monotonic()
        self._issued = {record.write_id}
        self._lost = False
        self.worked_before = record.worked
        self.record = record

    def tick(self) -> None:
        """Renew the lease when it is due."""
        if self._clock.monotonic() - self._renewed_at < RENEW_SECONDS:
            return
        sent = self._clock.monotonic()
        try:
            self._store.renew_lease(self._name, self._lease)
        except (LeaseLost, LeaseConflict, ObjectNotFound):
            raise self._lose() from None
        self._renewed_at = sent

    @property
    def sure(self) -> bool:
        """Whether nobody else can have taken the job yet: the lease was renewed within its time."""
        return not self._lost and self._clock.monotonic() - self._renewed_at < LEASE_SECONDS

    def note(self, event: ProgressEvent | LogItem, *, every: float) -> None:
        """What operators see of the job; written at most every so many seconds."""
        with self._lock:
            if isinstance(event, ProgressEvent):
                self.record = msgspec.structs.replace(self.record, progress=event)
            else:
                self.record = msgspec.structs.replace(self.record, log=(*self.record.log, event)[-LOG_LINES:])
            if self._clock.monotonic() - self._written_at >= every:
                self._write(updated=event.time)

    def end(self, result: Result) -> None:
        """The job is done, whatever the result: from now on its commands are answered from here."""
        done = newest(self.record.done_commands, self.record.command)
        self._write(
            state="ended", result=result, done_commands=done, updated=result.time, attempts=0, retries=0, progress=None
        )
        _let_go(self._store, self._name, self._lease)

    def give_back(
        self, now: datetime, *, retry: ErrorBody | None = None, untouched: bool = False, receipt: str = ""
    ) -> None:
        """An orderly stop: another worker, or this one, goes on. `retry`: the passing error that made it necessary; `untouched`:
        this run has changed nothing; `receipt`: of its message while that is hidden."""
        self._write(
            state="waiting",
            attempts=0,
            retries=self.record.retries + (1 if retry else 0),
            worked=self.worked_before or not untouched,
            receipt=receipt,
            updated=now,
            last_error=retry or self.record.last_error,
        )
        _let_go(self._store, self._name, self._lease)

    def abandon(self) -> None:
        """Only the lease is given back; the record stays as it is."""
        _let_go(self._store, self._name, self._lease)

    def _write(self, **changes: Any) -> None:
        with self._lock:
            if self._lost:
                raise self._lose()
            wanted = msgspec.structs.replace(self.record, write_id=random_id(), **changes)
            data = encode_record(self._redact(wanted))
            self._issued.add(wanted.write_id)
            while True:
                try:
                    written = self._store.replace_record(
                        self._name, data, metadata_of(wanted), etag=self._etag, lease=self._lease
                    )
                    self._etag = written.etag
                    break
                except ObjectNotFound:
                    raise self._lose() from None
                except (ConditionFailed, LeaseLost, LeaseConflict) as error:
                    self._etag = self._after_refusal(wanted.write_id, error)
                    if not self._etag:
                        break
            self.record = wanted
            self._written_at = self._clock.monotonic()

    def _after_refusal(self, write_id: str, error: MoverError) -> str:
        """The ETag to try with now; empty when the write had happened after all. SessionLost when it is another's record."""
        try:
            found = self._store.read_record(self._name)
        except ObjectNotFound:
            raise self._lose() from None
        there = decode_record(found.data, self._name)
        if there.write_id not in self._issued:
            raise self._lose()
        if there.write_id == write_id:
            self._etag = found.etag
            return ""
        if isinstance(error, ConditionFailed) and found.etag == self._etag:
            raise self._lose()
        if not isinstance(error, ConditionFailed):
            try:  # a lease that lapsed and that nobody took can be renewed
                self._store.renew_lease(self._name, self._lease)
            except (LeaseLost, LeaseConflict, ObjectNotFound):
                raise self._lose() from None
        return found.etag

    def _lose(self) -> SessionLost:
        self._lost = True
        return SessionLost("this worker no longer holds its job", self.record.job)


class JobStore:
    """The records of one state store. `now` is the queue service's time."""

    def __init__(
        self, store: Store, clock: Clock, redact: Callable[[JobRecord], JobRecord] = lambda record: record
    ) -> None:
        self.store = store
        self._clock = clock
        self._redact = redact

    # -- working on a job

    def claim(self, fresh: JobRecord) -> HeldJob | Ended:
        """Take the job for `fresh.command` (a record as a first delivery makes it), or learn that the command's work is done.

        JobBusy while another worker holds it. One more attempt is counted before anything is done, so that a command that
        kills its workers is found out.
        """
        name = JOBS + digest(fresh.job)
        first = msgspec.structs.replace(fresh, attempts=0, begun_commands=(fresh.command,))
        try:
            self.store.create_record(name, encode_record(self._redact(first)), metadata_of(first))
        except ObjectExists:
            pass
        leased_at = self._clock.monotonic()
        try:
            lease = self.store.acquire_lease(name, LEASE_SECONDS)
        except LeaseConflict:
            raise JobBusy("another worker is at this job", fresh.job, holder=self._read(name)) from None
        try:
            return self._begin(name, lease, fresh, leased_at)
        except BaseException:
            _let_go(self.store, name, lease)
            raise

    def claim_waiting(self, job: str) -> HeldJob | JobRecord | None:
        """A job that waits and shall be cancelled: taken, to be ended, when no run of it can have changed anything; otherwise its
        record, for a run that finds out. None: it does not wait, or need not end, or is another's."""
        name = JOBS + digest(job)
        found = self._cancelled_waiting(name, job)
        if found is None:
            return None
        if found[0].worked:
            return found[0]
        leased_at = self._clock.monotonic()
        try:
            lease = self.store.acquire_lease(name, LEASE_SECONDS)
        except (LeaseConflict, ObjectNotFound):
            return None
        try:
            found = self._cancelled_waiting(name, job)  # again: now nobody changes it
            if found is not None and not found[0].worked:
                return HeldJob(self, name, lease, found[1], found[0], leased_at=leased_at)
        except BaseException:
            _let_go(self.store, name, lease)
            raise
        _let_go(self.store, name, lease)
        return found[0] if found is not None else None

    def _cancelled_waiting(self, name: str, job: str) -> tuple[JobRecord, str] | None:
        """(record, ETag) of a job that waits although it shall end."""
        try:
            found = self.store.read_record(name)
        except ObjectNotFound:
            return None
        there = decode_record(found.data, name)
        waits = there.job == job and there.state == "waiting"
        return (there, found.etag) if waits and self.is_cancelled(job, there.asked) else None

    def _begin(self, name: str, lease: str, fresh: JobRecord, leased_at: float) -> HeldJob | Ended:
        found = self.store.read_record(name)
        there = decode_record(found.data, name)
        if there.job != fresh.job:
            raise Damaged("a job's record is of another job", name)
        if there.result is not None:
            ended = there.state == "ended" and (
                fresh.asked < there.asked or there.result.status in ("success", "warning")
            )
            if ended or fresh.command in there.done_commands:
                self.store.release_lease(name, lease)
                return Ended(there, there.result)
        held = HeldJob(self, name, lease, found.etag, there, leased_at=leased_at)
        same = there.command == fresh.command
        held._write(
            state="running",
            command=fresh.command,
            message=fresh.message,
            kind=fresh.kind,
            subject=fresh.subject,
            body=fresh.body,
            worker=fresh.worker,
            asked=there.asked if same else max(fresh.asked, there.asked),
            updated=fresh.updated,
            progress=None,
            attempts=there.attempts + 1,
            worked=True,
            receipt="",
            reply=fresh.reply,
            begun_commands=newest(there.begun_commands, fresh.command),
        )
        return held

    # -- cancelling

    def cancel(self, target: str, asked: datetime, command: str) -> None:
        """Commands of the job that came until then shall end; `command` is the id of the cancel that says so."""
        name = CANCELS + digest(target)
        wish = CancelWish(version=VERSION, target=target, asked=asked, commands=(command,))

        def after(data: bytes) -> CancelWish | None:
            there = decode(data, CancelWish, name)
            if command in there.commands:
                return None
            commands = (*there.commands, command)[-CANCELS_KEPT:]
            return msgspec.structs.replace(wish, asked=max(asked, there.asked), commands=commands)

        self._put(name, wish, after)

    def is_cancelled(self, job: str, asked: datetime) -> bool:
        """Whether somebody wishes that this job, by a command that came then, ends; in the same second the wish was later."""
        name = CANCELS + digest(job)
        try:
            found = self.store.read_record(name)
        except ObjectNotFound:
            return False
        wish = decode(found.data, CancelWish, name)
        return wish.target == job and wish.asked >= asked

    # -- looking

    def has_begun(self, job: str, command: str) -> bool:
        """Whether the record tells that a worker began this command; also when the record cannot be read: who claims the job will
        hear of that."""
        try:
            there = self.read(job)
        except (Damaged, UnsupportedFormat):
            return True
        return there is not None and command in (*there.begun_commands, *there.done_commands)

    def read(self, job: str) -> JobRecord | None:
        return self._read(JOBS + digest(job))

    def _read(self, name: str) -> JobRecord | None:
        try:
            return decode_record(self.store.read_record(name).data, name)
        except ObjectNotFound:
            return None

    def lines(self) -> Iterator[JobLine]:
        """Every job, by one paged listing."""
        for entry in self.store.list(JOBS):
            told = entry.metadata
            names = ("job", "kind", "state", "updated")
            yield JobLine(**{name: told.get(name, "") for name in names})

    # -- workers

    def publish(self, worker: WorkerRecord) -> None:
        """Say who is there; the newest word wins."""
        self._put(WORKERS + digest(worker.worker), worker, lambda there: worker)

    def _put(self, name: str, first: _Free, after: Callable[[bytes], _Free | None]) -> None:
        """Make a record that nobody leases, or replace it by what comes `after` it; None: it stands."""
        while True:
            try:
                self.store.create_record(name, msgspec.json.encode(first), told_of(first))
                return
            except ObjectExists:
                pass
            try:
                found = self.store.read_record(name)
                if (value := after(found.data)) is not None:
                    self.store.replace_record(
                        name, msgspec.json.encode(value), told_of(value), etag=found.etag, lease=None
                    )
                return
            except (ConditionFailed, ObjectNotFound):
                continue

    def withdraw(self, worker: str) -> None:
        """The worker is gone."""
        try:
            self.store.delete(WORKERS + digest(worker))
        except ObjectNotFound:
            pass

    def workers(self) -> list[WorkerRecord]:
        found = []
        for entry in self.store.list(WORKERS):
            try:
                found.append(decode(self.store.read_record(entry.name).data, WorkerRecord, entry.name))
            except ObjectNotFound:
                continue  # it stopped since
        return found

    # -- keeping house

    def tidy(self, older_than: datetime, worker_older_than: datetime, go_on: Callable[[], bool] = lambda: True) -> int:
        """Remove records of jobs that ended before then, wishes as old, and records of workers that were not heard since; how many.

        `go_on` is asked at every record. What the listing tells is believed as far as to leave a record alone.
        """
        removed = 0
        for prefix, limit in ((JOBS, older_than), (CANCELS, older_than), (WORKERS, worker_older_than)):
            for entry in self.store.list(prefix):
                if not go_on():
                    return removed
                if _is_young(entry.metadata, limit):
                    continue
                try:
                    found = self.store.read_record(entry.name)
                    if _last_word(prefix, found.data, entry.name) >= limit or found.leased:
                        continue
                    self.store.delete(entry.name, etag=found.etag)
                    removed += 1
                except (ObjectNotFound, ConditionFailed, LeaseConflict):
                    continue  # it changed meanwhile: it is not old
                except (Damaged, UnsupportedFormat):
                    continue  # for a person to look at
        return removed


def _is_young(told: Mapping[str, str], limit: datetime) -> bool:
    if told.get("state") in ("running", "waiting"):
        return True
    try:
        return datetime.fromisoformat(told.get("updated", "")) >= limit
    except (ValueError, TypeError):
        return False


def _last_word(prefix: str, data: bytes, name: str) -> datetime:
    if prefix == JOBS:
        record = decode_record(data, name)
        return record.updated if record.state == "ended" else datetime.max.replace(tzinfo=UTC)
    if prefix == CANCELS:
        return decode(data, CancelWish, name).asked
    return decode(data, WorkerRecord, name).updated
