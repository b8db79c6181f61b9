# SPDX-License-Identifier: Apache-2.0
"""FAT and exFAT that are damaged, cut or made up: what is lost is named, the rest is read, nothing but our errors leaves."""

from __future__ import annotations

import struct

import pytest

from flr.blocks import MemoryDisk
from flr.errors import Corrupt, NodeNotFound, NotRecognised, OutOfBounds, TooMuch
from flr.fs.base import Entry, Flag, Node
from flr.fs.fat import boot, chains, directory
from flr.fs.fat.reader import Fat
from tests.flr.corpus import truth
from tests.flr.corpus.asking import everything
from tests.flr.corpus.image import Changed, Image
from tests.flr.fs.test_fat import IMAGES, find


def opened(name: str) -> tuple[Changed, Fat]:
    volume = Changed(Image(IMAGES[name]().image))
    return volume, Fat(volume)


def listed(fs: Fat, node: Node) -> dict[bytes, Entry]:
    cursor: int | None = 0
    found = {}
    while cursor is not None:
        listing = fs.entries(node, cursor)
        found.update({entry.name: entry for entry in listing.entries})
        cursor = listing.cursor
    return found


def put_entry(volume: Changed, fs: Fat, cluster: int, value: int) -> None:
    assert fs.geometry.bits != 12
    size = fs.geometry.bits // 8
    volume.put(fs.geometry.table + cluster * size, value.to_bytes(size, "little"))


# -- where the volume begins


def test_what_is_no_fat_is_not_recognised() -> None:
    for data in (b"", bytes(1 << 20), b"\xeb\x3c\x90" + bytes(507) + b"\x55\xaa" + bytes(10000)):
        with pytest.raises(NotRecognised):
            Fat(MemoryDisk(data))
    for name, changes in {
        "fat16": {0: 1, 11: 3, 13: 3, 14: 0, 16: 9, 17: 0, 21: 0, 510: 0},
        "fat32": {17: 1, 40: 0x8F, 42: 1, 44: 1},
        "exfat": {3: 0, 80: 0, 96: 0, 105: 9, 108: 99, 109: 99, 110: 7},
    }.items():
        sound = IMAGES[name]().image.read_bytes()[:512]
        parse = boot.parse_exfat if name == "exfat" else boot.parse_fat
        assert parse(sound) is not None
        for at, value in changes.items():
            wrong = bytearray(sound)
            wrong[at] = value
            if at in (14, 17, 80, 96) and not value:
                wrong[at : at + 4 if name == "exfat" else at + 2] = bytes(4 if name == "exfat" else 2)
            assert parse(bytes(wrong)) is None, (name, at)


def test_a_second_table_is_used_where_the_boot_sector_says_so() -> None:
    volume, sound = opened("fat32")
    volume.put(40, b"\x81\0")
    fs = Fat(volume)
    assert fs.geometry.table == sound.geometry.table + sound.geometry.table_size
    assert truth.told(fs) == truth.told(sound)


def test_the_copy_of_the_boot_sector_serves() -> None:
    for name in ("fat32", "fat32-4k", "exfat"):
        volume, sound = opened(name)
        volume.put(0, bytes(512))
        fs = Fat(volume)
        assert fs.warnings == ["the boot sector is damaged; its copy is used"]
        assert truth.told(fs) == truth.told(sound)


def test_a_volume_in_use_says_so() -> None:
    for name, change in {
        "fat16": lambda fs: (fs.geometry.table + 2, b"\xff\x7f"),
        "fat32": lambda fs: (fs.geometry.table + 4, b"\xff\xff\xff\x07"),
        "fat12": lambda fs: (0x25, b"\1"),
        "exfat": lambda fs: (106, b"\2"),
    }.items():
        volume, sound = opened(name)
        assert not sound.warnings
        volume.put(*change(sound))
        assert any("marked dirty" in warning for warning in Fat(volume).warnings)


