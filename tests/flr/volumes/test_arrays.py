# SPDX-License-Identifier: Apache-2.0
"""md arrays that a kernel assembled and read: the same bytes, from the disks alone."""

from __future__ import annotations

import pytest

from flr.errors import Missing, NotRecognised, OutOfBounds, Unsupported
from flr.volumes import md
from flr.volumes.find import Found, find
from tests.flr.corpus import arrays
from tests.flr.corpus.arrays import Made
from tests.flr.volumes.disks import Changed, digest, files, located

DISKS = ("disk0", "disk1", "disk2", "old0", "old1", "end0", "end1")
NAMED = ("one12", "one11", "one10", "zero", "zeroalt", "line", "stale", "spare", "half", "bad", "both", "end")


@pytest.fixture(scope="module")
def made() -> Made:
    return arrays.arrays()


@pytest.fixture(scope="module")
def disks(made: Made) -> list[Changed]:
    return files(made.disk, *DISKS)


@pytest.fixture(scope="module")
def found(disks: list[Changed]) -> Found:
    return find(disks)


@pytest.mark.parametrize("name", NAMED)
def test_every_byte_is_the_kernels(made: Made, disks: list[Changed], found: Found, name: str) -> None:
    volume = found.raw(f"md:made:{name}")
    assert volume.size == made.truth[name].size == found.entry(f"md:made:{name}").size
    assert digest(volume) == made.truth[name].sha256
    assert located(disks, volume) == made.truth[name].sha256


@pytest.mark.parametrize(("name", "on"), [("one090", ["0p4", "1p4"]), ("old", ["3", "4"])])
def test_metadata_0_90_has_no_name(made: Made, found: Found, name: str, on: list[str]) -> None:
    """On partitions, and on whole disks, where it could as well be the last partition's."""
    entry = next(entry for entry in found.entries if entry.on == on)
    assert entry.id == f"md:{entry.uuid}"
    assert digest(found.raw(entry.id)) == made.truth[name].sha256


