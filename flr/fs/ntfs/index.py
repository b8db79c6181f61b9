# SPDX-License-Identifier: Apache-2.0
"""The index of a folder's names: its root in the record, and the blocks of $INDEX_ALLOCATION that its bitmap says are in use.

The blocks are read in the order in which they stand, not down the tree: every name stands in exactly one of them, no pointer is
followed, so none can lead in a circle, and a damaged block takes nothing with it but its own names. Format: libyal's NTFS
documentation, "The index".
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from flr.blocks import Extent, Volume
from flr.errors import Corrupt, RecoveryError
from flr.fs.ntfs import content
from flr.fs.ntfs.boot import LARGEST_RECORD
from flr.fs.ntfs.mft import Mft
from flr.fs.ntfs.record import INDEX, INDEX_ROOT, NUMBER, Record, fixed

I30 = "$I30".encode("utf-16-le")
MOST_BLOCKS = 1 << 22
"""Of one folder: at 4 KiB each, some 100 million names."""
BLOCKS_A_CALL = 1024
"""That are looked at for one page, names or not."""
POSITION = 20
"""Bits of a cursor that are the position within a block, the root counting as block 0."""
DOS = 2
"""Name space: the short name that stands beside a long one."""
LAST = 2
# indexed attribute, collation, block size; then the node: first entry, bytes used
_ROOT = struct.Struct("<III")
_NODE = struct.Struct("<II")
ROOT_NODE, BLOCK_NODE = 16, 24
# reference, length, key length, flags
_ENTRY = struct.Struct("<QHHI")
ENTRY_HEAD, NAME_HEAD = 16, 66
# within the key: file attributes, reparse tag, characters, name space
_KEY = struct.Struct("<IIBB")


class Name(NamedTuple):
    """`name` is UTF-16. `attributes` and `tag` are what was copied here when the file was last closed by this name."""

    name: bytes
    number: int
    sequence: int
    space: int
    attributes: int
    tag: int
    cursor: int


def parse(data: bytes, node: int, start: int, base: int, what: str) -> tuple[list[Name], Corrupt | None]:
    """Names of one node, whose header stands at `node`, from byte `start` on (0: all); and what ended them early. `base` is added
    to each position to make its cursor."""
    first, used = _NODE.unpack_from(data, node)
    at, end = node + first, node + used
    if end > len(data):
        return [], Corrupt("an index node is larger than its block", f"{what}: {used} bytes")
    found: list[Name] = []
    entry, key = _ENTRY.unpack_from, _KEY.unpack_from
    while at + ENTRY_HEAD <= end:
        reference, length, key_length, flags = entry(data, at)
        if length < ENTRY_HEAD or at + length > end:
            return found, Corrupt("an index entry has an impossible length", f"{what} at {at}: {length} bytes")
        if flags & LAST:
            return found, None
        if at >= start:
            if key_length < NAME_HEAD or ENTRY_HEAD + key_length > length:
                return found, Corrupt("an index entry's name is cut", f"{what} at {at}")
            attributes, tag, characters, space = key(data, at + ENTRY_HEAD + 56)
            if NAME_HEAD + 2 * characters > key_length:
                return found, Corrupt("an index entry's name is cut", f"{what} at {at}")
            name_at = at + ENTRY_HEAD + NAME_HEAD
            found.append(
                Name(
                    data[name_at : name_at + 2 * characters], reference & NUMBER, reference >> 48, space, attributes, tag,
                    base + at + length,
                )
            )  # fmt: skip
        at += length
    return found, Corrupt("an index node has no end", what)


class Index:
    """Of one folder. Corrupt when there is none."""

    def __init__(
        self, volume: Volume, mft: Mft, record: Record, cluster: int, index_size: int, warn: Callable[[str], None]
    ) -> None:
        self._volume = volume
        self._cluster = cluster
        self._warn = warn
        self._what = f"folder {record.number}"
        roots = record.find(INDEX_ROOT, I30)
        if not roots or not roots[0].resident or len(roots[0].value) < 32:
            raise Corrupt("a folder has no index", self._what)
        self._root = roots[0].value
        *_, size = _ROOT.unpack_from(self._root)
        if not 512 <= size <= LARGEST_RECORD or size & (size - 1):
            self._warn(f"{self._what}: its index blocks have an impossible size: {size} bytes")
            size = index_size
        self._size = size
        self._bits, self._blocks, self._where = b"", 0, content.Content(0, 0, 0, 0, None, [])
        try:
            where = mft.stream(record, INDEX, I30)
            if where is not None:
                blocks = min(where.size, where.mapped * cluster) // size
                if blocks > MOST_BLOCKS:
                    self._warn(f"{self._what}: it claims {blocks} blocks of names; the first {MOST_BLOCKS} are read")
                    blocks = MOST_BLOCKS
                self._bits = mft.bits(record, I30, -(-blocks // 8))
                self._blocks, self._where = min(blocks, 8 * len(self._bits)), where
        except RecoveryError as problem:
            self._warn(f"{self._what}: names are missing: {problem.what}: {problem.value}")

    def names(self, cursor: int, count: int) -> tuple[list[Name], int | None]:
        """At most `count` names, fewer after about BLOCKS_A_CALL blocks, and where the next ones begin."""
        found: list[Name] = []
        block, start = cursor >> POSITION, cursor & ((1 << POSITION) - 1)
        if block == 0:
            self._take(self._root, ROOT_NODE, start, 0, found, self._what)
            block, start = 1, 0
        looked = 0
        while block <= self._blocks and len(found) < count and looked < BLOCKS_A_CALL:
            # About as many blocks as the page will need; a block that splits is half full.
            group = self._used(block, max(16, min(BLOCKS_A_CALL, (count - len(found)) * 128 // self._size)))
            if not group:
                return found, None
            self._read(group, start, found)
            block, start = group[-1] + 1, 0
            looked += len(group)
        after = found[count - 1].cursor if len(found) > count else block << POSITION if block <= self._blocks else None
        return found[:count], after

    def _used(self, block: int, most: int) -> list[int]:
        """Numbers of the next blocks in use, the first being 1."""
        group: list[int] = []
        bits = self._bits
        while block <= self._blocks and len(group) < most:
            at = block - 1
            if at & 7 == 0 and not bits[at >> 3]:
                block += 8
                continue
            if bits[at >> 3] >> (at & 7) & 1:
                group.append(block)
            block += 1
        return group

    def _read(self, group: list[int], start: int, found: list[Name]) -> None:
        size = self._size
        spots: list[tuple[int, int]] = []
        for block in group:
            try:
                places = content.segments(self._where, (block - 1) * size, size, self._cluster, 64, self._what)
            except Corrupt:
                continue
            spots += [(place.offset, place.length) for place in places if isinstance(place, Extent)]
        self._volume.prefetch(spots)
        first = group[0]
        for block in group:
            what = f"{self._what}: block {block - 1}"
            try:
                raw = content.read(self._volume, self._where, (block - 1) * size, size, self._cluster, what)
                data = fixed(raw, b"INDX", what)
            except Corrupt as problem:
                self._warn(f"names are missing: {problem.what}: {problem.value}")
                continue
            self._take(data, BLOCK_NODE, start if block == first else 0, block << POSITION, found, what)

    def _take(self, data: bytes, node: int, start: int, base: int, found: list[Name], what: str) -> None:
        got, problem = parse(data, node, start, base, what)
        found += got
        if problem:
            self._warn(f"names are missing: {problem.what}: {problem.value}")
