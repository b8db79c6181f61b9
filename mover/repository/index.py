# SPDX-License-Identifier: Apache-2.0
"""The dedupe view: which chunks a session may refer to instead of storing them (rules I2, I5, I8, I14).

Filled from index runs when the first chunk is looked up, so an incremental that stores nothing never reads it. Small runs are
merged in memory up to a budget, large ones stay in the store behind a filter. Losing a run costs space, never data, so a
missing or damaged one is counted and passed over. Thread-safe: that a place counts and that its pack is used is one step.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from mover.errors import Damaged, ObjectNotFound, ShortObject, UnsupportedFormat
from mover.repository import index_run, record
from mover.repository.collector_state import CollectorState
from mover.repository.index_run import RECORD_SIZE, RemoteRun, ResidentRun
from mover.repository.names import PackName, session_of
from mover.repository.names import index_run as run_name
from mover.repository.pack import Place
from mover.store.base import Store

SMALL_RUN = 4 * 1024 * 1024
"""Bytes up to which a run is fetched whole."""
RESIDENT_BYTES = 96 * 1024 * 1024
"""Two million chunks, two TiB of disk, in memory; beyond that runs are looked up in the store."""


def counting_runs(store: Store, state: CollectorState) -> list[str]:
    """Names of all runs that count: the catalog's, and those of every session that is not folded (I2)."""
    names = list(state.catalog_runs)
    for entry in store.list("points/"):
        session = session_of(entry.name)
        if session in state.folded:
            continue
        runs = record.runs_of(entry.metadata)
        if runs is None:
            try:
                runs = list(record.decode_header(store.read_record(entry.name).data, entry.name).runs)
            except (ObjectNotFound, Damaged, UnsupportedFormat):
                continue  # deleted since the listing, or damaged: its chunks are stored again, no other resource suffers
        names += [run_name(session, incarnation, number) for incarnation, count in runs for number in range(count)]
    return names


