# SPDX-License-Identifier: Apache-2.0
"""Single lies in a sound file system: what is shown, what is said, and that the rest stays as it is."""

from __future__ import annotations

import stat
import struct
from collections.abc import Callable, Iterator

import msgspec
import pytest

from flr.blocks import Hole, MemoryDisk
from flr.errors import Corrupt, NodeNotFound, NotRecognised, OutOfBounds, RecoveryError, Unsupported, WrongKind
from flr.fs.base import Attributes, Entry, FileSystem, Flag, Node
from flr.fs.xfs import attributes as xattr
from flr.fs.xfs import inode, links, open_xfs, superblock
from flr.fs.xfs.blocks import Blocks
from flr.fs.xfs.checksum import crc32c
from flr.fs.xfs.extents import mappings
from tests.flr.corpus import mounted, truth
from tests.flr.corpus.image import Changed, opened
from tests.flr.fs.xfs import images


@pytest.fixture(autouse=True)
def _tools() -> None:
    mounted.need("mkfs.xfs")


def entries(fs: FileSystem, node: Node) -> dict[bytes, Entry]:
    found: dict[bytes, Entry] = {}
    cursor: int | None = 0
    while cursor is not None:
        listing = fs.entries(node, cursor)
        found |= {entry.name: entry for entry in listing.entries}
        cursor = listing.cursor
    return found


ROOT_POINTER = 176 + 4 + 8 * ((192 - 4) // 16)
"""In an inode of the small image whose content is a tree: its fork has 192 bytes, keys are in front of the pointers."""


class Crafted:
    """The small image, and places in it where a lie can be put."""

    def __init__(self, disk: MemoryDisk) -> None:
        self.disk = disk
        self.sound = open_xfs(disk)
        self.volume = Changed(disk)
        self.sb, _ = superblock.find(disk)
        self.blocks = Blocks(disk, self.sb, lambda text: None)

    def at(self, *path: bytes) -> Attributes:
        found = self.sound.attributes(self.sound.root())
        for name in path:
            of = entries(self.sound, found.node)[name].attributes
            assert of is not None
            found = of
        return found

    def inode(self, *path: bytes) -> int:
        """Its place on the volume."""
        offset = self.sb.inode_offset(self.at(*path).number)
        assert offset is not None
        return offset

    def fork(self, path: tuple[bytes, ...], logical: int = 0, extra: bool = False) -> int:
        """Where a block of a file, folder or its attributes stands."""
        number = self.at(*path).number
        found = inode.inode(self.sb, number, self.disk.pread(self.inode(*path), self.sb.inode_size))
        fork = found.extra if extra else found.data
        assert fork is not None
        mapping = next(mappings(self.blocks, number, fork, logical))
        return self.sb.offset(mapping.block + logical - mapping.start)

    def put(self, place: int, form: str, *values: object) -> FileSystem:
        self.volume.put(place, struct.pack(form, *values))
        return open_xfs(self.volume)

    def superblock(self, *changes: tuple[int, bytes]) -> FileSystem:
        """With a right checksum."""
        data = bytearray(self.disk.pread(0, 512))
        for place, value in changes:
            data[place : place + len(value)] = value
        data[224:228] = bytes(4)
        data[224:228] = crc32c(bytes(data)).to_bytes(4, "little")
        self.volume.put(0, bytes(data))
        return open_xfs(self.volume)


@pytest.fixture
def crafted() -> Iterator[Crafted]:
    with opened(images.small().image) as disk:
        yield Crafted(disk)


# -- the superblock


def test_a_copy_stands_in_for_a_damaged_superblock(crafted: Crafted) -> None:
    expected = truth.told(crafted.sound, content=False)
    for damage in (bytes(512), b"XFSB" + bytes(508), crafted.disk.pread(0, 300) + b"x" * 212):
        crafted.volume.put(0, damage)
        fs = open_xfs(crafted.volume)
        assert fs.warnings == ["the superblock is damaged; its copy in the second allocation group is used"]
        assert truth.differences(expected, truth.told(fs, content=False)) == []


def test_a_superblock_of_a_wrong_checksum_is_used_when_there_is_no_better(crafted: Crafted) -> None:
    crafted.volume.put(crafted.sb.group_blocks * crafted.sb.block_size, bytes(512))
    crafted.volume.put(108, b"changed")
    fs = open_xfs(crafted.volume)
    assert fs.about.label == "changed"
    assert "the superblock's checksum is wrong, and no sound copy of it was found" in fs.warnings


@pytest.mark.parametrize("data", [b"", bytes(511), bytes(4096), bytes(1 << 20)])
def test_something_else_is_not_recognised(data: bytes) -> None:
    with pytest.raises(NotRecognised):
        open_xfs(MemoryDisk(data))


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (4, struct.pack(">I", 1000), "size of a block"),
        (104, struct.pack(">H", 4096), "size of an inode"),
        (102, struct.pack(">H", 7), "size of a sector"),
        (106, struct.pack(">H", 7), "inodes in a block"),
        (84, struct.pack(">I", 0), "blocks in a group"),
        (88, struct.pack(">I", 0), "blocks in 0 groups"),
        (8, struct.pack(">Q", 1 << 60), "blocks in 4 groups"),
        (192, b"\xff", "directory blocks"),
        (216, struct.pack(">I", 0x8000021B), "zoned realtime groups, bit 31"),
        (100, struct.pack(">H", 0xB4B6), "version 6"),
    ],
)
def test_a_superblock_that_contradicts_itself_or_is_not_known(
    crafted: Crafted, place: int, value: bytes, words: str
) -> None:
    crafted.volume.put(crafted.sb.group_blocks * crafted.sb.block_size, bytes(512))
    with pytest.raises((Corrupt, Unsupported), match=words):
        crafted.superblock((place, value))