def test_a_cut_image_is_read_as_far_as_it_goes() -> None:
    for name, path in (("exfat", "special/after-a-hole"), ("fat32", "big.bin")):
        image = Image(IMAGES[name]().image)
        sound = Fat(image)
        a = find(sound, path)
        runs = sound.runs(a.node, 0, a.size)
        end = max(run.offset for run in runs) + 3000  # type: ignore[union-attr]
        fs = Fat(Changed(image, end))
        assert any("the volume is cut" in warning for warning in fs.warnings)
        left = fs.runs(a.node, 0, a.size)
        assert 0 < sum(run.length for run in left) < a.size
        with pytest.raises(OutOfBounds):
            fs.runs(a.node, a.size - 1, 1)


def test_a_label_and_a_bitmap_that_are_not_there() -> None:
    volume, sound = opened("exfat")
    root = sound.chains.at(sound.geometry.root)
    for at in range(root, root + 96, 32):
        kind = volume.pread(at, 1)[0]
        if kind in (directory.BITMAP, directory.LABEL_ENTRY):
            volume.put(at, bytes([kind & 0x7F]))
    fs = Fat(volume)
    assert fs.about.used is None
    assert fs.about.label == ""
    assert any("how much is used is unknown" in warning for warning in fs.warnings)
    volume, sound = opened("fat16")
    root = sound.geometry.root_at
    volume.put(root, b"\xe5")
    assert Fat(volume).about.label == "DATEN"  # of the boot sector
    volume.put(43, b"NO NAME    ")
    assert Fat(volume).about.label == ""


# -- chains


def test_a_chain_that_leads_in_a_circle_is_read_up_to_there() -> None:
    volume, sound = opened("fat16")
    a = find(sound, "big.bin")
    first = sound.runs(a.node, 0, 1)[0]
    cluster = sound.chains.cluster(first.offset)  # type: ignore[union-attr]
    put_entry(volume, sound, cluster + 9, cluster + 3)
    fs = Fat(volume)
    runs = fs.runs(a.node, 0, a.size)
    assert sum(run.length for run in runs) == 10 * fs.geometry.cluster
    with pytest.raises(Corrupt, match="circle"):
        fs.runs(a.node, 10 * fs.geometry.cluster, 1)


def test_a_chain_that_leads_out_or_ends_early() -> None:
    for value, problem in ((1, "does not exist"), (0xFFF0, "does not exist"), (0xFFFF, "longer than its chain")):
        volume, sound = opened("fat16")
        a = find(sound, "big.bin")
        cluster = sound.chains.cluster(sound.runs(a.node, 0, 1)[0].offset)  # type: ignore[union-attr]
        put_entry(volume, sound, cluster + 4, value)
        fs = Fat(volume)
        assert sum(run.length for run in fs.runs(a.node, 0, a.size)) == 5 * fs.geometry.cluster
        with pytest.raises(Corrupt, match=problem):
            fs.runs(a.node, 5 * fs.geometry.cluster, 1)


def test_a_folder_whose_chain_leads_in_a_circle_is_listed_once() -> None:
    for name in ("fat16", "fat32", "exfat-512"):
        volume, sound = opened(name)
        a = find(sound, "many")
        content = sound._content(a.node)
        assert len(content.pieces) > 1 or content.pieces[0].length != sound.geometry.cluster
        if sound._item(a.node).contiguous:
            entry = a.number * 32
            volume.put(entry + 33, b"\1")  # with a chain
            for piece in content.pieces:
                first = sound.chains.cluster(piece.at)
                for cluster in range(first, first + piece.length // 512):
                    put_entry(volume, sound, cluster, cluster + 1)
        last = sound.chains.cluster(content.pieces[-1].at + content.pieces[-1].length - 1)
        put_entry(volume, sound, last, sound.chains.cluster(content.pieces[0].at))
        fs = Fat(volume)
        names = [entry.name for entry in fs.entries(find(fs, "many").node).entries]
        assert len(names) == len(set(names)) > 50
        everything(fs)


def test_a_chain_of_too_many_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains, "MOST_PIECES", 3)
    fs = Fat(Image(IMAGES["fat32"]().image))
    a = find(fs, "in pieces")
    with pytest.raises(TooMuch):
        fs.runs(a.node, 0, a.size)


