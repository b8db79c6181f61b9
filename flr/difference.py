# SPDX-License-Identifier: Apache-2.0
"""What became of a folder between two restore points: added, removed, changed and in what, folder by folder.

Files are compared by their attributes; two that have the same size and times count as the same, unless contents are asked for,
which are then compared byte by byte. Renames are not guessed: they are one removed, one added.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from typing import NamedTuple

from flr.blocks import Hole
from flr.errors import RecoveryError
from flr.fs.base import Attributes, Entry, Node
from flr.session import DEEPEST, Session

MOST_OF_A_FOLDER = 500_000
"""Entries; both sides of one folder are held in memory, about 600 bytes each."""


class Side(NamedTuple):
    """A folder of one point."""

    session: Session
    volume: str
    folder: Attributes


class Change(NamedTuple):
    """`what`: added, removed, changed; `how`: what differs. A folder that is added or removed stands for all in it."""

    path: bytes
    what: str
    how: tuple[str, ...]
    old: Attributes | None
    new: Attributes | None


_COMPARED = ("mode", "owner", "group", "modified", "device")


def difference(
    old: Side,
    new: Side,
    path: bytes,
    problem: Callable[[bytes, RecoveryError], None],
    *,
    contents: bool = False,
    step: Callable[[], None] = lambda: None,
) -> Iterator[Change]:
    """In the order of names. `problem` is told what cannot be compared; `step` is called often, to raise when it shall end."""
    seen: set[int] = set()
    todo: list[tuple[bytes, Node, Node, int]] = [(path.rstrip(b"/") + b"/", old.folder.node, new.folder.node, 0)]
    while todo:
        above, one, two, depth = todo.pop()
        try:
            left = _entries(old, one, step)
            right = _entries(new, two, step)
        except RecoveryError as error:
            problem(above, error)
            continue
        below: list[tuple[bytes, Node, Node, int]] = []
        for name in sorted(left.keys() | right.keys()):
            here = above + name
            a, b = left.get(name), right.get(name)
            if a is None or b is None:
                what = "added" if a is None else "removed"
                yield Change(here, what, (), a.attributes if a else None, b.attributes if b else None)
                continue
            if a.attributes is None or b.attributes is None:
                problem(here, RecoveryError("an entry cannot be compared", a.problem or b.problem))
                continue
            try:
                step()
                how = _how(old, new, a.attributes, b.attributes, contents, step)
            except RecoveryError as error:
                problem(here, error)
                continue
            if how:
                yield Change(here, "changed", how, a.attributes, b.attributes)
            if a.attributes.is_directory and b.attributes.is_directory:
                if b.number in seen or depth >= DEEPEST:
                    problem(here, RecoveryError("a folder is met again, or too deep", f"node {b.number}"))
                    continue
                seen.add(b.number)
                below.append((here + b"/", a.attributes.node, b.attributes.node, depth + 1))
        todo.extend(reversed(below))


def _entries(side: Side, node: Node, step: Callable[[], None]) -> dict[bytes, Entry]:
    found: dict[bytes, Entry] = {}
    for entry in side.session.folder(side.volume, node):
        found[entry.name] = entry
        step()
        if len(found) > MOST_OF_A_FOLDER:
            raise RecoveryError("a folder has more entries than can be compared", MOST_OF_A_FOLDER)
    return found


def _how(
    old: Side, new: Side, a: Attributes, b: Attributes, contents: bool, step: Callable[[], None]
) -> tuple[str, ...]:
    if stat.S_IFMT(a.mode) != stat.S_IFMT(b.mode):
        return ("type",)
    how = [name for name in _COMPARED if getattr(a, name) != getattr(b, name)]
    kind = stat.S_IFMT(a.mode)
    if kind == stat.S_IFDIR:
        return tuple(name for name in how if name != "modified")  # what became of its entries is told
    if kind == stat.S_IFLNK and old.session.link(old.volume, a.node) != new.session.link(new.volume, b.node):
        how.append("target")
    if kind == stat.S_IFREG:
        if a.size != b.size:
            how.append("size")
        elif contents and not _same_bytes(old, new, a, b, step):
            how.append("content")
    return tuple(how)


def _same_bytes(old: Side, new: Side, a: Attributes, b: Attributes, step: Callable[[], None]) -> bool:
    left = _Bytes(old, a)
    right = _Bytes(new, b)
    at = 0
    while at < a.size:
        step()
        one, two = left.next(), right.next()
        count = min(len(one), len(two))
        if one[:count] != two[:count]:
            return False
        left.take(count)
        right.take(count)
        at += count
    return True


class _Bytes:
    """A file's content, piece by piece, of which as much is taken as the other file's piece has."""

    def __init__(self, side: Side, attributes: Attributes) -> None:
        self._pieces = side.session.content(side.volume, attributes.node, attributes.size)
        self._hole = 0
        self._data = memoryview(b"")

    def next(self) -> memoryview:
        while not self._data:
            if self._hole:
                return memoryview(_ZEROS)[: min(self._hole, len(_ZEROS))]
            piece = next(self._pieces)
            if isinstance(piece, Hole):
                self._hole = piece.length
            else:
                self._data = memoryview(piece)
        return self._data

    def take(self, count: int) -> None:
        if self._data:
            self._data = self._data[count:]
        else:
            self._hole -= count


_ZEROS = bytes(1 << 20)
