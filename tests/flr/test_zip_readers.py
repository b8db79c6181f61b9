# SPDX-License-Identifier: Apache-2.0
"""Programs that others wrote unpack our zips, also from a pipe, and also what needs 64 bits."""

from __future__ import annotations

import io
import random
import shutil
import struct
import subprocess
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import IO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flr import zip_records
from flr.blocks import Hole
from flr.zip import Layout, Member
from flr.zip_records import BLOCK
from flr.zip_report import NAME, Report
from tests.flr.zip_reader import streamed

GIB = 1 << 30
MODES = [0o640, 0o600, 0o500, 0o755, 0o400, 0o700, 0o444]
CRC_OF_5_GIB = 0x193838C3
"""Of zeros, by zlib, once."""
JAVA = """
import java.io.*;
import java.nio.file.*;
import java.util.zip.*;

class Unzip {
    public static void main(String[] args) throws IOException {
        try (ZipInputStream in = new ZipInputStream(System.in)) {
            for (ZipEntry entry; (entry = in.getNextEntry()) != null; ) {
                if (args.length == 0) { in.transferTo(System.out); continue; }
                Path path = Path.of(args[0], entry.getName());
                if (entry.isDirectory()) Files.createDirectories(path);
                else { Files.createDirectories(path.getParent()); Files.copy(in, path); }
            }
        }
    }
}
"""
TOOLS: dict[str, list[str]] = {
    "unzip": ["unzip", "-q", "ZIP", "-d", "OUT"],
    "bsdtar": ["bsdtar", "-xf", "ZIP", "-C", "OUT"],
    "bsdtar of a pipe": ["bsdtar", "-xf", "-", "-C", "OUT"],
    "7z": ["7z", "x", "-bd", "-oOUT", "ZIP"],
    "java of a pipe": ["java", "-Dfile.encoding=UTF-8", "-Dsun.jnu.encoding=UTF-8", "JAVA", "OUT"],
}


def unpacked(tool: str, data: bytes, work: Path) -> Path:
    """Where the tool put it; it must not complain."""
    command = TOOLS[tool]
    if shutil.which(command[0]) is None:
        pytest.skip(f"needs {command[0]}")
    out = work / "out"
    out.mkdir()
    (work / "x.zip").write_bytes(data)
    (work / "Unzip.java").write_text(JAVA)
    places = {"ZIP": str(work / "x.zip"), "OUT": str(out), "JAVA": str(work / "Unzip.java"), "-oOUT": f"-o{out}"}
    done = subprocess.run(
        [places.get(word, word) for word in command], input=data if "of a pipe" in tool else b"", capture_output=True
    )
    assert (done.returncode, done.stderr) == (0, b"")
    return out


@pytest.mark.parametrize("tool", TOOLS)
def test_programs_unpack_it(tool: str, tmp_path: Path) -> None:
    sizes = [0, 1, 10, BLOCK - 1, BLOCK, BLOCK + 1, 700_000]
    contents = {f"folder/file {k}": random.Random(k).randbytes(size) for k, size in enumerate(sizes)}
    members = [Member("folder", "folder", 0, 0o750, 10**18, b""), Member("folder/empty", "folder", 0, 0o755, None, b"")]
    members += [
        Member(path, "file", len(data), MODES[k], (10**9 + k) * 10**9, path.encode())
        for k, (path, data) in enumerate(contents.items())
    ]
    layout = Layout(members, Report("Files of a machine"))

    def content(member: Member, at: int) -> Iterator[bytes]:
        yield contents[member.path][at:]

    out = unpacked(tool, b"".join(layout.read(0, layout.size, content, unexpected)), tmp_path)
    for path, data in contents.items():
        assert (out / path).read_bytes() == data
    assert (out / "folder/empty").is_dir()
    assert (out / NAME).read_bytes().startswith(b"Files of a machine\r\n")
    assert len([*out.rglob("*")]) == len(members) + 1
    if tool != "java of a pipe":  # which makes new files
        for k, path in enumerate(contents):
            assert int((out / path).stat().st_mtime) == 10**9 + k
    if tool in (
        "unzip",
        "bsdtar",
        "7z",
    ):  # from the front no mode is seen, and the others' rights depend on who unpacks
        assert [(out / path).stat().st_mode & 0o700 for path in contents] == [mode & 0o700 for mode in MODES]


@pytest.mark.parametrize("tool", ["unzip", "bsdtar", "7z"])
def test_names_come_out_as_they_are(tool: str, tmp_path: Path) -> None:
    names = ["ü", "漢字.txt", "👨\u200d👩\u200d👧.png", "x" * 255, "a b (2).c", "%FF"]
    layout = Layout([Member(name, "file", 3, 0o644, 0, b"") for name in names], Report("x"))
    data = b"".join(layout.read(0, layout.size, lambda member, at: iter((b"abc"[at:],)), unexpected))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LC_ALL", "C.UTF-8")
        out = unpacked(tool, data, tmp_path)
    assert {path.name for path in out.iterdir()} == {*names, NAME}


