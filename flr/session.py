# SPDX-License-Identifier: Apache-2.0
"""One session of file-level recovery: disks, the parser that understands them, and paths.

Everything that a guest wrote is understood in the parser's process; file contents are fetched from the disks by this one, from
where the parser says that they are. Safe for many threads. Not here: where the disks come from (`flr.virtual.open`), what is done
with what is found.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

from flr.blocks import Extent, Hole, Literal, Segment
from flr.errors import Corrupt, NodeNotFound, RecoveryError, TooMuch, WrongKind
from flr.fs.base import MOST_ENTRIES, MOST_LITERAL, About, Attributes, Entry, Listing, Node, Scan, Stream
from flr.fs.table import Table, unpack
from flr.parser.client import PATIENCE_SECONDS, Parser, told
from flr.parser.protocol import Folder
from flr.printable import shown
from flr.virtual.disk import VirtualDisk
from flr.volumes import find
from mover.clock import SYSTEM, Clock

WINDOW = 256 << 20
"""Bytes of a file, without its holes, that one answer about its places is used for."""
PIECE = 1 << 20
"""Bytes that are handed on at a time."""
AHEAD = 16
"""Pieces that are on their way while one is handed on."""
HAND_OVER_SECONDS = 0.0005
"""A tenth of Python's own: a listing is a third quicker."""
FREE_ANSWERS, LEAST_ANSWER = 256, 4096
"""About a file's places, and bytes of each on average after them: a sound answer has thousands of blocks, or a MiB of content."""
MOST_LISTED = 5_000_000
"""Entries of one folder."""
MOST_LINKS = 40
DEEPEST = 256
"""Folders within each other; a walk goes no deeper, a path is no longer."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A file system that was opened."""

    about: About
    root: Node
    warnings: list[str]


