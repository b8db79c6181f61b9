# SPDX-License-Identifier: Apache-2.0
"""From an attribute's run lists to where its bytes are: spans of clusters, put together from every record that holds a part.

Every span is checked against the number of clusters that the volume has. Beyond the initialized size there are zeros, whatever
the clusters hold. Not here: what is compressed or encrypted. Format: libyal's NTFS documentation, "Data runs".
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from flr.blocks import Extent, Hole, Literal, Segment, Volume, read_segments
from flr.errors import Corrupt, TooMuch
from flr.fs.ntfs.record import Attribute

MOST_SPANS = 1 << 20
"""Of one stream; NTFS itself stops at about 1.5 million fragments."""
NOWHERE = -1


class Span(NamedTuple):
    """`clusters` of them of the stream from `first` on, at cluster `at` of the volume; NOWHERE: a hole."""

    first: int
    clusters: int
    at: int


class Content(msgspec.Struct):
    """A stream. `resident` holds its bytes, or it is None and `spans` are ascending and without a gap. Sizes in bytes."""

    size: int
    initialized: int
    flags: int
    unit: int
    resident: bytes | None
    spans: list[Span]

    @property
    def mapped(self) -> int:
        """Clusters that the spans tell of."""
        return self.spans[-1].first + self.spans[-1].clusters if self.spans else 0


def decode(runs: bytes, first: int, clusters: int, what: str) -> list[Span]:
    """The spans of one run list. Corrupt when one lies outside of the volume, or the list is cut."""
    found: list[Span] = []
    at = here = 0
    end = len(runs)
    while at < end and runs[at]:
        sizes = runs[at]
        length, offset = sizes & 15, sizes >> 4
        if not 0 < length <= 8 or offset > 8 or at + 1 + length + offset > end:
            raise Corrupt("a run list is cut", what)
        at += 1
        count = int.from_bytes(runs[at : at + length], "little")
        at += length
        where = NOWHERE
        if offset:
            here += int.from_bytes(runs[at : at + offset], "little", signed=True)
            at += offset
            where = here
            if not 0 <= here <= clusters - count:
                raise Corrupt("a run lies outside of its volume", f"{what}: {count} clusters at {here} of {clusters}")
        if not 0 < count < 1 << 48 or first >= 1 << 48:
            raise Corrupt("a run has an impossible length", f"{what}: {count} clusters")
        found.append(Span(first, count, where))
        first += count
    return found


def gather(parts: Iterable[Attribute], clusters: int, what: str) -> Content:
    """One stream of the attributes that hold its parts. Corrupt when parts are missing or do not fit together."""
    ordered = sorted(parts, key=lambda part: part.first)
    head = ordered[0]
    if head.resident:
        return Content(len(head.value), len(head.value), head.flags, 0, head.value, [])
    spans: list[Span] = []
    expected = 0
    for part in ordered:
        if part.resident or part.first != expected:
            raise Corrupt("a part of a stream is missing", f"{what}: from cluster {expected} on")
        spans += decode(part.value, part.first, clusters, what)
        if len(spans) > MOST_SPANS:
            raise TooMuch("a stream is in more pieces than can be kept", f"{what}: {len(spans)}")
        expected = spans[-1].first + spans[-1].clusters if spans else 0
    return Content(head.size, min(head.initialized, head.size), head.flags, head.unit, None, spans)


def segments(content: Content, offset: int, length: int, cluster: int, most: int, what: str) -> list[Segment]:
    """At most about `most` segments of a stream that is neither compressed nor encrypted; less than asked for at its end."""
    end = min(offset + length, content.size)
    if offset >= end:
        return []
    if content.resident is not None:
        return [Literal(content.resident[offset:end])]
    made: list[Segment] = []
    stored = min(end, content.initialized)
    spans = content.spans
    index = max(bisect_right(spans, (offset // cluster, 1 << 62, 0)) - 1, 0)
    while offset < stored and len(made) < most:
        if index == len(spans) or offset >= (spans[index].first + spans[index].clusters) * cluster:
            if made:
                return made
            raise Corrupt("a stream is longer than what it has", f"{what}: {content.size} bytes, mapped {offset}")
        span = spans[index]
        within = offset - span.first * cluster
        count = min(span.clusters * cluster - within, stored - offset)
        made.append(Hole(count) if span.at == NOWHERE else Extent(0, span.at * cluster + within, count))
        offset += count
        index += 1
    if offset >= stored and offset < end:
        made.append(Hole(end - offset))
    return made


def read(volume: Volume, content: Content, offset: int, length: int, cluster: int, what: str) -> bytes:
    """Exactly so many bytes of a structure. Corrupt when it has not so many."""
    found = segments(content, offset, length, cluster, MOST_SPANS, what)
    if sum(segment.length for segment in found) != length:
        raise Corrupt("a structure is shorter than it should be", f"{what}: {length} bytes at {offset}")
    return read_segments([volume], found)
