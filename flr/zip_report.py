# SPDX-License-Identifier: Apache-2.0
"""The text that is a zip's last file: what was renamed, what was left out, and which files could not be read.

The first two are known before the first byte is sent, the last is not, and a zip's length is promised by then. So room is kept for
it: a line for each file, up to ENOUGH of them. What is not needed of it becomes line ends, what does not fit is counted. All of
it is bounded, whatever a guest has: of renames and of what was left out, too, what is over is counted.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from flr.printable import printable, shown

NAME = "_RESTORE_REPORT.txt"
MOST_BYTES = 512 << 10
"""Of all renames, and of all that was left out."""
ALWAYS, LINE, ENOUGH = 1024, 256, 1000
"""Bytes of room in any case, and for each of at most ENOUGH files."""
LONGEST_REASON, LONGEST_PATH = 120, 300
"""Characters; of a longer path its end is told."""
_SHORTEST_LINE = 50
KEPT = (ALWAYS + LINE * ENOUGH) // _SHORTEST_LINE
"""Problems that there can be room for."""


def room(files: int) -> int:
    """Bytes."""
    return ALWAYS + LINE * min(files, ENOUGH)


class Report:
    """What is known beforehand. `title` is the first line, the same for the same files: the zip's ETag depends on it."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._renamed = _Lines()
        self._left_out = _Lines()

    def renamed(self, old: bytes, new: str) -> None:
        """A guest's path, and the safe one."""
        self._renamed.add(f"  {shown(old)}\r\n    -> {new}\r\n")

    def left_out(self, path: bytes, why: str) -> None:
        self._left_out.add(f"  {shown(path)}: {printable(why, LONGEST_REASON)}\r\n")

    def text(self, files: int, folders: int, size: int) -> bytes:
        """`size` is all files' together, in bytes."""
        return (
            f"{self._title}\r\n{files} files and {folders} folders, {size} bytes\r\n\r\n"
            + self._renamed.text("Renamed, so that every computer can keep them", "No name was changed.")
            + self._left_out.text("Left out", "Nothing was left out.")
        ).encode("utf-8", "replace")


class _Lines:
    def __init__(self) -> None:
        self._count = self._over = 0
        self._text = bytearray()

    def add(self, line: str) -> None:
        self._count += 1
        encoded = line.encode("utf-8", "replace")
        if len(self._text) + len(encoded) > MOST_BYTES:
            self._over += 1
        else:
            self._text += encoded

    def text(self, heading: str, none: str) -> str:
        if not self._count:
            return f"{none}\r\n\r\n"
        more = f"  and {self._over} more\r\n" if self._over else ""
        return f"{heading} ({self._count}):\r\n{self._text.decode()}{more}\r\n"


class Problems:
    """What was found while files were read: of each file the first place that could not be. Safe for many threads."""

    def __init__(self, files: int) -> None:
        self._lock = threading.Lock()
        self._odd = bytearray(files)
        self._kept: dict[int, tuple[int, str]] = {}

    def add(self, file: int, place: int, why: str) -> bool:
        """Whether it is the first of this file that is told."""
        with self._lock:
            first = not self._odd[file]
            self._odd[file] = 1
            self._kept[file] = min(self._kept.get(file, (place, why)), (place, why))
            if len(self._kept) > 2 * KEPT:  # there is room for the first ones only
                self._kept = dict(sorted(self._kept.items())[:KEPT])
            return first

    def text(self, size: int, line: Callable[[int, int, str], str]) -> bytes:
        """`size` bytes of it; `line` says it of a file, a place in it, and why."""
        with self._lock:
            kept, count = sorted(self._kept.items()), sum(self._odd)
        if not count:
            return _filled(b"Every file could be read to its end.\r\n", size)
        made = f"Not read as they should be ({count}):\r\n".encode()
        for told, (file, (place, why)) in enumerate(kept):
            encoded = f"  {line(file, place, why)}\r\n".encode("utf-8", "replace")
            more = f"  and {count - told} more: there was no room for them\r\n".encode()
            if len(made) + len(encoded) + len(more) > size:
                return _filled(made + more, size)
            made += encoded
        return _filled(made, size)


def _filled(text: bytes, size: int) -> bytes:
    return text + b"\r\n" * ((size - len(text)) // 2) + b"\n" * ((size - len(text)) % 2)


def line(path: str, size: int, lost: int, place: int, why: str) -> str:
    """What is told of a file of which `lost` bytes could not be read, the first of them at `place`."""
    short = path if len(path) <= LONGEST_PATH else "..." + path[-LONGEST_PATH:]
    if lost:
        why = f"{lost} of {size} bytes could not be read and are zeros, from byte {place} on: {why}"
    return f"{short}: {printable(why, 2 * LONGEST_REASON)}"
