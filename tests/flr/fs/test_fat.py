# SPDX-License-Identifier: Apache-2.0
"""FAT12, FAT16 and FAT32 as mtools tells them, exFAT as exfat-fuse does; libfsfat as a second opinion where it has one."""

from __future__ import annotations

import stat
import struct
from collections.abc import Callable
from functools import partial

import pyfsfat
import pytest

from flr.blocks import Extent, Hole
from flr.errors import NodeNotFound, WrongKind
from flr.fs.base import Attributes, Flag, Node
from flr.fs.fat import directory
from flr.fs.fat.reader import Fat
from flr.fs.ntfs.library import VolumeFile
from tests.flr.corpus import truth, windows
from tests.flr.corpus.catalogue import CATALOGUE, Sample, sample
from tests.flr.corpus.image import Changed, Image
from tests.flr.fs import conformance

IMAGES: dict[str, Callable[[], Sample]] = {
    name: partial(sample, name) for name, listed in CATALOGUE.items() if listed.holds in ("fat", "exfat")
}
FATS = [name for name in IMAGES if name.startswith("fat")]
EXFATS = [name for name in IMAGES if name.startswith("exfat")]


def find(fs: Fat, path: str) -> Attributes:
    found = fs.attributes(fs.root())
    for name in path.encode().split(b"/"):
        cursor: int | None = 0
        entries = []
        while cursor is not None:
            listing = fs.entries(found.node, cursor)
            entries += listing.entries
            cursor = listing.cursor
        (found,) = [e.attributes for e in entries if e.name == name and e.attributes]
    return found


@pytest.mark.parametrize("name", IMAGES)
def test_everything_is_as_another_reader_tells_it(name: str) -> None:
    made = IMAGES[name]()
    fs = Fat(Image(made.image))
    ours, told = truth.told(fs), made.truth
    assert not truth.differences(told, ours, CATALOGUE[name].untold)
    for path, fact in told.items():
        assert stat.S_IFMT(fact.mode) == stat.S_IFMT(ours[path].mode)
    assert not fs.warnings
    assert len(told) > 340