class Session:
    """A context manager; the disks are their opener's. `without_journal`: as the disk is, without its journals.
    `of`: the resource whose disks these are, if one is known."""

    def __init__(
        self,
        disks: Sequence[VirtualDisk],
        *,
        clock: Clock = SYSTEM,
        note: Callable[[str], None] = lambda text: None,
        patience: float = PATIENCE_SECONDS,
        without_journal: bool = False,
        of: str = "",
    ) -> None:
        self.disks = disks
        self.of = of
        self.parser = Parser(disks, clock, note, patience)
        self._replay = not without_journal
        self._ahead = ThreadPoolExecutor(1, "flr-ahead")
        self._told: dict[str, set[str]] = {}
        self._found: tuple[list[find.Entry], list[str]] | None = None

    def __enter__(self) -> Session:
        # One thread makes entries while another one takes the next from the socket: each of its reads waits for the interpreter.
        sys.setswitchinterval(min(sys.getswitchinterval(), HAND_OVER_SECONDS))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ahead.shutdown(cancel_futures=True)
        self.parser.close()

    # -- what there is

    def found(self) -> tuple[list[find.Entry], list[str]]:
        """Everything that was found on the disks, in their order; and what was odd."""
        if self._found is None:
            self._found = self.parser.look(self._replay, tuple[list[find.Entry], list[str]])
        return self._found

    def volume(self, identifier: str) -> find.Entry:
        """NodeNotFound when there is none of that id."""
        for entry in self.found()[0]:
            if entry.id == identifier:
                return entry
        known = ", ".join(entry.id for entry in self.found()[0] if entry.opens)
        raise NodeNotFound("no such volume", identifier, f"there are: {known or 'none that can be opened'}")

    def open(self, volume: str) -> Opened:
        """NodeNotFound, Unsupported and its like when it cannot be opened."""
        self.volume(volume)
        about, root, warnings = self.parser.ask("open", volume, [], tuple[About, Node, list[str]])
        self._told.setdefault(volume, set()).update(warnings)
        return Opened(about, root, warnings)

    def news(self, volume: str) -> list[str]:
        """What the reader found odd since the volume was opened, or since this was asked last."""
        known = self._told.setdefault(volume, set())
        found = [text for text in self.parser.ask("warnings", volume, [], list[str]) if text not in known]
        known.update(found)
        return found

    # -- nodes

    def table(self, volume: str, node: Node, cursor: int = 0, count: int = MOST_ENTRIES) -> Table:
        """A part of a folder in columns. Corrupt when the parser's table contradicts itself."""
        return _checked(volume, self.parser.ask("table", volume, [node, cursor, count], Table), cursor)

    def parts(self, volume: str, node: Node, cursor: int = 0) -> Iterator[Table]:
        """All parts of a folder from `cursor` on; while one is used, the parser makes the next."""
        table = self.table(volume, node, cursor)
        while table.cursor is not None:
            coming = self._ahead.submit(self.table, volume, node, table.cursor)
            yield table
            table = coming.result()
        yield table

    def tables(self, volume: str, nodes: Sequence[Node], count: int) -> list[Table | RecoveryError]:
        """The first part of each of several folders, by one question: of small ones that is all of it."""
        asked = [_pair(node) for node in nodes]
        folders = self.parser.ask("tables", volume, [asked, count], list[Folder])
        if len(folders) != len(asked):
            raise Corrupt("other folders were told of than were asked for", volume)
        made: list[Table | RecoveryError] = []
        for folder in folders:
            if folder.table is not None:
                made.append(_checked(volume, folder.table, 0))
            elif folder.problem is not None:
                made.append(told(folder.problem))
            else:
                raise Corrupt("a folder was told of without a word", volume)
        return made

    def entries(self, volume: str, node: Node, cursor: int = 0, count: int = MOST_ENTRIES) -> Listing:
        return unpack(self.table(volume, node, cursor, count))

    def folder(self, volume: str, node: Node) -> Iterator[Entry]:
        """All entries, a part at a time."""
        left = MOST_LISTED
        for table in self.parts(volume, node):
            left -= len(table.names)
            if left < 0:
                raise TooMuch("a folder has more entries than are listed", f"{MOST_LISTED}")
            yield from unpack(table).entries

    def scan(self, volume: str, cursor: int = 0, count: int = MOST_ENTRIES) -> Scan | None:
        """A part of all nodes in their order on disk; None for a file system that is walked through instead."""
        scans = self.parser.ask("scan", volume, [cursor, count], list[Scan])
        if not scans:
            return None
        if scans[0].cursor is not None and scans[0].cursor <= cursor:
            raise Corrupt("a scan does not get on", f"{volume}: {cursor}")
        _names(volume, [name for found in scans[0].found for _, name in found.names])
        return scans[0]

    def attributes(self, volume: str, node: Node) -> Attributes:
        return self.parser.ask("attributes", volume, [*_pair(node)], Attributes)

    def link(self, volume: str, node: Node) -> bytes:
        return self.parser.ask("link", volume, [*_pair(node)], bytes)

    def xattrs(self, volume: str, node: Node) -> dict[bytes, bytes]:
        return self.parser.ask("xattrs", volume, [*_pair(node)], dict[bytes, bytes])

    def streams(self, volume: str, node: Node) -> list[Stream]:
        return self.parser.ask("streams", volume, [*_pair(node)], list[Stream])

    def security(self, volume: str, node: Node) -> bytes:
        return self.parser.ask("security", volume, [*_pair(node)], bytes)

    # -- paths

    def find(self, volume: str, path: bytes, *, follow: bool = False) -> Attributes:
        """What a path leads to, from the volume's root. Symbolic links on the way are followed, within the volume; one at the end
        only if `follow`. NodeNotFound, WrongKind, TooMuch."""
        root = self.attributes(volume, self.open(volume).root)
        todo = [part for part in reversed(path.split(b"/")) if part not in (b"", b".")]
        trail = [root]
        links = 0
        while todo:
            part = todo.pop()
            if part == b"..":
                trail = trail[:-1] or [root]
                continue
            if not trail[-1].is_directory:
                raise WrongKind("not a folder", shown(path))
            entry = self.parser.ask("find", volume, [_pair(trail[-1].node), part], Entry)
            if entry.attributes is None:
                raise Corrupt("an entry's node cannot be read", f"{shown(path)}: {entry.problem}")
            if (entry.attributes.mode & 0o170000) == 0o120000 and (todo or follow):
                links += 1
                if links > MOST_LINKS:
                    raise TooMuch("links lead to links, again and again", shown(path))
                target = self.link(volume, entry.attributes.node)
                if target.startswith(b"/"):
                    trail = [root]
                todo += [piece for piece in reversed(target.split(b"/")) if piece not in (b"", b".")]
                continue
            trail.append(entry.attributes)
            if len(trail) > DEEPEST:
                raise TooMuch("a path is too deep", f"{DEEPEST} folders")
        return trail[-1]

    # -- content

    def map(self, volume: str, node: Node, offset: int, length: int, stream: bytes = b"") -> list[Segment]:
        """Where a part of a file is; at least one byte of it, nothing beyond its end. Corrupt when the parser's answer is none."""
        segments = self.parser.ask("map", volume, [_pair(node), offset, length, stream], list[Segment])
        told = literal = 0
        for segment in segments:
            if segment.length <= 0:
                raise Corrupt("a file's map has an empty part", volume)
            if isinstance(segment, Extent):
                disk = self.disks[segment.disk] if 0 <= segment.disk < len(self.disks) else None
                if disk is None or segment.offset < 0 or segment.offset + segment.length > disk.size:
                    raise Corrupt(
                        "a file's map leads outside of the disks", f"{segment.length} bytes at {segment.offset}"
                    )
            elif isinstance(segment, Literal):
                literal += segment.length
            told += segment.length
        if told > length or literal > 4 * MOST_LITERAL:
            raise Corrupt("a file's map tells of more than was asked for", volume)
        return segments

    def maps(
        self, volume: str, node: Node, size: int, offset: int = 0, stream: bytes = b"", *, pieces: bool = False
    ) -> Iterator[list[Segment]]:
        """Where a file is from `offset` to `size`, an answer after the other; with `pieces` as much of each as WINDOW, in pieces of
        at most PIECE. Corrupt when the file ends early, TooMuch when the answers do not get on."""
        at, answers = offset, 0
        while at < size:
            segments = self.map(volume, node, at, size - at, stream)
            answers += 1
            if not segments:
                raise Corrupt("a file ends before its size", f"at {at} of {size} bytes")
            if answers > FREE_ANSWERS and at - offset < answers * LEAST_ANSWER:
                raise TooMuch(
                    "a file is told of in parts that are too small", f"{at - offset} bytes in {answers} answers"
                )
            if pieces:
                segments = list(_pieces(segments, WINDOW))
            yield segments
            at += sum(segment.length for segment in segments)

    def content(
        self, volume: str, node: Node, size: int, offset: int = 0, stream: bytes = b""
    ) -> Iterator[bytes | Hole]:
        """A file's bytes from `offset` to `size`, in pieces of at most PIECE, holes as such; what comes next is on its way.

        Corrupt when the file ends early."""
        for pieces in self.maps(volume, node, size, offset, stream, pieces=True):
            for k, piece in enumerate(pieces):
                if k % (AHEAD // 2) == 0:
                    self._announce(pieces[k : k + AHEAD])
                if isinstance(piece, Extent):
                    yield self.disks[piece.disk].pread(piece.offset, piece.length)
                else:
                    yield piece.data if isinstance(piece, Literal) else piece

    def _announce(self, pieces: list[Segment]) -> None:
        by_disk: dict[int, list[tuple[int, int]]] = {}
        for piece in pieces:
            if isinstance(piece, Extent):
                by_disk.setdefault(piece.disk, []).append((piece.offset, piece.length))
        for disk, ranges in by_disk.items():
            self.disks[disk].prefetch(ranges)

    def read(self, volume: str, node: Node, offset: int, length: int, stream: bytes = b"") -> bytes:
        """At most so many bytes, fewer at the end of the file."""
        size = self.attributes(volume, node).size if not stream else self.stream_size(volume, node, stream)
        end = min(size, offset + length)
        parts = self.content(volume, node, end, offset, stream)
        return b"".join(bytes(part.length) if isinstance(part, Hole) else part for part in parts)

    def stream_size(self, volume: str, node: Node, name: bytes) -> int:
        for stream in self.streams(volume, node):
            if stream.name == name:
                return stream.size
        raise NodeNotFound("a file has no such stream", shown(name))


def _checked(volume: str, table: Table, cursor: int) -> Table:
    """Corrupt when it is none."""
    table.columns()
    _names(volume, table.names)
    if table.cursor is not None and table.cursor <= cursor:
        raise Corrupt("a listing does not get on", f"{volume}: {cursor}")
    return table


def _names(volume: str, names: list[bytes]) -> None:
    """Corrupt when one of them leads elsewhere than into its folder."""
    whole = b"\n".join(names)
    if b"/" in whole or b"\0" in whole or any(name in names for name in (b"", b".", b"..")):
        raise Corrupt("a listing has a name that none can have", volume)


def _pair(node: Node) -> tuple[int, int]:
    return node.number, node.generation


def _pieces(segments: list[Segment], most: int) -> Iterator[Segment]:
    """Extents cut where the blocks of a disk begin, so that a piece is one block's; no more than `most` bytes beside the holes."""
    for segment in segments:
        if most <= 0:
            return
        if not isinstance(segment, Extent):
            yield segment
            continue
        at, end = segment.offset, segment.offset + segment.length
        while at < end:
            if most <= 0:
                return
            stop = min((at // PIECE + 1) * PIECE, end)
            yield Extent(segment.disk, at, stop - at)
            most -= stop - at
            at = stop
