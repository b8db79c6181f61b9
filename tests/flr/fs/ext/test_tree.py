# SPDX-License-Identifier: Apache-2.0
"""Whole trees, equal to what the kernel tells of the same image: every attribute and every byte."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from flr.blocks import MemoryDisk, Window
from flr.errors import NotRecognised, OutOfBounds, RecoveryError, Unsupported
from flr.fs.base import Flag
from flr.fs.ext.open import open_ext
from flr.fs.ext.superblock import AT
from tests.flr.corpus import truth
from tests.flr.corpus.mounted import Made, mounted, need, run
from tests.flr.fs import conformance
from tests.flr.fs.ext.images import WAYS, busy_one, image


@pytest.fixture(scope="module", params=sorted(WAYS))
def made(request: pytest.FixtureRequest) -> Made:
    return image(request.param)


def test_the_tree_is_the_kernels(made: Made) -> None:
    fs = open_ext(MemoryDisk(made.image.read_bytes()))
    assert truth.differences(made.truth, truth.told(fs)) == []
    assert fs.warnings == []


def test_the_interface_is_kept(made: Made) -> None:
    disk = MemoryDisk(made.image.read_bytes())
    conformance.check(open_ext(disk), disk)


def test_a_partition_that_is_not_aligned_to_anything_reads_the_same() -> None:
    made = image("ext4-inline")
    data = made.image.read_bytes()
    window = Window(MemoryDisk(b"\xee" * 32256 + data + b"\xee" * 512), 32256, len(data))
    assert truth.differences(made.truth, truth.told(open_ext(window))) == []


def test_what_it_is_is_told() -> None:
    about = {
        way: open_ext(MemoryDisk(image(way).image.read_bytes())).about for way in ("ext4", "ext3", "ext2-old-inodes")
    }
    assert [one.kind for one in about.values()] == ["ext4", "ext3", "ext2"]
    assert [one.journal for one in about.values()] == ["clean", "clean", ""]
    for way, one in about.items():
        facts = dict(line.split(":", 1) for line in run("dumpe2fs", "-h", image(way).image).splitlines() if ":" in line)
        free = int(facts["Free blocks"]) * one.block_size
        assert one.uuid == facts["Filesystem UUID"].strip()
        assert one.size == int(facts["Block count"]) * int(facts["Block size"])
        assert one.used == one.size - free
        assert one.block_size == int(facts["Block size"])


def test_blocks_of_64_kib_and_folded_names(tmp_path: Path) -> None:
    """No kernel here mounts blocks larger than a page; mke2fs fills such a file system itself."""
    need("mkfs.ext4")
    source, image_file = tmp_path / "source", tmp_path / "image"
    (source / "folder").mkdir(parents=True)
    for k in range(3000):
        (source / "folder" / f"{k:0200d}").write_bytes(b"%d" % k)
    (source / "large").write_bytes(bytes(range(256)) * 1000)
    with open(image_file, "wb") as file:
        file.truncate(512 << 20)
    run("mkfs.ext4", "-q", "-b", "65536", "-F", "-O", "casefold", "-d", source, image_file)
    run("debugfs", "-w", "-R", "set_inode_field folder flags 0x40081000", image_file)
    fs = open_ext(MemoryDisk(image_file.read_bytes()))
    folder = next(e.attributes for e in fs.entries(fs.root()).entries if e.name == b"folder")
    assert folder is not None
    assert folder.flags & Flag.CASE_FOLDED
    ours = truth.told(fs)
    real = truth.kernel(source)
    seen = {path: (fact.size, fact.content, fact.mode) for path, fact in ours.items() if fact.content}
    assert seen == {path: (fact.size, fact.content, fact.mode) for path, fact in real.items() if fact.content}


def test_a_folder_of_many_blocks_with_an_index(tmp_path: Path) -> None:
    need("mkfs.ext4", "mount")
    image_file = tmp_path / "image"
    with open(image_file, "wb") as file:
        file.truncate(96 << 20)
    run("mkfs.ext4", "-q", "-b", "1024", "-N", "40000", image_file)
    with mounted(image_file) as place:
        (place / "many").mkdir()
        for k in range(20_000):
            (place / "many" / f"a name that is long enough {k}").touch()
        for k in range(0, 20_000, 3):
            (place / "many" / f"a name that is long enough {k}").unlink()
    with mounted(image_file, "ro") as place:
        real = truth.kernel(place)
    fs = open_ext(MemoryDisk(image_file.read_bytes()))
    assert truth.differences(real, truth.told(fs)) == []
    assert fs.warnings == []


# -- what is odd


def altered(data: bytes, *changes: tuple[int, bytes]) -> MemoryDisk:
    made = bytearray(data)
    for at, raw in changes:
        made[at : at + len(raw)] = raw
    return MemoryDisk(bytes(made))


def test_a_lost_superblock_is_found_in_its_backup() -> None:
    for way in ("ext4", "ext4-1k", "ext3-1k"):
        made = image(way)
        data = made.image.read_bytes()
        broken = (
            altered(data, (AT + 24, b"\xff\xff\xff\xff")) if way != "ext4" else altered(data, (AT + 4, b"\x01\0\0\0"))
        )
        fs = open_ext(broken)
        assert any("backup" in text for text in fs.warnings)
        assert truth.differences(made.truth, truth.told(fs)) == []


def test_lost_group_descriptors_are_found_in_their_backup() -> None:
    made = image("ext4")
    data = made.image.read_bytes()
    fs = open_ext(altered(data, (4096 + 8, b"\xff\xff\xff\x7f")))
    assert truth.differences(made.truth, truth.told(fs)) == []
    assert any("group descriptors" in text for text in fs.warnings)


def test_features_that_are_not_known_are_refused_by_name() -> None:
    data = image("ext4").image.read_bytes()
    incompat = struct.unpack_from("<I", data, AT + 96)[0]
    with pytest.raises(Unsupported, match="0x80000"):
        open_ext(altered(data, (AT + 96, struct.pack("<I", incompat | 0x80000))))
    with pytest.raises(Unsupported, match="journal of another"):
        open_ext(altered(data, (AT + 96, struct.pack("<I", incompat | 8))))


def test_what_is_none_is_not_recognised() -> None:
    with pytest.raises(NotRecognised):
        open_ext(MemoryDisk(bytes(1 << 20)))
    with pytest.raises(OutOfBounds):
        open_ext(MemoryDisk(bytes(100)))


def test_a_cut_image_says_so_and_shows_the_rest() -> None:
    made = image("ext4")
    data = made.image.read_bytes()
    fs = open_ext(MemoryDisk(data[: len(data) // 2]))
    assert any("the end of it is missing" in text for text in fs.warnings)
    ours = truth.told(fs)
    whole = [fact for path, fact in ours.items() if fact == made.truth.get(path)]
    assert len(whole) > 10
    assert any("outside of its volume" in fact.problem or "beyond the end" in fact.problem for fact in ours.values())


def test_wrong_checksums_are_told_and_the_rest_is_shown() -> None:
    data = image("ext4").image.read_bytes()
    fs = open_ext(MemoryDisk(data))
    number = next(e for e in fs.entries(fs.root()).entries if e.name == b"big.bin").number
    place = fs._place(number)
    wrong = open_ext(altered(data, (place + 8, b"\x01\x02\x03\x04")))  # its access time
    ours = truth.told(wrong)
    assert f"inode {number} has a wrong checksum" in wrong.warnings
    assert ours[b"/big.bin"].content == image("ext4").truth[b"/big.bin"].content
    folder = fs.inode(fs.root().number)
    block = next(iter(fs._mapping.spans(folder, 0, 1))).physical
    wrong = open_ext(altered(data, (block * 4096 + 4096 - 12 + 8, b"\0\0\0\0")))
    assert wrong.entries(wrong.root()).entries
    assert any("block 0 has a wrong checksum" in text for text in wrong.warnings)


def test_encrypted_files_and_folders_are_shown_as_such(tmp_path: Path) -> None:
    """Flags as fscrypt sets them; the content below them is whatever it is."""
    data = image("ext4-no-checksums").image.read_bytes()
    fs = open_ext(MemoryDisk(data))
    listing = {e.name: e.number for e in fs.entries(fs.root()).entries}
    changes = []
    for name in (b"big.bin", b"many"):
        place = fs._place(listing[name]) + 32
        flags = struct.unpack_from("<I", data, place)[0]
        changes.append((place, struct.pack("<I", flags | 0x800)))
    fs = open_ext(altered(data, *changes))
    entries = {e.name: e.attributes for e in fs.entries(fs.root()).entries}
    file, folder = entries[b"big.bin"], entries[b"many"]
    assert file is not None
    assert folder is not None
    assert file.flags & folder.flags & Flag.ENCRYPTED
    with pytest.raises(Unsupported, match="encrypted by the guest"):
        fs.runs(file.node, 0, 10)
    names = [entry.name for entry in fs.entries(folder.node).entries]
    assert len(names) > 100
    assert all(name.replace(b"-", b"").replace(b"_", b"").isalnum() for name in names)


def test_a_number_used_again_is_not_the_old_file() -> None:
    data = image("ext4-no-checksums").image.read_bytes()
    fs = open_ext(MemoryDisk(data))
    entry = next(e for e in fs.entries(fs.root()).entries if e.name == b"big.bin")
    assert entry.attributes
    node = entry.attributes.node
    again = open_ext(altered(data, (fs._place(node.number) + 100, struct.pack("<I", node.generation ^ 5))))
    with pytest.raises(RecoveryError, match="another file"):
        again.attributes(node)


def test_an_entry_that_leads_to_nothing_is_listed_with_its_problem() -> None:
    data = image("ext4-no-checksums").image.read_bytes()
    fs = open_ext(MemoryDisk(data))
    entry = next(e for e in fs.entries(fs.root()).entries if e.name == b"big.bin")
    fs = open_ext(altered(data, (fs._place(entry.number), bytes(2))))
    bad = next(e for e in fs.entries(fs.root()).entries if e.name == b"big.bin")
    assert bad.attributes is None
    assert "not in use" in bad.problem
    assert bad.kind == 0o100000
    with pytest.raises(RecoveryError):
        fs.attributes(entry.attributes.node)  # type: ignore[union-attr]


def test_a_torn_superblock_does_not_hide_a_journal() -> None:
    """A backup never says that the journal holds something: the journal itself is asked."""
    data = busy_one().image.read_bytes()
    sound = truth.told(open_ext(MemoryDisk(data)))
    fs = open_ext(altered(data, (AT + 0x3FC, b"torn")))
    assert fs.about.journal.startswith("replayed")
    assert truth.differences(sound, truth.told(fs)) == []
    clean = image("ext4").image.read_bytes()
    assert open_ext(altered(clean, (AT + 0x3FC, b"torn"))).about.journal == "clean"
    lost = open_ext(altered(clean, (AT, bytes(1024))))
    assert truth.differences(image("ext4").truth, truth.told(lost)) == []


def test_a_file_system_without_a_journal_says_that_it_was_in_use(tmp_path: Path) -> None:
    copy = tmp_path / "image"
    run("mkfs.ext2", "-q", copy, "8192")
    assert open_ext(MemoryDisk(copy.read_bytes())).warnings == []
    with mounted(copy):
        data = copy.read_bytes()
    assert any("in use" in text for text in open_ext(MemoryDisk(data)).warnings)


def test_claims_beyond_64_bits_are_damage() -> None:
    data = image("ext4-no-checksums").image.read_bytes()
    incompat = struct.unpack_from("<I", data, AT + 96)[0]
    for high in (0x7FFFFFFF, 0x000FFFFF):
        wide = altered(data, (AT + 96, struct.pack("<I", incompat | 0x80)), (AT + 0x150, struct.pack("<I", high)))
        fs = None
        try:
            fs = open_ext(wide)
        except RecoveryError:
            continue
        assert fs.about.size < 1 << 63