def test_what_a_superblock_says_is_passed_on(crafted: Crafted) -> None:
    features = int.from_bytes(crafted.disk.pread(216, 4), "big")
    fs = crafted.superblock(
        (216, struct.pack(">I", features | superblock.NEEDS_REPAIR)),
        (126, b"\1"),
        (16, struct.pack(">Q", 1000)),
        (48, bytes(8)),
    )
    assert fs.about.journal == "not replayed: the log is on another device"
    assert [word in " ".join(fs.warnings) for word in ("in need of repair", "mkfs", "realtime", "another device")]
    assert len(fs.warnings) == 4
    assert len(fs.entries(fs.root()).entries) > 5
    fs = crafted.superblock((220, struct.pack(">I", 6)))
    assert fs.about.journal == "not replayed: the log has features that are not known (0x6)"
    fs = crafted.superblock((48, struct.pack(">Q", 1 << 60)))
    assert fs.about.journal.startswith("not replayed: the log's place contradicts itself")


def test_a_volume_that_is_cut_is_said_and_read_as_far_as_it_goes(crafted: Crafted) -> None:
    fs = open_xfs(MemoryDisk(crafted.disk.pread(0, 40 << 20)))
    assert "the file system has 335544320 bytes, its volume only 41943040" in fs.warnings
    told = truth.told(fs)
    problems = [fact.problem for fact in told.values() if fact.problem]
    assert any("outside of its volume" in problem for problem in problems)


# -- inodes


