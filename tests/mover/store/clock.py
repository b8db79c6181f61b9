# SPDX-License-Identifier: Apache-2.0
"""A clock whose hands the test turns. A wait passes at once and is remembered."""

from __future__ import annotations

import threading
from collections.abc import Callable


class ManualClock:
    """A mover.clock.Clock. `waits` are the seconds that were asked for, in order."""

    def __init__(self, wall: float = 1_700_000_000.0) -> None:
        self._lock = threading.Lock()
        self._monotonic = 1_000.0
        self._wall = wall
        self.waits: list[float] = []

    def monotonic(self) -> float:
        return self._monotonic

    def wall(self) -> float:
        return self._wall

    def wait(self, event: threading.Event, seconds: float) -> bool:
        self.waits.append(seconds)
        if not event.is_set():
            self.advance(seconds)
        return event.is_set()

    def advance(self, seconds: float) -> None:
        with self._lock:
            self._monotonic += seconds
            self._wall += seconds

    def pass_until(self, seconds: float, condition: Callable[[], bool]) -> None:
        self.advance(seconds)
        assert condition()
