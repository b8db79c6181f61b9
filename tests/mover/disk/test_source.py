# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import os
import random
import uuid
from pathlib import Path

import pytest

from mover.disk import vhd
from mover.disk.source import ADVICE, FileSource
from mover.errors import SourceChanged, SourceError

MIB = 1 << 20


def image(folder: Path, data: bytes, name: str = "disk.raw") -> str:
    (folder / name).write_bytes(data)
    return str(folder / name)


def everything(source: FileSource, step: int = MIB) -> bytes:
    found = bytearray(source.size)
    for at in range(0, source.size, step):
        buffer = bytearray(min(step, source.size - at))
        source.read_into(at, [buffer])
        found[at : at + len(buffer)] = buffer
    return bytes(found)


@pytest.mark.parametrize("size", [1, 511, 512, MIB - 1, MIB, MIB + 1, 2 * MIB + 12_345])
def test_a_raw_image_is_read_to_its_last_byte(tmp_path: Path, size: int) -> None:
    data = random.Random(size).randbytes(size)
    source = FileSource(image(tmp_path, data))
    assert (source.size, source.name, source.identity, source.is_vhd) == (size, "disk.raw", "disk.raw", False)
    assert everything(source) == data
    assert everything(source, 700_001) == data
    source.check_unchanged()
    source.close()


def test_buffers_are_filled_one_after_the_other(tmp_path: Path) -> None:
    data = random.Random(1).randbytes(1000)
    source = FileSource(image(tmp_path, data))
    buffers = [bytearray(100), bytearray(1), bytearray(0), bytearray(300)]
    source.read_into(50, buffers)
    assert b"".join(buffers) == data[50:451]


