# SPDX-License-Identifier: Apache-2.0
"""FAT12, FAT16, FAT32 and exFAT behind `flr.fs.base.FileSystem`.

FAT has no inodes: a node's number is where its entry stands (in units of 32 bytes; 0 is the root), its generation a checksum of
that entry, so a node is found again without its folder, and one that was made up is not found. Times of FAT are the guest's local
ones and read as UTC. Deleted entries and the volume's label are not listed.
"""

from __future__ import annotations

import stat
import zlib
from collections import OrderedDict
from collections.abc import Callable

from flr.blocks import Hole, Literal, Segment, Volume, joined
from flr.errors import Corrupt, NodeNotFound, OutOfBounds, RecoveryError, WrongKind
from flr.fs import names as name_rules
from flr.fs.base import MOST_ENTRIES, MOST_SEGMENTS, About, Attributes, Entry, FileSystem, Flag, Listing, Node, needs
from flr.fs.fat import boot, chains, directory
from flr.fs.fat.chains import Chains, Piece
from flr.fs.fat.directory import Item

ROOT = Node(0, 0)
NOT_STORED = (Hole, Literal)
DOT = b".          "
"""The name of a FAT folder's first entry."""
READ_AT_ONCE = 64 << 10
"""Bytes of a folder; more than the entries of one file can take."""
AHEAD = 1 << 20
"""Bytes of a folder that are announced: a page and more."""
BLOCKS_A_CALL = 64
"""That are looked at for one page, names or not."""
ITEMS_KEPT = 8192
CONTENTS_KEPT = 16
PIECES_KEPT = 1 << 17
"""Of all contents together, but for the last."""
LARGEST_MAP = 4 << 20
"""Bytes of a table or bitmap that are read to know how much is used. Of a larger volume that is not told."""
_SHOWN = (
    (directory.READ_ONLY, Flag.READ_ONLY),
    (directory.HIDDEN, Flag.HIDDEN),
    (directory.SYSTEM, Flag.SYSTEM),
    (directory.ARCHIVE, Flag.ARCHIVE),
)
SHOWN = tuple(sum(int(flag) for bit, flag in _SHOWN if value & bit) for value in range(64))


class Content:
    """Where a file or folder is: `problem` is what is wrong with its chain behind `pieces`."""

    def __init__(self, pieces: list[Piece], size: int, valid: int, problem: Corrupt | None) -> None:
        self.pieces = pieces
        self.size = size
        self.valid = valid
        self.problem = problem
        self.mapped = pieces[-1].first + pieces[-1].length if pieces else 0


