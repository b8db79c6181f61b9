# SPDX-License-Identifier: Apache-2.0
"""What begins here: a table of the signatures of file systems, members, encrypted and foreign volumes.

It says what something calls itself, how large it claims to be and why it is not opened, and believes none of it: whoever opens a
volume checks. It reads a bounded number of bytes, and never outside of the volume. Not here: tables of partitions (`partitions`),
what an LVM label or an md superblock says (`lvm`, `md`).

Sources: the layouts that each format's own documentation publishes (ext4 and XFS on kernel.org, btrfs's on-disk format, Microsoft's
exFAT and FAT specifications and [MS-FSCC], LUKS1 and LUKS2 on-disk formats, ECMA-119, Apple's TN1150 and APFS reference, libyal's
documents on NTFS, BitLocker, LDM and ReFS), and magic(5).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import msgspec

from flr.blocks import Volume
from flr.printable import printable

HEAD = 72 << 10
"""Bytes that are read from the beginning; few signatures stand farther in."""
OPENED = frozenset({"ext", "xfs", "ntfs", "fat", "exfat"})
"""File systems that a later layer opens."""


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """`holds` is the word for it, `words` what a person would be told. `size`: bytes that it claims, 0 where it does not say.

    `why_not`: why nothing of it can be opened; empty when it can, or when something else (an array, a group) tells.
    """

    holds: str
    words: str
    label: str = ""
    uuid: str = ""
    size: int = 0
    why_not: str = ""


ENCRYPTED = "it is encrypted, and this release takes no keys"
LATER = "btrfs comes in a later release"
WINDOWS = "only Windows itself puts such volumes together"
NOT_READ = "this file system is not read by this release"
NO_FILES = "it holds no files"


def _text(raw: bytes) -> str:
    return printable(raw.split(b"\0", 1)[0].decode("utf-8", "replace").rstrip(" "))


def _uuid(raw: bytes) -> str:
    return str(uuid.UUID(bytes=raw)) if any(raw) else ""


def _guid(raw: bytes) -> str:
    return str(uuid.UUID(bytes_le=raw)) if any(raw) else ""


def _le(head: bytes, at: int, size: int) -> int:
    return int.from_bytes(head[at : at + size], "little")


def _be(head: bytes, at: int, size: int) -> int:
    return int.from_bytes(head[at : at + size], "big")


# -- those that say more than their name: head -> Signature or None; a head is HEAD bytes, zeros beyond the volume's end -----------


def _ext(head: bytes) -> Signature | None:
    block_log = _le(head, 1024 + 24, 4)
    if head[1080:1082] != b"\x53\xef" or block_log > 6 or not _le(head, 1024 + 32, 4):
        return None
    incompat, compat = _le(head, 1024 + 96, 4), _le(head, 1024 + 92, 4)
    label, identity = _text(head[1144:1160]), _uuid(head[1128:1144])
    if incompat & 8:
        words = "journal of an ext file system that lies elsewhere"
        return Signature(holds="ext journal", words=words, label=label, uuid=identity, why_not=NO_FILES)
    blocks = _le(head, 1024 + 4, 4) | (_le(head, 1024 + 0x150, 4) << 32 if incompat & 0x80 else 0)
    kind = "ext4" if incompat & 0x2C0 else "ext3" if compat & 4 else "ext2"
    return Signature(
        holds="ext", words=f"{kind} file system", label=label, uuid=identity, size=blocks << (10 + block_log)
    )


def _xfs(head: bytes) -> Signature | None:
    if head[:4] != b"XFSB":
        return None
    size = _be(head, 4, 4) * _be(head, 8, 8)
    return Signature(
        holds="xfs", words="XFS file system", label=_text(head[108:120]), uuid=_uuid(head[32:48]), size=size
    )


def _btrfs(head: bytes) -> Signature | None:
    at = 65536
    if head[at + 64 : at + 72] != b"_BHRfS_M":
        return None
    return Signature(
        holds="btrfs", words="btrfs file system", label=_text(head[at + 0x12B : at + 0x22B]),
        uuid=_uuid(head[at + 32 : at + 48]), why_not=LATER,
    )  # fmt: skip


def _sector(size: int) -> bool:
    return size in (512, 1024, 2048, 4096)


def _ntfs(head: bytes) -> Signature | None:
    sector = _le(head, 11, 2)
    if head[3:11] != b"NTFS    " or not _sector(sector):
        return None
    # The boot sector's copy stands in one sector more than the volume counts.
    return Signature(
        holds="ntfs", words="NTFS file system", uuid=f"{_le(head, 72, 8):016X}", size=(_le(head, 40, 8) + 1) * sector
    )


def _exfat(head: bytes) -> Signature | None:
    if head[3:11] != b"EXFAT   " or not 9 <= head[108] <= 12:
        return None
    serial = _le(head, 100, 4)
    return Signature(
        holds="exfat", words="exFAT file system", uuid=f"{serial >> 16:04X}-{serial & 0xFFFF:04X}",
        size=_le(head, 72, 8) << head[108],
    )  # fmt: skip


def _fat(head: bytes) -> Signature | None:
    sector, cluster, reserved, tables = _le(head, 11, 2), head[13], _le(head, 14, 2), head[16]
    if not _sector(sector) or cluster not in (1, 2, 4, 8, 16, 32, 64, 128) or not reserved or tables not in (1, 2):
        return None
    if head[510:512] != b"\x55\xaa" or head[0] not in (0xEB, 0xE9) or head[21] < 0xF0:
        return None
    sectors = _le(head, 19, 2) or _le(head, 32, 4)
    table = _le(head, 22, 2) or _le(head, 36, 4)
    data = sectors - reserved - tables * table - -(-_le(head, 17, 2) * 32 // sector)
    if not table or data < cluster:
        return None
    bits = 12 if data // cluster < 4085 else 16 if data // cluster < 65525 else 32
    at = 67 if bits == 32 else 39
    label, serial = "", 0
    if head[at - 1] == 0x29:
        label, serial = _text(head[at + 4 : at + 15]), _le(head, at, 4)
    return Signature(
        holds="fat", words=f"FAT{bits} file system", label="" if label == "NO NAME" else label,
        uuid=f"{serial >> 16:04X}-{serial & 0xFFFF:04X}" if serial else "", size=sectors * sector,
    )  # fmt: skip


def _bitlocker(head: bytes) -> Signature | None:
    to_go = uuid.UUID("4967d63b-2e29-4ad8-8399-f6a339e3d001").bytes_le
    if head[3:11] == b"-FVE-FS-":
        return Signature(holds="bitlocker", words="BitLocker volume", why_not=ENCRYPTED)
    if head[3:11] == b"MSWIN4.1" and to_go in (head[160:176], head[424:440]):
        return Signature(holds="bitlocker", words="BitLocker To Go volume", why_not=ENCRYPTED)
    return None


def _luks(head: bytes) -> Signature | None:
    version = _be(head, 6, 2)
    if head[:6] not in (b"LUKS\xba\xbe", b"SKUL\xba\xbe") or version not in (1, 2):
        return None
    return Signature(
        holds="luks", words=f"LUKS{version} volume", label=_text(head[24:72]) if version == 2 else "",
        uuid=_text(head[168:208]), why_not=ENCRYPTED,
    )  # fmt: skip


def _swap(head: bytes) -> Signature | None:
    for page in (4096, 8192, 16384, 32768, 65536):
        magic = head[page - 10 : page]
        if magic in (b"SWAPSPACE2", b"SWAP-SPACE"):
            return Signature(
                holds="swap", words="swap space", label=_text(head[1052:1068]), uuid=_uuid(head[1036:1052]),
                why_not=NO_FILES,
            )  # fmt: skip
        if magic[:9] in (b"S1SUSPEND", b"S2SUSPEND", b"ULSUSPEND", b"LINHIB000"):
            return Signature(holds="swap", words="memory of a sleeping machine, in its swap space", why_not=NO_FILES)
    return None


def _iso9660(head: bytes) -> Signature | None:
    if head[32769:32774] != b"CD001":
        return None
    return Signature(holds="iso9660", words="ISO 9660 file system", label=_text(head[32808:32840]), why_not=NOT_READ)


def _bcache(head: bytes) -> Signature | None:
    if head[4096 + 24 : 4096 + 40] != uuid.UUID("c68573f6-4e1a-45ca-8265-f57f48ba6d81").bytes:
        return None
    return Signature(
        holds="bcache", words="bcache member", uuid=_uuid(head[4096 + 40 : 4096 + 56]),
        why_not="a part of its newest content may lie in a cache elsewhere",
    )  # fmt: skip


HEADS: tuple[Callable[[bytes], Signature | None], ...] = (
    _luks, _bitlocker, _xfs, _ntfs, _exfat, _fat, _ext, _btrfs, _swap, _iso9660, _bcache,
)  # fmt: skip

# (offset, magic, holds, words, why not)
PLAIN: tuple[tuple[int, bytes, str, str, str], ...] = (
    (3, b"ReFS\0\0\0\0", "refs", "ReFS file system", NOT_READ),
    (0, b"SPACEDB ", "storage spaces", "Storage Spaces member", WINDOWS),
    (4096, b"SPACEDB ", "storage spaces", "Storage Spaces member", WINDOWS),
    (3072, b"PRIVHEAD", "ldm", "Windows dynamic disk (LDM)", WINDOWS),
    (0, b"hsqs", "squashfs", "SquashFS file system", NOT_READ),
    (1024, b"\x10\x20\xf5\xf2", "f2fs", "F2FS file system", NOT_READ),
    (32, b"NXSB", "apfs", "APFS container", NOT_READ),
    (1024, b"H+\0\x04", "hfsplus", "HFS+ file system", NOT_READ),
    (1024, b"HX\0\x05", "hfsplus", "HFSX file system", NOT_READ),
    (1024, b"\xe2\xe1\xf5\xe0", "erofs", "EROFS file system", NOT_READ),
    (32768, b"JFS1", "jfs", "JFS file system", NOT_READ),
    (65536 + 52, b"ReIsEr", "reiserfs", "ReiserFS file system", NOT_READ),
    (65536, b"\x01\x16\x19\x70\0\0\0\x01", "gfs2", "GFS2 file system", NOT_READ),
    (4096, b"OCFSV2", "ocfs2", "OCFS2 file system", NOT_READ),
    (1030, b"\x34\x34", "nilfs2", "NILFS2 file system", NOT_READ),
    (0, b"VDO\0\0\0\0\0", "vdo", "VDO volume", "deduplicated volumes are not read by this release"),
    (0, b"dmvdo001", "vdo", "VDO volume", "deduplicated volumes are not read by this release"),
)


def _zfs(volume: Volume) -> Signature | None:
    """By an uberblock of the first label: one stands in each 1 KiB of the second half of its 256 KiB."""
    if volume.size < 8 << 20:
        return None
    ring = volume.pread(128 << 10, 128 << 10)
    if not any(
        ring.startswith((b"\x0c\xb1\xba\0\0\0\0\0", b"\0\0\0\0\0\xba\xb1\x0c"), at) for at in range(0, len(ring), 1024)
    ):
        return None
    return Signature(holds="zfs", words="ZFS pool member", why_not="ZFS is not read by this release")


def _tails(volume: Volume) -> Iterator[Signature]:
    """What stands at the end of its volume: DRBD's metadata, firmware RAID."""
    end = volume.size // 4096 * 4096
    if end < 65536:
        return
    drbd = volume.pread(end - 4096, 64)
    if drbd[60:64] in (b"\x83\x74\x02\x6b", b"\x83\x74\x02\x6d"):
        why_not = "its content may be older than its peer's, and this release does not tell"
        yield Signature(holds="drbd", words="DRBD replica", why_not=why_not)
    sectors = volume.pread(volume.size - 1024, 1024)
    if sectors.startswith(b"Intel Raid ISM Cfg Sig. ") or sectors[512:516] in (
        b"\xde\x11\xde\x11",
        b"\x11\xde\x11\xde",
    ):
        why_not = "arrays of a firmware RAID are not read by this release"
        yield Signature(holds="firmware raid", words="firmware RAID member", why_not=why_not)


