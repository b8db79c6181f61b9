# SPDX-License-Identifier: Apache-2.0
"""Tables of partitions that sfdisk and sgdisk made, told as sfdisk tells them; then damaged, cut and crafted."""

from __future__ import annotations

import json
import re
import subprocess
import zlib
from pathlib import Path
from shutil import which

import pytest

from flr.blocks import MemoryDisk
from flr.errors import Corrupt, OutOfBounds
from flr.volumes.find import find
from flr.volumes.partitions import MOST_PARTITIONS, Table, table
from tests.flr.volumes.disks import Changed

MIB = 1 << 20
EXT = (1080, b"\x53\xef")

FIELD = re.compile(r'(\w+)= *"?([^,"]*)')

GPT = """label: gpt
size=1MiB, type=uefi, name="EFI system"
size=3MiB, type=linux, name="data one"
size=2MiB, type=lvm
start=20MiB, size=5MiB, type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7, uuid=01234567-89AB-CDEF-0123-456789ABCDEF
type=swap
"""
MBR = """label: dos
label-id: 0x1234abcd
size=4MiB, type=83, bootable
size=3MiB, type=7
size=20MiB, type=5
type=8e
size=2MiB, type=82
size=3MiB, type=83
size=4MiB, type=fd
"""
MBR_OF_ONE = "label: dos\nstart=1MiB, type=83\n"


def partitioned(place: Path, script: str, sector: int = 512, size: int = 64 * MIB) -> Path:
    """By sfdisk, or by fdisk, which alone of the two can be told of other sectors; its own account stands beside the image."""
    for program in ("sfdisk", "fdisk"):
        if which(program) is None:
            pytest.skip(f"needs {program} (package fdisk)")
    image = place / "image"
    with open(image, "wb") as file:
        file.truncate(size)
    (place / "script").write_text(script)
    (place / "account").unlink(missing_ok=True)
    if sector == 512:
        subprocess.run(["sfdisk", "-q", image], input=script.encode(), check=True, capture_output=True)
    else:
        keys = f"I\n{place / 'script'}\nO\n{place / 'account'}\nw\n".encode()
        subprocess.run(["fdisk", "-b", str(sector), image], input=keys, check=True, capture_output=True)
    return image


def told(image: Path, sector: int = 512) -> list[tuple[int, int, int, str]]:
    """(number, start, size, type uuid name) by who made it, in bytes."""
    if sector == 512:
        said = subprocess.run(["sfdisk", "--json", image], check=True, capture_output=True)
        parts = json.loads(said.stdout)["partitiontable"]["partitions"]
    else:
        lines = [line for line in (image.parent / "account").read_text().splitlines() if line.startswith(str(image))]
        parts = [
            {"node": line.split(" ")[0]}
            | {
                key: int(value) if value.isdigit() and key in ("start", "size") else value
                for key, value in FIELD.findall(line)
            }
            for line in lines
        ]
    return [
        (
            int(part["node"].removeprefix(str(image))), part["start"] * sector, part["size"] * sector,
            f"{part['type']} {part.get('uuid', '')} {part.get('name', '')}".lower(),
        )
        for part in parts
    ]  # fmt: skip


def read(disk: Changed | MemoryDisk) -> Table:
    found = table(disk)
    assert found is not None
    return found


@pytest.mark.parametrize("sector", [512, 4096])
def test_gpt_as_sfdisk_tells_it(tmp_path: Path, sector: int) -> None:
    """The volume says 512 both times: an image does not tell."""
    image = partitioned(tmp_path, GPT, sector)
    found = read(Changed(image))
    assert [(p.number, p.start, p.size, f"{p.type} {p.uuid} {p.name}".lower()) for p in found.partitions] == told(
        image, sector
    )
    assert (found.kind, found.sector_size, found.warnings, found.why) == ("GPT", sector, [], None)
    assert [p.words for p in found.partitions] == [
        "EFI system",
        "Linux",
        "Linux LVM",
        "Microsoft basic data",
        "Linux swap",
    ]
    assert find([Changed(image)]).raw("0p1").sector_size == sector


def test_mbr_as_sfdisk_tells_it(tmp_path: Path) -> None:
    image = partitioned(tmp_path, MBR)
    found = read(Changed(image))
    assert [(p.number, p.start, p.size, p.type.lstrip("0")) for p in found.partitions] == [
        (number, start, size, type.split()[0])
        for number, start, size, type in told(image)  # noqa: A001
    ]
    assert (found.kind, found.uuid, found.warnings) == ("MBR", "1234abcd", [])
    assert [p.number for p in found.partitions] == [1, 2, 3, 4, 5, 6, 7]
    extended = find([Changed(image)]).entry("0p3")
    assert (extended.holds, extended.why_not) == ("extended", "")


