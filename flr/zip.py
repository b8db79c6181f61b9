# SPDX-License-Identifier: Apache-2.0
"""Files and folders as a zip whose every byte has its place before the first one is sent: so it has a length, and any part of it
can be fetched, in any order, again, and several at a time.

A `Layout` is made of what there is; contents come when they are read. What a checksum needs and was not read yet is read then, and
what was read is remembered: a download that was cut goes on without reading finished files again. Where a file cannot be read it
is filled with zeros (`flr.zip_content`) and told of, also in the zip's last file (`flr.zip_report`), for which all files
must be read. Symbolic links are left out unless they are asked for: an unpacker that follows one writes wherever it leads.
Safe for many threads once it is made. Not here: safe names (`flr.safe_names`), bytes of records (`flr.zip_records`), HTTP.
"""

from __future__ import annotations

import hashlib
import stat
import struct
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

from flr import zip_records
from flr.blocks import Hole
from flr.errors import TooMuch
from flr.zip_content import Contents, File, Pieces, sections
from flr.zip_report import NAME, Problems, Report, line, room

VERSION = 1
"""Of what is made of the same members: other bytes need another one, so that no download goes on with them."""
MOST_MEMBERS = 5_000_000
MOST_BYTES = 64 << 40
"""Of contents, holes included: as many as Azure's largest disk has."""
MOST_TEXT = 256 << 20
"""Bytes of names and sources: paths of a hostile guest have up to 64 KiB each."""
PIECE = 256 << 10
"""Bytes that are handed on at a time, at least."""
PAUSE = 16
"""Sections or files that are read without any of it being sent, until an empty piece is handed on."""
Kind = Literal["file", "folder", "link"]
_TYPES: dict[Kind, int] = {"file": stat.S_IFREG, "folder": stat.S_IFDIR, "link": stat.S_IFLNK}
_RIGHTS = 0o777
"""Set-uid and its like are not for another machine."""
_NEVER, _LAST = -(1 << 63), (1 << 63) - 1
"""In ns: no time at all, and 2262."""


@dataclass(frozen=True, slots=True)
class Member:
    """`path` is safe, relative and without a slash at its end; `size` in bytes, of a link its target's; `mode` POSIX's, of which
    the rights are kept; `modified` in ns since 1970, or None. `source` is the caller's: by it the content is found again, and
    the zip's ETag changes with it."""

    path: str
    kind: Kind
    size: int
    mode: int
    modified: int | None
    source: bytes


Content = Callable[[Member, int], Iterator[bytes | Hole]]
"""A member's bytes from a place to its end, in pieces of any size. RecoveryError where they cannot be read; any other error ends
the range, and nothing of it is remembered."""
Problem = Callable[[str, str], None]
"""Told once of each member that does not read as it should: its path, and why."""


