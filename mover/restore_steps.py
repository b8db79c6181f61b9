# SPDX-License-Identifier: Apache-2.0
"""What a restore makes of a disk's map, in order: ranges of zeros, frames that one request fetches, blocks that one write takes.

Nothing is carried out here: `restore` does that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from mover.repository.map_store import MapReader
from mover.repository.maps import PAGE_BLOCKS, MapEntry, Page
from mover.repository.pack import Place

T = TypeVar("T")
FETCH_BYTES = 8 * 1024 * 1024
GAP_BYTES = 128 * 1024
"""Bytes between two wanted frames that cost less to read than another request."""
WINDOW_PAGES = 4
MOST_BLOCKS = 16
"""Blocks of one frame that are written by one task."""


@dataclass(slots=True)
class Want:
    """A frame, and the blocks that it belongs to."""

    entry: MapEntry
    blocks: list[int]


class Zeros(NamedTuple):
    """Blocks from `start` to `end` are zero."""

    start: int
    end: int


def steps(reader: MapReader) -> Iterator[Zeros | list[Want] | None]:
    """In the order of pages; within a window of pages, of packs. None before each page: to fetch it takes its time."""
    pages = len(reader.root.pages)
    for first in range(0, pages, WINDOW_PAGES):
        wants: dict[MapEntry, Want] = {}  # a place alone does not say which chunk a block wants of it
        zero_from: int | None = None
        for number in range(first, min(first + WINDOW_PAGES, pages)):
            yield None
            for block, entry in enumerate(page_of(reader, number).entries, number * PAGE_BLOCKS):
                if entry is None:
                    zero_from = block if zero_from is None else zero_from
                    continue
                if zero_from is not None:
                    yield Zeros(zero_from, block)
                    zero_from = None
                wants.setdefault(entry, Want(entry, [])).blocks.append(block)
        if zero_from is not None:
            yield Zeros(zero_from, min((first + WINDOW_PAGES) * PAGE_BLOCKS, reader.root.blocks))
        often = [want for want in wants.values() if len(want.blocks) > MOST_BLOCKS]
        for want in often:  # many writers for them, of which none is long at it
            for at in range(0, len(want.blocks), MOST_BLOCKS):
                yield [Want(want.entry, want.blocks[at : at + MOST_BLOCKS])]
        rest = (want for want in wants.values() if len(want.blocks) <= MOST_BLOCKS)
        yield from neighbours(sorted(rest, key=_place))


def page_of(reader: MapReader, number: int) -> Page:
    """A page of a disk's map; one that is not stored is all zeros."""
    return reader.page(number) or Page([None] * reader.root.page_blocks(number))


def _place(want: Want) -> Place:
    return want.entry.place


def length_of(run: list[Want]) -> int:
    """Bytes of the pack from the first frame's beginning to the last one's end."""
    return max(want.entry.place.offset + want.entry.place.length for want in run) - run[0].entry.place.offset


def neighbours(wants: list[Want]) -> Iterator[list[Want]]:
    """`wants` (ascending by place) in groups that one request fetches."""
    group: list[Want] = []
    for want in wants:
        place = want.entry.place
        if group:
            first, last = group[0].entry.place, group[-1].entry.place
            gap = place.offset - (last.offset + last.length)
            if place.pack != last.pack or gap > GAP_BYTES or place.offset + place.length - first.offset > FETCH_BYTES:
                yield group
                group = []
        group.append(want)
    if group:
        yield group


def in_disk_order(run: list[Want]) -> list[Want]:
    """What one request fetched, by the disk's blocks: a backup's threads pack neighbours in any order."""
    return sorted(run, key=lambda want: want.blocks[0])


def joined(parts: Iterable[tuple[int, int, T]], most: int) -> Iterator[tuple[int, list[T]]]:
    """Parts (offset, length, data) that follow each other as one (offset, [data]), of at most `most` bytes or of one part."""
    gathered: list[T] = []
    start = end = 0
    for offset, length, data in parts:
        if gathered and (offset != end or offset + length - start > most):
            yield start, gathered
            gathered = []
        start = start if gathered else offset
        end = offset + length
        gathered.append(data)
    if gathered:
        yield start, gathered
