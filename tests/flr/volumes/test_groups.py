# SPDX-License-Identifier: Apache-2.0
"""LVM groups that a kernel activated and read: the same bytes, from the disks alone."""

from __future__ import annotations

import pytest

from flr.errors import Corrupt, Missing, NodeNotFound, OutOfBounds, Unsupported
from flr.volumes import lvm
from flr.volumes.find import Found, find
from tests.flr.corpus import arrays
from tests.flr.corpus.arrays import Made
from tests.flr.volumes.disks import Changed, digest, files, located
from tests.flr.volumes.lvm_disks import RING, rewritten, text_of

WHOLE = ("whole0", "whole1", "whole2")
DISKS = (
    *WHOLE, "part0", "part1", "part2", "mirrored0", "mirrored1", "stale0", "stale1", "half0", "half1", "guest",
)  # fmt: skip
OPENED = (
    "vgw/line", "vgw/stripes", "vgw/last", "vgw/two", "vgw/zero", "vgw/glass", "vgp/over", "vgm/data", "vgs/two", "vgs/alone",
    "vgh/two", "vgg/disk",
)  # fmt: skip


@pytest.fixture(scope="module")
def made() -> Made:
    return arrays.groups()


@pytest.fixture(scope="module")
def disks(made: Made) -> list[Changed]:
    return files(made.disk, *DISKS)


@pytest.fixture(scope="module")
def found(disks: list[Changed]) -> Found:
    return find(disks)


@pytest.mark.parametrize("name", OPENED)
def test_every_byte_is_the_kernels(made: Made, disks: list[Changed], found: Found, name: str) -> None:
    volume = found.raw(name)
    assert volume.size == made.truth[name].size == found.entry(name).size
    assert digest(volume) == made.truth[name].sha256
    assert located(disks, volume) == made.truth[name].sha256


@pytest.mark.parametrize(
    ("name", "type", "size", "why"),
    [
        ("five", "raid5", 4 << 20, "RAID volumes of this level are not read by this release: type raid5"),
        ("pool", "thin-pool", 6 << 20, "thin pools are not read by this release: type thin-pool"),
        ("thin", "thin", 8 << 20, "thin volumes are not read by this release: type thin"),
        ("before", "snapshot", 2 << 20, "snapshots (copy on write) are not read by this release: type snapshot"),
    ],
)
def test_other_types_are_listed_with_their_reason(found: Found, name: str, type: str, size: int, why: str) -> None:  # noqa: A002
    entry = found.entry(f"vgw/{name}")
    assert (entry.type, entry.size, entry.why_not) == (type, size, why)
    assert entry.hint
    with pytest.raises(Unsupported):
        found.open(entry.id)


def test_what_is_inside_of_others_is_not_shown(found: Found) -> None:
    shown = [entry.name for entry in found.entries if entry.id.startswith("vgw/")]
    assert shown == ["line", "stripes", "last", "two", "zero", "glass", "five", "pool", "thin", "before"]


def test_groups_and_their_members(found: Found) -> None:
    group = found.entry("vg:vgw")
    assert (group.kind, group.on, group.words) == ("group", ["0", "1", "2"], "10 logical volumes")
    assert (found.entry("0").holds, found.entry("0").part_of, found.entry("0").why_not) == ("lvm", "vg:vgw", "")
    assert found.entry("vgw/line").on == ["0", "2"], "the disks that it stands on, not all of the group's"
    assert found.entry("vgp/over").disks == [3, 4, 5]
    assert found.entry("vgm/data").on == ["md:made:under"]
    assert found.entry("vgm/data").disks == [6, 7]
    with pytest.raises(Unsupported, match="no bytes of its own"):
        found.open("vg:vgw")
    with pytest.raises(NodeNotFound, match="vgw/none"):
        found.entry("vgw/none")


def test_metadata_on_some_disks_only(made: Made) -> None:
    """One disk has two areas, one has none and a boot loader's area instead."""
    (alone,) = (entry for entry in find(files(made.disk, "part2")).entries if entry.id == "0p2")
    assert alone.why_not.startswith("this physical volume is in no group that is known here: ")
    disks = files(made.disk, "part2", "part1", "part0")
    assert digest(find(disks).raw("vgp/over")) == made.truth["vgp/over"].sha256


