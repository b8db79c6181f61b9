# SPDX-License-Identifier: Apache-2.0
"""How often a session may be asked for what costs the worker something: a bucket that fills by itself, and each request takes a
drop."""

from __future__ import annotations

import threading

from mover.clock import Clock

LOOKS_A_SECOND, MOST_LOOKS = 40.0, 200
"""Pages of folders: more than a person scrolls through."""
SEARCHES_A_SECOND, MOST_SEARCHES = 0.5, 10


class Bucket:
    """Safe for many threads."""

    def __init__(self, clock: Clock, a_second: float, most: int) -> None:
        self._clock = clock
        self._rate = a_second
        self._most = float(most)
        self._lock = threading.Lock()
        self._left = float(most)
        self._at = clock.monotonic()

    def take(self) -> float:
        """Seconds until there is one again; 0 when one was taken."""
        with self._lock:
            now = self._clock.monotonic()
            self._left = min(self._most, self._left + (now - self._at) * self._rate)
            self._at = now
            if self._left >= 1:
                self._left -= 1
                return 0.0
            return (1 - self._left) / self._rate
