# SPDX-License-Identifier: Apache-2.0
"""LVM2 physical volumes: the label, where data and metadata lie, and the newest metadata of a group among its disks.

Every metadata area is a ring that holds the group's text in whole copies; the header says which is committed. What is read is
checked: CRCs of label, header and text, places against the disk's size. Not here: what the text says of logical volumes
(`lvm_group`), its syntax (`lvm_text`).

Source: libyal's document "Logical Volume Manager (LVM) format", and lvm(8), vgcfgbackup(8), pvck(8).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from itertools import pairwise

import msgspec

from flr.blocks import Volume
from flr.errors import Corrupt, RecoveryError
from flr.printable import printable
from flr.volumes.lvm_text import MOST_BYTES, Section, parse

SECTOR = 512
"""LVM counts in these, whatever the disk's sectors are."""
LABEL_SECTORS = 4
RING_MAGIC = b" LVM2 x[5A%r0N*>"
RING_HEADER = 512
MOST_AREAS = 16
"""Of one disk; one or two as a rule."""
MOST_TEXT = 64 << 20
"""Bytes of metadata that are read of all disks of a restore point."""
IGNORED = 1


class Copy(msgspec.Struct, frozen=True):
    """One committed copy of a group's metadata, and the disk that it was found on. Its checksum was right."""

    member: str
    text: bytes


class PhysicalVolume(msgspec.Struct, kw_only=True):
    """`uuid` in LVM's form with dashes, `size` in bytes as its label has it. `copies` of metadata that stand on it."""

    uuid: str
    size: int
    copies: list[Copy]
    warnings: list[str]


class Metadata(msgspec.Struct, kw_only=True):
    """A group's newest metadata: `content` is the group's section. `members`: the disks that held a copy of it."""

    name: str
    uuid: str
    seqno: int
    content: Section
    members: list[str]
    warnings: list[str]


def crc(data: bytes) -> int:
    """LVM's: the polynomial of CRC-32, another beginning, no inversion."""
    return zlib.crc32(data, 0xF597A6CF ^ 0xFFFFFFFF) ^ 0xFFFFFFFF


def dashed(raw: bytes) -> str:
    """32 characters as LVM prints them. Corrupt when they are none of its alphabet."""
    text = raw.decode("ascii", "replace")
    if len(text) != 32 or not all(c.isascii() and (c.isalnum() or c in "!#") for c in text):
        raise Corrupt("an LVM identifier is damaged", raw[:32].hex())
    cuts = [0, 6, 10, 14, 18, 22, 26, 32]
    return "-".join(text[low:high] for low, high in pairwise(cuts))


