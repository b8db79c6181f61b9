# SPDX-License-Identifier: Apache-2.0
"""How far long work is: bytes done of bytes to do, the stage, the rate. A value that the worker changes and others look at."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from mover.clock import Clock

WINDOW_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`rate` in bytes a second over the last WINDOW_SECONDS; `eta` in seconds, None while unknown."""

    stage: str
    done: int
    total: int
    rate: float
    eta: float | None


class Progress:
    """`report` is called with a snapshot at most twice a second, and with the message of each note at once."""

    def __init__(
        self,
        clock: Clock,
        report: Callable[[Snapshot], None] = lambda snapshot: None,
        note: Callable[[str], None] = lambda message: None,
    ) -> None:
        self._clock = clock
        self._report = report
        self.note = note
        self._stage = ""
        self._done = 0
        self._total = 0
        self._seen: deque[tuple[float, int]] = deque()
        self._reported_at = float("-inf")

    def stage(self, name: str, total: int) -> None:
        """Begin a stage with so many bytes to do."""
        self._stage, self._total, self._done = name, total, 0
        self._seen.clear()
        self._reported_at = float("-inf")
        self.update(0)

    def update(self, done: int) -> None:
        """So many bytes of the stage are done."""
        self._done = done
        now = self._clock.monotonic()
        if not self._seen or now - self._seen[-1][0] >= 0.25:
            self._seen.append((now, done))
            while len(self._seen) > 2 and now - self._seen[0][0] > WINDOW_SECONDS:
                self._seen.popleft()
        if now - self._reported_at >= 0.5:
            self._reported_at = now
            self._report(self.snapshot())

    def snapshot(self) -> Snapshot:
        then, before = self._seen[0] if self._seen else (0.0, 0)
        seconds = self._clock.monotonic() - then
        rate = (self._done - before) / seconds if seconds > 0 else 0.0
        eta = (self._total - self._done) / rate if rate > 0 and self._total >= self._done else None
        return Snapshot(self._stage, self._done, self._total, rate, eta)
