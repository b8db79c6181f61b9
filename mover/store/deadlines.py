# SPDX-License-Identifier: Apache-2.0
"""Exchanges that take longer than they may are broken off: a socket's own time-out only sees silence, and a byte every half a
minute is none. Whoever reads or writes the socket meanwhile gets the error of a connection that broke."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

from mover.clock import SYSTEM  # a socket waits in real time


class Deadlines:
    """Thread-safe. Its thread lives from the first exchange until `close`."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._until: dict[socket.socket, float] = {}
        self._thread: threading.Thread | None = None
        self._closed = False

    def begin(self, connection: socket.socket, seconds: float) -> None:
        """From now on; a second time changes the first."""
        with self._changed:
            self._until[connection] = SYSTEM.monotonic() + seconds
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._watch, name="deadlines", daemon=True)
                self._thread.start()
            self._changed.notify()

    def end(self, connection: socket.socket) -> None:
        with self._changed:
            self._until.pop(connection, None)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _watch(self) -> None:
        with self._changed:
            while not self._closed:
                now = SYSTEM.monotonic()
                for connection in [one for one, until in self._until.items() if until <= now]:
                    del self._until[connection]
                    with suppress(OSError):
                        connection.shutdown(socket.SHUT_RDWR)
                self._changed.wait(max(0.0, min(self._until.values()) - now) if self._until else None)
