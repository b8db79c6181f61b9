# SPDX-License-Identifier: Apache-2.0
"""Images changed in a few bytes of what a clean walk reads, half of it in named fields of structures; asked for everything.

A program of its own, because libfsntfs is C, and because a reader that hangs or grows is to be seen:
`python -m tests.flr.corpus.mutants KIND IMAGE FIRST COUNT` prints a line for each mutant, and whoever started it sees by the last
line which one ended or stopped the process. A mutant is its number and no more.
"""

from __future__ import annotations

import random
import resource
import signal
import struct
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from flr.blocks import Extent, Volume
from flr.errors import RecoveryError
from flr.fs.base import FileSystem
from flr.fs.ext.open import open_ext
from flr.fs.ext.reader import Ext
from flr.fs.fat import directory
from flr.fs.fat.reader import Fat
from flr.fs.ntfs import content, index, record
from flr.fs.ntfs.reader import Ntfs
from flr.fs.xfs.reader import Xfs
from tests.flr.corpus.asking import everything
from tests.flr.corpus.image import Changed, Image
from tests.flr.fs.ext import fields as ext
from tests.flr.fs.xfs import mutants as xfs

Field = tuple[int, int]
"""The byte of the volume, and how many."""
KINDS: dict[str, Callable[[Volume], FileSystem]] = {"ext": open_ext, "xfs": Xfs, "ntfs": Ntfs, "fat": Fat, "exfat": Fat}
ORDER: dict[str, Literal["little", "big"]] = {
    "ext": "little",
    "xfs": "big",
    "ntfs": "little",
    "fat": "little",
    "exfat": "little",
}
STUCK = 60
"""Seconds without an answer; a sound image takes a tenth of one."""
MEMORY = 2 << 30
RECORD_HEAD = ((4, 2), (6, 2), (16, 2), (18, 2), (20, 2), (22, 2), (24, 4), (32, 8))
ATTRIBUTE_HEAD = ((0, 4), (4, 4), (8, 1), (9, 1), (10, 2), (12, 2), (16, 4), (20, 2))
AWAY = ((16, 8), (24, 8), (32, 2), (34, 1), (40, 8), (48, 8), (56, 8), (64, 1), (65, 3), (68, 4))
ENTRY = ((0, 6), (6, 2), (8, 2), (10, 2), (12, 2), (72, 4), (80, 1), (81, 1), (82, 2))

BOOT = (11, 12, 13, 14, 16, 17, 18, 19, 21, 22, 32, 36, 40, 44, 72, 80, 84, 88, 92, 96, 106, 108, 109, 110)


def fields(fs: FileSystem, sectors: list[int]) -> list[Field]:
    """Named ones, of structures that stand in `sectors`."""
    if isinstance(fs, Ext):
        return list(ext.fields(fs))
    if isinstance(fs, Ntfs):
        return list(_ntfs(fs))
    if isinstance(fs, Fat):
        return list(_fat(fs))
    return list(_xfs(fs.volume, sectors))