def test_a_wrong_checksum_is_said_and_the_rest_is_shown(crafted: Crafted) -> None:
    big, many = (b"attributes0",), (b"churn0",)
    link = (b"special", b"link-1023")
    remote = next(
        logical for logical in range(1, 2000)
        if crafted.disk.pread(crafted.fork(big, logical, True), 4) == b"XARM"
    )  # fmt: skip
    pointer = crafted.inode(b"beside") + ROOT_POINTER
    tree = int.from_bytes(crafted.disk.pread(pointer, 8), "big")
    places: dict[int, Callable[[FileSystem], object]] = {
        crafted.inode(b"big.bin") + 84: lambda fs: fs.attributes(crafted.at(b"big.bin").node),
        crafted.inode(b"tree") + 84: lambda fs: entries(fs, fs.root()),
        crafted.fork(many) + 60: lambda fs: entries(fs, crafted.at(*many).node),
        crafted.sb.offset(tree) + 16: lambda fs: fs.runs(crafted.at(b"beside").node, 0, 1 << 20),
        crafted.fork(big, 0, True) + 60: lambda fs: fs.xattrs(crafted.at(*big).node),
        crafted.fork(big, remote, True) + 16: lambda fs: fs.xattrs(crafted.at(*big).node),
        crafted.fork(link) + 16: lambda fs: fs.link(crafted.at(*link).node),
    }
    for place, question in places.items():
        volume = Changed(crafted.disk)
        volume.put(place, bytes([crafted.disk.pread(place, 1)[0] ^ 1]))
        fs = open_xfs(volume)
        assert question(fs) == question(crafted.sound)
        assert len(fs.warnings) == 1
        assert "checksum" in fs.warnings[0]


def shown(fs: FileSystem, crafted: Crafted, name: bytes) -> Entry:
    return entries(fs, fs.root())[name]


def test_an_inode_that_is_none_is_an_entry_with_a_problem(crafted: Crafted) -> None:
    place = crafted.inode(b"big.bin")
    of = crafted.at(b"big.bin")
    for offset, form, value, words in [
        (0, ">H", 0, "no inode stands where one should"),
        (4, ">B", 7, "no inode stands where one should"),
        (152, ">Q", of.number + 1, "no inode stands where one should"),
        (2, ">H", 0, "does not exist"),
        (2, ">H", 0o070644, "contradicts itself"),
        (56, ">q", -1, "contradicts itself"),
    ]:
        crafted.volume = Changed(crafted.disk)
        fs = crafted.put(place + offset, form, value)
        entry = shown(fs, crafted, b"big.bin")
        assert entry.attributes is None
        assert entry.kind == stat.S_IFREG
        assert words in entry.problem
        with pytest.raises(RecoveryError, match=words):
            fs.attributes(of.node)
        assert len(entries(fs, fs.root())) == len(entries(crafted.sound, fs.root()))


def test_a_number_that_is_used_again_or_is_none(crafted: Crafted) -> None:
    fs, of = crafted.sound, crafted.at(b"big.bin")
    for node in (Node(of.number, of.generation + 1), Node(1 << 63, 0), Node(-1, 0), Node(1 << 70, 0), Node(0, 0)):
        with pytest.raises(NodeNotFound):
            fs.attributes(node)


def test_a_size_beyond_the_volume_is_suspicious(crafted: Crafted) -> None:
    fs = crafted.put(crafted.inode(b"big.bin") + 56, ">q", 1 << 62)
    of = shown(fs, crafted, b"big.bin").attributes
    assert of is not None
    assert of.flags == Flag.SUSPICIOUS
    assert fs.runs(of.node, 1 << 61, 1 << 50) == [Hole(1 << 50)]
    assert fs.read(of.node, 0, 1000) == crafted.sound.read(of.node, 0, 1000)
    assert fs.runs(of.node, 1 << 62, 1) == []


def test_flags_are_shown_and_a_realtime_file_is_refused(crafted: Crafted) -> None:
    fs = crafted.put(crafted.inode(b"big.bin") + 90, ">H", 0x19)
    of = shown(fs, crafted, b"big.bin").attributes
    assert of is not None
    assert of.flags == Flag.IMMUTABLE | Flag.APPEND_ONLY
    with pytest.raises(Unsupported, match="realtime"):
        fs.runs(of.node, 0, 1)


