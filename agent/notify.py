# SPDX-License-Identifier: Apache-2.0
"""What systemd is told: ready, stopping, reloading, what the worker does, and, only while work really goes on, that it lives."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from types import TracebackType

from mover.clock import Clock

WAIT_SLICE = 5.0

Notify = Callable[[str], object]


def notifier(environ: Mapping[str, str]) -> Notify | None:
    """systemd's notification, or None where there is no systemd to notify. RuntimeError: there is one, and no systemd-python."""
    if not environ.get("NOTIFY_SOCKET"):
        return None
    try:
        from systemd import daemon
    except ImportError:
        raise RuntimeError(
            "NOTIFY_SOCKET is set and systemd-python is not installed: the unit would time out"
        ) from None
    notify: Notify = daemon.notify
    return notify


def watchdog_seconds(environ: Mapping[str, str]) -> float:
    """The unit's WatchdogSec, if it is for this process; 0: none."""
    text, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not text.isdigit() or (pid and pid != str(os.getpid())):
        return 0.0
    return int(text) / 1e6


class Watchdog:
    """Activities `beat` while they make progress; systemd is told that the worker lives only while all of them do.

    An activity is known from `watch` until `forget`; the beat of any other means nothing. A context manager: within it a thread
    of its own tells systemd, three times as often as it must. Thread-safe.
    """

    def __init__(self, clock: Clock, notify: Notify | None, seconds: float) -> None:
        self._clock = clock
        self._notify = notify
        self.seconds = seconds
        self._lock = threading.Lock()
        self._beats: dict[str, float] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        if self._notify is not None and self.seconds > 0:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        self.feed()
        while not self._clock.wait(self._end, self.seconds / 3):
            self.feed()

    def watch(self, who: str) -> None:
        with self._lock:
            self._beats[who] = self._clock.monotonic()

    def beat(self, who: str) -> None:
        with self._lock:
            if who in self._beats:
                self._beats[who] = self._clock.monotonic()

    def forget(self, who: str) -> None:
        with self._lock:
            self._beats.pop(who, None)

    def silent(self) -> list[str]:
        """Activities that have made no progress for the watchdog's time."""
        now = self._clock.monotonic()
        with self._lock:
            return sorted(who for who, at in self._beats.items() if now - at >= self.seconds)

    def feed(self) -> bool:
        """Tell systemd, if all is well; whether it was told."""
        if self._notify is None or self.seconds <= 0 or self.silent():
            return False
        self._notify("WATCHDOG=1")
        return True


class LivingClock:
    """A clock whose waits count as life of the thread that waits, if it is watched by its name: every wait has an end."""

    def __init__(self, inner: Clock, beat: Callable[[str], None]) -> None:
        self._inner = inner
        self._beat = beat

    def monotonic(self) -> float:
        return self._inner.monotonic()

    def wall(self) -> float:
        return self._inner.wall()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        until = self._inner.monotonic() + seconds
        while True:
            self._beat(threading.current_thread().name)
            left = until - self._inner.monotonic()
            if self._inner.wait(event, max(0.0, min(left, WAIT_SLICE))):
                return True
            if left <= WAIT_SLICE:
                return False