@pytest.mark.parametrize("tool", ["unzip", "bsdtar", "7z"])
def test_a_link_that_was_asked_for_is_one(tool: str, tmp_path: Path) -> None:
    layout = Layout(
        [Member("a", "file", 3, 0o644, 0, b""), Member("l", "link", 1, 0o777, 0, b"")], Report("x"), links=True
    )
    data = b"".join(layout.read(0, layout.size, lambda member, at: iter((b"abc"[at : member.size],)), unexpected))
    out = unpacked(tool, data, tmp_path)
    assert (out / "l").is_symlink()
    assert (out / "l").readlink() == Path("a")


def unexpected(path: str, why: str) -> None:
    raise AssertionError(f"{path}: {why}")


# -- more than 32 and 16 bits


class Zeros:
    """Files of holes; counts how often content was asked for."""

    def __init__(self, sizes: list[int]) -> None:
        self.members = [Member(f"zeros {k}", "file", size, 0o644, 0, b"%d" % k) for k, size in enumerate(sizes)]
        self.asked = 0
        self.layout = Layout(self.members, Report("x"))

    def content(self, member: Member, at: int) -> Iterator[Hole]:
        self.asked += 1
        yield Hole(member.size - at)

    def read(self, start: int, end: int) -> bytes:
        return b"".join(self.layout.read(start, end, self.content, unexpected))


class Remote(io.RawIOBase):
    """A zip that is fetched range by range, where its reader wants it."""

    def __init__(self, size: int, read: Callable[[int, int], bytes]) -> None:
        self._at, self._size, self._read, self.fetched = 0, size, read, 0

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        end = self._size if size < 0 else min(self._size, self._at + size)
        data = self._read(self._at, end)
        self._at += len(data)
        self.fetched += len(data)
        return data


