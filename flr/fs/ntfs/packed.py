# SPDX-License-Identifier: Apache-2.0
"""Compressed content in pieces: what libfsntfs must decompress comes as bytes, the rest tells where it stands.

NTFS compresses by units of usually 16 clusters. A unit that has all its clusters is stored as it is, one that has none is a hole;
only the others are asked of the library. WOF keeps the whole file compressed in a stream beside. Format: libyal's NTFS
documentation, "Compression".
"""

from __future__ import annotations

from bisect import bisect_right

from flr.blocks import Extent, Hole, Literal, Segment, joined
from flr.errors import Corrupt
from flr.fs.base import MOST_LITERAL, MOST_SEGMENTS
from flr.fs.ntfs.content import NOWHERE, Content
from flr.fs.ntfs.library import Library

WOF_CHUNK = 32 << 10
"""The largest of what WOF compresses together."""
LARGEST_UNIT = 8
"""Log2 of clusters; NTFS itself knows 0 and 4."""


def whole(library: Library, number: int, size: int, offset: int, length: int) -> list[Segment]:
    """Of a file that WOF compressed; `size` is its uncompressed one."""
    if offset >= size or length <= 0:
        return []
    # libfsntfs cannot begin within a file's last chunk, so it begins where every method begins one.
    skip = offset % WOF_CHUNK
    count = min(length, size - offset, MOST_LITERAL) + skip
    data = _read(library, number, "", offset - skip, count, WOF_CHUNK)
    return [Literal(data[skip:])]


def _read(library: Library, number: int, stream: str, offset: int, length: int, unit: int) -> bytes:
    """So many bytes, or where a part of them is damaged those of the first unit. Corrupt when that is."""
    try:
        return library.read(number, stream, offset, length)
    except Corrupt:
        first = unit - offset % unit
        if first >= length:
            raise
        return library.read(number, stream, offset, first)


def units(
    library: Library, number: int, stream: str, found: Content, offset: int, length: int, cluster: int
) -> list[Segment]:
    """Of a stream compressed by units. Ends after MOST_LITERAL decompressed bytes, and before a unit that cannot be read unless
    it is the first."""
    if found.unit > LARGEST_UNIT:
        raise Corrupt("a compression unit has an impossible size", f"record {number}: 2^{found.unit} clusters")
    unit = cluster << found.unit
    end = min(offset + length, found.size)
    stored = min(end, found.initialized)
    made: list[Segment] = []
    literal = 0
    while offset < stored and literal < MOST_LITERAL and len(made) < MOST_SEGMENTS:
        first = offset // unit << found.unit
        if first >= found.mapped:
            if made:
                return joined(made)
            raise Corrupt(
                "a stream is longer than what it has", f"record {number}: {found.size} bytes, mapped {offset}"
            )
        after = min((offset // unit + 1) * unit, stored)
        places, clusters = _stored(found, first, 1 << found.unit)
        skip, count = offset - first * cluster, after - offset
        if clusters == 0:
            # A hole is often large: it is passed over in one step.
            after = min(max(_hole_ends(found, first) * cluster // unit * unit, after), stored)
            made.append(Hole(after - offset))
        elif clusters == 1 << found.unit:
            made += _cut(places, skip, count, cluster)
        else:
            while after < stored and after - offset < MOST_LITERAL - literal:
                held = _stored(found, after // unit << found.unit, 1 << found.unit)[1]
                if held in (0, 1 << found.unit):
                    break
                after = min(after + unit, stored)
            try:
                data = _read(library, number, stream, offset, after - offset, unit)
            except Corrupt:
                if made:
                    return joined(made)
                raise
            literal += len(data)
            made.append(Literal(data))
            after = offset + len(data)
        offset = after
    if stored <= offset < end:
        made.append(Hole(end - offset))
    return joined(made)


def _stored(found: Content, first: int, count: int) -> tuple[list[tuple[int, int]], int]:
    """(cluster of the volume, clusters) of what is stored of these clusters of the stream, and how many that are."""
    spans = found.spans
    places: list[tuple[int, int]] = []
    index = max(bisect_right(spans, (first, 1 << 62, 0)) - 1, 0)
    end = first + count
    while index < len(spans) and spans[index].first < end:
        span = spans[index]
        low, high = max(span.first, first), min(span.first + span.clusters, end)
        if span.at != NOWHERE and low < high:
            places.append((span.at + low - span.first, high - low))
        index += 1
    return places, sum(held for _, held in places)


def _hole_ends(found: Content, cluster: int) -> int:
    """The first cluster of the stream after `cluster` that is stored."""
    spans = found.spans
    index = max(bisect_right(spans, (cluster, 1 << 62, 0)) - 1, 0)
    while index < len(spans) and spans[index].at == NOWHERE:
        index += 1
    return spans[index].first if index < len(spans) else found.mapped


def _cut(places: list[tuple[int, int]], skip: int, count: int, cluster: int) -> list[Segment]:
    made: list[Segment] = []
    for at, clusters in places:
        size = clusters * cluster
        if skip < size and count:
            taken = min(size - skip, count)
            made.append(Extent(0, at * cluster + skip, taken))
            count -= taken
        skip = max(skip - size, 0)
    return made
