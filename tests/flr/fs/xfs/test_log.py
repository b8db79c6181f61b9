# SPDX-License-Identifier: Apache-2.0
"""Logs that kernels seldom leave: written by us, or damaged in one place and shown to the kernel as well."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flr.blocks import MemoryDisk, Volume
from flr.errors import RecoveryError
from flr.fs.base import Attributes, FileSystem
from flr.fs.xfs import open_xfs, superblock
from flr.fs.xfs.log import SECTOR, Log, Record
from tests.flr.corpus import mounted, truth, uml
from tests.flr.corpus.image import Changed, opened
from tests.flr.fs.xfs import images, logs


@pytest.fixture(autouse=True)
def _tools() -> None:
    mounted.need("mkfs.xfs")


@pytest.fixture
def disk() -> Iterator[MemoryDisk]:
    with opened(images.small().image) as found:
        yield found


def at(fs: FileSystem, *path: bytes) -> Attributes:
    found = fs.attributes(fs.root())
    for name in path:
        cursor: int | None = 0
        while cursor is not None:
            listing = fs.entries(found.node, cursor)
            inside = [e.attributes for e in listing.entries if e.name == name and e.attributes]
            cursor = None if inside else listing.cursor
        found = inside[0]
    return found


def place(volume: Volume, number: int) -> int:
    offset = superblock.find(volume)[0].inode_offset(number)
    assert offset is not None
    return offset


# -- written by us


def test_an_inode_of_the_log_is_shown(disk: MemoryDisk) -> None:
    of = at(open_xfs(disk), b"big.bin")
    offset = place(disk, of.number)
    for bits in (64, 32):
        writer = logs.Writer(disk)
        core = logs.core_of(disk.pread(offset, 512))
        struct.pack_into("<HII", core, 2, 0o100640, 0, 0)
        core[4:6] = b"\x03\x02"
        struct.pack_into("<I", core, 8, 4321)
        writer.transaction(logs.inode(of.number, offset, bytes(core), bits=bits))
        fs = open_xfs(writer.volume)
        assert fs.about.journal == "replayed: 1 transactions"
        assert fs.warnings == []
        shown = at(fs, b"big.bin")
        assert (shown.mode, shown.owner, shown.size, shown.modified) == (0o100640, 4321, of.size, of.modified)
        assert fs.read(shown.node, 0, 1 << 18) == open_xfs(disk).read(of.node, 0, 1 << 18)


def test_what_is_not_committed_is_not_shown(disk: MemoryDisk) -> None:
    of = at(open_xfs(disk), b"big.bin")
    offset = place(disk, of.number)
    core = logs.core_of(disk.pread(offset, 512))
    item = logs.inode(of.number, offset, bytes(core[:8]) + struct.pack("<I", 4321) + bytes(core[12:]))
    writer = logs.Writer(disk)
    writer.record([(7, logs.START, b""), (7, 0, logs.HEAD), *[(7, 0, region) for region in item]])
    fs = open_xfs(writer.volume)
    assert fs.about.journal == "replayed: 0 transactions"
    assert at(fs, b"big.bin").owner == of.owner


def test_a_region_goes_on_in_the_next_record(disk: MemoryDisk) -> None:
    of = at(open_xfs(disk), b"big.bin")
    offset = place(disk, of.number)
    core = logs.core_of(disk.pread(offset, 512))
    struct.pack_into("<I", core, 8, 4321)
    first, second = logs.inode(of.number, offset, bytes(core))
    writer = logs.Writer(disk)
    writer.record([(7, logs.START, b""), (7, logs.CONTINUE, logs.HEAD[:10])])
    writer.record([(7, logs.WAS_CONTINUED | logs.END, logs.HEAD[10:]), (7, logs.CONTINUE, first[:3])])
    writer.record(
        [(7, logs.WAS_CONTINUED | logs.CONTINUE, first[3:20]), (9, 0, b"of a transaction from before the tail")]
    )
    writer.record([(7, logs.WAS_CONTINUED | logs.END, first[20:]), (7, 0, second), (7, logs.COMMIT, b"")])
    fs = open_xfs(writer.volume)
    assert fs.about.journal == "replayed: 1 transactions"
    assert at(fs, b"big.bin").owner == 4321


def test_a_buffer_that_is_given_up_later_is_not_replayed(disk: MemoryDisk) -> None:
    block = at(open_xfs(disk), b"special", b"size_1024")
    [run] = open_xfs(disk).runs(block.node, 0, 1024)
    offset = run.offset  # type: ignore[union-attr]
    for cancelled in (False, True):
        writer = logs.Writer(disk)
        writer.transaction(logs.buffer(offset, 1024, b"Z" * 256, at=128))
        if cancelled:
            writer.transaction(logs.buffer(offset, 1024, flags=2))
        fs = open_xfs(writer.volume)
        assert (fs.read(block.node, 128, 256) == b"Z" * 256) == (not cancelled)
        assert len(fs.map(block.node, 0, 1024)) == (1 if cancelled else 2)  # what is replaced stands on no disk


def test_a_later_change_on_the_disk_stays(disk: MemoryDisk) -> None:
    fs = open_xfs(disk)
    of = at(fs, b"big.bin")
    offset = place(disk, of.number)
    core = logs.core_of(disk.pread(offset, 512))
    struct.pack_into("<I", core, 8, 4321)
    writer = logs.Writer(disk)
    writer.transaction(logs.inode(of.number, offset, bytes(core)))
    later = bytearray(disk.pread(offset, 512))
    later[112:120] = (writer.lsn(writer.first) + 1).to_bytes(8, "big")
    writer.volume.put(offset, bytes(later))
    assert at(open_xfs(writer.volume), b"big.bin").owner == of.owner


def test_new_inodes_are_free_unless_their_cluster_is_given_up(disk: MemoryDisk) -> None:
    of = at(open_xfs(disk), b"big.bin")
    offset = place(disk, of.number) // 32768 * 32768
    sb = superblock.find(disk)[0]
    group, within = divmod(offset // sb.block_size, sb.group_blocks)
    new = [struct.pack("<HH", 0x123F, 1) + struct.pack(">IIIIII", group, within, 64, 512, 32, 77)]
    writer = logs.Writer(disk)
    writer.transaction(new)
    fs = open_xfs(writer.volume)
    with pytest.raises(RecoveryError, match="is free"):
        fs.attributes(of.node)
    writer.transaction(logs.buffer(offset + 16384, 16384, flags=2))
    assert open_xfs(writer.volume).attributes(of.node) == of


@pytest.mark.parametrize(
    ("begin", "end", "inodes"),
    [
        (struct.pack("<HHIQ", 0x1244, 1, 1, 5) + struct.pack("<QQQII", 99, 1, 1, 1, 1), 0x1245, (99,)),
        (struct.pack("<HHIQQ", 0x1246, 1, 0, 5, 98) + bytes(16), 0x1247, (98,)),
        (struct.pack("<HHIQQQ", 0x1248, 1, 0, 5, 97, 96), 0x1249, (97, 96)),
    ],
)
def test_a_step_that_a_mount_would_finish_is_said(
    disk: MemoryDisk, begin: bytes, end: int, inodes: tuple[int, ...]
) -> None:
    writer = logs.Writer(disk)
    writer.transaction([begin])
    assert open_xfs(writer.volume).warnings == [
        f"a change of inode {number} was under way when the machine stopped, and a mount would finish it"
        for number in inodes
    ]
    writer.transaction([struct.pack("<HHIQ", end, 1, 0, 5)])
    fs = open_xfs(writer.volume)
    assert fs.warnings == []
    assert fs.about.journal == "replayed: 2 transactions"


def contradictions(disk: MemoryDisk) -> dict[str, Callable[[logs.Writer], None]]:
    of = at(open_xfs(disk), b"big.bin")
    offset = place(disk, of.number)
    core = bytes(logs.core_of(disk.pread(offset, 512)))

    def inode(**how: object) -> Callable[[logs.Writer], None]:
        given = {"number": of.number, "offset": offset, "core": core, **how}
        return lambda writer: writer.transaction(logs.inode(**given))  # type: ignore[arg-type]

    def item(*regions: bytes) -> Callable[[logs.Writer], None]:
        return lambda writer: writer.transaction(list(regions))

    def record(*operations: logs.Operation, **how: object) -> Callable[[logs.Writer], None]:
        return lambda writer: writer.record(list(operations), **how)  # type: ignore[arg-type]

    start, commit = (7, logs.START, b""), (7, logs.COMMIT, b"")
    return {
        "begins twice": record(start, start),
        "has no head": record(start, (7, 0, b"no head"), (7, 0, b"\x3c\x12\x01\0"), commit),
        "head in the log is too long": record(start, (7, 0, bytes(65))),
        "is not complete": record(start, (7, 0, logs.HEAD), (7, 0, b"\x3c\x12\x09\0"), commit),
        "fewer operations": record(start, (8, 0, bytes(488)), count=100),
        "client 0x1": record(start, client=1),
        "longer than anything": lambda writer: [
            writer.record([start, (7, 0, logs.HEAD), (7, 0, b"")]),
            *[writer.record([(7, logs.WAS_CONTINUED, bytes(32000))]) for _ in range(34)],
        ][0],
        "kind that is not known": item(struct.pack("<HH", 0x1234, 1)),
        "a map of 100 words": item(struct.pack("<HHHHqI", 0x123C, 1, 0, 2, 8, 100)),
        "12 bytes": item(struct.pack("<HHHHI", 0x123C, 1, 0, 2, 8)),
        "0 sectors": item(struct.pack("<HHHHqI", 0x123C, 1, 0, 0, 8, 0)),
        "more parts than its map": item(struct.pack("<HHHHqII", 0x123C, 2, 0, 2, 8, 1, 0), bytes(128)),
        "64 bytes at 0": item(struct.pack("<HHHHqII", 0x123C, 2, 0, 2, 8, 1, 1), bytes(64)),
        "outside of its volume": item(*logs.buffer(disk.size, 1024, bytes(128))),
        "50 bytes, 2 regions": item(logs.inode(of.number, offset, core)[0][:50], core),
        "its place": inode(number=of.number + 1),
        "stands where none is": inode(number=1 << 62, offset=0),
        "8 bytes of it": inode(core=core[:8]),
        "a fork of 0 bytes": inode(fields=3),
        "a fork of 500 bytes": inode(fields=3, forks=(bytes(500),)),
        "room for": inode(fields=9, forks=(bytes(200),)),
        "new inodes": item(struct.pack("<HH", 0x123F, 1) + struct.pack(">IIIIII", 0, 8, 64, 256, 32, 7)),
        "8 bytes": item(struct.pack("<HHI", 0x123F, 1, 0)),
        "0 of 0 sectors at 8": item(logs.inode(of.number, offset, core)[0][:40] + struct.pack("<qii", 8, 0, 0), core),
        "another byte order": record(start, form=2),
        "another file system's": record(start, uuid=b"x" * 16),
        "fewer operations than it says, 1": record(start, length=5),
        "no beginning of it": record(start, tail=1 << 60),
        "damaged record, at": lambda writer: [
            writer.record([start], tail=writer.lsn(writer.first)),
            *[writer.record([commit]) for _ in range(12)],
            writer.put(writer.first + 3, b"\0\0\0\x01" + b"x" * 508),
        ][0],
    }  # fmt: skip


def test_a_log_that_contradicts_itself_is_left_out(disk: MemoryDisk) -> None:
    expected = truth.told(open_xfs(disk), content=False)
    for words, write in contradictions(disk).items():
        writer = logs.Writer(disk)
        write(writer)
        fs = open_xfs(writer.volume)
        assert fs.about.journal.startswith("not replayed: "), words
        assert words in fs.about.journal
        assert fs.warnings == [
            "the log is not replayed, what changed last may be missing or half changed: " + fs.about.journal[14:]
        ]
        assert truth.differences(expected, truth.told(fs, content=False)) == []


def test_a_log_that_was_never_used_is_clean(disk: MemoryDisk) -> None:
    writer = logs.Writer(disk)
    writer.volume.put(writer.start, bytes(SECTOR))
    assert open_xfs(writer.volume).about.journal == "clean"


@pytest.mark.parametrize(
    "tool",
    [("xfs_repair", "-L"), ("xfs_db", "-x", "-c", "logformat -c 10 -s 4096"), ("xfs_admin", "-U", "generate")],
    ids=lambda tool: tool[0],
)
def test_a_log_that_a_tool_made_anew_is_clean_and_goes_on(tool: tuple[str, ...], tmp_path: Path) -> None:
    """In rounds far from the first, with the id that the superblock got since."""
    mounted.need(tool[0])
    image, copy = tmp_path / "image", tmp_path / "copy"
    mounted.run("cp", "--sparse=always", images.dirty().image, image)
    if tool[0] != "xfs_repair":  # the others want a clean one
        with mounted.mounted(image):
            pass
    mounted.run(*tool, image)
    with opened(image) as disk:
        assert open_xfs(disk).about.journal == "clean"
    with mounted.mounted(image) as place:
        (place / "new").touch()
        mounted.run("sync", place / "new")
        mounted.run("cp", "--sparse=always", image, copy)  # nothing is written meanwhile
    with opened(copy) as disk:
        fs = open_xfs(disk)
        assert fs.about.journal == "replayed: 1 transactions"
        assert fs.warnings == []
        assert at(fs, b"new").size == 0


def test_records_of_version_4_need_no_checksum_but_a_right_one_if_they_have_it() -> None:
    uml.need("mkfs.xfs")
    with opened(images.v4_busy()[5].image) as disk:
        sb = superblock.find(disk)[0]
        log = Log(disk, sb)
        places = [
            sb.offset(sb.log_start) + record.position * SECTOR % (sb.log_blocks << sb.block_log)
            for record in log.records()
        ]
        expected = open_xfs(disk).about.journal
        for checksum, same in ((bytes(4), True), (b"\xff" * 4, False)):
            volume = Changed(disk)
            for place in places:
                volume.put(place + 32, checksum)
            assert (open_xfs(volume).about.journal == expected) == same


# -- damaged in one place: the kernel says what is to become of it


class Damage:
    """Of one sector of the log: a bit that is turned round, or the whole as if it had not been written."""

    def __init__(self, source: Path, record: Record, within: int, lost: bool) -> None:
        self.source = source
        self.position = record.position + within
        self.lost = lost

    def copy(self, image: Path) -> None:
        mounted.run("cp", "--sparse=always", self.source, image)
        with opened(image) as disk:
            sb = superblock.find(disk)[0]
            size = (sb.log_blocks << sb.block_log) // SECTOR
            place = sb.offset(sb.log_start) + self.position % size * SECTOR
            sector = bytearray(disk.pread(place, SECTOR))
        if self.lost:
            sector[:4] = (self.position // size - 1).to_bytes(4, "big")
        else:
            sector[100] ^= 0x55
        with open(image, "r+b") as file:
            file.seek(place)
            file.write(sector)


def replayed_by_the_kernel(image: Path) -> truth.Facts | None:
    """None when it refuses to mount."""
    try:
        with mounted.mounted(image, "noatime") as place:
            return truth.kernel(place)
    except RuntimeError:
        image.with_name(image.name + ".mnt").rmdir()
        return None


def test_a_damaged_log_ends_where_the_kernel_ends_it(tmp_path: Path) -> None:
    source, image = images.dirty().image, tmp_path / "image"
    with opened(source) as disk:
        records = list(Log(disk, superblock.find(disk)[0]).records())
    seen: set[str] = set()
    for back in (1, 2, 8, 9, 12, len(records) // 2, len(records)):
        record = records[-back]
        for within, lost in ((record.headers, False), (0, False), (record.headers, True)):
            damage = Damage(source, record, within, lost)
            damage.copy(image)
            facts = replayed_by_the_kernel(image)
            damage.copy(image)
            with opened(image) as disk:
                fs = open_xfs(disk)
                seen.add(fs.about.journal)
                if facts is None:
                    assert fs.about.journal.startswith("not replayed: "), (back, within, lost)
                else:
                    assert truth.differences(facts, truth.told(fs)) == [], (back, within, lost)
                    assert any("not written whole" in text for text in fs.warnings), (back, within, lost)
    assert len(seen) > 4  # it did end in different places
    image.unlink()