def test_a_sparse_files_holes_are_not_allocated(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(1 << 40)
        for at in (0, 5 * MIB, (1 << 40) - 4096):
            file.seek(at)
            file.write(b"x" * 4096)
    source = FileSource(str(path))
    extents = list(source.extents())
    assert [offset for offset, _ in extents] == [0, 5 * MIB, (1 << 40) - 4096]
    assert sum(length for _, length in extents) < 3 * MIB
    assert all(offset + length <= source.size for offset, length in extents)
    source.read_into(MIB, [buffer := bytearray(b"y" * 100)])
    assert not any(buffer)


def test_a_file_of_holes_only_has_no_extents(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    os.truncate(path, 10 * MIB)
    assert list(FileSource(str(path)).extents()) == []


def test_two_threads_extents_do_not_disturb_each_other(tmp_path: Path) -> None:
    """lseek moves a file position: every walk has its own."""
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        for k in range(8):
            file.seek(2 * k * MIB)
            file.write(b"x")
    source = FileSource(str(path))
    walks = [source.extents() for _ in range(2)]
    pairs = list(zip(*walks, strict=True))
    assert len(pairs) == 8
    assert all(one == two for one, two in pairs)


def test_a_fixed_vhd_is_its_disk_without_the_footer(tmp_path: Path) -> None:
    data = random.Random(1).randbytes(3 * 512)
    unique = uuid.UUID(int=7)
    path = image(tmp_path, data + vhd.make_footer(len(data), unique, 0), "disk.vhd")
    source = FileSource(path)
    assert (source.is_vhd, source.size, source.identity) == (True, len(data), f"vhd:{unique}")
    assert everything(source) == data
    assert sum(length for _, length in source.extents()) == len(data)
    named = FileSource(path, name="os", identity="disk-1")
    assert (named.name, named.identity) == ("os", "disk-1")


def test_a_dynamic_vhd_is_refused(tmp_path: Path) -> None:
    footer = bytearray(vhd.make_footer(MIB, uuid.UUID(int=7), 0))
    footer[63] = 3
    footer[64:68] = bytes(4)
    footer[64:68] = (~sum(footer) & 0xFFFFFFFF).to_bytes(4, "big")
    with pytest.raises(SourceError, match="a dynamic VHD"):
        FileSource(image(tmp_path, bytes(footer) + bytes(1024) + bytes(footer)))


def test_what_is_no_disk_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    cases: list[tuple[str, str]] = [
        (str(tmp_path / "none"), "cannot be opened"),
        (str(tmp_path), "not a disk image"),
        ("/dev/null", "not a disk image"),
        (str(tmp_path / "pipe"), "not a disk image"),  # and not waited for
        (str(tmp_path / "no\0path"), "cannot be opened"),
        (image(tmp_path, b""), "is empty"),
    ]
    before = len(os.listdir("/proc/self/fd"))
    for path, what in cases:
        with pytest.raises(SourceError, match=what):
            FileSource(path)
    assert len(os.listdir("/proc/self/fd")) == before  # none stayed open


def test_a_file_that_shrank_is_told(tmp_path: Path) -> None:
    path = image(tmp_path, bytes(3 * MIB))
    source = FileSource(path)
    os.truncate(path, MIB + 5)
    with pytest.raises(SourceChanged, match=rf"ends at {MIB + 5}, was {3 * MIB}"):
        source.read_into(0, [bytearray(MIB), bytearray(MIB)])
    with pytest.raises(SourceChanged):
        source.check_unchanged()


@pytest.mark.parametrize("how", ["written", "grown", "touched"])
def test_a_file_that_was_written_meanwhile_is_told(tmp_path: Path, how: str) -> None:
    path = image(tmp_path, bytes(MIB))
    source = FileSource(path)
    source.check_unchanged()
    if how == "touched":
        os.utime(path, ns=(1, 1))
    else:
        with open(path, "r+b") as file:
            file.seek(0 if how == "written" else MIB)
            file.write(b"x")
        os.utime(path, ns=(1, 2))  # a coarse clock must not hide it
    with pytest.raises(SourceChanged, match=path):
        source.check_unchanged()


def test_a_source_is_known_again(tmp_path: Path) -> None:
    """What a resume trusts: the same file gives the same stamp, another with the same bytes does not."""
    one, two = image(tmp_path, b"x" * 1000, "one"), image(tmp_path, b"x" * 1000, "two")
    assert FileSource(one).source == FileSource(one).source
    assert FileSource(one).source != FileSource(two).source


@pytest.mark.parametrize("after", [0, 1], ids=["at once", "after a part"])
def test_a_disk_that_cannot_be_read_is_told_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    source = FileSource(image(tmp_path, bytes(MIB)))
    calls = 0

    def preadv(descriptor: int, buffers: list[bytearray | memoryview], offset: int, flags: int = 0) -> int:
        nonlocal calls
        calls += 1
        if calls > after:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return 10

    monkeypatch.setattr(os, "preadv", preadv)
    with pytest.raises(SourceError, match=r"disk\.raw at 4096: Input/output error"):
        source.read_into(4096, [bytearray(512)])


@pytest.mark.parametrize("cached", [None, 0, 400], ids=["it does not tell", "nothing is cached", "a part is cached"])
def test_what_is_not_cached_is_read_whole_and_worth_a_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached: int | None
) -> None:
    data = random.Random(1).randbytes(5000)
    source = FileSource(image(tmp_path, data))
    hints: list[int] = []
    whole = os.preadv

    def preadv(descriptor: int, buffers: list[bytearray | memoryview], offset: int, flags: int = 0) -> int:
        if not flags:
            return whole(descriptor, buffers, offset)
        assert flags == os.RWF_NOWAIT
        if cached is None:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        if cached == 0:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return whole(descriptor, [memoryview(buffers[0])[:cached]], offset)

    monkeypatch.setattr(os, "preadv", preadv)
    monkeypatch.setattr(os, "posix_fadvise", lambda fd, offset, length, advice: hints.append(offset))
    source.read_ahead(0, 100)
    assert not hints, "nothing is known to be cold yet"
    buffers = [bytearray(1000), bytearray(300), bytearray(2000)]
    source.read_into(100, buffers)
    assert b"".join(buffers) == data[100:3400]
    for offset in range(ADVICE + 5):
        source.read_ahead(offset, 1)
    assert hints == list(range(ADVICE))


def test_short_reads_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = random.Random(1).randbytes(5000)
    source = FileSource(image(tmp_path, data))
    whole = os.preadv

    def preadv(descriptor: int, buffers: list[bytearray | memoryview], offset: int, flags: int = 0) -> int:
        return whole(descriptor, [memoryview(buffers[0])[:700]], offset)

    monkeypatch.setattr(os, "preadv", preadv)
    buffers = [bytearray(1000), bytearray(300), bytearray(2000)]
    source.read_into(100, buffers)
    assert b"".join(buffers) == data[100:3400]
