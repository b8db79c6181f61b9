# SPDX-License-Identifier: Apache-2.0
"""Fills packs with frames and stores them: one object a pack, a few uploads in flight, memory bounded in bytes.

At most `uploads` packs are on their way while one is being filled, so it holds (uploads + 1) x 64 MiB and `add` blocks
beyond that. With `uploads` = 0 packs are stored in the caller's thread (the simulator's way). Thread-safe.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from mover.errors import ObjectExists
from mover.repository import pack as pack_format
from mover.repository.frame import Frame
from mover.repository.names import METADATA_BIT, PackName
from mover.repository.pack import DirectoryEntry, Place
from mover.store.base import Buffer, Store


class Packer:
    """Packs of one kind of one incarnation, numbered from 0. `on_stored(pack)` is called once a pack is durable."""

    def __init__(
        self,
        store: Store,
        writer: bytes,
        *,
        metadata: bool,
        uploads: int = 2,
        on_stored: Callable[[PackName], None] = lambda pack: None,
        target_size: int = pack_format.TARGET_SIZE,
    ) -> None:
        self._store = store
        self._writer = writer
        self._metadata = metadata
        self._on_stored = on_stored
        self._target = target_size
        self._lock = threading.Lock()
        self._slots = threading.Semaphore(uploads)
        self._pool = ThreadPoolExecutor(uploads, "upload") if uploads else None
        self._flying: set[Future[None]] = set()
        self._failure: BaseException | None = None
        self._number = 0
        self._parts: list[Buffer] = []
        self._entries: list[DirectoryEntry] = []
        self._length = 0
        self.stored_bytes = 0
        self.stored_packs = 0

    def add(self, frame: Frame) -> Place:
        """Where the frame will stand. Its bytes MUST not change afterwards. Raises what an earlier upload raised."""
        with self._lock:
            self._raise_failure()
            if self._length and self._length + frame.length > self._target:
                self._close()
            place = Place(self._name(), self._length, frame.length)
            self._parts += (frame.head, frame.body)
            self._entries.append(DirectoryEntry(frame.chunk_id, self._length, frame.length, frame.kind))
            self._length += frame.length
            return place

    def current_pack(self) -> PackName:
        """The pack that the next frame goes to, unless it is full by then."""
        with self._lock:
            return self._name()

    def flush(self) -> None:
        """Store what there is and wait until every pack is durable."""
        with self._lock:
            self._raise_failure()
            if self._length:
                self._close()
            flying = list(self._flying)
        for future in flying:
            future.exception()
        with self._lock:
            self._raise_failure()

    def stop(self) -> None:
        """Wait for uploads in flight and store no more."""
        if self._pool:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _name(self) -> PackName:
        return PackName(self._writer, self._number | (METADATA_BIT if self._metadata else 0))

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _close(self) -> None:
        name, parts = self._name(), self._parts
        parts.append(pack_format.write_tail(self._entries, self._length, metadata=self._metadata))
        self._parts, self._entries, self._length = [], [], 0
        self._number += 1
        if self._pool is None:
            try:
                self._upload(name, parts)
            except BaseException as error:  # places in this pack were handed out: nothing more may follow
                self._failure = error
                raise
            return
        self._slots.acquire()
        future = self._pool.submit(self._upload_in_flight, name, parts)
        self._flying.add(future)
        future.add_done_callback(self._landed)

    def _landed(self, future: Future[None]) -> None:
        self._flying.discard(future)

    def _upload_in_flight(self, name: PackName, parts: list[Buffer]) -> None:
        try:
            self._upload(name, parts)
        except BaseException as error:  # handed to whoever adds or flushes next
            self._failure = error
        finally:
            parts.clear()
            self._slots.release()

    def _upload(self, name: PackName, parts: list[Buffer]) -> None:
        size = sum(len(part) for part in parts)
        try:
            self._store.put(name.object, parts)
        except ObjectExists:
            # I12: nobody else makes this name, so it is our own request whose answer was lost
            if self._store.size(name.object) != size:
                raise
        self.stored_bytes += size
        self.stored_packs += 1
        self._on_stored(name)
