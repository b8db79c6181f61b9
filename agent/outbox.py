# SPDX-License-Identifier: Apache-2.0
"""A worker's events on their way to the reply queues.

An event that a queue does not take is missing for those who watch; the job is not the worse for it, and its record in the
state store has the same. Only results are sent until they are taken (`deliver`). Each message is billed: of a job's
progress no more than one in PROGRESS_SECONDS is sent.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from agent.protocol import Event, FlrReady, Heartbeat, ProgressEvent, Result, encode
from agent.queue.base import MAX_BODY, Queue
from mover.clock import Clock
from mover.errors import MoverError

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

PROGRESS_SECONDS = 5.0
RECENT = 200
SHORTEST_CUT = 128
"""Characters of a text that is cut to make an event fit: a name is never cut."""


class Outbox:
    """`open_queue` gives the queue of a name, `default` is for commands that name none. Thread-safe."""

    def __init__(
        self,
        open_queue: Callable[[str], Queue],
        default: str,
        ttl: float,
        clock: Clock,
        log: FilteringBoundLogger,
        redact: Callable[[Event], Event] = lambda event: event,
    ) -> None:
        self._redact = redact
        self._open = open_queue
        self._default = default
        self._ttl = ttl
        self._clock = clock
        self._log = log
        self._lock = threading.Lock()
        self._told: dict[str, tuple[str, float]] = {}
        self.recent: deque[str] = deque(maxlen=RECENT)
        """The newest events, in JSON, but for those that only say that something goes on."""

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
        data = fitting(self._redact(event))
        if not isinstance(event, Heartbeat | ProgressEvent):
            self.recent.append(_kept(event, data).decode())
        self._open(reply or self._default).put(data, ttl=self._ttl)
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


def _kept(event: Event, data: bytes) -> bytes:
    """As it is remembered, for bundles: without what lets somebody in."""
    if isinstance(event, FlrReady):
        return fitting(msgspec.structs.replace(event, link="(withheld)", restore_tool=None))
    return data


def fitting(event: Event) -> bytes:
    """The event in bytes, at most MAX_BODY: of a result that is too large the figures by operation go first, then the document
    and most notes; at last every text of any event is cut short."""
    data = encode(event)
    if len(data) > MAX_BODY and isinstance(event, Result):
        event = msgspec.structs.replace(event, api_calls={})
        data = encode(event)
        if len(data) > MAX_BODY:
            note = f"{len(event.notes)} notes in all: the job's record has more"
            event = msgspec.structs.replace(event, notes=(*event.notes[:20], note), document=None)
            data = encode(event)
    longest = 8192
    while len(data) > MAX_BODY and longest >= SHORTEST_CUT:
        data = encode(_cut(event, longest))
        longest //= 2
    return data


def _cut(value: Any, longest: int) -> Any:
    """The value with no text longer than so many characters and no collection of more than 16 members."""
    if isinstance(value, msgspec.Struct):
        return msgspec.structs.replace(
            value, **{name: _cut(getattr(value, name), longest) for name in value.__struct_fields__}
        )
    if isinstance(value, str):
        return value if len(value) <= longest else value[: longest - 1] + "…"
    if isinstance(value, dict):
        return {_cut(key, longest): _cut(item, longest) for key, item in list(value.items())[:16]}
    if isinstance(value, tuple):
        return tuple(_cut(item, longest) for item in value[:16])
    return value
