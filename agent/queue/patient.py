# SPDX-License-Identifier: Apache-2.0
"""A queue service that is asked again while it does not answer, for a while.

What is repeated may have happened: a `put` may leave two messages (delivery is at least once anyway), a `take` an unseen
delivery (it shows again), a `delete` or `release` a StaleReceipt although it was done (whoever reads that asks the message again
or lets it be). `renew` is not repeated: a renewal whose answer is lost has taken the receipt along, and who calls renews again
by its own time.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import TypeVar

from agent.errors import QueueUnavailable
from agent.queue.base import Message, Queue, QueueService, Waiting
from mover.clock import Clock

_T = TypeVar("_T")
FIRST_SECONDS, LONGEST_SECONDS = 0.5, 30.0


class PatientService(QueueService):
    """`patience`: seconds in a row for which the service may not answer. `cancel` ends a wait at once."""

    def __init__(self, inner: QueueService, clock: Clock, *, patience: float, cancel: threading.Event) -> None:
        self._inner = inner
        self._clock = clock
        self._patience = patience
        self._cancel = cancel
        self._random = random.Random()  # noqa: S311 - jitter, not a secret

    @property
    def where(self) -> str:
        return self._inner.where

    def queue(self, name: str) -> Queue:
        return PatientQueue(self._inner.queue(name), self)

    def now(self) -> float:
        return self.ask(self._inner.now)

    def close(self) -> None:
        self._inner.close()

    def ask(self, call: Callable[[], _T]) -> _T:
        """The answer, or the last QueueUnavailable when patience is over."""
        until = self._clock.monotonic() + self._patience
        wait = FIRST_SECONDS
        while True:
            try:
                return call()
            except QueueUnavailable as error:
                pause = max(error.wait, wait * self._random.uniform(0.5, 1.5))
                wait = min(LONGEST_SECONDS, wait * 2)
                if self._clock.monotonic() + pause > until or self._clock.wait(self._cancel, pause):
                    raise


class PatientQueue(Queue):
    def __init__(self, inner: Queue, service: PatientService) -> None:
        self._inner = inner
        self._service = service
        self.name = inner.name

    def ensure(self) -> None:
        self._service.ask(self._inner.ensure)

    def put(self, body: bytes, *, ttl: float | None = None, delay: float = 0.0) -> str:
        return self._service.ask(lambda: self._inner.put(body, ttl=ttl, delay=delay))

    def take(self, visibility: float) -> Message | None:
        return self._service.ask(lambda: self._inner.take(visibility))

    def renew(self, message: Message, visibility: float) -> Message:
        return self._inner.renew(message, visibility)

    def release(self, message: Message, delay: float = 0.0) -> None:
        self._service.ask(lambda: self._inner.release(message, delay))

    def delete(self, message: Message) -> None:
        self._service.ask(lambda: self._inner.delete(message))

    def peek(self, count: int) -> list[Waiting]:
        return self._service.ask(lambda: self._inner.peek(count))

    def length(self) -> int:
        return self._service.ask(self._inner.length)
