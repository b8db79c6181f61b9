# SPDX-License-Identifier: Apache-2.0
"""Many workers, one repository, every order of requests: the invariant of docs/concurrency.md over the real code.

Two ways through the same world: a Hypothesis machine, which shrinks what it finds, and random walks, which are long and cheap
and are told again by their seed alone (`walk(seed)`). In CI both take the same ways every time, with `-m slow` or `-m soak` others.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from tests.world.baton import Crash
from tests.world.moves import BLOCKS, FAULTS, PACES, RATES, RESOURCES, SECONDS, VALUES, Moves, walk
from tests.world.wire import Fate
from tests.world.world import World

CI_WALKS = range(250)
SOAK_SECONDS = float(os.environ.get("DATA_MOVER_SOAK_SECONDS", "3600"))

numbers = st.integers(0, 12)
contents = st.lists(st.integers(0, VALUES - 1), min_size=BLOCKS - 1, max_size=BLOCKS)
checkpoints = st.lists(st.integers(1, BLOCKS), max_size=2)
rates = st.sampled_from(RATES)


class Machine(RuleBasedStateMachine):
    """The moves as rules; `World.step` looks at the invariant after every one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World().__enter__()
        self.moves = Moves(self.world)

    def teardown(self) -> None:
        try:
            self.moves.drain()
        finally:
            self.world.__exit__(None, None, None)

    def _crowded(self) -> bool:
        return len(self.world.living()) > 12

    @precondition(lambda self: not self._crowded())
    @rule(resource=st.sampled_from(RESOURCES), content=contents, checkpoints=checkpoints, rate=rates)
    def write(self, resource: str, content: list[int], checkpoints: list[int], rate: float) -> None:
        self.moves.write(resource, content, checkpoints, rate)

    @precondition(lambda self: self.moves.jobs and not self._crowded())
    @rule(number=numbers, checkpoints=checkpoints, rate=rates)
    def write_again(self, number: int, checkpoints: list[int], rate: float) -> None:
        self.moves.write_again(number, checkpoints, rate)

    @precondition(lambda self: self.world.points and not self._crowded())
    @rule(number=numbers, rate=rates)
    def read(self, number: int, rate: float) -> None:
        self.moves.read(number, rate)

    @precondition(lambda self: not self._crowded())
    @rule(expire=st.lists(numbers, max_size=2), condemn_all=st.booleans(), grace_over=st.booleans())
    def collect(self, expire: list[int], condemn_all: bool, grace_over: bool) -> None:
        self.moves.collect(expire, condemn_all, grace_over)

    @precondition(lambda self: self.world.living())
    @rule(number=numbers, paces=st.sampled_from(PACES))
    def go(self, number: int, paces: int) -> None:
        self.moves.go(number, paces)

    @precondition(lambda self: self.world.living())
    @rule(number=numbers, paces=st.sampled_from(PACES), fate=st.sampled_from(FAULTS))
    def go_and_fail(self, number: int, paces: int, fate: Fate) -> None:
        self.moves.go(number, paces, fate)

    @rule(seconds=st.sampled_from(SECONDS))
    def advance(self, seconds: float) -> None:
        self.world.advance(seconds)

    @precondition(lambda self: self.world.living())
    @rule(number=numbers)
    def crash(self, number: int) -> None:
        self.moves.crash(number)

    @precondition(lambda self: self.world.late)
    @rule(number=numbers)
    def deliver(self, number: int) -> None:
        self.moves.deliver(number)


def _machine(examples: int, *, derandomize: bool) -> None:
    profile = settings(
        max_examples=examples,
        stateful_step_count=50,
        derandomize=derandomize,
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Machine, settings=profile)


def test_any_order_of_moves_keeps_every_point() -> None:
    _machine(300, derandomize=True)


def test_walks_keep_every_point() -> None:
    """Also: the walks are worth something. Each kind of end was reached, by writers, readers and collectors."""
    ended: Counter[str] = Counter()
    for seed in CI_WALKS:
        ended += walk(seed).ended
    for kind in ("W well", "W SessionBusy", "W SessionLost", "W SessionEnded", "R well", "R PointGone", "C well"):
        assert ended[kind] > 5, f"{kind}: {ended}"


def test_a_walk_is_the_same_every_time() -> None:
    """Determinism: a seed tells a story to the last request, names of incarnations included."""
    assert walk(7, 60).trace == walk(7, 60).trace


def test_a_crash_reaches_nothing() -> None:
    """What unwinds in a process that is no more does no request: its lease is not released, its session not closed."""
    with World() as world:
        world.change("vm", [1, 2, 3])
        writer = world.writer("vm", "job")
        world.run(writer, until=lambda actor: actor.at.what == "put")
        before = len(world.trace)
        world.crash(writer)
        assert writer.done
        assert not isinstance(writer.error, Crash)
        assert world.trace[before:] == ["W1 crashes"]
        assert world.raw.read_record(writer.process.point).leased


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_any_order_of_moves_keeps_every_point_at_length() -> None:
    _machine(1500, derandomize=False)
    for seed in range(1000, 2500):
        walk(seed, 200)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_soak() -> None:
    """DATA_MOVER_SOAK_SECONDS (an hour) of walks from a seed that is printed; a walk that fails prints its own."""
    first = random.SystemRandom().randrange(1 << 32)
    end = time.monotonic() + SOAK_SECONDS
    print(f"walks from seed {first}")
    seed, steps = first, 0
    while time.monotonic() < end:
        steps += walk(seed, 300).steps
        seed += 1
    print(f"{seed - first} walks, {steps} requests")
