# SPDX-License-Identifier: Apache-2.0
"""NTFS that is damaged, torn, cut or made up: what is lost is named, the rest is read, and nothing else than our errors leaves."""

from __future__ import annotations

import struct

import pytest

from flr.blocks import Extent, MemoryDisk
from flr.errors import Corrupt, NodeNotFound, NotRecognised, OutOfBounds, Unsupported
from flr.fs.base import Flag, Node
from flr.fs.ntfs import boot, content, index, record
from flr.fs.ntfs.reader import Ntfs
from tests.flr.corpus import truth, windows
from tests.flr.corpus.asking import everything
from tests.flr.corpus.image import Changed, Image
from tests.flr.fs.ntfs_plain import CLUSTER, attribute, find, listed, place, plain

# -- where the volume begins


def test_what_is_no_ntfs_is_not_recognised() -> None:
    for data in (b"", bytes(100), bytes(1 << 20), b"\xeb\x52\x90NTFS    " + bytes(10000)):
        with pytest.raises(NotRecognised):
            Ntfs(MemoryDisk(data))
    sound = bytearray(windows.ntfs_plain().image.read_bytes()[:512])
    assert boot.parse(bytes(sound)) is not None
    for at, value in ((11, 3), (13, 3), (13, 200), (0x28, 0), (0x30, 255), (0x40, 100), (0x44, 3), (0x40, 5)):
        wrong = bytearray(sound)
        wrong[at] = value
        if at == 0x28:
            wrong[0x28:0x30] = bytes(8)
        if at == 0x30:
            wrong[0x30:0x38] = b"\xff" * 8
        assert boot.parse(bytes(wrong)) is None, at


def test_sizes_in_a_boot_sector_are_counts_or_powers() -> None:
    sound = bytearray(windows.ntfs_plain().image.read_bytes()[:512])
    sound[13] = 247  # 2^9 sectors
    sound[0x30:0x38] = (1).to_bytes(8, "little")
    sound[0x44] = 244
    found = boot.parse(bytes(sound))
    assert found is not None
    assert found.cluster == 512 * 512
    sound[13], sound[0x40] = 8, 1
    found = boot.parse(bytes(sound))
    assert found is not None
    assert found.record == 4096


def test_the_copy_of_the_boot_sector_serves_for_all() -> None:
    volume = plain()
    volume.put(0, bytes(512))
    fs = Ntfs(volume)
    assert any("copy at the volume's end" in warning for warning in fs.warnings)
    told = truth.told(fs)
    assert not [fact for fact in told.values() if fact.problem and b"point" not in fact.path]
    assert told[b"/packed/prose"].content == windows.ntfs_plain().truth[b"/packed/prose"].content


def test_the_mirror_of_the_mft_serves_for_its_first_record() -> None:
    volume = plain()
    sound = Ntfs(volume)
    volume.put(sound.geometry.mft, b"BAAD")
    fs = Ntfs(volume)
    assert any("mirror is used" in warning for warning in fs.warnings)
    assert listed(fs, fs.root()).keys() == listed(sound, sound.root()).keys()
    volume.put(sound.geometry.mirror + 100, bytes(600))
    with pytest.raises(Corrupt):
        Ntfs(volume)


def test_a_cut_image_is_read_as_far_as_it_goes() -> None:
    image = Image(windows.ntfs_plain().image)
    sound = Ntfs(image)
    last = max(
        run.offset + run.length
        for entry in listed(sound, sound.root()).values()
        if entry.attributes and entry.attributes.mode >> 12 == 8
        for run in sound.runs(entry.attributes.node, 0, 1 << 30)
        if isinstance(run, Extent)
    )
    fs = Ntfs(Changed(image, last - 5000))
    assert any("the volume is cut" in warning for warning in fs.warnings)
    cut = 0
    for entry in listed(fs, fs.root()).values():
        a = entry.attributes
        if a and a.mode >> 12 == 8 and a.size:
            try:
                runs = fs.runs(a.node, 0, a.size)
                assert sum(run.length for run in runs) <= a.size
            except OutOfBounds:
                cut += 1
    assert cut == 1


# -- records


