# SPDX-License-Identifier: Apache-2.0
"""The journal: logs written here by the format's page, replayed, and compared with a model that only knows what was meant.

That real kernels write such logs is shown by `test_busy`.
"""

from __future__ import annotations

import random
import struct
import zlib
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flr.blocks import Extent, MemoryDisk
from flr.errors import Corrupt, RecoveryError, Unsupported
from flr.fs.ext import journal
from flr.fs.ext.checksum import ONES, crc32c
from flr.fs.ext.journal import BITS64, CHECKSUM_V2, CHECKSUM_V3, FAST_COMMITS, HAS_REVOKES, MAGIC, Journal
from flr.fs.overlay import Overlay

SIZE = 1024
VOLUME_BLOCKS = 64
LOG_AT = VOLUME_BLOCKS
LOG_BLOCKS = 60
UUID = bytes(range(16))


@dataclass
class Change:
    """One transaction: blocks written, blocks revoked."""

    written: dict[int, bytes] = field(default_factory=dict)
    revoked: list[int] = field(default_factory=list)


class Writer:
    """Writes transactions into a log of LOG_BLOCKS blocks from `start` on, round its end."""

    def __init__(self, features: int, compat: int, start: int, sequence: int, tags: int = 100) -> None:
        self.features, self.compat, self.start, self.sequence, self.tags = features, compat, start, sequence, tags
        self.blocks: dict[int, bytes] = {}
        self.at = start
        self.commits: list[int] = []
        self.seed = crc32c(ONES, UUID)
        self.checksums = bool(features & (CHECKSUM_V2 | CHECKSUM_V3))

    def put(self, raw: bytes) -> int:
        assert self.at not in self.blocks, "the log is full"
        self.blocks[self.at] = raw.ljust(SIZE, b"\0")
        at, self.at = self.at, self.at + 1 if self.at + 1 < LOG_BLOCKS else 1
        return at

    def head(self, kind: int) -> bytes:
        return struct.pack(">III", MAGIC, kind, self.sequence)

    def tailed(self, raw: bytes) -> bytes:
        raw = raw.ljust(SIZE, b"\0")
        if not self.checksums:
            return raw
        return raw[:-4] + struct.pack(">I", crc32c(self.seed, raw[:-4] + bytes(4)))

    def tag(self, block: int, raw: bytes, first: bool, last: bool) -> tuple[bytes, bytes]:
        """The tag, and the block as the log holds it."""
        flags = (0 if first else 2) | (8 if last else 0)
        if raw[:4] == struct.pack(">I", MAGIC):
            flags |= 1
            raw = bytes(4) + raw[4:]
        checksum = crc32c(crc32c(self.seed, struct.pack(">I", self.sequence)), raw) if self.checksums else 0
        high = block >> 32
        if self.features & CHECKSUM_V3:
            made = struct.pack(">IIII", block & ONES, flags, high, checksum)
        else:
            made = struct.pack(">IHH", block & ONES, checksum & 0xFFFF, flags)
            made += struct.pack(">I", high) if self.features & BITS64 else b""
            made += bytes(2) if self.features & CHECKSUM_V2 else b""
        return made + (UUID if first else b""), raw

    def transaction(self, change: Change, *, committed: bool = True) -> None:
        sums = ONES
        if change.revoked:
            width = ">Q" if self.features & BITS64 else ">I"
            listed = b"".join(struct.pack(width, block) for block in change.revoked)
            self.put(self.tailed(self.head(journal.REVOKE) + struct.pack(">I", 16 + len(listed)) + listed))
        items = list(change.written.items())
        for k in range(0, len(items), self.tags):
            part = items[k : k + self.tags]
            tags, raws = [], []
            for number, (block, raw) in enumerate(part):
                tag, stored = self.tag(block, raw, number == 0, number == len(part) - 1)
                tags.append(tag)
                raws.append(stored)
            descriptor = self.tailed(self.head(journal.DESCRIPTOR) + b"".join(tags))
            self.put(descriptor)
            sums = slow_crc(sums, descriptor)
            for stored in raws:
                self.put(stored)
                sums = slow_crc(sums, stored)
        if committed:
            self.commits.append(self.put(self.commit(sums)))
        self.sequence += 1

    def commit(self, sums: int) -> bytes:
        raw = bytearray(self.head(journal.COMMIT).ljust(SIZE, b"\0"))
        if self.checksums:
            raw[16:20] = struct.pack(">I", crc32c(self.seed, bytes(raw)))
        elif self.compat:
            raw[12:14] = b"\1\4"
            raw[16:20] = struct.pack(">I", sums)
        return bytes(raw)

    def image(self, below: list[bytes], began: int, fast: bytes = b"") -> bytes:
        head = bytearray(SIZE)
        struct.pack_into(">IIIIIIIII", head, 0, MAGIC, 4, 0, SIZE, LOG_BLOCKS, 1, began, self.start, 0)
        struct.pack_into(">III", head, 0x24, self.compat, self.features, 0)
        head[0x30:0x40] = UUID
        if self.checksums:
            head[0x50] = 4
            struct.pack_into(">I", head, 0xFC, crc32c(ONES, bytes(head)))
        log = [bytes(head)] + [self.blocks.get(k, b"\xc3" * SIZE) for k in range(1, LOG_BLOCKS)]
        return b"".join(below) + b"".join(log) + fast