def test_a_guests_disk_inside_of_a_volume(found: Found) -> None:
    assert found.entry("vgg/disk").holds == "partitions"
    assert [entry.id for entry in found.entries if entry.on == ["vgg/disk"]] == ["vgg/disk/p1", "vgg/disk/p2"]


@pytest.mark.parametrize(
    ("name", "copy"),
    [("vgs/two", "is older than the other: copy 0"), ("vgh/two", "was not filled yet: copy 1, ")],
)
def test_a_copy_that_is_behind_is_not_read(found: Found, name: str, copy: str) -> None:
    """Of `vgs/two` the first copy was away while the second was written; of `vgh/two` the second is being filled."""
    (warning,) = found.entry(name).warnings
    assert warning.startswith("1 of 2 copies are not used: a copy of a mirrored volume")
    assert copy in warning


# -- a disk is missing --


def uuids(made: Made) -> dict[str, str]:
    return {name: find(files(made.disk, name)).entries[0].content_uuid for name in WHOLE}


@pytest.mark.parametrize("lost", WHOLE)
def test_a_missing_disk_takes_only_what_stands_on_it(made: Made, lost: str) -> None:
    needs = {
        "whole0": {"line", "stripes", "zero"}, "whole1": {"stripes", "zero"}, "whole2": {"line", "stripes", "last"},
    }[lost]  # fmt: skip
    found = find(files(made.disk, *(name for name in WHOLE if name != lost)))
    letter = {"whole0": "a", "whole1": "b", "whole2": "c"}[lost]
    told = f"PV {uuids(made)[lost]}, {48 << 20} bytes, was /dev/ubd{letter}"
    assert found.entry("vg:vgw").warnings == [f"a disk of this group is missing: {told}"]
    for name in ("line", "stripes", "last", "two", "zero", "glass"):
        entry = found.entry(f"vgw/{name}")
        if name in needs:
            assert entry.why_not == f"a disk of this volume group is not in this restore point: {told}"
            assert entry.hint == "choose a restore point that has all disks of the machine"
            with pytest.raises(Missing):
                found.open(entry.id)
        else:
            assert digest(found.raw(entry.id)) == made.truth[f"vgw/{name}"].sha256
        degraded = {"whole0": {"two"}, "whole1": {"two", "glass"}, "whole2": set()}[lost]
        assert bool(entry.warnings) == (name in degraded)
        if name in degraded:
            assert entry.warnings[0].startswith("1 of 2 copies are not used: a disk of this volume group is not in")


def test_a_stale_copy_alone_is_opened_and_the_missing_one_named(made: Made) -> None:
    entry = find(files(made.disk, "stale0")).entry("vgs/two")
    assert entry.why_not.startswith("nothing known begins here"), "its bytes are there"
    assert entry.warnings[0].startswith(
        "1 of 2 copies are not used: a disk of this volume group is not in this restore point: PV "
    )


def test_a_copy_that_is_being_filled_is_not_opened_alone(made: Made) -> None:
    found = find(files(made.disk, "half1"))
    with pytest.raises(Missing, match="was /dev/ubdk"):
        found.raw("vgh/two")


def test_a_cut_disk_takes_only_what_lies_in_the_missing_part(made: Made) -> None:
    disks = files(made.disk, *WHOLE)
    disks[2] = Changed(made.disk("whole2"), 2, (1 << 20) + 9 * (512 << 10))  # up to where `last` begins
    found = find(disks)
    assert found.entry("2").warnings == [
        f"the image is cut: the physical volume has {48 << 20} bytes, the image {disks[2].size}"
    ]
    assert found.entry("vgw/last").why_not == (
        f"the image of a disk of this volume group is cut: 2: byte {disks[2].size + (2 << 20)} is needed, it has {disks[2].size}"
    )
    with pytest.raises(OutOfBounds):
        found.raw("vgw/last")
    for name in ("line", "stripes", "two"):
        assert digest(found.raw(f"vgw/{name}")) == made.truth[f"vgw/{name}"].sha256


