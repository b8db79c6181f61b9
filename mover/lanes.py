# SPDX-License-Identifier: Apache-2.0
"""Disks that are read side by side: each is a lane, and a reader that is free takes from the lane with the fewest reads on their
way. So a disk that its service throttles holds its fair share of the readers and no more, and the last one left has them all.

Not here: the reading itself (`mover.pipeline`) and which blocks are read (`mover.disk_backup`).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from mover.disk.source import DiskSource
from mover.repository.map_store import MapBuilder

QUEUED = 4
"""Runs that a lane holds ready for each reader."""


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive blocks to read."""

    first: int
    count: int


@dataclass(eq=False, slots=True)
class Lane:
    """One disk: what is read of it, in order, and the map that its blocks belong to."""

    source: DiskSource
    builder: MapBuilder
    runs: Iterator[Run]
    _waiting: deque[Run] = field(default_factory=deque)
    _reading: int = 0
    _fed: bool = False


class Lanes:
    """Hands runs from one feeder to many readers."""

    def __init__(self, lanes: Sequence[Lane], readers: int) -> None:
        self._lanes = lanes
        self._room = QUEUED * readers
        self._changed = threading.Condition()
        self._closed = False

    # -- the feeder

    def hungry(self, seconds: float) -> Lane | None:
        """The lane that has the fewest runs ready; None when so many seconds have passed and none has room."""
        with self._changed:
            if not self._changed.wait_for(self._hungriest, seconds):
                return None
            return self._hungriest()

    def _hungriest(self) -> Lane | None:
        lanes = [lane for lane in self._lanes if not lane._fed and len(lane._waiting) < self._room]
        return min(lanes, key=lambda lane: len(lane._waiting), default=None)

    def put(self, lane: Lane, run: Run) -> None:
        with self._changed:
            lane._waiting.append(run)
            self._changed.notify_all()

    def fed(self, lane: Lane) -> None:
        """There is nothing more of it."""
        with self._changed:
            lane._fed = True

    def all_fed(self) -> bool:
        return all(lane._fed for lane in self._lanes)

    def close(self) -> None:
        """Readers end when nothing is ready."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    # -- the readers

    def take(self) -> tuple[Lane, Run] | None:
        """What to read next, which `done` must follow; None when all is read."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._fairest())
            lane = self._fairest()
            if lane is None:
                return None
            lane._reading += 1
            run = lane._waiting.popleft()
            self._changed.notify_all()
            return lane, run

    def _fairest(self) -> Lane | None:
        lanes = [lane for lane in self._lanes if lane._waiting]
        return min(lanes, key=lambda lane: lane._reading, default=None)

    def done(self, lane: Lane) -> None:
        with self._changed:
            lane._reading -= 1