def signatures(volume: Volume) -> list[Signature]:
    """All that seems to begin here (or, of a few kinds, to end here), the most telling first."""
    size = min(HEAD, volume.size)
    head = volume.pread(0, size) + bytes(HEAD - size)
    found = list(_tails(volume))
    found += [signature for probe in HEADS if (signature := probe(head)) is not None]
    found += [
        Signature(holds=holds, words=words, why_not=why_not)
        for at, magic, holds, words, why_not in PLAIN
        if head.startswith(magic, at)
    ]
    if not found and (zfs := _zfs(volume)) is not None:
        found.append(zfs)
    return found


# -- types of partitions ----------------------------------------------------------------------------------------------------------

EXTENDED = frozenset({0x05, 0x0F, 0x85})
MBR_TYPES = {
    0x01: "FAT12", 0x04: "FAT16", 0x06: "FAT16", 0x07: "NTFS, exFAT or HPFS", 0x0B: "FAT32", 0x0C: "FAT32", 0x0E: "FAT16",
    0x05: "extended", 0x0F: "extended", 0x85: "extended", 0x27: "Windows recovery", 0x42: "Windows dynamic disk (LDM)",
    0x82: "Linux swap", 0x83: "Linux", 0x8E: "Linux LVM", 0xA5: "FreeBSD", 0xAF: "HFS+", 0xBF: "Solaris", 0xEE: "GPT protective",
    0xEF: "EFI system", 0xFD: "Linux RAID",
}  # fmt: skip
LDM_METADATA = "5808c8aa-7e8f-42e0-85d2-e1e90434cfb3"
LDM_DATA = "af9b60a0-1431-4f62-bc68-3311714a69ad"
STORAGE_SPACES = "e75caf8f-f680-4cee-afa3-b001e56efc2d"
MICROSOFT_RESERVED = "e3c9e316-0b5c-4db8-817d-f92df00215ae"
BIOS_BOOT = "21686148-6449-6e6f-744e-656564454649"
GPT_TYPES = {
    "c12a7328-f81f-11d2-ba4b-00a0c93ec93b": "EFI system", BIOS_BOOT: "BIOS boot", MICROSOFT_RESERVED: "Microsoft reserved",
    "9e1a2d38-c612-4316-aa26-8b49521e5a8b": "PowerPC PReP boot", "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7": "Microsoft basic data",
    LDM_METADATA: "Windows dynamic disk (LDM) metadata", LDM_DATA: "Windows dynamic disk (LDM) data",
    "de94bba4-06d1-4d40-a16a-bfd50179d6ac": "Windows recovery", STORAGE_SPACES: "Storage Spaces",
    "0fc63daf-8483-4772-8e79-3d69d8477de4": "Linux", "a19d880f-05fc-4d3b-a006-743f0f84911e": "Linux RAID",
    "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f": "Linux swap", "e6d6d379-f507-44c2-a23c-238f2a3df928": "Linux LVM",
    "933ac7e1-2eb4-4f13-b844-0e14e2aef915": "Linux home", "bc13c2ff-59e6-4262-a352-b275fd6f7172": "Linux extended boot",
    "4f68bce3-e8cd-4db1-96e7-fbcaf984b709": "Linux root (x86-64)", "b921b045-1df0-41c3-af44-4c6f280d3fae": "Linux root (arm64)",
    "ca7d7ccb-63ed-4c53-861c-1742536059cc": "LUKS", "8da63339-0007-60c0-c436-083ac8230908": "Linux reserved",
    "48465300-0000-11aa-aa11-00306543ecac": "HFS+", "7c3457ef-0000-11aa-aa11-00306543ecac": "APFS",
    "6a898cc3-1dd2-11b2-99a6-080020736631": "ZFS", "516e7cba-6ecf-11d6-8ff8-00022d09712b": "FreeBSD ZFS",
    "516e7cb6-6ecf-11d6-8ff8-00022d09712b": "FreeBSD UFS",
}  # fmt: skip
BY_TYPE = {
    LDM_METADATA: Signature(holds="ldm", words="Windows dynamic disk (LDM)", why_not=WINDOWS),
    LDM_DATA: Signature(holds="ldm", words="Windows dynamic disk (LDM)", why_not=WINDOWS),
    "42": Signature(holds="ldm", words="Windows dynamic disk (LDM)", why_not=WINDOWS),
    STORAGE_SPACES: Signature(holds="storage spaces", words="Storage Spaces member", why_not=WINDOWS),
    MICROSOFT_RESERVED: Signature(holds="reserved", words="reserved by Windows", why_not=NO_FILES),
    BIOS_BOOT: Signature(holds="boot loader", words="boot loader", why_not=NO_FILES),
}
"""What the type alone tells, whatever seems to begin there: a stale signature must not pass for a dynamic disk's volume."""