def test_the_same_disk_twice(made: Made) -> None:
    found = find([*files(made.disk, *WHOLE), Changed(made.disk("whole1"), 3)])
    assert found.entry("3").warnings == ["it is a copy of 1, which is used instead"]
    assert found.entry("vgw/stripes").on == ["0", "1", "2"]


# -- metadata --


def edited(made: Made, *edits: tuple[bytes, bytes]) -> Found:
    """`vgw` with its text edited on all of its disks."""
    disks = files(made.disk, *WHOLE)
    for disk in disks:
        text, _ = text_of(disk)
        for old, new in edits:
            assert old in text
            text = text.replace(old, new, 1)
        rewritten(disk, text)
    return find(disks)


def test_a_text_that_wraps_around_the_ring(made: Made) -> None:
    disks = files(made.disk, *WHOLE)
    for disk in disks:
        text, _ = text_of(disk)
        ring = int.from_bytes(disk.pread(RING + 32, 8), "little")
        rewritten(disk, text, ring - 1000)
    assert digest(find(disks).raw("vgw/line")) == made.truth["vgw/line"].sha256


def test_one_whole_copy_of_the_metadata_is_enough(made: Made) -> None:
    disks = files(made.disk, *WHOLE)
    for disk in disks[:2]:
        _, at = text_of(disk)
        disk.put(at + 100, b"!")
    found = find(disks)
    assert digest(found.raw("vgw/line")) == made.truth["vgw/line"].sha256
    assert found.entry("0").warnings[0].startswith("a metadata area of 0 is not used: its text is damaged: ")


def test_no_whole_copy_of_the_metadata(made: Made) -> None:
    disks = files(made.disk, *WHOLE)
    for disk in disks:
        disk.put(RING, bytes(512))
    found = find(disks)
    assert [entry.id for entry in found.entries] == ["0", "1", "2"]
    assert found.entry("0").why_not.startswith("this physical volume is in no group that is known here: ")
    assert found.entry("0").hint


def test_the_newest_metadata_is_used_and_the_older_named(made: Made) -> None:
    disks = files(made.disk, *WHOLE)
    text, _ = text_of(disks[1])
    seqno = int(text.split(b"seqno = ")[1].split()[0])
    rewritten(disks[1], text.replace(f"seqno = {seqno}".encode(), b"seqno = 2").replace(b'"pv0", 0', b'"pv0", 50'))
    found = find(disks)
    assert digest(found.raw("vgw/line")) == made.truth["vgw/line"].sha256
    assert found.entry("vg:vgw").warnings == [f"the metadata on 1 is older (version 2 of {seqno}) and not used"]


def test_disks_that_disagree_at_the_same_version(made: Made) -> None:
    disks = files(made.disk, *WHOLE)
    text, _ = text_of(disks[0])
    rewritten(disks[0], text.replace(b'"pv0", 0', b'"pv0", 50'))
    found = find(disks)
    assert digest(found.raw("vgw/line")) == made.truth["vgw/line"].sha256, "the majority is right"
    (warning,) = found.entry("vg:vgw").warnings
    assert "disagree about the group at the same version" in warning
    assert "0 is overruled" in warning


def test_a_disk_that_came_back_is_not_used(made: Made) -> None:
    """LVM marks a disk that was away while the group changed; what it holds may be old."""
    found = edited(
        made,
        (b'device = "/dev/ubda"\n\nstatus = ["ALLOCATABLE"]\nflags = []', b'device = "/dev/ubda"\nflags = ["MISSING"]'),
    )
    assert "came back" not in found.entry("vgw/last").why_not
    assert found.entry("vgw/line").why_not.startswith("a disk of this volume group was away while the group was in use")
    assert "restoremissing" in found.entry("vgw/line").hint
    assert digest(found.raw("vgw/two")) == made.truth["vgw/two"].sha256, "from its other copy"


