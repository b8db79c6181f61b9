# SPDX-License-Identifier: Apache-2.0
"""Waiting for what failed in passing, and asking again: exponential back-off with jitter, or as long as the service asked for.

What may be asked again, and what an answer to a repeated request means, is the caller's to know (`retry`, `mover.disk`).
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from mover.clock import SYSTEM, Clock
from mover.errors import Cancelled, StoreUnavailable

_FIRST = 0.5  # seconds; doubles with every attempt
_LONGEST = 30.0  # seconds
_LOOK = 0.5  # seconds
T = TypeVar("T")


class _InPassing(StoreUnavailable):
    """A kind that only those who ask again tell apart."""

    @property
    def type(self) -> str:
        return StoreUnavailable.__name__


class RetryLater(_InPassing):
    """The store said when to come again (Retry-After)."""

    def __init__(self, what: str, value: object, after: float) -> None:
        super().__init__(what, value)
        self.after = after  # seconds


class TooSlow(_InPassing):
    """The store did not finish in time: a smaller request may be answered."""


class _OfThread(threading.local):
    end: threading.Event | None = None


_OF_THREAD = _OfThread()


@contextmanager
def ended_by(end: threading.Event) -> Iterator[None]:
    """Within it every wait of this thread, whoever's patience it is, ends within _LOOK when the event is set: what others of
    a crew still ask for is of no use when one of them has failed."""
    before, _OF_THREAD.end = _OF_THREAD.end, end
    try:
        yield
    finally:
        _OF_THREAD.end = before


class Patience:
    """`seconds` of failures in a row before the last one is raised. `cancel` ends every wait at once. Thread-safe."""

    def __init__(
        self,
        clock: Clock = SYSTEM,
        *,
        seconds: float = 300.0,
        cancel: threading.Event | None = None,
        chosen: random.Random | None = None,
    ) -> None:
        self._clock = clock
        self._seconds = seconds
        self._cancel = cancel or threading.Event()
        self._random = chosen or random.Random()  # noqa: S311 - jitter is no secret

    def ask(self, name: str, call: Callable[[], T]) -> T:
        """What `call` returns once it does not end in StoreUnavailable. Cancelled names `name`."""
        pause = self.pauses(name)
        while True:
            try:
                return call()
            except StoreUnavailable as error:
                pause(error)

    def check(self, name: str) -> None:
        """Cancelled when that has come."""
        if self._cancel.is_set():
            raise Cancelled("stopped while asking the store", name)

    def wait(self, name: str, seconds: float) -> None:
        """Cancelled when that comes meanwhile, or what the thread is `ended_by`."""
        end = _OF_THREAD.end
        while True:
            part = seconds if end is None else min(seconds, _LOOK)
            if self._clock.wait(self._cancel, part) or (end is not None and end.is_set()):
                raise Cancelled("stopped while waiting for the store", name)
            seconds -= part
            if seconds <= 0:
                return

    def pauses(self, name: str) -> Callable[[StoreUnavailable], None]:
        """A function to call at every failure of one request: it waits, or raises when patience is over."""
        began: float | None = None
        step = _FIRST

        def pause(error: StoreUnavailable) -> None:
            nonlocal began, step
            now = self._clock.monotonic()
            began = now if began is None else began
            wait = step * self._random.uniform(0.5, 1.0)
            step = min(step * 2, _LONGEST)
            if isinstance(error, RetryLater):
                wait = max(wait, error.after)
            if now + wait - began > self._seconds:
                raise error
            self.wait(name, wait)

        return pause
