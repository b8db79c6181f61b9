# SPDX-License-Identifier: Apache-2.0
"""A message that this worker has taken: kept invisible to others for as long as its command is read, waited for and carried out."""

from __future__ import annotations

from agent.errors import StaleReceipt
from agent.protocol import Command
from agent.queue.base import Message, Queue
from mover.clock import Clock
from mover.errors import MoverError
from mover.keeper import Keeper


class Delivery:
    """`message` is what its last renewal made of it, `command` what it says once that was admitted. `lost`: it is not ours any
    more; work on it must stop."""

    def __init__(self, queue: Queue, message: Message, visibility: float, clock: Clock, taken_at: float) -> None:
        self.queue = queue
        self.message = message
        self.command: Command | None = None
        self._visibility = visibility
        self._clock = clock
        self._sent = taken_at
        self._sure_until = taken_at + visibility
        self._lost = False

    @property
    def lost(self) -> bool:
        """Once true, always: what another may have taken is not ours again."""
        if self._clock.monotonic() >= self._sure_until:
            self._lost = True
        return self._lost

    def kept(self) -> Keeper:
        """Within its block the message is renewed; outside of one it is given back or deleted."""
        return Keeper(self.tick, self._clock, min(1.0, self._visibility / 10))

    def tick(self) -> None:
        now = self._clock.monotonic()
        if self.lost or now - self._sent < self._visibility / 3:
            return
        self._sent = now
        try:
            self.message = self.queue.renew(self.message, self._visibility)
            self._sure_until = now + self._visibility
        except StaleReceipt:
            self._lost = True
        except MoverError:
            self._sent = now - self._visibility / 4  # asked again soon
