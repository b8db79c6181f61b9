# SPDX-License-Identifier: Apache-2.0
"""The list as a whole: its order, its ids, its limits, and that it can travel."""

from __future__ import annotations

import msgspec
import pytest

from flr.blocks import MemoryDisk, Segment, Volume
from flr.errors import Corrupt, NodeNotFound, OutOfBounds, TooMuch
from flr.volumes import find as module
from flr.volumes import md
from flr.volumes.find import Entry, find
from tests.flr.corpus import arrays
from tests.flr.volumes.disks import Changed, disk, files
from tests.flr.volumes.lvm_disks import of_another_identity

MIB = 1 << 20


def row(kind: int, first: int, count: int) -> bytes:
    return bytes([0, 0, 0, 0, kind, 0, 0, 0]) + first.to_bytes(4, "little") + count.to_bytes(4, "little")


def record(*rows: bytes) -> bytes:
    return bytes(446) + b"".join(rows).ljust(64, b"\0") + b"\x55\xaa"


def ext(at: int) -> list[tuple[int, bytes]]:
    return [
        (at + 1024 + 4, (64).to_bytes(4, "little")),
        (at + 1024 + 32, (8192).to_bytes(4, "little")),
        (at + 1080, b"\x53\xef"),
    ]


def test_disks_then_arrays_then_groups_each_with_what_is_under_it() -> None:
    made = arrays.groups()
    names = ("mirrored0", "part0", "mirrored1", "whole0", "part1", "guest", "part2")
    ids = [entry.id for entry in find(files(made.disk, *names)).entries]
    assert ids == [
        "0", "1", "1p1", "1p2", "2", "3", "4", "4p1", "4p2", "5", "6", "6p1", "6p2", "md:made:under",
        "vg:vgg", "vgg/disk", "vgg/disk/p1", "vgg/disk/p2", "vg:vgm", "vgm/data", "vg:vgp", "vgp/over",
        "vg:vgw", "vgw/line", "vgw/stripes", "vgw/last", "vgw/two", "vgw/zero", "vgw/glass", "vgw/five", "vgw/pool", "vgw/thin",
        "vgw/before",
    ]  # fmt: skip


def test_ids_of_groups_and_arrays_do_not_change_with_the_order_of_disks() -> None:
    made = arrays.groups()
    names = ["part0", "part1", "part2", "mirrored0", "mirrored1"]

    def named(*names: str) -> list[tuple[str, int, str]]:
        found = find(files(made.disk, *names))
        return [
            (entry.id, entry.size, entry.uuid) for entry in found.entries if entry.kind in ("array", "group", "volume")
        ]

    assert named(*names) == named(*reversed(names))
    assert len(named(*names)) == 5


def test_the_list_travels() -> None:
    entries = find(files(arrays.groups().disk, "part0", "guest")).entries
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(entries), type=list[Entry]) == entries


def test_a_whole_disk_file_system_and_partitions_of_one() -> None:
    found = find([disk(*ext(0)), disk((0, record(row(0x83, 100, 1000))), *ext(51200), number=1)])
    assert [(entry.id, entry.kind, entry.opens) for entry in found.entries] == [
        ("0", "disk", True), ("1", "disk", False), ("1p1", "partition", True),
    ]  # fmt: skip
    partition = found.entry("1p1")
    assert (partition.on, partition.disks, partition.type, partition.size) == (["1"], [1], "Linux", 512000)
    assert found.open("1p1").pread(1080, 2) == b"\x53\xef"
    assert found.entry("1").holds == "partitions"


def test_a_boot_sectors_table_in_front_of_a_file_system() -> None:
    table = record(row(0x83, 100, 1000))
    found = find([disk((0, table), (51200, table), *ext(51200))])
    assert [entry.id for entry in found.entries] == ["0", "0p1"]
    assert found.entry("0p1").opens


def test_there_is_no_such_volume() -> None:
    found = find([disk(*ext(0))])
    for give in (found.entry, found.open, found.raw):
        with pytest.raises(NodeNotFound, match="0p9"):
            give("0p9")