def _xfs(volume: Volume, sectors: list[int]) -> Iterator[Field]:
    for group in xfs.kinds(volume, sectors):
        for number in group[:: max(1, len(group) // 300)]:  # the few of a rare kind as often as the many of another
            found = xfs.kind(volume.pread(number * 512, 512))
            places = xfs.ATTRIBUTES if found == b"attributes" else xfs.FIELDS.get(found, xfs.ANYWHERE)
            yield from ((number * 512 + at, length) for at, length in places if at + length <= 512)


def _ntfs(fs: Ntfs) -> Iterator[Field]:
    yield from ((11, 2), (13, 1), (0x28, 8), (0x30, 8), (0x38, 8), (0x40, 1), (0x44, 1))
    for number, found in fs.mft.many(range(fs.mft.count)).items():
        if isinstance(found, RecoveryError) or not found.flags & record.IN_USE:
            continue
        begins = fs.mft._places([number])[0][0]
        raw = record.fixed(fs.volume.pread(begins, fs.geometry.record), b"FILE", "")
        yield from ((begins + at, size) for at, size in RECORD_HEAD)
        at = int.from_bytes(raw[20:22], "little")
        while raw[at : at + 4] != b"\xff\xff\xff\xff":
            _, length, outside = struct.unpack_from("<IIB", raw, at)
            yield from ((begins + at + offset, size) for offset, size in (AWAY if outside else ATTRIBUTE_HEAD))
            yield from ((begins + at + offset, 4) for offset in range(24, min(length, 120) - 4, 8))
            at += length
        where = fs.mft.stream(found, record.INDEX, index.I30) if found.flags & record.DIRECTORY else None
        for run in content.segments(where, 0, where.size, fs.geometry.cluster, 100, "") if where else ():
            if isinstance(run, Extent):
                for block in range(run.offset, run.offset + run.length, fs.geometry.index):
                    yield from ((block + at, size) for at, size in ((4, 2), (6, 2), (16, 8), (24, 4), (28, 4)))
                    entry = block + 24 + int.from_bytes(fs.volume.pread(block + 24, 4), "little")
                    for _ in range(4):
                        yield from ((entry + at, size) for at, size in ENTRY)
                        entry += int.from_bytes(fs.volume.pread(entry + 8, 2), "little")


def _fat(fs: Fat) -> Iterator[Field]:
    g = fs.geometry
    yield from (
        (at, 1)
        for at in (11, 12, 13, 14, 16, 17, 18, 19, 21, 22, 32, 36, 40, 44, 72, 80, 84, 88, 92, 96, 106, 108, 109, 110)
    )
    used = [cluster for cluster in range(2, g.clusters + 2) if fs.chains.entry(cluster)]
    yield from ((g.table + cluster * g.bits // 8, 2 if g.bits < 32 else 4) for cluster in used)
    todo = [fs.root()]
    while todo:
        cursor: int | None = 0
        node = todo.pop()
        while cursor is not None:
            listing = fs.entries(node, cursor)
            cursor = listing.cursor
            for entry in listing.entries:
                at = entry.number * directory.SIZE
                yield from (
                    (at + offset, 1)
                    for offset in (0, 1, 11, 12, 20, 26, 27, 28, 31, 32, 33, 35, 40, 52, 56, 60, 64, 96)
                )
                if entry.attributes and entry.attributes.is_directory:
                    todo.append(entry.attributes.node)


def value(chance: random.Random, old: bytes, order: Literal["little", "big"]) -> bytes:
    size = len(old)
    number = int.from_bytes(old, order)
    most = (1 << 8 * size) - 1
    new = chance.choice(
        (
            0,
            most,
            most >> 1,
            number + 1 & most,
            number - 1 & most,
            number ^ 1 << chance.randrange(8 * size),
            number * 2 & most,
            chance.randrange(most + 1),
        )
    )
    return new.to_bytes(size, order)


def mutant(
    number: int, image: Image, named: list[Field], sectors: list[int], order: Literal["little", "big"] = "little"
) -> Changed:
    chance = random.Random(number)
    volume = Changed(image)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        at, size = (
            chance.choice(named) if chance.random() < 0.5 else (chance.choice(sectors) * 512 + chance.randrange(512), 1)
        )
        if at + size <= image.size:
            volume.put(at, value(chance, image.pread(at, size), order))
    return volume


def main() -> None:
    name, path, first, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    kind, order = KINDS[name], ORDER[name]
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    image = Image(path)
    sound = everything(kind(image))
    sectors = sorted(image.sectors)
    named = fields(kind(image), sectors)
    for number in range(first, first + count):
        print("begins", number, flush=True)
        signal.alarm(STUCK)  # ends the process, even within C
        try:
            asked = everything(kind(mutant(number, image, named, sectors, order)))
            same = asked.digest.digest() == sound.digest.digest()
            word = "raised" if asked.errors != sound.errors else "unchanged" if same else "changed"
            print(word, number, flush=True)
        except RecoveryError:
            print("refused", number, flush=True)
        except BaseException:
            print("fault", number, repr(traceback.format_exc(limit=-6)), flush=True)
        signal.alarm(0)


if __name__ == "__main__":
    main()
