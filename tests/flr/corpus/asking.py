# SPDX-License-Identifier: Apache-2.0
"""Asks a reader for all that it can say of a volume, as somebody does who goes on after every error."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable

import msgspec

from flr.errors import RecoveryError
from flr.fs import base
from flr.fs.base import Attributes, FileSystem, Node

MOST_ENTRIES = 100_000
"""A volume of a few dozen megabytes that is changed in a few bytes must not become one of endless folders. A FAT folder whose chain
goes on in a text file has up to 65,536 entries that look like some."""
LONGEST_MESSAGE = 800


class Asked:
    """What came of it: `entries` seen, `errors` by their class, and a `digest` of every answer. Whatever is no RecoveryError is
    raised."""

    def __init__(self) -> None:
        self.entries = 0
        self.errors: dict[str, int] = {}
        self.digest = hashlib.sha256()

    def ask(self, question: Callable[[], object]) -> object:
        try:
            answer = question()
            self.digest.update(msgspec.msgpack.encode(answer))
            return answer
        except RecoveryError as error:
            problem = error
        assert problem.what
        assert problem.hint
        assert len(str(problem)) < LONGEST_MESSAGE, str(problem)
        self.errors[problem.type] = self.errors.get(problem.type, 0) + 1
        return None


def everything(fs: FileSystem, *, content: bool = True) -> Asked:
    """Every folder, scan, run, link, stream and descriptor; with `content` the beginnings and ends of files too."""
    asked = Asked()
    cursor: int | None = 0
    while cursor is not None:
        scan = asked.ask(lambda c=cursor: fs.scan(c))  # type: ignore[misc]
        cursor = getattr(scan, "cursor", None)
    todo, seen = [fs.root()], {fs.root().number}
    while todo and asked.entries < MOST_ENTRIES:
        node = todo.pop()
        cursor = 0
        while cursor is not None and asked.entries < MOST_ENTRIES:
            listing = asked.ask(lambda n=node, c=cursor: fs.entries(n, c))  # type: ignore[misc]
            following = getattr(listing, "cursor", None)
            assert following is None or following > cursor
            assert len(getattr(listing, "entries", ())) <= base.MOST_ENTRIES
            cursor = following
            for entry in getattr(listing, "entries", ()):
                asked.entries += 1
                assert b"/" not in entry.name
                assert b"\0" not in entry.name
                assert entry.name not in (b"", b".", b"..")
                if entry.attributes is None:
                    assert entry.problem
                elif entry.attributes.is_directory and entry.number not in seen:
                    seen.add(entry.number)
                    todo.append(entry.attributes.node)
                if entry.attributes is not None:
                    _node(fs, asked, entry.attributes, content)
    assert asked.entries < MOST_ENTRIES
    assert len(fs.warnings) <= base.MOST_WARNINGS + 1
    return asked


def _node(fs: FileSystem, asked: Asked, a: Attributes, content: bool) -> None:
    node = Node(a.number, a.generation)
    streams = asked.ask(lambda: fs.streams(node))
    asked.ask(lambda: fs.security(node))
    asked.ask(lambda: fs.xattrs(node))
    if stat.S_ISLNK(a.mode):
        asked.ask(lambda: fs.link(node))
    for stream, size in [(b"", a.size), *((s.name, s.size) for s in (streams or ()))]:  # type: ignore[attr-defined]
        if not stream and not stat.S_ISREG(a.mode):
            continue
        for at in (0, max(size - 5000, 0)):
            runs = asked.ask(lambda at=at, s=stream: fs.map(node, at, 1 << 40, s))  # type: ignore[misc]
            total = sum(run.length for run in runs or ())  # type: ignore[attr-defined]
            assert at + total <= max(size, 0)
            assert runs is None or bool(runs) == (at < size)  # type: ignore[arg-type]
            assert all(run.length > 0 for run in runs or ())  # type: ignore[attr-defined]
            if content:
                asked.ask(lambda at=at, s=stream: fs.read(node, at, 5000, s))  # type: ignore[misc]