class Layout:
    """`size` in bytes; `etag` names the bytes, without quotes; `files`, `folders` and `content_size` (bytes) without the report.

    `report` is told what the caller renamed and left out until the last of `members` came; `modified` is its time in the zip. Takes
    about 100 bytes of memory a member. TooMuch."""

    def __init__(
        self, members: Iterable[Member], report: Report, *, links: bool = False, modified: int | None = None
    ) -> None:
        self.files = self.folders = self.content_size = 0
        self._text = bytearray()  # of each member its name and its source
        self._names = array("Q")  # where the name ends
        self._sources = array("Q", [0])  # where the source of the one before it ends
        self._parents: list[bytes] = [b""]  # folders' paths, with a slash at the end
        self._parents_size = 0
        self._parent = array("I")
        self._modes = array("H")
        self._sizes = array("Q")
        self._times = array("q")
        self._sections = array("I", [0])  # the first one of each member, and of what comes next
        self._offsets = array("Q", [0])  # likewise
        self._entries = array("Q", [0])  # likewise, within the directory
        digest = hashlib.sha256(b"%d" % VERSION)
        for member in members:
            self._add(member, report, links, digest.update)
        text = report.text(self.files, self.folders, self.content_size)
        digest.update(text)
        self._report, self._known_text = len(self._modes), text
        self._room = room(self.files)
        self._append(Member(NAME, "file", len(text) + self._room, 0o644, modified, b""), digest.update)
        self.etag = digest.hexdigest()
        self._directory = self._offsets[-1]
        self._end = zip_records.end(len(self._modes), self._entries[-1], self._directory)
        self.size = self._directory + self._entries[-1] + len(self._end)
        self._contents = Contents(self._sections[-1])
        self._problems = Problems(self._report)
        self._read_until = 0  # members before it are settled
        self._whole_report = b""

    def read(self, start: int, end: int, content: Content, problem: Problem) -> Iterator[bytes]:
        """Bytes from `start` to `end`, in pieces. While files are read of which nothing is sent, empty ones come now and then, so
        that whoever sends may stop. Unreadable when a file reads differently than for an earlier range; what `content` raises."""
        if not 0 <= start <= end <= self.size:
            raise ValueError(f"bytes {start} to {end} of {self.size}")
        return _gathered(self._parts(start, end, content, problem) if start < end else iter(()))

    # -- making it

    def _add(self, member: Member, report: Report, links: bool, update: Callable[[bytes], None]) -> None:
        parts = member.path.split("/")
        if member.path == NAME or any(part in ("", ".", "..") for part in parts) or member.size < 0:
            raise ValueError(f"not a member: {member}")
        if member.kind == "link" and not links:
            report.left_out(member.path.encode(), "a symbolic link")
        elif len(member.path.encode()) >= zip_records.LONGEST_PATH:
            report.left_out(member.path.encode(), "its path is longer than a zip can hold")
        elif member.size > MOST_BYTES:
            report.left_out(member.path.encode(), f"it says that it has {member.size} bytes")
        else:
            self._append(member, update)
            self.folders += member.kind == "folder"
            self.files += member.kind != "folder"
            self.content_size += self._sizes[-1]
            names = self._parents_size + len(self._text)
            if len(self._modes) > MOST_MEMBERS or self.content_size > MOST_BYTES or names > MOST_TEXT:
                most = f"{MOST_MEMBERS} files, {MOST_BYTES} bytes in them, {MOST_TEXT} bytes of names"
                raise TooMuch("more than one zip is made of", most, "choose fewer at a time, or take a tar")

    def _append(self, member: Member, update: Callable[[bytes], None]) -> None:
        folder, slash, name = member.path.encode().rpartition(b"/")
        if folder + slash != self._parents[-1]:
            self._parents.append(folder + slash)
            self._parents_size += len(folder + slash)
        size = 0 if member.kind == "folder" else member.size
        mode = _TYPES[member.kind] | member.mode & _RIGHTS
        length = len(folder + slash + name) + (member.kind == "folder")
        at = self._offsets[-1]
        self._text += name
        self._names.append(len(self._text))
        self._text += member.source
        self._sources.append(len(self._text))
        self._parent.append(len(self._parents) - 1)
        self._modes.append(mode)
        self._sizes.append(size)
        self._times.append(_NEVER if member.modified is None else min(member.modified, _LAST))
        self._sections.append(self._sections[-1] + sections(size))
        whole = zip_records.local_size(length, size, member.modified) + zip_records.deflated(size)
        self._offsets.append(at + whole + zip_records.descriptor_size(size))
        self._entries.append(self._entries[-1] + zip_records.central_size(length, size, member.modified, at))
        update(struct.pack("<HQqII", mode, size, self._times[-1], length, len(member.source)))
        update(folder + slash + name + member.source)

    # -- what a member is

    def _path(self, index: int) -> bytes:
        name = self._text[self._sources[index] : self._names[index]]
        return self._parents[self._parent[index]] + name + (b"/" if stat.S_ISDIR(self._modes[index]) else b"")

    def _modified(self, index: int) -> int | None:
        return None if self._times[index] == _NEVER else self._times[index]

    def _member(self, index: int) -> Member:
        mode = self._modes[index]
        return Member(
            self._path(index).decode().rstrip("/"),
            "folder" if stat.S_ISDIR(mode) else "link" if stat.S_ISLNK(mode) else "file",
            self._sizes[index],
            mode,
            self._modified(index),
            bytes(self._text[self._names[index] : self._sources[index + 1]]),
        )

    def _local(self, index: int) -> bytes:
        return zip_records.local(self._path(index), self._sizes[index], self._modified(index))

    def _crc(self, index: int) -> int:
        return self._contents.crc(self._sections[index], self._sizes[index])

    def _central(self, index: int) -> bytes:
        return zip_records.central(
            self._path(index),
            self._sizes[index],
            self._modified(index),
            self._offsets[index],
            self._modes[index],
            self._crc(index),
        )

    # -- reading it

    def _parts(self, start: int, end: int, content: Content, problem: Problem) -> Iterator[bytes]:
        count = len(self._modes)
        index = bisect_right(self._offsets, start) - 1
        while index < count and self._offsets[index] < end:
            begin, following = self._offsets[index], self._offsets[index + 1]
            yield from self._part(index, max(start, begin) - begin, min(end, following) - begin, content, problem)
            index += 1
        index = max(0, bisect_right(self._entries, start - self._directory) - 1)
        while index < count and self._directory + self._entries[index] < end:
            begin = self._directory + self._entries[index]
            yield from self._settle(index, content, problem)
            yield self._central(index)[max(0, start - begin) : end - begin]
            index += 1
        begin = self.size - len(self._end)
        if end > begin:
            yield self._end[max(0, start - begin) : end - begin]

    def _part(self, index: int, start: int, end: int, content: Content, problem: Problem) -> Iterator[bytes]:
        """Of a member, what stands before its content, its content, and what stands behind it."""
        size = self._sizes[index]
        head = self._local(index)
        if start < len(head):
            yield head[start:end]
        start, end = max(0, start - len(head)), end - len(head)
        packed = zip_records.deflated(size)
        if start < min(end, packed):
            first, last = (zip_records.content_place(place, size) for place in (start, min(end, packed)))
            if index == self._report and last > len(self._known_text):
                yield from self._finish_report(content, problem)
            file = self._file(index, content, problem)
            try:
                yield from zip_records.framed(self._contents.read(file, first, last), size, start, min(end, packed))
            finally:
                file.pieces.close()
        if end > packed:
            yield from self._settle(index, content, problem)
            yield zip_records.descriptor(size, self._crc(index))[max(0, start - packed) : end - packed]

    def _file(self, index: int, content: Content, problem: Problem) -> File:
        if index == self._report:
            own = self._known_text + self._whole_report  # the second one is there when it is asked for
            pieces = Pieces(lambda at: iter((own[at:],)))
            return File(
                NAME, self._sections[index], self._sizes[index], pieces, lambda at, why: False, lambda why: None
            )
        member = self._member(index)
        pieces = Pieces(partial(content, member))
        odd, tell = partial(self._problems.add, index), partial(problem, member.path)
        return File(member.path, self._sections[index], member.size, pieces, odd, tell)

    def _settle(self, index: int, content: Content, problem: Problem) -> Iterator[bytes]:
        """Reads what a member's checksum needs and was not read yet."""
        if self._contents.is_settled(self._sections[index], self._sizes[index]):
            return
        if index == self._report:
            yield from self._finish_report(content, problem)
        file = self._file(index, content, problem)
        try:
            yield from self._contents.settle(file)
        finally:
            file.pieces.close()

    def _finish_report(self, content: Content, problem: Problem) -> Iterator[bytes]:
        """It tells of all files, so all must be read."""
        for index in range(self._read_until, self._report):
            yield from self._settle(index, content, problem)
            self._read_until = max(self._read_until, index + 1)
        self._whole_report = self._problems.text(self._room, self._line)

    def _line(self, index: int, place: int, why: str) -> str:
        path, size = self._path(index).decode(), self._sizes[index]
        return line(path, size, self._contents.lost(self._sections[index], size), place, why)


def _gathered(parts: Iterator[bytes]) -> Iterator[bytes]:
    """In pieces that are worth sending: of small files there are many small parts."""
    held: list[bytes] = []
    size = empty = 0
    for part in parts:
        held.append(part)
        size += len(part)
        empty += not part
        if size >= PIECE or empty == PAUSE:
            yield held[0] if len(held) == 1 else b"".join(held)
            held.clear()
            size = empty = 0
    if held:
        yield b"".join(held)
