# SPDX-License-Identifier: Apache-2.0
"""What begins here: made by the real tools and compared with blkid's opinion, or crafted where no tool is at hand."""

from __future__ import annotations

import subprocess
import uuid
from pathlib import Path
from shutil import which

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flr.blocks import MemoryDisk
from flr.errors import NotRecognised, Unsupported
from flr.volumes.find import Entry, find
from flr.volumes.signatures import ENCRYPTED, HEAD, LATER, NOT_READ, WINDOWS, signatures
from tests.flr.volumes.disks import Changed, disk

MIB = 1 << 20
PACKAGES = {
    "mkfs.ext4": "e2fsprogs",
    "mkfs.ext3": "e2fsprogs", "mkfs.ext2": "e2fsprogs", "mkfs.xfs": "xfsprogs", "mkfs.btrfs": "btrfs-progs",
    "mkfs.ntfs": "ntfs-3g",
    "mkfs.vfat": "dosfstools", "mkfs.exfat": "exfatprogs", "mkfs.f2fs": "f2fs-tools", "mkswap": "util-linux",
    "cryptsetup": "cryptsetup-bin", "mksquashfs": "squashfs-tools", "blkid": "util-linux", "sfdisk": "fdisk",
}  # fmt: skip
LUKS = ("cryptsetup", "-q", "luksFormat", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", "/dev/zero",
        "--keyfile-size", "32", "--type")  # fmt: skip


def run(*command: str | Path) -> str:
    if which(str(command[0])) is None:
        pytest.skip(f"needs {command[0]} (package {PACKAGES[str(command[0])]})")
    return subprocess.run(command, check=True, capture_output=True).stdout.decode()


def only(image: MemoryDisk | Changed) -> Entry:
    (entry,) = find([image]).entries
    return entry


@pytest.mark.parametrize(
    ("command", "size", "holds", "words", "why_not"),
    [
        (("mkfs.ext4", "-q", "-L", "label"), 8, "ext", "ext4 file system", ""),
        (("mkfs.ext4", "-q", "-b", "1024", "-O", "64bit"), 8, "ext", "ext4 file system", ""),
        (("mkfs.ext3", "-q"), 8, "ext", "ext3 file system", ""),
        (("mkfs.ext2", "-q", "-L", "label"), 8, "ext", "ext2 file system", ""),
        (("mkfs.xfs", "-q", "-L", "label"), 320, "xfs", "XFS file system", ""),
        (("mkfs.ntfs", "-q", "-F", "-Q"), 8, "ntfs", "NTFS file system", ""),
        (("mkfs.vfat", "-F12", "-n", "LABEL"), 4, "fat", "FAT12 file system", ""),
        (("mkfs.vfat", "-F16"), 16, "fat", "FAT16 file system", ""),
        (("mkfs.vfat", "-F32", "-n", "LABEL"), 64, "fat", "FAT32 file system", ""),
        (("mkfs.vfat", "-F32", "-S4096"), 320, "fat", "FAT32 file system", ""),
        (("mkfs.exfat",), 8, "exfat", "exFAT file system", ""),
        (("mkfs.btrfs", "-q", "-L", "label"), 128, "btrfs", "btrfs file system", LATER),
        (("mkswap", "-L", "label"), 4, "swap", "swap space", "it holds no files"),
        (("mkswap", "-p", "65536"), 4, "swap", "swap space", "it holds no files"),
        (("mkfs.f2fs", "-q"), 64, "f2fs", "F2FS file system", NOT_READ),
        ((*LUKS, "luks1"), 32, "luks", "LUKS1 volume", ENCRYPTED),
        ((*LUKS, "luks2", "--label", "label"), 32, "luks", "LUKS2 volume", ENCRYPTED),
    ],
    ids=lambda value: " ".join(value[:3]) if isinstance(value, tuple) else str(value),
)
def test_what_the_real_tools_make(
    tmp_path: Path, command: tuple[str, ...], size: int, holds: str, words: str, why_not: str
) -> None:
    image = tmp_path / "image"
    with open(image, "wb") as file:
        file.truncate(size * MIB)
    run(*command, image)
    entry = only(Changed(image))
    assert (entry.holds, entry.words) == (holds, words)
    assert entry.why_not == (f"{why_not}: {words}" if why_not else "")
    assert entry.opens == (not why_not)
    assert bool(entry.hint) == bool(why_not)
    assert entry.warnings == []
    if holds == "f2fs":
        return  # its label and uuid are not told
    opinion = dict(line.split("=", 1) for line in run("blkid", "-p", "-o", "export", image).splitlines() if "=" in line)
    assert entry.content_uuid.lower() == opinion.get("UUID", "").lower()
    assert entry.label == opinion.get("LABEL", "")
    claimed = signatures(Changed(image))[0].size
    assert claimed <= size * MIB
    assert not claimed or claimed > size * MIB * 3 // 4
    if claimed:
        cut = only(Changed(image, size=claimed - 4096))
        assert cut.holds == holds
        assert cut.warnings[0].startswith(
            f"the image is cut: the file system has {claimed} bytes, its volume {claimed - 4096};"
        )


