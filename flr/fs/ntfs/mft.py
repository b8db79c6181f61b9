# SPDX-License-Identifier: Apache-2.0
"""The master file table: records by number, one or thousands at a time, and those that are spread over several put together.

Many records are read in the order of their numbers with one hint of what is coming, so that a page of a folder costs a few
requests. The table's own first record may be read from its mirror. Not here: what attributes mean (`flr.fs.ntfs.nodes`).
Format: libyal's NTFS documentation, "The master file table", "The attribute list".
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

from flr.blocks import Extent, Volume
from flr.errors import Corrupt, NodeNotFound, OutOfBounds, RecoveryError
from flr.fs.ntfs import content
from flr.fs.ntfs.boot import Geometry
from flr.fs.ntfs.content import Content
from flr.fs.ntfs.record import BITMAP, DATA, LIST, NUMBER, Attribute, Record, parse

KEPT = 256
"""Records, whole ones, of not too many attributes each."""
MOST_KEPT_ATTRIBUTES = 1024
AT_ONCE = 1 << 20
"""Bytes that are read in one piece."""
GAP = 16 << 10
"""Bytes between two records that are read rather than skipped."""
LARGEST_LIST = 256 << 10
"""Of an attribute list, by NTFS's own limit."""
# type, length, name: characters, offset; first cluster, reference
_LISTED = struct.Struct("<IHBBQQ")
LISTED_HEAD = 26

Found = dict[int, Record | RecoveryError]