def test_older_inodes_have_their_links_elsewhere_and_no_birth() -> None:
    with opened(images.small().image) as disk:
        sb, _ = superblock.find(disk)
        data = bytearray(disk.pread(sb.inode_offset(sb.root) or 0, 512))
    data[4] = 1
    data[6:8] = struct.pack(">H", 321)
    data[32:40] = struct.pack(">iI", -5, 7)
    of = inode.attributes(sb, sb.root, bytes(data))
    assert (of.links, of.created, of.accessed) == (321, None, -5 * 10**9 + 7)


def test_questions_of_the_wrong_kind(crafted: Crafted) -> None:
    fs, file, folder = crafted.sound, crafted.at(b"big.bin").node, crafted.at(b"tree").node
    for question in (
        lambda: fs.entries(file),
        lambda: fs.runs(folder, 0, 1),
        lambda: fs.link(file),
    ):
        with pytest.raises(WrongKind):
            question()
    with pytest.raises(NodeNotFound):
        fs.runs(file, 0, 1, b"stream")
    with pytest.raises(Corrupt):
        fs.runs(file, -1, 1)
    assert fs.entries(folder, -1) == fs.entries(folder)
    assert fs.entries(folder, 1 << 60).entries == []


# -- extents


def extent(start: int, block: int, count: int, unwritten: int = 0) -> bytes:
    high = unwritten << 63 | start << 9 | block >> 43
    return struct.pack(">QQ", high, (block & (1 << 43) - 1) << 21 | count)


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        (lambda c: (76, struct.pack(">I", 0xFFFFFFFF)), "4294967295 extents within it"),
        (lambda c: (5, b"\1"), "kept in form 1"),
        (lambda c: (5, b"\3"), "levels"),
        (lambda c: (176, extent(0, 1 << 50, 1)), "outside of its file system"),
        (lambda c: (176, extent(0, c.sb.group_blocks - 1, 2)), "outside of its file system"),
        (lambda c: (176, extent(0, 8, 0)), "out of order"),
        (lambda c: (83 - 1, b"\xff"), "its second fork begins"),
    ],
)
def test_content_that_is_nowhere_is_an_error_of_its_file(
    crafted: Crafted, lie: Callable[[Crafted], tuple[int, bytes]], words: str
) -> None:
    offset, data = lie(crafted)
    crafted.volume.put(crafted.inode(b"big.bin") + offset, data)
    fs = open_xfs(crafted.volume)
    entry = shown(fs, crafted, b"big.bin")
    assert entry.attributes is not None
    with pytest.raises(Corrupt, match=words):
        fs.read(entry.attributes.node, 0, 1)
    assert fs.read(crafted.at(b"special", b"size_1024").node, 0, 10)


def test_what_precedes_a_lie_is_read(crafted: Crafted) -> None:
    of, place = crafted.at(b"special", b"size_1024"), crafted.inode(b"special", b"size_1024")
    first = crafted.disk.pread(place + 176, 16)
    crafted.volume.put(place + 192, extent(2, 5, 0x1FFFFF))
    crafted.volume.put(place + 56, struct.pack(">q", 5000))
    crafted.volume.put(place + 176, first)
    fs = crafted.put(place + 76, ">I", 2)
    assert fs.read(of.node, 0, 5000) == crafted.sound.read(of.node, 0, 1024) + bytes(1024)
    with pytest.raises(Corrupt):
        fs.read(of.node, 2048, 1)


def test_unwritten_extents_are_holes(crafted: Crafted) -> None:
    of, place = crafted.at(b"special", b"size_1024"), crafted.inode(b"special", b"size_1024")
    fs = crafted.put(place + 176, ">B", 0x80)
    assert fs.runs(of.node, 0, 5000) == [Hole(1024)]