def test_metadata_0_90_of_the_last_partition_is_not_the_disks(made: Made) -> None:
    """It ends where the disk does, so that the disk's own superblock would stand in the same place."""
    member = made.disk("old0").read_bytes()
    row = bytes([0, 0, 0, 0, 0xFD, 0, 0, 0]) + (2048).to_bytes(4, "little") + (len(member) // 512).to_bytes(4, "little")
    disk = Changed((bytes(446) + row.ljust(64, b"\0") + b"\x55\xaa").ljust(1 << 20, b"\0") + member)
    superblock = md.superblock(disk)
    assert superblock is not None
    assert superblock.version == "0.90"
    found = find([disk])
    assert (found.entry("0").holds, found.entry("0p1").holds) == ("partitions", "md")
    assert digest(found.raw(found.entry("0p1").part_of)) == made.truth["old"].sha256


@pytest.mark.parametrize(("name", "level"), [("five", "raid5"), ("ten", "raid10")])
def test_other_levels_are_listed_with_their_reason_and_size(made: Made, found: Found, name: str, level: str) -> None:
    entry = found.entry(f"md:made:{name}")
    assert entry.why_not == f"md arrays of this level are not read by this release: {level}"
    assert entry.size == made.truth[name].size
    assert entry.hint
    with pytest.raises(Unsupported, match=level):
        found.open(entry.id)
    with pytest.raises(Unsupported, match=level):
        found.raw(entry.id)


def test_members_are_listed_as_such(found: Found) -> None:
    member = found.entry("0p1")
    assert (member.holds, member.part_of, member.why_not) == ("md", "md:made:one12", "")
    array = found.entry("md:made:one12")
    assert (array.kind, array.on, array.disks) == ("array", ["0p1", "1p1"], [0, 1])
    assert array.type == "md raid1, 2 of 2 members"
    assert found.entry("md:made:both").disks == [0, 1, 2], "an array over arrays"


@pytest.mark.parametrize(
    ("name", "warnings"),
    [
        ("stale", ["0p10 is not used: it is counted out by the others", "degraded: 1 of 2 copies are here"]),
        ("spare", ["2p11 is not used: it is a spare"]),
        ("half", ["0p12 is not used: it is being filled", "degraded: 1 of 2 copies are here"]),
        ("bad", ["1p14 has parts that were badly written"]),
        ("one12", []),
    ],
)
def test_who_is_not_used_is_said(found: Found, name: str, warnings: list[str]) -> None:
    assert found.entry(f"md:made:{name}").warnings == warnings


def test_partitions_inside_of_an_array(found: Found) -> None:
    assert found.entry("5").holds == "md", (
        "not a table of partitions, which its metadata at the end allows to stand there"
    )
    assert found.entry("md:made:end").holds == "partitions"
    first = found.entry("md:made:end/p1")
    assert (first.name, first.size, first.on, first.disks) == ("first", 2 << 20, ["md:made:end"], [5, 6])


@pytest.mark.parametrize(("kept", "lost"), [("disk0", "disk1"), ("disk1", "disk0")])
@pytest.mark.parametrize("name", ["one12", "one11", "one10", "one090"])
def test_a_mirror_opens_with_either_copy(made: Made, kept: str, lost: str, name: str) -> None:
    found = find(files(made.disk, kept))
    partition = {"one12": "0p1", "one11": "0p2", "one10": "0p3", "one090": "0p4"}[name]
    entry = found.entry(found.entry(partition).part_of)
    assert entry.warnings == ["degraded: 1 of 2 copies are here"]
    assert digest(found.raw(entry.id)) == made.truth[name].sha256


@pytest.mark.parametrize(
    ("name", "what"),
    [("zero", "raid0"), ("line", "linear")],
)
def test_a_missing_member_of_what_keeps_nothing_twice(made: Made, name: str, what: str) -> None:
    found = find(files(made.disk, "disk0", "disk2"))
    entry = found.entry(f"md:made:{name}")
    assert entry.why_not == (
        f"members of this {what} are not on the disks of this restore point, and it keeps nothing twice: "
        "member 1 of 3 (counted from 0)"
    )
    assert entry.type == f"md {what}, 2 of 3 members"
    with pytest.raises(Missing):
        found.open(entry.id)


def test_a_failed_copy_alone_is_opened_as_what_it_takes_itself_for(made: Made) -> None:
    """Its own superblock was not written after it failed; nothing on this disk says that the other went on."""
    entry = find(files(made.disk, "disk0")).entry("md:made:stale")
    assert entry.warnings[0] == "degraded: 1 of 2 copies are here"
    assert entry.type == "md raid1, 1 of 2 members"


def test_a_mirror_that_was_being_written(made: Made) -> None:
    """As in a snapshot of a running machine: the superblock says that it is not in step."""
    entry = find([with_sum(window(made, "0p1"), 4096, resync=(208, 8, 0))]).entry("md:made:one12")
    assert entry.warnings == [
        "degraded: 1 of 2 copies are here",
        "it was in use, or its copies not in step yet, at the time of the snapshot; its first whole copy is read",
    ]


def test_a_copy_that_is_being_filled_is_not_opened_alone(made: Made) -> None:
    found = find(files(made.disk, "disk0"))
    entry = found.entry("md:made:half")
    assert "no whole copy of this mirror" in entry.why_not
    with pytest.raises(Missing):
        found.open(entry.id)


def test_the_same_disk_twice(made: Made) -> None:
    found = find([Changed(made.disk("disk0"), 0), Changed(made.disk("disk0"), 1)])
    assert "1p1 is not used: 0p1 is the same member, a copy" in found.entry("md:made:one12").warnings


def test_a_cut_member(made: Made) -> None:
    found = find([Changed(made.disk("old0"), 0, 9 << 20), Changed(made.disk("old1"), 1)])
    with pytest.raises(NotRecognised):
        found.open("0")  # metadata 0.90 stands at the end, and went with it
    assert found.entry(found.entry("1").part_of).warnings == ["degraded: 1 of 2 copies are here"]


def window(made: Made, partition: str, name: str = "disk0", number: int = 0) -> Changed:
    """A partition as a disk of its own."""
    inside = find(files(made.disk, name)).raw(partition)
    return Changed(inside.pread(0, inside.size), number)


def with_sum(disk: Changed, at: int, **fields: tuple[int, int, int]) -> Changed:
    """Fields (offset, bytes, value) of a superblock 1.x changed, and its checksum made right."""
    raw = bytearray(disk.pread(at, 4096))
    for offset, size, value in fields.values():
        raw[offset : offset + size] = value.to_bytes(size, "little")
    most = int.from_bytes(raw[220:224], "little")
    raw[216:220] = md._sum1(bytes(raw[: 256 + 2 * most])).to_bytes(4, "little")
    return disk.put(at, bytes(raw))


def test_a_changed_bit_of_a_superblock_is_noticed(made: Made) -> None:
    disk = window(made, "0p1")
    assert md.superblock(disk) is not None
    for at in (4096 + 8, 4096 + 80, 4096 + 200, 4096 + 256):
        disk.put(at, bytes([disk.pread(at, 1)[0] ^ 1]))
        assert md.superblock(disk) is None
        disk.clear()


@pytest.mark.parametrize(
    ("field", "says"),
    [
        ({"features": (8, 4, 4)}, "the array is being reshaped"),
        ({"features": (8, 4, 512)}, "features that this release does not know"),
        ({"features": (8, 4, 1 << 20)}, "features that this release does not know"),
        ({"members": (92, 4, 100_000)}, "something impossible: 100000 members"),
        ({"members": (92, 4, 0)}, "something impossible: 0 members"),
        ({"level": (72, 4, 6)}, "not read by this release: raid6"),
        ({"level": (72, 4, 77)}, "not read by this release: level 77"),
        ({"level": (72, 4, 0)}, "something impossible: chunks of 0 bytes"),
        ({"used": (80, 8, 1 << 50)}, "no whole copy of this mirror"),
        ({"data": (128, 8, (1 << 64) - 1)}, "no whole copy of this mirror"),
    ],
)
def test_what_a_superblock_may_not_say(made: Made, field: dict[str, tuple[int, int, int]], says: str) -> None:
    found = find([with_sum(window(made, "0p1"), 4096, **field)])
    assert says in found.entry("md:made:one12").why_not


def test_parts_that_no_copy_has_well(made: Made) -> None:
    """The other copy is missing, or lists the same part."""
    bad, other = window(made, "0p14", "disk1", 0), window(made, "0p14", "disk2", 1)
    lost = "8192 bytes at 487424 were badly written, and no whole copy of them is here"
    assert lost in find([bad]).entry("md:made:bad").warnings
    assert lost not in find([bad, other]).entry("md:made:bad").warnings
    superblock = md.superblock(bad)
    assert superblock is not None
    other.put(superblock.bad_at, bad.pread(superblock.bad_at, 512))
    assert lost in find([bad, with_sum(other, 4096, features=(8, 4, 8))]).entry("md:made:bad").warnings


def test_raid0_of_unlike_members_that_does_not_tell_its_layout(made: Made) -> None:
    members = [with_sum(window(made, "0p5", f"disk{n}", n), 4096, features=(8, 4, 0)) for n in range(3)]
    entry = find(members).entry("md:made:zero")
    assert "has two layouts, and this one does not say which" in entry.why_not
    assert "mdadm" in entry.hint


def test_errors_are_of_this_package(found: Found) -> None:
    with pytest.raises(OutOfBounds):
        found.raw("md:made:zero").pread(found.entry("md:made:zero").size, 1)
