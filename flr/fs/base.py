# SPDX-License-Identifier: Apache-2.0
"""The interface of every file system reader.

Names are bytes as the guest wrote them; nodes are addressed by number and generation, never by path; a listing carries the
attributes of its entries; holes are visible; what is odd but readable is a warning, what is not is an error of that node alone
(`flr.errors`). A reader is read-only and belongs to one thread. It never recurses by what the guest wrote, never loops more
often than the volume has room for, and never keeps more than a bounded part of what it read.

Not here: paths, walks, limits of a session (`flr.walk`), which file system a volume holds (`flr.fs.open`).
"""

from __future__ import annotations

import stat
from abc import ABC, abstractmethod
from enum import IntFlag
from typing import Annotated

import msgspec

from flr.blocks import Extent, Literal, Segment, Volume, joined, read_segments
from flr.errors import WrongKind

MOST_ENTRIES = 16384
"""Of one answer of `entries`."""
MOST_SEGMENTS = 4096
"""Of one answer of `runs` or `map`, about."""
MOST_LITERAL = 1 << 20
"""Bytes that one answer of `map` carries itself, about."""
MOST_WARNINGS = 100
"""That a reader keeps; the last one says that there were more."""
LONGEST_LINK = 65536
MOST_XATTRS = 8 << 20
"""Bytes of all extended attributes of one node."""
FIRST_TIME, END_OF_TIME = -(1 << 31) * 10**9, -(1 << 31) * 10**9 + (1 << 64)
"""Times that can be told, in ns since 1970: from what 32 bits of seconds can say (1901) for 64 bits of ns (to 2486)."""


class Flag(IntFlag):
    """What a person should know of a node beside its mode."""

    COMPRESSED = 1
    ENCRYPTED = 2  # its content (and names within, in a directory) cannot be read without the guest's key
    IMMUTABLE = 4
    APPEND_ONLY = 8
    CASE_FOLDED = 16  # a directory whose names are looked up without regard to case
    READ_ONLY = 32  # DOS attributes from here on
    HIDDEN = 64
    SYSTEM = 128
    ARCHIVE = 256
    OFFLINE = 512  # its content is elsewhere (a cloud placeholder, deduplicated)
    REPARSE = 1024  # a reparse point that is no link
    STREAMS = 2048  # it has alternate data streams
    SUSPICIOUS = 4096  # larger than its volume, or another claim that a sound file system does not make


Count = Annotated[int, msgspec.Meta(ge=0)]
"""Of at most 64 bits, as everything that crosses the socket."""
Word = Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]


class Node(msgspec.Struct, frozen=True, array_like=True):
    """A file's or folder's place in its file system: inode or MFT entry, and how often that was used before."""

    number: Count
    generation: Word


class Attributes(msgspec.Struct, array_like=True, gc=False):
    """Sizes in bytes, times in nanoseconds since 1970 (None: the file system has none, or it is unset or cannot be told).

    `mode` is POSIX's, with the type (`stat.S_IFMT`). `owner` and `group` are ids; None where the file system knows none.
    `allocated` is what the content takes on disk, where known. `device` is `os.makedev` of a device node.
    """

    number: Count
    generation: Word
    mode: Word
    links: Count
    owner: Word | None
    group: Word | None
    size: Count
    allocated: Count | None
    modified: int | None
    changed: int | None
    accessed: int | None
    created: int | None
    device: Count = 0
    flags: Word = 0

    @property
    def node(self) -> Node:
        return Node(self.number, self.generation)

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)


class Entry(msgspec.Struct, array_like=True, gc=False):
    """A name in a folder. `attributes` is None when its node cannot be read, and `problem` says why.

    `kind` is its type, as `stat.S_IFMT`: the node's, or what the folder claims where that cannot be read; 0 if nothing does.
    """

    name: bytes
    number: int
    attributes: Attributes | None
    kind: int = 0
    problem: str = ""


class Listing(msgspec.Struct, array_like=True):
    """A part of a folder, without `.` and `..`, in the file system's own order. `cursor` asks for the next part; None: the end."""

    entries: list[Entry]
    cursor: int | None


class Found(msgspec.Struct, array_like=True):
    """A node that a scan came by, and all its names, each with the folder that it stands in; without one it is in no folder."""

    attributes: Attributes
    names: list[tuple[Node, bytes]]


class Scan(msgspec.Struct, array_like=True):
    """A part of a scan. `cursor` asks for the next part; None: the end."""

    found: list[Found]
    cursor: int | None


