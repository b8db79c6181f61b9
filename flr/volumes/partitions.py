# SPDX-License-Identifier: Apache-2.0
"""Tables of partitions: GPT with its backup, MBR with logical partitions, on sectors of 512 and of 4096 bytes.

An image does not tell the sector size of the disk that it was, so both are tried, whatever the volume says. A table is believed
only as far as the disk reaches: a partition that ends beyond it is told about and not opened. Not here: what a partition holds.

Sources: UEFI Specification, chapter 5 (GUID Partition Table Disk Layout, with the legacy MBR), and for logical partitions
libyal's document on the MBR partition table format.
"""

from __future__ import annotations

import uuid
import zlib
from collections.abc import Iterator

import msgspec

from flr.blocks import Volume, Window
from flr.errors import Corrupt, OutOfBounds, RecoveryError
from flr.printable import printable
from flr.volumes.signatures import EXTENDED, GPT_TYPES, MBR_TYPES, signatures

MOST_PARTITIONS = 256
"""Of one disk; GPT tables have room for 128 as a rule."""
MOST_TABLE = 1 << 20
"""Bytes of a GPT's entries; 16 KiB as a rule."""
MOST_WARNINGS = 20


class Partition(msgspec.Struct, kw_only=True):
    """Partition `number`, as its system counts; `start` and `size` in bytes. `why` says why it cannot be opened.

    `type` is a GUID, or MBR's type as two hexadecimal digits; `words` says the same for a person.
    """

    number: int
    start: int
    size: int
    type: str
    words: str
    name: str = ""
    uuid: str = ""
    extended: bool = False
    why: RecoveryError | None = None


class Table(msgspec.Struct, kw_only=True):
    """`kind` is GPT or MBR, `sector_size` in bytes. `why`: the table itself is damaged, and there are no partitions."""

    kind: str
    sector_size: int
    uuid: str
    partitions: list[Partition]
    warnings: list[str]
    why: RecoveryError | None = None


class _Header(msgspec.Struct):
    sector_size: int
    alternate: int
    disk: str
    entries_at: int
    count: int
    entry_size: int
    entries_crc: int


def table(volume: Volume) -> Table | None:
    """The disk's table, or None where there is none. RecoveryError only where the disk itself cannot be read."""
    if volume.size < 1024:
        return None
    boot = _mbr(volume)
    types = [kind for _, kind, _, _ in boot]
    protective = 0xEE in types
    if boot and not protective:
        found = _legacy(volume, boot)
        if _primary(volume) is not None:
            found.warnings.append("there is an old GPT beside the MBR table; the MBR's partitions are shown")
        return found
    header = _primary(volume)
    if header is None and not protective:
        return None
    made = _gpt(volume, header)
    if not protective and header is not None and _entries(volume, header) is None:
        return None  # what is left of a table, below something that was made over it
    if not protective:
        made.warnings.append("the protective MBR is missing")
    elif len(types) > 1:
        made.warnings.append("a hybrid MBR stands beside the GPT; the GPT's partitions are shown")
    return made


def only_backup(volume: Volume) -> Table | None:
    """A GPT of which nothing is left but its backup, for disks on which nothing else is known."""
    if volume.size < 1024 or next(_backups(volume, None), None) is None:
        return None
    return _gpt(volume, None)


# -- GPT --------------------------------------------------------------------------------------------------------------------------


def _sizes(volume: Volume) -> list[int]:
    return sorted({512, 4096}, key=lambda size: size != volume.sector_size)


def _header(volume: Volume, sector_size: int, sector: int) -> _Header | None:
    """The header in that sector, if it is whole and stands where it says."""
    at = sector * sector_size
    if sector <= 0 or at + sector_size > volume.size:
        return None
    raw = volume.pread(at, sector_size)
    size = int.from_bytes(raw[12:16], "little")
    if raw[:8] != b"EFI PART" or not 92 <= size <= sector_size:
        return None
    crc = int.from_bytes(raw[16:20], "little")
    if zlib.crc32(raw[:16] + bytes(4) + raw[20:size]) != crc or int.from_bytes(raw[24:32], "little") != sector:
        return None
    return _Header(
        sector_size,
        int.from_bytes(raw[32:40], "little"),
        str(uuid.UUID(bytes_le=raw[56:72])),
        int.from_bytes(raw[72:80], "little"),
        int.from_bytes(raw[80:84], "little"),
        int.from_bytes(raw[84:88], "little"),
        int.from_bytes(raw[88:92], "little"),
    )


