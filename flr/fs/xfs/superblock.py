# SPDX-License-Identifier: Apache-2.0
"""The superblock of an XFS file system: its geometry, its features, and which of them a reader has to know.

From "XFS Algorithms & Data Structures", 3rd edition, chapters "Superblocks" and "Allocation Groups". A superblock is believed
when its numbers agree with one another; a wrong checksum alone makes its copies preferred. Not here: counters of free space
beyond what the superblock says, quota and realtime inodes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from uuid import UUID

import msgspec

from flr.blocks import Volume
from flr.errors import Corrupt, NotRecognised, OutOfBounds, RecoveryError, Unsupported
from flr.fs.xfs.checksum import sound

MAGIC = b"XFSB"
_FIELDS = struct.Struct(  # a line each from bytes 0, 48, 96, 120, 144, 192 and 216 on
    ">4sI2Q8x16s2Q20x2I4xI4H12s5BxB17xQ40xB7xI12x2I24x16s"
)
_LOG_V2 = 0x400  # bits of `versionnum`
_DIRECTORIES_V2 = 0x2000
_CASE_FOLDED = 0x4000
_MORE = 0x8000
_V4_FILE_TYPES = 0x200  # bit of `features2`

FILE_TYPES, SPARSE_INODES, META_UUID, BIG_TIME, NEEDS_REPAIR, LARGE_COUNTS, EXCHANGE, PARENT, META_DIRECTORY = (
    1 << bit for bit in range(9)
)
_KNOWN = (
    FILE_TYPES | SPARSE_INODES | META_UUID | BIG_TIME | NEEDS_REPAIR | LARGE_COUNTS | EXCHANGE | PARENT | META_DIRECTORY
)
_ZONED = 0x200
_NAMES = {_ZONED: "zoned realtime groups", 0x400: "gaps between zones"}


class Superblock(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes in bytes where they are called size, otherwise in blocks. `free_blocks` is None where that is not known.

    `checked` is False when its checksum was wrong.
    """

    version: int
    block_size: int
    block_log: int
    blocks: int
    size: int
    realtime_blocks: int
    uuid: bytes
    metadata_uuid: bytes
    log_start: int
    log_blocks: int
    log_v2: bool
    root: int
    group_blocks: int
    groups: int
    group_log: int
    sector_size: int
    inode_size: int
    inode_log: int
    inodes_per_block_log: int
    directory_log: int
    free_blocks: int | None
    label: str
    file_types: bool
    case_folded: bool
    incompatible: int
    log_incompatible: int
    unfinished: bool
    checked: bool

    @property
    def directory_block_size(self) -> int:
        return self.block_size << self.directory_log

    def offset(self, block: int) -> int:
        """Where a file system block, by its number with the allocation group in its upper bits, begins on the volume."""
        return self.linear(block) << self.block_log

    def linear(self, block: int) -> int:
        """The block counted from the beginning of the volume."""
        return (block >> self.group_log) * self.group_blocks + (block & ((1 << self.group_log) - 1))

    def holds(self, block: int, count: int) -> bool:
        """Whether there are `count` blocks from this one on in its allocation group."""
        within = block & ((1 << self.group_log) - 1)
        return (
            block >> self.group_log < self.groups
            and within + count <= self.group_blocks
            and self.linear(block) + count <= self.blocks
        )

    def inode_offset(self, number: int) -> int | None:
        """Where an inode stands on the volume; None when there is no such place."""
        if not 0 < number < 1 << 64:
            return None
        shift = self.group_log + self.inodes_per_block_log
        group, within = number >> shift, number & ((1 << shift) - 1)
        block = within >> self.inodes_per_block_log
        if group >= self.groups or block >= self.group_blocks or group * self.group_blocks + block >= self.blocks:
            return None
        return (group * self.group_blocks << self.block_log) + (within << self.inode_log)


