# SPDX-License-Identifier: Apache-2.0
"""Boot sectors of FAT and exFAT: sizes, and where tables, root and clusters begin. A damaged one is replaced by its copy.

Everything that later code divides or multiplies by is checked here, against the volume too. Format: FAT specification,
"BPB"; exFAT specification, 3.1 "Main and Backup Boot Sector Sub-regions".
"""

from __future__ import annotations

import struct

import msgspec

from flr.blocks import Volume
from flr.errors import NotRecognised, OutOfBounds

SIZE = 512
SECTORS = (512, 1024, 2048, 4096)
FAT12_CLUSTERS, FAT16_CLUSTERS = 4085, 65525
"""Fewer are FAT12, FAT16."""
LARGEST_CLUSTER = 32 << 20
BACKUP_32, BACKUP_EXFAT = 6, 12
"""Sectors of the copies."""
# bytes a sector, sectors a cluster, reserved, tables, root entries, sectors, media, sectors of a table, ..., sectors
_BPB = struct.Struct("<11xHBHBHHBH8xI")
# sectors of a table, flags, version, root's cluster, information, copy
_BPB32 = struct.Struct("<36xIHHIHH")
# partition, sectors; table, its sectors; clusters, their number; root; serial; version, flags; shifts; tables
_EXFAT = struct.Struct("<64xQQIIIIIIHHBBB")
DIRTY_EXFAT, FAILED_EXFAT = 2, 4


class Geometry(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes and places in bytes. `bits` of a table's entry. `root` is the root's first cluster; 0: it lies at `root_at`."""

    kind: str
    bits: int
    sector: int
    cluster: int
    clusters: int
    size: int
    table: int
    table_size: int
    heap: int
    root: int
    root_at: int = 0
    root_size: int = 0
    serial: int = 0
    label: bytes = b""
    dirty: bool = False
    from_backup: bool = False


def _power(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0


def parse_fat(data: bytes) -> Geometry | None:
    """None when it is no boot sector of FAT, or holds sizes that none has."""
    if len(data) < SIZE or data[510:512] != b"\x55\xaa" or data[0] not in (0xEB, 0xE9, 0):
        return None
    sector, per_cluster, reserved, tables, root_entries, sectors, media, table_sectors, large = _BPB.unpack_from(data)
    if sector not in SECTORS or not _power(per_cluster) or not reserved or not 1 <= tables <= 4 or media < 0xF0:
        return None
    is32 = table_sectors == 0
    root = active = 0
    if is32:
        table_sectors, flags, version, root, _, _ = _BPB32.unpack_from(data)
        if version or root_entries or not table_sectors:
            return None
        active = flags & 15 if flags & 0x80 else 0
        if active >= tables:
            return None
    elif not root_entries:
        return None
    extended = 64 if is32 else 36
    serial = int.from_bytes(data[extended + 3 : extended + 7], "little") if data[extended + 2] in (0x28, 0x29) else 0
    label = data[extended + 7 : extended + 18] if data[extended + 2] == 0x29 else b""
    sectors = sectors or large
    root_sectors = -(-root_entries * 32 // sector)
    first = reserved + tables * table_sectors + root_sectors
    clusters = max(sectors - first, 0) // per_cluster
    bits = 32 if is32 else 12 if clusters < FAT12_CLUSTERS else 16
    # A table may be shorter than its clusters need: what it does not tell of does not exist.
    clusters = min(clusters, table_sectors * sector * 8 // bits - 2)
    if clusters < 1 or (not is32 and clusters >= FAT16_CLUSTERS) or (is32 and not 2 <= root < clusters + 2):
        return None
    return Geometry(
        kind=f"fat{bits}",
        bits=bits,
        sector=sector,
        cluster=sector * per_cluster,
        clusters=clusters,
        size=sectors * sector,
        table=(reserved + active * table_sectors) * sector,
        table_size=table_sectors * sector,
        heap=first * sector,
        root=root,
        root_at=0 if is32 else (first - root_sectors) * sector,
        root_size=root_entries * 32,
        serial=serial,
        label=label,
        dirty=bool(data[extended + 1] & 1),
    )


def parse_exfat(data: bytes) -> Geometry | None:
    if len(data) < SIZE or data[510:512] != b"\x55\xaa" or data[3:11] != b"EXFAT   ":
        return None
    (
        _, sectors, table, table_sectors, heap, clusters, root, serial, version, flags, sector_shift, cluster_shift, tables
    ) = _EXFAT.unpack_from(data)  # fmt: skip
    sector = 1 << min(sector_shift, 32)
    cluster = sector << min(cluster_shift, 32)
    if version >> 8 != 1 or sector not in SECTORS or cluster > LARGEST_CLUSTER or tables not in (1, 2):
        return None
    active = flags & 1 if tables == 2 else 0
    size = sectors * sector
    clusters = min(clusters, max(size - heap * sector, 0) // cluster, table_sectors * sector // 4 - 2)
    if not table or clusters < 1 or not 2 <= root < clusters + 2:
        return None
    return Geometry(
        kind="exfat",
        bits=32,
        sector=sector,
        cluster=cluster,
        clusters=clusters,
        size=size,
        table=(table + active * table_sectors) * sector,
        table_size=table_sectors * sector,
        heap=heap * sector,
        root=root,
        serial=serial,
        dirty=bool(flags & (DIRTY_EXFAT | FAILED_EXFAT)),
    )


def read(volume: Volume) -> Geometry:
    """NotRecognised when there is neither a boot sector of FAT or exFAT nor a copy of one."""
    for number in (0, BACKUP_32, BACKUP_EXFAT):
        for sector in SECTORS if number else (512,):
            try:
                data = volume.pread(number * sector, SIZE)
            except OutOfBounds:
                continue
            found = parse_exfat(data) or parse_fat(data)
            if found is not None and (not number or found.sector == sector):
                return msgspec.structs.replace(found, from_backup=True) if number else found
    raise NotRecognised("this is no FAT or exFAT volume", "no boot sector and no copy of one is found")
