# SPDX-License-Identifier: Apache-2.0
"""Block maps: pages of 1,024 blocks and the root over them (docs/format.md section 5).

A disk's map says for each block "zero" or (chunk id, place). It is all that a restore reads, and all that an incremental
compares with: no index is needed for either. Not here: where pages are stored and fetched (`map_store`).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np

from mover.errors import Damaged, UnsupportedFormat
from mover.repository.chunk import BLOCK_SIZE as BLOCK_SIZE
from mover.repository.chunk import ChunkRef as ChunkRef
from mover.repository.chunk import MapEntry as MapEntry
from mover.repository.live import LiveBytes, renumbered
from mover.repository.names import PackName
from mover.repository.pack import Place
from mover.repository.tables import Cursor, PackTable

PAGE_BLOCKS = 1024

_PAGE = struct.Struct("<4sHHIIIII")
_ROOT = struct.Struct("<4sHHIIQQIIII")
VERSION = 1
STREAM = 1
ID_SIZE = 32


@dataclass(slots=True)
class Page:
    """`entries[k]` belongs to block k of the page; None = zero or unallocated. `raw_lengths` only in a stream page."""

    entries: list[MapEntry | None]
    raw_lengths: list[int] | None = None

    def live_bytes(self) -> dict[PackName, int]:
        """For each pack that the page names, the sum of the lengths of the distinct frames that it names there."""
        live: dict[PackName, int] = {}
        for place in {entry.place for entry in self.entries if entry is not None}:
            live[place.pack] = live.get(place.pack, 0) + place.length
        return live

    def encode(self) -> bytes:
        runs: list[list[int]] = []
        for entry in self.entries:
            state = 0 if entry is None else 1
            if runs and runs[-1][1] == state:
                runs[-1][0] += 1
            else:
                runs.append([1, state])
        table = PackTable()
        used = [entry for entry in self.entries if entry is not None]
        packs = np.array([table.index(entry.place.pack) for entry in used], dtype="<u4")
        writers, count, tables = table.encode()
        parts = [
            _PAGE.pack(
                b"DMPG",
                VERSION,
                STREAM if self.raw_lengths is not None else 0,
                len(self.entries),
                len(runs),
                writers,
                count,
                len(used),
            ),
            tables,
            np.array(runs, dtype="<u2").tobytes(),
            b"".join(entry.chunk_id for entry in used),
            packs.tobytes(),
            np.array([entry.place.offset for entry in used], dtype="<u4").tobytes(),
            np.array([entry.place.length for entry in used], dtype="<u4").tobytes(),
        ]
        if self.raw_lengths is not None:
            parts.append(np.array(self.raw_lengths, dtype="<u4").tobytes())
        return b"".join(parts)

    @classmethod
    def decode(cls, data: bytes) -> Page:
        cursor = Cursor(data, "map page")
        magic, version, flags, blocks, run_count, writers, packs, used = cursor.fields(_PAGE)
        _check_header(magic, b"DMPG", version, flags, "map page")
        if not 0 < blocks <= PAGE_BLOCKS or run_count > blocks or used > blocks or packs > used or writers > packs:
            raise cursor.damaged(f"{blocks} blocks, {run_count} runs, {used} entries, {packs} packs, {writers} writers")
        names = cursor.packs(writers, packs)
        runs = cursor.array("<u2", 2 * run_count).reshape(-1, 2).tolist()
        ids = bytes(cursor.take(ID_SIZE * used))
        pack_index, offsets, lengths = (cursor.array("<u4", used).tolist() for _ in range(3))
        raw_lengths = cursor.array("<u4", used).tolist() if flags & STREAM else None
        cursor.end()
        if (
            sum(count for count, _ in runs) != blocks
            or sum(count for count, state in runs if state) != used
            or any(state > 1 for _, state in runs)
            or (used and max(pack_index) >= packs)
        ):
            raise cursor.damaged("runs or pack numbers do not add up")
        entries: list[MapEntry | None] = []
        at = 0
        for count, state in runs:
            if not state:
                entries += [None] * count
                continue
            for k in range(at, at + count):
                place = Place(names[pack_index[k]], offsets[k], lengths[k])
                entries.append(MapEntry(ids[k * ID_SIZE : (k + 1) * ID_SIZE], place))
            at += count
        return cls(entries, raw_lengths)


@dataclass(slots=True)
class PageSlot:
    """A page as the root knows it: where it is, and the packs that it names with their live bytes."""

    ref: ChunkRef
    live: LiveBytes


@dataclass(slots=True)
class Root:
    """A disk's map from above. `pages[k]` is None where all 1,024 blocks are zero. `covered` counts blocks."""

    size: int
    covered: int
    pages: list[PageSlot | None] = field(default_factory=list)
    block_size: int = BLOCK_SIZE

    @property
    def blocks(self) -> int:
        return -(-self.size // self.block_size)

    def page_blocks(self, page: int) -> int:
        """How many blocks the page has."""
        return min(PAGE_BLOCKS, self.blocks - page * PAGE_BLOCKS)

    @classmethod
    def empty(cls, size: int) -> Root:
        root = cls(size, 0)
        root.pages = [None] * -(-root.blocks // PAGE_BLOCKS)
        return root

    def encode(self) -> bytes:
        table = PackTable()
        stored = [slot for slot in self.pages if slot is not None]
        count = len(self.pages)
        state = np.array([slot is not None for slot in self.pages], dtype="u1")
        columns = np.zeros((3, count), dtype="<u4")
        ids = np.zeros((count, ID_SIZE), dtype="u1")
        pair_counts = np.zeros(count, dtype="<u4")
        where = np.flatnonzero(state)
        if stored:
            places = [slot.ref.place for slot in stored]
            columns[0, where] = [table.index(place.pack) for place in places]
            columns[1, where] = [place.offset for place in places]
            columns[2, where] = [place.length for place in places]
            ids[where] = np.frombuffer(b"".join(slot.ref.chunk_id for slot in stored), dtype="u1").reshape(-1, ID_SIZE)
            pair_counts[where] = [len(slot.live) for slot in stored]
        pairs = np.empty((int(pair_counts.sum()), 2), dtype="<u4")
        if stored:
            np.concatenate(renumbered([slot.live for slot in stored], table), out=pairs[:, 0])
            np.concatenate([slot.live.sizes for slot in stored], out=pairs[:, 1])
        writers, packs, tables = table.encode()
        header = _ROOT.pack(
            b"DMRT",
            VERSION,
            0,
            self.block_size,
            PAGE_BLOCKS,
            self.size,
            self.covered,
            count,
            writers,
            packs,
            len(pairs),
        )
        arrays = (state, columns, ids, pair_counts, pairs)
        return b"".join((header, tables, *(array.data.cast("B") for array in arrays if array.size)))

    @classmethod
    def decode(cls, data: bytes) -> Root:
        cursor = Cursor(data, "map root")
        magic, version, flags, block_size, page_blocks, size, covered, count, writers, packs, pairs = cursor.fields(
            _ROOT
        )
        _check_header(magic, b"DMRT", version, flags, "map root")
        if flags & STREAM:
            raise UnsupportedFormat("the map of a stream, which this release does not read", f"flags {flags}")
        root = cls(size, covered, [], block_size)
        if block_size != BLOCK_SIZE or page_blocks != PAGE_BLOCKS:
            raise UnsupportedFormat("a map with another block size", f"{block_size} x {page_blocks}")
        if count != -(-root.blocks // PAGE_BLOCKS) or covered > root.blocks:
            raise cursor.damaged(f"{count} pages, {covered} blocks covered, {size} bytes")
        names = cursor.packs(writers, packs)
        state = cursor.array("u1", count).tolist()
        pack_index, offsets, lengths = (cursor.array("<u4", count).tolist() for _ in range(3))
        ids = bytes(cursor.take(ID_SIZE * count))
        pair_counts = cursor.array("<u4", count).tolist()
        rows = cursor.array("<u4", 2 * pairs).reshape(-1, 2)
        cursor.end()
        if sum(pair_counts) != pairs or max(state, default=0) > 1:
            raise cursor.damaged("pairs do not add up")
        if bool((rows[:, 0] >= packs).any()) or any(k >= packs for k, s in zip(pack_index, state, strict=True) if s):
            raise cursor.damaged(f"a pack's number is above {packs}")
        at = 0
        for page in range(count):
            end = at + pair_counts[page]
            if not state[page]:
                if end != at or pack_index[page] or offsets[page] or lengths[page]:
                    raise cursor.damaged(f"page {page} is zero and has a place")
                root.pages.append(None)
                continue
            place = Place(names[pack_index[page]], offsets[page], lengths[page])
            live = LiveBytes(names, rows[at:end, 0], rows[at:end, 1])
            root.pages.append(PageSlot(ChunkRef(ids[page * ID_SIZE : (page + 1) * ID_SIZE], place), live))
            at = end
        return root


def _check_header(magic: bytes, expected: bytes, version: int, flags: int, what: str) -> None:
    if magic != expected:
        raise Damaged(f"a {what} does not begin as one", repr(magic))
    if version != VERSION or flags & ~STREAM:
        raise UnsupportedFormat(f"a {what} of an unknown version or with unknown flags", f"{version}, {flags}")
