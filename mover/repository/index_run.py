# SPDX-License-Identifier: Apache-2.0
"""Index runs: sorted records chunk id -> place, their block table and filter (docs/format.md section 7).

For dedupe only: nothing that is lost here loses data, so a damaged run counts as empty for the caller that says so.
Two ways to look into a run: `ResidentRun` holds all records in one array; `RemoteRun` holds filter and block table and
fetches blocks of 64 KiB. Never a Python object a chunk, in either. Objects belong to one thread (or one lock).
"""

from __future__ import annotations

import math
import struct
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from mover.errors import Damaged, UnsupportedFormat
from mover.repository.names import PackName
from mover.repository.pack import Place
from mover.repository.tables import Cursor, PackTable

RECORD = np.dtype([("id", "S32"), ("pack", "<u4"), ("offset", "<u4"), ("length", "<u4"), ("kind", "<u4")])
RECORD_SIZE = RECORD.itemsize  # 48
BLOCK_RECORDS = 1365
CACHED_BLOCKS = 64
"""Blocks that a run in the store keeps when nobody says otherwise: 4 MiB."""
FOOTER = struct.Struct("<4sHxxQQIIIIQQ")
FOOTER_SIZE = FOOTER.size  # 56
_BLOCK = struct.Struct("<32sQ")
MAGIC, VERSION = b"DMIX", 1
FILTER_WORDS = 7
MIN_FILTER_BITS = 9

Records = NDArray[np.void]


class Shape(NamedTuple):
    """What the footer says: counts, the filter's log2 bits, and the checksum of everything between records and footer."""

    records: int
    writers: int
    packs: int
    blocks: int
    filter_log: int
    checksum: int

    @property
    def tail_size(self) -> int:
        return 48 * self.writers + 8 * self.packs + _BLOCK.size * self.blocks + (1 << self.filter_log) // 8

    @property
    def size(self) -> int:
        return self.records * RECORD_SIZE + self.tail_size + FOOTER_SIZE


class Tail(NamedTuple):
    packs: list[PackName]
    first_ids: list[bytes]
    checksums: list[int]
    filter: NDArray[np.uint8]


def _words(ids: Sequence[bytes], filter_log: int) -> NDArray[np.uint32]:
    words = np.frombuffer(b"".join(ids), dtype="<u4").reshape(-1, 8)[:, :FILTER_WORDS]
    return words & np.uint32((1 << filter_log) - 1)


