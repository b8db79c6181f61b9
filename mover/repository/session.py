# SPDX-License-Identifier: Apache-2.0
"""A backup session: from the moment its point's record is created to commit or abort (docs/concurrency.md, the writer's half).

The order of requests is the safety: create, lease, read gc/state, only then parent and index, acknowledge (I14); packs, runs,
record (I2); one conditional write under the lease commits (I1). Nothing here reads a disk. `tick` is called often, by a
keeper thread or by a simulator; everything else by the thread that does the work. Thread-safe.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from mover.clock import Clock
from mover.errors import (
    Damaged,
    MoverError,
    ObjectExists,
    ObjectNotFound,
    OwnershipChanged,
    SessionEnded,
    UnsupportedFormat,
)
from mover.repository import packlist, record
from mover.repository.collector_state import CollectorState, read_state
from mover.repository.descriptor import Descriptor
from mover.repository.frame import Frame, FrameReader, FrameWriter
from mover.repository.index import RESIDENT_BYTES, DedupeView, counting_runs
from mover.repository.index_run import encode_run
from mover.repository.keys import KeyRing, Kind
from mover.repository.leased import POLL_SECONDS, LeasedRecord
from mover.repository.maps import ChunkRef
from mover.repository.names import (
    DESCRIPTOR,
    PackName,
    index_run,
    parse_pack,
    session_of,
    writer_bytes,
)
from mover.repository.pack import Place
from mover.repository.packer import Packer
from mover.repository.reader import read_chunk
from mover.store.base import Store

INLINE_PACKS = 256
"""Packs of others that a record names itself; more go to pack lists, so that the record stays under 64 KiB."""
FEW_DISKS = 16
"""With more disks than these the record names no packs itself and fewer lists: the disks need the room."""
MERGE_LISTS = 32
LIST_PACKS = 65_536


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """`uploads` 0 stores in the caller's thread. `check` is the decode check before upload."""

    uploads: int = 2
    check: bool = True
    level: int = 1
    poll_seconds: float = POLL_SECONDS
    pack_size: int | None = None
    index_threads: int = 4
    index_bytes: int = RESIDENT_BYTES


@dataclass(frozen=True, slots=True)
class Parent:
    """The committed point that an incremental starts from."""

    name: str
    header: record.Header
    body: record.Body


@dataclass(slots=True)
class SessionStatistics:
    runs: int = 0
    checkpoints: int = 0
    acknowledgements: int = 0
    extra: dict[str, float] = field(default_factory=dict)


