# SPDX-License-Identifier: Apache-2.0
"""Bytes from a thread that makes them to the one that sends them, some pieces ahead: neither waits for the other's every step."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator

from mover.errors import Cancelled

PIECES, PIECE = 8, 1 << 20
"""On their way to whoever reads; bytes of one that is collected from smaller writes."""


class Pipe:
    """`run` in the thread that makes, `read` in the one that sends. A piece may be empty: then nothing is sent, and whoever reads
    lives."""

    def __init__(self) -> None:
        self._queue: queue.Queue[bytes | BaseException | None] = queue.Queue(PIECES)
        self._held: list[bytes] = []
        self._size = 0
        self._gone = threading.Event()

    def write(self, data: bytes) -> None:
        """Collects. Cancelled when whoever reads is gone."""
        self._held.append(data)
        self._size += len(data)
        if self._size >= PIECE:
            self.flush()

    def flush(self) -> None:
        if self._held:
            self.put(b"".join(self._held))
            self._held.clear()
            self._size = 0

    def put(self, what: bytes | BaseException | None) -> None:
        while not self._gone.is_set():
            try:
                self._queue.put(what, timeout=0.5)
                return
            except queue.Full:
                pass
        raise Cancelled("whoever read this is gone")

    def run(self, make: Callable[[], None]) -> None:
        try:
            try:
                make()
                self.flush()
                self.put(None)
            except Exception as error:
                self.put(error)
        except Cancelled:
            pass

    def read(self) -> Iterator[bytes]:
        """Until the end, or what `make` raised."""
        try:
            while True:
                what = self._queue.get()
                if what is None:
                    return
                if isinstance(what, BaseException):
                    raise what
                yield what
        finally:
            self._gone.set()


def piped(make: Callable[[Pipe], None]) -> Generator[bytes, None, None]:
    """What `make` puts into the pipe, which it does in a thread of its own; the thread has ended when this has."""
    pipe = Pipe()
    thread = threading.Thread(target=pipe.run, args=(lambda: make(pipe),), name="flr-pipe", daemon=True)
    thread.start()
    try:
        yield from pipe.read()
    finally:
        thread.join()
