# SPDX-License-Identifier: Apache-2.0
"""A listing in columns: names, and the attributes of all of them as one run of fixed-size records.

So it is made by a few operations on arrays where a reader can do that, crosses the socket as bytes, and can be sorted and searched
by column; `unpack` makes entries of it. Times count from 1901 (`FIRST_TIME`), so that 64 unsigned bits hold what ext4, XFS and
Windows can say of files; what they cannot hold is None.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from flr.errors import Corrupt
from flr.fs.base import END_OF_TIME, FIRST_TIME, Attributes, Entry, Listing

ROW = np.dtype(
    [
        ("number", "<u8"), ("generation", "<u4"), ("mode", "<u4"), ("links", "<u4"), ("owner", "<u4"), ("group", "<u4"),
        ("size", "<u8"), ("allocated", "<u8"), ("modified", "<u8"), ("changed", "<u8"), ("accessed", "<u8"), ("created", "<u8"),
        ("device", "<u8"), ("flags", "<u4"), ("known", "u1"),
    ]
)  # fmt: skip
RECORD = struct.Struct("<QIIIIIQQQQQQQIB")
"""The same, one at a time."""
FEW = 64
"""Records for which operations on arrays cost more than they save."""
_NOTHING = (0,) * 12
OPTIONAL = ("owner", "group", "allocated", "modified", "changed", "accessed", "created")
"""Bit k of `known`: the record has the k-th of these."""
ALL_KNOWN = (1 << len(OPTIONAL)) - 1
TIMES = frozenset(OPTIONAL[3:])
Rows = NDArray[np.void]


class Table(msgspec.Struct, array_like=True):
    """`rows` are records of ROW, one for each name. `problems` are of entries whose node cannot be read, by their place: of them a
    record has `number` and, in `mode`, the type that the folder claims. `cursor` as in `Listing`."""

    names: list[bytes]
    rows: bytes
    problems: dict[int, str]
    cursor: int | None

    def columns(self) -> Rows:
        """Corrupt when records and names are not equally many."""
        if len(self.rows) != len(self.names) * ROW.itemsize:
            raise Corrupt(
                "a listing has not as many records as names", f"{len(self.rows)} bytes, {len(self.names)} names"
            )
        return np.frombuffer(self.rows, ROW)


def pack(listing: Listing) -> Table:
    """Of a reader that makes one entry after the other."""
    made: list[bytes] = []
    problems: dict[int, str] = {}
    for k, entry in enumerate(listing.entries):
        if entry.attributes is None:
            made.append(RECORD.pack(entry.number, 0, entry.kind, *_NOTHING))
            problems[k] = entry.problem or "it cannot be read"
        else:
            made.append(record(entry.attributes))
    return Table([entry.name for entry in listing.entries], b"".join(made), problems, listing.cursor)


def record(a: Attributes) -> bytes:
    """One row."""
    try:
        return RECORD.pack(
            a.number, a.generation, a.mode, a.links, a.owner, a.group, a.size, a.allocated,
            a.modified - FIRST_TIME, a.changed - FIRST_TIME, a.accessed - FIRST_TIME, a.created - FIRST_TIME,  # type: ignore[operator]
            a.device, a.flags, ALL_KNOWN,
        )  # fmt: skip
    except (TypeError, struct.error):  # something is None, or a time that a record cannot hold
        known = 0
        values: list[int] = []
        for bit, name in enumerate(OPTIONAL):
            value = getattr(a, name)
            if value is not None and name in TIMES:
                value = value - FIRST_TIME if FIRST_TIME <= value < END_OF_TIME else None
            known |= (value is not None) << bit
            values.append(value or 0)
        owner, group, allocated, *times = values
        return RECORD.pack(
            a.number, a.generation, a.mode, a.links, owner, group, a.size, allocated, *times, a.device, a.flags, known
        )


def unpack(table: Table) -> Listing:
    """Corrupt when the table contradicts itself."""
    rows = table.columns()
    found = attributes(rows)
    kinds = (rows["mode"] & 0o170000).tolist()
    entries = list(map(Entry, table.names, rows["number"].tolist(), found, kinds))
    for k, problem in table.problems.items():
        if not 0 <= k < len(entries):
            raise Corrupt("a listing tells of an entry that it does not have", k)
        entry = entries[k]
        entries[k] = Entry(entry.name, entry.number, None, entry.kind, problem)
    return Listing(entries, table.cursor)


def attributes(rows: Rows) -> list[Attributes]:
    """Of every record, also of those with a problem."""
    if len(rows) <= FEW:
        found = []
        for row in RECORD.iter_unpack(rows.tobytes()):
            number, generation, mode, links, owner, group, size, allocated, modified, changed, accessed, created = row[
                :12
            ]
            times = modified + FIRST_TIME, changed + FIRST_TIME, accessed + FIRST_TIME, created + FIRST_TIME
            made = Attributes(number, generation, mode, links, owner, group, size, allocated, *times, row[12], row[13])
            found.append(made)
    else:
        columns: list[Iterable[Any]] = []
        for name in ROW.names[:-1]:  # type: ignore[index]
            values = rows[name].tolist()
            if name in TIMES:
                values = [value + FIRST_TIME for value in values]
            columns.append(values)
        found = list(map(Attributes, *columns))
    for k, known in enumerate(rows["known"].tolist()):
        if known != ALL_KNOWN:
            for bit, name in enumerate(OPTIONAL):
                if not known >> bit & 1:
                    setattr(found[k], name, None)
    return found
