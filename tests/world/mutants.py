# SPDX-License-Identifier: Apache-2.0
"""Switches that break one rule each, in the real code and for tests only. A switch is a context manager.

What a switch does is the mistake that somebody could make in good faith; each says which rule it breaks and how.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest import mock

import msgspec

import mover.disk_restore
import mover.repository.hold
import mover.repository.opening
import mover.repository.reader
import mover.repository.repository
import mover.repository.session
from mover.errors import ConditionFailed, LeaseConflict, LeaseLost
from mover.repository import record
from mover.repository.collector_state import read_state
from mover.repository.hold import Hold
from mover.repository.index import DedupeView
from mover.repository.leased import LeasedRecord
from mover.repository.packer import Packer
from mover.repository.session import Session

Switch = Callable[[], AbstractContextManager[Any]]
SWITCHES: dict[str, Switch] = {}


def switch(function: Callable[[], Iterator[None]]) -> Switch:
    made = contextmanager(function)
    SWITCHES[function.__name__] = made
    return made


def _replaced(where: Any, name: str, value: Any) -> AbstractContextManager[Any]:
    return mock.patch.object(where, name, value)


@switch
def i1_write_without_lease() -> Iterator[None]:
    """I1: the write names no lease and takes whatever ETag there is: a former holder's commit is obeyed."""

    def condition(self: Any) -> dict[str, Any]:
        self._store.break_lease(self.name)
        return {"etag": self._store.read_record(self.name).etag, "lease": None}

    with _replaced(LeasedRecord, "_condition", condition):
        yield


@switch
def i2_commit_before_packs() -> Iterator[None]:
    """I2: the record is committed first, the last packs are stored after it."""
    commit, flush = Session.commit, Packer.flush
    mine = threading.local()

    def lazy(self: Any) -> None:
        if not getattr(mine, "committing", False):
            flush(self)

    def late(self: Any, *arguments: Any) -> Any:
        mine.committing = True
        done = commit(self, *arguments)
        mine.committing = False
        self.data.flush()
        self.metadata.flush()
        return done

    with _replaced(Session, "commit", late), _replaced(Packer, "flush", lazy):
        yield


@switch
def i2_checkpoint_before_packs() -> Iterator[None]:
    """I2: a checkpoint's run and map name chunks whose pack is not stored yet; a commit stores all."""
    publish, commit, flush = Session._publish_run, Session.commit, Packer.flush
    committing: set[Any] = set()

    def early(self: Any) -> None:
        self._stored |= self._entries.keys()
        publish(self)

    def noted(self: Any, *arguments: Any) -> Any:
        committing.add(self.data)
        return commit(self, *arguments)

    def lazy(self: Any) -> None:
        if self._metadata or self in committing:
            flush(self)

    with (
        _replaced(Session, "_publish_run", early),
        _replaced(Session, "commit", noted),
        _replaced(Packer, "flush", lazy),
    ):
        yield


@switch
def i2_gone_entries_count() -> Iterator[None]:
    """I2, I5: an entry of a run counts although gc/state calls its pack gone; only what is condemned does not."""

    def exclude(self: Any, state: Any) -> None:
        self._absent |= state.condemned_packs
        self._quarantine = state.quarantine

    with _replaced(DedupeView, "exclude", exclude):
        yield


@switch
def i7_hold_names_nothing() -> Iterator[None]:
    """I7, I13: a hold does not say which point it holds."""
    write = LeasedRecord.write

    def nameless(self: Any, change: Any) -> None:
        def changed(old: Any) -> Any:
            new = change(old)
            return new if new.kind == "point" else _without_parent(new)

        write(self, changed)

    with _replaced(LeasedRecord, "write", nameless):
        yield


def _without_parent(header: record.Header) -> record.Header:
    return msgspec.structs.replace(header, parent=None)


@switch
def i7_hold_reads_state_first() -> Iterator[None]:
    """I7, I14: a reader reads gc/state, then makes its hold."""
    opened, read = mover.repository.hold.open_hold, mover.repository.hold.read_state
    mine = threading.local()

    def open_hold(store: Any, *arguments: Any) -> Any:
        mine.early = [read(store)]
        return opened(store, *arguments)

    def stale(store: Any) -> Any:
        early = getattr(mine, "early", [])
        return early.pop() if early else read(store)

    with (
        _replaced(mover.repository.repository, "open_hold", open_hold),
        _replaced(mover.repository.hold, "read_state", stale),
    ):
        yield


@switch
def i7_dying_point_is_held() -> Iterator[None]:
    """I7: a hold does not look whether its point is condemned or gone."""

    def begin(self: Any) -> None:
        self._seen = read_state(self._store).generation
        self._acknowledge()

    with _replaced(Hold, "begin", begin):
        yield


@switch
def i11_conflict_is_success() -> Iterator[None]:
    """I11: a conflict is taken for one's own earlier write without reading whose it is."""

    def put(self: Any, wanted: Any, data: bytes) -> None:
        metadata = record.metadata_of(wanted)
        try:
            written = self._store.replace_record(self.name, data, metadata, **self._condition())
            self._etag, self.store_time = written.etag, written.time
        except (ConditionFailed, LeaseLost, LeaseConflict):
            self._etag = self._store.read_record(self.name).etag

    with _replaced(LeasedRecord, "_put", put):
        yield


