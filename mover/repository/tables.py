# SPDX-License-Identifier: Apache-2.0
"""The writer and pack tables that pages, roots, pack lists, summaries and index runs share (docs/format.md section 5),
and a bounds-checked cursor over their bytes. A structure that is damaged yields Damaged, never an index error or a wrong value.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mover.errors import Damaged
from mover.repository.names import PackName
from mover.store.base import Buffer

WRITER_SIZE = 48
_PACK = struct.Struct("<II")


class PackTable:
    """Gives each pack of a structure an index, in order of first use. Not thread-safe."""

    def __init__(self, packs: Iterable[PackName] = ()) -> None:
        self.packs: list[PackName] = []
        self._index: dict[PackName, int] = {}
        for pack in packs:
            self.index(pack)

    def index(self, pack: PackName) -> int:
        found = self._index.get(pack)
        if found is None:
            found = self._index[pack] = len(self.packs)
            self.packs.append(pack)
        return found

    def encode(self) -> tuple[int, int, bytes]:
        """(writers, packs, bytes of both tables)."""
        writers: dict[bytes, int] = {}
        rows = [_PACK.pack(writers.setdefault(pack.writer, len(writers)), pack.number) for pack in self.packs]
        return len(writers), len(rows), b"".join(writers) + b"".join(rows)


class Cursor:
    """Walks over a structure's bytes; `what` names it in errors."""

    def __init__(self, data: Buffer, what: str) -> None:
        self._data = memoryview(data)
        self._what = what
        self._at = 0

    def damaged(self, how: str) -> Damaged:
        return Damaged(f"a {self._what} is malformed", how)

    def take(self, size: int) -> memoryview:
        end = self._at + size
        if size < 0 or end > len(self._data):
            raise self.damaged(f"{size} bytes wanted at {self._at} of {len(self._data)}")
        part = self._data[self._at : end]
        self._at = end
        return part

    def fields(self, layout: struct.Struct) -> tuple[Any, ...]:
        return layout.unpack(self.take(layout.size))

    def array(self, dtype: str, count: int) -> NDArray[np.uint32]:
        return np.frombuffer(self.take(count * np.dtype(dtype).itemsize), dtype=dtype)

    def packs(self, writers: int, packs: int) -> list[PackName]:
        names = self.take(WRITER_SIZE * writers)
        table = [bytes(names[at : at + WRITER_SIZE]) for at in range(0, len(names), WRITER_SIZE)]
        rows = self.take(_PACK.size * packs)
        found = []
        for writer, number in _PACK.iter_unpack(rows):
            if writer >= writers:
                raise self.damaged(f"writer {writer} of {writers}")
            found.append(PackName(table[writer], number))
        return found

    def end(self) -> None:
        if self._at != len(self._data):
            raise self.damaged(f"{len(self._data) - self._at} bytes too many")
