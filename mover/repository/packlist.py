# SPDX-License-Identifier: Apache-2.0
"""Pack lists and the pack summary (docs/format.md section 5): which packs a point needs, with live bytes, readable without keys.

The collector marks packs from summaries alone. A summary is the union of what the roots say and of the metadata packs, never
the parent's less something; lists are cut where a writer's numbers pass a multiple of 1,024, so points share most of theirs.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from itertools import pairwise

from mover.errors import Damaged, UnsupportedFormat
from mover.repository.maps import ChunkRef
from mover.repository.names import METADATA_BIT, PackName
from mover.repository.pack import Place
from mover.repository.tables import Cursor, PackTable

_LIST = struct.Struct("<4sHHII")
_LIST_ROW = struct.Struct("<IIQ")
_SUMMARY = struct.Struct("<4sHHIII")
_SUMMARY_ROW = struct.Struct("<IIIIQ32s")
VERSION = 1
CUT = 1024


def cut_lists(live: Mapping[PackName, int]) -> Iterator[list[tuple[PackName, int]]]:
    """The packs in order, cut into lists of at least CUT (but the last) whose borders depend on names only."""
    part: list[tuple[PackName, int]] = []
    for pack in sorted(live):
        border = (pack.number & ~METADATA_BIT) % CUT == 0
        if part and len(part) >= CUT and (border or len(part) >= 4 * CUT or pack.writer != part[-1][0].writer):
            yield part
            part = []
        part.append((pack, live[pack]))
    if part:
        yield part


def encode_list(packs: list[tuple[PackName, int]]) -> bytes:
    """`packs` ascending by name, each once."""
    writers: dict[bytes, int] = {}
    rows = [_LIST_ROW.pack(writers.setdefault(pack.writer, len(writers)), pack.number, live) for pack, live in packs]
    return _LIST.pack(b"DMPL", VERSION, 0, len(writers), len(rows)) + b"".join(writers) + b"".join(rows)


def decode_list(data: bytes) -> list[tuple[PackName, int]]:
    cursor = Cursor(data, "pack list")
    magic, version, zero, writers, count = cursor.fields(_LIST)
    _check(magic, b"DMPL", version, zero, "pack list")
    names = cursor.take(48 * writers)
    found = []
    for writer, number, live in _LIST_ROW.iter_unpack(cursor.take(_LIST_ROW.size * count)):
        if writer >= writers:
            raise cursor.damaged(f"writer {writer} of {writers}")
        found.append((PackName(bytes(names[48 * writer : 48 * writer + 48]), number), live))
    cursor.end()
    if any(one[0] >= two[0] for one, two in pairwise(found)):
        raise cursor.damaged("not ascending")
    return found


def encode_summary(lists: list[tuple[ChunkRef, int, int]]) -> bytes:
    """`lists`: (chunk, packs in it, live bytes in it) in order."""
    table = PackTable()
    rows = [
        _SUMMARY_ROW.pack(table.index(ref.place.pack), ref.place.offset, ref.place.length, packs, live, ref.chunk_id)
        for ref, packs, live in lists
    ]
    writers, count, tables = table.encode()
    return _SUMMARY.pack(b"DMPS", VERSION, 0, writers, count, len(rows)) + tables + b"".join(rows)


def decode_summary(data: bytes) -> list[tuple[ChunkRef, int, int]]:
    cursor = Cursor(data, "pack summary")
    magic, version, zero, writers, packs, count = cursor.fields(_SUMMARY)
    _check(magic, b"DMPS", version, zero, "pack summary")
    names = cursor.packs(writers, packs)
    found = []
    for pack, offset, length, number, live, chunk_id in _SUMMARY_ROW.iter_unpack(
        cursor.take(_SUMMARY_ROW.size * count)
    ):
        if pack >= packs:
            raise cursor.damaged(f"pack {pack} of {packs}")
        found.append((ChunkRef(chunk_id, Place(names[pack], offset, length)), number, live))
    cursor.end()
    return found


def _check(magic: bytes, expected: bytes, version: int, zero: int, what: str) -> None:
    if magic != expected:
        raise Damaged(f"a {what} does not begin as one", repr(magic))
    if version != VERSION:
        raise UnsupportedFormat(f"a {what} of an unknown version", version)
    if zero:
        raise Damaged(f"a {what} is malformed", f"{zero} where zero must be")
