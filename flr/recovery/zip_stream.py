# SPDX-License-Identifier: Apache-2.0
"""Any part of a zip whose layout stands, from the contents of its files: with their checksums, which are found on the way and kept.

A file that cannot be read, or not to its end, is filled with zeros, because its length is promised; it is told, and stands in the
report that is the zip's last file. Safe for many threads: several ranges may be read at the same time.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Iterator

from flr.errors import Corrupt, RecoveryError
from flr.recovery.content import zeros
from flr.recovery.zip_layout import BLOCK, FRAME, Layout, deflated, framed

REPORT_ROOM = 4096
"""Bytes for what is found when the files are read."""
SNAPSHOT = 64 << 20
"""Bytes after which a checksum that grows is noted, so that a download goes on in the middle of a file."""
KEPT_SNAPSHOTS = 64
Content = Callable[[int, int, int], Iterator[bytes]]
"""Bytes of an entry's file from one place to another. RecoveryError where it cannot be read."""


class ZipStream:
    """`layout`'s last entry is the report: `report`, and REPORT_ROOM bytes. `problem` is told an entry's name and what is wrong,
    once for each."""

    def __init__(self, layout: Layout, content: Content, report: bytes, problem: Callable[[str, str], None]) -> None:
        self._layout = layout
        self._file = content
        self._report = report
        self._frozen = b""
        self._problem = problem
        self._lock = threading.Lock()
        self._found: dict[int, tuple[int, str]] = {}  # entry -> (bytes that could be read, why no more)
        self._partial: dict[int, list[tuple[int, int]]] = {}  # entry -> (bytes, checksum of them)

    @property
    def size(self) -> int:
        return self._layout.size

    def read(self, start: int, end: int) -> Iterator[bytes]:
        """Bytes from `start` to `end`. What the store raises, not what a file does."""
        layout = self._layout
        at = start
        while at < min(end, layout.directory):
            index = layout.entry_at(at)
            begins = layout.begins(index)
            for piece in self._cut(self._entry(index, at - begins), end - at):
                at += len(piece)
                yield piece
        while layout.directory <= at < min(end, layout.end):
            index = layout.central_at(at)
            self._know(index)
            for piece in self._cut(iter((layout.central(index)[at - layout.central_begins(index) :],)), end - at):
                at += len(piece)
                yield piece
        if at < end:
            yield layout.last()[at - layout.end : end - layout.end]

    @staticmethod
    def _cut(pieces: Iterator[bytes], most: int) -> Iterator[bytes]:
        for piece in pieces:
            if len(piece) >= most:
                yield piece[:most]
                return
            most -= len(piece)
            yield piece

    def _entry(self, index: int, skip: int) -> Iterator[bytes]:
        """An entry from its byte `skip` on, to its end unless the reader stops."""
        layout = self._layout
        head = layout.local(index)
        if skip < len(head):
            yield head[skip:]
        if layout.is_folder(index):
            return
        size = layout.sizes[index]
        skip = max(0, skip - len(head))
        if skip < deflated(size):
            block, within = divmod(skip, BLOCK + FRAME)
            for piece in framed(self._content(index, block * BLOCK), size, block * BLOCK):
                if within >= len(piece):
                    within -= len(piece)
                    continue
                yield piece[within:]
                within = 0
        skip = max(0, skip - deflated(size))
        self._know(index)
        yield layout.descriptor(index)[skip:]

    def _know(self, index: int) -> None:
        """An entry's checksum; read, as far as it must be, when it is not known."""
        if self._layout.crcs[index] < 0:
            for _ in self._content(index, self._noted(index, self._layout.sizes[index])[0]):
                pass

    def _noted(self, index: int, at: int) -> tuple[int, int]:
        """The last note of a checksum that is not beyond a place: (bytes, checksum)."""
        with self._lock:
            return max((note for note in self._partial.get(index, ()) if note[0] <= at), default=(0, 0))

    def _content(self, index: int, start: int) -> Iterator[bytes]:
        """A file's bytes from `start` on, always as many as it has; its checksum is noted on the way."""
        size = self._layout.sizes[index]
        at, crc = self._noted(index, start)
        known = self._layout.crcs[index] >= 0
        if known:
            at = start
        noted = at
        for piece in self._whole(index, at, size):
            if not known:
                crc = zlib.crc32(piece, crc)
            before, at = at, at + len(piece)
            if not known and at - noted >= SNAPSHOT:
                self._note(index, at, crc)
                noted = at
            if at > start:
                yield piece[max(0, start - before) :]
        if not known:
            with self._lock:
                self._layout.crcs[index] = crc
                self._partial.pop(index, None)

    def _note(self, index: int, at: int, crc: int) -> None:
        with self._lock:
            notes = self._partial.setdefault(index, [])
            notes.append((at, crc))
            del notes[:-KEPT_SNAPSHOTS]
            while len(self._partial) > KEPT_SNAPSHOTS:
                self._partial.pop(next(iter(self._partial)))

    def _whole(self, index: int, start: int, size: int) -> Iterator[bytes]:
        """As much as can be read, then zeros; what could not be read once never is."""
        if index == len(self._layout) - 1:
            yield self._whole_report()[start:]
            return
        with self._lock:
            broken = self._found.get(index)
        end = broken[0] if broken is not None else size
        at = start
        try:
            if at < end:
                for piece in self._file(index, at, end):
                    piece = piece[: end - at]
                    at += len(piece)
                    yield piece
                if at < end:
                    raise Corrupt("a file ends before its size", f"at {at} of {size} bytes")
        except RecoveryError as error:
            text = f"only its first {at} of {size} bytes could be read, the rest is zeros: {error.what}"
            with self._lock:
                first = index not in self._found
                self._found.setdefault(index, (at, text))
            if first:
                self._problem(self._layout.names[index].decode(), text)
        yield from zeros(size - at)

    def _whole_report(self) -> bytes:
        """What was found when the files were read comes behind what was known before; the room for it is filled with line ends.
        Once it was fetched it stays as it is."""
        with self._lock:
            if self._frozen:
                return self._frozen
            found = [
                f"{self._layout.names[index].decode()}: {text}\r\n" for index, (_, text) in sorted(self._found.items())
            ]
        body = b""
        for number, line in enumerate(found):
            rest = f"and {len(found) - number} more: the session's log has them\r\n".encode()
            encoded = line.encode("utf-8", "replace")
            if len(body) + len(encoded) + len(rest) > REPORT_ROOM:
                body += rest
                break
            body += encoded
        if not found:
            body = b"all files could be read\r\n"
        room = REPORT_ROOM - len(body)
        with self._lock:
            self._frozen = self._report + body + b"\r\n" * (room // 2) + b"\n" * (room % 2)
            return self._frozen
