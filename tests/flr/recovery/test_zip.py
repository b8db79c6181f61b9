# SPDX-License-Identifier: Apache-2.0
"""A zip has its length beforehand and the same bytes however it is fetched; other programs read it; what is missing is told."""

from __future__ import annotations

import io
import itertools
import random
import shutil
import struct
import subprocess
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flr.errors import Corrupt
from flr.recovery import zip_stream
from flr.recovery.content import zeros
from flr.recovery.zip_layout import BLOCK, Layout, deflated
from flr.recovery.zip_stream import REPORT_ROOM, ZipStream

REPORT = b"what was known before\r\n"


class Made:
    """A zip of these contents; `cut`: entry -> bytes that can be read of it. `read`: bytes that were read of the files so far."""

    def __init__(
        self, contents: list[bytes], folders: int = 0, cut: dict[int, int] | None = None, piece: int = 100_000
    ) -> None:
        self.layout = Layout()
        self.contents = contents
        self.cut = cut or {}
        self.piece = piece
        self.read = 0
        self.problems: list[tuple[str, str]] = []
        for k, content in enumerate(contents):
            self.layout.add(f"files/ü {k}", len(content), 0o100640, 1_700_000_000 + k, False)
        for k in range(folders):
            self.layout.add(f"folder {k}", 0, 0o040755, 0, True)
        self.layout.add("report", len(REPORT) + REPORT_ROOM, 0o100644, 0, False)
        self.stream = ZipStream(
            self.layout, self.content, REPORT, lambda name, text: self.problems.append((name, text))
        )

    def content(self, index: int, start: int, end: int) -> Iterator[bytes]:
        most = min(end, self.cut.get(index, end))
        for at in range(start, most, self.piece):
            part = self.contents[index][at : min(at + self.piece, most)]
            self.read += len(part)
            yield part
        if most < end:
            raise Corrupt("a bad sector", at if most > start else start)

    def whole(self) -> bytes:
        return b"".join(self.stream.read(0, self.stream.size))


def unpacked(data: bytes) -> dict[str, bytes]:
    """By a reader that goes from the front and trusts nothing at the end, as Java's does."""
    found = {}
    at = 0
    while data[at : at + 4] == b"PK\3\4":
        flags, method, *_, name, extra = struct.unpack_from("<HHHHIIIHH", data, at + 6)
        path = data[at + 30 : at + 30 + name].decode()
        at += 30 + name + extra
        if method == 0:
            found[path] = b""
            continue
        assert flags & 8
        inflater = zlib.decompressobj(-15)
        content = inflater.decompress(data[at:])
        assert inflater.eof
        at = len(data) - len(inflater.unused_data)
        mark, crc, packed, size = struct.unpack_from("<4sIII", data, at)
        assert (mark, crc, size, packed) == (b"PK\7\x08", zlib.crc32(content), len(content), deflated(len(content)))
        at += 16
        found[path] = content
    assert data[at : at + 4] == b"PK\1\2"
    return found


SIZES = st.sampled_from([0, 1, 100, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK + 17])


@given(sizes=st.lists(SIZES, max_size=5), folders=st.integers(0, 2), seed=st.integers(0, 99), data=st.data())
def test_any_parts_make_the_same_whole(sizes: list[int], folders: int, seed: int, data: st.DataObject) -> None:
    chance = random.Random(seed)
    contents = [chance.randbytes(size) for size in sizes]
    made = Made(contents, folders)
    whole = made.whole()
    assert len(whole) == made.stream.size
    expected = {f"files/ü {k}": content for k, content in enumerate(contents)} | {
        f"folder {k}/": b"" for k in range(folders)
    }
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert {name: archive.read(name) for name in names if name != "report"} == expected
        for k, info in enumerate(archive.infolist()[: len(contents)]):
            assert info.external_attr >> 16 == 0o100640
            assert info.extra[:9] == struct.pack("<2sHBi", b"UT", 5, 1, 1_700_000_000 + k)
    front = unpacked(whole)
    assert front.pop("report").startswith(REPORT)
    assert front == expected
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    places = [0, *cuts, len(whole)]
    parts = list(itertools.pairwise(places))
    chance.shuffle(parts)
    again = Made(contents, folders, piece=chance.choice([1000, 70_000, 1 << 20]))
    got = {start: b"".join(again.stream.read(start, end)) for start, end in parts}
    assert b"".join(got[start] for start in sorted(got)) == whole or len(got) < len(parts)
    for start, end in parts:
        assert b"".join(again.stream.read(start, end)) == whole[start:end]


