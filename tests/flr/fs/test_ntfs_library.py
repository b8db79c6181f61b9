# SPDX-License-Identifier: Apache-2.0
"""libfsntfs behind our interface: its reads of the volume are few, and whatever it raises leaves as one of our errors, shortly."""

from __future__ import annotations

import os

import pytest

from flr.blocks import MemoryDisk
from flr.errors import Corrupt, OutOfBounds, TooMuch
from flr.fs.ntfs import library
from flr.fs.ntfs.library import Library, VolumeFile
from flr.fs.ntfs.reader import Ntfs
from tests.flr.corpus import windows
from tests.flr.corpus.image import Changed, Image
from tests.flr.fs.ntfs_plain import find, plain


def test_small_reads_come_from_few_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytes(range(256)) * 1024
    file = VolumeFile(MemoryDisk(data))
    assert file.get_size() == len(data)
    for at in range(0, 60_000, 500):
        assert file.seek(at) == at
        assert file.read(10) == data[at : at + 10]
        assert file.tell() == at + 10
    assert file.reads == 1
    assert file.seek(-5, os.SEEK_END) == len(data) - 5
    assert file.read() == data[-5:]
    assert file.read(1) == b""
    file.seek(library.BLOCK - 3)
    file.seek(1, os.SEEK_CUR)
    assert file.read(4) == data[library.BLOCK - 2 : library.BLOCK + 2]
    file.seek(7)
    assert file.read(library.BLOCK + 1) == data[7 : library.BLOCK + 8]
    monkeypatch.setattr(library, "BLOCKS_KEPT", 1)
    file = VolumeFile(MemoryDisk(data))
    for block in (0, 1, 0, 1):
        file.seek(block * library.BLOCK)
        assert len(file.read(1)) == 1
    assert file.reads == 4


def test_an_error_of_the_volume_is_the_one_that_is_raised() -> None:
    class Broken(Changed):
        broken = False

        def pread(self, offset: int, length: int) -> bytes:
            if self.broken:
                raise OutOfBounds("the volume is away", "")
            return super().pread(offset, length)

    volume = Broken(Image(windows.ntfs_plain().image))
    fs = Ntfs(volume)
    a = find(fs, "packed/prose")
    fs._content(a.node, b"")
    volume.broken = True
    with pytest.raises(OutOfBounds, match="the volume is away"):
        fs.library.read(a.number, "", 0, 1000)
    volume.broken = False
    assert len(fs.library.read(a.number, "", 0, 1000)) == 1000


@pytest.mark.parametrize(
    ("raised", "expected", "said"),
    [
        (OSError("pyfsntfs_x: unable to read from the file: 17. libbfio: and so on" * 1000), Corrupt, "17"),
        (SystemError("x\n\x1b[31m" * 500), Corrupt, "?"),
        (OverflowError(), Corrupt, "OverflowError"),
        (MemoryError(), TooMuch, "memory"),
    ],
)
def test_whatever_it_raises_is_short(raised: Exception, expected: type[Exception], said: str) -> None:
    made = Library(plain())

    def fail(number: int) -> None:
        raise raised

    made._of = fail  # type: ignore[method-assign, assignment]
    for question in (lambda: made.read(5, "", 0, 10), lambda: made.security(5)):
        with pytest.raises(expected) as caught:
            question()
        assert said in str(caught.value)
        assert len(caught.value.value) < 200  # type: ignore[attr-defined]
        assert str(caught.value).isprintable()


def test_a_stream_that_is_not_there_or_ends_early() -> None:
    fs = Ntfs(plain())
    a = find(fs, "special/ads")
    with pytest.raises(Corrupt, match="not found"):
        fs.library.read(a.number, "no such", 0, 1)
    with pytest.raises(Corrupt, match="early"):
        fs.library.read(a.number, "big", 59_999, 10)
    assert fs.library.read(a.number, "big", 59_999, 1) == b"Q"
    with pytest.raises(Corrupt):
        fs.library.read(10**9, "", 0, 1)