class Reader:
    """Reads labels; counts what it has read of metadata, over all disks."""

    def __init__(self) -> None:
        self._left = MOST_TEXT

    def physical_volume(self, member: str, volume: Volume) -> PhysicalVolume | None:
        """What the volume's label says, or None when it has none that is whole. A damaged area is a warning."""
        head = volume.pread(0, min(LABEL_SECTORS * SECTOR, volume.size))
        for sector in range(len(head) // SECTOR):
            label = head[sector * SECTOR : (sector + 1) * SECTOR]
            if label[:8] != b"LABELONE" or label[24:32] != b"LVM2 001":
                continue
            at = int.from_bytes(label[20:24], "little")
            if int.from_bytes(label[8:16], "little") != sector or crc(label[20:]) != int.from_bytes(
                label[16:20], "little"
            ):
                continue
            if not 32 <= at <= SECTOR - 40:
                continue
            try:
                return self._described(member, volume, label[at:])
            except Corrupt:
                continue
        return None

    def _described(self, member: str, volume: Volume, header: bytes) -> PhysicalVolume:
        made = PhysicalVolume(
            uuid=dashed(header[:32]), size=int.from_bytes(header[32:40], "little"), copies=[], warnings=[]
        )
        areas: list[tuple[int, int]] = []
        lists = 0  # the first is of data areas, the second of metadata areas; each ends in zeros
        for at in range(40, len(header) - 15, 16):
            offset, size = (
                int.from_bytes(header[at : at + 8], "little"),
                int.from_bytes(header[at + 8 : at + 16], "little"),
            )
            if offset == 0 and size == 0:
                lists += 1
                if lists == 2:
                    break
            elif lists == 1 and len(areas) < MOST_AREAS:
                areas.append((offset, size))
        for offset, size in areas:
            try:
                text = self._committed(volume, offset, size)
            except RecoveryError as error:
                made.warnings.append(f"a metadata area of {member} is not used: {error.what}: {error.value}")
            else:
                if text is not None:
                    made.copies.append(Copy(member, text))
        return made

    def _committed(self, volume: Volume, start: int, size: int) -> bytes | None:
        """The text that the area at `start` holds; None when it is empty or set aside."""
        header = volume.pread(start, RING_HEADER)
        if header[4:20] != RING_MAGIC or crc(header[4:]) != int.from_bytes(header[:4], "little"):
            raise Corrupt("its header is damaged", f"at byte {start}")
        if int.from_bytes(header[24:32], "little") != start or int.from_bytes(header[20:24], "little") != 1:
            raise Corrupt("its header is of another place or version", f"at byte {start}")
        size = min(size, int.from_bytes(header[32:40], "little"))
        at, length = int.from_bytes(header[40:48], "little"), int.from_bytes(header[48:56], "little")
        checksum, flags = int.from_bytes(header[56:60], "little"), int.from_bytes(header[60:64], "little")
        if flags & IGNORED or not at:
            return None
        if not RING_HEADER <= at < size or not 0 < length <= min(size - RING_HEADER, MOST_BYTES):
            raise Corrupt("its header says something impossible", f"{length} bytes at {at} of {size}")
        self._left -= length
        if self._left < 0:
            raise Corrupt("there is more metadata on these disks than is read", f"{MOST_TEXT} bytes")
        first = min(length, size - at)
        text = volume.pread(start + at, first) + volume.pread(start + RING_HEADER, length - first)
        if crc(text) != checksum:
            raise Corrupt("its text is damaged", f"{length} bytes at byte {start + at}")
        return text


def newest(copies: Sequence[Copy]) -> list[Metadata]:
    """The newest metadata of each group that has a copy here, in the order in which they were found first."""
    groups: dict[str, list[Metadata]] = {}
    by_text: dict[bytes, Metadata] = {}
    order: list[Metadata] = []
    for copy in copies:
        known = by_text.get(copy.text)
        if known is not None:
            known.members.append(copy.member)
            continue
        made = _group(copy)
        by_text[copy.text] = made
        order.append(made)
    for one in order:
        groups.setdefault(one.uuid or f"? {one.members[0]}", []).append(one)
    return [_chosen(group) for group in groups.values()]


def _group(copy: Copy) -> Metadata:
    """A copy that cannot be understood makes a group without a uuid, whose warning says so."""
    try:
        text = parse(copy.text)
        if text.get("contents") != "Text Format Volume Group" or text.get("version") != 1:
            raise Corrupt("a volume group's metadata is of another version", printable(text.get("version"), 40))
        sections = [(name, value) for name, value in text.items() if isinstance(value, dict)]
        if len(sections) != 1:
            raise Corrupt("a volume group's metadata describes no group, or several", f"{len(sections)} sections")
        name, content = sections[0]
        identity, seqno = content.get("id"), content.get("seqno")
        if not isinstance(identity, str) or not isinstance(seqno, int):
            raise Corrupt("a volume group's metadata lacks what names it", "id, seqno")
    except RecoveryError as error:
        warning = f"{error.what}: {error.value}"
        return Metadata(name="", uuid="", seqno=-1, content={}, members=[copy.member], warnings=[warning])
    return Metadata(name=name, uuid=identity, seqno=seqno, content=content, members=[copy.member], warnings=[])


def _chosen(group: list[Metadata]) -> Metadata:
    best = max(group, key=lambda one: (one.seqno, len(one.members)))
    for other in group:
        if other is best:
            continue
        where = ", ".join(other.members[:4])
        if other.seqno == best.seqno:
            best.warnings.append(
                f"the disks disagree about the group at the same version {best.seqno}; {where} is overruled"
            )
        else:
            best.warnings.append(
                f"the metadata on {where} is older (version {other.seqno} of {best.seqno}) and not used"
            )
    return best
