# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import random
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from mover.disk import target as target_module
from mover.disk import vhd
from mover.disk.source import FileSource
from mover.disk.target import FileTarget
from mover.errors import StoreFull, TargetError

MIB = 1 << 20
SIZE = 4 * MIB + 100


def reads(target: FileTarget, offset: int, size: int) -> bytes:
    buffer = bytearray(size)
    target.read_into(offset, buffer)
    return bytes(buffer)


def test_a_new_file_gets_its_name_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    target = FileTarget(str(path), SIZE)
    assert not target.compare
    target.write(MIB, b"one" * 100)
    target.write(SIZE - 3, b"end")
    assert not path.exists()
    target.finish(0.0)
    target.close()
    expected = bytearray(SIZE)
    expected[MIB : MIB + 300] = b"one" * 100
    expected[-3:] = b"end"
    assert path.read_bytes() == expected
    assert [entry.name for entry in tmp_path.iterdir()] == ["disk"]
    assert path.stat().st_blocks * 512 < MIB  # sparse
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_partial_file_is_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    first = FileTarget(str(path), SIZE)
    first.write(0, b"kept")
    first.close()
    again = FileTarget(str(path), SIZE)
    assert again.compare
    assert reads(again, 0, 4) == b"kept"
    again.finish(0.0)
    again.close()
    assert path.read_bytes()[:4] == b"kept"


def test_a_partial_file_of_another_size_is_cut_to_size(tmp_path: Path) -> None:
    (tmp_path / "disk.partial").write_bytes(b"x" * (SIZE + 512))
    target = FileTarget(str(tmp_path / "disk"), SIZE)
    target.finish(0.0)
    assert (tmp_path / "disk").stat().st_size == SIZE


def test_what_is_there_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"precious")
    with pytest.raises(TargetError, match=r"exists.*--in-place"):
        FileTarget(str(path), SIZE)
    assert path.read_bytes() == b"precious"
    assert not (tmp_path / "disk.partial").exists()


def test_a_file_that_appears_meanwhile_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    target = FileTarget(str(path), SIZE)
    path.write_bytes(b"precious")
    with pytest.raises(TargetError, match="cannot be given its name"):
        target.finish(0.0)
    assert path.read_bytes() == b"precious"


@pytest.mark.parametrize("error", [errno.EINVAL, errno.ENOSYS], ids=["the file system", "the kernel"])
def test_where_no_rename_refuses_a_taken_name_a_link_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    calls: list[tuple[bytes, bytes, int]] = []

    def renameat2(at: int, old: bytes, to: int, new: bytes, flags: int) -> int:
        calls.append((old, new, flags))
        ctypes.set_errno(error)
        return -1

    monkeypatch.setattr(target_module, "_LIBC", SimpleNamespace(renameat2=renameat2))
    for name in ("free", "taken"):
        target = FileTarget(str(tmp_path / name), SIZE)
        if name == "taken":
            (tmp_path / name).write_bytes(b"somebody's")
            with pytest.raises(TargetError, match="File exists"):
                target.finish(0.0)
        else:
            target.finish(0.0)
        target.close()
    assert len(calls) == 2
    assert (tmp_path / "taken").read_bytes() == b"somebody's"
    assert (tmp_path / "free").stat().st_size == SIZE
    assert not (tmp_path / "free.partial").exists()


def test_a_vhd_in_place_is_not_cut_to_a_raw_disk(tmp_path: Path) -> None:
    path = tmp_path / "disk.vhd"
    target = FileTarget(str(path), MIB, as_vhd=True)
    target.finish(0.0)
    target.close()
    before = path.read_bytes()
    with pytest.raises(TargetError, match="is a VHD and would be none") as caught:
        FileTarget(str(path), MIB, in_place=True)
    assert "--format vhd" in caught.value.hint
    assert path.read_bytes() == before
    broken = bytearray(before)
    broken[-1] ^= 1  # no footer any more: data of a raw disk
    path.write_bytes(broken)
    FileTarget(str(path), MIB, in_place=True).close()


def test_in_place_keeps_the_file_and_reads_it_first(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(random.Random(1).randbytes(SIZE))
    inode = path.stat().st_ino
    target = FileTarget(str(path), SIZE, in_place=True)
    assert target.compare
    assert reads(target, 5, 100) == path.read_bytes()[5:105]
    target.write(5, b"new")
    target.finish(0.0)
    assert path.read_bytes()[5:8] == b"new"
    assert path.stat().st_ino == inode


@pytest.mark.parametrize("size", [10, SIZE + MIB])
def test_in_place_makes_the_file_the_disks_size(tmp_path: Path, size: int) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"x" * size)
    FileTarget(str(path), SIZE, in_place=True).close()
    assert path.stat().st_size == SIZE


def test_what_cannot_be_a_target_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="nothing to restore in place"):
        FileTarget(str(tmp_path / "none"), SIZE, in_place=True)
    with pytest.raises(TargetError, match="neither a file nor a block device"):
        FileTarget(str(tmp_path), SIZE)
    with pytest.raises(TargetError, match="neither a file nor a block device"):
        FileTarget("/dev/null", SIZE, in_place=True)
    with pytest.raises(TargetError, match="cannot be opened"):
        FileTarget(str(tmp_path / "no" / "folder"), SIZE)
    with pytest.raises(TargetError, match="cannot be opened"):
        FileTarget(str(tmp_path / "no\0path"), SIZE)
    assert list(tmp_path.iterdir()) == []


def test_two_restores_do_not_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    first = FileTarget(str(path), SIZE)
    with pytest.raises(TargetError, match="another restore writes the target"):
        FileTarget(str(path), SIZE)
    first.finish(0.0)
    with pytest.raises(TargetError, match="another restore writes the target"):
        FileTarget(str(path), SIZE, in_place=True)
    first.close()
    FileTarget(str(path), SIZE, in_place=True).close()


