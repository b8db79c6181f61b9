# SPDX-License-Identifier: Apache-2.0
"""The restore of one disk: neighbouring frames in one request, written where they belong.

Every chunk's id is computed from the bytes that are written. What the target has already is not fetched; zeros are never
written where zeros are. Not here: who carries the tasks out, and when (`mover.restore`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from mover.disk.target import DiskTarget
from mover.errors import Damaged, ObjectNotFound, ShortObject, UnsupportedFormat, UsageError, VerifyFailed
from mover.repository.frame import FrameReader
from mover.repository.keys import Kind
from mover.repository.map_store import MapReader
from mover.repository.maps import BLOCK_SIZE, PAGE_BLOCKS, MapEntry
from mover.repository.reader import recover_chunk
from mover.repository.record import place_from_json
from mover.repository.repository import Point, Repository
from mover.restore_steps import FETCH_BYTES, Want, Zeros, in_disk_order, joined, length_of, neighbours, page_of, steps

Task = Callable[[], None]


@dataclass(slots=True)
class RestoreResult:
    """Bytes of the disk: `written`, found `equal` in the target, `zero`; `fetched`: bytes of frames read from packs."""

    size: int
    written: int = 0
    equal: int = 0
    zero: int = 0
    fetched: int = 0
    verified: int = 0


class RestoreWork:
    """What the disks of one restore share. `stop` raises when it shall end; `handled` counts bytes of the stage."""

    def __init__(self, repository: Repository, point: Point, stop: Callable[[], None]) -> None:
        self.repository = repository
        self.point = point
        self.stop = stop
        self.lock = threading.Lock()
        self.handled = 0
        self._of_thread = threading.local()

    def count(self, size: int) -> None:
        with self.lock:
            self.handled += size

    def buffer(self) -> bytearray:
        """This thread's, of FETCH_BYTES."""
        if not hasattr(self._of_thread, "buffer"):
            self._of_thread.buffer = bytearray(FETCH_BYTES)
        found: bytearray = self._of_thread.buffer
        return found

    def frames(self) -> FrameReader:
        """This thread's."""
        if not hasattr(self._of_thread, "frames"):
            self._of_thread.frames = FrameReader(self.repository.keys)
        found: FrameReader = self._of_thread.frames
        return found


