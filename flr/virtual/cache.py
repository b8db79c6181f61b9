# SPDX-License-Identifier: Apache-2.0
"""Blocks that are kept, bounded in bytes: what structures are made of apart from what files hold, so that one large file that is
read does not push out what makes the next folder quick. Safe for many threads; a block that is on its way is waited for, not
fetched twice.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import Future

Key = tuple[int, int]
"""(disk, block)"""
Data = bytes | bytearray
"""Of a block; nobody changes it."""
METADATA_BYTES = 192 << 20
DATA_BYTES = 96 << 20


class BlockCache:
    """For all disks of a session. `misses` counts blocks that had to be fetched."""

    def __init__(self, metadata_bytes: int = METADATA_BYTES, data_bytes: int = DATA_BYTES) -> None:
        self.limits = (data_bytes, metadata_bytes)
        self.misses = 0
        self._lock = threading.Lock()
        self._kept: tuple[OrderedDict[Key, Data], OrderedDict[Key, Data]] = (OrderedDict(), OrderedDict())
        self._held = [0, 0]
        self._coming: dict[Key, Future[Data]] = {}

    @property
    def held(self) -> tuple[int, int]:
        """Bytes of data and of metadata."""
        return self._held[0], self._held[1]

    def claim(self, keys: Iterable[Key]) -> tuple[dict[Key, Data], dict[Key, Future[Data]], list[Key]]:
        """What is here; what is on its way; and what the caller fetches now, which is on its way for everybody else."""
        here: dict[Key, Data] = {}
        coming: dict[Key, Future[Data]] = {}
        mine: list[Key] = []
        with self._lock:
            for key in keys:
                for pool in self._kept:
                    data = pool.get(key)
                    if data is not None:
                        pool.move_to_end(key)
                        here[key] = data
                        break
                else:
                    waited = self._coming.get(key)
                    if waited is None:
                        waited = self._coming[key] = Future()
                        mine.append(key)
                    coming[key] = waited
        return here, coming, mine

    def arrived(self, key: Key, data: Data, metadata: bool, keep: bool = True) -> None:
        """A claimed block is here; it was fetched, if it is one to `keep`."""
        pool = self._kept[metadata]
        with self._lock:
            waited = self._coming.pop(key, None)
            self.misses += keep
            if keep and key not in pool:
                pool[key] = data
                self._held[metadata] += len(data)
                while self._held[metadata] > self.limits[metadata] and len(pool) > 1:
                    _, dropped = pool.popitem(last=False)
                    self._held[metadata] -= len(dropped)
        if waited is not None:
            waited.set_result(data)

    def failed(self, keys: Iterable[Key], error: BaseException) -> None:
        """Claimed blocks will not come; who waits gets the error, who asks again tries again."""
        with self._lock:
            waited = [self._coming.pop(key, None) for key in keys]
        for future in waited:
            if future is not None:
                future.set_exception(error)