class Stream(msgspec.Struct, frozen=True, array_like=True):
    """A named stream of a node beside its content; `name` as UTF-8 (surrogates kept), `size` in bytes."""

    name: bytes
    size: Count


class About(msgspec.Struct, kw_only=True):
    """A file system as a person would be told of it. `journal`: clean, replayed, ignored and why; empty where it has none.

    `kind` is the field's word for it: ext4, xfs, ntfs, fat32, exfat. `used` and `size` are bytes.
    """

    kind: str
    label: str = ""
    uuid: str = ""
    size: int = 0
    used: int | None = None
    block_size: int = 0
    journal: str = ""
    written: int | None = None  # when it was last written, ns since 1970
    mounted_at: str = ""  # where the guest had it mounted last, if it says so
    version: str = ""  # of the format, where it has one that means something


class FileSystem(ABC):
    """One file system of one volume. All methods raise `flr.errors` and nothing else, whatever the volume holds.

    `runs`, `map` and `read` answer as much as they can at once: at least one byte while there is one, and what comes next is asked
    for again. Beyond the end of a file they answer nothing.
    """

    about: About

    def __init__(self, volume: Volume) -> None:
        self.volume = volume
        self._warnings: dict[str, None] = {}

    @abstractmethod
    def root(self) -> Node: ...

    @abstractmethod
    def attributes(self, node: Node) -> Attributes:
        """NodeNotFound when the number is free or was used again since."""

    @abstractmethod
    def entries(self, node: Node, cursor: int = 0, count: int = MOST_ENTRIES) -> Listing:
        """At most `count` entries from `cursor` on; 0 is the beginning. WrongKind when it is no folder.

        An entry whose node is damaged is listed with its problem; a folder that is damaged in the middle is listed as far as it
        can be, with a warning.
        """

    @abstractmethod
    def runs(self, node: Node, offset: int, length: int, stream: bytes = b"") -> list[Segment]:
        """Where a file's bytes from `offset` on are, for at most `length` of them; an Extent is one of the volume, its `disk` is 0.
        WrongKind when it is no regular file; NodeNotFound when it has no such stream."""

    @abstractmethod
    def link(self, node: Node) -> bytes:
        """Where a symbolic link leads to. WrongKind when it is none."""

    def xattrs(self, node: Node) -> dict[bytes, bytes]:
        """Extended attributes by their full name (`user.x`), values in the form that the kernel's getxattr answers with."""
        return {}

    def streams(self, node: Node) -> list[Stream]:
        return []

    def security(self, node: Node) -> bytes:
        """The security descriptor, self-relative, as Windows keeps it; empty where there is none."""
        return b""

    def scan(self, cursor: int = 0, count: int = MOST_ENTRIES) -> Scan | None:
        """Every node by its number, from `cursor` on, without going through folders: what a search index is made of, where that
        is cheaper than a walk. A scan looks at `count` numbers and may find none. None: this file system has no such order."""
        return None

    def map(self, node: Node, offset: int, length: int, stream: bytes = b"") -> list[Segment]:
        """As `runs`, but by the disks: whoever has them can fetch the bytes."""
        found: list[Segment] = []
        literal = 0
        for run in self.runs(node, offset, length, stream):
            parts = self.volume.locate(run.offset, run.length) if isinstance(run, Extent) else [run]
            literal += sum(part.length for part in parts if isinstance(part, Literal))
            found.extend(parts)
            if literal >= MOST_LITERAL or len(found) >= MOST_SEGMENTS:
                break
        return joined(found)

    def read(self, node: Node, offset: int, length: int, stream: bytes = b"") -> bytes:
        """The bytes themselves."""
        return read_segments([self.volume], self.runs(node, offset, length, stream))

    @property
    def warnings(self) -> list[str]:
        """What was odd so far, each said once."""
        return list(self._warnings)

    def warn(self, text: str) -> None:
        if len(self._warnings) == MOST_WARNINGS:
            self._warnings["there are more warnings than are kept"] = None
        elif len(self._warnings) < MOST_WARNINGS:
            self._warnings[text] = None


def needs(attributes: Attributes, kind: int, what: str) -> None:
    """WrongKind unless the node is of that `stat.S_IFMT`."""
    if stat.S_IFMT(attributes.mode) != kind:
        raise WrongKind(f"not {what}", f"node {attributes.number}")
