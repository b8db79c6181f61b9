# SPDX-License-Identifier: Apache-2.0
"""A session's record and the lease on it: the one place that writes sessions (rules I1, I4, I11, I13).

Every write names the lease and the ETag; when the store says no, the record is read, and one's own write id means that the
write had happened (a lost answer). Otherwise the record is somebody else's now: SessionLost, for good, for this incarnation.
Safe for many threads: writes are serialised here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import msgspec

from mover.clock import Clock
from mover.errors import (
    Cancelled,
    ConditionFailed,
    LeaseConflict,
    LeaseLost,
    MoverError,
    ObjectExists,
    ObjectNotFound,
    SessionBusy,
    SessionEnded,
    SessionLost,
    StoreUnavailable,
)
from mover.repository import record
from mover.repository.keys import KeyRing
from mover.repository.names import random_id
from mover.store.base import Record, Store

POLL_SECONDS = 30
LEASE_SECONDS = 60
RENEW_SECONDS = 15
"""Under a quarter of the lease, so that three renewals may fail before it lapses."""


class LeasedRecord:
    """One incarnation's hold on one session record. `header` is what the record says now."""

    def __init__(self, store: Store, keys: KeyRing, clock: Clock, header: record.Header, body: record.Body) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock
        self._lock = threading.RLock()
        self._issued: set[str] = {header.write_id}
        self._etag = ""
        self._lease = ""
        self._renewed_at = 0.0
        self._lost: str | None = None
        self.header = header
        self.body = body
        self.store_time = 0.0

    @property
    def name(self) -> str:
        return self.header.name

    # -- taking it

    def create(self) -> bool:
        """Put the record if its name is free; true when it is ours now (an answer that was lost included, I11)."""
        data = record.encode(self.header, self.body, self._keys)
        while True:
            try:
                written = self._store.create_record(self.name, data, record.metadata_of(self.header))
                self._etag, self.store_time = written.etag, written.time
                return True
            except ObjectExists:
                pass
            try:
                found = self._store.read_record(self.name)
            except ObjectNotFound:
                continue  # the collector deleted an expired point between the two: the name is free again
            self._etag, self.store_time = found.etag, found.time
            return record.decode_header(found.data, self.name).write_id in self._issued

    def acquire(self) -> Record:
        """Lease the record and read it; SessionBusy while another's lease is active."""
        sent = self._clock.monotonic()
        try:
            self._lease = self._store.acquire_lease(self.name, LEASE_SECONDS)
        except LeaseConflict:
            raise SessionBusy("the session is held by another worker", self.name) from None
        self._renewed_at = sent
        found = self._store.read_record(self.name)
        self._etag, self.store_time = found.etag, found.time
        return found

    def adopt(self, header: record.Header, body: record.Body) -> None:
        """Take over: the record as read under our lease, written again with our incarnation. The former holder writes no more."""
        incarnation = self.header.incarnation
        self.header, self.body = header, body
        self.write(lambda old: msgspec.structs.replace(old, incarnation=incarnation))

    # -- keeping it

    def renew_if_due(self) -> None:
        """Renew when RENEW_SECONDS have passed; SessionLost when the lease is another's now."""
        if self._clock.monotonic() - self._renewed_at >= RENEW_SECONDS:
            self.renew()

    def renew(self) -> None:
        self.check()
        sent = self._clock.monotonic()
        try:
            self._store.renew_lease(self.name, self._lease)
        except (LeaseLost, LeaseConflict, ObjectNotFound) as error:
            raise self._lose(f"its lease could not be renewed ({error.what})") from None
        self._renewed_at = sent

    def check(self) -> None:
        """SessionLost when it is known to be lost."""
        if self._lost is not None:
            raise SessionLost("this worker no longer holds its session", f"{self.name}: {self._lost}")

    def _lose(self, why: str) -> SessionLost:
        self._lost = why
        return SessionLost("this worker no longer holds its session", f"{self.name}: {why}")

    # -- writing it

    def write(self, change: Callable[[record.Header], record.Header]) -> None:
        """Write the record as `change` makes it from what it is now. `change` runs under the lock, once.

        A record that is committed, aborted or ended is never written again: not by a keeper either that ticks once more.
        """
        with self._lock:
            self.check()
            if self.header.state != record.OPEN:
                raise SessionEnded("the session has ended, its record stays as it is", self.name)
            wanted = msgspec.structs.replace(change(self.header), write_id=random_id(), time=self.store_time)
            data = record.encode(wanted, self.body, self._keys)
            self._issued.add(wanted.write_id)
            self._put(wanted, data)
            self.header = wanted

    def _put(self, wanted: record.Header, data: bytes) -> None:
        metadata = record.metadata_of(wanted)
        while True:
            try:
                written = self._store.replace_record(self.name, data, metadata, **self._condition())
                self._etag, self.store_time = written.etag, written.time
                return
            except ObjectNotFound:
                raise self._lose("its record is gone") from None
            except (Cancelled, StoreUnavailable):
                if self._had_happened(wanted):
                    return
                raise
            except (ConditionFailed, LeaseLost, LeaseConflict) as error:
                try:
                    found = self._store.read_record(self.name)
                except ObjectNotFound:
                    raise self._lose("its record is gone") from None
                there = record.decode_header(found.data, self.name)
                if there.write_id == wanted.write_id:  # I11: the write had happened, its answer was lost
                    self._etag, self.store_time = found.etag, found.time
                    return
                if there.write_id not in self._issued or there.incarnation != wanted.incarnation:
                    raise self._lose(f"its record was written by another ({error.what})") from None
                if there.state != record.OPEN:
                    raise self._lose(f"its record is {there.state}") from None
                # An earlier write of ours whose answer never came, or a lease that lapsed and that nobody took (I4).
                if isinstance(error, ConditionFailed) and found.etag == self._etag:
                    raise self._lose("the store refuses its ETag") from None
                self._etag = found.etag
                if not isinstance(error, ConditionFailed):
                    self.renew()

    def _had_happened(self, wanted: record.Header) -> bool:
        """Of a write whose answer nobody waits for any longer: a point that was committed must not be told as cancelled (I11).
        Cancelled, saying so, when the store does not tell that either."""
        try:
            found = self._store.read_record(self.name)
            there = record.decode_header(found.data, self.name)
        except StoreUnavailable:
            raise
        except MoverError:
            value = f"{self.name}: the store did not answer"
            hint = "`data-mover points` shows whether it is there; the same command again goes on, or finds it"
            raise Cancelled(f"stopped while the point was to become {wanted.state}", value, hint) from None
        self._etag, self.store_time = found.etag, found.time
        return there.write_id == wanted.write_id

    def _condition(self) -> dict[str, str]:
        return {"etag": self._etag, "lease": self._lease}

    def release(self) -> None:
        """Give the lease back, so that the record can be adopted or deleted at once; errors do not matter any more."""
        if self._lease:
            try:
                self._store.release_lease(self.name, self._lease)
            except MoverError:
                pass  # it lapses by itself
            self._lease = ""