def test_a_damaged_record_is_listed_with_its_problem_and_its_neighbours_are_whole() -> None:
    volume = plain()
    sound = Ntfs(volume)
    nodes = {name: find(sound, name).node for name in ("small", "small2", "large", "name-Q-s", "Q")}
    begins = {name: place(sound, node.number) for name, node in nodes.items()}
    volume.put(begins["small"], b"XXXX")
    volume.put(begins["small2"] + 510, b"\xaa\xbb")  # torn
    volume.put(begins["large"] + 22, bytes(2))  # not in use
    volume.put(begins["name-Q-s"] + 16, b"\x77\x77")  # another sequence
    volume.put(begins["Q"] + 4, b"\xff\x7f")  # the update sequence outside of it
    fs = Ntfs(volume)
    entries = listed(fs, fs.root())
    problems = {name: entry.problem for name, entry in entries.items() if entry.problem}
    assert {name: problem.split(":")[0] for name, problem in problems.items()} == {
        b"small": "this structure is not what should stand here",
        b"small2": "a structure was torn while it was written",
        b"large": "its record is not in use",
        b"name-Q-s": "its record is another's now",
        b"Q": "an update sequence has an impossible size",
    }
    assert all(entries[name].attributes is None and entries[name].kind for name in problems)
    assert entries[b"linked"].attributes is not None
    with pytest.raises(NodeNotFound, match="gone"):
        fs.attributes(nodes["large"])
    with pytest.raises(Corrupt):
        fs.attributes(nodes["small"])
    fs.scan()
    assert any("found by no search" in warning for warning in fs.warnings)


def test_attributes_that_do_not_fit_are_an_error_of_their_record() -> None:
    volume = plain()
    sound = Ntfs(volume)
    for name, changes, problem in (
        ("small", ((4, b"\xf0\xff"),), "impossible length"),
        ("small2", ((4, b"\x08\0\0\0"),), "impossible length"),
        ("Q", ((16, b"\xff\0\0\0"),), "value is cut"),
        ("QQ", ((8, b"\1"),), "attribute is cut"),
    ):
        at = attribute(sound, find(sound, name).number, record.DATA)
        for offset, data in changes:
            volume.put(at + offset, data)
        fs = Ntfs(volume)
        assert problem in listed(fs, fs.root())[name.encode()].problem


def test_an_mft_that_lost_a_part_has_the_others() -> None:
    volume = Changed(Image(windows.ntfs_in_pieces().image))
    sound = Ntfs(volume)
    whole = sound.mft.count
    parts = sound.mft._continuations(sound.mft._parsed(0))
    holders = [number for number in parts if sound.mft._parsed(number).find(record.DATA)]
    volume.put(place(sound, holders[0]), b"BAAD")
    fs = Ntfs(volume)
    assert 100 < fs.mft.count < whole
    assert any("the MFT is not whole" in warning for warning in fs.warnings)
    assert sum(entry.attributes is not None for entry in listed(fs, find(fs, "tiny").node).values()) > 20
    everything(fs)


def test_a_hard_link_of_many_names_survives_the_loss_of_a_part() -> None:
    volume = plain()
    sound = Ntfs(volume)
    a = find(sound, "linked")
    assert a.links == 301
    parts = sound.mft._continuations(sound.mft._parsed(a.number))
    assert len(parts) > 5
    volume.put(place(sound, parts[2]), b"BAAD")
    volume.put(place(sound, parts[3]) + 32, (3).to_bytes(8, "little"))  # continues another record
    fs = Ntfs(volume)
    again = find(fs, "linked")
    assert 100 < again.links < 301
    assert fs.read(again.node, 0, 10) == b"linked"
    assert len([warning for warning in fs.warnings if "a part is missing" in warning]) == 2
    with pytest.raises(NodeNotFound):
        fs.attributes(Node(parts[0], 1))
    listed_at = attribute(sound, a.number, record.LIST)
    for offset, data in ((48, (1 << 40).to_bytes(8, "little")), (32, b"\0\x10")):
        volume = plain()
        volume.put(listed_at + offset, data)
        fs = Ntfs(volume)
        listed(fs, fs.root())
        assert any("attribute list" in warning or "is cut" in warning for warning in fs.warnings)


# -- names


