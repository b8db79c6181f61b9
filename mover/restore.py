# SPDX-License-Identifier: Apache-2.0
"""A restore of one disk of a restore point: neighbouring frames in one request, many at a time, written where they belong.

Every chunk's id is computed from the bytes that are written. What the target has already is not fetched; zeros are never
written where zeros are. The point is held meanwhile (rule I7), or the restore says that it reads unheld.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
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
from mover.repository.maps import BLOCK_SIZE, PAGE_BLOCKS, MapEntry, Page
from mover.repository.pack import Place
from mover.repository.reader import recover_chunk
from mover.repository.record import place_from_json
from mover.repository.repository import Point, Repository

FETCH_BYTES = 8 * 1024 * 1024
GAP_BYTES = 128 * 1024
"""Bytes between two wanted frames that cost less to read than another request."""
WINDOW_PAGES = 4


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


@dataclass(slots=True)
class _Want:
    """A frame, and the blocks that it belongs to."""

    entry: MapEntry
    blocks: list[int]


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
                reader = MapReader.open(repository.store, repository.keys, place_from_json(self._state.root))
                if reader.root.size != self._state.size or reader.root.covered != reader.root.blocks:
                    raise Damaged("a disk's map does not fit its restore point", self._point.name)
                self._restore(reader, target)
                if self._settings.verify:
                    target.sync()
                    self._verify(reader, target)
                target.finish(repository.clock.wall())
        except (Damaged, ObjectNotFound):
            self._check_point_exists()
            raise
        finally:
            hold.end()
        return self._result

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
        if self._keeper is not None:
            self._keeper.check()
        if self._cancelled():
            raise Cancelled("the restore was cancelled", self._point.name, "issue it again to go on")
        self._progress.update(self._handled)

    # -- restoring

    def _restore(self, reader: MapReader, target: DiskTarget) -> None:
        self._progress.stage("restore", self._state.size)
        self._carry_out(self._tasks(reader, target), target.at_once)

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
        """Work in the order of pages; within a window of pages, of packs."""
        pages = len(reader.root.pages)
        for first in range(0, pages, WINDOW_PAGES):
            wants: dict[MapEntry, _Want] = {}  # a place alone does not say which chunk a block wants of it
            zero_from: int | None = None
            for number in range(first, min(first + WINDOW_PAGES, pages)):
                low = number * PAGE_BLOCKS
                page = reader.page(number) or Page([None] * reader.root.page_blocks(number))
                for block, entry in enumerate(page.entries, low):
                    if entry is None:
                        zero_from = block if zero_from is None else zero_from
                        continue
                    if zero_from is not None:
                        yield partial(self._zero, target, zero_from, block)
                        zero_from = None
                    wants.setdefault(entry, _Want(entry, [])).blocks.append(block)
            if zero_from is not None:
                end = min((first + WINDOW_PAGES) * PAGE_BLOCKS, reader.root.blocks)
                yield partial(self._zero, target, zero_from, end)
            for group in _neighbours(sorted(wants.values(), key=_place)):
                yield partial(self._fetch, target, group)

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

    def _fetch(self, target: DiskTarget, wants: list[_Want]) -> None:
        if target.compare:
            wants = [want for want in wants if self._differing(target, want)]
        for run in _neighbours(wants):
            self._fetch_run(target, run)

    def _differing(self, target: DiskTarget, want: _Want) -> bool:
        """Whether any of its blocks must be written; those that need not are dropped from it."""
        keys = self._repository.keys
        differing = []
        for block in want.blocks:
            current = self._current(target, block * BLOCK_SIZE, self._block_size(block))
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

    def _block_size(self, block: int) -> int:
        return min(BLOCK_SIZE, self._state.size - block * BLOCK_SIZE)

    def _fetch_run(self, target: DiskTarget, run: list[_Want]) -> None:
        first = run[0].entry.place
        buffer: bytearray | None = getattr(self._local, "buffer", None)
        if buffer is None:
            buffer = self._local.buffer = bytearray(FETCH_BYTES)
            self._local.reader = FrameReader(self._repository.keys)
        length = max(want.entry.place.offset + want.entry.place.length for want in run) - first.offset
        view = memoryview(buffer if length <= len(buffer) else bytearray(length))[:length]
        failure: ObjectNotFound | ShortObject | None = None
        try:
            self._repository.store.read_into(first.pack.object, first.offset, view)
        except (ObjectNotFound, ShortObject) as error:
            failure = error
        gathered: list[bytes] = []  # of neighbouring blocks, to be written at `at`
        at = size = 0
        for want in run:
            raw = self._open(want.entry, view, want.entry.place.offset - first.offset, failure)
            for block in want.blocks:
                if len(raw) != self._block_size(block):
                    value = f"block {block}: {len(raw)} of {self._block_size(block)} bytes, {want.entry.place}"
                    raise Damaged("a chunk does not have its block's length", value)
                if gathered and (block * BLOCK_SIZE != at + size or size + len(raw) > target.most):
                    self._write(target, at, gathered)
                    gathered, size = [], 0
                at = at if gathered else block * BLOCK_SIZE
                gathered.append(raw)
                size += len(raw)
        if gathered:
            self._write(target, at, gathered)
        with self._lock:
            self._result.fetched += length

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
            page = reader.page(number) or Page([None] * reader.root.page_blocks(number))
            for at in range(0, len(page.entries), at_once):
                yield partial(self._verify_blocks, target, number * PAGE_BLOCKS + at, page.entries[at : at + at_once])

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


def _place(want: _Want) -> Place:
    return want.entry.place


def _neighbours(wants: list[_Want]) -> Iterator[list[_Want]]:
    """`wants` (ascending by place) in groups that one request fetches."""
    group: list[_Want] = []
    for want in wants:
        place = want.entry.place
        if group:
            first, last = group[0].entry.place, group[-1].entry.place
            gap = place.offset - (last.offset + last.length)
            if place.pack != last.pack or gap > GAP_BYTES or place.offset + place.length - first.offset > FETCH_BYTES:
                yield group
                group = []
        group.append(want)
    if group:
        yield group