@pytest.mark.parametrize(
    ("old", "new", "name", "says"),
    [
        (b'"pv0", 0\n', b'"pv0", 93\n', "line", "extents that its disk has not: 99 of 94"),
        (b'"pv0", 0\n', b'"pv9", 0\n', "line", "stands on something that is not in its group: pv9"),
        (b'"pv0", 0\n', b'"line", 0\n', "line", "lies in itself"),
        (b'"pv0", 0\n', b'"pv0", -1\n', "line", "1 stripes"),
        (b'"pv0", 0\n', b'"pv0"\n', "line", "1 stripes"),
        (b'"pv0", 0\n', b'0, "pv0"\n', "line", "1 stripes"),
        (b"start_extent = 6\n", b"start_extent = 5\n", "line", "leave gaps or overlap: extent 5 after 6"),
        (b"extent_count = 9\n", b"extent_count = 10\n", "stripes", "leave gaps or overlap"),
        (b"stripe_count = 3\n", b"stripe_count = 2\n", "stripes", "6 values for 2 stripes"),
        (b"stripe_count = 3\n", b"stripe_count = 0\n", "stripes", "stripe_count = 0"),
        (b"stripe_size = 32\n", b"stripe_size = 0\n", "stripes", "stripe_size = 0"),
        (b'type = "raid1"', b'type = "raid7"', "two", "RAID volumes of this level"),
        (b'type = "raid1"', b'type = "sieve"', "two", "volumes of this type are not read by this release: type sieve"),
        (b"device_count = 2", b"device_count = 3", "two", "not all named"),
        (b'"two_rmeta_1", "two_rimage_1"', b'"two_rmeta_1", "two_rimage_9"', "two", ""),
        (b'"zero_rimage_1"\n', b"7\n", "zero", "not all named: 1 names"),
        (b'type = "raid1"', b'type = "cache"', "two", "volumes with a cache"),
        (b'cow_store = "before"', b'merging_store = "before"', "last", "is being merged into this volume"),
    ],
)
def test_one_damaged_volume_takes_no_other(made: Made, old: bytes, new: bytes, name: str, says: str) -> None:
    found = edited(made, (old, new))
    assert says in (found.entry(f"vgw/{name}").why_not or found.entry(f"vgw/{name}").warnings[0])
    for other in {"line", "stripes", "two", "zero"} - {name}:
        assert digest(found.raw(f"vgw/{other}")) == made.truth[f"vgw/{other}"].sha256


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (b"extent_size = 1024", b"extent_size = 0", "something impossible: extent_size = 0"),
        (b"extent_size = 1024", b'extent_size = "x"', "something impossible: extent_size = x"),
        (b"pe_start = 2048", b"pe_start = -1", "something impossible: pe_start = -1"),
        (b"vgw {", b"..bad/ {", "cannot be understood"),
        (b"vgw {", b"-vgw {", "cannot be read"),
        (b"version = 1", b"version = 2", "is of another version: 2"),
        (b"seqno", b"seqn0", "lacks what names it"),
        (b"vgw {", b"vgw {{", "cannot be understood"),
        (b"logical_volumes {", b"logical_volumes ", "cannot be understood"),
    ],
)
def test_a_group_whose_metadata_makes_no_sense(made: Made, old: bytes, new: bytes, says: str) -> None:
    found = edited(made, (old, new))
    group = next(entry for entry in found.entries if entry.kind == "group")
    assert says in group.why_not
    with pytest.raises(Corrupt):
        found.open(group.id)


def test_a_label_of_another_sector_or_a_wrong_sum_is_none(made: Made) -> None:
    disk = files(made.disk, "whole0")[0]
    label = disk.pread(512, 512)
    reader = lvm.Reader()
    assert reader.physical_volume("0", disk) is not None
    disk.put(512, bytes(512)).put(1024, label)
    assert reader.physical_volume("0", disk) is None, "it says that it is sector 1"
    disk.clear()
    disk.put(512 + 40, b"!")
    assert reader.physical_volume("0", disk) is None
