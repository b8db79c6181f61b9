# SPDX-License-Identifier: Apache-2.0
"""Forgets what data packs contain and keeps everything else: for benchmarks of a writer, which need no disk then.

Kept, in the store below: all records, and objects whose name begins like metadata (`index/`, `points/`, `gc/`, ...) or
whose last part holds `-m` (metadata packs). Of the others name and size remain, in memory; reading one is an error.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Iterator, Sequence

from mover.errors import ObjectExists, StoreError
from mover.store.base import Buffer, Entry, Store, check_name
from mover.store.wrapper import Wrapper, total

_KEPT = ("index/", "points/", "holds/", "gc/", "repository.json")


class DiscardStore(Wrapper):
    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self._lock = threading.Lock()
        self._sizes: dict[str, int] = {}

    def put(self, name: str, parts: Sequence[Buffer]) -> None:
        if _is_kept(name):
            self._inner.put(name, parts)
            return
        check_name(name)
        with self._lock:
            if name in self._sizes:
                raise ObjectExists("the name is taken", name)
            self._sizes[name] = total(parts)

    def read_into(self, name: str, offset: int, target: memoryview) -> None:
        if name in self._sizes:
            raise StoreError("its content was discarded", name, "a discarding store is for benchmarks of writers")
        self._inner.read_into(name, offset, target)

    def size(self, name: str) -> int:
        with self._lock:
            size = self._sizes.get(name)
        return self._inner.size(name) if size is None else size

    def list(self, prefix: str) -> Iterator[Entry]:
        with self._lock:
            found = sorted(name for name in self._sizes if name.startswith(prefix))
            sizes = [Entry(name, self._sizes[name]) for name in found]
        return heapq.merge(self._inner.list(prefix), sizes, key=lambda entry: entry.name)

    def delete(self, name: str, *, etag: str | None = None, lease: str | None = None) -> None:
        with self._lock:
            if self._sizes.pop(name, None) is not None:
                return
        self._inner.delete(name, etag=etag, lease=lease)


def _is_kept(name: str) -> bool:
    return name.startswith(_KEPT) or "-m" in name.rpartition("/")[2]