@pytest.mark.parametrize("name", IMAGES)
def test_about_a_volume(name: str) -> None:
    made = IMAGES[name]()
    fs = Fat(Image(made.image))
    about = fs.about
    assert about.kind == name.split("-")[0]
    assert about.label == ("DATEN" if name in FATS else "DATEN ü")
    assert about.journal == ""
    assert about.used is not None
    assert 0 < about.used < about.size
    files = sum(-(-fact.size // about.block_size) for fact in made.truth.values() if stat.S_ISREG(fact.mode))
    assert about.used > files * about.block_size
    if name in FATS:
        assert about.uuid == "1234-ABCD"


def test_used_is_what_the_tools_count() -> None:
    made = IMAGES["fat32"]()
    fs = Fat(Image(made.image))
    checked = windows.tool_output("fsck.fat", "-n", "-v", made.image).decode()
    used = next(line for line in checked.splitlines() if line.endswith("clusters"))
    assert fs.about.used == int(used.split()[-2].partition("/")[0]) * fs.about.block_size


def test_a_volume_whose_table_is_large_does_not_tell_what_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flr.fs.fat.reader.LARGEST_MAP", 100)
    for name in ("fat32", "exfat"):
        assert Fat(Image(IMAGES[name]().image)).about.used is None


@pytest.mark.parametrize("name", ["fat12", "fat32", "exfat", "exfat-512"])
def test_a_node_is_found_again_by_another_session(name: str) -> None:
    """Also where the entries of a file go on in another cluster of its folder."""
    made = IMAGES[name]()
    one, other = Fat(Image(made.image)), Fat(Image(made.image))
    crossing = 0
    for folder in ("many", "names", "odd"):
        for entry in one.entries(find(one, folder).node).entries:
            a = entry.attributes
            assert a is not None
            assert other.attributes(a.node) == a
            crossing += a.number * 32 % one.geometry.cluster > one.geometry.cluster - 3 * 32
            for wrong in (Node(a.number, a.generation ^ 1), Node(a.number + 1, a.generation), Node(-1, 1)):
                with pytest.raises(NodeNotFound):
                    other.attributes(wrong)
    assert crossing or name != "exfat-512"


@pytest.mark.parametrize("name", ["fat16", "exfat"])
def test_pages_of_a_folder_put_together_are_the_folder(name: str) -> None:
    fs = Fat(Image(IMAGES[name]().image))
    for folder in ("many", "names"):
        conformance.check_pages(fs, find(fs, folder).node)


def test_runs_tell_where_bytes_stand() -> None:
    for name, path in (("fat32", "in pieces"), ("exfat", "special/after-a-hole"), ("exfat", "special/hole0")):
        fs = Fat(Image(IMAGES[name]().image))
        a = find(fs, path)
        runs = fs.runs(a.node, 0, a.size)
        assert all(isinstance(run, Extent) for run in runs)
        assert (len(runs) > 1) == (path != "special/hole0")
        whole = fs.read(a.node, 0, a.size)
        assert b"".join(fs.read(a.node, at, min(9_973, a.size - at)) for at in range(0, a.size, 9_973)) == whole
        assert fs.runs(a.node, a.size, 1) == []
        assert fs.runs(a.node, 5, 0) == []
        with pytest.raises(NodeNotFound, match="no such stream"):
            fs.runs(a.node, 0, 1, b"x")
        with pytest.raises(WrongKind, match="not a folder"):
            fs.entries(a.node)
        with pytest.raises(WrongKind, match="not a symbolic link"):
            fs.link(a.node)
        with pytest.raises(WrongKind, match="not a file"):
            fs.runs(fs.root(), 0, 1)
        assert fs.scan() is None
        assert fs.streams(a.node) == []


def test_files_with_and_without_a_chain_are_there() -> None:
    """exFAT's NoFatChain flag: its writer uses it for whatever lies in one piece."""
    fs = Fat(Image(IMAGES["exfat"]().image))
    kinds = {fs._item(find(fs, path).node).contiguous for path in ("special/hole0", "special/after-a-hole")}
    assert kinds == {True, False}


def test_beyond_the_valid_size_of_exfat_there_are_zeros() -> None:
    image = Image(IMAGES["exfat"]().image)
    fs = Fat(image)
    a = find(fs, "special/hole0")
    changed = Changed(image)
    changed.put(a.number * 32 + 32 + 8, struct.pack("<Q", 10_000))  # of the stream extension
    fs = Fat(changed)
    again = find(fs, "special/hole0")
    assert again.size == a.size
    runs = fs.runs(again.node, 0, a.size)
    assert any("checksum" in warning for warning in fs.warnings)
    assert runs[-1] == Hole(a.size - 10_000)
    assert fs.read(again.node, 0, a.size) == image.pread(runs[0].offset, 10_000) + bytes(a.size - 10_000)  # type: ignore[union-attr]
    assert fs.runs(again.node, 20_000, 100) == [Hole(100)]


def test_flags_and_lower_case_short_names() -> None:
    fs = Fat(Image(IMAGES["fat16"]().image))
    names = {entry.name for entry in fs.entries(find(fs, "names").node).entries}
    assert names == {name.encode() for name in windows.FAT_NAMES}
    shown = find(fs, "names/UPPER.TXT")
    assert shown.flags == Flag.READ_ONLY | Flag.HIDDEN | Flag.SYSTEM | Flag.ARCHIVE
    assert stat.S_IMODE(shown.mode) == 0o444
    raw = b"ABCDEFGHTXT" + bytes([32, 0])
    for case, name in ((0, b"ABCDEFGH.TXT"), (8, b"abcdefgh.TXT"), (16, b"ABCDEFGH.txt"), (24, b"abcdefgh.txt")):
        assert directory.short_name(raw[:12] + bytes([case])) == name
    assert directory.short_name(b"\x05BC     " + b"   " + bytes(2)) == b"\xcf\x83BC"  # 0xE5 would mean deleted


def test_times() -> None:
    day = 24 * 3600 * 10**9
    assert directory.time(1 << 5 | 1, 0) == 3652 * day
    assert directory.time(1 << 5 | 1, 1 << 11 | 1 << 5 | 1, 150) == 3652 * day + (3600 + 60 + 2) * 10**9 + 1_500_000_000
    assert directory.time(127 << 9 | 2 << 5 | 28, 0) == 4328294400 * 10**9  # 28 February 2107: 2100 is no leap year
    for unset in (0, 1 << 5, 13 << 5 | 1, 2 << 5 | 30):
        assert directory.time(unset, 0) is None
    # exFAT's distance from UTC in quarters of an hour: +01:00, -01:00, and one that is not valid
    assert directory.time(1 << 5 | 2, 0, 0, 0x84) == 3653 * day - day // 24
    assert directory.time(1 << 5 | 2, 0, 0, 0xFC) == 3653 * day + day // 24
    assert directory.time(1 << 5 | 2, 0, 0, 0x04) == 3653 * day


def test_libfsfat_lists_the_same_names_of_a_plain_folder() -> None:
    for name in ("fat12", "fat16", "fat32", "exfat"):
        image = Image(IMAGES[name]().image)
        fs = Fat(image)
        volume = pyfsfat.volume()
        volume.open_file_object(VolumeFile(image))
        theirs = next(e for e in volume.get_root_directory().sub_file_entries if e.name == "many")
        ours = fs.entries(find(fs, "many").node).entries
        assert [e.name.encode() for e in theirs.sub_file_entries] == [e.name for e in ours]


def test_libfsfat_still_loses_long_names() -> None:
    """Why it is not used; when this fails, docs/decisions/0011 may be looked at again."""
    image = Image(IMAGES["exfat"]().image)
    volume = pyfsfat.volume()
    volume.open_file_object(VolumeFile(image))
    names = next(e for e in volume.get_root_directory().sub_file_entries if e.name == "names")
    with pytest.raises(OSError, match="number of name entries"):
        [e.name for e in names.sub_file_entries]
