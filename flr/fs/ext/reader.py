# SPDX-License-Identifier: Apache-2.0
"""The ext file system behind `flr.fs.base.FileSystem`. Not here: the journal, which is over the volume already (`flr.fs.ext.open`).

Wrong checksums are warnings: what they guard is shown as far as it holds together, and a person decides.
"""

from __future__ import annotations

import base64
import stat
import struct
from collections import OrderedDict
from itertools import pairwise

import numpy as np

from flr.blocks import Extent, Hole, Literal, Places, Segment, Volume, joined
from flr.errors import Corrupt, NodeNotFound, RecoveryError, TooMuch, Unsupported
from flr.fs import names
from flr.fs.base import (
    LONGEST_LINK,
    MOST_ENTRIES,
    MOST_SEGMENTS,
    About,
    Attributes,
    Entry,
    FileSystem,
    Listing,
    Node,
    needs,
)
from flr.fs.ext import directory, inode_table
from flr.fs.ext import xattrs as attribute_lists
from flr.fs.ext.checksum import crc32c
from flr.fs.ext.inode import EA_INODE, ENCRYPTED, HAS_EXTENTS, INDEXED, INLINE, Inode, attributes, checksum_right
from flr.fs.ext.mapping import Mapping, Span, Stopped
from flr.fs.ext.superblock import FILETYPE, ROOT, Groups, read_superblock
from flr.fs.table import FEW, ROW, Rows, Table, pack, unpack

INODES_KEPT = 64
LARGEST_INLINE = 64 << 10
"""Bytes of content within an inode: no inode is larger."""
SHORTEST = 24
"""Bytes of a folder that are read for each name that is asked for; names of 16 letters take so many."""
SMALL = 16 << 10
"""Bytes of a folder for which operations on arrays cost more than they save."""
BLOCKS_A_CALL = 4096
"""Of a folder, for one part of a listing, however few names stand in them."""
GAP = 64 << 10
"""Bytes between wanted inodes that are announced with them."""