def test_the_kept_part_of_a_table_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains, "BLOCKS_KEPT", 1)
    monkeypatch.setattr(chains, "BLOCK", 96)
    monkeypatch.setattr("flr.fs.fat.reader.ITEMS_KEPT", 2)
    for name in ("fat12", "fat16"):
        made = IMAGES[name]()
        fs, sound = Fat(Image(made.image)), opened(name)[1]
        assert [fs.chains.entry(cluster) for cluster in range(2, 900)] == [
            sound.chains.entry(cluster) for cluster in range(2, 900)
        ]
        assert len(fs.chains._blocks) == 1
        everything(fs)
        assert len(fs._items) <= 2


# -- entries


def test_sizes_beyond_the_volume_are_suspicious_and_end() -> None:
    volume, sound = opened("fat16")
    a = find(sound, "special/size_65536")
    volume.put(a.number * 32 + 28, b"\xff\xff\xff\xff")
    fs = Fat(volume)
    again = find(fs, "special/size_65536")
    assert again.flags & Flag.SUSPICIOUS
    stored = sum(run.length for run in fs.runs(again.node, 0, again.size))
    assert stored < fs.geometry.size
    with pytest.raises(Corrupt, match="longer than its chain"):
        fs.runs(again.node, stored, 1)
    volume, sound = opened("exfat")
    a = find(sound, "special/hole0")
    volume.put(a.number * 32 + 32 + 24, (1 << 50).to_bytes(8, "little"))
    again = find(Fat(volume), "special/hole0")
    assert again.flags & Flag.SUSPICIOUS
    with pytest.raises(Corrupt, match="does not exist"):
        Fat(volume).runs(again.node, 0, 1)


def test_a_folder_that_contains_itself_ends() -> None:
    volume, sound = opened("fat32")
    a = find(sound, "tree")
    volume.put(a.number * 32 + 20, struct.pack("<H", sound.geometry.root >> 16))
    volume.put(a.number * 32 + 26, struct.pack("<H", sound.geometry.root & 0xFFFF))
    fs = Fat(volume)
    assert listed(fs, find(fs, "tree").node).keys() == listed(fs, fs.root()).keys()
    assert b"/tree/tree" in truth.told(fs, content=False)
    volume.put(a.number * 32 + 20, bytes(2))
    volume.put(a.number * 32 + 26, bytes(2))
    fs = Fat(volume)
    assert listed(fs, find(fs, "tree").node) == {}
    assert any("names are missing" in warning for warning in fs.warnings)


def long_entries(name: str, short: bytes, wrong: str = "") -> bytes:
    """A long name's entries and its short one, as a writer would make them; `wrong` names what is not as it should be."""
    units = name.encode("utf-16-le", "surrogatepass") + b"\0\0"
    units = units[: len(name) * 2] if len(name) % 13 == 0 else units + b"\xff" * (-len(units) % 26)
    parts = [units[at : at + 26] for at in range(0, len(units), 26)]
    made = b""
    code = directory.checksum(short) ^ (wrong == "checksum")
    for number in range(len(parts), 0, -1):
        part = parts[number - 1]
        order = number | (0x40 if number == len(parts) else 0)
        if wrong == "order" and number == 1:
            order = 7
        if wrong == "no first" and number == len(parts):
            continue
        made += bytes([order]) + part[:10] + bytes([15, 0, code]) + part[10:22] + bytes(2) + part[22:]
    return made + short + bytes([32]) + bytes(20)


SHORT = b"SHORT~1 TXT"


