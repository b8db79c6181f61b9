# SPDX-License-Identifier: Apache-2.0
"""What a selection holds, file by file, each with its place in an archive.

Items of one folder keep their names; items of several keep their whole path, below their volume's id if there are several volumes,
and below their point's if there are several points. An item that stands within another one comes once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from flr.errors import RecoveryError
from flr.fs.base import Attributes
from flr.fs.table import unpack
from flr.recovery.basket import Item
from flr.recovery.recovery import OpenPoint, Recovery
from flr.walk import walk

Path = tuple[bytes, ...]
Problem = Callable[[Path, str], None]


class Member(NamedTuple):
    """`place` are the parts of its path in an archive; `path` is where it stands on its volume."""

    place: Path
    path: bytes
    found: Attributes


class Source(NamedTuple):
    """Items of one volume, with the parts that their paths begin with in an archive."""

    point: str
    volume: str
    items: list[tuple[Path, Item]]


def sources(items: Sequence[Item]) -> list[Source]:
    """By volume; the items in their paths' order, without those that another one has in it."""
    volumes = dict.fromkeys((item.point, item.volume) for item in items)
    parents = {(item.point, item.volume, item.path.rpartition(b"/")[0]) for item in items}
    several_points = len({point for point, _ in volumes}) > 1
    made = []
    for point, volume in volumes:
        mine = sorted(  # by parts: what is in a folder comes right behind it, and `a-b` not before `a/c`
            (item for item in items if (item.point, item.volume) == (point, volume)),
            key=lambda item: item.path.split(b"/"),
        )
        above: Path = ()
        if len(parents) > 1:
            above = (point.encode(),) if several_points else ()
            above += (volume.encode(),) if len(volumes) > 1 else ()
        kept: list[tuple[Path, Item]] = []
        last = b""
        for item in mine:
            if last and item.path.startswith(last):
                continue
            parts = tuple(part for part in item.path.split(b"/") if part) or (volume.encode(),)
            kept.append((above + (parts if len(parents) > 1 else parts[-1:]), item))
            last = item.path.rstrip(b"/") + b"/" if item.found.is_directory else b""
        made.append(Source(point, volume, kept))
    return made


def members(point: OpenPoint, source: Source, problem: Problem) -> Iterator[Member]:
    """Folders come before what is in them. What cannot be read is told and left out."""
    for place, item in source.items:
        if not item.found.is_directory:
            yield Member(place, item.path, item.found)
            continue

        def odd(where: bytes, error: RecoveryError, top: Path = place, path: bytes = item.path) -> None:
            problem(_below(top, path, where), str(error))

        for part in walk(point.session, source.volume, item.found, item.path, odd):
            inside = _below(place, item.path, part.path)
            if part.first:
                yield Member(inside, part.path.rstrip(b"/") or b"/", part.folder)
            for entry in unpack(part.table).entries:
                if entry.attributes is None:
                    problem((*inside, entry.name), entry.problem)
                elif not entry.attributes.is_directory:
                    yield Member((*inside, entry.name), part.path + entry.name, entry.attributes)


def all_members(
    recovery: Recovery, items: Sequence[Item], problem: Problem
) -> Iterator[tuple[OpenPoint, Source, Member]]:
    """Of all sources; each point is open while its members come."""
    for source in sources(items):
        with recovery.using(source.point) as opened:
            for member in members(opened, source, problem):
                yield opened, source, member


def _below(top: Path, path: bytes, where: bytes) -> Path:
    rest = where[len(path.rstrip(b"/")) :]
    return top + tuple(part for part in rest.split(b"/") if part)
