# SPDX-License-Identifier: Apache-2.0
"""A collector for tests, after I2 to I6: condemn, read until all have acknowledged, judge, delete in the next run.

It obeys the rules and is otherwise rude: a plan may condemn everything there is, for the verdict alone decides. Written against
the codecs of `mover.repository` only; the product's collector is a later issue's, and this one proves that the session's half
and the format are enough for it. It does not compact and publishes no forwards: scenarios do that by hand, `World.decree`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import msgspec

from mover.clock import Clock
from mover.errors import (
    ConditionFailed,
    LeaseConflict,
    LeaseLost,
    MissingObject,
    MoverError,
    ObjectNotFound,
    PointGone,
    SessionBusy,
    SessionLost,
)
from mover.repository import packlist, record
from mover.repository.collector_state import CollectorState, read_state
from mover.repository.frame import FrameReader
from mover.repository.index import counting_runs
from mover.repository.index_run import decode_run, encode_run
from mover.repository.keys import KeyRing, Kind
from mover.repository.leased import LeasedRecord
from mover.repository.maps import ChunkRef
from mover.repository.names import (
    COLLECTOR_STATE,
    PackName,
    index_run,
    parse_pack,
    point_of,
    random_id,
    session_of,
)
from mover.repository.pack import Place
from mover.repository.reader import read_chunk
from mover.store.base import Entry, Record, Store


class CollectorLost(MoverError):
    """This run is over: gc/state is another's, a listing cannot be true, or a session does not answer."""


class Alarm(Exception):
    """One more mark reached what a verdict had called gone (I3d): the loss has happened, and is noticed before the deletion."""


@dataclass(frozen=True)
class Plan:
    """What a run is to do. `expire`: points; `condemn_all`: every pack, live or not; `grace_over`: lapsed sessions are
    aborted, not acknowledged for; `patience`: readings of all sessions before it stops."""

    expire: frozenset[str] = frozenset()
    condemn_all: bool = False
    grace_over: bool = False
    quarantine: frozenset[tuple[PackName, int]] = frozenset()
    patience: int = 12


@dataclass
class View:
    """Everything that sessions and points say, read once."""

    committed: dict[str, record.Header] = field(default_factory=dict)
    open: dict[str, record.Header] = field(default_factory=dict)
    lapsed: set[str] = field(default_factory=set)
    ended: dict[str, record.Header] = field(default_factory=dict)
    etags: dict[str, str] = field(default_factory=dict)

    def sessions(self) -> set[str]:
        return {session_of(n) for n in (*self.committed, *self.open, *self.ended) if n.startswith("points/")}


class _Found(Store):
    """One reading of gc/state, for `read_state`."""

    def __init__(self, store: Store, found: Record) -> None:
        self._store = store
        self._found = found

    def read_record(self, name: str) -> Record:
        return self._found

    def read_all(self, name: str) -> bytearray:
        return self._store.read_all(name)


for _name in _Found.__abstractmethods__:
    setattr(_Found, _name, None)
_Found.__abstractmethods__ = frozenset()


