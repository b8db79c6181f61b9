# SPDX-License-Identifier: Apache-2.0
"""Time, from one place. No other module asks the system for it, so tests turn the hands themselves.

Not for safety: no rule of docs/concurrency.md trusts a worker's clock. It paces (renewals, checkpoints, progress)
and dates log lines; the age of a point is counted from the store's time.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    def monotonic(self) -> float:
        """Seconds that never run backwards and that go on while the machine sleeps (CLOCK_BOOTTIME)."""

    def wall(self) -> float:
        """Seconds since 1970 UTC by this machine's clock, which may be wrong."""

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait until the event is set, at most so long; true when it is set."""


class SystemClock:
    def monotonic(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wall(self) -> float:
        return time.time()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        return event.wait(seconds)


SYSTEM = SystemClock()
