# SPDX-License-Identifier: Apache-2.0
"""Real disks with their metadata changed at random, checksums made right: nothing but RecoveryErrors comes out, and it ends.

The seed is fixed, so a failure comes again; `DATA_MOVER_FLIPS` asks for more rounds than the ordinary run has.
"""

from __future__ import annotations

import os
import random
import re
import struct
import zlib
from collections.abc import Callable

import pytest

from flr.errors import RecoveryError
from flr.volumes import lvm, md
from flr.volumes.find import find
from tests.flr.corpus import arrays
from tests.flr.volumes.disks import Changed
from tests.flr.volumes.lvm_disks import LABEL, RING, rewritten, text_of, with_label

ROUNDS = int(os.environ.get("DATA_MOVER_FLIPS", "200"))
EXTREMES = [0, 1, 2, 7, 255, 256, 65535, 1 << 31, (1 << 32) - 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]
MIB = 1 << 20


def look(disks: list[Changed]) -> tuple[int, int]:
    """Everything that a session would do with what is found. How many arrays and volumes were opened, and how many not."""
    found = find(disks)
    assert len(found.entries) < 5000
    opened = refused = 0
    for entry in found.entries:
        assert len(entry.why_not) < 2000, "values that a guest wrote are cut"
        assert entry.why_not == "" or entry.hint
        said = [
            entry.id,
            entry.name,
            entry.label,
            entry.uuid,
            entry.content_uuid,
            entry.type,
            entry.why_not,
            *entry.warnings,
        ]
        assert all(text.isprintable() for text in said), "nothing that a terminal acts upon"
        try:
            volume = found.raw(entry.id)
        except RecoveryError:
            refused += entry.kind in ("array", "volume")
            continue
        opened += entry.kind in ("array", "volume")
        assert volume.size >= 0
        for at in (0, volume.size // 2, max(0, volume.size - 4096)):
            length = min(4096, volume.size - at)
            try:
                assert len(volume.pread(at, length)) == length
                assert sum(segment.length for segment in volume.locate(at, length)) == length
                volume.prefetch([(at, length)])
            except RecoveryError:
                pass
    return opened, refused


def told(looks: list[tuple[int, int]]) -> None:
    """The changes were neither harmless nor did they end all: some volumes opened, some did not, in some rounds both."""
    assert sum(opened for opened, _ in looks)
    assert len({opened for opened, _ in looks}) > 1


def flipped(raw: bytes, chance: random.Random, most: int = 4) -> bytes:
    made = bytearray(raw)
    for _ in range(chance.randint(1, most)):
        made[chance.randrange(len(made))] = chance.randrange(256)
    return bytes(made)


def extreme(raw: bytes, chance: random.Random, width: int) -> bytes:
    """A field of the structure set to what a field should not be."""
    made = bytearray(raw)
    at = chance.randrange(len(made) // width) * width
    made[at : at + width] = (chance.choice(EXTREMES) % (1 << 8 * width)).to_bytes(width, "little")
    return bytes(made)


def changed(raw: bytes, chance: random.Random) -> bytes:
    return flipped(raw, chance) if chance.random() < 0.3 else extreme(raw, chance, chance.choice((1, 2, 4, 8)))


def text_changed(text: bytes, chance: random.Random) -> bytes:
    """A number, a word or a line of the text replaced, doubled or left out."""
    for _ in range(chance.randint(1, 3)):
        kind = chance.randrange(5)
        if kind == 0:
            numbers = list(re.finditer(rb"\d+", text))
            one = chance.choice(numbers)
            text = text[: one.start()] + str(chance.choice([-1, *EXTREMES])).encode() + text[one.end() :]
        elif kind == 1:
            words = list(re.finditer(rb'"[^"\n]*"', text))
            one, other = chance.choice(words), chance.choice(words)
            text = text[: one.start()] + other[0] + text[one.end() :]
        elif kind == 2:
            lines = text.split(b"\n")
            at = chance.randrange(len(lines))
            lines[at : at + 1] = [] if chance.random() < 0.5 else [lines[at]] * 2
            text = b"\n".join(lines)
        elif kind == 3:
            names = list(re.finditer(rb"[a-z_0-9]+", text))
            one, other = chance.choice(names), chance.choice(names)
            text = text[: one.start()] + other[0] + text[one.end() :]
        else:
            text = flipped(text, chance)
    return text


def whole() -> list[Changed]:
    made = arrays.groups()
    return [Changed(made.disk(f"whole{number}"), number) for number in range(3)]


def test_texts_of_groups() -> None:
    chance = random.Random(1)
    disks = whole()
    text, _ = text_of(disks[0])
    looks = []
    for _ in range(ROUNDS):
        worse = text_changed(text, chance)
        for disk in disks:
            disk.clear()
            rewritten(disk, worse)
        looks.append(look(disks))
    told(looks)


def test_labels_and_rings_of_physical_volumes() -> None:
    chance = random.Random(2)
    disks = whole()
    label, ring = disks[0].pread(LABEL, 512), disks[0].pread(RING, 512)
    for _ in range(ROUNDS):
        disks[0].clear()
        with_label(disks[0], label[:20] + changed(label[20:120], chance) + label[120:])
        look(disks)
        disks[0].clear()
        worse = bytearray(ring[:20] + changed(ring[20:100], chance) + ring[100:])
        worse[:4] = lvm.crc(bytes(worse[4:])).to_bytes(4, "little")
        disks[0].put(RING, bytes(worse))
        look(disks)


def test_what_a_copy_of_a_mirrored_volume_says_of_itself() -> None:
    chance = random.Random(3)
    disks = whole()
    places = [at for at in range(MIB, 40 * MIB, 512 << 10) if disks[0].pread(at, 4) == b"DmRd"]
    assert places
    for _ in range(ROUNDS):
        disks[0].clear()
        for at in places:
            disks[0].put(at, b"DmRd" + changed(disks[0].pread(at + 4, 60), chance))
        look(disks)


def _inside(name: str, partition: str) -> Callable[[], bytes]:
    def read() -> bytes:
        inside = find([Changed(arrays.arrays().disk(name))]).raw(partition)
        return inside.pread(0, inside.size)

    return read


@pytest.mark.parametrize("number", [1, 3, 5, 6, 7, 8, 9])
def test_superblocks_of_arrays(number: int) -> None:
    """1.2 and 1.0 raid1, raid0 of both layouts, linear, raid5, raid10."""
    chance = random.Random(number)
    names = ["disk0", "disk1", "disk2"][: 2 if number < 4 else 3]
    disks = [Changed(_inside(name, f"0p{number}")(), at) for at, name in enumerate(names)]
    superblock = md.superblock(disks[0])
    assert superblock is not None
    raw = disks[0].pread(superblock.at, 4096)
    looks = []
    for _ in range(ROUNDS):
        for disk in disks:
            disk.clear()
        worse = bytearray(raw[:8] + changed(raw[8:264], chance) + raw[264:])
        most = min(int.from_bytes(worse[220:224], "little"), 1920)
        worse[216:220] = md._sum1(bytes(worse[: 256 + 2 * most])).to_bytes(4, "little")
        disks[0].put(superblock.at, bytes(worse))
        looks.append(look(disks))
    if number < 8:  # the others are opened never
        told(looks)


def test_superblocks_0_90() -> None:
    chance = random.Random(4)
    disks = [Changed(arrays.arrays().disk(name), at) for at, name in enumerate(("old0", "old1"))]
    superblock = md.superblock(disks[0])
    assert superblock is not None
    raw = disks[0].pread(superblock.at, 4096)
    looks = []
    for _ in range(ROUNDS):
        disks[0].clear()
        words = list(struct.unpack("<1024I", raw[:12] + changed(raw[12:], chance)))
        for at in chance.sample([4, 7, 8, 10, 33, 39, 64, 65, 992, 995, 996], 2):
            words[at] = chance.choice(EXTREMES) & 0xFFFFFFFF
        total = sum(words) - words[38]
        words[38] = ((total & 0xFFFFFFFF) + (total >> 32)) & 0xFFFFFFFF
        disks[0].put(superblock.at, struct.pack("<1024I", *words))
        looks.append(look(disks))
    told(looks)


def test_tables_of_partitions() -> None:
    chance = random.Random(5)
    disk = Changed(arrays.groups().disk("part0"))
    header, entries, boot = disk.pread(512, 512), disk.pread(1024, 128 * 128), disk.pread(0, 512)
    for _ in range(ROUNDS):
        disk.clear()
        worse = bytearray(header[:12] + changed(header[12:92], chance) + header[92:])
        listed = changed(entries[:384], chance) + entries[384:]
        if chance.random() < 0.5:
            worse[88:92] = zlib.crc32(listed).to_bytes(4, "little")
        worse[16:20] = bytes(4)
        size = min(int.from_bytes(worse[12:16], "little"), 512)
        worse[16:20] = zlib.crc32(worse[:size]).to_bytes(4, "little")
        disk.put(512, bytes(worse)).put(1024, listed)
        look([disk])
        disk.clear()
        table = b"".join(
            bytes([0, 0, 0, 0, chance.choice((5, 7, 0x0F, 0x42, 0x83, 0xEE)), 0, 0, 0])
            + struct.pack("<II", chance.choice((1, 34, 2048, 1 << 31)), chance.choice((1, 2048, (1 << 32) - 1)))
            for _ in range(4)
        )
        disk.put(0, boot[:446] + table + b"\x55\xaa")
        look([disk])


@pytest.mark.parametrize("name", ["whole0", "part1", "mirrored0", "stale1", "half1"])
def test_flips_and_cuts(name: str) -> None:
    """Without any checksum made right, and with the image cut anywhere."""
    chance = random.Random(name)
    file = arrays.groups().disk(name)
    for _ in range(ROUNDS // 2):
        disk = Changed(file)
        at = chance.choice((0, 512, 4096, 4608, 1 << 20, disk.size - 8192, disk.size - 65536)) & ~511
        disk.put(at, flipped(disk.pread(at, 512), chance, 16))
        look([disk])
        look([Changed(file, 0, chance.randrange(disk.size))])
