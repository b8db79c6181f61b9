# SPDX-License-Identifier: Apache-2.0
"""How long a worker waits until it looks at a queue again: each look is billed, and many workers shall not look at once. Pure."""

from __future__ import annotations

import random

JITTER = 0.25


class Pace:
    """`shortest` seconds after a message, twice as long after each look that found none, `longest` at most; each by chance up to
    a quarter longer or shorter."""

    def __init__(self, *, shortest: float, longest: float, chance: random.Random | None = None) -> None:
        self._shortest = shortest
        self._longest = max(shortest, longest)
        self._next = shortest
        self._random = chance or random.Random()  # noqa: S311 - jitter, not a secret

    def busy(self) -> None:
        """There was a message: the next look comes soon."""
        self._next = self._shortest

    def idle(self) -> float:
        """There was none: seconds until the next look."""
        wait, self._next = self._next, min(self._longest, self._next * 2)
        return wait * self._random.uniform(1 - JITTER, 1 + JITTER)


def polls_an_hour(longest: float) -> float:
    """Looks of one worker that has been idle for long, on average."""
    return 3600 / longest
