# SPDX-License-Identifier: Apache-2.0
"""Inodes: attributes of many at a time, and the fields that lead to one's content.

A listing reads 100,000 of them, so `attributes` is one unpacking and plain arithmetic. Format:
Documentation/filesystems/ext4/inodes.rst.
"""

from __future__ import annotations

import os
import stat
import struct

from flr.errors import NodeNotFound
from flr.fs.base import Attributes, Flag
from flr.fs.ext.checksum import crc32c
from flr.fs.ext.superblock import LARGE_DIRECTORY, Superblock

COMPRESSED, IMMUTABLE, APPEND, ENCRYPTED = 0x4, 0x10, 0x20, 0x800
INDEXED, HUGE_FILE, HAS_EXTENTS, VERITY, EA_INODE, INLINE, CASEFOLD = (
    0x1000, 0x40000, 0x80000, 0x100000, 0x200000, 0x10000000, 0x40000000,
)  # fmt: skip
SHOWN = {
    COMPRESSED: Flag.COMPRESSED, IMMUTABLE: Flag.IMMUTABLE, APPEND: Flag.APPEND_ONLY, ENCRYPTED: Flag.ENCRYPTED,
    CASEFOLD: Flag.CASE_FOLDED,
}  # fmt: skip
_SHOWN_MASK = COMPRESSED | IMMUTABLE | APPEND | ENCRYPTED | CASEFOLD

CHECKED = 132
"""Bytes of an inode that hold both halves of its checksum."""
# mode uid size atime ctime mtime dtime gid links blocks flags . block generation acl size_hi . blocks_hi acl_hi uid_hi gid_hi
_SHORT = struct.Struct("<HHIiiiIHHII4x60sIII4xHHHH4x")
# ... checksum_lo . extra_size checksum_hi ctime_x mtime_x atime_x crtime crtime_x
_LONG = struct.Struct("<HHIiiiIHHII4x60sIII4xHHHH4xH2xIIIiI")
SECOND = 10**9
SPECIAL = (stat.S_IFCHR, stat.S_IFBLK)
TYPES = frozenset((stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK, *SPECIAL))


class Inode:
    """One inode's fields that lead to its content. `raw` is all of it."""

    __slots__ = ("acl", "block", "extra", "flags", "generation", "mode", "number", "raw", "seed", "size")

    def __init__(self, s: Superblock, number: int, raw: bytes) -> None:
        fields = _SHORT.unpack_from(raw)
        self.number = number
        self.raw = raw
        self.mode, self.flags, self.block, self.generation = fields[0], fields[10], fields[11], fields[12]
        self.acl = fields[13] | fields[16] << 32
        self.size = size_of(s, fields[0], fields[2], fields[14])
        self.extra = struct.unpack_from("<H", raw, 128)[0] if s.inode_size > 128 else 0
        self.seed = crc32c(s.seed, number.to_bytes(4, "little") + raw[100:104]) if s.checksums else 0


def size_of(s: Superblock, mode: int, low: int, high: int) -> int:
    """Only files have a high half of their size; in folders the field was once an ACL."""
    kind = stat.S_IFMT(mode)
    if kind == stat.S_IFREG or (kind == stat.S_IFDIR and s.incompat & LARGE_DIRECTORY):
        return low | high << 32
    return low


def checksum_right(s: Superblock, number: int, raw: bytes) -> bool:
    """`raw` is a whole inode. True where inodes have none."""
    if not s.checksums:
        return True
    long = s.inode_size > 128 and raw[128] | raw[129] << 8 >= 4
    data = raw[:124] + b"\0\0" + raw[126:130] + b"\0\0" + raw[132:] if long else raw[:124] + b"\0\0" + raw[126:]
    register = crc32c(s.seed, b"%b%b%b" % (number.to_bytes(4, "little"), raw[100:104], data))
    stored = raw[124] | raw[125] << 8
    if not long:
        return register & 0xFFFF == stored
    return register == stored | raw[130] << 16 | raw[131] << 24


def attributes(s: Superblock, number: int, raw: bytes, at: int = 0) -> Attributes:
    """Of the inode at `raw[at:]`. NodeNotFound where it is free or of no type."""
    if s.inode_size > 128:
        (
            mode, uid, size, accessed, changed, modified, _, gid, links, blocks, flags, block, generation, _, size_high,
            blocks_high, _, uid_high, gid_high, extra, changed_x, modified_x, accessed_x, created, created_x,
        ) = _LONG.unpack_from(raw, at)  # fmt: skip
        if extra < 24:
            created_x = created_x if extra >= 24 else 0
            accessed_x = accessed_x if extra >= 16 else 0
            modified_x = modified_x if extra >= 12 else 0
            changed_x = changed_x if extra >= 8 else 0
        made = (created + ((created_x & 3) << 32)) * SECOND + (created_x >> 2) if extra >= 20 else None
    else:
        (
            mode, uid, size, accessed, changed, modified, _, gid, links, blocks, flags, block, generation, _, size_high,
            blocks_high, _, uid_high, gid_high,
        ) = _SHORT.unpack_from(raw, at)  # fmt: skip
        changed_x = modified_x = accessed_x = 0
        made = None
    kind = mode & 0o170000
    if kind not in TYPES or links == 0:
        raise NodeNotFound("an inode is not in use", number)
    if kind == stat.S_IFREG:
        size |= size_high << 32
    elif size_high and kind == stat.S_IFDIR:
        size = size_of(s, mode, size, size_high)
    if blocks_high and s.ro_compat & 8:
        blocks |= blocks_high << 32
    unit = s.block_size if flags & HUGE_FILE else 512
    shown = 0
    if flags & _SHOWN_MASK:
        shown = sum(ours for bit, ours in SHOWN.items() if flags & bit)
    if kind == stat.S_IFREG and size > s.blocks * s.block_size:
        shown |= Flag.SUSPICIOUS
    return Attributes(
        number,
        generation,
        mode,
        links,
        uid | uid_high << 16,
        gid | gid_high << 16,
        size,
        blocks * unit,
        (modified + ((modified_x & 3) << 32)) * SECOND + (modified_x >> 2),
        (changed + ((changed_x & 3) << 32)) * SECOND + (changed_x >> 2),
        (accessed + ((accessed_x & 3) << 32)) * SECOND + (accessed_x >> 2),
        made,
        _device(block) if kind in SPECIAL else 0,
        shown,
    )


def _device(block: bytes) -> int:
    """The old form, 8 bits each, stands in the first word, the new one in the second."""
    old, new = struct.unpack_from("<II", block)
    if old:
        return os.makedev(old >> 8 & 0xFF, old & 0xFF)
    return os.makedev(new >> 8 & 0xFFF, new & 0xFF | new >> 12 & 0xFFF00)