def test_names_that_no_program_should_make_are_shown() -> None:
    volume = plain()
    image = windows.ntfs_plain().image.read_bytes()

    def rename(old: str, new: bytes) -> None:
        units = old.encode("utf-16-le")
        at = image.find(units)
        count = 0
        while at >= 0:
            if image[at - 2] == len(units) // 2:  # after the length and the name space: a name of that length
                volume.put(at, new)
                count += 1
            at = image.find(units, at + 1)
        assert count >= 2

    rename("name-Q-s", b"n\0a\0m\0e\0-\0\x00\xd8-\0s\0")  # half of a pair
    rename("name-R-n", "name-\0-n".encode("utf-16-le"))
    rename("name-S-u", "name-/-u".encode("utf-16-le"))
    rename("name-T-b", "name-\\-b".encode("utf-16-le"))
    rename("QQ", "..".encode("utf-16-le"))
    fs = Ntfs(volume)
    entries = listed(fs, fs.root())
    for name, written in (
        (b"name-\xed\xa0\x80-s", b"name-Q-s"),
        (b"name-%00-n", b"name-R-n"),
        (b"name-%2F-u", b"name-S-u"),
        (b"name-\\-b", b"name-T-b"),
    ):
        a = entries[name].attributes
        assert a is not None
        assert fs.read(a.node, 0, 100) == written
    assert b".." not in entries
    assert len([warning for warning in fs.warnings if "a name that none can have" in warning]) == 3
    assert b"name-\xed\xa0\x80-s" in {name for found in fs.scan().found for _, name in found.names}


def test_a_name_that_has_only_a_short_form_is_listed() -> None:
    volume = plain()
    sound = Ntfs(volume)
    a = find(sound, "special/Long name with a short one.txt")
    assert a.links == 1
    whole = sound.mft.record(a.number)
    spaces = [each.value[65] for each in whole.attributes if each.kind == record.NAME]
    assert sorted(spaces) == [1, 2]
    raw = volume.pread(place(sound, a.number), 1024)
    long = "Long name with a short one.txt".encode("utf-16-le")
    at = raw.find(long)
    volume.put(place(sound, a.number) + at - 1, b"\0")  # POSIX: no pair any more
    fs = Ntfs(volume)
    assert b"LONGNA~1.TXT" in listed(fs, find(fs, "special").node)


# -- folders


def test_damaged_blocks_of_an_index_lose_their_own_names_only() -> None:
    volume = plain()
    sound = Ntfs(volume)
    node = find(sound, "many").node
    whole = listed(sound, node)
    where = sound.mft.stream(sound.mft.record(node.number), record.INDEX, index.I30)
    assert where is not None
    runs = content.segments(where, 0, where.size, CLUSTER, 100, "")
    blocks = [run.offset + at for run in runs if isinstance(run, Extent) for at in range(0, run.length, CLUSTER)]
    assert len(blocks) > 8
    used = [at for at in blocks if volume.pread(at, 4) == b"INDX"]
    volume.put(used[0], b"XXXX")
    volume.put(used[1] + 510, b"\x12\x34")
    volume.put(used[2] + 24 + 4, b"\xff\xff\xff\x7f")  # used bytes
    first = 24 + int.from_bytes(volume.pread(used[3] + 24, 4), "little")
    volume.put(used[3] + first + 8, b"\x04\0")  # an entry of 4 bytes: no end without a check
    first = 24 + int.from_bytes(volume.pread(used[4] + 24, 4), "little")
    volume.put(used[4] + first + 10, b"\x10\0")  # a key without room for a name
    first = 24 + int.from_bytes(volume.pread(used[5] + 24, 4), "little")
    volume.put(used[5] + first + 16 + 64, b"\xff")  # a name longer than its entry
    fs = Ntfs(volume)
    left = listed(fs, node)
    assert 50 < len(left) < len(whole)
    assert left.items() <= whole.items()
    assert len([warning for warning in fs.warnings if "names are missing" in warning]) == 6


def test_a_node_of_an_index_without_an_end_is_told() -> None:
    names, problem = index.parse(struct.pack("<II", 16, 16) + bytes(8), 0, 0, 0, "x")
    assert names == []
    assert problem is not None
    assert "has no end" in problem.what