def test_what_goes_on_reads_no_finished_file_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zip_stream, "SNAPSHOT", 1 << 20)
    contents = [random.Random(k).randbytes(8 << 20) for k in range(3)]
    made = Made(contents)
    whole = made.whole()
    cut = Made(contents)
    stop = len(whole) * 5 // 9  # in the middle of the second file
    first = b"".join(cut.stream.read(0, stop))
    before = cut.read
    rest = b"".join(cut.stream.read(stop, len(whole)))
    assert first + rest == whole
    total = sum(map(len, contents))
    assert before + (cut.read - before) < total + (2 << 20)
    b"".join(cut.stream.read(made.layout.directory, len(whole)))
    assert cut.read < total + (2 << 20)


@pytest.mark.parametrize("readable", [0, 1, BLOCK, 200_000])
def test_a_file_that_breaks_off_is_filled_and_told(readable: int) -> None:
    contents = [b"a" * 300_000, b"b" * 300_000, b"c"]
    made = Made(contents, cut={1: readable})
    whole = made.whole()
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        assert archive.testzip() is None
        assert archive.read("files/ü 0") == contents[0]
        assert archive.read("files/ü 1") == contents[1][:readable] + bytes(300_000 - readable)
        assert archive.read("files/ü 2") == b"c"
        report = archive.read("report").decode()
    assert f"files/ü 1: only its first {readable} of 300000 bytes" in report
    assert [name for name, _ in made.problems] == ["files/ü 1"]
    made.cut = {}  # what was broken once stays so: these bytes were sent already
    assert b"".join(made.stream.read(1000, len(whole))) == whole[1000:]


def test_more_problems_than_the_report_has_room_for() -> None:
    made = Made([b"x" * 10] * 500, cut=dict.fromkeys(range(500), 0))
    whole = made.whole()
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        report = archive.read("report")
    assert len(report) == len(REPORT) + REPORT_ROOM
    assert b"more: the session's log has them" in report
    assert len(made.problems) == 500


def test_sizes_beyond_32_bits() -> None:
    """Only ends are read: nobody waits for five gigabytes of zeros."""
    layout = Layout()
    sizes = [5 << 30, (1 << 32) - 1 - 5 * 70_000, 3]
    for k, size in enumerate(sizes):
        layout.add(f"f{k}", size, 0o100644, 0, False)
    layout.add("report", REPORT_ROOM, 0o100644, 0, False)
    for k in range(3):
        layout.crcs[k] = 7  # as if they had been sent

    def content(index: int, start: int, end: int) -> Iterator[bytes]:
        yield from zeros(end - start)

    stream = ZipStream(layout, content, b"", lambda name, text: None)
    tail = b"".join(stream.read(layout.directory, stream.size))

    class Far(io.RawIOBase):
        """The end of a file whose beginning is nowhere."""

        at = 0

        def seekable(self) -> bool:
            return True

        def seek(self, offset: int, whence: int = 0) -> int:
            self.at = offset + (0, self.at, stream.size)[whence]
            return self.at

        def tell(self) -> int:
            return self.at

        def read(self, size: int = -1) -> bytes:
            start = self.at - layout.directory
            data = tail[start:] if size < 0 else tail[start : start + size]
            self.at += len(data)
            return data

    with zipfile.ZipFile(Far()) as archive:
        infos = archive.infolist()
        assert [info.file_size for info in infos[:3]] == sizes
        assert [info.header_offset for info in infos] == [layout.begins(k) for k in range(4)]
        assert infos[3].header_offset > 1 << 32
    near_end = layout.begins(1) - 24 - 10
    part = b"".join(stream.read(near_end, layout.begins(1)))
    assert part[:10] == bytes(10)
    assert struct.unpack("<4sIQQ", part[10:]) == (b"PK\7\x08", 7, deflated(5 << 30), 5 << 30)


def test_more_entries_than_16_bits_count() -> None:
    made = Made([b""] * 70_000)
    with zipfile.ZipFile(io.BytesIO(made.whole())) as archive:
        assert len(archive.namelist()) == 70_001


@pytest.mark.parametrize("tool", ["unzip", "bsdtar", "7z"])
def test_other_programs_read_it(tool: str, tmp_path: Path) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"needs {tool}")
    contents = [random.Random(k).randbytes(size) for k, size in enumerate([0, 10, BLOCK, 500_000])]
    file = tmp_path / "x.zip"
    file.write_bytes(Made(contents, folders=1).whole())
    out = tmp_path / "out"
    out.mkdir()
    command = {
        "unzip": ["unzip", "-q", str(file), "-d", str(out)],
        "bsdtar": ["bsdtar", "-xf", str(file), "-C", str(out)],
        "7z": ["7z", "x", f"-o{out}", str(file)],
    }[tool]
    subprocess.run(command, check=True, capture_output=True, env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"})
    for k, content in enumerate(contents):
        assert (out / "files" / f"ü {k}").read_bytes() == content
    assert (out / "folder 0").is_dir()