def test_squashfs(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    run("mksquashfs", tmp_path / "file", tmp_path / "image", "-quiet")
    assert only(Changed(tmp_path / "image")).holds == "squashfs"


def test_journal_of_its_own(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(8 * MIB))
    run("mkfs.ext4", "-q", "-O", "journal_dev", image)
    assert only(Changed(image)).words == "journal of an ext file system that lies elsewhere"


TO_GO = uuid.UUID("4967d63b-2e29-4ad8-8399-f6a339e3d001").bytes_le


@pytest.mark.parametrize(
    ("at", "magic", "holds", "why_not"),
    [
        (3, b"-FVE-FS-", "bitlocker", ENCRYPTED),
        (3, b"ReFS\0\0\0\0FSRS", "refs", NOT_READ),
        (4096, b"SPACEDB ", "storage spaces", WINDOWS),
        (3072, b"PRIVHEAD", "ldm", WINDOWS),
        (128 << 10, b"\x0c\xb1\xba\0\0\0\0\0", "zfs", "ZFS is not read by this release"),
        ((128 << 10) + 77 * 1024, b"\0\0\0\0\0\xba\xb1\x0c", "zfs", "ZFS is not read by this release"),
        (32, b"NXSB", "apfs", NOT_READ),
        (1024, b"H+\0\x04", "hfsplus", NOT_READ),
        (32768 + 1, b"CD001", "iso9660", NOT_READ),
        (65536 + 52, b"ReIsEr2Fs", "reiserfs", NOT_READ),
        (4096 + 24, uuid.UUID("c68573f6-4e1a-45ca-8265-f57f48ba6d81").bytes, "bcache", "a part of its newest content"),
        (16 * MIB - 4096 + 60, b"\x83\x74\x02\x6b", "drbd", "its content may be older"),
        (16 * MIB - 1024, b"Intel Raid ISM Cfg Sig. 1.3", "firmware raid", "arrays of a firmware RAID"),
        (16 * MIB - 512, b"\xde\x11\xde\x11", "firmware raid", "arrays of a firmware RAID"),
        (4096 - 10, b"S1SUSPEND", "swap", "it holds no files"),
    ],
)
def test_crafted(at: int, magic: bytes, holds: str, why_not: str) -> None:
    entry = only(disk((at, magic), size=16 * MIB))
    assert entry.holds == holds
    assert entry.why_not.startswith(why_not)
    assert entry.hint
    with pytest.raises(Unsupported):
        find([disk((at, magic), size=16 * MIB)]).open("0")
    assert find([disk((at, magic), size=16 * MIB)]).raw("0").size == 16 * MIB


def test_bitlocker_to_go(tmp_path: Path) -> None:
    image = disk((3, b"MSWIN4.1"), (424, TO_GO))
    assert only(image).words == "BitLocker To Go volume"


@pytest.mark.parametrize(
    ("label", "of_type", "holds"),
    [
        ("dos", "42", "ldm"),
        ("gpt", "5808C8AA-7E8F-42E0-85D2-E1E90434CFB3", "ldm"),
        ("gpt", "AF9B60A0-1431-4F62-BC68-3311714A69AD", "ldm"),
        ("gpt", "E75CAF8F-F680-4CEE-AFA3-B001E56EFC2D", "storage spaces"),
        ("gpt", "E3C9E316-0B5C-4DB8-817D-F92DF00215AE", "reserved"),
        ("gpt", "21686148-6449-6E6F-744E-656564454649", "boot loader"),
    ],
)
def test_by_the_type_of_the_partition_whatever_seems_to_begin_there(
    tmp_path: Path, label: str, of_type: str, holds: str
) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(16 * MIB))
    if which("sfdisk") is None:
        pytest.skip("needs sfdisk (package fdisk)")
    script = f"label: {label}\nstart=1MiB, type={of_type}\n"
    subprocess.run(["sfdisk", "-q", image], input=script.encode(), check=True, capture_output=True)
    found = find([Changed(image).put(MIB, b"XFSB")])
    assert found.entry("0p1").holds == holds
    assert found.entry("0p1").why_not


def test_nothing_known() -> None:
    empty = only(MemoryDisk(bytes(MIB)))
    assert empty.why_not == f"nothing known begins here: its first {HEAD} bytes are zeros"
    assert empty.hint == "it may be empty, encrypted or of an unknown kind; restore the whole disk to look"
    odd = find([MemoryDisk(b"once upon a time" * 65536)])
    assert odd.entry("0").why_not.endswith("it begins with 6f 6e 63 65 20 75 70 6f 6e 20 61 20 74 69 6d 65")
    with pytest.raises(NotRecognised):
        odd.open("0")
    assert odd.raw("0").size == MIB


def test_several_signatures_are_said() -> None:
    entry = only(disk((0, b"XFSB"), (65536 + 64, b"_BHRfS_M")))
    assert entry.holds == "xfs"
    assert entry.warnings[0] == "signatures of something else stand here too: btrfs file system"


@settings(max_examples=200)
@given(st.integers(0, HEAD + 5000), st.binary(max_size=40), st.binary(max_size=600))
def test_no_size_and_no_bytes_make_it_fail(size: int, tail: bytes, head: bytes) -> None:
    for found in signatures(MemoryDisk(head.ljust(size, b"\0")[:size] + tail)):
        assert found.words