def test_a_folder_whose_index_is_made_up() -> None:
    volume = plain()
    sound = Ntfs(volume)
    many = find(sound, "many")
    at = attribute(sound, many.number, record.INDEX)
    volume.put(at + 48, (1 << 50).to_bytes(8, "little"))  # it claims a petabyte of names
    fs = Ntfs(volume)
    assert len(listed(fs, many.node)) == len(listed(sound, many.node))
    at = attribute(sound, many.number, record.INDEX_ROOT)
    value = at + int.from_bytes(volume.pread(at + 20, 2), "little")
    volume.put(value + 8, (3).to_bytes(4, "little"))
    fs = Ntfs(volume)
    assert len(listed(fs, many.node)) == len(listed(sound, many.node))
    assert any("impossible size" in warning for warning in fs.warnings)
    volume.put(at + 16, bytes(4))  # nothing in it
    with pytest.raises(Corrupt, match="no index"):
        listed(Ntfs(volume), many.node)
    volume = plain()
    at = attribute(sound, many.number, record.BITMAP)
    volume.put(at + 16, b"\xff\xff")
    fs = Ntfs(volume)
    assert b"many" in listed(fs, fs.root())


def test_a_folder_is_looked_at_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = Ntfs(plain())
    node = find(sound, "many").node
    whole = listed(sound, node)
    monkeypatch.setattr(index, "BLOCKS_A_CALL", 2)
    assert 0 < len(Ntfs(plain()).entries(node).entries) < len(whole)
    assert listed(Ntfs(plain()), node) == whole
    monkeypatch.setattr(index, "MOST_BLOCKS", 3)
    fs = Ntfs(plain())
    assert len(listed(fs, node)) < len(whole)
    assert any("the first 3 are read" in warning for warning in fs.warnings)


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flr.fs.ntfs.reader.KEPT", 1)
    monkeypatch.setattr("flr.fs.ntfs.mft.KEPT", 1)
    monkeypatch.setattr("flr.fs.ntfs.mft.GAP", 0)
    fs = Ntfs(plain())
    everything(fs)
    assert len(fs._indexes) == len(fs._contents) == len(fs.mft._kept) == 1


def test_a_folder_that_contains_itself_ends() -> None:
    """Its entry in the root leads back to the root: a walk that knows nodes enters it once."""
    volume = plain()
    sound = Ntfs(volume)
    a = find(sound, "many")
    image = windows.ntfs_plain().image.read_bytes()
    reference = struct.pack("<Q", a.generation << 48 | a.number)
    at = image.find(reference)
    root = struct.pack("<Q", 5 << 48 | 5)
    count = 0
    while at >= 0:
        if image[at + 16 : at + 24] == root and image[at + 82 : at + 90] == "many".encode("utf-16-le"):
            volume.put(at, root)
            count += 1
        at = image.find(reference, at + 1)
    assert count
    fs = Ntfs(volume)
    found = listed(fs, fs.root())[b"many"].attributes
    assert found is not None
    assert found.node == fs.root()
    assert b"/many" in truth.told(fs, content=False)
    everything(fs)


# -- content


def test_sizes_beyond_the_volume_are_suspicious_and_end() -> None:
    volume = plain()
    sound = Ntfs(volume)
    a = find(sound, "large")
    at = attribute(sound, a.number, record.DATA)
    volume.put(at + 48, (1 << 60).to_bytes(8, "little"))
    fs = Ntfs(volume)
    again = find(fs, "large")
    assert again.size == 1 << 60
    assert again.flags & Flag.SUSPICIOUS
    runs = fs.runs(a.node, 0, 1 << 60)
    assert sum(run.length for run in runs) == 1 << 60  # what is not initialized reads as zeros
    volume.put(at + 56, (1 << 60).to_bytes(8, "little"))
    fs = Ntfs(volume)
    runs = fs.runs(a.node, 0, 1 << 60)
    stored = sum(run.length for run in runs)
    assert stored == 74 * CLUSTER
    with pytest.raises(Corrupt, match="longer than what it has"):
        fs.runs(a.node, stored, 1)


def test_bytes_that_were_never_written_are_zeros() -> None:
    volume = plain()
    sound = Ntfs(volume)
    a = find(sound, "large")
    volume.put(attribute(sound, a.number, record.DATA) + 56, (10_001).to_bytes(8, "little"))
    fs = Ntfs(volume)
    data = fs.read(a.node, 0, a.size)
    assert data == sound.read(a.node, 0, 10_001) + bytes(a.size - 10_001)