def test_a_file_that_another_restore_finished_is_not_written_under_its_old_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened while the other still wrote it, locked when the other had given it its name and let it go."""
    first = FileTarget(str(tmp_path / "disk"), SIZE)
    lock = fcntl.flock

    def late(descriptor: int, operation: int) -> None:
        first.finish(0.0)
        first.close()
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(TargetError, match="another restore writes the target"):
        FileTarget(str(tmp_path / "disk"), SIZE)


def test_data_is_found_and_zeros_are_holes(tmp_path: Path) -> None:
    target = FileTarget(str(tmp_path / "disk"), SIZE)
    assert list(target.data_within(0, SIZE)) == []
    target.write(MIB, b"x" * (2 * MIB))
    ((low, high),) = target.data_within(0, SIZE)
    assert low <= MIB
    assert high >= 3 * MIB
    assert list(target.data_within(MIB + 4096, MIB + 8192)) == [(MIB + 4096, MIB + 8192)]
    target.zero(MIB, 2 * MIB)
    assert not any(reads(target, 0, SIZE))
    target.sync()
    assert os.stat(tmp_path / "disk.partial").st_blocks * 512 < MIB
    assert os.stat(tmp_path / "disk.partial").st_size == SIZE


def test_zeros_are_written_where_no_hole_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoHoles:
        def fallocate(self, *arguments: object) -> int:
            return -1

    monkeypatch.setattr("mover.disk.target._LIBC", NoHoles())
    path = tmp_path / "disk"
    path.write_bytes(b"x" * SIZE)
    target = FileTarget(str(path), SIZE, in_place=True)
    target.zero(3, 2 * MIB + 7)
    expected = bytearray(b"x" * SIZE)
    expected[3 : 2 * MIB + 10] = bytes(2 * MIB + 7)
    assert path.read_bytes() == expected


def test_a_vhd_has_its_footer_behind_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "disk.vhd"
    target = FileTarget(str(path), 2 * MIB, as_vhd=True)
    target.write(0, b"boot")
    target.finish(1_700_000_000.0)
    target.close()
    source = FileSource(str(path))
    assert (source.is_vhd, source.size) == (True, 2 * MIB)
    assert path.stat().st_size == 2 * MIB + 512


def test_a_vhd_in_place_gets_a_new_footer(tmp_path: Path) -> None:
    path = tmp_path / "disk.vhd"
    path.write_bytes(bytes(MIB) + vhd.make_footer(MIB, uuid.UUID(int=1), 0))
    target = FileTarget(str(path), 2 * MIB, in_place=True, as_vhd=True)
    assert not any(reads(target, MIB + 512, MIB - 512))
    target.finish(0.0)
    assert path.stat().st_size == 2 * MIB + 512


@pytest.mark.parametrize(
    ("code", "error"), [(errno.ENOSPC, StoreFull), (errno.EDQUOT, StoreFull), (errno.EIO, TargetError)]
)
def test_a_target_that_cannot_be_written_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, error: type[Exception]
) -> None:
    target = FileTarget(str(tmp_path / "disk"), SIZE)

    def fails(*arguments: object) -> int:
        raise OSError(code, os.strerror(code))

    for call, use in (
        ("pwrite", lambda: target.write(7, b"x")),
        ("preadv", lambda: target.read_into(7, bytearray(1))),
        ("fsync", target.sync),
        ("lseek", lambda: list(target.data_within(0, SIZE))),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, fails)
            with pytest.raises(error, match="disk"):
                use()


def test_a_target_that_was_cut_is_told(tmp_path: Path) -> None:
    target = FileTarget(str(tmp_path / "disk"), SIZE)
    os.truncate(tmp_path / "disk.partial", 10)
    with pytest.raises(TargetError, match="ends too early"):
        reads(target, 0, 100)


# -- a block device

LOOP = os.geteuid() == 0 and Path("/dev/loop-control").exists()


@pytest.fixture
def device(tmp_path: Path) -> Iterator[str]:
    backing = tmp_path / "backing"
    backing.write_bytes(random.Random(1).randbytes(4 * MIB))
    made = subprocess.run(["losetup", "--find", "--show", backing], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no loop device: {made.stderr.strip()}")
    name = made.stdout.strip()
    yield name
    subprocess.run(["losetup", "--detach", name], check=True)


@pytest.mark.slow
@pytest.mark.skipif(not LOOP, reason="needs root and /dev/loop-control")
def test_a_block_device(device: str, tmp_path: Path) -> None:
    FileTarget(device, MIB).close()  # a device is always there: naming it is enough
    with pytest.raises(TargetError, match="smaller than the disk"):
        FileTarget(device, 4 * MIB + 1, in_place=True)
    with pytest.raises(TargetError, match="VHD"):
        FileTarget(device, MIB, in_place=True, as_vhd=True)
    target = FileTarget(device, 3 * MIB, in_place=True)
    assert target.compare
    assert list(target.data_within(5, 3 * MIB)) == [(5, 3 * MIB)]
    target.write(MIB, b"new")
    target.zero(2 * MIB, MIB)
    target.finish(0.0)
    target.close()
    source = FileSource(device)
    assert (source.size, source.source, list(source.extents())) == (4 * MIB, None, [(0, 4 * MIB)])
    data = bytearray(4 * MIB)
    source.read_into(0, [data])
    source.close()
    expected = bytearray(random.Random(1).randbytes(4 * MIB))
    expected[MIB : MIB + 3] = b"new"
    expected[2 * MIB : 3 * MIB] = bytes(MIB)
    assert data == expected
