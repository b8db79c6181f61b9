# SPDX-License-Identifier: Apache-2.0
"""How many files a chosen folder has in it, and how many bytes: counted in the background, one folder after the other, as far as
it is.

Sizes are those that files say; two names of one file count twice, as they do in a download. Not here: what is chosen
(`flr.recovery.basket`).
"""

from __future__ import annotations

import queue
import stat
import threading
from collections import OrderedDict

import msgspec
import numpy as np

from flr.errors import RecoveryError
from flr.recovery.basket import Item
from flr.recovery.recovery import Recovery
from flr.walk import walk
from mover.errors import MoverError

MOST = 20_000
Key = tuple[str, str, bytes]


class Inside(msgspec.Struct):
    """`done` when all of it was counted; `unread` folders could not be."""

    files: int = 0
    bytes: int = 0
    done: bool = False
    unread: int = 0


class Counter:
    """Safe for many threads; `close` ends what runs."""

    def __init__(self, recovery: Recovery) -> None:
        self._recovery = recovery
        self._lock = threading.Lock()
        self._known: OrderedDict[Key, Inside] = OrderedDict()
        self._waiting: queue.Queue[Item | None] = queue.Queue()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def of(self, item: Item) -> Inside:
        """What is known of a folder; it is counted from the first question on."""
        key = item.point, item.volume, item.path
        with self._lock:
            known = self._known.get(key)
            if known is None:
                known = self._known[key] = Inside()
                if len(self._known) > MOST:
                    self._known.popitem(last=False)
                self._waiting.put(item)
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="flr-count", daemon=True)
                    self._thread.start()
            return known

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None and not self._over.is_set():
            with self._lock:
                inside = self._known.get((item.point, item.volume, item.path))
            if inside is not None:
                self._count(item, inside)

    def _count(self, item: Item, inside: Inside) -> None:
        def unread(path: bytes, error: RecoveryError) -> None:
            inside.unread += 1

        try:
            with self._recovery.using(item.point) as opened:
                for part in walk(opened.session, item.volume, item.found, item.path, unread):
                    rows = part.table.columns()
                    files = rows["mode"] & 0o170000 == stat.S_IFREG
                    inside.files += int(np.count_nonzero(files))
                    inside.bytes += int(rows["size"][files].sum(dtype=np.uint64))
                    if self._over.is_set():
                        return
        except MoverError:
            inside.unread += 1
        inside.done = True

    def close(self) -> None:
        self._over.set()
        self._waiting.put(None)
        if self._thread is not None:
            self._thread.join()
