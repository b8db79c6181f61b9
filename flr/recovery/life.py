# SPDX-License-Identifier: Apache-2.0
"""How long a session lives: until nobody has used it for a while, with a warning before; never beyond an absolute limit.

A person's requests and running transfers are use; what a page asks for by itself is not. Safe for many threads.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from mover.clock import Clock

IDLE_SECONDS = 30 * 60.0
WARN_SECONDS = 5 * 60.0
LIMIT_SECONDS = 12 * 3600.0


class Left(msgspec.Struct, frozen=True):
    """Seconds until the session ends by itself when nobody does anything, and at the latest; `warn` when a person should be asked;
    `transfers` on their way, which keep it alive."""

    idle: float
    limit: float
    warn: bool
    transfers: int


class Life:
    def __init__(self, clock: Clock, idle: float = IDLE_SECONDS, limit: float = LIMIT_SECONDS) -> None:
        self._clock = clock
        self.idle = idle
        self._lock = threading.Lock()
        self._transfers = 0
        self._used = self._began = clock.monotonic()
        self._limit = limit
        self.ended = threading.Event()
        self.why = ""

    def use(self) -> None:
        """A person did something."""
        with self._lock:
            self._used = self._clock.monotonic()

    @contextmanager
    def transfer(self) -> Iterator[None]:
        """The session does not end by idleness meanwhile."""
        with self._lock:
            self._transfers += 1
        try:
            yield
        finally:
            with self._lock:
                self._transfers -= 1
                self._used = self._clock.monotonic()

    def left(self) -> Left:
        with self._lock:
            now = self._clock.monotonic()
            idle = self.idle if self._transfers else max(0.0, self._used + self.idle - now)
            limit = max(0.0, self._began + self._limit - now)
            return Left(idle, limit, min(idle, limit) <= min(WARN_SECONDS, self.idle / 2), self._transfers)

    def end(self, why: str) -> None:
        """Now. The first reason counts."""
        with self._lock:
            self.why = self.why or why
        self.ended.set()

    def watch(self, every: float = 1.0) -> None:
        """Until it has ended, by whatever reason."""
        while not self.ended.is_set():
            left = self.left()
            if left.limit <= 0:
                self.end("its time was over")
            elif left.idle <= 0:
                self.end("nobody used it")
            else:
                self._clock.wait(self.ended, min(every, left.idle, left.limit))
