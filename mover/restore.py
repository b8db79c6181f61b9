# SPDX-License-Identifier: Apache-2.0
"""A restore of one disk of a restore point: neighbouring frames in one request, many at a time, written where they belong.

Every chunk's id is computed from the bytes that are written. What the target has already is not fetched; zeros are never
written where zeros are. The point is held meanwhile (rule I7), or the restore says that it reads unheld.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial

from mover.disk.target import DiskTarget
from mover.errors import (
    Cancelled,
    Damaged,
    ObjectNotFound,
    PointGone,
    PointNotFound,
    ShortObject,
    UnsupportedFormat,
    UsageError,
    VerifyFailed,
)
from mover.keeper import Keeper
from mover.progress import Progress
from mover.repository.frame import FrameReader
from mover.repository.hold import Unheld
from mover.repository.keys import Kind
from mover.repository.map_store import MapReader
from mover.repository.maps import BLOCK_SIZE, PAGE_BLOCKS, MapEntry
from mover.repository.reader import recover_chunk
from mover.repository.record import place_from_json
from mover.repository.repository import Point, Repository
from mover.restore_steps import FETCH_BYTES, Want, Zeros, in_disk_order, joined, length_of, neighbours, page_of, steps


@dataclass(frozen=True, slots=True)
class RestoreSettings:
    """`verify`: read the target back and compare."""

    verify: bool = False


@dataclass(slots=True)
class RestoreResult:
    """Bytes of the disk: `written`, found `equal` in the target, `zero`; `fetched`: bytes of frames read from packs."""

    size: int
    written: int = 0
    equal: int = 0
    zero: int = 0
    fetched: int = 0
    verified: int = 0
    notes: list[str] = field(default_factory=list)


class Restore:
    """One run of one restore. `cancelled()` is asked often; what was written stays, and the same restore goes on from it."""

    def __init__(
        self,
        repository: Repository,
        point: Point,
        disk: int,
        settings: RestoreSettings,
        progress: Progress,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        if not 0 <= disk < len(point.header.disks):
            hint = "disks are counted from 0; `data-mover points` shows them"
            raise UsageError("the restore point has no such disk", f"{disk} of {len(point.header.disks)}", hint)
        self._repository = repository
        self._point = point
        self._state = point.header.disks[disk]
        self._settings = settings
        self._progress = progress
        self._cancelled = cancelled
        self._lock = threading.Lock()
        self._local = threading.local()
        self._result = RestoreResult(self._state.size)
        self._keeper: Keeper | None = None
        self._handled = 0

    @property
    def size(self) -> int:
        """The disk's size in bytes."""
        return self._state.size

    def run(self, target: DiskTarget) -> RestoreResult:
        """Until the target holds the disk, byte for byte, durably."""
        repository = self._repository
        hold = repository.hold(self._point)
        if isinstance(hold, Unheld):
            self._note(f"{hold.why}: the restore point is not held, retention could delete it meanwhile")
        try:
            with Keeper(hold.tick, repository.clock) as self._keeper:
                reader = self.reader()
                self._progress.stage("restore", self._state.size)
                self._carry_out(self._tasks(reader, target), target.at_once)
                if self._settings.verify or target.unguarded:
                    target.sync()
                    self._verify(reader, target)
                target.finish(repository.clock.wall())
        except (Damaged, ObjectNotFound):
            self._check_point_exists()
            raise
        finally:
            hold.end()
        return self._result

    def sample(self, runs: Iterable[list[Want]], at_once: int) -> float:
        """Bytes of the disk that are fetched and decoded in a second, so many runs at a time; they are written nowhere."""
        done: list[int] = []
        began = self._repository.clock.monotonic()
        self._carry_out((partial(self._measure, run, done) for run in runs), at_once)
        seconds = self._repository.clock.monotonic() - began
        return sum(done) / seconds if seconds > 0 else 0.0

    def _measure(self, run: list[Want], done: list[int]) -> None:
        done.extend(length for _, length, _ in self._fetched(run))

    def reader(self) -> MapReader:
        """Of the disk's map. Damaged when it is not this disk's."""
        repository = self._repository
        reader = MapReader.open(repository.store, repository.keys, place_from_json(self._state.root))
        if reader.root.size != self._state.size or reader.root.covered != reader.root.blocks:
            raise Damaged("a disk's map does not fit its restore point", self._point.name)
        return reader

    def _check_point_exists(self) -> None:
        """A chunk that is missing because retention took the point (unheld readers) is told as that."""
        try:
            self._repository.read_point(self._point.name)
        except PointNotFound:
            raise PointGone("the restore point was deleted while it was read", self._point.name) from None

    def _note(self, message: str) -> None:
        self._result.notes.append(message)
        self._progress.note(message)

    def _check(self) -> None:
        self.check(self._handled)

    def check(self, handled: int) -> None:
        """So many bytes of the stage are done. Cancelled when that was asked for."""
        if self._keeper is not None:
            self._keeper.check()
        self._stop_if_cancelled()
        self._progress.update(handled)

    def _stop_if_cancelled(self) -> None:
        if self._cancelled():
            raise Cancelled("the restore was cancelled", self._point.name, "issue it again to go on")

    # -- restoring

    def _carry_out(self, tasks: Iterator[Callable[[], None]], at_once: int) -> None:
        self._handled = 0
        with ThreadPoolExecutor(at_once, "restore") as pool:
            flying: set[Future[None]] = set()
            try:
                for task in tasks:
                    flying.add(pool.submit(task))
                    while len(flying) >= 2 * at_once:
                        flying = self._land(flying)
                while flying:
                    flying = self._land(flying)
            except BaseException:
                for future in flying:
                    future.cancel()
                raise
        self._check()

    def _land(self, flying: set[Future[None]]) -> set[Future[None]]:
        done, rest = wait(flying, timeout=0.5, return_when=FIRST_COMPLETED)
        for future in done:
            future.result()
        self._check()
        return rest

    def _tasks(self, reader: MapReader, target: DiskTarget) -> Iterator[Callable[[], None]]:
        for step in steps(reader):
            if isinstance(step, Zeros):
                yield partial(self._zero, target, step.start, step.end)
            else:
                yield partial(self._fetch, target, step)

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
            self._result.zero += high - low
            self._result.written += written
            self._handled += high - low

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
                    self._result.equal += len(current)
                    self._handled += len(current)
        want.blocks = differing
        return bool(differing)

    def _current(self, target: DiskTarget, offset: int, size: int) -> bytearray:
        buffer = bytearray(size)
        target.read_into(offset, buffer)
        return buffer

    def block_size(self, block: int) -> int:
        """In bytes; the last block may be shorter."""
        return min(BLOCK_SIZE, self._state.size - block * BLOCK_SIZE)

    def _fetch_run(self, target: DiskTarget, run: list[Want]) -> None:
        for at, parts in joined(self._fetched(run), target.most):
            self._write(target, at, parts)
        with self._lock:
            self._result.fetched += length_of(run)

    def _fetched(self, run: list[Want]) -> Iterator[tuple[int, int, bytes]]:
        """(offset in the disk, length, bytes) of each block of a run, in the order of the disk."""
        first = run[0].entry.place
        buffer: bytearray | None = getattr(self._local, "buffer", None)
        if buffer is None:
            buffer = self._local.buffer = bytearray(FETCH_BYTES)
            self._local.reader = FrameReader(self._repository.keys)
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
        reader: FrameReader = self._local.reader
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
        self._stop_if_cancelled()
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        target.write(at, data)
        with self._lock:
            self._result.written += len(data)
            self._handled += len(data)

    # -- verifying

    def _verify(self, reader: MapReader, target: DiskTarget) -> None:
        """Read the target back and compare every block with the map."""
        self._progress.stage("verify", self._state.size)
        self._carry_out(self._verifications(reader, target), target.at_once)

    def _verifications(self, reader: MapReader, target: DiskTarget) -> Iterator[Callable[[], None]]:
        at_once = FETCH_BYTES // BLOCK_SIZE
        for number in range(len(reader.root.pages)):
            entries = page_of(reader, number).entries
            for at in range(0, len(entries), at_once):
                yield partial(self._verify_blocks, target, number * PAGE_BLOCKS + at, entries[at : at + at_once])

    def _verify_blocks(self, target: DiskTarget, first: int, entries: list[MapEntry | None]) -> None:
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
            self._result.verified += len(view)
            self._handled += len(view)
