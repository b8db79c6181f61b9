# SPDX-License-Identifier: Apache-2.0
"""How long a session lives, by a clock that the test turns."""

from __future__ import annotations

import threading

import pytest

from flr.recovery.life import WARN_SECONDS, Life


class Turned:
    """A clock whose waits pass at once."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now

    def wait(self, event: threading.Event, seconds: float) -> bool:
        self.now += seconds
        return event.is_set()


@pytest.fixture
def clock() -> Turned:
    return Turned()


def test_it_ends_when_nobody_uses_it(clock: Turned) -> None:
    life = Life(clock, idle=1800, limit=43200)
    life.watch()
    assert life.why == "nobody used it"
    assert clock.now == pytest.approx(1000 + 1800, abs=1.1)


def test_use_puts_the_end_off_and_the_limit_does_not_move(clock: Turned) -> None:
    life = Life(clock, idle=1800, limit=3600)
    for _ in range(3):
        clock.now += 1100
        life.use()
    assert life.left().idle == 1800
    assert life.left().limit == 300
    assert life.left().warn
    life.watch()
    assert life.why == "its time was over"


def test_a_warning_comes_five_minutes_before(clock: Turned) -> None:
    life = Life(clock, idle=1800, limit=43200)
    clock.now += 1800 - WARN_SECONDS - 1
    assert not life.left().warn
    clock.now += 2
    assert life.left().warn
    life.use()
    assert not life.left().warn


def test_a_transfer_keeps_it_alive_and_counts_as_use_when_it_ends(clock: Turned) -> None:
    life = Life(clock, idle=1800, limit=43200)
    with life.transfer(), life.transfer():
        clock.now += 10_000
        assert life.left().idle == 1800
        assert life.left().transfers == 2
        assert not life.left().warn
    assert life.left().idle == 1800
    clock.now += 1799
    assert life.left().idle == 1


def test_the_first_reason_counts(clock: Turned) -> None:
    life = Life(clock)
    life.end("one")
    life.end("two")
    assert life.why == "one"