def test_a_tree_that_leads_into_itself_ends(crafted: Crafted) -> None:
    place = crafted.inode(b"beside")
    pointer = place + ROOT_POINTER
    leaf = crafted.sb.offset(int.from_bytes(crafted.disk.pread(pointer, 8), "big"))
    number = int.from_bytes(crafted.disk.pread(pointer, 8), "big")
    node = crafted.at(b"beside").node
    for changes, words in (
        ([(place + 176, b"\0\2")], "tree of extents contradicts itself"),
        ([(place + 176, b"\0\2"), (leaf + 4, b"\0\1\0\1" + b"\xff" * 16), (leaf + 72, bytes(8)),
          (leaf + 72 + 8 * 59, struct.pack(">Q", number))], "tree of extents contradicts itself"),
        ([(place + 178, b"\xff\xff")], "65535 children"),
        ([(leaf + 6, b"\0\0")], "0 records"),
        ([(leaf + 56, bytes(8))], "another file's"),
        ([(place + 178, b"\0\2"), (place + 180, bytes(16))], "out of order"),
    ):  # fmt: skip
        crafted.volume = Changed(crafted.disk)
        for at, data in changes:
            crafted.volume.put(at, data)
        fs = open_xfs(crafted.volume)
        with pytest.raises(Corrupt, match=words):
            fs.read(node, 0, 1)


# -- folders


def test_a_folder_that_contains_one_above_it_is_listed_and_a_walk_ends(crafted: Crafted) -> None:
    block = crafted.fork((b"special",))
    data = crafted.disk.pread(block, 4096)
    place = data.index(b"\x04fifo") - 8
    fs = crafted.put(block + place, ">Q", crafted.sound.root().number)
    listed = entries(fs, crafted.at(b"special").node)
    assert listed[b"fifo"].number == fs.root().number
    assert len(truth.told(fs, content=False)) == len(truth.told(crafted.sound, content=False))


@pytest.mark.parametrize("bad", [b"/ifo", b"fi\0o", b"a%/b"])
def test_a_name_that_is_no_path_component_is_shown_escaped(crafted: Crafted, bad: bytes) -> None:
    block = crafted.fork((b"special",))
    place = crafted.disk.pread(block, 4096).index(b"\x04fifo") + 1
    crafted.volume.put(block + place, bad)
    fs = open_xfs(crafted.volume)
    name = bad.replace(b"/", b"%2F").replace(b"\0", b"%00")
    entry = entries(fs, crafted.at(b"special").node)[name]
    assert any("a name that none can have" in text for text in fs.warnings)
    assert entry.attributes == crafted.at(b"special", b"fifo")
    crafted.volume.put(block + place - 9, bytes(8))
    entry = entries(open_xfs(crafted.volume), crafted.at(b"special").node)[name]
    assert entry.attributes is None
    assert entry.problem == "there is no inode 0"


def test_dots_are_never_listed_wherever_they_stand(crafted: Crafted) -> None:
    block = crafted.fork((b"special",))
    place = crafted.disk.pread(block, 4096).index(b"\x04fifo")
    crafted.volume.put(block + place, b"\2..\5" + bytes(1))
    assert b".." not in entries(open_xfs(crafted.volume), crafted.at(b"special").node)


def test_damage_in_a_folder_costs_only_its_place(crafted: Crafted) -> None:
    folder = (b"churn0",)
    block, node = crafted.fork(folder, 4), crafted.at(*folder).node
    whole = entries(crafted.sound, node)
    for at, data, words in (
        (0, b"XXXX", "is no block of a folder"),
        (40, bytes(8), "is another folder's"),
        (64, b"\xff\xff\0\0", "has a gap of 0 bytes"),
        (64, b"\xff\xff\0\x07", "has a gap of 7 bytes"),
        (64, bytes(9), "has a name without bytes"),
        (64, b"\xff\xff\x0f\xf8", "ends at byte"),
        (64, b"\xff\xff\x0e\xb8" + bytes(3764) + bytes(8) + b"\xff", "of 255 bytes at its end"),
    ):
        crafted.volume = Changed(crafted.disk)
        crafted.volume.put(block + at, data)
        fs = open_xfs(crafted.volume)
        left = entries(fs, node)
        assert 0 < len(whole) - len(left) < 200
        assert left.keys() < whole.keys()
        assert any(words in warning for warning in fs.warnings), fs.warnings
    fs = crafted.put(crafted.inode(b"folder-of-200") + 176, ">B", 0x80)
    assert (
        entries(fs, crafted.at(b"folder-of-200").node).keys()
        < entries(crafted.sound, crafted.at(b"folder-of-200").node).keys()
    )
    assert any("was never written" in warning for warning in fs.warnings)


