# SPDX-License-Identifier: Apache-2.0
"""The reader of XFS, versions 4 and 5, as a `FileSystem`.

Its parts: `superblock`, `inode`, `extents`, `directory`, `attributes`, `links`, `listing`; `replay` puts the log's changes over
the volume in memory first. Not here: realtime devices (their files are refused one by one), quota, free space.
A name that holds a slash or a NUL is nothing that an XFS ever wrote: it is listed with these two as `%2F` and `%00` and a
problem that says so, and never as it is, so that no one who joins paths can be led elsewhere.
"""

from __future__ import annotations

import stat

from flr.blocks import Extent, Hole, Segment, Volume, joined
from flr.errors import Corrupt, NodeNotFound, RecoveryError, Unsupported
from flr.fs import names as names_of
from flr.fs.base import MOST_ENTRIES, MOST_SEGMENTS, About, Attributes, Entry, FileSystem, Listing, Node, needs
from flr.fs.xfs import attributes, directory, links, superblock
from flr.fs.xfs.blocks import Blocks
from flr.fs.xfs.extents import mappings
from flr.fs.xfs.inode import CHECKSUM, LOCAL, Inode, inode
from flr.fs.xfs.listing import attributes_of
from flr.fs.xfs.replay import replay as log_replay

_INODES_KEPT = 256


class Xfs(FileSystem):
    """`replay=False` shows what stands on the disk without the log, which is what a damaged log leaves anyhow."""

    def __init__(self, volume: Volume, *, replay: bool = True) -> None:
        super().__init__(volume)
        sb, warning = superblock.find(volume)
        if warning:
            self.warn(warning)
        journal = "not replayed: it was not asked for"
        if replay:
            done = log_replay(volume, sb, self.warn)
            self.volume, sb, journal = done.volume, done.superblock, done.journal
        self._blocks = Blocks(self.volume, sb, self.warn)
        self._inodes: dict[int, Inode] = {}
        free = sb.free_blocks
        self.about = About(
            kind="xfs",
            label=sb.label,
            uuid=superblock.written(sb.uuid),
            size=sb.size,
            used=None if free is None or free > sb.blocks else sb.size - (free << sb.block_log),
            block_size=sb.block_size,
            journal=journal,
        )
        if sb.incompatible & superblock.NEEDS_REPAIR:
            self.warn("the file system is marked as in need of repair")
        if sb.unfinished:
            self.warn("mkfs did not finish this file system")
        if sb.realtime_blocks:
            self.warn("files on its realtime device are not read")
        if sb.size > volume.size:
            self.warn(f"the file system has {sb.size} bytes, its volume only {volume.size}")

    def root(self) -> Node:
        return self._inode(self._blocks.superblock.root).attributes.node

    def attributes(self, node: Node) -> Attributes:
        return self._of(node).attributes

    def entries(self, node: Node, cursor: int = 0, count: int = MOST_ENTRIES) -> Listing:
        folder = self._of(node)
        needs(folder.attributes, stat.S_IFDIR, "a folder")
        count, cursor = max(1, min(count, MOST_ENTRIES)), max(cursor, 0)
        file_types = self._blocks.superblock.file_types
        if folder.data.format == LOCAL:
            found = directory.short_form(folder.data.data, file_types, cursor)
        else:
            found = directory.data_blocks(self._blocks, node.number, folder.data, file_types, cursor, count)
        for problem in found.problems:
            self.warn(f"the folder of inode {node.number}: {problem}")
        names, following = found.names, found.following
        if len(names) > count:
            following = names[count][0]
            del names[count:]
        told = attributes_of(self._blocks, [name[2] for name in names])
        made: list[Entry] = []
        for _, name, number, kind in names:
            of = told[number]
            shown = names_of.fit(name)
            if shown != name:
                self.warn(f"the folder of inode {node.number} has a name that none can have: {name[:64]!r}")
            if shown is None:
                continue
            if isinstance(of, str):
                made.append(Entry(shown, number, None, kind, of))
            else:
                made.append(Entry(shown, number, of, kind))
        return Listing(made, following)

    def runs(self, node: Node, offset: int, length: int, stream: bytes = b"") -> list[Segment]:
        file = self._of(node)
        needs(file.attributes, stat.S_IFREG, "a file")
        if stream:
            raise NodeNotFound("XFS has no streams", repr(stream))
        if file.realtime:
            raise Unsupported("a file's content is on the realtime device, which is not read", f"inode {node.number}")
        if offset < 0:
            raise Corrupt("a file begins at byte 0", str(offset))
        end = min(offset + length, file.attributes.size)
        if offset >= end:
            return []
        log = self._blocks.superblock.block_log
        made: list[Segment] = []
        at = offset
        try:
            for mapping in mappings(self._blocks, node.number, file.data, offset >> log):
                start = mapping.start << log
                if start >= end:
                    break
                if start > at:
                    made.append(Hole(start - at))
                    at = start
                taken = min(mapping.end << log, end) - at
                place = self._blocks.offset(mapping.block, mapping.count) + at - start
                self.volume.check(place, taken)
                made.append(Hole(taken) if mapping.unwritten else Extent(0, place, taken))
                at += taken
                if len(made) >= MOST_SEGMENTS:
                    return joined(made)
        except RecoveryError:
            if at == offset:
                raise
            return joined(made)  # what comes next is asked for again, and raises then
        if at < end:
            made.append(Hole(end - at))
        return joined(made)

    def link(self, node: Node) -> bytes:
        found = self._of(node)
        needs(found.attributes, stat.S_IFLNK, "a link")
        return links.target(self._blocks, found)

    def xattrs(self, node: Node) -> dict[bytes, bytes]:
        return attributes.extended(self._blocks, node.number, self._of(node).extra)

    def _of(self, node: Node) -> Inode:
        found = self._inode(node.number)
        if found.attributes.generation != node.generation:
            raise NodeNotFound("the file does not exist any more", f"inode {node.number} is used again")
        return found

    def _inode(self, number: int) -> Inode:
        found = self._inodes.get(number)
        if found is not None:
            return found
        sb = self._blocks.superblock
        offset = sb.inode_offset(number)
        if offset is None:
            raise NodeNotFound("the file does not exist", f"there is no inode {number}")
        data = self.volume.pread(offset, sb.inode_size)
        found = inode(sb, number, data)
        if data[4] == 3:
            self._blocks.verify(data, CHECKSUM, offset, f"inode {number}")
        if len(self._inodes) == _INODES_KEPT:
            self._inodes.clear()
        self._inodes[number] = found
        return found