def test_long_names_whose_parts_do_not_fit_give_way_to_the_short_one() -> None:
    def names(data: bytes) -> list[bytes]:
        return [item.name for item in directory.parse_fat(data + bytes(32), 0, False).items]

    for name in ("a long name.txt", "x" * 13, "y" * 26, "z" * 255):
        assert names(long_entries(name, SHORT)) == [name.encode()]
    for wrong in ("checksum", "order", "no first"):
        assert names(long_entries("a long name that has parts.txt", SHORT, wrong)) == [b"SHORT~1.TXT"]
    lost = long_entries("a long name.txt", SHORT)[:64]
    assert names(lost[:32] + b"\xe5" + lost[33:64] + SHORT + bytes([32]) + bytes(20)) == [b"SHORT~1.TXT"]
    parsed = directory.parse_fat(long_entries("half of it is beyond the end", SHORT)[:64], 320, False)
    assert parsed.items == []
    assert parsed.rest == 320
    assert not parsed.ended


def test_names_that_none_can_have_are_shown() -> None:
    volume, sound = opened("fat16")
    at = sound.geometry.root_at
    end = next(at + i for i in range(0, 16384, 32) if volume.pread(at + i, 1) == b"\0")
    made = b"".join(
        long_entries(name, bytes(f"N{number:<7}TXT", "ascii"))
        for number, name in enumerate(("a/b", "a\\b", "..", "half \ud800 pair", "zero\0rest"))
    )
    volume.put(end, made)
    fs = Fat(volume)
    names = listed(fs, fs.root()).keys() - listed(sound, sound.root()).keys()
    names = {entry.name for entry in fs.entries(fs.root()).entries}
    assert {b"a%2Fb", b"a\\b", b"half \xed\xa0\x80 pair", b"zero"} <= names
    assert b".." not in names
    assert len([warning for warning in fs.warnings if "a name that none can have" in warning]) == 2
    everything(fs)


def test_a_folder_that_leads_into_a_file_is_no_folder_and_odd_entries_are_left_out() -> None:
    volume, sound = opened("fat16")
    folder, file, many = (find(sound, name) for name in ("tree", "big.bin", "many"))
    volume.put(folder.number * 32 + 26, volume.pread(file.number * 32 + 26, 2))
    before = len(listed(sound, many.node))
    odd = sorted(entry.number for entry in listed(sound, many.node).values())[:2]
    volume.put(odd[0] * 32 + 3, b"\x01")
    volume.put(odd[1] * 32 + 11, b"\xa0")
    fs = Fat(volume)
    with pytest.raises(Corrupt, match="something else"):
        fs.entries(find(fs, "tree").node)
    assert len(listed(fs, many.node)) == before - 2
    assert any("2 entries that are none" in warning for warning in fs.warnings)


def test_exfat_entries_that_are_not_whole_are_listed_with_their_problem() -> None:
    volume, sound = opened("exfat")
    entries = listed(sound, find(sound, "names").node)
    one, two, three = (entries[name].number * 32 for name in (b"lower.txt", b"UPPER.TXT", b"Mixed.Txt"))
    volume.put(one + 32, b"\xc1")  # no stream extension
    volume.put(two + 35, b"\xff")  # a name longer than its entries
    volume.put(three + 1, b"\x63")  # more entries than a file has
    fs = Fat(volume)
    again = listed(fs, find(fs, "names").node)
    problems = sorted(entry.problem.split(":")[0] for entry in again.values() if entry.problem)
    assert problems == ["its entries in the folder are cut", "its entries in the folder are cut", "its name is cut"]
    assert set(entries) - set(again) == {b"lower.txt", b"UPPER.TXT", b"Mixed.Txt"} - set(again)
    assert b"a.b.c.d" in again
    with pytest.raises(NodeNotFound):
        fs.attributes(Node(one // 32, 1))
    everything(fs)


def test_a_page_looks_at_so_much_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flr.fs.fat.reader.BLOCKS_A_CALL", 1)
    monkeypatch.setattr("flr.fs.fat.reader.READ_AT_ONCE", 1024)
    monkeypatch.setattr("flr.fs.fat.reader.AHEAD", 4096)
    for name in ("fat16", "exfat"):
        fs, sound = Fat(Image(IMAGES[name]().image)), opened(name)[1]
        assert listed(fs, find(fs, "many").node).keys() == listed(sound, find(sound, "many").node).keys()