def test_a_folder_that_cannot_be_read_on_is_listed_so_far(crafted: Crafted) -> None:
    place, node = crafted.inode(b"folder-of-200"), crafted.at(b"folder-of-200").node
    first = crafted.disk.pread(place + 176, 16)
    crafted.volume.put(place + 176, first + extent(4, 1 << 50, 4) + extent(8, 1 << 50, 4))
    fs = crafted.put(place + 76, ">I", 3)
    assert entries(fs, node)
    assert any("cannot be read further" in warning for warning in fs.warnings)
    crafted.volume.put(place + 176, first[:7] + bytes([first[7]]) + first[8:15] + b"\x02")
    fs = crafted.put(place + 76, ">I", 1)
    assert entries(fs, node) == {}
    assert any("parts of its block 0 are missing" in warning for warning in fs.warnings)


def test_a_short_folder_ends_where_its_inode_does(crafted: Crafted) -> None:
    of, place = crafted.at(b"tree"), crafted.inode(b"tree")
    fs = crafted.put(place + 176, ">BB", 200, 0)
    assert len(entries(fs, of.node)) >= len(entries(crafted.sound, of.node))
    assert any("its entry at byte" in warning for warning in fs.warnings)
    wide = b"\2\2" + struct.pack(">Q", 64) + b"\1\0\0a\1" + struct.pack(">Q", of.number) + b"\1\0\0b\1" + bytes(8)
    crafted.volume.put(place + 176, wide)
    found = entries(open_xfs(crafted.volume), of.node)
    assert found[b"a"].attributes == of
    assert found[b"b"].problem == "there is no inode 0"


def test_a_part_of_a_folder_is_asked_for_from_anywhere(crafted: Crafted) -> None:
    for name in (b"churn0", b"folder-of-5", b"many"):
        node = crafted.at(name).node
        whole = list(entries(crafted.sound, node))
        for count in (1, 2, 7):
            parts: list[bytes] = []
            cursor: int | None = 0
            while cursor is not None:
                listing = crafted.sound.entries(node, cursor, count)
                assert len(listing.entries) <= count
                parts += [entry.name for entry in listing.entries]
                cursor = listing.cursor
            assert parts == whole


# -- attributes and links


def test_attributes_that_lie_are_an_error_of_their_file(crafted: Crafted) -> None:
    of = crafted.at(b"attributes0")
    root = crafted.fork((b"attributes0",), 0, True)
    child = int.from_bytes(crafted.disk.pread(root + 68, 4), "big")
    leaf = crafted.fork((b"attributes0",), child, True)
    while crafted.disk.pread(leaf + 8, 2) == b"\x3e\xbe":
        child = int.from_bytes(crafted.disk.pread(leaf + 68, 4), "big")
        leaf = crafted.fork((b"attributes0",), child, True)
    for at, data, words in (
        (root + 68, struct.pack(">I", 0), "blocks without an end"),
        (root + 68, struct.pack(">I", 1 << 31), "no block"),
        (leaf, struct.pack(">I", child), "blocks without an end"),
        (leaf + 8, b"\0\0", f"block {child} of them"),
        (leaf + 48, bytes(8), "another file's"),
        (leaf + 56, b"\xff\xff", "65535 entries"),
        (leaf + 84, b"\xff\xff", "an entry at byte 65535"),
    ):
        crafted.volume = Changed(crafted.disk)
        crafted.volume.put(at, data)
        with pytest.raises(Corrupt, match=words):
            open_xfs(crafted.volume).xattrs(of.node)
    crafted.volume = Changed(crafted.disk)
    flags = crafted.disk.pread(leaf + 86, 1)[0]
    fs = crafted.put(leaf + 86, ">B", flags | 0x80)
    assert len(fs.xattrs(of.node)) == len(crafted.sound.xattrs(of.node)) - 1
    fs = crafted.put(leaf + 86, ">B", 0)
    with pytest.raises(Corrupt):
        fs.xattrs(of.node)


