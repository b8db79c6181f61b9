# SPDX-License-Identifier: Apache-2.0
"""Physical volumes whose label or metadata a test rewrites, all checksums right: what hostile or later software might have left."""

from __future__ import annotations

from flr.volumes import lvm
from tests.flr.volumes.disks import Changed

LABEL = 512
RING = 4096
"""Where the metadata area begins on disks that LVM labelled by its defaults."""


def text_of(disk: Changed) -> tuple[bytes, int]:
    """The committed text of a disk that LVM labelled by its defaults, and where it stands."""
    header = disk.pread(RING, 512)
    at, size = int.from_bytes(header[40:48], "little"), int.from_bytes(header[48:56], "little")
    return disk.pread(RING + at, size), RING + at


def rewritten(disk: Changed, text: bytes, at: int = 512, ring: int | None = None) -> Changed:
    """The ring holds `text` at `at`, which may wrap; all checksums are right."""
    header = bytearray(disk.pread(RING, 512))
    size = int.from_bytes(header[32:40], "little") if ring is None else ring
    first = text[: size - at]
    disk.put(RING + at, first)
    if rest := text[len(first) :]:
        disk.put(RING + 512, rest)
    header[32:40] = size.to_bytes(8, "little")
    header[40:64] = (
        at.to_bytes(8, "little") + len(text).to_bytes(8, "little") + lvm.crc(text).to_bytes(4, "little") + bytes(4)
    )
    header[:4] = lvm.crc(bytes(header[4:])).to_bytes(4, "little")
    return disk.put(RING, bytes(header))


def with_label(disk: Changed, label: bytes) -> Changed:
    """The label (its sector, of which all but the checksum counts) in the place of the disk's own."""
    made = bytearray(label)
    made[16:20] = lvm.crc(label[20:]).to_bytes(4, "little")
    return disk.put(LABEL, bytes(made))


def of_another_identity(disk: Changed) -> Changed:
    """The same group as of another machine: of the same name, with other identifiers of group and disk."""
    text, _ = text_of(disk)
    group, own = (part[:38] for part in text.split(b'id = "')[1:3])
    label = disk.pread(LABEL, 512)
    with_label(disk, label[:32] + own.swapcase().replace(b"-", b"") + label[64:])
    return rewritten(disk, text.replace(own, own.swapcase()).replace(group, group.swapcase()))