def build_filter(ids: Sequence[bytes]) -> tuple[int, NDArray[np.uint8]]:
    """About 10 bits an id: one lookup in a hundred that should miss does not."""
    filter_log = max(MIN_FILTER_BITS, math.ceil(math.log2(max(1, 10 * len(ids)))))
    bits = np.zeros((1 << filter_log) // 8, dtype="u1")
    if ids:
        words = _words(ids, filter_log).ravel()
        np.bitwise_or.at(bits, words >> 3, (1 << (words & 7)).astype("u1"))
    return filter_log, bits


def may_hold(filter_log: int, bits: NDArray[np.uint8], ids: Sequence[bytes]) -> NDArray[np.bool_]:
    words = _words(ids, filter_log)
    found: NDArray[np.bool_] = ((bits[words >> 3] >> (words & 7).astype("u1")) & 1).all(axis=1)
    return found


def encode_run(entries: list[tuple[bytes, Place, int]]) -> bytes:
    """The run of `entries` (chunk id, place, kind); an id may stand in several places."""
    entries = sorted(entries, key=lambda entry: entry[0])
    table = PackTable()
    records = np.zeros(len(entries), dtype=RECORD)
    ids = [entry[0] for entry in entries]
    records["id"] = ids
    records["pack"] = [table.index(place.pack) for _, place, _ in entries]
    records["offset"] = [place.offset for _, place, _ in entries]
    records["length"] = [place.length for _, place, _ in entries]
    records["kind"] = [kind for _, _, kind in entries]
    body = records.tobytes()
    blocks = b"".join(
        _BLOCK.pack(
            ids[at], xxh3_64_intdigest(body[at * RECORD_SIZE : min(at + BLOCK_RECORDS, len(ids)) * RECORD_SIZE])
        )
        for at in range(0, len(ids), BLOCK_RECORDS)
    )
    filter_log, bits = build_filter(ids)
    writers, packs, tables = table.encode()
    tail = tables + blocks + bits.tobytes()
    footer = FOOTER.pack(
        MAGIC,
        VERSION,
        0,
        len(ids),
        writers,
        packs,
        len(blocks) // _BLOCK.size,
        filter_log,
        xxh3_64_intdigest(tail),
        0,
    )[:-8]
    return body + tail + footer + xxh3_64_intdigest(footer).to_bytes(8, "little")


def read_footer(footer: bytes | bytearray, size: int, name: str) -> Shape:
    magic, version, features, records, writers, packs, blocks, filter_log, tail, own = FOOTER.unpack(footer)
    if magic != MAGIC or xxh3_64_intdigest(bytes(footer[:-8])) != own:
        raise Damaged("an index run's footer is damaged", name)
    if version != VERSION or features:
        raise UnsupportedFormat(
            "an index run of an unknown version or with unknown features", f"{name}: {version}, {features}"
        )
    shape = Shape(records, writers, packs, blocks, filter_log, tail)
    if any(footer[6:8]):
        raise Damaged("an index run's footer is not zero where it must be", name)
    if not MIN_FILTER_BITS <= filter_log <= 40 or shape.size != size or blocks != -(-records // BLOCK_RECORDS):
        raise Damaged("an index run's footer does not fit the run", name)
    return shape


def read_tail(data: bytes | bytearray | memoryview, shape: Shape, name: str) -> Tail:
    if xxh3_64_intdigest(data) != shape.checksum:
        raise Damaged("an index run's tables are damaged", name)
    cursor = Cursor(data, "index run")
    packs = cursor.packs(shape.writers, shape.packs)
    rows = list(_BLOCK.iter_unpack(cursor.take(_BLOCK.size * shape.blocks)))
    bits = cursor.array("u1", (1 << shape.filter_log) // 8).astype("u1")
    cursor.end()
    return Tail(packs, [row[0] for row in rows], [row[1] for row in rows], bits)


def read_block(data: bytes | bytearray | memoryview, checksum: int, packs: int, name: str) -> Records:
    """Records of one block, checked; ids ascend."""
    if xxh3_64_intdigest(data) != checksum:
        raise Damaged("a block of an index run is damaged", name)
    records = np.frombuffer(data, dtype=RECORD)
    if len(records) and int(records["pack"].max()) >= packs:
        raise Damaged("an index run names a pack that it does not list", name)
    return records


def decode_run(data: bytes | bytearray, name: str) -> tuple[Records, list[PackName]]:
    """All records (ascending by id) and the packs that their `pack` counts into."""
    view = memoryview(data)
    if len(view) < FOOTER_SIZE:
        raise Damaged("an index run is shorter than its footer", name)
    shape = read_footer(bytes(view[-FOOTER_SIZE:]), len(view), name)
    body = shape.records * RECORD_SIZE
    tail = read_tail(view[body:-FOOTER_SIZE], shape, name)
    step = BLOCK_RECORDS * RECORD_SIZE
    for at, checksum in zip(range(0, body, step), tail.checksums, strict=True):
        read_block(view[at : min(at + step, body)], checksum, shape.packs, name)
    return np.frombuffer(view[:body], dtype=RECORD), tail.packs


def _padded(chunk_id: bytes) -> bytes:
    # numpy's S32 drops trailing zero bytes when it hands a value out; compare in that form
    return chunk_id.rstrip(b"\0")


class ResidentRun:
    """All records of some runs in memory, in one sorted array."""

    def __init__(self, records: Records, packs: list[PackName]) -> None:
        self.records = records
        self.packs = packs

    @property
    def memory(self) -> int:
        """Bytes that it holds."""
        return self.records.nbytes + 150 * len(self.packs)

    @classmethod
    def merge(cls, runs: Sequence[ResidentRun]) -> ResidentRun:
        table = PackTable()
        parts = []
        for run in runs:
            renumber = np.array([table.index(pack) for pack in run.packs], dtype="<u4")
            part = run.records.copy()
            if len(part):
                part["pack"] = renumber[part["pack"]]
            parts.append(part)
        records = np.concatenate(parts) if parts else np.zeros(0, dtype=RECORD)
        return cls(records[np.argsort(records["id"], kind="stable")], table.packs)

    def find(self, ids: Sequence[bytes]) -> list[list[Place]]:
        """For each id every place that the run knows."""
        wanted = np.array(ids, dtype="S32")
        column = self.records["id"]
        left = np.searchsorted(column, wanted, side="left").tolist()
        found: list[list[Place]] = []
        for chunk_id, at in zip(ids, left, strict=True):
            places: list[Place] = []
            short = _padded(chunk_id)
            while at < len(column) and column[at] == short:
                _, pack, offset, length, _ = self.records[at].item()
                places.append(Place(self.packs[pack], offset, length))
                at += 1
            found.append(places)
        return found


class RemoteRun:
    """A run too large to hold: filter and block table here, records fetched by blocks and kept a while. Thread-safe."""

    def __init__(
        self,
        name: str,
        shape: Shape,
        tail: Tail,
        fetch: Callable[[int, int], bytes | bytearray],
        cache: int = CACHED_BLOCKS,
    ):
        self._name = name
        self._shape = shape
        self._tail = tail
        self._fetch = fetch
        self._blocks: OrderedDict[int, ResidentRun] = OrderedDict()
        self._cache = cache
        self._lock = threading.Lock()  # held while a block is fetched: who needs the same one waits for it
        self._first = np.array(tail.first_ids, dtype="S32")

    @property
    def memory(self) -> int:
        blocks = self._cache * BLOCK_RECORDS * RECORD_SIZE
        return self._tail.filter.nbytes + 120 * len(self._tail.first_ids) + 150 * len(self._tail.packs) + blocks

    def find(self, ids: Sequence[bytes]) -> list[list[Place]]:
        found: list[list[Place]] = [[] for _ in ids]
        for k in np.flatnonzero(may_hold(self._shape.filter_log, self._tail.filter, ids)).tolist():
            # an id's records may begin in the block before the first that begins with it
            block = max(0, int(np.searchsorted(self._first, np.array([ids[k]], dtype="S32"), side="left")[0]) - 1)
            while block < self._shape.blocks and self._tail.first_ids[block] <= ids[k]:
                found[k] += self._block(block).find([ids[k]])[0]
                block += 1
        return found

    def keep(self, blocks: int) -> None:
        """So many fetched blocks at most from the next lookup on."""
        self._cache = blocks

    def _block(self, number: int) -> ResidentRun:
        with self._lock:
            return self._fetched(number)

    def _fetched(self, number: int) -> ResidentRun:
        block = self._blocks.get(number)
        if block is None:
            at = number * BLOCK_RECORDS * RECORD_SIZE
            size = min(BLOCK_RECORDS, self._shape.records - number * BLOCK_RECORDS) * RECORD_SIZE
            data = self._fetch(at, size)
            records = read_block(data, self._tail.checksums[number], self._shape.packs, self._name)
            block = self._blocks[number] = ResidentRun(records, self._tail.packs)
        else:
            self._blocks.move_to_end(number)
        while len(self._blocks) > self._cache:
            self._blocks.popitem(last=False)
        return block
