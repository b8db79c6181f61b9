# SPDX-License-Identifier: Apache-2.0
"""A selection as a zip: made ready first (every file's size and safe name), fetched then, whole or from anywhere.

What was renamed, left out or could not be read stands in the zip's last file. Not here: the zip's bytes (`flr.zip`), safe names
(`flr.safe_names`).
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Callable, Iterator, Sequence

from flr.blocks import Hole
from flr.errors import RecoveryError
from flr.fs.base import Node
from flr.printable import shown
from flr.recovery.basket import Item
from flr.recovery.recovery import Recovery
from flr.recovery.selection import Path, all_members
from flr.safe_names import SafeNames
from flr.zip import Layout, Member
from flr.zip_report import NAME, Report

_SOURCE = struct.Struct("<HQI")
"""Number of the volume, node: where a member's content is."""
Problem = Callable[[str, str], None]


class Zipball:
    """`prepare` first. `problem` is told a path and what is wrong with it, once for each. `files`: those that it has so far."""

    def __init__(self, recovery: Recovery, items: Sequence[Item], problem: Problem) -> None:
        self._recovery = recovery
        self._items = list(items)
        self._problem = problem
        self._volumes: list[tuple[str, str]] = []
        self._layout: Layout | None = None
        self.files = 0

    def prepare(self, go_on: Callable[[], bool]) -> None:
        """Walks through the selection, for as long as `go_on`. RecoveryError; TooMuch."""
        points = ", ".join(sorted({item.point for item in self._items}))
        report = Report(f"Recovered from {self._recovery.points.resource}, restore point {points}")
        self._layout = Layout(self._members(report, go_on), report)

    def _members(self, report: Report, go_on: Callable[[], bool]) -> Iterator[Member]:
        names = SafeNames(report.renamed, [NAME])

        def leave_out(parts: Path, why: str) -> None:
            path = b"/".join(parts)
            report.left_out(path, why)
            self._problem(shown(path), why)

        for _, source, member in all_members(self._recovery, self._items, leave_out):
            if not go_on():
                raise RecoveryError("the download was given up", "", "make it again")
            found = member.found
            kind = stat.S_IFMT(found.mode)
            if kind == stat.S_IFDIR:
                yield Member(names.path(member.place, folder=True), "folder", 0, found.mode, found.modified, b"")
            elif kind == stat.S_IFREG:
                where = source.point, source.volume
                if not self._volumes or self._volumes[-1] != where:
                    self._volumes.append(where)
                place = _SOURCE.pack(len(self._volumes) - 1, found.number, found.generation)
                self.files += 1
                path = names.path(member.place, folder=False)
                yield Member(path, "file", found.size, found.mode, found.modified, place)
            else:
                what = "a symbolic link" if kind == stat.S_IFLNK else "neither a file nor a folder"
                leave_out(member.place, f"{what}; a tar has it")

    @property
    def size(self) -> int:
        return self._ready().size

    @property
    def etag(self) -> str:
        """Of its bytes, and of whose they are: the same places of another point are other files."""
        return self._ready().etag[:32]

    def read(self, start: int, end: int) -> Iterator[bytes]:
        """Bytes from `start` to `end`; empty pieces come while files are read of which nothing is sent. What the store raises, not
        what a file does."""
        return self._ready().read(start, end, self._content, self._problem)

    def _ready(self) -> Layout:
        if self._layout is None:
            raise RecoveryError("the download is not ready yet")
        return self._layout

    def _content(self, member: Member, at: int) -> Iterator[bytes | Hole]:
        volume, number, generation = _SOURCE.unpack(member.source)
        point, name = self._volumes[volume]
        with self._recovery.using(point) as opened:
            yield from opened.session.content(name, Node(number, generation), member.size, at)
