# SPDX-License-Identifier: Apache-2.0
"""What the files of a zip turn out to hold, section by section: their checksums, and where they could not be read.

A section is SECTION bytes of a file. Once it was read, its checksum stays known, and so does the place from which on it could not
be read and is zeros; the next section is tried afresh. So neither depends on the ranges that a zip is fetched in, nor on their
order, and whoever goes on in the middle of a file reads less than a section again. Bytes that were handed out stay what they were:
when a file reads differently later, that is an error of the range, never other bytes.
"""

from __future__ import annotations

import threading
import zlib
from array import array
from collections.abc import Callable, Iterator
from typing import NamedTuple

from flr.blocks import Hole
from flr.crc32 import joined, with_zeros
from flr.errors import Corrupt, RecoveryError, Unreadable
from flr.zip_records import BLOCK

SECTION = 256 * BLOCK
"""Bytes: 16 MiB, about, and whole blocks."""
AT_ONCE = 256 << 10
"""Bytes that go from hand to hand: a processor's cache has them still from the checksum when they are framed."""
MORE = "it goes on behind its size; what stands there is left out"
Piece = bytes | memoryview | Hole


def sections(size: int) -> int:
    """How many a file of `size` bytes has."""
    return -(-size // SECTION)


class Pieces:
    """A file's bytes, wherever they are asked for, from one iterator as long as the places follow each other. `content` gives them
    from a place to the file's end. Belongs to one thread; `close` it."""

    def __init__(self, content: Callable[[int], Iterator[bytes | Hole]]) -> None:
        self._content = content
        self._open: Iterator[bytes | Hole] | None = None
        self._at = 0
        self._rest: Piece = b""

    def take(self, start: int, stop: int) -> Iterator[Piece]:
        """Exactly these. RecoveryError, Corrupt when the file ends before; then go on elsewhere."""
        if self._open is None or start != self._at:
            self.close()
            self._open, self._at = iter(self._content(start)), start
        while self._at < stop:
            piece: Piece | None = self._rest if _length(self._rest) else next(self._open, None)
            if piece is None:
                raise Corrupt("a file ends before its size", f"{self._at} bytes")
            most = stop - self._at
            head, self._rest = _parted(piece, most if isinstance(piece, Hole) else min(most, AT_ONCE))
            self._at += _length(head)
            yield head

    def more(self) -> bool:
        """Whether anything comes behind what was taken."""
        if _length(self._rest):
            return True
        try:
            return self._open is not None and any(_length(piece) for piece in self._open)
        except RecoveryError:
            return False

    def close(self) -> None:
        closing = getattr(self._open, "close", None)
        self._open, self._rest = None, b""
        if closing is not None:
            closing()


class File(NamedTuple):
    """`first` is the number of its first section. `odd` is told of each section that does not read as it should, from where on, and
    why, before anybody can see it as read, and says whether it is the first of the file; then `tell` is told why."""

    path: str
    first: int
    size: int
    pieces: Pieces
    odd: Callable[[int, str], bool]
    tell: Callable[[str], None]


class Contents:
    """Of so many sections. Safe for many threads."""

    def __init__(self, count: int) -> None:
        self._lock = threading.Lock()
        self._known = bytearray(count)
        self._crcs = array("I", bytes(4 * count))
        self._readable = array("I", bytes(4 * count))  # bytes of a known section; else, how many were handed out

    def read(self, file: File, start: int, stop: int) -> Iterator[Piece]:
        """These bytes of a file, with zeros where it could not be read. Unreadable when it reads differently than before; a known
        section's RecoveryError."""
        while start < stop:
            number, within = divmod(start, SECTION)
            until = min(stop - number * SECTION, SECTION)
            if self._known[file.first + number]:
                yield from self._again(file, number, within, until)
            else:
                yield from self._afresh(file, number, within, until)
            start = number * SECTION + until

    def settle(self, file: File) -> Iterator[bytes]:
        """Reads what is not known of a file. Comes by between sections with empty bytes, for whoever wants to give up."""
        for number in range(sections(file.size)):
            if not self._known[file.first + number]:
                length = min(SECTION, file.size - number * SECTION)
                for _ in self._afresh(file, number, length, length):
                    pass
                yield b""

    def is_settled(self, first: int, size: int) -> bool:
        return all(self._known[first : first + sections(size)])

    def crc(self, first: int, size: int) -> int:
        """Of a file that is settled."""
        made = self._crcs[first] if size else 0
        for number in range(1, sections(size)):
            made = joined(made, self._crcs[first + number], min(SECTION, size - number * SECTION))
        return made

    def lost(self, first: int, size: int) -> int:
        """Bytes of a settled file that could not be read."""
        return size - sum(self._readable[first : first + sections(size)])

    # -- one section

    def _afresh(self, file: File, number: int, within: int, until: int) -> Iterator[Piece]:
        """From its beginning, whose bytes before `within` are not handed out: a checksum needs them."""
        section, begin = file.first + number, number * SECTION
        length = min(SECTION, file.size - begin)
        at = crc = 0
        taking = file.pieces.take(begin, begin + until)
        while at < until:
            try:
                piece = next(taking)
            except RecoveryError as error:
                why = f"{error.what}: {error.value}" if error.value else error.what
                self._learn(file, section, at, with_zeros(crc, length - at), begin + at, why)
                if until > max(at, within):
                    yield Hole(until - max(at, within))
                return
            crc = with_zeros(crc, piece.length) if isinstance(piece, Hole) else zlib.crc32(piece, crc)
            before, at = at, at + _length(piece)
            if at > within:
                self._hand_out(file, section, at)
                yield _parted(piece, within - before)[1] if before < within else piece
        if until == length:
            more = begin + length == file.size and file.pieces.more()
            self._learn(file, section, length, crc, file.size, MORE if more else "")

    def _again(self, file: File, number: int, within: int, until: int) -> Iterator[Piece]:
        begin, readable = number * SECTION, self._readable[file.first + number]
        if within < readable:
            yield from file.pieces.take(begin + within, begin + min(until, readable))
        if until > max(readable, within):
            yield Hole(until - max(readable, within))

    def _hand_out(self, file: File, section: int, upto: int) -> None:
        with self._lock:
            if not self._known[section]:
                self._readable[section] = max(self._readable[section], upto)
            elif self._readable[section] < upto:  # another range was told so meanwhile
                raise _unsteady(file)

    def _learn(self, file: File, section: int, readable: int, crc: int, place: int, why: str) -> None:
        """Unreadable when other bytes were handed out, or another range found something else."""
        with self._lock:
            if self._known[section]:
                if (self._readable[section], self._crcs[section]) != (readable, crc):
                    raise _unsteady(file)
                return
            if self._readable[section] > readable:
                raise _unsteady(file)
            first = bool(why) and file.odd(place, why)
            self._readable[section], self._crcs[section] = readable, crc
            self._known[section] = 1
        if first:
            file.tell(why)


def _unsteady(file: File) -> RecoveryError:
    hint = "go on with the download in a while; if it fails again, make a new one"
    return Unreadable("a file reads differently than before", file.path, hint)


def _length(piece: Piece) -> int:
    return piece.length if isinstance(piece, Hole) else len(piece)


def _parted(piece: Piece, at: int) -> tuple[Piece, Piece]:
    """In two, of which the first has at most `at` bytes."""
    if _length(piece) <= at:
        return piece, b""
    if isinstance(piece, Hole):
        return Hole(at), Hole(piece.length - at)
    view = memoryview(piece)
    return view[:at], view[at:]
