# SPDX-License-Identifier: Apache-2.0
"""Keeps alive what lapses by itself, a lease or a message, while another thread works."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType

from mover.clock import Clock
from mover.errors import StoreUnavailable

NAME = "keeper"


def is_keeping() -> bool:
    """Whether the thread that asks is a keeper's: what it does is no sign that the work gets on."""
    return threading.current_thread().name == NAME


class Keeper:
    """Calls `tick` every `seconds` in a thread of its own. A context manager.

    An error that is not one of `passing` is final: `check` raises it in the thread that works. After a passing one, a store
    that does not answer, the tick comes again; what is kept says when that is too late.
    """

    def __init__(
        self,
        tick: Callable[[], None],
        clock: Clock,
        seconds: float = 1.0,
        passing: tuple[type[Exception], ...] = (StoreUnavailable,),
    ) -> None:
        self._tick = tick
        self._passing = passing
        self._clock = clock
        self._seconds = seconds
        self._stop = threading.Event()
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=NAME, daemon=True)

    def __enter__(self) -> Keeper:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def check(self) -> None:
        """Raise what ended the keeping, if anything did."""
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        while not self._clock.wait(self._stop, self._seconds):
            try:
                self._tick()
            except self._passing:
                continue
            except BaseException as error:  # handed to the thread that works
                self.failure = error
                return