def test_mbr_on_sectors_of_4096_bytes(tmp_path: Path) -> None:
    """It does not say so: what begins in its partitions does."""
    image = partitioned(tmp_path, MBR, 4096)
    places = told(image, 4096)
    disk = Changed(image)
    assert read(disk).sector_size == 4096, "its extended partition begins there and nowhere else"
    (number, start, size, _), *_ = told(one := partitioned(tmp_path, MBR_OF_ONE, 4096), 4096)
    disk = Changed(one)
    disk.put(start, bytes(MIB // 2)).put(start + 1024 + 32, b"\1").put(start + EXT[0], EXT[1])
    assert [(p.number, p.start, p.size) for p in read(disk).partitions] == [(number, start, size)]
    assert len(places) == 7


def test_a_damaged_gpt_is_read_from_its_backup(tmp_path: Path) -> None:
    image = partitioned(tmp_path, GPT)
    disk = Changed(image)
    whole = read(disk)
    for offset in (512 + 8, 512 + 60, 1024 + 40):  # the header's size, its disk's uuid, an entry
        disk.put(offset, bytes([disk.pread(offset, 1)[0] ^ 1]))
        found = read(disk)
        assert found.partitions == whole.partitions
        assert found.warnings == ["the GPT is damaged; its backup at the end of the disk is used"]
        disk.clear()
    disk.put(512, bytes(33 * 512))
    assert read(disk).partitions == whole.partitions
    disk.put(0, bytes(512))
    found_with_no_mbr = find([disk])
    assert [entry.id for entry in found_with_no_mbr.entries] == ["0", "0p1", "0p2", "0p3", "0p4", "0p5"]
    assert "the GPT is damaged; its backup at the end of the disk is used" in found_with_no_mbr.entry("0").warnings


def test_what_is_left_of_a_gpt_below_a_file_system(tmp_path: Path) -> None:
    """mkfs leaves a disk's first KiB alone."""
    disk = Changed(partitioned(tmp_path, GPT))
    disk.put(0, bytes(512)).put(1024, bytes(1024)).put(1024 + 4, b"\1").put(1024 + 32, b"\1").put(EXT[0], EXT[1])
    (entry,) = find([disk]).entries
    assert entry.holds == "ext"


def test_a_gpt_whose_copies_are_both_damaged(tmp_path: Path) -> None:
    image = partitioned(tmp_path, GPT)
    disk = Changed(image)
    disk.put(1024 + 40, b"!").put(disk.size - 512 + 60, b"!")
    entry = find([disk]).entry("0")
    assert entry.why_not == f"the disk's GPT is damaged, and so is its backup: disk of {64 * MIB} bytes"
    assert entry.hint
    assert isinstance(read(disk).why, Corrupt)


def test_a_damaged_backup_is_said(tmp_path: Path) -> None:
    image = partitioned(tmp_path, GPT)
    disk = Changed(image)
    disk.put(disk.size - 512, bytes(512))
    assert read(disk).warnings == ["the GPT's backup is damaged or missing; its primary copy is whole and used"]


def test_a_disk_that_grew_has_its_backup_in_the_middle(tmp_path: Path) -> None:
    image = partitioned(tmp_path, GPT)
    data = image.read_bytes() + bytes(16 * MIB)
    assert read(Changed(data)).warnings == []
    assert read(Changed(data).put(512 + 60, b"!")).partitions == read(Changed(image)).partitions, (
        "where the primary said"
    )
    assert read(Changed(data).put(512, bytes(512))).partitions == read(Changed(image)).partitions, "where the MBR said"


def test_an_image_that_is_cut(tmp_path: Path) -> None:
    image = partitioned(tmp_path, GPT)
    disk = Changed(image, size=22 * MIB)
    found = find([disk])
    assert found.entry("0").warnings == [
        f"the image is cut: the disk's GPT ends at sector {64 * MIB // 512 - 1} of 512 bytes, the image has {22 * MIB // 512}"
    ]
    entry = found.entry("0p4")
    assert (
        entry.why_not
        == f"the image ends before this partition does: it ends at byte {25 * MIB}, the image has {22 * MIB}"
    )
    assert entry.hint == "the backup of this disk is cut, or its table is damaged: try another restore point"
    with pytest.raises(OutOfBounds):
        found.open("0p4")
    assert found.raw("0p3").size == 2 * MIB


def test_hybrid_missing_and_old_tables(tmp_path: Path) -> None:
    image = partitioned(tmp_path, GPT)
    disk = Changed(image)
    disk.put(446 + 16, bytes([0, 0, 0, 0, 7, 0, 0, 0]) + (2048).to_bytes(4, "little") + (2048).to_bytes(4, "little"))
    assert read(disk).warnings == ["a hybrid MBR stands beside the GPT; the GPT's partitions are shown"]
    disk.clear()
    disk.put(0, bytes(512))
    assert read(disk).warnings == ["the protective MBR is missing"]
    disk.clear()
    disk.put(446 + 4, b"\x83")
    found = read(disk)
    assert found.kind == "MBR"
    assert found.warnings == ["there is an old GPT beside the MBR table; the MBR's partitions are shown"]


def test_a_hybrid_mbr_that_sgdisk_made(tmp_path: Path) -> None:
    if which("sgdisk") is None:
        pytest.skip("needs sgdisk (package gdisk)")
    image = tmp_path / "image"
    image.write_bytes(bytes(16 * MIB))
    for options in (["-n", "1:2048:+4M", "-c", "1:one", "-n", "2:0:+3M"], ["-h", "1"]):
        subprocess.run(["sgdisk", *options, image], check=True, capture_output=True)
    found = read(Changed(image))
    assert [(p.number, p.start, p.size, p.name) for p in found.partitions] == [
        (1, MIB, 4 * MIB, "one"), (2, 5 * MIB, 3 * MIB, ""),
    ]  # fmt: skip
    assert found.warnings == ["a hybrid MBR stands beside the GPT; the GPT's partitions are shown"]


def with_entries(disk: Changed, *edits: tuple[int, bytes]) -> Changed:
    """Changes in a GPT's entries at offsets of them, with the checksums made right."""
    raw = bytearray(disk.pread(1024, 128 * 128))
    for at, data in edits:
        raw[at : at + len(data)] = data
    header = bytearray(disk.pread(512, 512))
    header[88:92] = zlib.crc32(raw).to_bytes(4, "little")
    header[16:20] = bytes(4)
    header[16:20] = zlib.crc32(header[:92]).to_bytes(4, "little")
    return disk.put(1024, bytes(raw)).put(512, bytes(header))


def test_partitions_that_overlap_or_have_no_bytes_or_no_end(tmp_path: Path) -> None:
    disk = Changed(partitioned(tmp_path, GPT))
    inside = (2 * MIB // 512).to_bytes(8, "little") + (5 * MIB // 512).to_bytes(8, "little")
    assert read(with_entries(disk, (128 + 32, inside))).warnings == ["partitions 2 and 3 overlap"]
    backwards = (9000).to_bytes(8, "little") + (5).to_bytes(8, "little")
    found = find([with_entries(disk, (128 + 32, backwards))])
    assert found.entry("0p2").why_not == "the table says that this partition has no bytes: partition 2"
    endless = (9000).to_bytes(8, "little") + b"\xff" * 8
    assert (
        "the image ends before this partition does"
        in find([with_entries(disk, (128 + 32, endless))]).entry("0p2").why_not
    )


def row(kind: int, first: int, count: int, status: int = 0) -> bytes:
    return bytes([status, 0, 0, 0, kind, 0, 0, 0]) + first.to_bytes(4, "little") + count.to_bytes(4, "little")


def record(*rows: bytes) -> bytes:
    return bytes(446) + b"".join(rows).ljust(64, b"\0") + b"\x55\xaa"


@pytest.mark.parametrize("following", [0, 100])
def test_a_chain_of_logical_partitions_that_leads_into_itself(following: int) -> None:
    disk = Changed(bytes(MIB))
    disk.put(0, record(row(5, 100, 1000))).put(100 * 512, record(row(0x83, 1, 9), row(5, 100, 9)))
    disk.put(200 * 512, record(row(0x83, 2, 8), row(5, following, 9)))
    found = read(disk)
    assert [(p.number, p.start, p.size) for p in found.partitions[1:]] == [
        (5, 101 * 512, 9 * 512),
        (6, 202 * 512, 8 * 512),
    ]
    assert found.warnings == [
        "the chain of logical partitions leads back into itself, or is too long; its rest is left out"
    ]


def test_a_chain_that_leads_out_of_the_disk_or_is_damaged() -> None:
    disk = Changed(bytes(MIB))
    disk.put(0, record(row(5, 100, 1000))).put(100 * 512, record(row(0x83, 1, 9), row(5, 99999, 9)))
    assert read(disk).warnings == [
        f"the chain of logical partitions leads to byte {100099 * 512}, the image has {MIB}; its rest is left out"
    ]
    disk.put(100 * 512 + 510, b"!")
    assert read(disk).warnings == [
        f"the chain of logical partitions is damaged at byte {100 * 512}; its rest is left out"
    ]


def test_more_partitions_than_are_listed() -> None:
    disk = Changed(bytes(4 * MIB))
    disk.put(0, record(row(5, 100, 5000)))
    for number in range(MOST_PARTITIONS + 10):
        disk.put((100 + 10 * number) * 512, record(row(0x83, 1, 9), row(5, 10 * (number + 1), 9)))
    found = read(disk)
    assert len(found.partitions) == MOST_PARTITIONS
    assert found.warnings


@pytest.mark.parametrize(
    "boot",
    [
        record(),
        record(row(0x83, 0, 100)),
        record(row(0x83, 100, 0)),
        record(row(0x83, 100, 100, status=0x33)),
        record(row(0x83, 100, 100))[:-1] + b"!",
    ],
)
def test_boot_sectors_that_are_no_table(boot: bytes) -> None:
    assert table(MemoryDisk(boot + bytes(MIB))) is None


def test_disks_of_hardly_any_size() -> None:
    for size in (0, 1, 511, 512, 513, 1023, 1024, 4096):
        found = find([MemoryDisk(bytes(size))])
        assert found.entry("0").why_not.startswith("nothing known begins here")
