# SPDX-License-Identifier: Apache-2.0
"""Damaged and hostile versions of a sound image: what a walk reads is changed, half of it in fields that have a name.

A walk visits everything that a reader lists and asks all that can be asked of it. It must end within `READS` and `BYTES`, and
nothing but `flr.errors` may come out of it.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Literal

from flr.blocks import Segment, Volume
from flr.errors import RecoveryError
from flr.fs.xfs import open_xfs, superblock
from flr.fs.xfs.checksum import crc32c
from flr.fs.xfs.log import Log
from tests.flr.corpus.asking import everything

SECTOR = 512
READS = 60_000
BYTES = 1 << 30


class Worn(AssertionError):
    """A walk that reads more than a small file system has."""


class Watched(Volume):
    """Another volume with some sectors changed; counts what is read and remembers where."""

    def __init__(self, volume: Volume, changed: dict[int, bytes] | None = None) -> None:
        self.size = volume.size
        self.sectors: set[int] = set()
        self.reads = self.bytes = 0
        self._volume = volume
        self._changed = changed or {}

    def pread(self, offset: int, length: int) -> bytes:
        self.reads += 1
        self.bytes += length
        if self.reads > READS or self.bytes > BYTES:
            raise Worn(f"{self.reads} reads, {self.bytes} bytes")
        data = self._volume.pread(offset, length)
        first, last = offset // SECTOR, (offset + length - 1) // SECTOR
        self.sectors.update(range(first, last + 1))
        found = [n for n in self._changed if first <= n <= last]
        if found:
            made = bytearray(data)
            for number in found:
                at = number * SECTOR - offset
                low, high = max(at, 0), min(at + SECTOR, length)
                made[low:high] = self._changed[number][low - at : high - at]
            data = bytes(made)
        return data

    def locate(self, offset: int, length: int) -> list[Segment]:
        return self._volume.locate(offset, length)

    def prefetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        assert all(length > 0 for _, length in ranges)


def walk(volume: Volume) -> int:
    """How many entries were seen. Whatever is no RecoveryError is the test's failure."""
    try:
        return everything(open_xfs(volume)).entries
    except RecoveryError:
        return 0


# -- what is changed

FIELDS: dict[bytes, tuple[tuple[int, int], ...]] = {  # by the first bytes of a structure: (place, length) of its fields
    b"XFSB": (
        *((4, 4), (8, 8), (48, 8), (56, 8), (84, 4), (88, 4), (96, 4), (100, 2), (102, 2), (104, 2), (106, 2)),
        *((120, 1), (121, 1), (122, 1), (123, 1), (124, 1), (192, 1), (200, 4), (216, 4), (220, 4)),
    ),
    b"IN": (
        *((2, 2), (4, 1), (5, 1), (16, 4), (56, 8), (64, 8), (24, 8), (76, 4), (80, 2), (82, 1), (83, 1), (90, 2), (92, 4)),
        *((120, 8), (152, 8), (176, 2), (178, 2), (180, 8), (184, 8), (192, 8), (100, 8), (300, 8), (400, 8)),
    ),
    b"BMA3": ((4, 2), (6, 2), (56, 8), (72, 8), (80, 8), (88, 8), (300, 8), (500, 8)),
    b"BMAP": ((4, 2), (6, 2), (24, 8), (32, 8), (40, 8), (300, 8)),
    b"XDB3": ((0, 4), (40, 8), (64, 8), (72, 1), (80, 8), (100, 4), (200, 8), (508, 4), (504, 4)),
    b"XDD3": ((0, 4), (40, 8), (64, 8), (72, 1), (80, 8), (88, 1), (100, 4), (200, 8)),
    b"XD2D": ((0, 4), (16, 8), (24, 1), (32, 8), (100, 4)),
    b"XARM": ((0, 4), (4, 4), (8, 4), (32, 8)),
    b"XSLM": ((0, 4), (4, 4), (8, 4), (32, 8)),
    b"\xfe\xed\xba\xbe": (
        *((4, 4), (8, 4), (12, 4), (16, 8), (24, 8), (32, 4), (40, 4), (44, 4), (300, 4), (304, 4), (320, 4)),
    ),
}  # fmt: skip
ATTRIBUTES = ((0, 4), (8, 2), (48, 8), (56, 2), (58, 2), (60, 2), (80, 4), (84, 2), (86, 1), (88, 8), (400, 4))
ANYWHERE = tuple((at, length) for at in range(0, 96, 4) for length in (1, 2, 4))


