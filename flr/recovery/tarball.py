# SPDX-License-Identifier: Apache-2.0
"""A selection as a tar stream. It has no length beforehand, and keeps what a zip cannot: owners, modes, extended attributes, links,
holes (`flr.archive`)."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence

from flr.archive import Archive
from flr.printable import shown
from flr.recovery.basket import Item
from flr.recovery.recovery import Recovery
from flr.recovery.selection import Path, members, sources
from mover.errors import Cancelled

PIECES, PIECE = 8, 1 << 20
"""On their way to whoever reads; bytes of one."""


class _Pipe:
    """Bytes from the thread that makes them to the one that sends them."""

    def __init__(self) -> None:
        self._queue: queue.Queue[bytes | BaseException | None] = queue.Queue(PIECES)
        self._held: list[bytes] = []
        self._size = 0
        self._gone = threading.Event()

    def write(self, data: bytes) -> None:
        self._held.append(data)
        self._size += len(data)
        if self._size >= PIECE:
            self.flush()

    def flush(self) -> None:
        if self._held:
            self._put(b"".join(self._held))
            self._held.clear()
            self._size = 0

    def _put(self, what: bytes | BaseException | None) -> None:
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
                self._put(None)
            except Exception as error:
                self._put(error)
        except Cancelled:
            pass

    def read(self) -> Iterator[bytes]:
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


def tar(recovery: Recovery, items: Sequence[Item], problem: Callable[[str, str], None]) -> Iterator[bytes]:
    """`problem` is told the path and what is wrong with it; it stops nothing."""
    pipe = _Pipe()

    def odd(path: Path, text: str) -> None:
        problem(shown(b"/".join(path)), text)

    def make() -> None:
        archive: Archive | None = None
        for source in sources(items):
            with recovery.using(source.point) as opened:
                archive = Archive(opened.session, source.volume, pipe, lambda path, text: problem(shown(path), text))
                for member in members(opened, source, odd):
                    archive.add(b"/".join(member.place), member.found)
        if archive is not None:
            archive.finish()

    thread = threading.Thread(target=pipe.run, args=(make,), name="flr-tar", daemon=True)
    thread.start()
    try:
        yield from pipe.read()
    finally:
        thread.join()
