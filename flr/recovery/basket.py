# SPDX-License-Identifier: Apache-2.0
"""The restore list: what a person chose, across folders, volumes and points, until it is taken out or put back. Safe for many
threads. What it holds is counted when it is taken out (`flr.recovery.selection`), in the background before."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import msgspec

from flr.errors import TooMuch
from flr.fs.base import Attributes
from flr.recovery.recovery import Recovery

MOST_ITEMS = 20_000


class Item(msgspec.Struct, frozen=True):
    """A file or a folder with all that is in it, at `path` from its volume's root."""

    id: int
    point: str
    volume: str
    path: bytes
    found: Attributes

    @property
    def name(self) -> bytes:
        """The last part of its path; "" for a volume's root."""
        return self.path.rstrip(b"/").rpartition(b"/")[2]


class Basket:
    def __init__(self, recovery: Recovery) -> None:
        self._recovery = recovery
        self._lock = threading.Lock()
        self._items: dict[tuple[str, str, bytes], Item] = {}
        self._next = 1

    def add(self, wanted: Sequence[tuple[str, str, bytes]]) -> list[Item]:
        """(point, volume, path) of each. Those that it has already stay as they are. TooMuch; NodeNotFound adds nothing at all."""
        items = self.look(wanted)
        with self._lock:
            fresh = {(item.point, item.volume, item.path): item for item in items}
            if len(self._items | fresh) > MOST_ITEMS:
                raise TooMuch("the list is full", f"{MOST_ITEMS} items", "choose their folder instead")
            for key, item in fresh.items():
                if key not in self._items:
                    self._items[key] = msgspec.structs.replace(item, id=self._next)
                    self._next += 1
            return list(self._items.values())

    def look(self, wanted: Sequence[tuple[str, str, bytes]]) -> list[Item]:
        """The same as items that are in no list. NodeNotFound."""
        made = []
        for point, volume, path in wanted:
            clean = b"/" + b"/".join(part for part in path.split(b"/") if part not in (b"", b"."))
            with self._recovery.using(point) as opened:
                made.append(Item(0, point, volume, clean, opened.find(volume, clean)))
        return made

    def remove(self, ids: Sequence[int]) -> list[Item]:
        gone = set(ids)
        with self._lock:
            self._items = {key: item for key, item in self._items.items() if item.id not in gone}
            return list(self._items.values())

    def clear(self) -> None:
        with self._lock:
            self._items.clear()

    def all(self) -> list[Item]:
        with self._lock:
            return list(self._items.values())