class Session:
    """One incarnation of one session. `opening.open_session` makes one; see the module for the order of calls."""

    def __init__(
        self,
        store: Store,
        keys: KeyRing,
        clock: Clock,
        leased: LeasedRecord,
        settings: SessionSettings,
    ) -> None:
        self.store = store
        self.keys = keys
        self.clock = clock
        self.settings = settings
        self.leased = leased
        self.session = session_of(leased.name)
        self.parent: Parent | None = None
        self.unreadable_parent = ""  # why there is none although there should be
        self.resumed: record.Header | None = None
        self.resumed_body: record.Body | None = None
        self.statistics = SessionStatistics()
        self._incarnation = leased.header.incarnation
        self._seen = leased.header.generation
        self._state_id = ""
        self._polled_at = float("-inf")
        self._lock = threading.RLock()
        self._refreshing = threading.Lock()
        self._uses = record.Uses()
        self._spilled: set[PackName] = set()
        self._entries: dict[PackName, list[tuple[bytes, Place, int]]] = {}
        self._stored: set[PackName] = set()
        self._runs = 0
        self._writer = threading.local()
        writer = writer_bytes(self.session, self._incarnation)
        size = {} if settings.pack_size is None else {"target_size": settings.pack_size}
        self.data = Packer(store, writer, metadata=False, uploads=settings.uploads, on_stored=self._on_stored, **size)
        self.metadata = Packer(store, writer, metadata=True, uploads=min(1, settings.uploads))
        self.view = DedupeView(
            store,
            self.session,
            self._counting_runs,
            threads=settings.index_threads,
            resident_bytes=settings.index_bytes,
        )

    @property
    def name(self) -> str:
        return self.leased.name

    @property
    def body(self) -> record.Body:
        return self.leased.body

    # -- opening (I14)

    def begin(self) -> None:
        """Under the lease, the record read: gc/state first, then the parent, then the write that acknowledges."""
        state = self._read_collector_state()
        self._check_owner(state)
        self.view.exclude(state)
        fresh = self._seen == 0
        parent = self.leased.header.parent
        if parent is not None and self._parent_is_dead(state, parent, fresh=fresh):
            if self.resumed is not None and self.resumed.disks:
                self.abort()
                raise SessionEnded("the session's parent was deleted under its checkpoint", self.name)
            parent = None
        self.parent = self._read_parent(parent) if parent is not None else None
        if self.resumed is not None and self.resumed.disks and parent is not None and self.parent is None:
            self.abort()  # the rules forbid it; a checkpoint that may name a deleted parent's packs is not gone on with
            raise SessionEnded("the session's parent vanished under its checkpoint", self.name)
        self._remember_uses()
        self._seen = state.generation
        self._state_id = state.write_id
        self._polled_at = self.clock.monotonic()
        self._write(parent=self.parent.name if self.parent else None, disks=self._disks_of_this_body())
        self.statistics.acknowledgements += 1

    def _disks_of_this_body(self) -> tuple[record.DiskState, ...]:
        """The checkpoint's maps of the disks that are the same to the letter in this attempt: a record whose body speaks of
        another source must not go on naming maps of the old one, or the next adopter takes those for maps of the new. Such a
        map counts for nothing: it is of 0 bytes, and no disk is."""
        disks = self.leased.header.disks
        if self.resumed_body is None:
            return disks
        return tuple(
            state if before == now else msgspec.structs.replace(state, size=0, covered=0)
            for state, before, now in zip(disks, self.resumed_body.disks, self.body.disks, strict=False)
        )

    def _parent_is_dead(self, state: CollectorState, parent: str, *, fresh: bool) -> bool:
        return parent in state.gone_points or (fresh and parent in state.condemned_points)

    def _read_collector_state(self) -> CollectorState:
        return read_state(self.store)

    def _read_parent(self, name: str) -> Parent | None:
        try:
            data = self.store.read_record(name).data
        except ObjectNotFound:
            return None
        try:
            header, body = record.decode(data, name, self.keys)
        except (Damaged, UnsupportedFormat) as error:
            if self.resumed is not None:  # the checkpoint's map leans on it
                raise
            self.unreadable_parent = str(error)
            return None
        return Parent(name, header, body) if header.state == record.COMMITTED else None

    def _check_owner(self, state: CollectorState) -> None:
        """I10: the descriptor is read after the record was created; an older epoch than either's may write nothing."""
        epoch = max(state.owner_epoch, Descriptor.decode(self.store.read_record(DESCRIPTOR).data).owner_epoch)
        if epoch > self.leased.header.owner_epoch:
            value = f"epoch {epoch}, this session's is {self.leased.header.owner_epoch}"
            raise OwnershipChanged("the repository has a new owner", value)

    def _remember_uses(self) -> None:
        """What earlier incarnations took from the index stays used."""
        if self.resumed is None:
            return
        packs = {parse_pack(text) for text in self.resumed.uses.packs}
        reader = FrameReader(self.keys)
        for place in self.resumed.uses.lists:
            raw = read_chunk(self.store, reader, record.place_from_json(place), Kind.PACKS)
            self._spilled.update(pack for pack, _ in packlist.decode_list(raw))
        self._uses = self.resumed.uses
        self.view.remember_used(packs | self._spilled)

    def _counting_runs(self) -> Iterable[str]:
        state = self._read_collector_state()
        self.view.exclude(state)  # sooner than the acknowledgement is on the safe side
        return counting_runs(self.store, state)

    # -- keeping (I4, I14)

    def tick(self) -> None:
        """Renew the lease and poll gc/state when they are due; acknowledge a new generation. SessionLost ends all work."""
        self.leased.renew_if_due()
        if self.clock.monotonic() - self._polled_at >= self.settings.poll_seconds:
            self.refresh()

    def refresh(self) -> CollectorState:
        """Read gc/state now and acknowledge what is new: view first, then the list of packs used, then the write."""
        with self._refreshing:  # of two readings the older must not be the last to reach the view
            return self._refresh()

    def _refresh(self) -> CollectorState:
        state = self._read_collector_state()
        self._polled_at = self.clock.monotonic()
        if state.owner_epoch > self.leased.header.owner_epoch:
            raise OwnershipChanged("the repository has a new owner", f"epoch {state.owner_epoch}")
        if state.write_id != self._state_id:
            self.view.exclude(state)
            self._seen = max(self._seen, state.generation)
            if self._seen > self.leased.header.generation:
                self._write()
                self.statistics.acknowledgements += 1
            self._state_id = state.write_id  # only now: a write that failed in passing is tried again at the next poll
        return state

    # -- storing

    def frame(self, kind: Kind, raw: bytes | bytearray | memoryview, chunk_id: bytes | None = None) -> Frame:
        """A frame made with this thread's codec contexts."""
        writer: FrameWriter | None = getattr(self._writer, "value", None)
        if writer is None:
            writer = FrameWriter(self.keys, level=self.settings.level, check=self.settings.check)
            self._writer.value = writer
        return writer.write(kind, raw, chunk_id)

    def add_data(self, frame: Frame) -> Place:
        """Put a data frame into a pack; other sessions find it once a checkpoint has published its run."""
        place = self.data.add(frame)
        with self._lock:
            self._entries.setdefault(place.pack, []).append((frame.chunk_id, place, Kind.DATA))
        self.view.add(frame.chunk_id, place)
        return place

    def add_metadata(self, kind: Kind, raw: bytes) -> ChunkRef:
        """Put a metadata chunk into a pack; it may be named by a record after the next checkpoint or commit only."""
        frame = self.frame(kind, raw)
        return ChunkRef(frame.chunk_id, self.metadata.add(frame))

    def _on_stored(self, pack: PackName) -> None:
        with self._lock:
            self._stored.add(pack)

    def is_stored(self, pack: PackName) -> bool:
        """Whether this pack of this incarnation is durable."""
        with self._lock:
            return pack in self._stored

    def unpublished(self) -> int:
        """Chunks that no run names yet."""
        with self._lock:
            return sum(len(entries) for entries in self._entries.values())

    # -- publishing (I2, I13)

    def checkpoint(self, disks: Iterable[record.DiskState]) -> None:
        """Make durable and visible what is stored: metadata packs, a run of the chunks in stored packs, the record.

        `disks` MUST refer only to data packs that are stored. Two objects and one record are written.
        """
        self.metadata.flush()
        self._publish_run()
        self._write(disks=tuple(disks))
        self.statistics.checkpoints += 1

    def _publish_run(self) -> None:
        with self._lock:
            entries = [entry for pack in self._stored & self._entries.keys() for entry in self._entries.pop(pack)]
        if not entries:
            return
        name = index_run(self.session, self._incarnation, self._runs)
        data = encode_run(entries)
        try:
            self.store.put(name, [data])
        except ObjectExists:
            if self.store.size(name) != len(data):  # I12: otherwise our own request, its answer lost
                raise
        self._runs += 1
        self.statistics.runs += 1
        self.view.publish(entries, name, data)

    def commit(
        self,
        disks: Iterable[record.DiskState],
        documents: Mapping[str, ChunkRef],
        live: Mapping[PackName, int],
        statistics: Mapping[str, float],
    ) -> record.Header:
        """Make the restore point exist. `live`: every data and metadata pack that the maps name, with live bytes.

        The caller has flushed the data packs and looked for quarantined places since. Idempotent after a lost answer.
        """
        self.data.flush()
        places = {name: record.place_to_json(ref) for name, ref in documents.items()}
        needed = dict(live)
        for ref in documents.values():
            needed[ref.place.pack] = needed.get(ref.place.pack, 0) + ref.place.length
        summary = self._add_summary(needed)
        self.metadata.flush()
        self._publish_run()
        self._write(
            state=record.COMMITTED,
            disks=tuple(disks),
            documents=places,
            summary=record.place_to_json(summary),
            statistics=dict(statistics),
        )
        self.leased.release()
        return self.leased.header

    def _add_summary(self, live: Mapping[PackName, int]) -> ChunkRef:
        """Lists equal to the parent's are shared with it; the pack that takes ours is named in them, with the bytes of none."""
        shared: dict[bytes, ChunkRef] = {}
        if self.parent and self.parent.header.summary:
            reader = FrameReader(self.keys)
            ref = record.place_from_json(self.parent.header.summary)
            try:
                lists = packlist.decode_summary(read_chunk(self.store, reader, ref, Kind.SUMMARY))
                shared = {ref.chunk_id: ref for ref, _, _ in lists}
            except MoverError:
                pass  # a summary is the union of what the roots say; the parent's only saves space
        rows: list[tuple[ChunkRef, int, int]] = []
        while True:
            own = self.metadata.current_pack()
            needed = {ref.place.pack: 0 for ref in shared.values()} | {own: 0} | dict(live)
            rows = []
            for part in packlist.cut_lists(needed):
                raw = packlist.encode_list(part)
                ref = shared.get(self.keys.chunk_id(Kind.PACKS, raw)) or self.add_metadata(Kind.PACKS, raw)
                rows.append((ref, len(part), sum(size for _, size in part)))
            summary = self.add_metadata(Kind.SUMMARY, packlist.encode_summary(rows))
            if summary.place.pack == own:
                return summary
            self.metadata.flush()  # the lists ran over into a pack that they do not name: again, from the start of a pack

    def abort(self) -> None:
        """End the session; its point will never exist. Its packs are the collector's to delete."""
        self._write(state=record.ABORTED)
        self.leased.release()

    def close(self) -> None:
        """Stop uploading; the record stays as it is, for an adopter. The lease is given back, so that it need not wait."""
        self.data.stop()
        self.metadata.stop()
        self.leased.release()

    # -- the record

    def _write(self, **changes: object) -> None:
        def change(header: record.Header) -> record.Header:
            uses = self._used_packs()
            runs = tuple(pair for pair in header.runs if pair[0] != self._incarnation)
            if self._runs:
                runs += ((self._incarnation, self._runs),)
            base = {"generation": self._seen, "uses": uses, "runs": runs}
            return msgspec.structs.replace(header, **(base | changes))

        self.leased.write(change)

    def _used_packs(self) -> record.Uses:
        """All packs of others that were taken from the index so far (I13); long lists are stored before they are named."""
        used = self.view.used()
        fresh = [pack for pack in used if pack not in self._spilled]
        if len(fresh) > (INLINE_PACKS if len(self.leased.body.disks) <= FEW_DISKS else 0):
            lists = self._uses.lists
            if len(lists) >= (MERGE_LISTS if len(self.leased.body.disks) <= FEW_DISKS else 1):
                lists, fresh = (), used
            for at in range(0, len(fresh), LIST_PACKS):
                raw = packlist.encode_list([(pack, 0) for pack in fresh[at : at + LIST_PACKS]])
                lists += (record.place_to_json(self.add_metadata(Kind.PACKS, raw)),)
            self.metadata.flush()
            self._spilled.update(fresh)
            fresh = []
            self._uses = record.Uses((), lists)
        return record.Uses(tuple(str(pack) for pack in fresh), self._uses.lists)