def slow_crc(register: int, data: bytes) -> int:
    """CRC-32 from the top bit, bit by bit: what `_big_endian_crc` is checked with."""
    for byte in data:
        register ^= byte << 24
        for _ in range(8):
            register = (register << 1 ^ 0x04C11DB7 if register >> 31 else register << 1) & ONES
    return register


def replayed(image: bytes) -> tuple[list[bytes], int, list[str]]:
    disk = MemoryDisk(image)
    said: list[str] = []
    overlay = Overlay(disk, SIZE)
    log = Journal(disk, [Extent(0, LOG_AT * SIZE, LOG_BLOCKS * SIZE)], SIZE, said.append)
    count = log.replay(overlay)
    return [overlay.pread(k * SIZE, SIZE) for k in range(VOLUME_BLOCKS)], count, said


def modelled(below: list[bytes], changes: list[Change]) -> list[bytes]:
    made = list(below)
    for number, change in enumerate(changes):
        for block, raw in change.written.items():
            if not any(block in later.revoked for later in changes[number:]):
                made[block] = raw
    return made


FEATURES = st.sampled_from(
    [
        (0, 0), (HAS_REVOKES, 0), (HAS_REVOKES, journal.COMPAT_CHECKSUM), (HAS_REVOKES | BITS64, 0),
        (HAS_REVOKES | CHECKSUM_V2, 0), (HAS_REVOKES | BITS64 | CHECKSUM_V2, 0), (HAS_REVOKES | CHECKSUM_V3, 0),
        (HAS_REVOKES | BITS64 | CHECKSUM_V3, 0),
    ]
)  # fmt: skip


def contents(chance: random.Random) -> bytes:
    raw = chance.randbytes(SIZE)
    return struct.pack(">I", MAGIC) + raw[4:] if chance.random() < 0.3 else raw


@st.composite
def logs(draw: st.DrawFn) -> tuple[tuple[int, int], int, int, int, list[Change]]:
    features = draw(FEATURES)
    chance = random.Random(draw(st.integers(0, 1 << 30)))
    changes = []
    for _ in range(draw(st.integers(0, 5))):
        change = Change({chance.randrange(VOLUME_BLOCKS): contents(chance) for _ in range(chance.randrange(1, 7))})
        if features[0] & HAS_REVOKES and chance.random() < 0.5:
            change.revoked = [chance.randrange(VOLUME_BLOCKS) for _ in range(chance.randrange(1, 8))]
        changes.append(change)
    tags = draw(st.integers(1, 4))
    while sum(blocks(change, tags) for change in changes) + 2 >= LOG_BLOCKS:  # and one that is not committed
        changes.pop()
    return features, draw(st.integers(1, LOG_BLOCKS - 1)), draw(st.integers(1, ONES - 10)), tags, changes