class DiskRestore:
    """Disk `number` of a point. Its tasks are safe for many threads."""

    def __init__(self, work: RestoreWork, number: int) -> None:
        disks = work.point.header.disks
        if not 0 <= number < len(disks):
            hint = "disks are counted from 0; `data-mover points` shows them"
            raise UsageError("the restore point has no such disk", f"{number} of {len(disks)}", hint)
        self._work = work
        self._repository = work.repository
        self._state = disks[number]
        self._lock = work.lock
        self.result = RestoreResult(self._state.size)

    @property
    def size(self) -> int:
        """In bytes."""
        return self._state.size

    def block_size(self, block: int) -> int:
        """In bytes; the last block may be shorter."""
        return min(BLOCK_SIZE, self._state.size - block * BLOCK_SIZE)

    def reader(self, kept: int = 1) -> MapReader:
        """Of the disk's map, with the last `kept` pages in memory: one for a walk in order. Damaged when it is not this disk's."""
        repository = self._repository
        ref = place_from_json(self._state.root)
        reader = MapReader.open(repository.store, repository.keys, ref, kept)
        if reader.root.size != self._state.size or reader.root.covered != reader.root.blocks:
            raise Damaged("a disk's map does not fit its restore point", self._work.point.name)
        return reader

    # -- restoring

    def tasks(self, target: DiskTarget) -> Iterator[Task | None]:
        for step in steps(self.reader()):
            if step is None:
                yield None
            elif isinstance(step, Zeros):
                yield partial(self._zero, target, step.start, step.end)
            else:
                yield partial(self._fetch, target, step)

    def measuring(self, runs: Iterable[list[Want]], done: list[int]) -> Iterator[Task]:
        """Fetches and decodes; the lengths of the blocks are added to `done`, and nothing is written."""
        for run in runs:
            yield partial(self._measure, run, done)

    def _measure(self, run: list[Want], done: list[int]) -> None:
        done.extend(length for _, length, _ in self.fetched(run))

    def _zero(self, target: DiskTarget, start: int, end: int) -> None:
        low, high = start * BLOCK_SIZE, min(end * BLOCK_SIZE, self._state.size)
        written = 0
        if target.compare:
            for data_low, data_high in target.data_within(low, high):
                at = data_low // BLOCK_SIZE * BLOCK_SIZE
                while at < data_high:
                    size = min(BLOCK_SIZE, high - at)
                    if self._current(target, at, size).strip(b"\0"):
                        target.zero(at, size)
                        written += size
                    at += size
        with self._lock:
            self.result.zero += high - low
            self.result.written += written
        self._work.count(high - low)

    def _fetch(self, target: DiskTarget, wants: list[Want]) -> None:
        if target.compare:
            wants = [want for want in wants if self._differing(target, want)]
        for run in neighbours(wants):
            self._fetch_run(target, run)

    def _differing(self, target: DiskTarget, want: Want) -> bool:
        """Whether any of its blocks must be written; those that need not are dropped from it."""
        keys = self._repository.keys
        differing = []
        for block in want.blocks:
            current = self._current(target, block * BLOCK_SIZE, self.block_size(block))
            if keys.chunk_id(Kind.DATA, current) != want.entry.chunk_id:
                differing.append(block)
            else:
                with self._lock:
                    self.result.equal += len(current)
                self._work.count(len(current))
        want.blocks = differing
        return bool(differing)

    def _current(self, target: DiskTarget, offset: int, size: int) -> bytearray:
        buffer = bytearray(size)
        target.read_into(offset, buffer)
        return buffer

    def _fetch_run(self, target: DiskTarget, run: list[Want]) -> None:
        for at, parts in joined(self.fetched(run), target.most):
            self._write(target, at, parts)
        with self._lock:
            self.result.fetched += length_of(run)

    def fetched(self, run: list[Want]) -> Iterator[tuple[int, int, bytes]]:
        """(offset in the disk, length, bytes) of each block of a run, in the order of the disk."""
        first = run[0].entry.place
        buffer = self._work.buffer()
        length = length_of(run)
        view = memoryview(buffer if length <= len(buffer) else bytearray(length))[:length]
        failure: ObjectNotFound | ShortObject | None = None
        try:
            self._repository.store.read_into(first.pack.object, first.offset, view)
        except (ObjectNotFound, ShortObject) as error:
            failure = error
        for want in in_disk_order(run):
            raw = self._open(want.entry, view, want.entry.place.offset - first.offset, failure)
            for block in want.blocks:
                if len(raw) != self.block_size(block):
                    value = f"block {block}: {len(raw)} of {self.block_size(block)} bytes, {want.entry.place}"
                    raise Damaged("a chunk does not have its block's length", value)
                yield block * BLOCK_SIZE, len(raw), raw

    def _open(self, entry: MapEntry, view: memoryview, at: int, failure: ObjectNotFound | ShortObject | None) -> bytes:
        reader = self._work.frames()
        store = self._repository.store
        if failure is None:
            try:
                return reader.open(view[at : at + entry.place.length], entry.chunk_id, Kind.DATA, entry.place)
            except (Damaged, UnsupportedFormat) as error:
                return recover_chunk(store, reader, entry, Kind.DATA, error)
        if isinstance(failure, ShortObject):  # the pack is cut: what stands before the cut is still good
            try:
                data = store.read(entry.place.pack.object, entry.place.offset, entry.place.length)
                return reader.open(memoryview(data), entry.chunk_id, Kind.DATA, entry.place)
            except (ObjectNotFound, ShortObject, Damaged, UnsupportedFormat) as error:
                return recover_chunk(store, reader, entry, Kind.DATA, error)
        return recover_chunk(store, reader, entry, Kind.DATA, failure)

    def _write(self, target: DiskTarget, at: int, parts: list[bytes]) -> None:
        self._work.stop()
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        target.write(at, data)
        with self._lock:
            self.result.written += len(data)
        self._work.count(len(data))

    # -- verifying

    def verifications(self, target: DiskTarget) -> Iterator[Task | None]:
        """The target is read back and every block compared with the map."""
        reader = self.reader()
        at_once = FETCH_BYTES // BLOCK_SIZE
        for number in range(len(reader.root.pages)):
            yield None
            entries = page_of(reader, number).entries
            for at in range(0, len(entries), at_once):
                yield partial(self._verify_blocks, target, number * PAGE_BLOCKS + at, entries[at : at + at_once])

    def _verify_blocks(self, target: DiskTarget, first: int, entries: list[MapEntry | None]) -> None:
        self._work.stop()
        keys = self._repository.keys
        end = min((first + len(entries)) * BLOCK_SIZE, self._state.size)
        view = memoryview(self._current(target, first * BLOCK_SIZE, end - first * BLOCK_SIZE))
        for number, entry in enumerate(entries):
            current = view[number * BLOCK_SIZE : (number + 1) * BLOCK_SIZE]
            right = keys.chunk_id(Kind.DATA, current) == entry.chunk_id if entry else not bytes(current).strip(b"\0")
            if not right:
                value = f"{target.path}: block {first + number}"
                raise VerifyFailed("the target does not hold what was written to it", value)
        with self._lock:
            self.result.verified += len(view)
        self._work.count(len(view))
