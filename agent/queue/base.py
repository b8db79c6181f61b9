# SPDX-License-Identifier: Apache-2.0
"""What a worker asks of a queue, in contract words.

MUST = a command is lost or carried out by two when an implementation breaks it; SHOULD = only time or money.
`tests/agent/queue/conformance.py` runs every MUST on every queue. It is what Azure Queue Storage gives, no more: delivery is
at least once, in no promised order; a message that is taken is invisible for a time; its receipt changes with every
renewal; deliveries are counted. Nothing is retried here: `patient` does that. All methods are safe for use by many threads.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass

from mover.errors import UsageError

MAX_BODY = 48 * 1024
"""Bytes of a message: 64 KiB of Base64. Larger ones travel as a claim check (`agent.envelope`)."""
VISIBILITY_SHORTEST, VISIBILITY_LONGEST = 1.0, 7 * 24 * 3600.0
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9]|-(?=[a-z0-9])){2,62}\Z")


@dataclass(frozen=True, slots=True)
class Message:
    """One delivery. `id` is the same in all deliveries, `receipt` is this one's; `deliveries` counts them, this one included.
    `inserted` is the service's time (Unix seconds) at which it was put."""

    id: str
    receipt: str
    body: bytes
    deliveries: int
    inserted: float


@dataclass(frozen=True, slots=True)
class Waiting:
    """A visible message as `peek` shows it: looked at, not taken."""

    id: str
    body: bytes
    deliveries: int
    inserted: float


class Queue(ABC):
    """One queue. Errors: StaleReceipt, QueueMissing, QueueUnavailable (passing: the same call may succeed later),
    AccessDenied, QueueError; none shows a body, a receipt or a credential."""

    name: str

    @abstractmethod
    def ensure(self) -> None:
        """Make the queue unless it is there. AccessDenied where the credential may not make one and it is not there."""

    @abstractmethod
    def put(self, body: bytes, *, ttl: float | None = None, delay: float = 0.0) -> str:
        """Add a message, visible after `delay` seconds, gone after `ttl` (None: never by itself); its id.

        MUST be durable when it returns. MUST raise UsageError for a body over MAX_BODY. A lost answer may leave two of it.
        """

    @abstractmethod
    def take(self, visibility: float) -> Message | None:
        """A visible message, invisible to others for so many seconds; None when there is none.

        MUST give a message to one taker at a time while its visibility lasts, and MUST show it again when it has lapsed. MUST
        count the delivery. The body MUST be the bytes that were put. SHOULD take the oldest first.
        """

    @abstractmethod
    def renew(self, message: Message, visibility: float) -> Message:
        """Invisible for so many seconds from now; the message with its new receipt, the only one that is good from now on.
        MUST raise StaleReceipt when the message was given to another since, or is gone; and MUST change nothing then."""

    @abstractmethod
    def release(self, message: Message, delay: float = 0.0) -> None:
        """Give it back: visible to all after so many seconds. StaleReceipt as `renew`."""

    @abstractmethod
    def delete(self, message: Message) -> None:
        """The message is done. StaleReceipt as `renew`: then it is not deleted."""

    @abstractmethod
    def peek(self, count: int) -> list[Waiting]:
        """At most `count` (1 to 32) visible messages, oldest first; nothing about them changes."""

    @abstractmethod
    def length(self) -> int:
        """How many messages there are, visible or not; Azure counts approximately."""


class QueueService(ABC):
    """The queues of one account or file."""

    @property
    @abstractmethod
    def where(self) -> str:
        """For people and logs: the service's URL or path, without credentials."""

    @abstractmethod
    def queue(self, name: str) -> Queue:
        """The queue of that name; no request is made. UsageError for what cannot be a name."""

    @abstractmethod
    def now(self) -> float:
        """The service's time (Unix seconds): of its newest answer's Date, and how long ago that was by the monotonic clock.

        Never the worker's own wall clock, but before the first answer, which this call then asks for.
        """

    @abstractmethod
    def close(self) -> None:
        """Give back connections; nothing of the service is used afterwards."""


def check_queue_name(name: str) -> str:
    """The name itself if Azure would take it; UsageError otherwise."""
    if not _NAME.match(name):
        hint = "3 to 63 lower-case letters, digits and single hyphens, with a letter or digit at both ends"
        raise UsageError("not a queue's name", repr(name[:80]), hint)
    return name


def check_body(body: bytes) -> bytes:
    if len(body) > MAX_BODY:
        raise UsageError("a message is too large for a queue", f"{len(body)} bytes", f"at most {MAX_BODY}")
    return body


def check_visibility(seconds: float) -> float:
    if not VISIBILITY_SHORTEST <= seconds <= VISIBILITY_LONGEST:
        raise UsageError("not a visibility", seconds, f"{VISIBILITY_SHORTEST:g} to {VISIBILITY_LONGEST:g} seconds")
    return seconds
