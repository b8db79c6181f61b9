# SPDX-License-Identifier: Apache-2.0
"""What no kernel writes and somebody might: circles, bombs, names that lead elsewhere. Each is told and nothing hangs."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flr.blocks import Hole, MemoryDisk
from flr.errors import Corrupt, RecoveryError, TooMuch
from flr.fs.base import Flag, Node
from flr.fs.ext import directory
from flr.fs.ext.mapping import MOST_BLOCKS_READ
from flr.fs.ext.open import open_ext
from flr.fs.ext.reader import BLOCKS_A_CALL, Ext
from flr.fs.ext.superblock import AT
from tests.flr.corpus import truth
from tests.flr.fs.ext.images import image


class Bench:
    """A copy of an image without checksums, to be changed."""

    def __init__(self, way: str = "ext4-no-checksums") -> None:
        self.data = bytearray(image(way).image.read_bytes())
        self.fs = self.open()
        self.block_size = self.fs.super.block_size

    def open(self) -> Ext:
        return open_ext(MemoryDisk(bytes(self.data)))

    def node(self, path: bytes) -> Node:
        node = self.fs.root()
        for name in path.split(b"/"):
            found = next(e.attributes for e in self.fs.entries(node).entries if e.name == name)
            assert found is not None
            node = found.node
        return node

    def put(self, at: int, raw: bytes) -> None:
        self.data[at : at + len(raw)] = raw

    def inode(self, path: bytes) -> int:
        """Where it stands."""
        return self.fs._place(self.node(path).number)

    def block(self, path: bytes) -> int:
        """Where a folder's first block stands."""
        spans = self.fs._mapping.spans(self.fs.inode(self.node(path).number), 0, 1)
        return next(iter(spans)).physical * self.block_size  # type: ignore[union-attr]

    def entry(self, folder: bytes, name: bytes) -> int:
        """Where a name's entry stands in a folder's first block."""
        block = self.block(folder)
        return self.data.index(name, block, block + self.block_size) - 8


def test_a_folder_within_itself_is_entered_once() -> None:
    bench = Bench()
    bench.put(bench.entry(b"tree/a0", b"b0"), struct.pack("<I", bench.node(b"tree").number))
    facts = truth.told(bench.open())
    assert b"/tree/a0/b0" in facts
    assert b"/tree/a0/b0/a0" not in facts


def test_an_entry_of_no_length_ends_its_block_and_says_so() -> None:
    for length in (0, 4, 7, 9, 60000):
        bench = Bench()
        bench.put(bench.entry(b"tree", b"a2") + 4, struct.pack("<H", length))
        fs = bench.open()
        assert [e.name for e in fs.entries(bench.node(b"tree")).entries] == [b"a0", b"a1"]
        assert any("impossible length" in text for text in fs.warnings)


def test_an_extent_tree_that_points_at_itself_is_damage() -> None:
    bench = Bench()
    place = bench.inode(b"big.bin") + 40
    block = bench.block(b"tree") // bench.block_size
    tree = struct.pack("<HHHHI", 0xF30A, 1, 340, 1, 0) + struct.pack("<IIHH", 0, block, 0, 0)
    bench.put(place, struct.pack("<HHHHI", 0xF30A, 1, 4, 2, 0) + struct.pack("<IIHH", 0, block, 0, 0))
    bench.put(block * bench.block_size, tree)
    with pytest.raises(Corrupt, match="extent tree"):
        bench.open().runs(bench.node(b"big.bin"), 0, 1 << 20)


