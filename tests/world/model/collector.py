# SPDX-License-Identifier: Apache-2.0
"""The collector after it condemned: read everything, judge, copy and forward, delete, fold (I2 to I5, I15).

Laxer than the rules ask: deletions follow the verdict in the same run, and nobody marks once more before them.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.world.model.condemn import COPYING, DELETING, FORWARDING, JUDGING, READING, CollectorRecord, Condemning
from tests.world.model.opening import DONE, FENCED, IDLE
from tests.world.model.process import Move
from tests.world.model.rules import Rules
from tests.world.model.scenarios import Scenario
from tests.world.model.state import (
    ABORTED,
    ABSENT,
    BIT,
    COMMITTED,
    DELETED,
    HOLD,
    MEMBERS,
    NOBODY,
    NUMBERS,
    OLD,
    OPEN,
    PREFIX,
    S1,
    Blob,
    State,
    World,
    contents,
    with_blob,
    with_pack,
)

END = 5  # of the blobs: everything has been read


class Collector(Condemning):
    """A run from its plan to its end."""

    def __init__(self, name: str, slot: int, scenario: Scenario, rules: Rules) -> None:
        super().__init__(name, slot, scenario, rules)
        self.adopted = scenario.processes.index("W1") + 1 if "W3" in scenario.processes else None
        present = scenario.present()
        self.after = dict(zip(present, (*present[1:], END), strict=True))
        self.steps |= {
            READING: self.read,
            JUDGING: self.judge,
            COPYING: self.copy_frames,
            FORWARDING: self.forward,
            DELETING: self.delete,
        }

    # (b) Read every blob, one request each, until every open session has acknowledged or ended.

    def read(self, state: State, world: World, mine: CollectorRecord) -> Iterator[Move]:
        number = mine.next
        blob = world.blobs[number]
        following = self.after[number]
        onward = mine._replace(phase=JUDGING if following == END else READING, next=following)
        if blob.status == OPEN:
            yield from self.read_open(state, world, onward, number)
        elif blob.status == COMMITTED:
            onward = onward._replace(committed=mine.committed | BIT[number])
            yield self.local(state, onward), "reads {:blob} committed", (number,)
        else:
            yield self.local(state, onward), "reads {:blob} " + blob.status, (number,)

    def read_open(self, state: State, world: World, onward: CollectorRecord, number: int) -> Iterator[Move]:
        """An open session or hold: it has acknowledged, or it is waited for, or (its lease lapsed) taken over."""
        rules, scenario = self.rules, self.scenario
        blob: Blob = world.blobs[number]
        named = onward.named | (BIT[blob.parent] if rules.pins_parent else 0)
        listed = onward.used | blob.used | PREFIX[number]
        if blob.seen >= onward.generation:
            counted = onward._replace(used=listed if rules.second_mark else onward.used, named=named)
            yield self.local(state, counted), "reads {:blob} open seen={}", (number, blob.seen)
        elif not rules.lapsed_counts:
            yield self.local(state, onward), "skips {:blob}: its lease has lapsed", (number,)
        if blob.seen < onward.generation and scenario.may_ack_for and (blob.seen or not rules.ack_after_own):
            taken = with_blob(world, number, blob._replace(holder=NOBODY, seen=onward.generation))
            after = self.fence_writer(self.wrote(state, onward._replace(used=listed, named=named), taken), number)
            details = (onward.generation, number, blob.used)
            yield after, "acknowledges gen={} for lapsed {:blob} used={:packs}", details
        # Grace is over, or it never acknowledged itself: nobody may acknowledge for it then (I4).
        aborts = scenario.may_abort or (scenario.may_ack_for and not blob.seen)
        if scenario.may_abort_hold if number == HOLD else aborts:
            aborted = with_blob(world, number, blob._replace(status=ABORTED))
            yield self.wrote(state, onward, aborted), "fences and aborts lapsed {:blob}", (number,)

    def fence_writer(self, state: State, number: int) -> State:
        """Where S1 may be adopted afterwards, W1 notices at once: its later moves would only make the search longer."""
        if number != S1 or self.adopted is None:
            return state
        writer = state[self.adopted]
        if writer.phase in (IDLE, DONE):
            return state
        return (*state[: self.adopted], writer._replace(phase=FENCED), *state[self.adopted + 1 :])

    # (c) The verdict.

    def judge(self, state: State, world: World, mine: CollectorRecord) -> Iterator[Move]:
        rules, gc = self.rules, world.gc
        expire = mine.expire & ~mine.named
        live = 0
        if rules.second_mark:
            kept = mine.committed & ~expire
            if self.scenario.literal:
                kept &= ~self.gone_points(world)
            live = self.reached(world, kept, mine.used)
        doomed = mine.condemned & ~live
        compacting = 0 if rules.comp_acquit and mine.used & mine.compacting else mine.compacting
        if rules.verdict_fenced:
            if gc.holder != self.name:
                yield self.fenced(state, mine, "is fenced at its verdict")
                return
            gc = gc._replace(
                condemned=0,
                compacting=compacting,
                condemned_points=0,
                gone=gc.gone | doomed,
                gone_points=gc.gone_points | (expire if rules.condemn_points else 0),
            )
        judged = mine._replace(
            phase=COPYING if compacting else DELETING,
            compacting=compacting,
            expire=expire,
            next=0,
            committed=mine.committed & ~expire,
            doomed=doomed,
        )
        after = world._replace(gc=gc, expired=world.expired | (expire if rules.condemn_points else 0))
        yield self.wrote(state, judged, after), "VERDICT gone packs {:packs} points {:points}", (doomed, expire)

    # Compaction (I15).

    def copy_frames(self, state: State, world: World, mine: CollectorRecord) -> Iterator[Move]:
        if self.rules.copy_after_freeze:
            world = with_pack(world, self.copy, self.frames_in_old(world, mine.committed))
        details = (contents(world, self.copy), self.copy)
        yield (
            self.wrote(state, mine._replace(phase=FORWARDING), world),
            "copies live frames {:chunks} of p0 into {:pack}",
            details,
        )

    def forward(self, state: State, world: World, mine: CollectorRecord) -> Iterator[Move]:
        gc = world.gc
        if gc.holder != self.name:
            yield self.fenced(state, mine, "is fenced when it forwards")
            return
        after = self.write_gc(
            state,
            mine._replace(phase=DELETING, next=0, doomed=mine.doomed | OLD),
            world,
            forwards=gc.forwards | self.copy,
            gone=gc.gone | OLD,
            compacting=0,
            catalog=gc.catalog | self.copy,
        )
        yield after, "publishes forward p0->{:pack}", (self.copy,)

    # (d) Deletions, by one who may have lost gc/state long ago; then the folding of runs (I2).

    def delete(self, state: State, world: World, mine: CollectorRecord) -> Iterator[Move]:
        left = MEMBERS[mine.doomed & world.exists]
        if left:
            after = world._replace(exists=world.exists & ~left[0])
            yield self.wrote(state, mine, after), "deletes pack {:pack}", (left[0],)
            return
        for number in NUMBERS[mine.expire]:
            blob = world.blobs[number]
            if blob.status == COMMITTED and not (blob.again and self.rules.gone_is_this_one):
                after = with_blob(world, number, blob._replace(status=DELETED))
                yield self.wrote(state, mine, after), "deletes point {:blob}", (number,)
                return
        yield self.fold(state, world, mine)

    def fold(self, state: State, world: World, mine: CollectorRecord) -> Move:
        gc = world.gc
        if gc.holder != self.name:
            return self.fenced(state, mine, "is fenced when it folds")
        catalog, folded = gc.catalog, gc.folded
        if self.rules.fold_runs:
            for number, blob in enumerate(world.blobs):
                if blob.status in (ABSENT, OPEN):
                    continue
                if blob.status != DELETED and not folded & BIT[number]:
                    catalog |= blob.run
                folded |= BIT[number]
        after = self.write_gc(
            state,
            CollectorRecord(runs=mine.runs + 1),
            world,
            catalog=catalog & ~mine.doomed,
            folded=folded,
            gone=gc.gone & ~mine.doomed,
            gone_points=gc.gone_points & ~mine.expire,
        )
        return after, "folds runs, cleans gone of {:packs}", (mine.doomed,)