def test_no_disks_at_all() -> None:
    assert find([]).entries == []


class Unreadable(Volume):
    size = MIB

    def pread(self, offset: int, length: int) -> bytes:
        raise Corrupt("a chunk of this disk cannot be read", f"at {offset}")

    def locate(self, offset: int, length: int) -> list[Segment]:
        return []


def test_a_disk_that_cannot_be_read_takes_no_other() -> None:
    found = find([Unreadable(), disk(*ext(0), number=1)])
    assert found.entry("0").why_not == "a chunk of this disk cannot be read: at 0"
    assert found.entry("1").opens


def nested(layers: int) -> bytes:
    """A partition that holds a table of a partition, and so on, and a file system at last."""
    inner = bytearray(128 << 10)
    for at, data in ext(0):
        inner[at : at + len(data)] = data
    for _ in range(layers):
        inner = bytearray(record(row(0x83, 1, len(inner) // 512))) + inner
    return bytes(inner)


def test_layers_are_bounded() -> None:
    found = find([MemoryDisk(nested(module.MOST_LAYERS))])
    assert found.entries[-1].opens
    assert found.entries[-1].id == "0p1" + "/p1" * (module.MOST_LAYERS - 1)
    found = find([MemoryDisk(nested(module.MOST_LAYERS + 3))])
    last = found.entries[-1]
    assert len(found.entries) == module.MOST_LAYERS + 2
    assert last.why_not == f"volumes lie deeper in others than is looked: {module.MOST_LAYERS} layers"
    with pytest.raises(TooMuch):
        found.open(last.id)


def test_entries_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_ENTRIES", 3)
    found = find([disk((0, record(row(0x83, 100, 10), row(0x83, 200, 10), row(0x83, 300, 10))))])
    assert [entry.id for entry in found.entries] == ["0", "0p1", "0p2"]
    assert found.warnings == ["there are more than 3 volumes; the others are left out"]
    monkeypatch.setattr(module, "MOST_ENTRIES", 14)
    found = find(files(arrays.groups().disk, "whole0", "whole1", "whole2", "guest"))
    assert len(found.entries) == 14


def test_two_groups_of_one_name() -> None:
    """As when a disk of another machine was attached: the first has the name, the second goes by its uuid."""
    file = arrays.groups().disk("guest")
    found = find([Changed(file, 0), of_another_identity(Changed(file, 1))])
    first, second = (entry for entry in found.entries if entry.kind == "group")
    assert (first.id, second.id) == ("vg:vgg", f"vg:{second.uuid}")
    assert (first.uuid, first.name) == (second.uuid.swapcase(), second.name)
    assert found.entry("vgg/disk").disks == [0]
    assert found.entry(f"{second.uuid}/disk").disks == [1]
    assert found.entry(f"{second.uuid}/disk/p2").on == [f"{second.uuid}/disk"]


def test_two_arrays_of_one_name() -> None:
    file = arrays.arrays().disk("end0")
    other = Changed(file, 1)
    superblock = md.superblock(other)
    assert superblock is not None
    raw = bytearray(other.pread(superblock.at, 4096))
    raw[16] ^= 1
    raw[216:220] = md._sum1(bytes(raw[: 256 + 2 * int.from_bytes(raw[220:224], "little")])).to_bytes(4, "little")
    found = find([Changed(file, 0), other.put(superblock.at, bytes(raw))])
    first, second = (entry for entry in found.entries if entry.kind == "array")
    assert (first.id, second.id) == ("md:made:end", f"md:{second.uuid}")
    assert found.entry(f"{second.id}/p1").disks == [1]


def test_what_is_opened_is_bounded_by_the_disks() -> None:
    found = find([disk((0, record(row(0x83, 100, 1000))), *ext(51200))])
    with pytest.raises(OutOfBounds):
        found.open("0p1").pread(0, 512001)
