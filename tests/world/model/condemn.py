# SPDX-License-Identifier: Apache-2.0
"""How a collector condemns (I3a): it plans, then publishes the next generation, and with it forwards (I8).

A plan is one move, because nothing may hang on it: it is a proposal, and the verdict decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.world.model.opening import FENCED, IDLE
from tests.world.model.process import Move, Process
from tests.world.model.rules import Rules
from tests.world.model.scenarios import Scenario
from tests.world.model.state import (
    ABORTED,
    BIT,
    COMMITTED,
    COPY1,
    COPY2,
    DELETED,
    HOLD,
    NUMBERS,
    OLD,
    ONLY_A,
    ONLY_B,
    OPEN,
    POINTS,
    PREFIX,
    S1,
    S2,
    A,
    B,
    ChunkSet,
    PackSet,
    PointSet,
    State,
    World,
    contents,
    reach,
    with_blob,
    with_pack,
)

# Phases; the first is the writer's IDLE, the last its FENCED.
DELETING_POINTS = "deleting points"  # only while condemn_points is off
PLANNED = "planned"
READING = "reading"
JUDGING = "judging"
COPYING = "copying"
FORWARDING = "forwarding"
DELETING = "deleting"


class CollectorRecord(NamedTuple):
    """What a collector has in memory."""

    phase: str = IDLE
    generation: int = 0  # that it published
    condemned: PackSet = 0
    compacting: PackSet = 0
    expire: PointSet = 0
    next: int = 0  # the blob to read next
    used: PackSet = 0  # what open sessions listed, and what lies under their prefixes
    named: PointSet = 0  # what open sessions and holds named as parents
    committed: PointSet = 0
    doomed: PackSet = 0  # what the verdict called gone
    runs: int = 0


class Condemning(Process):
    """CA or CB. CB begins after CA has begun: they are alike, so that loses nothing."""

    record = CollectorRecord

    def __init__(self, name: str, slot: int, scenario: Scenario, rules: Rules) -> None:
        super().__init__(name, slot, scenario, rules)
        self.copy = COPY1 if name == "CA" else COPY2
        self.rounds = scenario.runs.get(name, 1)
        self.elder = scenario.processes.index("CA") + 1 if name == "CB" else None
        self.first = scenario.present()[0]
        self.steps = {
            IDLE: self.plan,
            DELETING_POINTS: self.delete_points_unasked,
            PLANNED: self.publish,
        }

    # What it is that the rules count.

    def reached(self, world: World, points: PointSet, used: PackSet) -> PackSet:
        """Packs that the summaries of `points` reach, and `used`, forwards included."""
        for number in NUMBERS[points]:
            used |= world.blobs[number].used
        return reach(world.gc, used) if self.rules.fwd_live else used

    def gone_points(self, world: World) -> PointSet:
        """Points that gc/state calls gone. Another blob that lives under such a name by now is not one of them."""
        reborn = BIT[S1] if world.blobs[S1].again and self.rules.gone_is_this_one else 0
        return world.gc.gone_points & ~reborn

    @staticmethod
    def frames_in_old(world: World, points: PointSet) -> ChunkSet:
        """The chunks that the maps of `points` reach in the pack to be compacted."""
        chunks = 0
        for number in NUMBERS[points]:
            places = world.blobs[number].places
            chunks |= (ONLY_A if places[A] == OLD else 0) | (ONLY_B if places[B] == OLD else 0)
        return chunks

    def fenced(self, state: State, mine: CollectorRecord, what: str) -> Move:
        """A conditional write of gc/state by one who lost it: the run ends here."""
        return self.local(state, mine._replace(phase=FENCED)), what, ()

    def write_gc(self, state: State, mine: CollectorRecord, world: World, **fields: Any) -> State:
        return self.wrote(state, mine, world._replace(gc=world.gc._replace(**fields)))

    # (a) Plan, then publish.

    def plan(self, state: State, world: World, mine: CollectorRecord) -> Iterator[Move]:
        """Take gc/state over, read everything, and think of something to condemn."""
        if mine.runs >= self.rounds:
            return
        if self.elder is not None and state[self.elder].phase == IDLE and state[self.elder].runs == 0:
            return
        rules, blobs = self.rules, world.blobs
        world = world._replace(gc=world.gc._replace(holder=self.name))
        gc = world.gc
        committed = sum(BIT[number] for number in POINTS if blobs[number].status == COMMITTED)
        committed &= ~self.gone_points(world)
        mortal = committed & ~BIT[S1] if blobs[S1].again else committed  # the second of a name is never expired here
        used = named = prefixes = 0
        for number in (S1, S2, HOLD):
            if blobs[number].status == OPEN:
                used |= blobs[number].used
                named |= BIT[blobs[number].parent]
                prefixes |= PREFIX[number]
        if not rules.orphan_path:
            yield from self.delete_orphans(state, world, mine, self.reached(world, committed, used | prefixes))
        for wish in self.scenario.expire:
            expire = wish & mortal
            if not rules.condemn_points:
                expire &= ~named
            kept = committed & ~expire
            live = self.reached(world, kept | (named if rules.pins_parent else 0), used | prefixes)
            condemned = world.exists & ~gc.gone
            if not self.scenario.condemn_all:
                condemned &= ~live & ~prefixes
            compacting = 0
            if self.scenario.compaction and world.exists & live & ~gc.gone & OLD:
                needed = self.frames_in_old(world, kept)
                if needed and needed != contents(world, OLD):
                    compacting = OLD
            if condemned or compacting or expire:
                planned = CollectorRecord(
                    PLANNED if rules.condemn_points or not expire else DELETING_POINTS,
                    condemned=condemned,
                    compacting=compacting,
                    expire=expire,
                    next=self.first,
                    runs=mine.runs,
                )
                details = (expire, condemned, compacting)
                yield (
                    self.wrote(state, planned, world),
                    "plans: expire {:points} condemn {:packs} compact {:packs}",
                    details,
                )

    def delete_orphans(self, state: State, world: World, mine: CollectorRecord, live: PackSet) -> Iterator[Move]:
        for number in (S1, S2):
            orphans = PREFIX[number] & world.exists & ~live
            if orphans and world.blobs[number].status == ABORTED:
                after = world._replace(exists=world.exists & ~orphans)
                done = mine._replace(runs=mine.runs + 1)
                yield self.wrote(state, done, after), "deletes orphans {:packs} at once", (orphans,)

    def delete_points_unasked(self, state: State, world: World, mine: CollectorRecord) -> Iterator[Move]:
        after = world._replace(expired=world.expired | mine.expire)
        for number in NUMBERS[mine.expire]:
            after = with_blob(after, number, after.blobs[number]._replace(status=DELETED))
        yield self.wrote(state, mine._replace(phase=PLANNED), after), "deletes points {:points}", (mine.expire,)

    def publish(self, state: State, world: World, mine: CollectorRecord) -> Iterator[Move]:
        """Generation G+1, and with it the forwards of quarantined places (I8)."""
        rules, gc = self.rules, world.gc
        if gc.holder != self.name:
            yield self.fenced(state, mine, "is fenced when it publishes")
            return
        if self.scenario.damaged and rules.heal_fwd:
            other = 0
            for blob in world.blobs:
                if blob.status == COMMITTED:
                    other |= blob.places[A] & world.exists & world.frames[A] & ~OLD
            if other:
                world = world._replace(healed=True, gc=gc._replace(forwards=gc.forwards | other))
        if mine.compacting and not rules.copy_after_freeze:
            committed = sum(BIT[number] for number in POINTS if world.blobs[number].status == COMMITTED)
            world = with_pack(world, self.copy, self.frames_in_old(world, committed & ~mine.expire))
        after = self.write_gc(
            state,
            mine._replace(phase=READING, generation=gc.generation + 1),
            world,
            generation=gc.generation + 1,
            condemned=mine.condemned,
            compacting=mine.compacting,
            condemned_points=mine.expire if rules.condemn_points else 0,
        )
        details = (gc.generation + 1, mine.condemned | mine.compacting, mine.expire)
        yield after, "publishes gen={} condemned packs {:packs} points {:points}", details
