# SPDX-License-Identifier: Apache-2.0
"""Through a whole tree, folder by folder, whatever a guest made of it: every folder once, no deeper than DEEPEST, no more than MOST
entries. What cannot be read is told and left out. Not here: what is kept of it (`flr.catalogue`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from flr.errors import RecoveryError
from flr.fs.base import Attributes, Node
from flr.fs.table import Table
from flr.session import DEEPEST, Session

MOST = 200_000_000
"""Entries of one walk: more than a sound file system of a worker's largest disk has."""


class Part(NamedTuple):
    """Some entries of a folder; `path` is the folder's, with a slash at its end."""

    folder: Node
    path: bytes
    table: Table


Problem = Callable[[bytes, RecoveryError], None]
"""Told the path and what is wrong."""


def walk(session: Session, volume: str, start: Attributes, path: bytes, problem: Problem) -> Iterator[Part]:
    """All folders from `start` on, which is one and stands at `path`, each before those within it."""
    seen = {start.number}
    todo: list[tuple[bytes, Node, int]] = [(path.rstrip(b"/") + b"/", start.node, 0)]
    left = MOST
    while todo and left > 0:
        above, node, depth = todo.pop()
        below: list[tuple[bytes, Node, int]] = []
        cursor: int | None = 0
        while cursor is not None and left > 0:
            try:
                table = session.table(volume, node, cursor)
            except RecoveryError as error:
                problem(above, error)
                break
            yield Part(node, above, table)
            left -= len(table.names)
            rows = table.columns()
            kinds = (rows["mode"] & 0o170000 == 0o040000).nonzero()[0].tolist()
            for k in kinds:
                if k in table.problems:
                    continue
                number, inside = int(rows[k]["number"]), above + table.names[k] + b"/"
                if number in seen:
                    problem(inside, RecoveryError("a folder stands in more than one place", f"node {number}", TWICE))
                elif depth >= DEEPEST:
                    problem(inside, RecoveryError("folders are too deep within each other", f"{DEEPEST}", TOO_DEEP))
                else:
                    seen.add(number)
                    below.append((inside, Node(number, int(rows[k]["generation"])), depth + 1))
            cursor = table.cursor
        todo.extend(reversed(below))
    if left <= 0:
        problem(path, RecoveryError("there are more entries than a walk goes through", MOST))


TWICE = "it was entered where it was met first; a sound file system has no such folder"
TOO_DEEP = "ask for that folder itself to go on from there"
