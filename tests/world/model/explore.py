# SPDX-License-Identifier: Apache-2.0
"""The property, and a whole breadth-first search for a state that breaks it.

The search keeps every state whole, so nothing is lost to a collision of hashes, and the first loss that it finds is one
of the shortest.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from tests.world.model.collector import Collector
from tests.world.model.process import Process, sentence
from tests.world.model.reader import FAILED, Reader
from tests.world.model.rules import Rules
from tests.world.model.scenarios import Scenario
from tests.world.model.state import (
    BIT,
    BLOBS,
    CHUNKS,
    COMMITTED,
    DELETED,
    P0,
    P1,
    POINTS,
    A,
    B,
    State,
    World,
    reach,
)
from tests.world.model.writer import Writer

ALL_RULES = Rules()

UNREADABLE = "a committed, unexpired point does not read back"
DELETED_UNEXPIRED = "a point was deleted that no verdict expired"
READER_FAILED = "a reader with a valid hold failed to read"


class Loss(NamedTuple):
    """What the rules must never let happen."""

    kind: str
    point: str
    chunk: str = ""


class Outcome(NamedTuple):
    """What a search found."""

    states: int
    moves: int
    depth: int  # of the deepest state, or of the loss
    loss: Loss | None
    trace: tuple[str, ...]  # the way to the loss, a sentence a move
    made: frozenset[tuple[str, str]]  # (process, sentence before formatting) of every kind of move that was made
    complete: bool
    cpu: float  # seconds


class Model:
    """A scenario under a set of rules: who can move, and what must hold."""

    def __init__(self, scenario: Scenario, rules: Rules = ALL_RULES) -> None:
        self.scenario = scenario
        kinds: dict[str, type[Process]] = {"W": Writer, "C": Collector, "R": Reader}
        self.processes = tuple(
            kinds[name[0]](name, slot, scenario, rules) for slot, name in enumerate(scenario.processes, 1)
        )
        self.reader = next((process for process in self.processes if isinstance(process, Reader)), None)

    def initial(self) -> State:
        return (self.scenario.world(), *(process.record() for process in self.processes))

    def resolves(self, world: World, place: int, chunk: int) -> bool:
        """Whether a reader of `place` finds the chunk there, by a forward, or (some scenarios) by the index."""
        there = world.exists & world.frames[chunk]
        if reach(world.gc, place) & there:
            return True
        if not self.scenario.read_by_index:
            return False
        indexed = world.gc.catalog | Writer.runs(world, world.gc.folded)
        return bool(indexed & ~world.gc.gone & there)

    def loss_in(self, world: World) -> Loss | None:
        """The property, as far as it is one of the store: every committed, unexpired point reads back."""
        for number in POINTS:
            blob = world.blobs[number]
            if world.expired & BIT[number]:
                continue
            if blob.status == DELETED:
                return Loss(DELETED_UNEXPIRED, BLOBS[number])
            if blob.status != COMMITTED:
                continue
            for chunk, name in ((A, "A"), (B, "B")):
                place = blob.places[chunk]
                rotten = chunk == A and self.scenario.damaged and not world.healed and number in (P0, P1)
                if place and not rotten and not self.resolves(world, place, chunk):
                    return Loss(UNREADABLE, BLOBS[number], name)
        return None

    def loss_of_reader(self, state: State) -> Loss | None:
        """The property, as far as it is one of a reader: under a valid hold, everything reads."""
        if self.reader is None:
            return None
        mine = state[self.reader.slot]
        if mine.phase != FAILED or not self.reader.holds(state[0]):
            return None
        return Loss(READER_FAILED, BLOBS[mine.point], CHUNKS[mine.missing])

    def loss(self, state: State) -> Loss | None:
        """What `state` has lost, if anything."""
        return self.loss_in(state[0]) or self.loss_of_reader(state)


class Search:
    """A breadth-first search over all interleavings; it ends at the first loss, or where nothing is left to find."""

    def __init__(self, model: Model) -> None:
        self.model = model
        initial = model.initial()
        self.came_from: dict[State, State | None] = {initial: None}
        self.frontier = [initial]
        self.depth = 0
        self.moves = 0
        self.made: set[tuple[str, str]] = set()

    def run(self, limit: int) -> State | None:
        """The first state found that has lost something. `limit` counts states, and is looked at once a level."""
        while self.frontier and len(self.came_from) < limit:
            self.depth += 1
            lost = self.level()
            if lost is not None:
                return lost
        self.depth -= not self.frontier  # the last level had nothing new
        return None

    def level(self) -> State | None:
        """Make every move from the states found last."""
        model, came_from, made = self.model, self.came_from, self.made
        following: list[State] = []
        moves = 0
        for state in self.frontier:
            world = state[0]
            for process in model.processes:
                for after, what, _ in process.moves(state):
                    moves += 1
                    if after in came_from:
                        continue
                    came_from[after] = state
                    following.append(after)
                    made.add((process.name, what))
                    # A move that did not touch the store cannot have lost anything that is in it.
                    if (after[0] is not world and model.loss_in(after[0])) or model.loss_of_reader(after):
                        return after
        self.moves += moves
        self.frontier = following
        return None

    def trace(self, state: State) -> tuple[str, ...]:
        """The sentences that lead to `state`."""
        told: list[str] = []
        before = self.came_from[state]
        while before is not None:
            told.append(
                next(
                    sentence(process.name, what, details)
                    for process in self.model.processes
                    for after, what, details in process.moves(before)
                    if after == state
                )
            )
            state, before = before, self.came_from[before]
        return tuple(reversed(told))


def explore(model: Model, limit: int = 10_000_000) -> Outcome:
    """Search all interleavings, or until the first loss, or until about `limit` states."""
    began = time.process_time()
    search = Search(model)
    with no_cyclic_garbage():
        lost = search.run(limit)
    return Outcome(
        states=len(search.came_from),
        moves=search.moves,
        depth=search.depth,
        loss=model.loss(lost) if lost is not None else None,
        trace=search.trace(lost) if lost is not None else (),
        made=frozenset(search.made),
        complete=not search.frontier,
        cpu=time.process_time() - began,
    )


@contextmanager
def no_cyclic_garbage() -> Iterator[None]:
    """States are tuples without cycles: looking for cycles among millions of them would only cost time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
