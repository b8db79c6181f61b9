# SPDX-License-Identifier: Apache-2.0
"""What a state consists of: the world (what the store holds) and one record a process (what it has in memory).

A state is a plain tuple `(world, record, record, ...)`, the records in the order of the scenario's processes. All of it
is immutable, hashable and cheap to hash: this is the inner loop of a search over millions of states. Sets of packs, of
points and of chunks are therefore integers used as bit sets. A pack *is* its one-bit set; a blob is a number, for it is
looked up by it, and `BIT[number]` is its one-bit set.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, TypeAlias

PackSet: TypeAlias = int
PointSet: TypeAlias = int
ChunkSet: TypeAlias = int
Places: TypeAlias = tuple[PackSet, PackSet]  # the pack that holds chunk A, the pack that holds chunk B; 0 where none
State: TypeAlias = tuple[Any, ...]

# Packs: one that committed points use, one that only the index knows, each writer's own, each collector's copy.
OLD: Final = 1
SPARE: Final = 2
NEW1: Final = 4
NEW2: Final = 8
NEW3: Final = 16
COPY1: Final = 32
COPY2: Final = 64
PACKS: Final = {OLD: "p0", SPARE: "o", NEW1: "w1", NEW2: "w2", NEW3: "w3", COPY1: "y1", COPY2: "y2"}

# Chunks: numbers, to look a place up by; and their sets.
A: Final = 0
B: Final = 1
CHUNKS: Final = {1 << A: "A", 1 << B: "B"}
ONLY_A: Final = 1 << A
ONLY_B: Final = 1 << B
BOTH: Final = ONLY_A | ONLY_B

# Blobs: two committed points, two sessions that become points, a reader's hold.
P0: Final = 0
P1: Final = 1
S1: Final = 2
S2: Final = 3
HOLD: Final = 4
NO_POINT: Final = 5
BIT: Final = (1, 2, 4, 8, 16, 0)
POINTS: Final = (P0, P1, S1, S2)
BLOBS: Final = ("P0", "P1", "S1", "S2", "H", "-")

ABSENT: Final = "absent"
OPEN: Final = "open"
COMMITTED: Final = "committed"
ABORTED: Final = "aborted"
DELETED: Final = "deleted"
NOBODY: Final = ""

# The packs of a set and the blobs of a set, smallest first.
MEMBERS: Final = tuple(tuple(pack for pack in PACKS if packs >> (pack.bit_length() - 1) & 1) for packs in range(128))
NUMBERS: Final = tuple(tuple(blob for blob in range(5) if blobs & BIT[blob]) for blobs in range(32))

# What lies under a session's prefix: its writer's pack, and its adopter's.
PREFIX: Final = (0, 0, NEW1 | NEW3, NEW2, 0)


class Blob(NamedTuple):
    """A point blob, which is a session until it is committed, or a hold."""

    status: str = ABSENT
    holder: str = NOBODY  # the process that holds the lease, as far as the store is concerned
    seen: int = 0  # the generation last acknowledged; 0: none ever
    parent: int = NO_POINT  # a hold: its point
    used: PackSet = 0  # a session: all packs that it refers to so far; a point: its pack summary
    places: Places = (0, 0)  # the map: of the last checkpoint, or of the point
    run: PackSet = 0  # packs that the index runs named by this blob speak of
    again: bool = False  # created under a name that had been deleted, so another blob, with another ETag


class GcState(NamedTuple):
    """gc/state, the one blob that decides death."""

    holder: str = NOBODY
    generation: int = 1
    condemned: PackSet = 0
    compacting: PackSet = 0  # condemned too, but to be copied and not to be dropped
    condemned_points: PointSet = 0
    gone: PackSet = 0
    gone_points: PointSet = 0
    forwards: PackSet = 0  # of OLD: the only pack that is ever compacted or healed here
    catalog: PackSet = 0  # packs that the catalog's runs speak of
    folded: PointSet = 0  # sessions whose runs the catalog has taken in


class World(NamedTuple):
    """The store, and what only the property needs: which points were rightly expired, whether damage is healed."""

    exists: PackSet
    frames: tuple[PackSet, PackSet]  # packs that hold (or held) chunk A; likewise chunk B
    blobs: tuple[Blob, ...]
    gc: GcState
    expired: PointSet = 0
    healed: bool = False


def at(items: tuple[Any, ...], index: int, item: Any) -> tuple[Any, ...]:
    """`items` with `item` at `index`."""
    return (*items[:index], item, *items[index + 1 :])


def reach(gc: GcState, packs: PackSet) -> PackSet:
    """`packs` and the packs that forwards lead to from there."""
    return packs | gc.forwards if packs & OLD else packs


def contents(world: World, pack: PackSet) -> ChunkSet:
    """The chunks whose frames are in `pack`."""
    return (ONLY_A if world.frames[A] & pack else 0) | (ONLY_B if world.frames[B] & pack else 0)


def with_pack(world: World, pack: PackSet, chunks: ChunkSet) -> World:
    """The world after `pack` was put with the frames of `chunks`."""
    a, b = world.frames
    frames = (a | pack if chunks & ONLY_A else a & ~pack, b | pack if chunks & ONLY_B else b & ~pack)
    return world._replace(exists=world.exists | pack, frames=frames)


def with_blob(world: World, number: int, blob: Blob) -> World:
    """The world after blob `number` was written."""
    return world._replace(blobs=at(world.blobs, number, blob))