def _primary(volume: Volume) -> _Header | None:
    return next((found for size in _sizes(volume) if (found := _header(volume, size, 1)) is not None), None)


def _backups(volume: Volume, primary: _Header | None) -> Iterator[_Header]:
    """Where the primary says; else at the disk's end, or where the protective MBR or a damaged primary has it."""
    if primary is not None:
        places = [(primary.sector_size, primary.alternate)]
    else:
        protected = [first + count - 1 for _, kind, first, count in _mbr(volume) if kind == 0xEE]
        places = []
        for size in _sizes(volume):
            damaged = int.from_bytes(volume.pread(size + 32, 8), "little") if volume.size >= 2 * size else 0
            places += [(size, sector) for sector in (volume.size // size - 1, damaged, *protected) if sector > 1]
    for size, sector in dict.fromkeys(places):
        if (found := _header(volume, size, sector)) is not None:
            yield found


def _entries(volume: Volume, header: _Header) -> bytes | None:
    """The raw entries, if their checksum is right."""
    size = header.count * header.entry_size
    at = header.entries_at * header.sector_size
    if header.entry_size < 128 or header.entry_size % 8 or size > MOST_TABLE or at + size > volume.size:
        return None
    raw = volume.pread(at, size)
    return raw if zlib.crc32(raw) == header.entries_crc else None


def _gpt(volume: Volume, primary: _Header | None) -> Table:
    warnings: list[str] = []
    entries = _entries(volume, primary) if primary is not None else None
    header = primary
    backup = next(_backups(volume, primary), None)
    if primary is not None and entries is not None:
        if primary.alternate * primary.sector_size + primary.sector_size > volume.size:
            warnings.append(
                f"the image is cut: the disk's GPT ends at sector {primary.alternate} of {primary.sector_size} bytes, "
                f"the image has {volume.size // primary.sector_size}"
            )
        elif backup is None:
            warnings.append("the GPT's backup is damaged or missing; its primary copy is whole and used")
    elif backup is not None and (entries := _entries(volume, backup)) is not None:
        header = backup
        warnings.append("the GPT is damaged; its backup at the end of the disk is used")
    if header is None or entries is None:
        why = Corrupt(
            "the disk's GPT is damaged, and so is its backup",
            f"disk of {volume.size} bytes",
            "another restore point may have a whole one; else restore the whole disk and repair its table",
        )
        size = volume.sector_size if header is None else header.sector_size
        return Table(kind="GPT", sector_size=size, uuid="", partitions=[], warnings=warnings, why=why)
    partitions: list[Partition] = []
    step, sector = header.entry_size, header.sector_size
    for number in range(header.count):
        raw = entries[number * step : (number + 1) * step]
        if not any(raw[:16]):
            continue
        if len(partitions) == MOST_PARTITIONS:
            warnings.append(f"there are more than {MOST_PARTITIONS} partitions; the others are left out")
            break
        kind = str(uuid.UUID(bytes_le=raw[:16]))
        first, last = int.from_bytes(raw[32:40], "little"), int.from_bytes(raw[40:48], "little")
        name = printable(raw[56:128].decode("utf-16-le", "replace").split("\0", 1)[0])
        partitions.append(
            Partition(
                number=number + 1, start=first * sector, size=max(0, last + 1 - first) * sector, type=kind,
                words=GPT_TYPES.get(kind, kind), name=name, uuid=str(uuid.UUID(bytes_le=raw[16:32])),
            )
        )  # fmt: skip
    _judge(volume, partitions, warnings)
    return Table(kind="GPT", sector_size=sector, uuid=header.disk, partitions=partitions, warnings=warnings)


# -- MBR --------------------------------------------------------------------------------------------------------------------------


def _rows(raw: bytes) -> list[tuple[int, int, int, int]]:
    """(number from 1, type, first sector, sectors) of a boot record, but for rows that are empty."""
    rows = []
    for row in range(4):
        part = raw[446 + row * 16 : 462 + row * 16]
        count = int.from_bytes(part[12:16], "little")
        if part[4]:
            rows.append((row + 1, part[4], int.from_bytes(part[8:12], "little"), count))
    return rows


def _mbr(volume: Volume) -> list[tuple[int, int, int, int]]:
    """(number, type, first sector, sectors); nothing unless all of it looks like a table, for a file system's boot sector
    ends in the same two bytes and has code in the table's place."""
    raw = volume.pread(0, 512)
    rows = _rows(raw)
    if raw[510:] != b"\x55\xaa" or any(raw[446 + row * 16] & 0x7F for row in range(4)):
        return []
    if any(not first or not count for _, _, first, count in rows):
        return []
    return rows


def _known(volume: Volume, at: int) -> bool:
    """Whether anything known begins there."""
    if at + 8192 > volume.size:
        return False
    here = Window(volume, at, volume.size - at)
    head = here.pread(0, 8192)
    return (
        head[510:512] == b"\x55\xaa"
        or any(head.startswith(b"LABELONE", sector) for sector in range(0, 2048, 512))
        or b"\xfc\x4e\x2b\xa9" in (head[:4], head[4096:4100])
        or bool(signatures(here))
    )


def _unit(volume: Volume, boot: list[tuple[int, int, int, int]]) -> int:
    """An MBR counts in sectors and does not say of which size: the one by which more of its partitions hold something and end on
    the disk."""

    def score(size: int) -> int:
        return sum(
            volume.pread(first * size + 510, 2) == b"\x55\xaa" if kind in EXTENDED else _known(volume, first * size)
            for _, kind, first, count in boot
            if (first + count) * size <= volume.size
        )

    return max(_sizes(volume), key=score)


def _legacy(volume: Volume, boot: list[tuple[int, int, int, int]]) -> Table:
    warnings: list[str] = []
    unit = _unit(volume, boot)
    disk = int.from_bytes(volume.pread(440, 4), "little")

    def partition(number: int, kind: int, first: int, count: int) -> Partition:
        return Partition(
            number=number, start=first * unit, size=count * unit, type=f"{kind:02x}",
            words=MBR_TYPES.get(kind, f"type {kind:02x}"), uuid=f"{disk:08x}-{number:02x}" if disk else "",
            extended=kind in EXTENDED,
        )  # fmt: skip

    partitions = [partition(*row) for row in boot]
    number = 5
    for _, kind, first, _ in boot:
        if kind in EXTENDED:
            for logical in _logical(volume, unit, first, warnings):
                if len(partitions) == MOST_PARTITIONS:
                    warnings.append(f"there are more than {MOST_PARTITIONS} partitions; the others are left out")
                    break
                partitions.append(partition(number, *logical))
                number += 1
    _judge(volume, partitions, warnings)
    return Table(
        kind="MBR", sector_size=unit, uuid=f"{disk:08x}" if disk else "", partitions=partitions, warnings=warnings
    )


def _logical(volume: Volume, unit: int, base: int, warnings: list[str]) -> Iterator[tuple[int, int, int]]:
    """(type, first sector, sectors) of the chain that begins at sector `base`."""
    seen: set[int] = set()
    at = base
    while True:
        if at in seen or len(seen) == MOST_PARTITIONS:
            warnings.append(
                "the chain of logical partitions leads back into itself, or is too long; its rest is left out"
            )
            return
        seen.add(at)
        if at * unit + 512 > volume.size:
            warnings.append(
                f"the chain of logical partitions leads to byte {at * unit}, the image has {volume.size}; its rest is left out"
            )
            return
        raw = volume.pread(at * unit, 512)
        if raw[510:] != b"\x55\xaa":
            warnings.append(f"the chain of logical partitions is damaged at byte {at * unit}; its rest is left out")
            return
        following = 0
        for _, kind, first, count in _rows(raw):
            if kind in EXTENDED:
                following = following or base + first
            elif count:
                yield kind, at + first, count
        if not following:
            return
        at = following


def _judge(volume: Volume, partitions: list[Partition], warnings: list[str]) -> None:
    """Says of each what is wrong with its place."""
    for one in partitions:
        if one.start + one.size > volume.size:
            one.why = OutOfBounds(
                "the image ends before this partition does",
                f"it ends at byte {one.start + one.size}, the image has {volume.size}",
                "the backup of this disk is cut, or its table is damaged: try another restore point",
            )
        elif not one.size:
            one.why = Corrupt("the table says that this partition has no bytes", f"partition {one.number}")
    reach, widest = 0, None
    for one in sorted((p for p in partitions if not p.extended and p.size), key=lambda p: (p.start, p.number)):
        if widest is not None and one.start < reach and len(warnings) < MOST_WARNINGS:
            warnings.append(f"partitions {widest} and {one.number} overlap")
        if one.start + one.size > reach:
            reach, widest = one.start + one.size, one.number