def test_run_lists_that_lead_out_of_the_volume_or_are_cut() -> None:
    for runs, problem in (
        (b"\x11\x01", "is cut"),
        (b"\x91\x01\x01", "is cut"),
        (b"\x10\x01", "is cut"),
        (b"\x11\x01\xff", "outside of its volume"),
        (b"\x21\x7f\x00\x7f", "outside of its volume"),
        (b"\x01\x00", "impossible length"),
        (b"\x08" + b"\xff" * 8, "impossible length"),
    ):
        with pytest.raises(Corrupt, match=problem):
            content.decode(runs, 0, 1000, "x")
    assert content.decode(b"\x11\x05\x10\x01\x03\x11\x02\xf8\x00", 2, 1000, "x") == [(2, 5, 16), (7, 3, -1), (10, 2, 8)]
    part = record.Attribute(record.DATA, b"", 0, False, b"\x11\x01\x01", 5, 5)
    with pytest.raises(Corrupt, match="part of a stream is missing"):
        content.gather([part], 1000, "x")


def test_encrypted_files_are_named_so() -> None:
    volume = plain()
    sound = Ntfs(volume)
    a = find(sound, "large")
    volume.put(attribute(sound, a.number, record.DATA) + 12, struct.pack("<H", record.ENCRYPTED))
    fs = Ntfs(volume)
    assert find(fs, "large").flags & Flag.ENCRYPTED
    with pytest.raises(Unsupported, match="encrypted") as raised:
        fs.read(a.node, 0, 10)
    assert "certificate" in raised.value.hint


def test_the_library_is_not_shown_what_makes_it_free_memory_twice() -> None:
    volume = Changed(Image(windows.wof()[0]))
    sound = Ntfs(volume)
    one, two = (find(sound, name) for name in ("lzx-a.txt", "x4k-a.txt"))
    volume.put(attribute(sound, one.number, record.DATA) + 48, b"\xff" * 8)
    (packed,) = sound.mft.record(two.number).find(record.DATA, "WofCompressedData".encode("utf-16-le"))
    raw = volume.pread(place(sound, two.number), 1024)
    volume.put(place(sound, two.number) + raw.find(packed.value), b"\x91")
    fs = Ntfs(volume)
    for node in (one.node, two.node):
        with pytest.raises(Corrupt, match=r"larger than NTFS allows|run list is cut"):
            fs.security(node)
        with pytest.raises(Corrupt):
            fs.read(node, 0, 100)


def test_compressed_content_that_is_damaged() -> None:
    volume = plain()
    sound = Ntfs(volume)
    a = find(sound, "packed/prose")
    at = attribute(sound, a.number, record.DATA)
    found = sound.mft.stream(sound.mft.record(a.number), record.DATA)
    assert found is not None
    stored = [span for span in found.spans if span.at >= 0]
    volume.put(stored[2].at * CLUSTER, b"\xff" * 3000)
    fs = Ntfs(volume)
    damaged = stored[2].first * CLUSTER
    data = b""
    while len(data) < damaged:
        data += fs.read(a.node, len(data), a.size)
    with pytest.raises(Corrupt, match="compressed content cannot be read") as raised:
        fs.read(a.node, len(data), a.size)
    assert data == Ntfs(plain()).read(a.node, 0, damaged)
    assert damaged > 65536
    assert len(str(raised.value)) < 300
    assert fs.read(a.node, damaged + 65536, 1000) == Ntfs(plain()).read(a.node, damaged + 65536, 1000)
    for value, kind, problem in ((2, Unsupported, "unknown way"), (1, Corrupt, "impossible size")):
        changed = plain()
        changed.put(at + 12, struct.pack("<H", value))
        changed.put(at + 34, b"\x20")
        with pytest.raises(kind, match=problem):
            Ntfs(changed).runs(a.node, 0, 1)
    changed = plain()
    changed.put(at + 48, struct.pack("<QQ", 1 << 40, 1 << 40))
    fs = Ntfs(changed)
    with pytest.raises(Corrupt, match="longer than what it has"):
        fs.runs(a.node, 1 << 39, 10)
