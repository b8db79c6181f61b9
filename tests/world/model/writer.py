# SPDX-License-Identifier: Apache-2.0
"""A backup at work: dedupe, packs, acknowledgements (I14), checkpoints (I13), commit (I1).

A writer that lost its lease learns so only when it next writes the blob; until then it goes on, as a zombie would, and
may still put its pack.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tests.world.model.opening import DONE, WORKING, Opening, Polled, WriterRecord
from tests.world.model.process import Move
from tests.world.model.rules import Rules
from tests.world.model.scenarios import Scenario
from tests.world.model.state import (
    ABORTED,
    COMMITTED,
    MEMBERS,
    NOBODY,
    ONLY_A,
    OPEN,
    A,
    State,
    World,
    at,
    with_blob,
    with_pack,
)


class Writer(Opening):
    """A session from its opening to its commit."""

    def __init__(self, name: str, slot: int, scenario: Scenario, rules: Rules) -> None:
        super().__init__(name, slot, scenario, rules)
        self.wanted = tuple(chunk for chunk in (0, 1) if scenario.wanted >> chunk & 1)
        self.steps[WORKING] = self.work

    def work(self, state: State, world: World, mine: WriterRecord) -> Iterator[Move]:
        """Everything that a session at work may do next."""
        flushed = mine.uploaded or not mine.buffer
        missing = [chunk for chunk in self.wanted if not mine.places[chunk]]
        for chunk in missing:
            yield from self.place(state, world, mine, chunk)
        if not flushed:
            after = with_pack(world, self.pack, mine.buffer)
            put = mine._replace(uploaded=True)
            yield self.wrote(state, put, after), "puts pack {:pack}={:chunks}", (self.pack, mine.buffer)
        if mine.polled:
            yield self.acknowledge(state, world, mine, mine.polled, flushed)
        else:
            if world.gc.generation > mine.seen:
                yield self.poll(state, world, mine)
            if flushed and self.session in self.scenario.checkpoints:
                yield from self.checkpoint(state, world, mine)
        if flushed and not missing:
            yield self.commit(state, world, mine)

    def place(self, state: State, world: World, mine: WriterRecord, chunk: int) -> Iterator[Move]:
        """Find a place for a chunk: the parent's if it has one, else one that the index knows, else a new one."""
        if chunk == A and mine.parent_place:
            quarantined = self.scenario.damaged and not world.frames[A] & mine.parent_place
            if not quarantined:
                used = mine.used if self.scenario.literal else mine.used | mine.parent_place
                inherited = mine._replace(places=at(mine.places, A, mine.parent_place), used=used)
                yield self.local(state, inherited), "inherits A from its parent: {:pack}", (mine.parent_place,)
                return
        found = mine.view & ~mine.absent & world.frames[chunk]
        for pack in MEMBERS[found]:
            deduped = mine._replace(places=at(mine.places, chunk, pack), used=mine.used | pack)
            yield self.local(state, deduped), "dedupes {:chunks} against {:pack}", (1 << chunk, pack)
        if not found and not mine.uploaded:
            packed = mine._replace(
                places=at(mine.places, chunk, self.pack), used=mine.used | self.pack, buffer=mine.buffer | 1 << chunk
            )
            yield self.local(state, packed), "packs {:chunks} as new", (1 << chunk,)

    def poll(self, state: State, world: World, mine: WriterRecord) -> Move:
        """I14: condemned packs leave the dedupe view before the list of used packs is taken."""
        away = self.not_for_dedupe(world)
        absent = mine.absent | away if self.rules.absent_grows else away
        polled = mine._replace(polled=Polled(world.gc.generation, absent, mine.used, away))
        if self.rules.switch_before_ack:
            polled = polled._replace(absent=absent)
        return self.local(state, polled), "polls gc/state gen={} absent={:packs}", (world.gc.generation, absent)

    def acknowledge(self, state: State, world: World, mine: WriterRecord, polled: Polled, flushed: bool) -> Move:
        if not self.holds(world):
            return self.fenced(state, mine, "is fenced at an acknowledgement")
        blob = world.blobs[self.session]
        used = mine.used if self.rules.switch_before_ack else polled.used
        used = used | blob.used if self.rules.used_complete else used & polled.condemned
        written = blob._replace(
            seen=polled.generation,
            parent=mine.parent,
            used=used,
            places=mine.places if flushed else blob.places,
            run=blob.run | (self.pack if mine.uploaded else 0),
        )
        acknowledged = mine._replace(seen=polled.generation, polled=None)
        if not self.rules.switch_before_ack:
            acknowledged = acknowledged._replace(absent=polled.absent)
        after = with_blob(world, self.session, written)
        return self.wrote(state, acknowledged, after), "acknowledges gen={} used={:packs}", (polled.generation, used)

    def checkpoint(self, state: State, world: World, mine: WriterRecord) -> Iterable[Move]:
        blob = world.blobs[self.session]
        used = blob.used | mine.used if self.rules.used_complete else blob.used
        run = blob.run | (self.pack if mine.uploaded else 0)
        written = blob._replace(parent=mine.parent, used=used, places=mine.places, run=run)
        if self.holds(world):
            if written == blob:
                return
            after = with_blob(world, self.session, written)
            yield self.wrote(state, mine, after), "checkpoints {:map}", (mine.places,)
        else:
            yield self.fenced(state, mine, "is fenced at a checkpoint")

    def commit(self, state: State, world: World, mine: WriterRecord) -> Move:
        """I1: only this write makes the point exist."""
        blob = world.blobs[self.session]
        obeyed = not self.rules.fenced_commit and blob.status in (OPEN, ABORTED)
        if not self.holds(world) and not obeyed:
            return self.fenced(state, mine, "is fenced at its commit")
        a, b = mine.places
        run = blob.run | (self.pack if mine.uploaded else 0)
        summary = a | b if self.scenario.literal else a | b | mine.used | blob.used
        point = blob._replace(
            status=COMMITTED, holder=NOBODY, parent=mine.parent, used=summary, places=mine.places, run=run
        )
        after = with_blob(world, self.session, point)
        if self.scenario.damaged and self.scenario.read_by_index and mine.uploaded and mine.buffer & ONLY_A:
            after = after._replace(healed=True)
        return (
            self.wrote(state, mine._replace(phase=DONE), after),
            "COMMITS {:blob} {:map}",
            (self.session, mine.places),
        )