def blocks(change: Change, tags: int) -> int:
    """That it takes in the log: what is revoked, descriptors, contents, the commit."""
    return bool(change.revoked) + -(-len(change.written) // tags) + len(change.written) + 1


@given(logs())
def test_what_was_committed_is_replayed_and_nothing_else(
    log: tuple[tuple[int, int], int, int, int, list[Change]],
) -> None:
    (features, compat), start, sequence, tags, changes = log
    writer = Writer(features, compat, start, sequence, tags)
    for change in changes:
        writer.transaction(change)
    writer.transaction(Change({3: b"\x99" * SIZE}, []), committed=False)
    below = [bytes([k]) * SIZE for k in range(VOLUME_BLOCKS)]
    found, count, said = replayed(writer.image(below, sequence))
    assert count == len(changes)
    assert found == modelled(below, changes)
    assert said == []


@given(logs(), st.data())
def test_a_damaged_log_is_replayed_to_its_damage_or_not_at_all(
    log: tuple[tuple[int, int], int, int, int, list[Change]], data: st.DataObject
) -> None:
    """With checksums: a damaged block ends the log, or is the reason to leave it out. Never does anything else come out."""
    (features, compat), start, sequence, tags, changes = log
    if not features & (CHECKSUM_V2 | CHECKSUM_V3) or not changes:
        return
    writer = Writer(features, compat, start, sequence, tags)
    for change in changes:
        writer.transaction(change)
    below = [bytes([k]) * SIZE for k in range(VOLUME_BLOCKS)]
    image = bytearray(writer.image(below, sequence))
    block = data.draw(st.sampled_from(sorted(writer.blocks)))
    at = (LOG_AT + block) * SIZE + data.draw(st.integers(0, SIZE - 1))
    image[at] ^= data.draw(st.integers(1, 255))
    allowed = [modelled(below, changes[:k]) for k in range(len(changes) + 1)]
    try:
        found, _, _ = replayed(bytes(image))
    except RecoveryError:
        return
    if features & CHECKSUM_V2 and found not in allowed:  # 16 bits let one of 65,536 damages through
        pytest.fail("a damaged block was replayed")
    assert found in allowed


def test_a_commit_with_a_wrong_checksum_is_told() -> None:
    writer = Writer(HAS_REVOKES | CHECKSUM_V3, 0, 1, 7)
    writer.transaction(Change({1: b"a" * SIZE}))
    writer.transaction(Change({2: b"b" * SIZE}))
    below = [bytes(SIZE)] * VOLUME_BLOCKS
    image = bytearray(writer.image(below, 7))
    image[(LOG_AT + writer.commits[1]) * SIZE + 50] ^= 1
    found, count, said = replayed(bytes(image))
    assert count == 1
    assert (found[1], found[2]) == (b"a" * SIZE, bytes(SIZE))
    assert "transaction 8 has a wrong checksum" in said[0]


@pytest.mark.parametrize("kind", [journal.DESCRIPTOR, journal.REVOKE])
def test_a_committed_descriptor_or_revoke_with_a_wrong_checksum_ends_all_trust(kind: int) -> None:
    """Its commit is there and no older than the last one: as the kernel, which then refuses to mount."""
    writer = Writer(HAS_REVOKES | CHECKSUM_V3, 0, 1, 7)
    writer.transaction(Change({1: b"a" * SIZE}))
    writer.transaction(Change({2: b"b" * SIZE}, [5]))
    writer.transaction(Change({3: b"c" * SIZE}))
    image = bytearray(writer.image([bytes(SIZE)] * VOLUME_BLOCKS, 7))
    block = next(k for k in range(4, 10) if writer.blocks[k][4:12] == struct.pack(">II", kind, 8))
    image[(LOG_AT + block) * SIZE + 500] ^= 1
    with pytest.raises(Corrupt, match="committed transaction"):
        replayed(bytes(image))


def test_a_commit_block_torn_behind_its_header_is_a_commit() -> None:
    """Its first sector is written, the rest is what stood there before: as the kernel has it."""
    writer = Writer(HAS_REVOKES | CHECKSUM_V3, 0, 1, 7)
    writer.transaction(Change({1: b"a" * SIZE}))
    image = bytearray(writer.image([bytes(SIZE)] * VOLUME_BLOCKS, 7))
    at = (LOG_AT + writer.commits[0]) * SIZE
    image[at + 512 : at + SIZE] = b"\x77" * 512
    found, count, said = replayed(bytes(image))
    assert (count, said) == (1, [])
    assert found[1] == b"a" * SIZE


def test_a_committed_block_with_a_wrong_checksum_ends_all_trust() -> None:
    writer = Writer(HAS_REVOKES | CHECKSUM_V3, 0, 1, 7)
    writer.transaction(Change({1: b"a" * SIZE}))
    image = bytearray(writer.image([bytes(SIZE)] * VOLUME_BLOCKS, 7))
    image[(LOG_AT + 2) * SIZE + 60] ^= 1
    with pytest.raises(Corrupt, match="for block 1"):
        replayed(bytes(image))


def test_the_oldest_checksum_is_computed_as_its_definition_says() -> None:
    chance = random.Random(3)
    for size in (0, 1, 4, 1024):
        data, register = chance.randbytes(size), chance.randrange(1 << 32)
        assert journal._big_endian_crc(register, data) == slow_crc(register, data)
    assert zlib.crc32(b"") == 0


def test_fast_commits_are_told_and_left_out() -> None:
    writer = Writer(HAS_REVOKES | CHECKSUM_V3 | FAST_COMMITS, 0, 1, 7)
    writer.transaction(Change({1: b"a" * SIZE}))
    head = bytearray(writer.image([bytes(SIZE)] * VOLUME_BLOCKS, 7))
    base = LOG_AT * SIZE
    struct.pack_into(">I", head, base + 0x54, 10)
    head[base + 0xFC : base + 0x100] = bytes(4)
    struct.pack_into(">I", head, base + 0xFC, crc32c(ONES, bytes(head[base : base + SIZE])))
    first_fast = (LOG_AT + LOG_BLOCKS - 10 + 1) * SIZE
    head[first_fast : first_fast + 12] = struct.pack("<HHII", 9, 16, 0, 8)
    found, count, said = replayed(bytes(head))
    assert count == 1
    assert found[1] == b"a" * SIZE
    assert "fast commits" in said[0]


@pytest.mark.parametrize(
    ("at", "raw", "error"),
    [
        (0, b"none", Corrupt),
        (0x0C, struct.pack(">I", 4096), Corrupt),
        (0x10, struct.pack(">I", 1 << 30), Corrupt),
        (0x14, struct.pack(">I", 0), Corrupt),
        (0x1C, struct.pack(">I", 5000), Corrupt),
        (0x28, struct.pack(">I", 0x400), Unsupported),
    ],
)
def test_a_superblock_that_contradicts_itself_is_refused(at: int, raw: bytes, error: type[RecoveryError]) -> None:
    writer = Writer(HAS_REVOKES, 0, 1, 7)
    writer.transaction(Change({1: b"a" * SIZE}))
    image = bytearray(writer.image([bytes(SIZE)] * VOLUME_BLOCKS, 7))
    image[LOG_AT * SIZE + at : LOG_AT * SIZE + at + len(raw)] = raw
    with pytest.raises(error):
        replayed(bytes(image))


def test_a_block_outside_of_the_volume_ends_all_trust() -> None:
    writer = Writer(HAS_REVOKES | BITS64 | CHECKSUM_V3, 0, 1, 7)
    writer.transaction(Change({1 << 40: b"a" * SIZE}))
    with pytest.raises(RecoveryError):
        replayed(writer.image([bytes(SIZE)] * VOLUME_BLOCKS, 7))


def test_a_revoke_block_that_claims_more_than_it_holds_ends_all_trust() -> None:
    writer = Writer(HAS_REVOKES, 0, 1, 7)
    writer.transaction(Change({1: b"a" * SIZE}, [5]))
    image = bytearray(writer.image([bytes(SIZE)] * VOLUME_BLOCKS, 7))
    struct.pack_into(">I", image, (LOG_AT + 1) * SIZE + 12, 70_000)
    with pytest.raises(Corrupt, match="revokes more"):
        replayed(bytes(image))
