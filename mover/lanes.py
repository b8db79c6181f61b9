# SPDX-License-Identifier: Apache-2.0
"""Disks side by side: each is a lane, and a thread that is free takes from the lane with the fewest things on their way. So a
disk that its service throttles holds its fair share of the threads and no more, and the last one left has them all.

One thread, the feeder, asks the disks' plans what comes next, in turn; the others, a `Crew`, carry it out and end together.
Not here: what is read (`mover.pipeline`) or restored (`mover.restore`).
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Generic, TypeVar

from mover.store.patience import ended_by

QUEUED = 4
"""Runs held ready for each thread, of all lanes together."""
LEAST_QUEUED = 2
"""Runs that a lane holds ready, however many lanes there are."""


T = TypeVar("T")


@dataclass(eq=False)
class Lane(Generic[T]):
    """What there is to do for one disk, in order. None: the plan looked at a part of it and found nothing yet."""

    runs: Iterator[T | None]
    _waiting: deque[T] = field(default_factory=deque, init=False)
    _busy: int = field(default=0, init=False)
    _fed: bool = field(default=False, init=False)
    _asked: int = field(default=0, init=False)
    _taken: int = field(default=0, init=False)


L = TypeVar("L", bound=Lane[Any])


class Lanes(Generic[L]):
    """Hands runs from one feeder to so many threads."""

    def __init__(self, lanes: Sequence[L], threads: int) -> None:
        self._lanes = lanes
        self._threads = threads
        self._turns = itertools.count(1)
        self._changed = threading.Condition()
        self._closed = False

    # -- the feeder

    def hungry(self, seconds: float) -> L | None:
        """Of the lanes with room the one that was asked longest ago; None when so many seconds have passed and none has room."""
        with self._changed:
            if not self._changed.wait_for(self._hungriest, seconds):
                return None
            lane = self._hungriest()
            if lane is not None:
                lane._asked = next(self._turns)
            return lane

    def _hungriest(self) -> L | None:
        unfed = [lane for lane in self._lanes if not lane._fed]
        room = max(LEAST_QUEUED, QUEUED * self._threads // max(1, len(unfed)))
        return min((lane for lane in unfed if len(lane._waiting) < room), key=lambda lane: lane._asked, default=None)

    def put(self, lane: L, run: Any) -> None:
        with self._changed:
            lane._waiting.append(run)
            self._changed.notify_all()

    def fed(self, lane: L) -> None:
        """There is nothing more of it."""
        with self._changed:
            lane._fed = True

    def all_fed(self) -> bool:
        """Only the feeder asks, who alone changes it: no lock."""
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
            lane._taken = next(self._turns)
            run = lane._waiting.popleft()
            self._changed.notify_all()
            return lane, run

    def _fairest(self) -> L | None:
        lanes = [lane for lane in self._lanes if lane._waiting]
        return min(lanes, key=lambda lane: (lane._busy, lane._taken), default=None)

    def done(self, lane: L) -> None:
        with self._changed:
            lane._busy -= 1


class Crew(Generic[L]):
    """Threads that end together: the first error stops all. Leaving the context waits for them, then raises that error.

    The thread that enters it feeds the lanes, and calls `between` often while it feeds and waits; an error of `between` is one
    as well. `on_fail` wakes threads that wait for something else than the lanes; it may be called more than once.
    """

    def __init__(
        self, lanes: Lanes[L], between: Callable[[], None], on_fail: Callable[[], None] = lambda: None
    ) -> None:
        self._lanes = lanes
        self._between = between
        self._on_fail = on_fail
        self._lock = threading.Lock()
        self._failure: BaseException | None = None
        self._threads: list[tuple[threading.Thread, threading.Event]] = []
        self.stopped = threading.Event()  # one has failed: nothing more is begun, and nobody waits for a store

    def __enter__(self) -> Crew[L]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.fail(error)
        self._lanes.close()
        self.wait()
        if self._failure is not None and self._failure is not error:
            raise self._failure

    def start(self, work: Callable[[], None], count: int, name: str) -> None:
        for _ in range(count):
            ended = threading.Event()
            thread = threading.Thread(target=self._run, args=(work, ended), name=name)
            thread.start()
            self._threads.append((thread, ended))

    def _run(self, work: Callable[[], None], ended: threading.Event) -> None:
        try:
            with ended_by(self.stopped):
                work()
        except BaseException as error:  # raised again in the thread that waits
            self.fail(error)
        finally:
            ended.set()

    def fail(self, error: BaseException) -> None:
        with self._lock:
            self._failure = self._failure or error
        self.stopped.set()
        self._lanes.close()
        self._on_fail()

    def feed(self, put: Callable[[L, Any], None] | None = None) -> None:
        """Ask the lanes' plans to their end, or until one has failed; `put`, by default that of the lanes, takes what they say."""
        put = put or self._lanes.put
        with ended_by(self.stopped):
            while not self.stopped.is_set() and not self._lanes.all_fed():
                if (lane := self._lanes.hungry(0.5)) is not None:
                    try:
                        run = next(lane.runs)
                    except StopIteration:
                        self._lanes.fed(lane)
                    else:
                        if run is not None:
                            put(lane, run)
                self._between()
        self._lanes.close()

    def serve(self, do: Callable[[L, Any], None]) -> None:
        """A thread's work: whatever the lanes have ready."""
        while (item := self._lanes.take()) is not None and not self.stopped.is_set():
            lane, run = item
            try:
                do(lane, run)
            finally:
                self._lanes.done(lane)

    def wait(self, name: str = "") -> None:
        """For the threads of that name, or all. No error ends it, nor does Ctrl-C: they still use what the caller would close."""
        while True:
            try:
                with ended_by(self.stopped):
                    for thread, ended in self._threads:
                        if name not in ("", thread.name):
                            continue
                        # An interrupted `join` takes a thread for dead that is not (Python 3.11).
                        while not ended.wait(0.2):
                            if not self.stopped.is_set():
                                self._between()
                        thread.join()
                return
            except BaseException as error:  # raised when all have ended
                self.fail(error)