def kind(sector: bytes | bytearray) -> bytes:
    """Which structure begins there, as far as one can see."""
    for magic in FIELDS:
        if sector.startswith(magic):
            return magic
    return b"attributes" if sector[8:10] in (b"\x3b\xee", b"\x3e\xbe", b"\xfb\xee", b"\xfe\xbe") else b""


def kinds(volume: Volume, sectors: Iterable[int]) -> list[list[int]]:
    """The sectors by what they hold: so that the few of a rare kind are changed as often as the many of another."""
    made: dict[bytes, list[int]] = {}
    for number in sorted(sectors):
        made.setdefault(kind(volume.pread(number * SECTOR, SECTOR)), []).append(number)
    return list(made.values())


def changed(data: bytearray, at: int, length: int, order: Literal["big", "little"], chance: random.Random) -> None:
    old = int.from_bytes(data[at : at + length], order)
    most = (1 << 8 * length) - 1
    some = chance.randrange(most + 1)
    value = chance.choice((0, 1, most, most >> 1, old + 1, old - 1, old ^ 1 << chance.randrange(8 * length), some))
    data[at : at + length] = (value & most).to_bytes(length, order)


def mutant(volume: Volume, sectors: list[list[int]], chance: random.Random) -> dict[int, bytes]:
    """One to four sectors, changed."""
    made: dict[int, bytes] = {}
    for _ in range(chance.randrange(1, 5)):
        number = chance.choice(chance.choice(sectors))
        data = bytearray(made.get(number) or volume.pread(number * SECTOR, SECTOR))
        if chance.randrange(2):
            found = kind(data)
            places = ATTRIBUTES if found == b"attributes" else FIELDS.get(found, ANYWHERE)
            changed(data, *chance.choice(places), "big", chance)
        else:
            for _ in range(chance.randrange(1, 8)):
                data[chance.randrange(SECTOR)] = chance.randrange(256)
        made[number] = bytes(data)
    return made


class Forger:
    """Logs whose records say something else than what was written, with checksums that are right."""

    def __init__(self, volume: Volume) -> None:
        sb, _ = superblock.find(volume)
        log = Log(volume, sb)
        self.volume = volume
        self.size = (sb.log_blocks << sb.block_log) // SECTOR
        self.start = sb.offset(sb.log_start) // SECTOR
        self.records = list(log.records())

    def mutant(self, chance: random.Random) -> dict[int, bytes]:
        made: dict[int, bytes] = {}
        for _ in range(chance.randrange(1, 4)):
            record = chance.choice(self.records)
            sectors = [self.start + (record.position + i) % self.size for i in range(record.headers + record.sectors)]
            raw = bytearray(b"".join(made.get(n) or self.volume.pread(n * SECTOR, SECTOR) for n in sectors))
            at = record.headers * SECTOR
            places: list[tuple[int, int]] = []
            while at + 12 < len(raw):
                length = int.from_bytes(record.data[at - record.headers * SECTOR :][4:8], "big")
                places.append((at, length))
                at += 12 + length
            for _ in range(chance.randrange(1, 3)):
                at, length = chance.choice(places)
                where = chance.choice((0, 4, 8, 9) if chance.randrange(4) == 0 else range(12, 13 + min(length, 64)))
                width = min(chance.choice((1, 2, 4)), SECTOR - (at + where) % SECTOR)
                if (at + where) % SECTOR >= 4 and at + where + width <= len(raw):  # not the sector's round
                    changed(raw, at + where, width, "little", chance)
            raw[32:36] = bytes(4)
            headers = [raw[i * SECTOR : i * SECTOR + 260] for i in range(1, -(-record.sectors // 64))]
            checksum = crc32c(bytes(raw[:328]), *map(bytes, headers), bytes(raw[record.headers * SECTOR :]))
            raw[32:36] = checksum.to_bytes(4, "little")
            made.update((n, bytes(raw[i * SECTOR : (i + 1) * SECTOR])) for i, n in enumerate(sectors))
        return made
