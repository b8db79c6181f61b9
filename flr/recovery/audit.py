# SPDX-License-Identifier: Apache-2.0
"""Who did what in a session, as JSON lines: append-only, names escaped, no secret, no content. Each line is also handed on, for
the appliance. Safe for many threads.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from mover.clock import Clock
from mover.errors import TargetError

KEPT = 10_000
"""Of the newest, for whoever looks at the session's log."""


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """`what` is the action's word; `result` ok, warning, skipped, failed, refused or cut. `address` and `agent` are the
    browser's. `path` is the form that may be shown; `size` in bytes, `sha256` of content that was handed out whole."""

    time: str
    what: str
    result: str = "ok"
    address: str = ""
    agent: str = ""
    point: str = ""
    volume: str = ""
    path: str = ""
    size: int | None = None
    sha256: str = ""
    text: str = ""


class Audit:
    """`file`: a new file, or one to go on with; None keeps it in memory only. `tell` is called with each record."""

    def __init__(
        self, clock: Clock, file: Path | None = None, tell: Callable[[Record], None] = lambda record: None
    ) -> None:
        self._clock = clock
        self._tell = tell
        self._lock = threading.Lock()
        self._kept: deque[Record] = deque(maxlen=KEPT)
        self._out: BinaryIO | None = None
        if file is not None:
            try:
                self._out = open(file, "ab", buffering=0)  # noqa: SIM115 - closed by `close`
            except OSError as error:
                raise TargetError("the session's log cannot be written", f"{file}: {error.strerror}") from None

    def add(self, what: str, **more: Any) -> None:
        when = datetime.fromtimestamp(self._clock.wall(), UTC).isoformat(timespec="milliseconds")
        record = Record(time=when.replace("+00:00", "Z"), what=what, **more)
        with self._lock:
            self._kept.append(record)
            if self._out is not None:
                self._out.write(msgspec.json.encode(record) + b"\n")
        self._tell(record)

    def all(self) -> list[Record]:
        """The kept ones, oldest first."""
        with self._lock:
            return list(self._kept)

    def close(self) -> None:
        with self._lock:
            if self._out is not None:
                self._out.close()
                self._out = None