class Mft:
    def __init__(self, volume: Volume, geometry: Geometry, warn: Callable[[str], None]) -> None:
        self._volume = volume
        self._geometry = geometry
        self._warn = warn
        self._kept: OrderedDict[int, Record] = OrderedDict()
        self._table = Content(0, 0, 0, 0, None, [])
        self._table = self._whole_table(self._first())

    @property
    def count(self) -> int:
        """Records that the table has room for, in use or not."""
        return self._table.initialized // self._geometry.record

    # -- the table itself

    def _first(self) -> Record:
        size = self._geometry.record
        self._volume.prefetch([(self._geometry.mft, 64 << 10)])
        try:
            return parse(self._volume.pread(self._geometry.mft, size), 0)
        except Corrupt as problem:
            try:
                record = parse(self._volume.pread(self._geometry.mirror, size), 0)
            except Corrupt:
                raise problem from None
            self._warn(f"the MFT's first record is damaged ({problem.what}); its mirror is used")
            return record

    def _whole_table(self, first: Record) -> Content:
        """A table in many pieces is told of by records that stand in its earlier pieces: each is read when it can be."""
        parts = first.find(DATA)
        if not parts or parts[0].resident:
            raise Corrupt("the MFT has no data", "record 0")
        table = self._table = self._as_far_as(parts)
        for number in self._continuations(first):
            try:
                parts += self._parsed(number).find(DATA)
                table = self._table = self._as_far_as(parts)
            except RecoveryError as problem:
                self._warn(f"a part of the MFT cannot be read: {problem.what}: {problem.value}")
        mapped = table.mapped * self._geometry.cluster
        if mapped < table.initialized:
            self._warn(f"the MFT is not whole, files are missing: {mapped} bytes of {table.initialized} are found")
            table.initialized = mapped
        return table

    def _as_far_as(self, parts: list[Attribute]) -> Content:
        """The table by those of its parts that follow one upon the other."""
        ordered = sorted(parts, key=lambda part: part.first)
        until = next(
            (i for i, (one, two) in enumerate(pairwise(ordered), 1) if two.first != one.last + 1), len(ordered)
        )
        return content.gather(ordered[:until], self._geometry.clusters, "the MFT")

    # -- records

    def _parsed(self, number: int) -> Record:
        size = self._geometry.record
        raw = content.read(self._volume, self._table, number * size, size, self._geometry.cluster, f"record {number}")
        return parse(raw, number)

    def record(self, number: int) -> Record:
        """With the attributes of all records that continue it. NodeNotFound, Corrupt."""
        kept = self._kept.get(number)
        if kept is not None:
            self._kept.move_to_end(number)
            return kept
        if not 0 <= number < self.count:
            raise NodeNotFound("there is no such record in the MFT", f"record {number} of {self.count}")
        record = self.whole(self._parsed(number))
        if len(record.attributes) <= MOST_KEPT_ATTRIBUTES:
            self._kept[number] = record
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return record

    def many(self, numbers: Iterable[int]) -> Found:
        """Each record by its number, or what is wrong with it; those that are continued are not put together."""
        size, count = self._geometry.record, self.count
        found: Found = {}
        wanted: list[int] = []
        for number in sorted(set(numbers)):
            if 0 <= number < count:
                wanted.append(number)
            else:
                found[number] = NodeNotFound("there is no such record in the MFT", f"record {number} of {count}")
        groups = list(_groups(wanted, size))
        self._volume.prefetch([place for group in groups for place in self._places(group)])
        for group in groups:
            self._read_group(group, found)
        return found

    def _read_group(self, group: list[int], found: Found) -> None:
        size = self._geometry.record
        first = group[0]
        length = (group[-1] + 1 - first) * size
        try:
            data = content.read(
                self._volume,
                self._table,
                first * size,
                length,
                self._geometry.cluster,
                f"records {first} to {group[-1]}",
            )
        except (Corrupt, OutOfBounds) as problem:
            if len(group) == 1:
                found[first] = problem
                return
            for number in group:
                self._read_group([number], found)
            return
        for number in group:
            at = (number - first) * size
            try:
                found[number] = parse(data[at : at + size], number)
            except Corrupt as problem:
                found[number] = problem

    def _places(self, group: list[int]) -> list[tuple[int, int]]:
        size = self._geometry.record
        offset, length = group[0] * size, (group[-1] + 1 - group[0]) * size
        try:
            found = content.segments(self._table, offset, length, self._geometry.cluster, 64, "the MFT")
        except Corrupt:
            return []
        return [(place.offset, place.length) for place in found if isinstance(place, Extent)]

    # -- records that are continued

    def whole(self, record: Record) -> Record:
        """The record with the attributes of those that continue it; itself when none does. What cannot be read of them is a
        warning, and missing."""
        numbers = self._continuations(record)
        if not numbers:
            return record
        attributes = list(record.attributes)
        for number, more in self.many(numbers).items():
            if isinstance(more, RecoveryError):
                self._warn(f"record {record.number}: a part is missing: {more.what}: {more.value}")
            elif more.base != record.number:
                self._warn(f"record {record.number}: a part is missing: record {number} continues another one")
            else:
                attributes += more.attributes
        return Record(record.number, record.sequence, record.links, record.flags, record.base, attributes)

    def _continuations(self, record: Record) -> list[int]:
        """In the order of the attribute list, which for the MFT itself is that of its clusters."""
        for listed in record.attributes:  # ascending by type: it would be the first or second
            if listed.kind >= LIST:
                break
        else:
            return []
        if listed.kind != LIST:
            return []
        try:
            data = self._list(listed, f"the attribute list of record {record.number}")
        except RecoveryError as problem:
            self._warn(f"record {record.number}: its attribute list cannot be read: {problem.what}: {problem.value}")
            return []
        found: dict[int, None] = {}
        at = 0
        while at + LISTED_HEAD <= len(data):
            _, length, _, _, _, reference = _LISTED.unpack_from(data, at)
            if length < LISTED_HEAD:
                break
            if reference & NUMBER != record.number:
                found[reference & NUMBER] = None
            at += length
        return list(found)

    def _list(self, listed: Attribute, what: str) -> bytes:
        if listed.resident:
            return listed.value
        if not 0 < listed.size <= LARGEST_LIST:
            raise Corrupt("an attribute list has an impossible size", f"{what}: {listed.size} bytes")
        where = content.gather([listed], self._geometry.clusters, what)
        return content.read(self._volume, where, 0, where.size, self._geometry.cluster, what)

    def stream(self, record: Record, kind: int, name: bytes = b"") -> Content | None:
        """One attribute of a whole record. None when it has none. Corrupt."""
        parts = record.find(kind, name)
        if not parts:
            return None
        return content.gather(parts, self._geometry.clusters, f"record {record.number}")

    def bits(self, record: Record, name: bytes, most: int) -> bytes:
        """A bitmap attribute, at most so many bytes of it."""
        found = self.stream(record, BITMAP, name)
        if found is None:
            return b""
        size = min(found.size, most)
        return content.read(self._volume, found, 0, size, self._geometry.cluster, f"record {record.number}: its bitmap")


def _groups(numbers: list[int], size: int) -> Iterator[list[int]]:
    """Neighbours together, as long as they are read in one piece."""
    group: list[int] = []
    for number in numbers:
        if group and ((number - group[-1] - 1) * size > GAP or (number + 1 - group[0]) * size > AT_ONCE):
            yield group
            group = []
        group.append(number)
    if group:
        yield group