@switch
def i11_conflict_is_loss() -> Iterator[None]:
    """I11: a conflict is taken for another's write although one's own id stands there."""

    def put(self: Any, wanted: Any, data: bytes) -> None:
        metadata = record.metadata_of(wanted)
        try:
            written = self._store.replace_record(self.name, data, metadata, **self._condition())
            self._etag, self.store_time = written.etag, written.time
        except (ConditionFailed, LeaseLost, LeaseConflict):
            raise self._lose("its record was written by another") from None

    with _replaced(LeasedRecord, "_put", put):
        yield


@switch
def i12_names_without_incarnation() -> Iterator[None]:
    """I12: packs and runs are named by session and number only, so an adopter uses a former holder's names again."""
    writer, run = mover.repository.session.writer_bytes, mover.repository.session.index_run
    with (
        _replaced(mover.repository.session, "writer_bytes", lambda session, incarnation: writer(session, "0" * 32)),
        _replaced(mover.repository.session, "index_run", lambda session, inc, number: run(session, "0" * 32, number)),
    ):
        yield


@switch
def i13_uses_are_not_listed() -> Iterator[None]:
    """I13: a session does not say which packs it took from the index."""
    with _replaced(Session, "_used_packs", lambda self: record.Uses()):
        yield


@switch
def i13_adopter_forgets_uses() -> Iterator[None]:
    """I13: an adopter lists only what it took itself."""
    with _replaced(Session, "_remember_uses", lambda self: None):
        yield


@switch
def i13_parent_is_not_named() -> Iterator[None]:
    """I13: the record does not name the parent."""
    write = Session._write
    with _replaced(Session, "_write", lambda self, **changes: write(self, **(changes | {"parent": None}))):
        yield


@switch
def i14_state_before_record() -> Iterator[None]:
    """I14: a writer reads gc/state, then creates its record."""
    opened, read = mover.repository.opening.open_session, Session._read_collector_state
    mine = threading.local()

    def open_session(store: Any, *arguments: Any, **options: Any) -> Any:
        mine.early = [read_state(store)]
        return opened(store, *arguments, **options)

    def stale(self: Any) -> Any:
        early = getattr(mine, "early", [])
        return early.pop() if early else read(self)

    with (
        _replaced(mover.repository.opening, "open_session", open_session),
        _replaced(Session, "_read_collector_state", stale),
    ):
        yield


@switch
def i14_parent_before_state() -> Iterator[None]:
    """I14: the parent is chosen and read before gc/state says whether it lives; it is not looked at again."""
    with _replaced(Session, "_parent_is_dead", lambda self, state, parent, *, fresh: False):
        yield


@switch
def i14_acknowledged_before_switch() -> Iterator[None]:
    """I14: the list of packs is taken and written, then condemned packs leave the view."""

    def refresh(self: Any) -> Any:
        state = self._read_collector_state()
        self._polled_at = self.clock.monotonic()
        if state.write_id != self._state_id:
            self._state_id = state.write_id
            if state.generation > self._seen:
                self._seen = state.generation
                self._write()
            self.view.exclude(state)
        return state

    with _replaced(Session, "refresh", refresh):
        yield


@switch
def i14_acknowledged_without_switch() -> Iterator[None]:
    """I14: a new generation is acknowledged, and the view goes on as it was."""

    def refresh(self: Any) -> Any:
        state = self._read_collector_state()
        self._polled_at = self.clock.monotonic()
        if state.generation > self._seen:
            self._seen = state.generation
            self._write()
        return state

    with _replaced(Session, "refresh", refresh):
        yield


@switch
def i14_view_does_not_grow() -> Iterator[None]:
    """I14: what is out of the view is what is condemned or gone now; what was so once comes back."""

    def exclude(self: Any, state: Any) -> None:
        self._absent = set(state.condemned_packs | state.gone_packs)
        self._quarantine = state.quarantine

    with _replaced(DedupeView, "exclude", exclude):
        yield


@switch
def i8_quarantined_places_are_handed_out() -> Iterator[None]:
    """I8: the dedupe view refers to places that the collector calls damaged."""
    with _replaced(DedupeView, "_counts", lambda self, place: place.pack not in self._absent):
        yield


@switch
def i8_parents_places_are_kept() -> Iterator[None]:
    """I8: an incremental keeps its parent's quarantined places."""
    with (
        _replaced(DedupeView, "quarantined", lambda self, place: False),
        _replaced(mover.disk_backup, "_slot_uses", lambda slot, quarantine: False),
    ):
        yield


@switch
def i8_no_look_before_commit() -> Iterator[None]:
    """I8: what is found damaged while a session is open stays in its map."""
    with _replaced(mover.backup.Backup, "_replace_quarantined", lambda self, *arguments: None):
        yield


@switch
def i8_forwards_are_not_read() -> Iterator[None]:
    """I7, I8, I15: a reader that misses a place does not look where the collector moved its frames."""

    def recover(store: Any, reader: Any, ref: Any, kind: Any, error: Exception) -> bytes:
        raise error

    with (
        _replaced(mover.repository.reader, "recover_chunk", recover),
        _replaced(mover.disk_restore, "recover_chunk", recover),
    ):
        yield


@switch
def i10_owner_is_not_looked_at() -> Iterator[None]:
    """I10: a session does not read the descriptor after its record was created."""
    with _replaced(Session, "_check_owner", lambda self, state: None):
        yield
