# SPDX-License-Identifier: Apache-2.0
"""What systemd is told: ready, stopping, reloading, what the worker does, and, only while work really goes on, that it lives."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping

from mover.clock import Clock

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

    An activity is known from its first beat until it is forgotten. Thread-safe.
    """

    def __init__(self, clock: Clock, notify: Notify | None, seconds: float) -> None:
        self._clock = clock
        self._notify = notify
        self.seconds = seconds
        self._lock = threading.Lock()
        self._beats: dict[str, float] = {}

    def beat(self, who: str) -> None:
        with self._lock:
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
        """Tell systemd, if all is well; called at a third of the watchdog's time."""
        if self._notify is None or self.seconds <= 0 or self.silent():
            return False
        self._notify("WATCHDOG=1")
        return True