class Fat(FileSystem):
    """NotRecognised when the volume holds none of the four; Corrupt when its root cannot be found."""

    def __init__(self, volume: Volume) -> None:
        super().__init__(volume)
        self.geometry = boot.read(volume)
        self._exfat = self.geometry.kind == "exfat"
        self._wide = self.geometry.bits == 32
        self._most = directory.MOST_EXFAT if self._exfat else directory.MOST_FAT
        if self.geometry.from_backup:
            self.warn("the boot sector is damaged; its copy is used")
        if self.geometry.size > volume.size:
            self.warn(f"the volume is cut: its file system has {self.geometry.size} bytes, here are {volume.size}")
        self.chains = Chains(volume, self.geometry)
        self._items: OrderedDict[tuple[int, int], Item] = OrderedDict()
        self._contents: OrderedDict[int, Content] = OrderedDict()
        self.about = self._look_around()

    # -- about

    def _look_around(self) -> About:
        g = self.geometry
        about = About(
            kind=g.kind, uuid=f"{g.serial >> 16:04X}-{g.serial & 0xFFFF:04X}", size=g.size, block_size=g.cluster
        )
        if g.dirty or self._marked_dirty():
            self.warn("the volume is marked dirty: it was in use, or was not closed in order")
        head = self._read(self._content(ROOT), 0, READ_AT_ONCE)
        if self._exfat:
            about.label = directory.text(directory.parse_exfat(head, 0).label).decode("utf-8", "replace")
        else:
            label = directory.parse_fat(head, 0, self._wide).label
            about.label = (label or g.label).decode("cp437").rstrip(" \0")
            if not label and about.label == "NO NAME":
                about.label = ""
        try:
            about.used = self._used_exfat(head) if self._exfat else self._used()
        except RecoveryError as problem:
            self.warn(f"how much is used is unknown: {problem.what}: {problem.value}")
        return about

    def _marked_dirty(self) -> bool:
        """FAT16 and FAT32 keep in the table's second entry whether they were closed in order."""
        g = self.geometry
        if self._exfat or g.bits == 12:
            return False
        return not self.chains.entry(1) & (0x08000000 if g.bits == 32 else 0x8000)

    def _used(self) -> int | None:
        g = self.geometry
        if g.clusters * g.bits // 8 > LARGEST_MAP:
            return None
        self.volume.prefetch([(g.table, (g.clusters + 2) * g.bits // 8)])
        entry = self.chains.entry
        return sum(1 for cluster in range(2, g.clusters + 2) if entry(cluster)) * g.cluster

    def _used_exfat(self, head: bytes) -> int | None:
        size = -(-self.geometry.clusters // 8)
        if size > LARGEST_MAP:
            return None
        for at in range(0, len(head) - directory.SIZE + 1, directory.SIZE):
            if head[at] == directory.BITMAP and not head[at + 1] & 1:
                first = int.from_bytes(head[at + 20 : at + 24], "little")
                pieces, _ = self.chains.follow(first, size, "the bitmap of clusters")
                bits = int.from_bytes(self._read(Content(pieces, size, size, None), 0, size), "little")
                return (bits & ((1 << self.geometry.clusters) - 1)).bit_count() * self.geometry.cluster
        raise Corrupt("the bitmap of clusters is not found", "in the root")

    # -- nodes

    def root(self) -> Node:
        return ROOT

    def _item(self, node: Node) -> Item:
        """What the node's entry says. NodeNotFound when there is none, or another one than was meant."""
        key = node.number, node.generation
        kept = self._items.get(key)
        if kept is not None:
            self._items.move_to_end(key)
            return kept
        try:
            found = self._read_set(node) if self._exfat else self._read_short(node)
        except (Corrupt, OutOfBounds):
            found = None
        if found is None:
            raise NodeNotFound("there is no such file", f"entry {node.number}")
        self._keep(key, found)
        return found

    def _keep(self, key: tuple[int, int], item: Item) -> None:
        self._items[key] = item
        if len(self._items) > ITEMS_KEPT:
            self._items.popitem(last=False)

    def _read_short(self, node: Node) -> Item | None:
        raw = self.volume.pread(node.number * directory.SIZE, directory.SIZE)
        if _generation(raw) != node.generation or raw[11] & directory.LABEL:
            return None
        return directory.short_item(raw, b"", 0, self._wide)

    def _read_set(self, node: Node) -> Item | None:
        """The entries of a file may go on in the folder's next cluster, which is found by the table or is the following one."""
        at = node.number * directory.SIZE
        cluster = self.chains.cluster(at)
        end = self.chains.at(cluster) + self.geometry.cluster
        data = self.volume.pread(at, min(directory.LONGEST_SET * directory.SIZE, end - at))
        length = (data[1] + 1) * directory.SIZE
        if data[0] != directory.FILE:
            return None
        nexts = [None] if len(data) >= length else [self.chains.entry(cluster), cluster + 1]
        for following in nexts:
            whole = data
            if following is not None:
                try:
                    whole = data + self.volume.pread(self.chains.at(following), length - len(data))
                except (Corrupt, OutOfBounds):
                    continue
            item = directory.parse_set(whole[:length], 0)
            if _generation(item.raw) == node.generation:
                return item
        return None

    def _described(self, number: int, generation: int, item: Item) -> Attributes:
        g = self.geometry
        folder = item.attributes & directory.FOLDER
        flags = SHOWN[item.attributes & 63]
        size = item.size
        if folder:
            mode = stat.S_IFDIR | 0o755
            size = size if self._exfat else 0
        else:
            mode = stat.S_IFREG | (0o444 if item.attributes & directory.READ_ONLY else 0o644)
        if size > g.clusters * g.cluster:
            flags |= Flag.SUSPICIOUS
        allocated = -(-size // g.cluster) * g.cluster if item.cluster else 0
        return Attributes(
            number,
            generation,
            mode,
            1,
            None,
            None,
            size,
            allocated,
            item.modified,
            None,
            item.accessed,
            item.created,
            0,
            int(flags),
        )

    def attributes(self, node: Node) -> Attributes:
        if node == ROOT:
            mode = stat.S_IFDIR | 0o755
            return Attributes(0, 0, mode, 1, None, None, 0, None, None, None, None, None)
        return self._described(node.number, node.generation, self._item(node))

    # -- where things are

    def _content(self, node: Node) -> Content:
        kept = self._contents.get(node.number)
        if kept is None:
            kept = self._contents[node.number] = self._find(node)
            while len(self._contents) > 1 and (
                len(self._contents) > CONTENTS_KEPT
                or sum(len(one.pieces) for one in self._contents.values()) > PIECES_KEPT
            ):
                self._contents.popitem(last=False)
        return kept

    def _find(self, node: Node) -> Content:
        g = self.geometry
        what = f"entry {node.number}" if node != ROOT else "the root"
        if node == ROOT:
            if not g.root:
                return Content([Piece(0, g.root_size, g.root_at)], g.root_size, g.root_size, None)
            pieces, problem = self.chains.follow(g.root, self._most, what)
        else:
            item = self._item(node)
            if self._exfat and not directory.set_is_sound(item.raw):
                self.warn(f"{what}: the checksum of its entries in the folder is wrong")
            if not item.attributes & directory.FOLDER or self._exfat:
                size = min(item.size, self._most) if item.attributes & directory.FOLDER else item.size
                if item.contiguous:
                    return Content(self.chains.contiguous(item.cluster, size), size, min(item.valid, size), None)
                pieces, problem = self.chains.follow(item.cluster, size, what) if item.cluster or size else ([], None)
                return Content(pieces, size, min(item.valid, size), problem)
            pieces, problem = self.chains.follow(item.cluster, self._most, what)
        size = pieces[-1].first + pieces[-1].length if pieces else 0
        return Content(pieces, size, size, problem)

    def _read(self, content: Content, offset: int, length: int) -> bytes:
        """Of a folder or another structure, as far as it goes."""
        length = min(length, min(content.size, content.mapped) - offset)
        if length <= 0:
            return b""
        found = chains.segments(content.pieces, offset, length, content.size, content.size, MOST_SEGMENTS, "")
        return b"".join(
            self.volume.pread(part.offset, part.length) for part in found if not isinstance(part, NOT_STORED)
        )

    # -- folders

    def entries(self, node: Node, cursor: int = 0, count: int = MOST_ENTRIES) -> Listing:
        needs(self.attributes(node), stat.S_IFDIR, "a folder")
        content = self._content(node)
        if content.problem:
            self.warn(f"names are missing: {content.problem.what}: {content.problem.value}")
        count = max(1, min(count, MOST_ENTRIES))
        parse: Callable[[bytes, int], directory.Parsed] = (
            directory.parse_exfat if self._exfat else lambda data, base: directory.parse_fat(data, base, self._wide)
        )
        self._hint(content, max(cursor, 0))
        items: list[Item] = []
        after: int | None = max(cursor, 0) // directory.SIZE * directory.SIZE
        for _ in range(BLOCKS_A_CALL):
            if after is None or len(items) >= count:
                break
            data = self._read(content, after, READ_AT_ONCE)
            parsed = parse(data, after)
            if parsed.odd:
                if after == 0 and node != ROOT and not data.startswith(DOT):
                    raise Corrupt("this folder's place holds something else", f"entry {node.number}")
                self.warn(f"entry {node.number} is a folder with {parsed.odd} entries that are none; they are left out")
            items += parsed.items
            more = not parsed.ended and parsed.rest > after and parsed.rest < content.mapped
            after = parsed.rest if more else None
        if len(items) > count:
            items, after = items[:count], items[count - 1].after
        return Listing([made for item in items if (made := self._entry(node, content, item)) is not None], after)

    def _hint(self, content: Content, offset: int) -> None:
        """What a page will read."""
        length = min(AHEAD, min(content.size, content.mapped) - offset)
        if length > READ_AT_ONCE:
            parts = chains.segments(content.pieces, offset, length, content.size, content.size, MOST_SEGMENTS, "")
            self.volume.prefetch([(part.offset, part.length) for part in parts if not isinstance(part, NOT_STORED)])

    def _entry(self, folder: Node, content: Content, item: Item) -> Entry | None:
        shown = name_rules.fit(item.name)
        number = chains.place(content.pieces, item.offset) // directory.SIZE
        if shown != item.name:
            self.warn(f"entry {folder.number} is a folder with a name that none can have: {item.name[:64]!r}")
        if shown is None:
            if not item.problem:
                return None
            shown = b"?%d" % number
        kind = stat.S_IFDIR if item.attributes & directory.FOLDER else stat.S_IFREG
        if item.problem:
            return Entry(shown, number, None, kind, f"{item.problem}: entry {number}")
        generation = _generation(item.raw)
        self._keep((number, generation), item)
        return Entry(shown, number, self._described(number, generation, item), kind)

    # -- content

    def runs(self, node: Node, offset: int, length: int, stream: bytes = b"") -> list[Segment]:
        needs(self.attributes(node), stat.S_IFREG, "a file")
        if stream:
            raise NodeNotFound("there is no such stream: this file system has none", f"entry {node.number}")
        if offset < 0 or length <= 0:
            return []
        content = self._content(node)
        what = f"entry {node.number}"
        try:
            made = chains.segments(content.pieces, offset, length, content.size, content.valid, MOST_SEGMENTS, what)
        except Corrupt:
            if content.problem:
                raise content.problem from None
            raise
        return joined(self._within(made))

    def _within(self, made: list[Segment]) -> list[Segment]:
        """As far as the volume goes: an image may be cut."""
        for index, segment in enumerate(made):
            if not isinstance(segment, NOT_STORED) and segment.offset + segment.length > self.volume.size:
                left = self.volume.size - segment.offset
                if left > 0:
                    return [*made[:index], type(segment)(0, segment.offset, left)]
                if index == 0:
                    self.volume.check(segment.offset, segment.length)
                return made[:index]
        return made

    def link(self, node: Node) -> bytes:
        self.attributes(node)
        raise WrongKind("not a symbolic link: this file system has none", f"entry {node.number}")


def _generation(raw: bytes) -> int:
    return zlib.crc32(raw)