class DedupeView:
    """What a session may refer to, and what it did refer to outside its own packs."""

    def __init__(
        self,
        store: Store,
        own_session: str,
        runs: Callable[[], Iterable[str]],
        *,
        small_run: int = SMALL_RUN,
        resident_bytes: int = RESIDENT_BYTES,
        threads: int = 4,
    ) -> None:
        self._store = store
        self._own_session = own_session
        self._runs = runs
        self._small_run = small_run
        self._resident_bytes = resident_bytes
        self._threads = threads
        self._lock = threading.RLock()
        self._loading = threading.Lock()  # apart, so that an acknowledgement need not wait for a large index
        self._loaded = False
        self._resident = ResidentRun.merge([])
        self._remote: list[RemoteRun] = []
        self._fetched_bytes = 0
        self._fresh: dict[bytes, Place] = {}
        self._absent: set[PackName] = set()
        self._quarantine: frozenset[tuple[PackName, int]] = frozenset()
        self._used: set[PackName] = set()
        self.passed_over = 0

    # -- lookups

    def find(self, ids: Sequence[bytes]) -> list[Place | None]:
        """For each id a place to refer to; its pack counts as used from now on.

        The store is asked without the lock, so that a slow one delays no acknowledgement; what it answers is judged and noted
        as used in one step.
        """
        self._load()
        with self._lock:
            known = [self._fresh.get(chunk_id) for chunk_id in ids]
            places = [[] if place is None else [place] for place in known]
            self._extend(places, ids, self._resident.find)
            remote = list(self._remote)
            found = self._use(places)
        for run in remote:
            if all(place is not None for place in found):
                break
            self._extend(places, ids, lambda wanted, run=run: self._look(run, wanted))  # type: ignore[misc]
            with self._lock:
                found = self._use(places)
        return found

    def _extend(
        self, places: list[list[Place]], ids: Sequence[bytes], find: Callable[[Sequence[bytes]], list[list[Place]]]
    ) -> None:
        """Add what `find` knows to the ids of which no place that counts is known."""
        missing = [k for k, known in enumerate(places) if not any(map(self._counts, known))]
        if missing:
            for k, more in zip(missing, find([ids[k] for k in missing]), strict=True):
                places[k] += more

    def _use(self, places: list[list[Place]]) -> list[Place | None]:
        """Under the lock: of each id's places the first that counts, noted as used (I14)."""
        found = [next(filter(self._counts, known), None) for known in places]
        self._used.update(p.pack for p in found if p is not None and p.pack.session != self._own_session)
        return found

    def _look(self, run: RemoteRun, ids: Sequence[bytes]) -> list[list[Place]]:
        try:
            return run.find(ids)
        except (ObjectNotFound, Damaged, ShortObject):  # a block of a run that was whole enough to be opened
            with self._lock:
                self.passed_over += 1
                self._remote = [other for other in self._remote if other is not run]
            return [[] for _ in ids]

    def counts(self, place: Place) -> bool:
        """Whether the place may be referred to: neither condemned, gone nor quarantined, as far as this session knows."""
        with self._lock:
            return self._counts(place)

    def quarantined(self, place: Place) -> bool:
        """Whether the collector says that this place is damaged (I8)."""
        return (place.pack, place.offset) in self._quarantine

    def _counts(self, place: Place) -> bool:
        return place.pack not in self._absent and (place.pack, place.offset) not in self._quarantine

    # -- changes

    def add(self, chunk_id: bytes, place: Place) -> None:
        """A chunk that this session stores: found from now on, before its run is published."""
        with self._lock:
            self._fresh[chunk_id] = place

    def publish(self, entries: list[tuple[bytes, Place, int]], name: str, data: bytes) -> None:
        """These fresh chunks stand in the run `name` (its bytes: `data`) now."""
        run = ResidentRun(*index_run.decode_run(data, name))
        with self._lock:
            resident = self._resident.memory + run.memory <= self._resident_bytes
        opened = None if resident else self._open_remote(name, len(data))
        with self._lock:
            for chunk_id, place, _ in entries:
                if self._fresh.get(chunk_id) == place:
                    del self._fresh[chunk_id]
            if opened is None:
                self._resident = ResidentRun.merge([self._resident, run])
            else:
                self._remote.append(opened)
                self._share_cache()

    def exclude(self, state: CollectorState) -> None:
        """Condemned and gone packs leave the view; what left never comes back in a session's life (I14)."""
        with self._lock:
            self._absent |= state.condemned_packs | state.compacting_packs | state.gone_packs
            self._quarantine = state.quarantine

    @property
    def quarantine(self) -> frozenset[tuple[PackName, int]]:
        return self._quarantine

    def used(self) -> list[PackName]:
        """Packs of other sessions that were handed out so far, ascending (I13)."""
        with self._lock:
            return sorted(self._used)

    def remember_used(self, packs: Iterable[PackName]) -> None:
        """What an earlier incarnation of the session had used."""
        with self._lock:
            self._used.update(packs)

    # -- runs

    def _load(self) -> None:
        if self._loaded:
            return
        with self._loading:
            if not self._loaded:
                self._load_all()
                self._loaded = True

    def _load_all(self) -> None:
        names = list(self._runs())
        if self._threads > 1 and len(names) > 1:
            with ThreadPoolExecutor(self._threads, "index") as pool:
                fetched = list(pool.map(self._fetch, names))
        else:
            fetched = [self._fetch(name) for name in names]
        small = [run for run in fetched if isinstance(run, ResidentRun)]
        with self._lock:
            self._remote += [run for run in fetched if isinstance(run, RemoteRun)]
            self._share_cache()
            self._resident = ResidentRun.merge([self._resident, *small])

    def _fetch(self, name: str) -> ResidentRun | RemoteRun | None:
        try:
            size = self._store.size(name)
            if size <= self._small_run and self._fetched_bytes + size <= self._resident_bytes:
                self._fetched_bytes += size
                return ResidentRun(*index_run.decode_run(self._store.read_all(name), name))
            return self._open_remote(name, size)
        except (ObjectNotFound, Damaged, ShortObject, UnsupportedFormat):
            self.passed_over += 1
            return None

    def _open_remote(self, name: str, size: int) -> RemoteRun:
        footer_size = index_run.FOOTER_SIZE
        if size < footer_size:
            raise Damaged("an index run is shorter than its footer", name)
        shape = index_run.read_footer(self._store.read(name, size - footer_size, footer_size), size, name)
        tail = self._store.read(name, shape.records * RECORD_SIZE, shape.tail_size)
        return RemoteRun(
            name,
            shape,
            index_run.read_tail(tail, shape, name),
            lambda at, length: self._store.read(name, at, length),
        )

    def _share_cache(self) -> None:
        """All remote runs together keep blocks of a quarter of the budget, one each at least: there may be thousands of runs."""
        blocks = self._resident_bytes // 4 // (index_run.BLOCK_RECORDS * RECORD_SIZE)
        for run in self._remote:
            run.keep(max(1, min(index_run.CACHED_BLOCKS, blocks // len(self._remote))))
