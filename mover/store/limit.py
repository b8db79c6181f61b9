# SPDX-License-Identifier: Apache-2.0
"""Keeps a worker below so many bytes a second, uploads and downloads each, on average over its life.

A transfer goes when those before it have been paid for, and is not slowed while it runs: what passes in one second may
be as much as one pack more. Requests without content are free. Put it above `retry`, or attempts pay again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from mover.clock import SYSTEM, Clock
from mover.errors import Cancelled
from mover.store.base import Record, Store
from mover.store.wrapper import T, Wrapper

_UPLOADS = frozenset({"put", "create_record", "replace_record"})


class _Bucket:
    """Shared by threads. Time that passes unused is worth one second at most."""

    def __init__(self, rate: float, clock: Clock, cancel: threading.Event) -> None:
        self._rate = rate
        self._clock = clock
        self._cancel = cancel
        self._lock = threading.Lock()
        self._paid = clock.monotonic()  # the moment at which all transfers so far are paid for

    def take(self, size: int, name: str) -> None:
        with self._lock:
            now = self._clock.monotonic()
            due = max(self._paid, now - 1.0)
            self._paid = due + size / self._rate
        if due > now and self._clock.wait(self._cancel, due - now):
            raise Cancelled("stopped while waiting for bandwidth", name)


class LimitStore(Wrapper):
    def __init__(
        self,
        inner: Store,
        bytes_per_second: float,
        clock: Clock = SYSTEM,
        *,
        cancel: threading.Event | None = None,
    ) -> None:
        super().__init__(inner)
        event = cancel or threading.Event()
        self._up = _Bucket(bytes_per_second, clock, event)
        self._down = _Bucket(bytes_per_second, clock, event)

    def _do(self, operation: str, name: str, size: int, call: Callable[[], T]) -> T:
        if size:
            (self._up if operation in _UPLOADS else self._down).take(size, name)
        return call()

    def read_record(self, name: str) -> Record:
        record = self._inner.read_record(name)
        self._down.take(len(record.data), name)  # its size is known only now; the next one waits
        return record
