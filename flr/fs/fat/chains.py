# SPDX-License-Identifier: Apache-2.0
"""The file allocation table, and the chains of clusters that it makes: where a file's bytes are.

A chain is followed no further than its file's size wants, and never more often than the volume has clusters; one that comes back
to itself is found by its pieces lying over each other. Entries are read in blocks, of which a few are kept. Format: FAT
specification, "FAT data structure"; exFAT specification, 4.1.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from itertools import pairwise
from typing import NamedTuple

from flr.blocks import Extent, Hole, Segment, Volume
from flr.errors import Corrupt, TooMuch
from flr.fs.fat.boot import Geometry

BLOCK = 96 << 10
"""Of the table; entries of 12, 16 and 32 bits fit into it without a rest."""
BLOCKS_KEPT = 64
MOST_PIECES = 1 << 20
LAST = {12: 0xFF8, 16: 0xFFF8, 32: 0x0FFFFFF8}
"""From here on an entry ends a chain; what exFAT writes for it is above as well."""


class Piece(NamedTuple):
    """`length` bytes of a file from its byte `first` on, at byte `at` of the volume."""

    first: int
    length: int
    at: int


class Chains:
    def __init__(self, volume: Volume, geometry: Geometry) -> None:
        self._volume = volume
        self._geometry = geometry
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._last = LAST[geometry.bits]

    def at(self, cluster: int) -> int:
        """Where a cluster begins. Corrupt when there is no such cluster."""
        if not 2 <= cluster < self._geometry.clusters + 2:
            raise Corrupt("a chain leads to a cluster that does not exist", f"cluster {cluster}")
        return self._geometry.heap + (cluster - 2) * self._geometry.cluster

    def cluster(self, at: int) -> int:
        """The cluster that has that byte of the volume; below 2: none."""
        return (at - self._geometry.heap) // self._geometry.cluster + 2

    def _block(self, number: int) -> bytes:
        kept = self._blocks.get(number)
        if kept is not None:
            return kept
        at = number * BLOCK
        data = self._volume.pread(self._geometry.table + at, min(BLOCK, self._geometry.table_size - at))
        self._blocks[number] = data
        if len(self._blocks) > BLOCKS_KEPT:
            self._blocks.popitem(last=False)
        return data

    def entry(self, cluster: int) -> int:
        """What the table says of a cluster: the next one, or at least LAST. Bits that are reserved are left out."""
        bits = self._geometry.bits
        block, at = divmod(cluster * bits // 4, BLOCK * 2)  # in half bytes
        data = self._block(block)
        if bits == 32:
            value = int.from_bytes(data[at // 2 : at // 2 + 4], "little")
            return value if self._geometry.kind == "exfat" else value & 0x0FFFFFFF
        word = int.from_bytes(data[at // 2 : at // 2 + 2], "little")
        return word if bits == 16 else word >> 4 if at & 1 else word & 0xFFF

    def follow(self, first: int, size: int, what: str) -> tuple[list[Piece], Corrupt | None]:
        """The pieces of a chain for the first `size` bytes of a file, less when the chain ends before; and what is wrong with it
        behind them. TooMuch."""
        cluster_size, clusters = self._geometry.cluster, self._geometry.clusters
        wanted = min(-(-size // cluster_size), clusters)
        pieces: list[Piece] = []
        problem: Corrupt | None = None
        cluster, taken = first, 0
        while taken < wanted:
            try:
                at = self.at(cluster)
            except Corrupt as found:
                problem = Corrupt(found.what, f"{what}: {found.value}")
                break
            count = 1
            following = self.entry(cluster)
            while following == cluster + 1 and taken + count < wanted and following < clusters + 2:
                cluster = following
                count += 1
                following = self.entry(cluster)
            pieces.append(Piece(taken * cluster_size, count * cluster_size, at))
            taken += count
            if following >= self._last:
                break
            if len(pieces) > MOST_PIECES:
                raise TooMuch("a file is in more pieces than can be kept", f"{what}: {len(pieces)}")
            cluster = following
        once = _once(pieces)
        if once < len(pieces):
            at = pieces[once].at
            return pieces[:once], Corrupt(
                "a chain of clusters leads in a circle", f"{what}: at byte {at} of the volume"
            )
        return pieces, problem

    def contiguous(self, first: int, size: int) -> list[Piece]:
        """exFAT's files without a chain. Corrupt when they do not fit into the volume."""
        if size <= 0:
            return []
        at = self.at(first)
        self.at(first + (size - 1) // self._geometry.cluster)
        return [Piece(0, size, at)]


def _once(pieces: list[Piece]) -> int:
    """How many pieces lie beside those before them, and not over one."""
    ordered = sorted(pieces, key=lambda piece: piece.at)
    if all(one.at + one.length <= two.at for one, two in pairwise(ordered)):
        return len(pieces)
    seen: list[tuple[int, int]] = []
    for number, piece in enumerate(pieces):
        index = bisect_right(seen, (piece.at, 1 << 63))
        if (index and sum(seen[index - 1]) > piece.at) or (
            index < len(seen) and seen[index][0] < piece.at + piece.length
        ):
            return number
        seen.insert(index, (piece.at, piece.length))
    return len(pieces)


def place(pieces: list[Piece], offset: int) -> int:
    """The byte of the volume where byte `offset` stands; it must be one of the pieces'."""
    piece = pieces[bisect_right(pieces, (offset, 1 << 63, 0)) - 1]
    return piece.at + offset - piece.first


def segments(
    pieces: list[Piece], offset: int, length: int, size: int, valid: int, most: int, what: str
) -> list[Segment]:
    """At most `most` and one, of a file of `size` bytes of which those from `valid` on are zeros. Corrupt when its chain is too
    short for the first of them."""
    end = min(offset + length, size)
    stored = min(end, valid)
    made: list[Segment] = []
    index = max(bisect_right(pieces, (offset, 1 << 63, 0)) - 1, 0)
    while offset < stored and len(made) < most:
        if index == len(pieces) or offset >= pieces[index].first + pieces[index].length:
            if made:
                return made
            raise Corrupt("a file is longer than its chain of clusters", f"{what}: {size} bytes, found {offset}")
        piece = pieces[index]
        within = offset - piece.first
        count = min(piece.length - within, stored - offset)
        made.append(Extent(0, piece.at + within, count))
        offset += count
        index += 1
    if stored <= offset < end:
        made.append(Hole(end - offset))
    return made