def parse(data: bytes) -> Superblock:
    """From the bytes of a superblock's sector, at least 512. NotRecognised, Unsupported, or Corrupt when it contradicts itself."""
    (
        magic, block_size, blocks, realtime_blocks, uuid, log_start, root, group_blocks, groups, log_blocks, bits, sector_size,
        inode_size, per_block, label, block_log, sector_log, inode_log, per_block_log, group_log, unfinished, free_blocks,
        directory_log, features2, incompatible, log_incompatible, other_uuid,
    ) = _FIELDS.unpack_from(data)  # fmt: skip
    if magic != MAGIC:
        raise NotRecognised("no XFS begins here", repr(magic))
    version = bits & 15
    if version not in (4, 5) or not bits & _DIRECTORIES_V2:
        raise Unsupported("an XFS of a version that is not read", f"version {version}, features {bits:#x}")
    v5 = version == 5
    if v5 and incompatible & ~_KNOWN:
        unknown = [_NAMES.get(1 << bit, f"bit {bit}") for bit in range(32) if incompatible & ~_KNOWN & 1 << bit]
        raise Unsupported("an XFS with features that are not known", ", ".join(unknown))
    _agree(block_size, block_log, 9, 16, "size of a block")
    _agree(inode_size, inode_log, 8, 11, "size of an inode")
    _agree(sector_size, sector_log, 9, 15, "size of a sector")
    if per_block_log != block_log - inode_log or per_block != 1 << per_block_log:
        raise Corrupt("the superblock contradicts itself", f"{per_block} inodes in a block of {block_size} bytes")
    if group_log > 31 or not 1 << group_log >> 1 < group_blocks <= 1 << group_log:
        raise Corrupt("the superblock contradicts itself", f"{group_blocks} blocks in a group, of {group_log} bits")
    if groups == 0 or not (groups - 1) * group_blocks < blocks <= groups * group_blocks:
        raise Corrupt("the superblock contradicts itself", f"{blocks} blocks in {groups} groups of {group_blocks}")
    if directory_log + block_log > 16:
        raise Corrupt("the superblock contradicts itself", f"directory blocks of 2^{directory_log + block_log} bytes")
    if not v5:
        incompatible = log_incompatible = 0
    return Superblock(
        version=version,
        block_size=block_size,
        block_log=block_log,
        blocks=blocks,
        size=blocks << block_log,
        realtime_blocks=realtime_blocks,
        uuid=uuid,
        metadata_uuid=other_uuid if incompatible & META_UUID else uuid,
        log_start=log_start,
        log_blocks=log_blocks,
        log_v2=bool(bits & _LOG_V2),
        root=root,
        group_blocks=group_blocks,
        groups=groups,
        group_log=group_log,
        sector_size=sector_size,
        inode_size=inode_size,
        inode_log=inode_log,
        inodes_per_block_log=per_block_log,
        directory_log=directory_log,
        free_blocks=free_blocks,
        label=label.rstrip(b"\0").decode("utf-8", "backslashreplace"),
        file_types=bool(incompatible & FILE_TYPES if v5 else bits & _MORE and features2 & _V4_FILE_TYPES),
        case_folded=bool(bits & _CASE_FOLDED),
        incompatible=incompatible,
        log_incompatible=log_incompatible,
        unfinished=bool(unfinished),
        checked=not v5 or len(data) < sector_size or sound(data[:sector_size], 224),
    )


def _agree(size: int, log: int, least: int, most: int, what: str) -> None:
    if not (least <= log <= most and size == 1 << log):
        raise Corrupt("the superblock contradicts itself", f"{what}: {size}, 2^{log}")


def find(volume: Volume) -> tuple[Superblock, str]:
    """The file system's superblock, and a warning when it is not the first one or not sound.

    NotRecognised when nothing says that an XFS begins here, otherwise the first one's error when no copy is better.
    """
    first: Superblock | None = None
    trouble: RecoveryError = NotRecognised("no XFS begins here")
    try:
        first = _at(volume, 0)
    except RecoveryError as error:
        trouble = error
    if first is not None and first.checked:
        return first, ""
    for place in _copies(volume, first):
        try:
            copy = _at(volume, place)
        except RecoveryError:
            continue
        if copy.checked and copy.group_blocks << copy.block_log == place:
            # its counts and its mark of an unfinished mkfs are as mkfs left them
            copy = msgspec.structs.replace(copy, free_blocks=None, unfinished=False)
            return copy, "the superblock is damaged; its copy in the second allocation group is used"
    if first is not None:
        return first, "the superblock's checksum is wrong, and no sound copy of it was found"
    raise trouble


def _at(volume: Volume, offset: int) -> Superblock:
    try:
        head = volume.pread(offset, 512)
    except OutOfBounds as error:
        raise NotRecognised("no XFS begins here", error.value or "") from error
    made = parse(head)
    if made.sector_size == 512:
        return made
    return parse(volume.pread(offset, made.sector_size))


def _copies(volume: Volume, first: Superblock | None) -> Iterator[int]:
    """Where the second allocation group may begin: by the first superblock, or as mkfs divides such a volume by default.

    The latter only where the volume's first bytes are wiped or overwritten: 4 groups, or as many as fit 1 TiB each.
    """
    if first is not None:
        yield first.group_blocks << first.block_log
    for block_size in (4096, 1024, 2048, 512, 65536):
        blocks = volume.size // block_size
        for groups in (4, 2, 8, 16, 32, -(-volume.size // ((1 << 40) - block_size))):
            if groups > 1:
                yield -(-blocks // groups) * block_size


def written(uuid: bytes) -> str:
    return str(UUID(bytes=uuid))
