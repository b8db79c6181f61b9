# SPDX-License-Identifier: Apache-2.0
"""A worker's events on their way to the reply queues.

An event that a queue does not take is missing for those who watch; the job is not the worse for it, and its record in the
state store has the same. Only results are sent until they are taken (`deliver`). Each message is billed: of a job's
progress no more than one in PROGRESS_SECONDS is sent.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from agent.protocol import Event, ProgressEvent, Result, encode
from agent.queue.base import MAX_BODY, Queue
from mover.clock import Clock
from mover.errors import MoverError

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

PROGRESS_SECONDS = 5.0


class Outbox:
    """`open_queue` gives the queue of a name, `default` is for commands that name none. Thread-safe."""

    def __init__(
        self,
        open_queue: Callable[[str], Queue],
        default: str,
        ttl: float,
        clock: Clock,
        log: FilteringBoundLogger,
        redact: Callable[[bytes], bytes] = bytes,
    ) -> None:
        self._redact = redact
        self._open = open_queue
        self._default = default
        self._ttl = ttl
        self._clock = clock
        self._log = log
        self._lock = threading.Lock()
        self._told: dict[str, tuple[str, float]] = {}

    def send(self, event: Event, reply: str | None = None) -> None:
        """Best effort."""
        if isinstance(event, ProgressEvent) and not self._due(event):
            return
        try:
            self.deliver(event, reply)
        except MoverError as error:
            self._log.warning("an event could not be sent", what=error.what, value=error.value)

    def deliver(self, event: Event, reply: str | None = None) -> None:
        """Returns when the queue has it; any error of the queue otherwise."""
        self._open(reply or self._default).put(self._redact(fitting(event)), ttl=self._ttl)
        if isinstance(event, Result):
            with self._lock:
                self._told.pop(event.command, None)

    def _due(self, event: ProgressEvent) -> bool:
        now = self._clock.monotonic()
        with self._lock:
            stage, at = self._told.get(event.command, ("", float("-inf")))
            if stage == event.stage and now - at < PROGRESS_SECONDS:
                return False
            self._told[event.command] = event.stage, now
            return True


def fitting(event: Event) -> bytes:
    """The event in bytes, at most MAX_BODY: of a result that is too large the figures by operation go first, then notes."""
    data = encode(event)
    if len(data) > MAX_BODY and isinstance(event, Result):
        event = msgspec.structs.replace(event, api_calls={})
        data = encode(event)
        if len(data) > MAX_BODY:
            note = f"{len(event.notes)} notes in all: the job's record has more"
            event = msgspec.structs.replace(event, notes=(*(n[:500] for n in event.notes[:20]), note), document=None)
            data = encode(event)
    return data
