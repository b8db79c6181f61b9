# SPDX-License-Identifier: Apache-2.0
"""The way of a block from a disk into a pack: read, hash, compare, look up, compress, seal, check, pack.

Readers fill buffers of a bounded pool, workers do the rest; a full pool or a full pack stops the readers, so memory is what
the settings say whatever the disks' number and size. A source that is read from the page cache has no readers: its workers
read each block themselves, just before they hash it. Order is lost between the threads: the map's builder puts blocks where
they belong.
Not here: which blocks are read (`mover.disk_backup`), whose turn it is (`mover.lanes`) and what a place is (`mover.repository`).
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial

from blake3 import blake3

from mover.disk.source import DiskSource
from mover.lanes import Crew, Lane, Lanes
from mover.repository.keys import Kind
from mover.repository.map_store import MapBuilder
from mover.repository.maps import BLOCK_SIZE, MapEntry
from mover.repository.session import Session

RANGE_BLOCKS = 8
"""Blocks of one read: 8 MiB, the range that reads over TLS want (docs/performance.md)."""
CACHED_BLOCKS = 4
"""Blocks of one copy out of the page cache: as many as a processor's cache still has when the last of them is hashed."""
ZERO = bytes(BLOCK_SIZE)


@dataclass(slots=True)
class Statistics:
    """Bytes by what became of them. Raw bytes of the disk, but `stored`, which is what new chunks take in packs.

    `skipped`: not read, a change map calls it unchanged. `unallocated`: not read, it has no data. `read` = `zero` + `hashed`;
    `hashed` = `unchanged` (as in the parent) + `deduplicated` (found in the repository) + `new`.
    """

    skipped: int = 0
    unallocated: int = 0
    read: int = 0
    hashed: int = 0
    zero: int = 0
    unchanged: int = 0
    deduplicated: int = 0
    new: int = 0
    stored: int = 0

    def add(self, other: Statistics) -> None:
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive blocks to read: at most RANGE_BLOCKS."""

    first: int
    count: int


@dataclass(eq=False, kw_only=True)
class DiskLane(Lane[Run]):
    """What is read of one disk, and the map that its blocks belong to."""

    source: DiskSource
    builder: MapBuilder


class BufferPool:
    """At most `count` buffers of one block each, made when they are first needed, lent and given back, the last one first.

    Thread-safe; taking waits, all or nothing.
    """

    def __init__(self, count: int) -> None:
        self._free: list[bytearray] = []
        self._unmade = count
        self._changed = threading.Condition()
        self._closed = False

    def take(self, count: int) -> list[bytearray]:
        """`count` buffers; fewer (none) only when the pool was closed."""
        with self._changed:
            while len(self._free) + self._unmade < count and not self._closed:
                self._changed.wait()
            if self._closed:
                return []
            made = max(0, count - len(self._free))
            self._unmade -= made
            self._free += [bytearray(BLOCK_SIZE) for _ in range(made)]
            taken = self._free[-count:]
            del self._free[-count:]
            return taken

    def give(self, buffer: bytearray) -> None:
        with self._changed:
            self._free.append(buffer)
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class Pipeline:
    """Runs blocks of disks through the stages. `run` returns when all are resolved, or raises the first error.

    The disks (`lanes`) are all read by readers, or it is one that its workers read. `between()` is called in the caller's thread
    between ranges: to keep, checkpoint, cancel and report.
    """

    def __init__(
        self,
        session: Session,
        lanes: Sequence[DiskLane],
        *,
        workers: int | None = None,
        buffer_bytes: int = 64 * BLOCK_SIZE,
    ) -> None:
        self._session = session
        self._worker_count = workers or os.cpu_count() or 2
        # A worker that reads for itself holds up to a run of buffers while it takes another: there are enough for all.
        buffers = max((self._worker_count + 1) * RANGE_BLOCKS, buffer_bytes // BLOCK_SIZE)
        self._pool = BufferPool(buffers)
        in_flight = [lane.source.in_flight for lane in lanes]
        self._reader_count = min(sum(in_flight), max(max(in_flight), buffers // RANGE_BLOCKS))
        self._lanes = Lanes(lanes, self._reader_count or self._worker_count)
        self._ready: queue.SimpleQueue[tuple[DiskLane, Run, list[bytearray]] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._in_flight: dict[bytes, list[tuple[MapBuilder, int]]] = {}
        self.statistics = Statistics()

    def run(self, between: Callable[[], None]) -> None:
        with Crew(self._lanes, between, self._wake) as crew:
            crew.start(partial(crew.serve, self._read), self._reader_count, "read")
            work = partial(self._work, crew.stopped) if self._reader_count else partial(crew.serve, self._read_and_work)
            crew.start(work, self._worker_count, "work")
            crew.feed(self._put)
            crew.wait("read")
            self._ready.put(None)

    def _wake(self) -> None:
        self._pool.close()
        self._ready.put(None)

    # -- feeding and reading

    def _put(self, lane: DiskLane, run: Run) -> None:
        lane.source.read_ahead(run.first * BLOCK_SIZE, run.count * BLOCK_SIZE)
        self._lanes.put(lane, run)

    def _read(self, lane: DiskLane, run: Run) -> None:
        if buffers := self._buffers(lane, run):
            lane.source.read_into(run.first * BLOCK_SIZE, buffers)
            self._ready.put((lane, run, buffers))

    def _buffers(self, lane: DiskLane, run: Run) -> list[bytearray]:
        buffers = self._pool.take(run.count)
        rest = lane.source.size - (run.first + run.count - 1) * BLOCK_SIZE
        if buffers and rest < BLOCK_SIZE:  # the disk's last, short block
            self._pool.give(buffers.pop())
            buffers.append(bytearray(rest))
        return buffers

    # -- the stages

    def _work(self, stopped: threading.Event) -> None:
        while (item := self._ready.get()) is not None and not stopped.is_set():
            self._process(*item)
        self._ready.put(None)  # for the next one

    def _read_and_work(self, lane: DiskLane, run: Run) -> None:
        self._process(lane, run, self._read_each(lane, run))

    def _read_each(self, lane: DiskLane, run: Run) -> Iterator[bytearray]:
        """The run's blocks, a few read when the first of them is asked for: what was just given back is still in the cache."""
        end = run.first + run.count
        for first in range(run.first, end, CACHED_BLOCKS):
            buffers = self._buffers(lane, Run(first, min(CACHED_BLOCKS, end - first)))
            if buffers:
                lane.source.read_into(first * BLOCK_SIZE, buffers)
            yield from buffers

    def _process(self, lane: DiskLane, run: Run, buffers: Iterable[bytearray]) -> None:
        """Take the blocks of a run to where they are resolved."""
        builder = lane.builder
        counted = Statistics()
        key = self._session.keys.data_id_key
        wanted: list[tuple[int, bytes, bytearray]] = []
        for block, buffer in enumerate(buffers, run.first):
            size = len(buffer)
            counted.read += size
            if buffer == ZERO or (size < BLOCK_SIZE and not any(buffer)):
                counted.zero += size
                self._done(builder, block, None, buffer)
                continue
            chunk_id = blake3(buffer, key=key).digest()
            counted.hashed += size
            base = builder.base_entry(block)
            if base is not None and base.chunk_id == chunk_id and not self._session.view.quarantined(base.place):
                counted.unchanged += size
                self._done(builder, block, base, buffer)
                continue
            wanted.append((block, chunk_id, buffer))
        if wanted:
            places = self._session.view.find([chunk_id for _, chunk_id, _ in wanted])
            for (block, chunk_id, buffer), place in zip(wanted, places, strict=True):
                if place is not None:
                    counted.deduplicated += len(buffer)
                    self._done(builder, block, MapEntry(chunk_id, place), buffer)
                elif self._claim(chunk_id, builder, block):
                    size = len(buffer)
                    if stored := self._store(builder, block, chunk_id, buffer):
                        counted.new += size
                        counted.stored += stored
                    else:
                        counted.deduplicated += size
                else:
                    counted.deduplicated += len(buffer)
                    self._give(buffer)
        with self._lock:
            self.statistics.add(counted)

    def _claim(self, chunk_id: bytes, builder: MapBuilder, block: int) -> bool:
        """Whether the caller is the one to store this chunk; otherwise the block waits for the one who is."""
        with self._lock:
            waiting = self._in_flight.get(chunk_id)
            if waiting is not None:
                waiting.append((builder, block))
                return False
            self._in_flight[chunk_id] = []
            return True

    def _store(self, builder: MapBuilder, block: int, chunk_id: bytes, buffer: bytearray) -> int:
        """Store the chunk and resolve every block that has it; the bytes that it takes in the repository, 0 when it was there."""
        place = self._session.view.find([chunk_id])[0]  # stored between our lookup and our claim?
        stored = 0
        if place is None:
            frame = self._session.frame(Kind.DATA, buffer, chunk_id)
            place = self._session.add_data(frame)
            stored = frame.length
        with self._lock:
            waiting = self._in_flight.pop(chunk_id)
        entry = MapEntry(chunk_id, place)
        for other, its_block in waiting:
            other.resolve(its_block, entry)
        self._done(builder, block, entry, buffer)
        return stored

    def _done(self, builder: MapBuilder, block: int, entry: MapEntry | None, buffer: bytearray) -> None:
        builder.resolve(block, entry)
        self._give(buffer)

    def _give(self, buffer: bytearray) -> None:
        if len(buffer) == BLOCK_SIZE:
            self._pool.give(buffer)


def cut_runs(start: int, end: int) -> Iterator[Run]:
    """The blocks from `start` to `end` in reads of at most RANGE_BLOCKS, cut at multiples of it."""
    while start < end:
        stop = min(end, (start // RANGE_BLOCKS + 1) * RANGE_BLOCKS)
        yield Run(start, stop - start)
        start = stop
