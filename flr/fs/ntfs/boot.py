# SPDX-License-Identifier: Apache-2.0
"""The boot sector: sizes, and where the MFT begins. A damaged one is replaced by the copy that stands in the volume's last sector.

Everything that later code divides or multiplies by is checked here. Format: libyal's NTFS documentation, "The volume header".
"""

from __future__ import annotations

import struct

import msgspec

from flr.blocks import Volume
from flr.errors import NotRecognised, OutOfBounds

SIZE = 512
SECTORS = (512, 1024, 2048, 4096)
LARGEST_CLUSTER = 2 << 20
LARGEST_RECORD = 64 << 10
# jump, "NTFS    ", bytes a sector, sectors a cluster, ..., sectors, MFT, its mirror, record size, index block size, serial
_BOOT = struct.Struct("<3x8sHB26xQQQb3xb3xQ")


class Geometry(msgspec.Struct, frozen=True):
    """Sizes and places in bytes; `clusters` is how many there are."""

    sector: int
    cluster: int
    clusters: int
    sectors: int
    mft: int
    mirror: int
    record: int
    index: int
    serial: int
    from_backup: bool = False


def _power(value: int, least: int, most: int) -> bool:
    return least <= value <= most and value & (value - 1) == 0


def parse(data: bytes) -> Geometry | None:
    """None when it is no boot sector of NTFS, or holds sizes that none has."""
    if len(data) < SIZE or data[510:512] != b"\x55\xaa":
        return None
    oem, sector, per_cluster, sectors, mft, mirror, record, index, serial = _BOOT.unpack_from(data)
    if oem != b"NTFS    " or sector not in SECTORS or not sectors:
        return None
    # Up to 128 it is a count; above, a negative power of two.
    cluster = sector * per_cluster if per_cluster <= 128 else sector << min(256 - per_cluster, 32)
    record_size = record * cluster if record > 0 else 1 << min(-record, 32)
    index_size = index * cluster if index > 0 else 1 << min(-index, 32)
    if not (
        _power(cluster, sector, LARGEST_CLUSTER)
        and _power(record_size, 512, LARGEST_RECORD)
        and _power(index_size, 512, LARGEST_RECORD)
    ):
        return None
    clusters = sectors * sector // cluster
    if mft >= clusters:
        return None
    return Geometry(
        sector, cluster, clusters, sectors, mft * cluster, mirror * cluster, record_size, index_size, serial
    )


def read(volume: Volume) -> Geometry:
    """NotRecognised when neither the first nor the last sector is NTFS's."""
    places = [0, *(volume.size - size for size in (512, 4096))]
    for at in places:
        try:
            found = parse(volume.pread(at, SIZE))
        except OutOfBounds:
            continue
        if found is not None:
            return found if at == 0 else msgspec.structs.replace(found, from_backup=True)
    raise NotRecognised("this is no NTFS volume", "neither its first nor its last sector is an NTFS boot sector")
