# SPDX-License-Identifier: Apache-2.0
"""A restore under a hold (I7): opening it as I14 says, acknowledging, reading, following forwards (I8)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tests.world.model.process import Move, Process
from tests.world.model.rules import Rules
from tests.world.model.scenarios import Scenario
from tests.world.model.state import (
    ABORTED,
    BIT,
    COMMITTED,
    HOLD,
    NO_POINT,
    ONLY_A,
    OPEN,
    A,
    B,
    Blob,
    ChunkSet,
    PackSet,
    State,
    World,
    reach,
    with_blob,
)

# Phases.
IDLE = "idle"
CREATED = "created"
SAW_GC = "saw gc"
READING = "reading"
MISSED = "missed"
FORWARDED = "forwarded"
FAILED = "failed"
DONE = "done"
GAVE_UP = "gave up"


class ReaderRecord(NamedTuple):
    """What a reader has in memory."""

    phase: str = IDLE
    seen: int = 0
    point: int = NO_POINT
    got: ChunkSet = 0
    tried: PackSet = 0  # the place that it missed and the places that forwards named
    missing: ChunkSet = 0


class Reader(Process):
    """R. It never writes anything but its hold."""

    record = ReaderRecord

    def __init__(self, name: str, slot: int, scenario: Scenario, rules: Rules) -> None:
        super().__init__(name, slot, scenario, rules)
        self.steps = {
            IDLE: self.create,
            CREATED: self.read_gc,
            SAW_GC: self.acknowledge_first,
            READING: self.read,
            MISSED: self.read_forwards,
            FORWARDED: self.read_forwarded,
        }

    def holds(self, world: World) -> bool:
        """Whether the hold is still this reader's."""
        hold: Blob = world.blobs[HOLD]
        return hold.status == OPEN and hold.holder == self.name

    def create(self, state: State, world: World, mine: ReaderRecord) -> Iterator[Move]:
        for point in self.scenario.reads:
            if world.blobs[point].status == COMMITTED:
                after = with_blob(world, HOLD, Blob(OPEN, self.name, parent=point))
                yield (
                    self.wrote(state, mine._replace(phase=CREATED, point=point), after),
                    "creates a hold on {:blob}",
                    (point,),
                )

    def give_up(self, state: State, world: World, mine: ReaderRecord, what: str) -> Move:
        if self.holds(world):
            world = with_blob(world, HOLD, world.blobs[HOLD]._replace(status=ABORTED))
        return self.wrote(state, mine._replace(phase=GAVE_UP), world), what, ()

    def read_gc(self, state: State, world: World, mine: ReaderRecord) -> Iterator[Move]:
        gc = world.gc
        if self.rules.condemn_points and (gc.condemned_points | gc.gone_points) & BIT[mine.point]:
            yield self.give_up(state, world, mine, "finds its point condemned, gives up")
        else:
            read = mine._replace(phase=SAW_GC, seen=gc.generation)
            yield self.local(state, read), "reads gc/state gen={}", (gc.generation,)

    def acknowledge_first(self, state: State, world: World, mine: ReaderRecord) -> Iterator[Move]:
        if world.blobs[mine.point].status != COMMITTED:
            yield self.give_up(state, world, mine, "finds no point, gives up")
        else:
            yield self.acknowledge(state, world, mine, mine.seen)

    def acknowledge(self, state: State, world: World, mine: ReaderRecord, generation: int) -> Move:
        if not self.holds(world):
            return self.local(state, mine._replace(phase=GAVE_UP)), "lost its hold", ()
        after = with_blob(world, HOLD, world.blobs[HOLD]._replace(seen=generation))
        return (
            self.wrote(state, mine._replace(phase=READING, seen=generation), after),
            "acknowledges gen={}",
            (generation,),
        )

    def read(self, state: State, world: World, mine: ReaderRecord) -> Iterator[Move]:
        if world.gc.generation > mine.seen:
            yield self.acknowledge(state, world, mine, world.gc.generation)
        places = world.blobs[mine.point].places
        chunk = next((chunk for chunk in (A, B) if places[chunk] and not mine.got >> chunk & 1), None)
        if chunk is None:
            if self.holds(world):
                after = with_blob(world, HOLD, world.blobs[HOLD]._replace(status=ABORTED))
                yield self.wrote(state, mine._replace(phase=DONE), after), "is done", ()
        elif world.exists & world.frames[chunk] & places[chunk]:
            read = mine._replace(got=mine.got | 1 << chunk)
            yield self.local(state, read), "reads {:chunks} from {:pack}", (1 << chunk, places[chunk])
        else:
            missed = mine._replace(phase=MISSED, missing=1 << chunk)
            yield self.local(state, missed), "misses {:chunks} at {:pack}", (1 << chunk, places[chunk])

    def read_forwards(self, state: State, world: World, mine: ReaderRecord) -> Iterator[Move]:
        place = world.blobs[mine.point].places[A if mine.missing & ONLY_A else B]
        tried = reach(world.gc, place) if self.rules.fwd_read else place
        if tried == mine.tried:
            yield self.local(state, mine._replace(phase=FAILED)), "FAILS to read {:chunks}", (mine.missing,)
        else:
            forwarded = mine._replace(phase=FORWARDED, tried=tried)
            yield self.local(state, forwarded), "reads forwards {:packs}", (tried,)

    def read_forwarded(self, state: State, world: World, mine: ReaderRecord) -> Iterator[Move]:
        chunk = A if mine.missing & ONLY_A else B
        if world.exists & world.frames[chunk] & mine.tried:
            read = mine._replace(phase=READING, got=mine.got | mine.missing, tried=0, missing=0)
            yield self.local(state, read), "reads {:chunks} by forward", (mine.missing,)
        else:
            yield self.local(state, mine._replace(phase=MISSED)), "misses {:chunks} again", (mine.missing,)