class Ext(FileSystem):
    def __init__(self, volume: Volume) -> None:
        super().__init__(volume)
        self.super = s = read_superblock(volume, self.warn)
        self._groups = Groups(volume, s, self.warn)
        self._mapping = Mapping(volume, s, self.warn)
        self._kept: OrderedDict[int, Inode] = OrderedDict()
        self._typed = bool(s.incompat & FILETYPE)
        self.about = About(
            kind=s.kind,
            label=s.label.decode("utf-8", "replace"),
            uuid=_uuid(s.uuid),
            size=s.blocks * s.block_size,
            used=max(s.blocks - s.free_blocks, 0) * s.block_size,
            block_size=s.block_size,
            written=s.written * 10**9 or None,
            mounted_at=s.mounted_at.decode("utf-8", "replace"),
        )
        if s.state & 2:
            self.warn("the guest's kernel had found errors in this file system")
        if self.about.size > volume.size:
            self.warn(
                f"the file system has {self.about.size} bytes, its volume {volume.size}: the end of it is missing"
            )

    # -- inodes

    def _place(self, number: int) -> int:
        """Where an inode stands, in bytes. NodeNotFound, Corrupt."""
        s = self.super
        if not 1 <= number <= s.inodes:
            raise NodeNotFound("an inode's number is none of its file system", f"{number} of {s.inodes}")
        group, within = divmod(number - 1, s.inodes_per_group)
        return self._groups.inode_table(group) * s.block_size + within * s.inode_size

    def inode(self, number: int) -> Inode:
        """For content; the last few are kept. NodeNotFound, Corrupt, OutOfBounds."""
        found = self._kept.get(number)
        if found is None:
            raw = self.volume.pread(self._place(number), self.super.inode_size)
            found = self._kept[number] = Inode(self.super, number, raw)
            if not checksum_right(self.super, number, raw):
                self.warn(f"inode {number} has a wrong checksum")
            if len(self._kept) > INODES_KEPT:
                self._kept.popitem(last=False)
        else:
            self._kept.move_to_end(number)
        return found

    def _of(self, node: Node) -> tuple[Inode, Attributes]:
        inode = self.inode(node.number)
        if inode.generation != node.generation:
            raise NodeNotFound("an inode is another file's by now", f"{node.number}, generation {node.generation}")
        return inode, attributes(self.super, node.number, inode.raw)

    def root(self) -> Node:
        return Node(ROOT, self.inode(ROOT).generation)

    def attributes(self, node: Node) -> Attributes:
        return self._of(node)[1]

    def _many(self, numbers: list[int]) -> tuple[Rows, dict[int, str]]:
        """A record of each inode, and what is wrong, by place. Read in few pieces, in the order of the tables."""
        s = self.super
        size = s.inode_size
        problems: dict[int, str] = {}
        made = np.zeros(len(numbers), ROW)
        wanted = np.array(numbers, np.int64)
        made["number"] = wanted
        groups, within = np.divmod(wanted - 1, s.inodes_per_group)
        known = (wanted >= 1) & (wanted <= s.inodes)
        for place in np.flatnonzero(~known).tolist():
            problems[place] = f"its inode {numbers[place]} is none of {s.inodes}"
        places = within * size
        for group in np.unique(groups[known]).tolist():
            mine = known & (groups == group)
            try:
                places[mine] += self._groups.inode_table(group) * s.block_size
            except RecoveryError as error:
                known &= ~mine
                problems.update(dict.fromkeys(np.flatnonzero(mine).tolist(), str(error)))
        inside = known & (places + size <= self.volume.size)
        for place in np.flatnonzero(known & ~inside).tolist():
            problems[place] = f"its inode {numbers[place]} stands beyond the end of the volume"
        order = np.flatnonzero(inside)
        order = order[np.argsort(places[order], kind="stable")]
        ascending = places[order]
        self._announce(ascending, size)
        raw = self.volume.gather(ascending, size)
        made[order], used = inode_table.rows(s, wanted[order], raw)
        for place in order[~used].tolist():
            problems[place] = f"its inode {numbers[place]} is not in use"
        for place in order[inode_table.wrong_checksums(s, wanted[order], raw)].tolist():
            self.warn(f"inode {numbers[place]} has a wrong checksum")
        return made, problems

    def _announce(self, ascending: Places, size: int) -> None:
        """That inodes at these places will be read."""
        if len(ascending):
            cuts = [0, *(np.flatnonzero(np.diff(ascending) > GAP) + 1).tolist(), len(ascending)]
            ranges = [(int(ascending[low]), int(ascending[high - 1])) for low, high in pairwise(cuts)]
            self.volume.prefetch([(start, last + size - start) for start, last in ranges])

    # -- folders

    def entries(self, node: Node, cursor: int = 0, count: int = MOST_ENTRIES) -> Listing:
        return unpack(self.table(node, cursor, count))

    def table(self, node: Node, cursor: int = 0, count: int = MOST_ENTRIES) -> Table:
        inode, own = self._of(node)
        needs(own, stat.S_IFDIR, "a folder")
        count = max(1, min(count, MOST_ENTRIES))
        found = directory.Names([], [], [], [])
        read = self._inline_names if inode.flags & INLINE else self._names
        after = read(inode, own.size, cursor, count, found)
        names = self._fitting(inode, found)
        if len(names) <= FEW:
            return pack(Listing(self._few(names, found), after))
        rows, problems = self._many(found.inodes)
        for place in problems:
            rows[place] = np.zeros(1, ROW)[0]
            rows[place]["number"] = found.inodes[place]
            rows[place]["mode"] = directory.type_of(found.kinds[place])
        return Table(names, rows.tobytes(), problems, after)

    def _few(self, names: list[bytes], found: directory.Names) -> list[Entry]:
        """As `_many`, one by one."""
        s = self.super
        made: list[Entry] = []
        for name, number, kind in zip(names, found.inodes, found.kinds, strict=True):
            try:
                raw = self.volume.pread(self._place(number), s.inode_size)
                entry = Entry(name, number, attributes(s, number, raw))
                if not checksum_right(s, number, raw):
                    self.warn(f"inode {number} has a wrong checksum")
            except RecoveryError as error:
                entry = Entry(name, number, None, directory.type_of(kind), f"its inode cannot be read: {error}")
            made.append(entry)
        return made

    def _fitting(self, inode: Inode, found: directory.Names) -> list[bytes]:
        """The names as they are shown; entries whose name is none are taken out of `found`."""
        if inode.flags & ENCRYPTED:  # no key, no name: what is stored, in letters
            return [base64.urlsafe_b64encode(name).rstrip(b"=") for name in found.names]
        all_of_them = b"\n".join(found.names)
        if b"/" not in all_of_them and b"\0" not in all_of_them and all(found.names):
            return found.names
        shown = [names.fit(name) for name in found.names]
        for place in range(len(shown) - 1, -1, -1):
            if shown[place] != found.names[place]:
                self.warn(f"folder {inode.number} has a name that none can have: {found.names[place][:64]!r}")
            if shown[place] is None:
                for column in found:
                    del column[place]
        return [name for name in shown if name is not None]

    def _names(self, inode: Inode, size: int, cursor: int, count: int, found: directory.Names) -> int | None:
        """Adds `count` names from byte `cursor` of the folder on, if it has so many; returns where the next one begins."""
        block_size = self.super.block_size
        blocks = size // block_size
        if blocks > self.super.blocks:
            self.warn(f"folder {inode.number} says that it is larger than its file system")
            blocks = self.super.blocks
        spans = self._mapping.spans(inode, cursor // block_size, blocks)
        read = 0
        at = cursor % block_size
        left: Span | Stopped | None = next(spans, None)
        while isinstance(left, Span):
            wanted = (count - len(found.names)) * SHORTEST // block_size + 1
            numbers: list[int] = []
            places: list[tuple[int, int]] = []
            while isinstance(left, Span) and len(numbers) < wanted:
                some = min(left.blocks, wanted - len(numbers))
                numbers.extend(range(left.logical, left.logical + some))
                places.append((left.physical * block_size, some * block_size))
                if some == left.blocks:
                    left = next(spans, None)
                else:
                    left = Span(left.logical + some, left.blocks - some, left.physical + some)
            if at and numbers[0] * block_size != cursor - at:
                at = 0  # a cursor of another folder
            self._parse(inode, numbers, places, at, found)
            at = 0
            read += len(numbers)
            if len(found.names) >= count:
                block, within = divmod(found.ends[count - 1], block_size)
                after = numbers[block] * block_size + within if within else (numbers[block - 1] + 1) * block_size
                for column in found:
                    del column[count:]
                return after if after < blocks * block_size else None
            if read >= BLOCKS_A_CALL and left is not None:
                break  # a folder of empty blocks: the next part is asked for again
        return left.logical * block_size if left else None

    def _parse(
        self, inode: Inode, numbers: list[int], places: list[tuple[int, int]], at: int, found: directory.Names
    ) -> None:
        """Of blocks `numbers` of a folder, which stand at `places`."""
        block_size = self.super.block_size
        self.volume.prefetch(places)
        data = b"".join([self.volume.pread(*place) for place in places])
        self._check_blocks(inode, data, numbers)
        if self._typed and len(data) > SMALL and directory.parse_sound(data, at, block_size, found):
            return
        while at < len(data):
            problem = directory.parse(data, at, len(data), block_size, self._typed, found)
            if problem is None:
                return
            where, what = problem
            self.warn(f"folder {inode.number}: {what}; the rest of block {numbers[where // block_size]} is left out")
            at = (where // block_size + 1) * block_size

    def _check_blocks(self, inode: Inode, data: bytes, numbers: list[int]) -> None:
        """A block's checksum stands in what looks like its last entry. Of index blocks nothing is used."""
        if not self.super.checksums:
            return
        size = self.super.block_size
        for at in range(0, len(data), size):
            block = numbers[at // size]
            tail = at + size - 12
            if data[tail : tail + 8] != b"\0\0\0\0\x0c\0\0\xde":
                continue
            is_index = inode.flags & INDEXED and (
                not block or data[at : at + 6] == struct.pack("<IH", 0, size & 0xFFFF)
            )
            stored = int.from_bytes(data[tail + 8 : tail + 12], "little")
            if not is_index and crc32c(inode.seed, data[at:tail]) != stored:
                self.warn(f"folder {inode.number}: its block {block} has a wrong checksum")

    def _inline_names(self, inode: Inode, size: int, cursor: int, count: int, found: directory.Names) -> int | None:
        """The first four bytes are the parent's number; then entries, to be continued in an attribute."""
        inside = inode.block[4:]
        for at, data in ((cursor, inside), (max(cursor - len(inside), 0), self._inline_rest(inode))):
            known = len(found.names)
            problem = directory.parse(data, at, len(data), 1 << 15, self._typed, found)
            if problem:
                self.warn(f"folder {inode.number}: {problem[1]}; the rest of it is left out")
            if data is not inside:
                found.ends[known:] = [end + len(inside) for end in found.ends[known:]]
        if len(found.names) <= count:
            return None
        for column in found:
            del column[count:]
        return found.ends[-1]

    # -- content

    def runs(self, node: Node, offset: int, length: int, stream: bytes = b"") -> list[Segment]:
        inode, own = self._of(node)
        needs(own, stat.S_IFREG, "a regular file")
        if stream:
            raise NodeNotFound("ext files have no streams", f"inode {node.number}: {stream[:64]!r}")
        if inode.flags & ENCRYPTED:
            raise Unsupported(
                "a file is encrypted by the guest",
                f"inode {node.number}",
                "restore the disk; only the guest has the key",
            )
        if offset < 0 or length < 0:
            raise ValueError(f"{length} bytes at {offset}")
        return self._runs(inode, own.size, offset, min(length, own.size - offset))

    def _runs(self, inode: Inode, size: int, offset: int, length: int) -> list[Segment]:
        if length <= 0:
            return []
        if inode.flags & INLINE:
            data = (inode.block + self._inline_rest(inode))[:size]
            data += bytes(max(0, min(size, LARGEST_INLINE) - len(data)))
            if offset >= len(data):
                raise Corrupt("a file within its inode is larger than an inode", f"inode {inode.number}: {size} bytes")
            return [Literal(data[offset : offset + length])]
        block_size = self.super.block_size
        end = offset + length
        made: list[Segment] = []
        at = offset
        for span in self._mapping.spans(inode, offset // block_size, -(-end // block_size)):
            start = span.logical * block_size
            if start > at:
                made.append(Hole(min(start, end) - at))
                at = min(start, end)
            if isinstance(span, Stopped) or len(made) >= MOST_SEGMENTS:
                return joined(made)
            stop = min((span.logical + span.blocks) * block_size, end)
            made.append(Extent(0, span.physical * block_size + at - start, stop - at))
            at = stop
        made.append(Hole(end - at))
        return joined(made)

    def _whole(self, inode: Inode, size: int, most: int) -> bytes:
        """Content of something that is small: a link, an attribute."""
        if size > most:
            raise TooMuch("something is larger than it can be", f"inode {inode.number}: {size} bytes, at most {most}")
        made = b""
        while len(made) < size:
            for run in self._runs(inode, size, len(made), size - len(made)):
                if isinstance(run, Extent):
                    made += self.volume.pread(run.offset, run.length)
                else:
                    made += run.data if isinstance(run, Literal) else bytes(run.length)
        return made

    def link(self, node: Node) -> bytes:
        inode, own = self._of(node)
        needs(own, stat.S_IFLNK, "a symbolic link")
        if inode.flags & ENCRYPTED:
            raise Unsupported("a link is encrypted by the guest", f"inode {node.number}")
        if not inode.flags & (INLINE | HAS_EXTENTS) and own.size < 60:
            inside: bytes = inode.block
            return inside[: own.size]
        return self._whole(inode, own.size, LONGEST_LINK)

    # -- extended attributes

    def xattrs(self, node: Node) -> dict[bytes, bytes]:
        inode, _ = self._of(node)
        return attribute_lists.shown(self._attributes_of(inode), inode.number)

    def _attributes_of(self, inode: Inode) -> attribute_lists.Found:
        found: attribute_lists.Found = {}
        if inode.acl:
            size = self.super.block_size
            if not self.super.first_block < inode.acl < self.super.blocks:
                raise Corrupt("a block of attributes stands outside of its file system", f"inode {inode.number}")
            block = self.volume.pread(inode.acl * size, size)
            if block[:4] != struct.pack("<I", attribute_lists.MAGIC):
                raise Corrupt("a block of attributes is none", f"inode {inode.number}: block {inode.acl}")
            register = crc32c(self.super.seed, struct.pack("<Q", inode.acl) + block[:16] + b"\0\0\0\0" + block[20:])
            if self.super.checksums and block[16:20] != struct.pack("<I", register):
                self.warn(f"inode {inode.number}: its block of attributes has a wrong checksum")
            attribute_lists.parse(block, 32, 0, self._value, inode.number, found)
        self._in_inode(inode, found)
        return found

    def _in_inode(self, inode: Inode, found: attribute_lists.Found) -> None:
        at = 128 + inode.extra
        if (
            at + 4 <= len(inode.raw)
            and inode.extra
            and inode.raw[at : at + 4] == struct.pack("<I", attribute_lists.MAGIC)
        ):
            attribute_lists.parse(inode.raw, at + 4, at + 4, self._value, inode.number, found)

    def _inline_rest(self, inode: Inode) -> bytes:
        """What of inline data did not find room in the block field."""
        found: attribute_lists.Found = {}
        self._in_inode(inode, found)
        return found.get((attribute_lists.SYSTEM, attribute_lists.INLINE_NAME), b"")

    def _value(self, number: int, size: int) -> bytes:
        """Of an attribute that has an inode of its own."""
        inode = self.inode(number)
        if not inode.flags & EA_INODE or inode.size != size:
            raise Corrupt("an attribute's inode is none", f"inode {number}: {inode.size} bytes, not {size}")
        return self._whole(inode, size, attribute_lists.LONGEST_VALUE)


def _uuid(raw: bytes) -> str:
    text = raw.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