class Collector:
    """One run of one collector."""

    def __init__(self, store: Store, keys: KeyRing, clock: Clock, plan: Plan) -> None:
        self.store = store
        self.keys = keys
        self.clock = clock
        self.plan = plan
        self.id = random_id()
        self.runs = 0
        self.packs = 0
        self.reader = FrameReader(keys)
        self.stop = threading.Event()

    def run(self) -> str:
        try:
            self.lease = self.store.acquire_lease(COLLECTOR_STATE, 60)
        except LeaseConflict:
            raise CollectorLost("gc/state is held", COLLECTOR_STATE) from None
        found = self.store.read_record(COLLECTOR_STATE)
        self.state, self.etag = read_state(_Found(self.store, found)), found.etag
        try:
            self.take_over()
            self.finish_deletions()
            view = self.look()
            self.fold(view)
            self.condemn(view)
            self.await_acknowledgements()
            self.judge()
            return "judged"
        except (PointGone, MissingObject) as error:
            if read_state(self.store).write_id == self.state.write_id:
                raise
            raise CollectorLost("another collector has deleted what this one reads", error.value) from None
        finally:
            try:
                self.store.release_lease(COLLECTOR_STATE, self.lease)
            except MoverError:
                pass

    # -- gc/state

    def write(self, state: CollectorState) -> None:
        """The conditional write (I1 for gc/state, I11)."""
        state = replace(state, write_id=random_id())
        try:
            answer = self.store.replace_record(COLLECTOR_STATE, state.encode(), {}, etag=self.etag, lease=self.lease)
            self.etag = answer.etag
        except (ConditionFailed, LeaseLost, LeaseConflict):
            found = self.store.read_record(COLLECTOR_STATE)
            if read_state(_Found(self.store, found)).write_id != state.write_id:
                raise CollectorLost("gc/state was lost", COLLECTOR_STATE) from None
            self.etag = found.etag
        self.state = state

    def take_over(self) -> None:
        """The former holder writes no more (design: acquire, then write under it)."""
        self.write(self.state)

    def renew(self) -> None:
        try:
            self.store.renew_lease(COLLECTOR_STATE, self.lease)
        except LeaseLost:
            raise CollectorLost("gc/state was lost", COLLECTOR_STATE) from None

    # -- reading

    def look(self) -> View:
        view = View()
        entries: list[Entry] = [*self.store.list("points/"), *self.store.list("holds/")]
        lacking = self.state.points - {entry.name for entry in entries}
        if lacking:
            raise CollectorLost("a listing lacks points that the last verdict kept (I6)", sorted(lacking)[0])
        for entry in entries:
            self.read(entry.name, view)
        return view

    def read(self, name: str, view: View) -> record.Header | None:
        try:
            found = self.store.read_record(name)
        except ObjectNotFound:
            return None
        header = record.decode_header(found.data, name)
        view.etags[name] = found.etag
        if header.state == record.COMMITTED:
            if not self.is_gone(header):
                view.committed[name] = header
            else:
                view.ended[name] = header
        elif header.state == record.OPEN:
            view.open[name] = header
            if not found.leased:
                view.lapsed.add(name)
        else:
            view.ended[name] = header
        return header

    def is_gone(self, header: record.Header) -> bool:
        """A point that a job issued again made under a gone point's name acknowledged the verdict's generation at least."""
        return header.name in self.state.gone_points and header.generation < self.state.generation

    def summary(self, header: record.Header) -> set[PackName]:
        assert header.summary is not None
        packs: set[PackName] = set()
        summary = record.place_from_json(header.summary)
        for ref, _, _ in packlist.decode_summary(read_chunk(self.store, self.reader, summary, Kind.SUMMARY)):
            packs.update(self.pack_list(ref))
        return packs

    def pack_list(self, ref: ChunkRef) -> list[PackName]:
        raw = read_chunk(self.store, self.reader, ref, Kind.PACKS)
        return [pack for pack, _ in packlist.decode_list(raw)]

    def used(self, view: View) -> set[PackName]:
        """What open sessions say that they took from others."""
        packs: set[PackName] = set()
        for header in view.open.values():
            packs.update(parse_pack(text) for text in header.uses.packs)
            for place in header.uses.lists:
                packs.update(self.pack_list(record.place_from_json(place)))
        return packs

    def reached(self, view: View, kept: Iterable[record.Header]) -> set[PackName]:
        """What may not die: kept points' summaries, open sessions' lists, forwards from either included."""
        packs = self.used(view)
        for header in kept:
            packs |= self.summary(header)
        for pack in list(packs):
            packs.update(self.state.forwarded(pack))
        return packs

    def named(self, view: View) -> set[str]:
        return {header.parent for header in view.open.values() if header.parent is not None}

    def prefixes(self, view: View) -> set[str]:
        return {session_of(name) for name in view.open if name.startswith("points/")}

    def stored_packs(self) -> list[PackName]:
        return [parse_pack(entry.name.removeprefix("packs/")) for entry in self.store.list("packs/")]

    # -- (d), of the run before

    def finish_deletions(self) -> None:
        state = self.state
        if not state.gone_packs and not state.gone_points:
            return
        view = self.look()
        hit = self.reached(view, view.committed.values()) & state.gone_packs
        if hit:
            raise Alarm(f"one more mark reaches what is gone: {sorted(map(str, hit))}")
        left_points = set()
        for name in sorted(state.gone_points):
            header = view.ended.get(name)
            if header is not None and header.state == record.COMMITTED and not self.delete(name, view.etags[name]):
                left_points.add(name)
        packs = [pack for pack in self.stored_packs() if pack in state.gone_packs]
        for pack in packs:
            self.delete(pack.object)
        mentioned = self.mentioned()
        left = set(self.stored_packs())
        gone = frozenset(pack for pack in state.gone_packs if pack in mentioned or pack in left)
        deleted = {session_of(name) for name in state.gone_points - left_points}
        self.write(
            replace(
                state,
                gone_points=frozenset(left_points),
                gone_packs=gone,
                folded=state.folded - deleted,
                forwards={
                    pack: to for pack, to in state.forwards.items() if pack not in state.gone_packs or pack in gone
                },
            )
        )

    def delete(self, name: str, etag: str | None = None) -> bool:
        """Whether it is gone now. A job issued again may just hold a lease on its committed point: another time, then."""
        try:
            self.store.delete(name, etag=etag)
        except LeaseConflict:
            return False
        except (ObjectNotFound, ConditionFailed):
            pass
        return True

    def mentioned(self) -> set[PackName]:
        """Packs that any run that counts names."""
        packs: set[PackName] = set()
        for name in counting_runs(self.store, self.state):
            packs.update(place.pack for _, place, _ in self.run_entries(name))
        return packs

    def run_entries(self, name: str) -> list[tuple[bytes, Place, int]]:
        try:
            records, packs = decode_run(bytes(self.store.read_all(name)), name)
        except ObjectNotFound:
            return []
        return [
            (
                row["id"].item().ljust(32, b"\0"),
                Place(packs[row["pack"]], int(row["offset"]), int(row["length"])),
                int(row["kind"]),
            )
            for row in records
        ]

    # -- (I2) folding

    def fold(self, view: View) -> None:
        ended = {**view.committed, **view.ended}
        fresh = {
            name: header
            for name, header in ended.items()
            if name.startswith("points/") and session_of(name) not in self.state.folded
        }
        if not fresh:
            return
        names = list(self.state.catalog_runs)
        for name, header in fresh.items():
            names += [index_run(session_of(name), inc, k) for inc, count in header.runs for k in range(count)]
        entries = [
            entry for name in names for entry in self.run_entries(name) if entry[1].pack not in self.state.gone_packs
        ]
        folded = self.state.folded | {session_of(name) for name in fresh}
        self.write(replace(self.state, catalog_runs=self.new_run(entries), folded=folded))
        for name in names:
            self.delete(name)

    def new_run(self, entries: list[tuple[bytes, Place, int]]) -> tuple[str, ...]:
        if not entries:
            return ()
        name = index_run(f"{0:032x}-{self.id}", self.id, self.runs)
        self.runs += 1
        self.store.put(name, [encode_run(entries)])
        return (name,)

    # -- (a)

    def condemn(self, view: View) -> None:
        expire = frozenset(self.plan.expire & view.committed.keys())
        stored = [pack for pack in self.stored_packs() if pack not in self.state.gone_packs]
        if self.plan.condemn_all:
            condemned = set(stored)
        else:
            kept = [header for name, header in view.committed.items() if name not in expire]
            live = self.reached(view, kept)
            prefixes = self.prefixes(view)
            known = view.sessions()
            condemned = {
                pack
                for pack in stored
                if pack not in live and pack.session not in prefixes and (pack.session in known or self.is_absent(pack))
            }
        self.write(
            replace(
                self.state,
                generation=self.state.generation + 1,
                condemned_points=expire,
                condemned_packs=frozenset(condemned),
                quarantine=self.state.quarantine | self.plan.quarantine,
            )
        )

    def is_absent(self, pack: PackName) -> bool:
        """I6: the session's blob, read by name."""
        if pack.session.startswith("0" * 32):
            return True  # a collector's own copies have no session
        try:
            self.store.read_record(point_of(pack.session))
        except ObjectNotFound:
            return True
        return False

    # -- (b)

    def await_acknowledgements(self) -> None:
        generation = self.state.generation
        for _ in range(self.plan.patience):
            view = self.look()
            behind = [name for name, header in view.open.items() if header.generation < generation]
            if not behind:
                return
            for name in behind:
                if name in view.lapsed:
                    self.take_session(name, generation)
            self.clock.wait(self.stop, 1.0)
            self.renew()
        raise CollectorLost("a session does not acknowledge", generation)

    def take_session(self, name: str, generation: int) -> None:
        """I4: acknowledge in its place, or abort it."""
        header = record.Header(
            kind="point", name=name, state=record.OPEN, resource="", incarnation=self.id, write_id=random_id(), time=0.0
        )
        leased = LeasedRecord(self.store, self.keys, self.clock, header, record.Body())
        try:
            found = leased.acquire()
            there, body = record.decode(found.data, name, self.keys)
            if there.state == record.OPEN:
                leased.header, leased.body = there, body
                leased.write(lambda old: self.taken(old, generation))
        except (SessionBusy, SessionLost, ObjectNotFound):
            return
        leased.release()

    def taken(self, old: record.Header, generation: int) -> record.Header:
        if self.plan.grace_over or not old.generation:
            ended = record.ENDED if old.kind == "hold" else record.ABORTED
            return msgspec.structs.replace(old, state=ended, incarnation=self.id)
        return msgspec.structs.replace(old, generation=generation, incarnation=self.id)

    # -- (c)

    def judge(self) -> None:
        view = self.look()
        named = self.named(view)
        gone_points = self.state.condemned_points & view.committed.keys() - named
        kept = {name: header for name, header in view.committed.items() if name not in gone_points}
        reached = self.reached(view, kept.values())
        prefixes = self.prefixes(view)
        gone = {p for p in self.state.condemned_packs if p not in reached and p.session not in prefixes}
        self.write(
            replace(
                self.state,
                condemned_points=frozenset(),
                condemned_packs=frozenset(),
                gone_points=self.state.gone_points | gone_points,
                gone_packs=self.state.gone_packs | gone,
                points=frozenset(kept),
                time=self.store.read_record(COLLECTOR_STATE).time,
            )
        )
