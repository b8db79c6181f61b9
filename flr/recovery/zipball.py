# SPDX-License-Identifier: Apache-2.0
"""A selection as a zip: made ready first (every file's size and safe name), fetched then, whole or from anywhere.

What was renamed and what was left out stands in the report that is the zip's last file. Not here: how a zip's bytes lie
(`flr.recovery.zip_layout`), how they are made (`flr.recovery.zip_stream`).
"""

from __future__ import annotations

import hashlib
import stat
from array import array
from collections.abc import Callable, Iterator, Sequence

from flr.errors import RecoveryError, TooMuch
from flr.fs.base import Node
from flr.printable import shown
from flr.recovery.basket import Item
from flr.recovery.content import file_bytes
from flr.recovery.recovery import Recovery
from flr.recovery.safe_names import SafeNames
from flr.recovery.selection import Path, all_members
from flr.recovery.zip_layout import Layout
from flr.recovery.zip_stream import REPORT_ROOM, ZipStream

REPORT = "_RESTORE_REPORT.txt"
MOST_LINES = 10_000
MOST_MEMBERS = 2_000_000
Problem = Callable[[str, str], None]


class Zipball:
    """`prepare` first. `problem` is told the path within the zip and what is wrong, once for each file."""

    def __init__(self, recovery: Recovery, items: Sequence[Item], problem: Problem) -> None:
        self._recovery = recovery
        self._items = list(items)
        self._problem = problem
        self._layout = Layout()
        self._sources: list[tuple[str, str]] = []
        self._source = array("I")
        self._numbers = array("Q")
        self._generations = array("I")
        self._lines: list[str] = []
        self._more_lines = 0
        self._digest = hashlib.sha256()
        self._stream: ZipStream | None = None
        self.files = 0
        self.content = 0
        """Bytes of all files."""

    def prepare(self, go_on: Callable[[], bool]) -> None:
        """Walks through the selection, for as long as `go_on`. RecoveryError; TooMuch."""
        names = SafeNames(self._rename)
        names.reserve(REPORT)
        for _, source, member in all_members(self._recovery, self._items, self._leave_out):
            if not go_on():
                raise RecoveryError("the download was given up", "", "make it again")
            found = member.found
            kind = stat.S_IFMT(found.mode)
            if kind not in (stat.S_IFREG, stat.S_IFDIR):
                what = "a symbolic link" if kind == stat.S_IFLNK else "neither a file nor a folder"
                self._leave_out(member.place, f"{what}; a tar has it")
                continue
            if len(self._layout) >= MOST_MEMBERS:
                raise TooMuch(
                    "more files than one zip is made of", MOST_MEMBERS, "choose fewer at a time, or take a tar"
                )
            folder = kind == stat.S_IFDIR
            name = names.place(member.place, folder)
            size = 0 if folder else found.size
            modified = (found.modified or 0) // 10**9
            where = source.point, source.volume
            if not self._sources or self._sources[-1] != where:
                self._sources.append(where)
            try:
                self._layout.add(name, size, found.mode, modified, folder)
            except ValueError as error:
                self._leave_out(member.place, str(error))
                continue
            self._source.append(len(self._sources) - 1)
            self._numbers.append(found.number)
            self._generations.append(found.generation)
            self._digest.update(
                repr((where, found.number, found.generation, name, size, modified, found.mode)).encode()
            )
            self.files += not folder
            self.content += size
        report = self._fixed_report()
        self._layout.add(REPORT, len(report) + REPORT_ROOM, stat.S_IFREG | 0o644, 0, False)
        self._digest.update(report)
        self._stream = ZipStream(self._layout, self._file, report, self._problem)

    def _rename(self, parts: Path, name: str) -> None:
        self._line(f"renamed: {shown(b'/'.join(parts))} -> {name}")

    def _leave_out(self, parts: Path, text: str) -> None:
        path = shown(b"/".join(parts))
        self._line(f"left out: {path}: {text}")
        self._problem(path, text)

    def _line(self, text: str) -> None:
        if len(self._lines) < MOST_LINES:
            self._lines.append(text)
        else:
            self._more_lines += 1

    def _fixed_report(self) -> bytes:
        points = sorted({point for point, _ in self._sources})
        head = [
            f"Recovered from {self._recovery.points.resource}, restore point {', '.join(points) or '-'}",
            f"{self.files} files, {self.content} bytes",
            "",
            *self._lines,
        ]
        if self._more_lines:
            head.append(f"and {self._more_lines} more lines of this kind")
        return "".join(line + "\r\n" for line in head).encode("utf-8", "replace")

    @property
    def size(self) -> int:
        return self._layout.size

    @property
    def etag(self) -> str:
        return self._digest.hexdigest()[:32]

    def read(self, start: int, end: int) -> Iterator[bytes]:
        """Bytes from `start` to `end`. What the store raises, not what a file does."""
        if self._stream is None:
            raise RecoveryError("the download is not ready yet")
        return self._stream.read(start, end)

    def _file(self, index: int, start: int, end: int) -> Iterator[bytes]:
        point, volume = self._sources[self._source[index]]
        node = Node(self._numbers[index], self._generations[index])
        with self._recovery.using(point) as opened:
            yield from file_bytes(opened.session, volume, node, self._layout.sizes[index], start, end)
