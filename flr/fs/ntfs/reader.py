# SPDX-License-Identifier: Apache-2.0
"""NTFS behind `flr.fs.base.FileSystem`. Nodes are MFT records with their sequence numbers; nothing is looked up by a path.

A listing takes names from the folder's index and everything else from the MFT, whose records of one page are read together: what
the index says of sizes and times is out of date for hard links. The short name beside a long one is not listed. NTFS's own files
(records 0 to 15 under their own names, as $MFT) are left out of the root and of a scan; by their number they can be asked for.
"""

from __future__ import annotations

import stat
from collections import OrderedDict
from typing import NamedTuple

from flr.blocks import Extent, Segment, Volume, joined
from flr.errors import Corrupt, NodeNotFound, OutOfBounds, RecoveryError, Unsupported, WrongKind
from flr.fs import names as name_rules
from flr.fs.base import (
    MOST_ENTRIES,
    MOST_SEGMENTS,
    Attributes,
    Entry,
    FileSystem,
    Flag,
    Found,
    Listing,
    Node,
    Scan,
    Stream,
    needs,
)
from flr.fs.ntfs import boot, content, nodes, packed, reparse
from flr.fs.ntfs.content import Content
from flr.fs.ntfs.index import Index
from flr.fs.ntfs.index import Name as Indexed
from flr.fs.ntfs.library import Library
from flr.fs.ntfs.mft import Mft
from flr.fs.ntfs.record import (
    COMPRESSED,
    DATA,
    ENCRYPTED,
    IN_USE,
    REPARSE,
    Record,
)
from flr.fs.ntfs.state import State
from flr.fs.overlay import Overlay

ROOT, EXTEND, OWN = 5, 11, 16
"""Record numbers; below OWN they are NTFS's own."""
OWN_NAMES = frozenset(
    name.encode("utf-16-le")
    for name in (
        "$MFT", "$MFTMirr", "$LogFile", "$Volume", "$AttrDef", ".", "$Bitmap", "$Boot", "$BadClus", "$Secure", "$UpCase", "$Extend",
        "$Quota",
    )
)  # fmt: skip
LARGEST_FILE = 8 << 50
KEPT = 16
"""Indexes of folders, and contents of files."""
KEPT_SPANS = 1 << 17
"""Of all contents together, but for the last."""
FOLDER = 0x10000000
"""In the flags that an index entry repeats."""
OWNED: list[tuple[Node, bytes]] = [(Node(EXTEND, 0), b"")]
ELSEWHERE_HINT = (
    "take the file from where it really is, or restore the whole disk and open it on a Windows that can fetch it"
)


class Described(NamedTuple):
    """What a listing needs of a record. `long`: the folders in which it has a long name that a short one may stand beside; asked
    only where there is a short one."""

    in_use: bool
    long: set[int] | None
    attributes: Attributes