def test_indirect_blocks_that_point_at_themselves_end() -> None:
    """Every entry of the block is the block itself: 2^24 blocks of file are one block of disk, told piece by piece."""
    bench = Bench("ext3-1k")
    node = bench.node(b"big.bin")
    block = bench.block(b"tree") // bench.block_size
    place = bench.inode(b"big.bin")
    bench.put(block * bench.block_size, struct.pack("<I", block) * (bench.block_size // 4))
    bench.put(place + 40, struct.pack("<I", block) * 15)
    bench.put(place + 4, struct.pack("<I", (1 << 32) - 1))
    fs = bench.open()
    at = 0
    for _ in range(50):
        runs = fs.runs(node, at, 1 << 32)
        assert runs
        at += sum(run.length for run in runs)
    assert at > 50 * 1024


def test_a_tree_of_empty_leaves_ends() -> None:
    """An index of many entries, all for the same empty leaf: nothing is found, and the question ends."""
    bench = Bench()
    node, size = bench.node(b"big.bin"), bench.block_size
    index, leaf = bench.block(b"tree") // size, bench.block(b"tree/a0") // size
    per = (size - 12) // 12
    entries = b"".join(struct.pack("<IIHH", k * 1000, leaf, 0, 0) for k in range(per))
    bench.put(index * size, struct.pack("<HHHHI", 0xF30A, per, per, 1, 0) + entries)
    bench.put(leaf * size, struct.pack("<HHHHI", 0xF30A, 0, per, 0, 0))
    bench.put(
        bench.inode(b"big.bin") + 40, struct.pack("<HHHHI", 0xF30A, 1, 4, 2, 0) + struct.pack("<IIHH", 0, index, 0, 0)
    )
    fs = bench.open()
    assert all(isinstance(run, Hole) for run in fs.runs(node, 0, 8 << 20))
    assert per < MOST_BLOCKS_READ


@pytest.mark.parametrize("size", [1 << 40, (1 << 63) - 1, (1 << 64) - 1])
def test_a_size_that_no_disk_has_is_suspicious_and_a_hole(size: int) -> None:
    bench = Bench()
    place = bench.inode(b"big.bin")
    bench.put(place + 4, struct.pack("<I", size & 0xFFFFFFFF))
    bench.put(place + 108, struct.pack("<I", size >> 32))
    fs = bench.open()
    node = bench.node(b"big.bin")
    found = fs.attributes(node)
    assert found.size == size
    assert found.flags & Flag.SUSPICIOUS
    runs = fs.runs(node, 0, size)
    assert sum(run.length for run in runs) == size
    assert len(runs) < 10


def test_content_within_an_inode_ends_where_inodes_do() -> None:
    bench = Bench("ext4-inline-small")
    path = b"special/size_1"
    bench.put(bench.inode(path) + 4, struct.pack("<I", 1_000_000))
    fs = bench.open()
    node = bench.node(path)
    assert len(fs.read(node, 0, 1_000_000)) == 65536
    for at in (65536, 999_999):
        with pytest.raises(Corrupt, match="larger than an inode"):
            fs.runs(node, at, 1)


def test_a_link_longer_than_links_are_is_refused() -> None:
    bench = Bench()
    bench.put(bench.inode(b"special/link-3800") + 4, struct.pack("<I", 1 << 30))
    with pytest.raises(TooMuch):
        bench.open().link(bench.node(b"special/link-3800"))


def test_names_that_lead_elsewhere_are_shown_and_lead_nowhere() -> None:
    bench = Bench()
    for name, new in ((b"a1", b"//"), (b"a2", b"\0x"), (b"a3", b".."), (b"a4", b".\0")):
        bench.put(bench.entry(b"tree", name) + 8, new)
    bench.put(bench.entry(b"tree", b"a0") + 6, b"\0")
    fs = bench.open()
    names = [e.name for e in fs.entries(bench.node(b"tree")).entries]
    assert names == [b"%2F%2F", b"%00x", b".%00"]
    assert sum("a name that none can have" in text for text in fs.warnings) == 4


def test_blocks_outside_of_the_file_system_are_damage() -> None:
    bench = Bench()
    node = bench.node(b"big.bin")
    for block in (0, bench.fs.super.blocks, (1 << 48) - 1):
        bench.put(bench.inode(b"big.bin") + 52, struct.pack("<IHHI", 0, 8, block >> 32, block & 0xFFFFFFFF))
        with pytest.raises(Corrupt, match="outside"):
            bench.open().runs(node, 0, 10)


def test_attributes_that_claim_too_much_are_damage() -> None:
    bench = Bench()
    fs = bench.fs
    inode = fs.inode(bench.node(b"special/xattrs-many").number)
    block = inode.acl * bench.block_size
    for at, raw, what in (
        (block + 32 + 8, struct.pack("<I", 70_000), "impossible length"),
        (block + 32 + 2, struct.pack("<H", 65_000), "outside of its block"),
        (block, b"none", "a block of attributes is none"),
        (bench.inode(b"special/xattrs-many") + 104, struct.pack("<I", 0xFFFFFF), "outside of its file system"),
    ):
        made = Bench()
        made.put(at, raw)
        with pytest.raises(RecoveryError, match=what):
            made.open().xattrs(bench.node(b"special/xattrs-many"))
    made = Bench()
    made.put(block + 32 + 4, struct.pack("<I", 12))  # a value in an inode that is none
    with pytest.raises(RecoveryError):
        made.open().xattrs(bench.node(b"special/xattrs-many"))


def test_an_access_list_of_another_form_is_damage() -> None:
    bench = Bench()
    inode = bench.fs.inode(bench.node(b"special/xattrs").number)
    begins = inode.acl * bench.block_size if inode.acl else bench.inode(b"special/xattrs")
    where = bench.data.index(struct.pack("<IHH", 1, 1, 6), begins, begins + bench.block_size)
    bench.put(where, struct.pack("<I", 9))
    with pytest.raises(Corrupt, match="access control list"):
        bench.open().xattrs(bench.node(b"special/xattrs"))


def test_a_superblock_that_contradicts_itself_is_damage() -> None:
    for at, raw in ((32, bytes(4)), (40, bytes(4)), (88, b"\x03\0"), (20, b"\7\0\0\0"), (0, bytes(4))):
        bench = Bench()
        bench.data[128 << 20 :] = bytes(len(bench.data) - (128 << 20))  # without its backup
        bench.put(AT + at, raw)
        with pytest.raises(Corrupt, match="contradicts itself"):
            bench.open()


def test_a_folder_of_endless_empty_blocks_is_listed_part_by_part() -> None:
    """Its extents lead to few blocks again and again; a part of the listing ends after so many, and the folder with the volume."""
    bench = Bench()
    size, node = bench.block_size, bench.node(b"tree")
    empty = bench.block(b"tree/a0") // size
    bench.put(empty * size, struct.pack("<IHBB", 0, size, 0, 0) + bytes(size - 8))
    place = bench.inode(b"tree")
    count = 32768
    extents = b"".join(struct.pack("<IHHI", k * count, count, 0, 1) for k in range(4))
    bench.put(place + 40, struct.pack("<HHHHI", 0xF30A, 4, 4, 0, 0) + extents)
    bench.put(place + 4, struct.pack("<I", 0xFFFFF000))
    fs = bench.open()
    cursor: int | None = 0
    parts = 0
    while cursor is not None:
        listing = fs.entries(node, cursor)
        assert listing.cursor is None or listing.cursor - cursor <= 2 * BLOCKS_A_CALL * size
        cursor = listing.cursor
        parts += 1
    assert parts <= fs.super.blocks // BLOCKS_A_CALL + 2
    assert any("larger than its file system" in text for text in fs.warnings)


@given(st.randoms(use_true_random=False), st.sampled_from([1024, 4096]), st.integers(0, 3))
def test_both_ways_to_parse_a_folder_tell_the_same(chance: random.Random, block_size: int, damaged: int) -> None:
    """Entry by entry, and by arrays, which refuse what does not hold together."""
    data = bytearray()
    for _ in range(chance.randrange(1, 5)):
        left = block_size
        while left:
            name = (
                chance.randbytes(chance.choice([1, 2, 5, 30, 200]))
                if chance.random() < 0.9
                else chance.choice([b".", b".."])
            )
            length = 8 + (len(name) + 3 & ~3)
            if left - length < 12 or chance.random() < 0.02:
                length, name = left, name[: left - 8]
            inode = chance.choice([0, 7, 1 << 31])
            data += struct.pack("<IHBB", inode, length, len(name), chance.choice([1, 2, 0xDE])) + name.ljust(
                length - 8, b"\0"
            )
            left -= length
    for _ in range(damaged):
        data[chance.randrange(len(data))] = chance.randrange(256)
    slow, quick = directory.Names([], [], [], []), directory.Names([], [], [], [])
    problem = directory.parse(bytes(data), 0, len(data), block_size, True, slow)
    if directory.parse_sound(bytes(data), 0, block_size, quick):
        assert problem is None
        assert quick == slow
    else:
        assert problem is not None
        assert quick == directory.Names([], [], [], [])