def test_a_file_of_5_gib_whose_end_is_fetched() -> None:
    zeros = Zeros([5 * GIB, 3])
    layout = zeros.layout
    begin = layout._offsets[1] - 24 - 1000
    tail = zeros.read(begin, layout._offsets[1])
    assert tail[:1000] == bytes(1000)
    packed = 5 * GIB + 5 * -(-5 * GIB // BLOCK)
    assert tail[1000:] == b"PK\7\x08" + CRC_OF_5_GIB.to_bytes(4, "little") + packed.to_bytes(8, "little") + (
        5 * GIB
    ).to_bytes(8, "little")
    assert struct.unpack("<4sHHHHHIIIHH7sHHQQ", zeros.read(0, 57)) == (
        b"PK\3\4", 45, 1 << 11 | 1 << 3, 8, 0, 1 << 5 | 1, 0, 0xFFFFFFFF, 0xFFFFFFFF, 7, 20 + 9, b"zeros 0", 1, 16, 0, 0,
    )  # fmt: skip
    remote = Remote(layout.size, zeros.read)
    with zipfile.ZipFile(remote) as archive:
        first, second, report = archive.infolist()
        assert (first.file_size, first.compress_size, first.CRC) == (5 * GIB, packed, CRC_OF_5_GIB)
        assert second.header_offset == layout._offsets[1] > 5 * GIB
        assert report.header_offset > 5 * GIB
        assert archive.read(second) == bytes(3)
        assert archive.read(report).startswith(b"x\r\n")
        with archive.open(first) as file:
            assert file.read(3 << 20) == bytes(3 << 20)
    assert remote.fetched < 5 << 20
    assert zeros.asked < 10


@pytest.mark.parametrize("size", [*(0xFFFFFFFF - 5 * 65533 + k for k in (-1, 0, 1)), 0xFFFFFFFE, 0xFFFFFFFF, 1 << 32])
def test_a_file_as_large_as_32_bits_count(size: int) -> None:
    zeros = Zeros([size, 1])
    with zipfile.ZipFile(Remote(zeros.layout.size, zeros.read)) as archive:
        first, second, _ = archive.infolist()
        assert (first.file_size, first.compress_size) == (size, size + 5 * -(-size // BLOCK))
        assert second.header_offset == zeros.layout._offsets[1]
        assert archive.read(second) == b"\0"
        big = first.compress_size >= 0xFFFFFFFF
        assert first.extract_version == (45 if big else 20)
        assert zeros.layout._offsets[1] - first.compress_size - (24 if big else 16) == len(zeros.layout._local(0))


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["bsdtar", "java"])
def test_a_file_of_5_gib_is_read_from_a_pipe(tool: str, tmp_path: Path) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"needs {tool}")
    (tmp_path / "Unzip.java").write_text(JAVA)
    command = ["bsdtar", "-xOf", "-"] if tool == "bsdtar" else ["java", str(tmp_path / "Unzip.java")]
    zeros = Zeros([5 * GIB, 3])
    layout = zeros.layout
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdin is not None
        assert running.stdout is not None

        def feed(into: IO[bytes]) -> None:
            with into:
                for piece in layout.read(0, layout.size, zeros.content, unexpected):
                    into.write(piece)

        feeding = threading.Thread(target=feed, args=(running.stdin,))
        feeding.start()
        left = 5 * GIB + 3
        nothing = memoryview(bytes(1 << 20))
        while left and (data := running.stdout.read(min(left, 1 << 20))):
            assert data == nothing[: len(data)]
            left -= len(data)
        assert left == 0
        assert running.stdout.read().startswith(b"x\r\n2 files")
        feeding.join()
    assert running.returncode == 0


@pytest.mark.parametrize(
    "count",
    [pytest.param(65_533, marks=pytest.mark.slow), 65_534, 65_535, pytest.param(70_000, marks=pytest.mark.slow)],
)
def test_more_files_than_16_bits_count(count: int) -> None:
    layout = Layout((Member(f"{k}", "file", 0, 0o644, 0, b"") for k in range(count)), Report("x"))
    data = b"".join(layout.read(0, layout.size, lambda member, at: iter(()), unexpected))
    assert len(data) == layout.size
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.namelist() == [f"{k}" for k in range(count)] + [NAME]
    big = count + 1 >= 65_535
    assert (b"PK\6\6" in data[-150:]) == big
    entries, offset = layout._entries[-1], layout._directory
    few = min(count + 1, 0xFFFF)
    assert struct.unpack("<4sHHHHIIH", data[-22:]) == (b"PK\5\6", 0, 0, few, few, entries, offset, 0)
    if big:
        assert struct.unpack("<4sIQI", data[-42:-22]) == (b"PK\6\7", 0, len(data) - 98, 1)
        assert struct.unpack("<4sQHHIIQQQQ", data[-98:-42]) == (
            b"PK\6\6", 44, 3 << 8 | 63, 45, 0, 0, count + 1, count + 1, entries, offset,
        )  # fmt: skip


@given(
    st.integers(0, 300),
    st.one_of(st.just(0), st.integers(1, 1 << 45), st.integers(0xFFFFFFFF - 400_000, 0xFFFFFFFF + 10)),
    st.none() | st.sampled_from([-(1 << 31), 0, (1 << 31) - 1, 1 << 31]).map(lambda seconds: seconds * 10**9),
    st.one_of(st.integers(0, 1 << 45), st.integers(0xFFFFFFFE, 0x100000000)),
)
def test_records_are_as_long_as_is_said(name: int, size: int, modified: int | None, offset: int) -> None:
    path = b"x" * name
    assert len(zip_records.local(path, size, modified)) == zip_records.local_size(name, size, modified)
    assert len(zip_records.descriptor(size, 7)) == zip_records.descriptor_size(size)
    entry = zip_records.central(path, size, modified, offset, 0o100644, 7)
    assert len(entry) == zip_records.central_size(name, size, modified, offset)


@given(st.integers(0, 4 * BLOCK), st.data())
def test_any_part_of_the_frames_is_a_part_of_the_whole(size: int, data: st.DataObject) -> None:
    content = random.Random(size).randbytes(size)
    whole = b"".join(zip_records.framed(iter((content,)), size, 0, zip_records.deflated(size)))
    assert len(whole) == zip_records.deflated(size)
    if size:
        inflating = zlib.decompressobj(-15)
        assert inflating.decompress(whole) == content
        assert inflating.eof
        assert inflating.unused_data == b""
    near = st.sampled_from(range(0, len(whole) + 1, 65540)).flatmap(
        lambda edge: st.integers(max(0, edge - 7), min(len(whole), edge + 7))
    )
    start, end = sorted((data.draw(near), data.draw(near)))
    first, last = zip_records.content_place(start, size), zip_records.content_place(end, size)
    cuts = sorted({first, last, *data.draw(st.lists(st.integers(first, last), max_size=4))})
    pieces: list[bytes | Hole] = [content[low:high] for low, high in pairwise(cuts)]
    assert b"".join(zip_records.framed(iter(pieces), size, start, end)) == whole[start:end]
    holes: list[bytes | Hole] = [Hole(last - first)]
    zeros = b"".join(zip_records.framed(iter((Hole(size),)), size, 0, len(whole)))
    assert b"".join(zip_records.framed(iter(holes), size, start, end)) == zeros[start:end]


def test_the_reader_of_these_tests_reads_what_zipfile_writes_to_a_pipe() -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def tell(self) -> int:
            raise io.UnsupportedOperation

        def seek(self, offset: int, whence: int = 0) -> int:
            raise io.UnsupportedOperation

    pipe = Pipe()
    contents = {f"f{k}": random.Random(k).randbytes(k * 30_000) for k in range(1, 5)}
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    assert streamed(io.BytesIO(pipe.getvalue())) == contents
