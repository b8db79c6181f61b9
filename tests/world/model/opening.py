# SPDX-License-Identifier: Apache-2.0
"""How a session is opened (I14), by its writer or by the adopter who takes it over (I4), up to its first write."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tests.world.model.process import Move, Process
from tests.world.model.rules import Rules
from tests.world.model.scenarios import SESSION, Scenario
from tests.world.model.state import (
    ABORTED,
    ABSENT,
    BIT,
    COMMITTED,
    DELETED,
    NEW1,
    NEW2,
    NEW3,
    NO_POINT,
    NOBODY,
    OPEN,
    A,
    Blob,
    ChunkSet,
    PackSet,
    Places,
    PointSet,
    State,
    World,
    with_blob,
)

# Phases.
IDLE = "idle"
SAW_GC_FIRST = "saw gc first"  # only while blob_before_gc is off
CREATED = "created"
SAW_REST_FIRST = "saw rest first"  # only while gc_before_rest is off
SAW_GC = "saw gc"
READY = "ready"  # to acknowledge for the first time
WORKING = "working"
DONE = "done"
FENCED = "fenced"


class Polled(NamedTuple):
    """A newer gc/state that was read and not yet acknowledged."""

    generation: int
    absent: PackSet  # the dedupe view's absent packs from then on
    used: PackSet  # the packs used when it was read
    condemned: PackSet


class WriterRecord(NamedTuple):
    """What a writer has in memory."""

    phase: str = IDLE
    seen: int = 0
    absent: PackSet = 0  # packs taken out of the dedupe view
    view: PackSet = 0  # packs that the index spoke of when it was read
    parent: int = NO_POINT
    places: Places = (0, 0)  # the map so far
    used: PackSet = 0
    buffer: ChunkSet = 0  # chunks that its own pack consists of
    uploaded: bool = False
    polled: Polled | None = None
    parent_place: PackSet = 0  # where the parent has chunk A (chunk B is what changed since)
    folded: PointSet = 0  # sessions that the catalog had taken in when it was read (literal scenarios only)


OWN_PACK = {"W1": NEW1, "W2": NEW2, "W3": NEW3, "W4": NEW3}


class Opening(Process):
    """W1 and W2 open a session; W3, an adopter, goes on with S1 from its checkpoint; W4 opens S1 once more."""

    record = WriterRecord

    def __init__(self, name: str, slot: int, scenario: Scenario, rules: Rules) -> None:
        super().__init__(name, slot, scenario, rules)
        self.session = SESSION[name]
        self.pack = OWN_PACK[name]
        self.vacant = DELETED if name == "W4" else ABSENT
        self.steps = {
            IDLE: self.adopt if name == "W3" else self.create,
            SAW_GC_FIRST: self.create_late,
            CREATED: self.read_gc if rules.gc_before_rest else self.read_rest_first,
            SAW_REST_FIRST: self.read_gc,
            SAW_GC: self.read_rest,
            READY: self.acknowledge_first,
        }

    # What the store says about this session.

    def holds(self, world: World) -> bool:
        """Whether a write that names this writer's lease succeeds."""
        blob: Blob = world.blobs[self.session]
        return blob.status == OPEN and blob.holder == self.name

    def not_for_dedupe(self, world: World) -> PackSet:
        """Packs that gc/state takes out of the dedupe view."""
        gc = world.gc
        return gc.condemned | gc.compacting | (gc.gone if self.rules.gone_list else 0)

    @staticmethod
    def runs(world: World, folded: PointSet, statuses: tuple[str, ...] = (OPEN, COMMITTED)) -> PackSet:
        """Packs that the runs of sessions speak of that are not yet folded into the catalog."""
        packs = 0
        for number, blob in enumerate(world.blobs):
            if blob.run and blob.status in statuses and not folded & BIT[number]:
                packs |= blob.run
        return packs

    @staticmethod
    def read_parent(world: World, parent: int) -> tuple[int, PackSet]:
        """The parent and its place of chunk A, or none where the point is no more."""
        if parent == NO_POINT or world.blobs[parent].status != COMMITTED:
            return NO_POINT, 0
        return parent, world.blobs[parent].places[A]

    def fenced(self, state: State, mine: WriterRecord, what: str) -> Move:
        """A write that named a lost lease: final for this incarnation."""
        return self.local(state, mine._replace(phase=FENCED)), what, ()

    # Opening.

    def create(self, state: State, world: World, mine: WriterRecord) -> Iterator[Move]:
        """Put-if-absent of the session's blob, its name being that of the job."""
        if world.blobs[self.session].status != self.vacant:
            return
        for parent in self.scenario.parents.get(self.session, (NO_POINT,)):
            if parent != NO_POINT and world.blobs[parent].status != COMMITTED:
                continue
            if self.rules.blob_before_gc:
                session = Blob(OPEN, self.name, parent=parent, again=self.vacant == DELETED)
                after = with_blob(world, self.session, session)
                after = after._replace(expired=world.expired & ~BIT[self.session])
                opened = mine._replace(phase=CREATED, parent=parent)
                yield self.wrote(state, opened, after), "creates {:blob} parent={:blob}", (self.session, parent)
            else:
                gc = world.gc
                early = WriterRecord(SAW_GC_FIRST, gc.generation, self.not_for_dedupe(world), gc.catalog, parent)
                yield (
                    self.local(state, early),
                    "reads gc/state gen={} before creating {:blob}",
                    (gc.generation, self.session),
                )

    def create_late(self, state: State, world: World, mine: WriterRecord) -> Iterator[Move]:
        after = with_blob(world, self.session, Blob(OPEN, self.name, mine.seen, mine.parent))
        opened = mine._replace(phase=SAW_GC)
        yield (
            self.wrote(state, opened, after),
            "creates {:blob} parent={:blob} seen={}",
            (self.session, mine.parent, mine.seen),
        )

    def adopt(self, state: State, world: World, mine: WriterRecord) -> Iterator[Move]:
        """Take-over: lease, read and conditional write, one move because the lease shuts everybody else out."""
        blob = world.blobs[self.session]
        if blob.status == OPEN and blob.holder in ("W1", NOBODY):
            after = with_blob(world, self.session, blob._replace(holder=self.name))
            a, b = blob.places
            used = blob.used if self.scenario.literal else blob.used | a | b
            adopted = WriterRecord(CREATED, seen=blob.seen, parent=blob.parent, places=blob.places, used=used)
            details = (self.session, blob.places, blob.seen)
            yield self.wrote(state, adopted, after), "adopts {:blob} from checkpoint {:map} seen={}", details

    def read_gc(self, state: State, world: World, mine: WriterRecord) -> Iterator[Move]:
        gc = world.gc
        away = self.not_for_dedupe(world)
        parent = mine.parent
        if self.rules.drop_condemned_parent:
            never_acknowledged = world.blobs[self.session].seen == 0
            if BIT[parent] & (gc.gone_points | (gc.condemned_points if never_acknowledged else 0)):
                parent = NO_POINT
        read = mine._replace(seen=gc.generation, absent=mine.absent | away, parent=parent)
        if self.rules.gc_before_rest:
            folded = gc.folded if self.scenario.literal else 0
            read = read._replace(phase=SAW_GC, view=gc.catalog, parent_place=0, folded=folded)
        else:
            read = read._replace(phase=READY, parent_place=mine.parent_place if parent != NO_POINT else 0)
        yield (
            self.local(state, read),
            "reads gc/state gen={} absent={:packs} parent={:blob}",
            (gc.generation, away, parent),
        )

    def read_rest_first(self, state: State, world: World, mine: WriterRecord) -> Iterator[Move]:
        parent, place = self.read_parent(world, mine.parent)
        view = world.gc.catalog | self.runs(world, world.gc.folded)
        read = mine._replace(phase=SAW_REST_FIRST, view=view, parent=parent, parent_place=place)
        yield self.local(state, read), "reads parent {:blob} and index {:packs} before gc/state", (parent, view)

    def read_rest(self, state: State, world: World, mine: WriterRecord) -> Iterator[Move]:
        parent, place = self.read_parent(world, mine.parent)
        if self.scenario.literal:
            view = mine.view | self.runs(world, mine.folded, (OPEN, COMMITTED, ABORTED))
        else:
            view = mine.view | self.runs(world, world.gc.folded)
        read = mine._replace(phase=READY, view=view, parent=parent, parent_place=place, folded=0)
        yield self.local(state, read), "reads parent {:blob} and index {:packs}", (parent, view)

    def acknowledge_first(self, state: State, world: World, mine: WriterRecord) -> Iterator[Move]:
        if not self.holds(world):
            yield self.fenced(state, mine, "is fenced at its first acknowledgement")
            return
        blob = world.blobs[self.session]
        used = blob.used | (mine.used if self.rules.used_complete else 0)
        after = with_blob(world, self.session, blob._replace(seen=mine.seen, parent=mine.parent, used=used))
        working = mine._replace(phase=WORKING)
        yield self.wrote(state, working, after), "acknowledges gen={} parent={:blob}", (mine.seen, mine.parent)
