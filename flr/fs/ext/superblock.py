# SPDX-License-Identifier: Apache-2.0
"""The superblock and the group descriptors: where everything else is.

Read from the volume as it is given: whoever wants the journal's state gives the volume with the journal over it. A superblock
that does not hold together is looked for in its backups; a feature that changes how the rest is to be read and is not known here
is refused by its name. Format: Documentation/filesystems/ext4/{super,group_descr}.rst.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable

from flr.blocks import Volume
from flr.errors import Corrupt, NotRecognised, OutOfBounds, RecoveryError, Unsupported
from flr.fs.ext.checksum import ONES, crc32c

AT = 1024
SIZE = 1024
MAGIC = 0xEF53
ROOT = 2

COMPAT_JOURNAL, COMPAT_SPARSE2 = 0x4, 0x200
RO_SPARSE, RO_HUGE, RO_GDT_CHECKSUM, RO_BIGALLOC, RO_CHECKSUM = 0x1, 0x8, 0x10, 0x200, 0x400
FILETYPE, RECOVER, JOURNAL_DEVICE, META_BG, EXTENTS, BITS64 = 0x2, 0x4, 0x8, 0x10, 0x40, 0x80
FLEX, EA_INODE, CHECKSUM_SEED, LARGE_DIRECTORY, INLINE, ENCRYPT, CASEFOLD = (
    0x200, 0x400, 0x2000, 0x4000, 0x8000, 0x10000, 0x20000,
)  # fmt: skip
MMP = 0x100
KNOWN = (
    FILETYPE | RECOVER | META_BG | EXTENTS | BITS64 | MMP | FLEX | EA_INODE | CHECKSUM_SEED | LARGE_DIRECTORY | INLINE
    | ENCRYPT | CASEFOLD
)  # fmt: skip
UNKNOWN_NAMES = {0x1: "compression", 0x8: "it is the journal of another file system", 0x1000: "dirdata"}
EXT4_ONLY = EXTENTS | BITS64 | FLEX | META_BG | INLINE | EA_INODE
RO_EXT4_ONLY = RO_HUGE | RO_GDT_CHECKSUM | 0x20 | 0x40 | RO_CHECKSUM

BACKUPS = tuple((1 << (10 + k), (8 << (10 + k)) * (1 << (10 + k)) + (1024 if k == 0 else 0)) for k in range(7))
"""(block size, byte) of the copy in group 1, for a group of as many blocks as one block of bitmap has bits."""
TABLE_BLOCKS_KEPT = 1024


class Superblock:
    """Fields by what they mean; sizes in bytes unless the name says blocks. Raises NotRecognised, Corrupt or Unsupported."""

    def __init__(self, raw: bytes) -> None:
        def u16(at: int) -> int:
            return int.from_bytes(raw[at : at + 2], "little")

        def u32(at: int) -> int:
            return int.from_bytes(raw[at : at + 4], "little")

        if u16(56) != MAGIC:
            raise NotRecognised("no ext file system begins here")
        revision = u32(76)
        self.compat, self.incompat, self.ro_compat = (u32(92), u32(96), u32(100)) if revision else (0, 0, 0)
        unknown = self.incompat & ~KNOWN
        if unknown:
            bits = [1 << k for k in range(32) if unknown >> k & 1]
            raise Unsupported(
                "an ext file system uses features that are not known here",
                ", ".join(UNKNOWN_NAMES.get(bit, f"{bit:#x}") for bit in bits),
            )
        if u32(24) > 6:
            raise Corrupt("an ext superblock has an impossible block size", f"2^{10 + u32(24)}")
        self.block_log, self.cluster_log, self.clusters_per_group = u32(24), u32(28), u32(36)
        self.block_size = 1024 << self.block_log
        self.is_copy = False  # a backup; it never says that the journal holds something
        wide = bool(self.incompat & BITS64)
        self.blocks = u32(4) | (u32(0x150) << 32 if wide else 0)
        self.free_blocks = u32(12) | (u32(0x158) << 32 if wide else 0)
        self.inodes = u32(0)
        self.first_block = u32(20)
        self.blocks_per_group, self.inodes_per_group = u32(32), u32(40)
        self.inode_size = u16(88) if revision else 128
        self.descriptor_size = max(u16(254), 32) if wide else 32
        self.first_meta_group = u32(260)
        self.journal_inode, self.journal_device = u32(224), u32(228)
        self.uuid = raw[104:120]
        self.label = raw[120:136].split(b"\0")[0]
        self.mounted_at = raw[136:200].split(b"\0")[0]
        self.written, self.state = u32(48), u16(58)
        self.backup_groups = (u32(0x24C), u32(0x250))
        self.checksums = bool(self.ro_compat & RO_CHECKSUM)
        self.seed = u32(0x270) if self.incompat & CHECKSUM_SEED else crc32c(ONES, self.uuid)
        self.checksum_right = not self.checksums or crc32c(ONES, raw[:0x3FC]) == u32(0x3FC)
        self.groups = -(-(self.blocks - self.first_block) // self.blocks_per_group) if self.blocks_per_group else 0
        self._check()

    def _check(self) -> None:
        bits = self.block_size * 8
        if self.ro_compat & RO_BIGALLOC:  # a bitmap's bits are clusters
            shift = self.cluster_log - self.block_log
            in_step = 0 <= shift <= 32 and self.blocks_per_group == self.clusters_per_group << shift
            group = in_step and 0 < self.clusters_per_group <= bits
        else:
            group = 0 < self.blocks_per_group <= bits
        right = (
            group
            and self.blocks < 1 << 48
            and self.blocks * self.block_size < 1 << 63
            and 0 < self.inodes_per_group <= bits
            and self.inode_size in (128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)
            and self.inode_size <= self.block_size
            and self.first_block == (1 if self.block_size == 1024 and not self.ro_compat & RO_BIGALLOC else 0)
            and self.blocks > self.first_block
            and self.descriptor_size in (32, 64, 128, 256, 512, 1024)
            and 0 < self.inodes <= self.groups * self.inodes_per_group
        )
        if not right:
            value = f"{self.blocks} blocks of {self.block_size} bytes, {self.blocks_per_group} a group, {self.inodes} inodes"
            raise Corrupt("an ext superblock contradicts itself", value)

    @property
    def kind(self) -> str:
        if self.incompat & EXT4_ONLY or self.ro_compat & RO_EXT4_ONLY:
            return "ext4"
        return "ext3" if self.compat & COMPAT_JOURNAL else "ext2"

    def has_copy(self, group: int) -> bool:
        """Whether a group begins with a superblock and a descriptor table."""
        if self.compat & COMPAT_SPARSE2:
            return group == 0 or group in self.backup_groups
        if not self.ro_compat & RO_SPARSE or group <= 1:
            return True
        return any(_is_power(group, base) for base in (3, 5, 7))


def _is_power(number: int, base: int) -> bool:
    while number % base == 0:
        number //= base
    return number == 1


def read_superblock(volume: Volume, warn: Callable[[str], None]) -> Superblock:
    """The first one, or a backup when that does not hold together. NotRecognised, Corrupt, Unsupported, OutOfBounds."""
    raw = volume.pread(AT, SIZE)
    try:
        found = Superblock(raw)
        if found.checksum_right:
            return found
        problem: RecoveryError = Corrupt("an ext superblock has a wrong checksum")
    except (Corrupt, NotRecognised) as error:
        problem = error
        found = None
    for block_size, at in BACKUPS:
        try:
            copy = Superblock(volume.pread(at, SIZE))
        except (OutOfBounds, NotRecognised, Corrupt, Unsupported):
            continue
        if copy.block_size == block_size and copy.checksum_right and (found is None or copy.uuid == found.uuid):
            warn(f"{problem.what}: its backup in group 1 is used")
            copy.is_copy = True
            return copy
    if found is None:
        raise problem
    warn("the superblock's checksum is wrong, and no backup is better")
    return found


class Groups:
    """Where each group's inode table begins, read as it is asked for."""

    def __init__(self, volume: Volume, superblock: Superblock, warn: Callable[[str], None]) -> None:
        self._volume = volume
        self._super = superblock
        self._warn = warn
        self._per_block = superblock.block_size // superblock.descriptor_size
        self._kept: OrderedDict[int, list[int]] = OrderedDict()

    def inode_table(self, group: int) -> int:
        """The first block of a group's inode table. Corrupt or OutOfBounds."""
        block, within = divmod(group, self._per_block)
        tables = self._kept.get(block)
        if tables is None:
            tables = self._kept[block] = self._read(block)
            if len(self._kept) > TABLE_BLOCKS_KEPT:
                self._kept.popitem(last=False)
        table = tables[within]
        if not 0 < table < self._super.blocks:
            raise Corrupt("a group's inode table stands outside of its file system", f"group {group}: block {table}")
        return table

    def _places(self, block: int) -> list[int]:
        """Blocks that hold part `block` of the descriptor table: the first copy, then another one."""
        s = self._super
        if s.incompat & META_BG and block >= s.first_meta_group:
            groups = [block * self._per_block, block * self._per_block + 1]
            return [self._begin(g) + s.has_copy(g) for g in groups if g < s.groups]
        copies = [0, *s.backup_groups] if s.compat & COMPAT_SPARSE2 else [0, 1]
        return [self._begin(g) + 1 + block for g in dict.fromkeys(copies) if g < s.groups and s.has_copy(g)]

    def _begin(self, group: int) -> int:
        """The block that holds a group's superblock, or would."""
        s = self._super
        return s.first_block + group * s.blocks_per_group if group else AT // s.block_size

    def _read(self, block: int) -> list[int]:
        s = self._super
        count = min(self._per_block, s.groups - block * self._per_block)
        tables: list[int] = [0] * count
        wanting = list(range(count))
        for place in self._places(block):
            try:
                raw = self._volume.pread(place * s.block_size, s.block_size)
            except OutOfBounds:
                continue
            doubtful = []
            for k in wanting:
                one = raw[k * s.descriptor_size : (k + 1) * s.descriptor_size]
                table = struct.unpack_from("<I", one, 8)[0]
                if s.descriptor_size >= 64:
                    table |= struct.unpack_from("<I", one, 40)[0] << 32
                right = self._right(block * self._per_block + k, one)
                if right or not tables[k]:
                    tables[k] = table
                if not right:
                    doubtful.append(k)
            if not doubtful:
                return tables
            first = block * self._per_block + doubtful[0]
            self._warn(f"{len(doubtful)} group descriptors from group {first} on have wrong checksums")
            wanting = doubtful
        return tables

    def _right(self, group: int, raw: bytes) -> bool:
        """By its checksum; of CRC-16, which older file systems have, nothing is asked but that the table is inside."""
        s = self._super
        if not s.checksums:
            table = struct.unpack_from("<I", raw, 8)[0]
            return bool(0 < table < s.blocks) or s.descriptor_size >= 64
        register = crc32c(s.seed, group.to_bytes(4, "little"))
        register = crc32c(register, raw[:30] + b"\0\0" + raw[32:])
        return register & 0xFFFF == int.from_bytes(raw[30:32], "little")