class Ntfs(FileSystem):
    """NotRecognised when the volume holds no NTFS; Corrupt when its MFT or its root cannot be found."""

    def __init__(self, volume: Volume) -> None:
        super().__init__(volume)
        self.geometry = boot.read(volume)
        if self.geometry.from_backup:
            self.warn("the boot sector is damaged; its copy at the volume's end is used")
        if self.geometry.sectors * self.geometry.sector > volume.size:
            self.warn(
                f"the volume is cut: NTFS has {self.geometry.sectors * self.geometry.sector} bytes, here are {volume.size}"
            )
        self.mft = Mft(volume, self.geometry, self.warn)
        self.library = Library(self._with_sound_boot_sector())
        self._indexes: OrderedDict[tuple[int, int], Index] = OrderedDict()
        self._contents: OrderedDict[tuple[int, int, bytes], tuple[Content, bool]] = OrderedDict()
        self._root = self.mft.record(ROOT)
        self.mft.many(range(OWN))
        self.about = State(volume, self.geometry, self.mft, lambda: self._index(self._root), self.warn).about()

    def _with_sound_boot_sector(self) -> Volume:
        if not self.geometry.from_backup:
            return self.volume
        for at in (self.volume.size - size for size in (512, 4096)):
            copy = self.volume.pread(at, boot.SIZE)
            if boot.parse(copy) is not None:
                break
        whole = Overlay(self.volume, boot.SIZE)
        whole.put(0, copy)
        return whole

    # -- nodes

    def root(self) -> Node:
        return Node(ROOT, self._root.sequence)

    def _record(self, node: Node) -> Record:
        record = self.mft.record(node.number)
        if not record.flags & IN_USE or record.base:
            raise NodeNotFound("this file is gone", f"record {node.number}")
        if record.sequence != node.generation:
            raise NodeNotFound(
                "this file is gone, its record is another's now",
                f"record {node.number}: {record.sequence}, not {node.generation}",
            )
        return record

    def _point(self, record: Record) -> bytes:
        """A record's reparse point, as far as one can be."""
        for attribute in record.attributes:
            if attribute.kind == REPARSE:
                if attribute.resident:
                    return attribute.value
                found = content.gather([attribute], self.geometry.clusters, f"record {record.number}")
                length = min(found.size, reparse.MOST)
                return content.read(self.volume, found, 0, length, self.geometry.cluster, f"record {record.number}")
        return b""

    def _attributes(self, record: Record) -> Attributes:
        return nodes.attributes(record, self._point(record), self.volume.size, self.geometry.clusters)

    def attributes(self, node: Node) -> Attributes:
        return self._attributes(self._record(node))

    # -- folders

    def _index(self, record: Record) -> Index:
        key = record.number, record.sequence
        kept = self._indexes.get(key)
        if kept is None:
            kept = Index(
                self.volume, self.mft, record, self.geometry.cluster, self.geometry.index, self.warn
            )  # fmt: skip
            self._indexes[key] = kept
            if len(self._indexes) > KEPT:
                self._indexes.popitem(last=False)
        return kept

    def entries(self, node: Node, cursor: int = 0, count: int = MOST_ENTRIES) -> Listing:
        record = self._record(node)
        needs(self._attributes(record), stat.S_IFDIR, "a folder")
        names, after = self._index(record).names(max(cursor, 0), max(1, min(count, MOST_ENTRIES)))
        if node.number == ROOT:
            names = [name for name in names if not (name.number < OWN and name.name in OWN_NAMES)]
        found = self._described(names)
        return Listing([made for name in names if (made := self._entry(node, name, found[name.number]))], after)

    def _described(self, names: list[Indexed]) -> dict[int, Described | RecoveryError]:
        """What the records of a page say, by their numbers, or what is wrong with each."""
        made: dict[int, Described | RecoveryError] = {}
        short = {name.number for name in names if name.space == nodes.DOS}
        for number, record in self.mft.many(name.number for name in names).items():
            if isinstance(record, RecoveryError):
                made[number] = record
                continue
            try:
                whole = self.mft.whole(record)
                in_use = bool(record.flags & IN_USE) and not record.base
                long = (
                    {name.parent for name in nodes.names(whole) if name.space == nodes.WIN32}
                    if number in short
                    else None
                )
                made[number] = Described(in_use, long, self._attributes(whole))
            except RecoveryError as problem:
                made[number] = problem
        return made

    def _entry(self, folder: Node, name: Indexed, found: Described | RecoveryError) -> Entry | None:
        """None for a short name beside a long one, and for what is no name."""
        attributes: Attributes | None = None
        problem = ""
        if isinstance(found, RecoveryError):
            problem = f"{found.what}: {found.value}"
        elif not found.in_use:
            problem = f"its record is not in use: record {name.number}"
        elif found.attributes.generation != name.sequence:
            problem = (
                f"its record is another's now: record {name.number}: {found.attributes.generation}, not {name.sequence}"
            )
        else:
            attributes = found.attributes
        if name.space == nodes.DOS and (isinstance(found, RecoveryError) or folder.number in (found.long or ())):
            return None
        text = reparse.text(name.name)
        shown = name_rules.fit(text)
        if shown != text:
            self.warn(f"folder {folder.number} has a name that none can have: {text[:64]!r}")
        if shown is None:
            return None
        if name.tag in reparse.LINKS and name.attributes & nodes.A_REPARSE:
            kind = stat.S_IFLNK
        else:
            kind = stat.S_IFDIR if name.attributes & FOLDER else stat.S_IFREG
        return Entry(shown, name.number, attributes, kind, problem)

    def scan(self, cursor: int = 0, count: int = MOST_ENTRIES) -> Scan:
        first = max(cursor, OWN)
        end = min(first + max(1, min(count, MOST_ENTRIES)), self.mft.count)
        made: list[Found] = []
        unreadable = 0
        for record in self.mft.many(range(first, end)).values():
            if isinstance(record, RecoveryError):
                unreadable += not record.what.startswith("this structure is not")
                continue
            if not record.flags & IN_USE or record.base:
                continue
            try:
                whole = self.mft.whole(record)
                made.append(Found(self._attributes(whole), self._names(whole)))
            except RecoveryError:
                unreadable += 1
        if unreadable:
            self.warn(
                f"{unreadable} records of the MFT from {first} on cannot be read: their files are found by no search"
            )
        return Scan([found for found in made if found.names != OWNED], end if end < self.mft.count else None)

    def _names(self, record: Record) -> list[tuple[Node, bytes]]:
        """Without short names beside long ones; OWNED for a file of NTFS's own."""
        own = nodes.names(record)
        long = {name.parent for name in own if name.space == nodes.WIN32}
        made: list[tuple[Node, bytes]] = []
        for name in own:
            if name.parent == EXTEND:
                return OWNED
            shown = name_rules.fit(reparse.text(name.name))
            if shown is not None and not (name.space == nodes.DOS and name.parent in long):
                made.append((Node(name.parent, name.parent_sequence), shown))
        return made

    # -- content

    def _shown_to_library(self, number: int) -> int:
        """The number, if every stream of that record holds together and has a size that NTFS allows: given one that does not,
        libfsntfs frees memory twice. Corrupt."""
        record = self.mft.record(number)
        for name in {attribute.name for attribute in record.attributes if attribute.kind == DATA}:
            found = self.mft.stream(record, DATA, name)
            if found and found.size > LARGEST_FILE:
                raise Corrupt("a stream is larger than NTFS allows", f"record {number}: {found.size} bytes")
        return number

    def _content(self, node: Node, stream: bytes) -> tuple[Content, bool]:
        """A stream, and whether it is compressed by WOF. WrongKind, NodeNotFound, Unsupported, Corrupt."""
        record = self._record(node)
        key = node.number, node.generation, stream
        kept = self._contents.get(key)
        if kept is not None:
            self._contents.move_to_end(key)
            return kept
        attributes = self._attributes(record)
        if not stream:
            needs(attributes, stat.S_IFREG, "a file")
        point = self._point(record) if not stream else b""
        what = f"record {node.number}"
        try:
            units = stream.decode("utf-8", "surrogatepass").encode("utf-16-le", "surrogatepass")
        except UnicodeError:
            raise NodeNotFound("there is no such stream", what) from None
        found = self.mft.stream(record, DATA, units)
        if found is None:
            if stream:
                raise NodeNotFound("there is no such stream", f"{what}: {stream.decode('utf-8', 'replace')[:64]!r}")
            found = Content(0, 0, 0, 0, b"", [])
        self._refuse(attributes, point, found, what)
        kept = found, reparse.tag(point) == reparse.WOF
        self._contents[key] = kept
        while len(self._contents) > 1 and (
            len(self._contents) > KEPT or sum(len(one.spans) for one, _ in self._contents.values()) > KEPT_SPANS
        ):
            self._contents.popitem(last=False)
        return kept

    def _refuse(self, attributes: Attributes, point: bytes, found: Content, what: str) -> None:
        """Unsupported where the bytes are not here, or cannot be read without a key."""
        if found.flags & ENCRYPTED:
            raise Unsupported(
                "this file is encrypted (EFS)",
                what,
                "restore the whole disk and open the file on Windows with the user's certificate",
            )
        tag = reparse.tag(point)
        if tag == reparse.WOF and not reparse.compressed_by_wof(point):
            raise Unsupported("this file's content is in a Windows image file (WIMBoot)", what)
        if point and attributes.flags & Flag.OFFLINE:
            why, _ = reparse.elsewhere(tag)
            raise Unsupported(
                f"this file's content is not on this disk: it is {why}",
                f"{what}, reparse tag {tag:#010x}",
                ELSEWHERE_HINT,
            )
        if found.flags & COMPRESSED not in (0, 1):
            raise Unsupported("this file is compressed in an unknown way", f"{what}: method {found.flags & COMPRESSED}")

    def runs(self, node: Node, offset: int, length: int, stream: bytes = b"") -> list[Segment]:
        found, by_wof = self._content(node, stream)
        what = f"record {node.number}"
        if offset < 0 or length <= 0:
            return []
        name = stream.decode("utf-8", "surrogatepass")
        cluster = self.geometry.cluster
        if by_wof:
            return packed.whole(self.library, self._shown_to_library(node.number), found.size, offset, length)
        if found.resident is None and found.flags & COMPRESSED and found.unit:
            return packed.units(self.library, self._shown_to_library(node.number), name, found, offset, length, cluster)
        made = joined(content.segments(found, offset, length, cluster, MOST_SEGMENTS, what))
        return self._within(made)

    def _within(self, made: list[Segment]) -> list[Segment]:
        """As far as the volume goes: an image may be cut."""
        for index, segment in enumerate(made):
            if isinstance(segment, Extent):
                try:
                    self.volume.check(segment.offset, segment.length)
                except OutOfBounds:
                    if index == 0:
                        raise
                    return made[:index]
        return made

    def link(self, node: Node) -> bytes:
        """The substitute name as it is stored (`flr.fs.ntfs.reparse.target`)."""
        record = self._record(node)
        point = self._point(record)
        if reparse.tag(point) not in reparse.LINKS:
            raise WrongKind("not a symbolic link or junction", f"record {node.number}")
        return reparse.target(point, f"record {node.number}")

    def streams(self, node: Node) -> list[Stream]:
        record = self._record(node)
        hidden = nodes.WOF_STREAM if reparse.tag(self._point(record)) == reparse.WOF else None
        return [
            Stream(reparse.text(attribute.name), attribute.size)
            for attribute in record.attributes
            if attribute.kind == DATA
            and attribute.name
            and attribute.name != hidden
            and (attribute.resident or attribute.first == 0)
        ]

    def security(self, node: Node) -> bytes:
        self._record(node)
        return self.library.security(self._shown_to_library(node.number))
