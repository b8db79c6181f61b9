# SPDX-License-Identifier: Apache-2.0
"""Through a whole tree, folder by folder, whatever a guest made of it: every folder once, no deeper than DEEPEST, no more than MOST
entries. What cannot be read is told and left out. Not here: what is kept of it (`flr.catalogue`).
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from flr.errors import RecoveryError
from flr.fs.base import Attributes, Entry, Listing
from flr.fs.table import Table, attributes, pack
from flr.session import DEEPEST, Session

MOST = 200_000_000
"""Entries of one walk: more than a sound file system of a worker's largest disk has."""


class Part(NamedTuple):
    """Some entries of a folder, which stands at `path` (with a slash at its end); of each folder there is a `first` one, perhaps an
    empty one."""

    folder: Attributes
    path: bytes
    table: Table
    first: bool


AT_ONCE, SMALL = 16, 256
"""Folders that are asked for by one question, and how many entries of each: a small folder costs hardly more than its entries."""
Problem = Callable[[bytes, RecoveryError], None]
"""Told the path and what is wrong."""


def walk(session: Session, volume: str, start: Attributes, path: bytes, problem: Problem) -> Iterator[Part]:
    """All folders from `start` on, which is one and stands at `path`; what is within a folder comes before its neighbours."""
    seen = {start.number}
    todo: list[tuple[bytes, Attributes, int]] = [(path.rstrip(b"/") + b"/", start, 0)]
    known: dict[int, Table | RecoveryError] = {}
    left = MOST
    while todo and left > 0:
        above, folder, depth = todo.pop()
        if folder.number not in known:
            asked = [folder, *(near for _, near, _ in todo[:-AT_ONCE:-1] if near.number not in known)]
            try:
                answers = session.tables(volume, [one.node for one in asked], SMALL)
            except RecoveryError:  # not of one folder: perhaps the parser died of one of them
                answers = [_alone(session, volume, one) for one in asked]
            known.update(zip((one.number for one in asked), answers, strict=True))
        below: list[tuple[bytes, Attributes, int]] = []
        first = True
        for table in _parts(session, volume, folder, known.pop(folder.number), above, problem):
            yield Part(folder, above, table, first)
            first = False
            left -= len(table.names)
            for name, inside in _folders(table):
                if inside.number in seen:
                    problem(above + name, RecoveryError("a folder stands in more than one place", inside.number, TWICE))
                elif depth >= DEEPEST:
                    problem(above + name, RecoveryError("folders are too deep within each other", DEEPEST, TOO_DEEP))
                else:
                    seen.add(inside.number)
                    below.append((above + name + b"/", inside, depth + 1))
            if left <= 0:
                break
        todo.extend(reversed(below))
    if left <= 0:
        problem(path, RecoveryError("there are more entries than a walk goes through", MOST))


def _alone(session: Session, volume: str, folder: Attributes) -> Table | RecoveryError:
    """The folder by itself, after a question for several failed."""
    try:
        return session.table(volume, folder.node, 0, SMALL)
    except RecoveryError as error:
        return error


def _parts(
    session: Session, volume: str, folder: Attributes, table: Table | RecoveryError, path: bytes, problem: Problem
) -> Iterator[Table]:
    """All of a folder whose first part is known; what cannot be read is told, and at least one part comes."""
    if isinstance(table, RecoveryError):
        problem(path, table)
        yield Table([], b"", {}, None)
        return
    yield table
    if table.cursor is not None:
        try:
            yield from session.parts(volume, folder.node, table.cursor)
        except RecoveryError as error:
            problem(path, error)


def _folders(table: Table) -> list[tuple[bytes, Attributes]]:
    rows = table.columns()
    places = np.flatnonzero(rows["mode"] & 0o170000 == stat.S_IFDIR).tolist()
    return [
        (table.names[k], found)
        for k, found in zip(places, attributes(rows[places]), strict=True)
        if k not in table.problems
    ]


TWICE = "it was entered where it was met first; a sound file system has no such folder"
TOO_DEEP = "ask for that folder itself to go on from there"


def everything(
    session: Session, volume: str, start: Attributes, path: bytes, problem: Problem
) -> Iterator[tuple[int | list[int], Table]]:
    """Entries with the number of their folder, or of one each, in the order that costs the fewest requests: a scan where a whole
    volume is wanted and can be scanned, else a walk."""
    cursor: int | None = 0
    if start.number == session.open(volume).root.number:
        try:
            while cursor is not None:
                scan = session.scan(volume, cursor)
                if scan is None:
                    break
                pairs = [
                    (folder.number, name, found.attributes) for found in scan.found for folder, name in found.names
                ]
                entries = [Entry(name, found.number, found) for _, name, found in pairs]
                yield [folder for folder, _, _ in pairs], pack(Listing(entries, None))
                cursor = scan.cursor
        except RecoveryError as error:
            problem(path, error)
            return
        if cursor is None:
            return
    for part in walk(session, volume, start, path, problem):
        yield part.folder.number, part.table