def test_a_value_elsewhere_that_is_another_ones(crafted: Crafted) -> None:
    of = crafted.at(b"attributes0")
    remote = next(
        logical for logical in range(1, 2000)
        if crafted.disk.pread(crafted.fork((b"attributes0",), logical, True), 4) == b"XARM"
    )  # fmt: skip
    fs = crafted.put(crafted.fork((b"attributes0",), remote, True) + 32, ">Q", 1)
    with pytest.raises(Corrupt, match="a value's block"):
        fs.xattrs(of.node)


def test_attributes_within_an_inode_that_lie(crafted: Crafted) -> None:
    of, place = crafted.at(b"special", b"xattr-3000"), crafted.inode(b"special", b"xattr-3000")
    fork = place + 176 + crafted.disk.pread(place + 82, 1)[0] * 8
    crafted.volume.put(place + 83, b"\1")
    crafted.volume.put(fork, b"\0\0\1\0\xff\xff\0")
    with pytest.raises(Corrupt, match="an entry ends at byte"):
        open_xfs(crafted.volume).xattrs(of.node)
    acl = struct.pack(">I", 5) + bytes(12)
    crafted.volume.put(fork, b"\0\0\1\0" + bytes([12, len(acl), 2]) + b"SGI_ACL_FILE" + acl)
    fs = open_xfs(crafted.volume)
    assert fs.xattrs(of.node) == {b"trusted.SGI_ACL_FILE": acl}
    assert fs.warnings[-1].endswith("is not in its form and is shown raw only")


def test_more_attributes_than_are_shown(crafted: Crafted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xattr, "MOST_XATTRS", 1000)
    with pytest.raises(RecoveryError, match="more extended attributes than are shown"):
        crafted.sound.xattrs(crafted.at(b"attributes0").node)


def test_a_link_that_lies(crafted: Crafted) -> None:
    of, place = crafted.at(b"special", b"link-1023"), crafted.inode(b"special", b"link-1023")
    block = crafted.fork((b"special", b"link-1023"))
    for at, form, value, words in (
        (place + 56, ">q", links.LONGEST + 1, "1025 bytes"),
        (place + 56, ">q", 0, "0 bytes"),
        (place + 56, ">q", 1024, "1023 of 1024 bytes"),
        (block, ">I", 0, "from byte 0 on"),
        (block + 8, ">I", 1 << 30, "from byte 0 on"),
        (place + 176, ">B", 0x80, "0 of 1023 bytes"),
    ):
        crafted.volume = Changed(crafted.disk)
        with pytest.raises(Corrupt, match=words):
            crafted.put(at, form, value).link(of.node)


def test_nothing_is_read_outside_of_the_volume(crafted: Crafted) -> None:
    fs = open_xfs(MemoryDisk(crafted.disk.pread(0, 40 << 20)))
    of = crafted.at(b"big.bin")
    with pytest.raises(OutOfBounds):
        [
            fs.attributes(of.node),
            *[fs.read(of.node, at, 1024) for at in range(0, of.size, 1024)],
            fs.volume.pread(1 << 40, 1),
        ]


def test_a_claim_of_2_to_the_64_blocks_is_suspicious_and_can_be_told(crafted: Crafted) -> None:
    fs = crafted.put(crafted.inode(b"special", b"fallocated") + 64, ">Q", (1 << 64) - 1)
    found = fs.attributes(crafted.at(b"special", b"fallocated").node)
    assert found.flags & Flag.SUSPICIOUS
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(found), type=Attributes) == found
