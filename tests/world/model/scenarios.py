# SPDX-License-Identifier: Apache-2.0
"""Who plays, and what may happen: each scenario is as large as a whole search allows, and no larger.

The names of processes: W1 and W2 write the sessions S1 and S2, W3 adopts S1, W4 runs the job of S1 once more after its
point was deleted, CA and CB are two collectors (the one that lost gc/state is a zombie), R reads with a hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tests.world.model.state import (
    ABSENT,
    BIT,
    BOTH,
    COMMITTED,
    HOLD,
    NO_POINT,
    OLD,
    ONLY_A,
    ONLY_B,
    P0,
    P1,
    S1,
    S2,
    SPARE,
    Blob,
    ChunkSet,
    GcState,
    PointSet,
    World,
)

SESSION = {"W1": S1, "W2": S2, "W3": S1, "W4": S1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """The cast, the repository that it finds, and the liberties that it may take."""

    processes: tuple[str, ...]
    # The repository to begin with: P0 is chunks A and B in the pack `p0`, P1 is chunk A alone, in the same pack.
    has_p0: bool = True
    has_p1: bool = False
    spare: ChunkSet = (
        ONLY_B  # chunks in the pack `o`, which no point uses but the index knows; 0: there is no such pack
    )
    damaged: bool = False  # the frame of A in `p0` is rotten and stands in the quarantine
    old_in_run: bool = False  # index entries of `p0` stand in the run that P1's blob names and not yet in the catalog
    # Writers and readers.
    parents: Mapping[int, tuple[int, ...]] = field(default_factory=dict)  # a session's possible parents
    wanted: ChunkSet = BOTH  # what a session backs up
    checkpoints: tuple[int, ...] = ()  # sessions that may checkpoint
    reads: tuple[int, ...] = ()  # points that the reader may read
    # Collectors.
    expire: tuple[PointSet, ...] = ()  # sets of points that a plan may expire
    runs: Mapping[str, int] = field(default_factory=dict)  # rounds that a collector makes; one where nothing is said
    may_abort: bool = False  # a collector may abort a lapsed session (grace is over)
    may_ack_for: bool = False  # a collector may take a lapsed session over and acknowledge in its place
    may_abort_hold: bool = False
    compaction: bool = False
    condemn_all: bool = False  # plans condemn all that exists, live or not: whatever the verdict does not acquit dies
    # A reader that misses a place may find the chunk by the index as well (only to show what healing adds).
    read_by_index: bool = False
    # The letter of the rules and of the format where the other scenarios are simpler: a point's summary is what its map
    # reaches and no more; a session lists what it took from the index, for what it took from its parent is known by the
    # parent; a point that gc/state calls gone is not a kept one; runs of aborted sessions count until they are folded;
    # and what is folded is what gc/state said when it was read.
    literal: bool = False

    def present(self) -> tuple[int, ...]:
        """The blobs that exist or may come to exist."""
        there = {P0} if self.has_p0 else set()
        if self.has_p1:
            there.add(P1)
        there.update(SESSION[name] for name in self.processes if name in SESSION)
        if "R" in self.processes:
            there.add(HOLD)
        return tuple(sorted(there))

    def world(self) -> World:
        """The store before anybody moved."""
        p0 = Blob(COMMITTED, used=OLD, places=(OLD, OLD)) if self.has_p0 else Blob(ABSENT)
        p1 = Blob(COMMITTED, used=OLD, places=(OLD, 0), run=OLD * self.old_in_run) if self.has_p1 else Blob(ABSENT)
        spare = SPARE if self.spare else 0
        return World(
            exists=OLD | spare,
            frames=(
                (0 if self.damaged else OLD) | (spare if self.spare & ONLY_A else 0),
                OLD | (spare if self.spare & ONLY_B else 0),
            ),
            blobs=(p0, p1, Blob(), Blob(), Blob()),
            gc=GcState(catalog=spare | (0 if self.old_in_run else OLD)),
        )


NOTHING: PointSet = 0
ALONE = (NO_POINT,)

SCENARIOS: Mapping[str, Scenario] = {
    # A writer may reuse the unreferenced pack; of two collectors the first may become a zombie.
    "race": Scenario(
        processes=("W1", "CA", "CB"),
        parents={S1: ALONE},
        expire=(NOTHING, BIT[P0]),
        may_abort=True,
        runs={"CA": 2},
    ),
    "race2": Scenario(
        processes=("W1", "W2", "CA", "CB"),
        parents={S1: ALONE, S2: ALONE},
        expire=(NOTHING,),
        wanted=ONLY_B,
        has_p0=False,
    ),
    # An incremental whose parent expires under it.
    "parent": Scenario(
        processes=("W1", "CA", "CB"),
        parents={S1: (P0,)},
        expire=(NOTHING, BIT[P0]),
        may_abort=True,
        runs={"CA": 2},
    ),
    # S2 dedupes against S1's checkpoint; S1 lapses, is adopted by W3 or aborted.
    "adopt": Scenario(
        processes=("W1", "W2", "W3", "CA"),
        parents={S1: ALONE, S2: ALONE},
        expire=(NOTHING,),
        checkpoints=(S1,),
        may_abort=True,
        may_ack_for=True,
        wanted=ONLY_B,
        has_p0=False,
        spare=ONLY_A,
    ),
    # An incremental lapses while its parent is condemned; the collector acknowledges for it, W3 adopts it.
    "adopt2": Scenario(
        processes=("W1", "W3", "CA", "CB"),
        parents={S1: (P0,)},
        expire=(BIT[P0],),
        checkpoints=(S1,),
        may_ack_for=True,
        spare=0,
        wanted=ONLY_A,
    ),
    # The adopter goes on from a checkpoint whose pack is condemned.
    "adopt3": Scenario(
        processes=("W1", "W3", "CA", "CB"),
        parents={S1: ALONE},
        expire=(NOTHING,),
        checkpoints=(S1,),
        may_ack_for=True,
        may_abort=True,
        wanted=ONLY_B,
        has_p0=False,
    ),
    # `p0` is half dead once P0 goes: compaction beside a writer, a zombie collector, and a reader of P1.
    "compact": Scenario(
        processes=("W1", "CA", "CB"),
        parents={S1: (P1, NO_POINT)},
        expire=(BIT[P0], NOTHING),
        has_p1=True,
        compaction=True,
        spare=0,
        may_abort=True,
        runs={"CA": 2},
    ),
    "hold": Scenario(
        processes=("R", "CA", "CB"),
        reads=(P0, P1),
        expire=(BIT[P0], BIT[P1], NOTHING),
        has_p1=True,
        compaction=True,
        may_abort_hold=True,
        runs={"CA": 2},
    ),
    "compact3": Scenario(
        processes=("W1", "CA"),
        parents={S1: (P1, NO_POINT)},
        expire=(BIT[P0], NOTHING),
        has_p1=True,
        compaction=True,
        spare=0,
        runs={"CA": 3},
    ),
    # The frame of A in `p0` is rotten; S1 stores it again; then S1 expires.
    "heal": Scenario(
        processes=("W1", "W2", "CA"),
        parents={S1: (P1, NO_POINT), S2: (P1,)},
        expire=(BIT[S1], NOTHING),
        has_p0=False,
        has_p1=True,
        damaged=True,
        spare=0,
        runs={"CA": 2},
    ),
    # S2 dedupes against the checkpoint of S1, which is aborted.
    "orphan": Scenario(
        processes=("W1", "W2", "CA"),
        parents={S1: ALONE, S2: ALONE},
        expire=(NOTHING,),
        checkpoints=(S1,),
        may_abort=True,
        wanted=ONLY_B,
        has_p0=False,
        spare=ONLY_A,
        runs={"CA": 2},
    ),
    # The entries of `p0` stand in the run that P1's blob names; compaction; a session that opens afterwards.
    "fold": Scenario(
        processes=("W1", "CA"),
        parents={S1: (P1, NO_POINT)},
        expire=(BIT[P0],),
        has_p1=True,
        compaction=True,
        spare=0,
        runs={"CA": 2},
        old_in_run=True,
    ),
    # The expiring session's own run, and a later session with an old view.
    "stale": Scenario(
        processes=("W1", "W2", "CA"),
        parents={S1: ALONE, S2: ALONE},
        expire=(BIT[S1], NOTHING, BIT[P0]),
        spare=0,
        has_p0=False,
        runs={"CA": 2},
    ),
    "stale2": Scenario(
        processes=("W1", "W2", "CA"),
        parents={S1: ALONE, S2: ALONE},
        expire=(BIT[S1], NOTHING, BIT[P0]),
        has_p0=False,
        runs={"CA": 3},
    ),
}

# What the reference model left out, or took more simply than the rules' text.
SCENARIOS_OF_OURS: Mapping[str, Scenario] = {
    # S1's point expires and is deleted; its job is issued again, so W4 opens a session of that same name.
    "reissue": Scenario(
        processes=("W1", "W4", "CA", "CB"),
        parents={S1: ALONE},
        expire=(BIT[S1], NOTHING),
        wanted=ONLY_B,
        has_p0=False,
        spare=0,
        may_abort=True,
        literal=True,
    ),
    # Healing, where a reader may also look a missing chunk up in the index.
    "heal index": replace(SCENARIOS["heal"], may_abort=True, read_by_index=True),
    # An incremental whose parent is the point that goes, while the pack of both points is compacted.
    "fold parent": replace(SCENARIOS["fold"], parents={S1: (P0, P1, NO_POINT)}),
    "compact parent": replace(SCENARIOS["compact"], parents={S1: (P0, P1, NO_POINT)}),
    # Safety hangs on the verdict alone: collectors that condemn everything, whatever is live or open.
    "condemn all": replace(SCENARIOS["race2"], condemn_all=True),
    "condemn all, orphan": replace(SCENARIOS["orphan"], condemn_all=True),
    "condemn all, parent": replace(SCENARIOS["parent"], condemn_all=True),
    # The letter of the rules.
    "literal, orphan": replace(SCENARIOS["orphan"], literal=True),
    "literal, stale2": replace(SCENARIOS["stale2"], literal=True),
    "literal, compact": replace(SCENARIOS["compact"], parents={S1: (P0, P1, NO_POINT)}, literal=True),
    "literal, adopt2": replace(SCENARIOS["adopt2"], literal=True),
    "literal, parent": replace(SCENARIOS["parent"], literal=True),
}

# Everything at once: too large for a search, so it is walked at random.
EVERYTHING = Scenario(
    processes=("W1", "W2", "W3", "CA", "CB", "R"),
    parents={S1: (P0, P1, NO_POINT), S2: (P0, P1, NO_POINT)},
    reads=(P0, P1),
    expire=(NOTHING, BIT[P0], BIT[P1], BIT[P0] | BIT[P1], BIT[S1], BIT[S2]),
    has_p1=True,
    compaction=True,
    checkpoints=(S1, S2),
    may_abort=True,
    may_ack_for=True,
    may_abort_hold=True,
    runs={"CA": 3, "CB": 3},
)
