# SPDX-License-Identifier: Apache-2.0
"""Disks side by side: each is a lane, and a thread that is free takes from the lane with the fewest things on their way. So a
disk that its service throttles holds its fair share of the threads and no more, and the last one left has them all.

Not here: what is read (`mover.pipeline`) or restored (`mover.restore`).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

QUEUED = 4
"""Runs that a lane holds ready for each thread."""


T = TypeVar("T")


@dataclass(eq=False)
class Lane(Generic[T]):
    """What there is to do for one disk, in order."""

    runs: Iterator[T]
    _waiting: deque[T] = field(default_factory=deque, init=False)
    _busy: int = field(default=0, init=False)
    _fed: bool = field(default=False, init=False)


L = TypeVar("L", bound=Lane[Any])


class Lanes(Generic[L]):
    """Hands runs from one feeder to so many threads."""

    def __init__(self, lanes: Sequence[L], threads: int) -> None:
        self._lanes = lanes
        self._room = QUEUED * threads
        self._changed = threading.Condition()
        self._closed = False

    # -- the feeder

    def hungry(self, seconds: float) -> L | None:
        """The lane that has the fewest runs ready; None when so many seconds have passed and none has room."""
        with self._changed:
            if not self._changed.wait_for(self._hungriest, seconds):
                return None
            return self._hungriest()

    def _hungriest(self) -> L | None:
        lanes = [lane for lane in self._lanes if not lane._fed and len(lane._waiting) < self._room]
        return min(lanes, key=lambda lane: len(lane._waiting), default=None)

    def put(self, lane: L, run: Any) -> None:
        with self._changed:
            lane._waiting.append(run)
            self._changed.notify_all()

    def fed(self, lane: L) -> None:
        """There is nothing more of it."""
        with self._changed:
            lane._fed = True

    def all_fed(self) -> bool:
        return all(lane._fed for lane in self._lanes)

    def close(self) -> None:
        """Threads end when nothing is ready."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    # -- the threads

    def take(self) -> tuple[L, Any] | None:
        """What to do next, which `done` must follow; None when all is done."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._fairest())
            lane = self._fairest()
            if lane is None:
                return None
            lane._busy += 1
            run = lane._waiting.popleft()
            self._changed.notify_all()
            return lane, run

    def _fairest(self) -> L | None:
        lanes = [lane for lane in self._lanes if lane._waiting]
        return min(lanes, key=lambda lane: lane._busy, default=None)

    def done(self, lane: L) -> None:
        with self._changed:
            lane._busy -= 1
