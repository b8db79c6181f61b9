# SPDX-License-Identifier: Apache-2.0
"""A zip has its length beforehand and the same bytes however it is fetched; what cannot be read is zeros and told of.

Sections are two blocks here, so that small files have several. `Guest` has the files, and breaks them on cue.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import random
import stat
import threading
import time
import tracemalloc
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flr import zip as zips
from flr import zip_content, zip_report
from flr.blocks import Hole
from flr.errors import Corrupt, TooMuch, Unreadable
from flr.fs.base import END_OF_TIME
from flr.zip import Layout, Member
from flr.zip_records import BLOCK
from flr.zip_report import NAME, Report
from mover.errors import StoreUnavailable
from tests.flr.zip_reader import streamed

SECTION = 2 * BLOCK


@pytest.fixture(autouse=True, scope="module")
def _small_sections() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zip_content, "SECTION", SECTION)
        yield


class Guest:
    """`bad`: (from, to) of each file that cannot be read now; `hides`: bytes that its content ends before its size, or goes on
    behind it; `gaps`: empty pieces come, too. `read` counts bytes of each file, `begun` and `ended` how often content was asked
    for, and gone through or closed."""

    def __init__(self, piece: int = 50_000) -> None:
        self.members: list[Member] = []
        self.files: dict[bytes, bytes] = {}
        self.bad: dict[bytes, list[tuple[int, int]]] = {}
        self.hides: dict[bytes, int] = {}
        self.piece = piece
        self.read: Counter[bytes] = Counter()
        self.gaps = False
        self.begun = self.ended = 0
        self._kept: list[Iterator[bytes | Hole]] = []  # so that whoever closes one does so on purpose
        self.told: list[tuple[str, str]] = []
        self.fails: Callable[[Member, int], Exception | None] = lambda member, at: None

    def file(self, path: str, data: bytes, *, modified: int | None = 0, mode: int = 0o640) -> Guest:
        self.files[path.encode()] = data
        self.members.append(Member(path, "file", len(data), mode, modified, path.encode()))
        return self

    def folder(self, path: str, mode: int = 0o750) -> Guest:
        self.members.append(Member(path, "folder", 4096, mode, None, b""))
        return self

    def content(self, member: Member, at: int) -> Iterator[bytes | Hole]:
        self.begun += 1
        self._kept.append(self._content(member, at))
        next(self._kept[-1])
        return self._kept[-1]

    def _content(self, member: Member, at: int) -> Iterator[bytes | Hole]:
        data = self.files[member.source]
        hidden = self.hides.get(member.source, 0)
        data = data[: len(data) - hidden] if hidden >= 0 else data + b"x" * -hidden
        try:
            yield b""  # it is begun
            while at < len(data):
                error = self.fails(member, at)
                if error is not None:
                    raise error
                stop = min(at + self.piece, len(data))
                for low, high in self.bad.get(member.source, ()):
                    if low <= at < high:
                        raise Corrupt("a bad sector", at)
                    if at < low:
                        stop = min(stop, low)
                self.read[member.source] += stop - at
                part = data[at:stop]
                yield part if any(part) else Hole(len(part))
                at = stop
                if self.gaps:
                    yield b""
        finally:
            self.ended += 1

    def layout(self, report: Report | None = None, **options: bool) -> Layout:
        return Layout(self.members, report or Report("Files of a machine"), **options)

    def problem(self, path: str, why: str) -> None:
        self.told.append((path, why))

    def bytes(self, layout: Layout, start: int = 0, end: int | None = None) -> bytes:
        return b"".join(layout.read(start, layout.size if end is None else end, self.content, self.problem))

    def expected(self) -> dict[str, bytes]:
        """Each section is whole up to the first byte of it that cannot be read."""
        made = {}
        for member in self.members:
            if member.kind == "folder":
                made[member.path + "/"] = b""
                continue
            data = self.files[member.source]
            bad = list(self.bad.get(member.source, ()))
            if self.hides.get(member.source, 0) > 0:
                bad.append((len(data) - self.hides[member.source], len(data)))
            whole = b""
            for at in range(0, len(data), SECTION):
                end = min(at + SECTION, len(data))
                stop = min([max(low, at) for low, high in bad if low < end and high > at], default=end)
                whole += data[at:stop] + bytes(end - stop)
            made[member.path] = whole
        return made


def unzipped(data: bytes) -> dict[str, bytes]:
    """By the standard library, from the directory at the end; and by a reader from the front, which must find the same."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        found = {info.filename: archive.read(info) for info in archive.infolist()}
        assert len(found) == len(archive.infolist())
    assert streamed(io.BytesIO(data)) == found
    return found


def content_of(data: bytes) -> dict[str, bytes]:
    found = unzipped(data)
    assert list(found)[-1] == NAME
    del found[NAME]
    return found


def report_of(data: bytes) -> str:
    return unzipped(data)[NAME].decode()


SIZES = st.one_of(
    st.sampled_from(
        [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, SECTION - 1, SECTION, SECTION + 1, 2 * SECTION, 3 * SECTION + 7]
    ),
    st.integers(0, 300),
)


SECONDS = [
    -(1 << 31),
    -1,
    0,
    315_532_799,
    315_532_800,
    315_532_801,
    1_700_000_001,
    (1 << 31) - 1,
    1 << 31,
    4_354_819_198,
    4_354_819_201,
]
TIMES = st.none() | st.builds(
    lambda seconds, rest: min(seconds * 10**9 + rest, END_OF_TIME - 1),
    st.sampled_from([*SECONDS, END_OF_TIME // 10**9]) | st.integers(1 << 30, 1 << 31),
    st.sampled_from([0, 1, 10**9 - 1]),
)


@st.composite
def guests(draw: st.DrawFn, broken: bool = True) -> Guest:
    chance = random.Random(draw(st.integers(0, 9)))
    guest = Guest(draw(st.sampled_from([7001, 50_000, BLOCK, 1 << 20])))
    guest.gaps = draw(st.booleans())
    for k, size in enumerate(draw(st.lists(SIZES, max_size=4))):
        data = chance.randbytes(size)
        if draw(st.booleans()):  # with a hole
            low, high = sorted(chance.randrange(size + 1) for _ in range(2))
            data = data[:low] + bytes(high - low) + data[high:]
        if draw(st.booleans()):
            guest.folder(f"ü {k}")
        guest.file(f"ü {k}/ß{k}", data, modified=draw(TIMES))
        if broken and size and draw(st.booleans()):
            places = [sorted(chance.randrange(size + 1) for _ in range(2)) for _ in range(chance.randrange(1, 3))]
            guest.bad[f"ü {k}/ß{k}".encode()] = [(low, high) for low, high in places if low < high]
        if broken and size and draw(st.booleans()):
            guest.hides[f"ü {k}/ß{k}".encode()] = chance.randrange(-5, size + 1)
    return guest


@given(guests(broken=False))
def test_what_is_unzipped_is_what_was_there(guest: Guest) -> None:
    layout = guest.layout()
    whole = guest.bytes(layout)
    assert len(whole) == layout.size
    assert (
        content_of(whole)
        == guest.expected()
        == {m.path + "/" * (m.kind == "folder"): guest.files.get(m.source, b"") for m in guest.members}
    )
    assert "Every file could be read to its end." in report_of(whole)
    assert guest.told == []
    assert layout.files + layout.folders == len(guest.members)
    assert layout.content_size == sum(map(len, guest.files.values()))
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        for member, info in zip(guest.members, archive.infolist(), strict=False):
            folder = member.kind == "folder"
            assert info.external_attr >> 16 == (stat.S_IFDIR if folder else stat.S_IFREG) | member.mode
            assert info.is_dir() == folder
            seconds = 315_532_800 if member.modified is None else min(member.modified, (1 << 63) - 1) // 10**9
            plain = time.gmtime(min(max(seconds, 315_532_800), 4_354_819_198))
            assert info.date_time == (*plain[:5], plain[5] & ~1)
            unix = seconds.to_bytes(4, "little", signed=True) if -(1 << 31) <= seconds < 1 << 31 else b""
            assert info.extra == (b"UT\5\0\1" + unix if unix and member.modified is not None else b"")


@settings(max_examples=150)
@given(guests(), st.data())
def test_any_ranges_in_any_order_are_parts_of_the_same_whole(guest: Guest, data: st.DataObject) -> None:
    whole = guest.bytes(guest.layout())
    assert content_of(whole) == guest.expected()
    layout = guest.layout()
    edges = sorted({*layout._offsets} | {layout._directory + place for place in layout._entries})
    near = st.sampled_from(edges).flatmap(lambda edge: st.integers(max(0, edge - 40), min(layout.size, edge + 40)))
    cuts = data.draw(st.lists(near | st.integers(0, layout.size), max_size=6))
    parts = list(itertools.pairwise([0, *sorted(cuts), layout.size]))
    for start, end in data.draw(st.permutations(parts)):
        assert guest.bytes(layout, start, end) == whole[start:end]
    for _ in range(3):
        start, end = sorted((data.draw(near), data.draw(near | st.integers(0, layout.size))))
        assert guest.bytes(layout, start, end) == whole[start:end]
    assert guest.begun == guest.ended


@given(guests(), st.data())
def test_ranges_that_are_read_at_the_same_time_are_parts_of_the_same_whole(guest: Guest, data: st.DataObject) -> None:
    whole = guest.bytes(guest.layout())
    layout = guest.layout()
    ranges = [sorted(data.draw(st.tuples(*2 * [st.integers(0, layout.size)]))) for _ in range(3)] + [[0, layout.size]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zips, "PIECE", 1)
        running = [(start, layout.read(start, end, guest.content, guest.problem), bytearray()) for start, end in ranges]
        left = list(running)
        while left:
            turn = data.draw(st.sampled_from(left)) if len(left) > 1 else left[0]
            for _ in range(data.draw(st.integers(1, 4)) if len(left) > 1 else 1):
                piece = next(turn[1], None)
                if piece is None:
                    left.remove(turn)
                    break
                turn[2].extend(piece)
    for (start, _, got), (_, end) in zip(running, ranges, strict=True):
        assert got == whole[start:end]


def test_threads_read_ranges_at_the_same_time() -> None:
    guest = Guest(9000)
    chance = random.Random(1)
    for k in range(6):
        guest.file(f"f{k}", chance.randbytes(chance.randrange(1, 3 * SECTION)))
    guest.bad = {b"f2": [(5000, 6000)], b"f4": [(0, 1)]}
    whole = guest.bytes(guest.layout())
    guest.told.clear()
    layout = guest.layout()
    wrong: list[object] = []

    def read(seed: int) -> None:
        mine = random.Random(seed)
        for _ in range(8):
            start, end = sorted(mine.randrange(layout.size + 1) for _ in range(2))
            try:
                if guest.bytes(layout, start, end) != whole[start:end]:
                    wrong.append((start, end))
            except BaseException as error:
                wrong.append(error)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert guest.bytes(layout) == whole
    assert sorted(path for path, _ in guest.told) == ["f2", "f4"]


# -- what is read, and how often


def test_a_download_that_goes_on_does_not_read_finished_files_again() -> None:
    guest = Guest()
    for k in range(4):
        guest.file(f"f{k}", random.Random(k).randbytes(3 * SECTION + 100))
    whole = guest.bytes(guest.layout())
    for cut in (len(whole) // 2, layout_place(guest, 2), len(whole) - 10, len(whole) * 7 // 9):
        layout = guest.layout()
        guest.read.clear()
        first = guest.bytes(layout, 0, cut)
        assert first + guest.bytes(layout, cut) == whole
        for k in range(4):
            assert guest.read[b"f%d" % k] <= 4 * SECTION + 100 + guest.piece
        assert sum(guest.read.values()) <= 4 * (3 * SECTION + 100) + SECTION + guest.piece
        guest.read.clear()
        assert guest.bytes(layout, layout._directory) == whole[layout._directory :]
        assert guest.read.total() == 0


def layout_place(guest: Guest, member: int) -> int:
    return guest.layout()._offsets[member]


def test_a_reader_that_is_broken_off_has_what_it_read_remembered() -> None:
    """The client goes away in the middle of a range."""
    guest = Guest().file("a", b"a" * (2 * SECTION)).file("b", b"b" * (2 * SECTION))
    whole = guest.bytes(guest.layout())
    layout = guest.layout()
    guest.begun = guest.ended = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zips, "PIECE", 1)
        got = b""
        reading = layout.read(0, layout.size, guest.content, guest.problem)
        while len(got) < layout._offsets[1] + SECTION + 1000:
            got += next(reading)
        reading.close()  # type: ignore[attr-defined]
    assert guest.begun == guest.ended == 2
    guest.read.clear()
    assert got + guest.bytes(layout, len(got)) == whole
    assert guest.read[b"a"] == 0
    assert guest.read[b"b"] <= SECTION + guest.piece


def test_a_range_reads_other_files_only_for_checksums_that_are_in_it() -> None:
    guest = Guest()
    for k in range(3):
        guest.file(f"f{k}", random.Random(k).randbytes(2 * SECTION))
    whole = guest.bytes(guest.layout())
    layout = guest.layout()
    guest.read.clear()
    begin = layout._offsets[1]
    assert guest.bytes(layout, begin + 1000, begin + 2000) == whole[begin + 1000 : begin + 2000]
    assert set(guest.read) == {b"f1"}
    assert guest.read[b"f1"] <= guest.piece
    end = layout._offsets[2]
    guest.read.clear()
    assert guest.bytes(layout, end - 1000, end - 16) == whole[end - 1000 : end - 16]
    assert guest.read == {b"f1": SECTION}
    guest.read.clear()
    assert guest.bytes(layout, end - 16, end) == whole[end - 16 : end]
    assert SECTION <= guest.read[b"f1"] <= SECTION + guest.piece  # its other section, for the checksum
    assert set(guest.read) == {b"f1"}
    guest.read.clear()
    known = layout._offsets[3] + 60
    assert guest.bytes(layout, layout._offsets[3], known) == whole[layout._offsets[3] : known]
    assert guest.read == {}
    assert guest.bytes(layout, layout._directory) == whole[layout._directory :]
    assert guest.read == {b"f0": 2 * SECTION, b"f2": 2 * SECTION}


def test_whoever_waits_for_checksums_can_stop() -> None:
    guest = Guest()
    for k in range(100):
        guest.file(f"f{k}", b"x" * 100)
    whole = guest.bytes(guest.layout())
    layout = guest.layout()
    guest.read.clear()
    assert guest.bytes(layout, layout.size - 22) == whole[-22:]
    assert guest.read.total() == 0  # needs no checksum
    begin = layout._offsets[100] + len(layout._local(100)) + 5
    reading = layout.read(layout._offsets[101] - 200, layout.size, guest.content, guest.problem)
    assert next(reading) == b""  # what it says of the files is not known yet
    assert 0 < len(guest.read) <= zips.PAUSE
    reading.close()  # type: ignore[attr-defined]
    pieces = list(layout.read(begin, layout.size, guest.content, guest.problem))
    assert 3 < sum(not piece for piece in pieces) < 10
    assert b"".join(pieces) == whole[begin:]
    assert set(guest.read.values()) == {100}


def test_pieces_are_worth_sending() -> None:
    guest = Guest()
    for k in range(2000):
        guest.file(f"f{k}", b"x" * 1000)
    guest.file("large", bytes(range(256)) * 8000)
    layout = guest.layout()
    pieces = list(layout.read(0, layout.size, guest.content, guest.problem))
    assert all(len(piece) >= zips.PIECE for piece in pieces[:-1])
    assert max(map(len, pieces)) < 3 * zips.PIECE


def test_an_empty_range_is_empty_and_one_outside_is_a_mistake() -> None:
    guest = Guest().file("a", b"x" * SECTION)
    layout = guest.layout()
    for place in (0, 50, layout._offsets[1] - 8, layout._offsets[1], layout._directory, layout.size):
        assert list(layout.read(place, place, guest.content, guest.problem)) == []
    assert guest.begun == 0
    for start, end in ((-1, 5), (5, 4), (0, layout.size + 1)):
        with pytest.raises(ValueError, match="bytes"):
            layout.read(start, end, guest.content, guest.problem)


# -- what cannot be read


@pytest.mark.parametrize("readable", [0, 1, BLOCK, SECTION - 1])
def test_a_file_that_breaks_off_is_filled_and_told(readable: int) -> None:
    size = SECTION + 1000
    guest = Guest().file("a", b"a" * size).file("b", b"b" * size).file("c", b"c")
    guest.bad[b"b"] = [(readable, size)]
    layout = guest.layout()
    whole = guest.bytes(layout)
    assert content_of(whole) == {"a": b"a" * size, "b": b"b" * readable + bytes(size - readable), "c": b"c"}
    assert guest.told == [("b", f"a bad sector: {readable}")]
    report = report_of(whole)
    assert "Not read as they should be (1):" in report
    lost = f"{size - readable} of {size} bytes could not be read and are zeros, from byte {readable} on"
    assert f"  b: {lost}: a bad sector: {readable}\r\n" in report
    guest.bad.clear()  # these bytes were sent already
    assert guest.bytes(layout) == whole
    assert guest.bytes(layout, 5, layout.size - 5) == whole[5:-5]
    assert len(guest.told) == 1


def test_behind_a_bad_section_a_file_is_read_again() -> None:
    data = random.Random(1).randbytes(4 * SECTION)
    guest = Guest().file("a", data)
    guest.bad[b"a"] = [(SECTION + 500, SECTION + 501)]
    whole = guest.bytes(guest.layout())
    lost = SECTION - 500
    assert content_of(whole)["a"] == data[: SECTION + 500] + bytes(lost) + data[2 * SECTION :]
    assert (
        f"a: {lost} of {4 * SECTION} bytes could not be read and are zeros, from byte {SECTION + 500} on"
        in report_of(whole)
    )


def test_a_file_that_ends_early_or_goes_on_is_told() -> None:
    guest = Guest().file("short", b"s" * 1000).file("long", b"l" * 1000).file("gone", b"g" * 1000)
    guest.hides = {b"short": 300, b"long": -5, b"gone": 1000}
    whole = guest.bytes(guest.layout())
    assert content_of(whole) == {"short": b"s" * 700 + bytes(300), "long": b"l" * 1000, "gone": bytes(1000)}
    report = report_of(whole)
    assert (
        "short: 300 of 1000 bytes could not be read and are zeros, from byte 700 on: a file ends before its size"
        in report
    )
    assert "long: it goes on behind its size; what stands there is left out\r\n" in report
    assert "gone: 1000 of 1000 bytes" in report
    assert {path for path, _ in guest.told} == {"short", "long", "gone"}


def test_bytes_that_were_sent_stay_or_the_range_fails() -> None:
    """A file that could be read and cannot be any more, before its checksum is known: zeros would be other bytes than were sent."""
    guest = Guest(1000).file("a", random.Random(1).randbytes(SECTION))
    whole = guest.bytes(guest.layout())
    layout = guest.layout()
    sent = guest.bytes(layout, 0, 5000)
    assert guest.bytes(layout, 0, 1000) == sent[:1000]
    guest.bad[b"a"] = [(3000, 3001)]
    with pytest.raises(Unreadable, match="a file reads differently than before: a"):
        guest.bytes(layout, 5000)
    assert guest.told == []
    guest.bad[b"a"] = [(9000, 9001)]  # nothing of that was sent
    with zipfile.ZipFile(io.BytesIO(sent + guest.bytes(layout, 5000))) as archive:
        assert archive.testzip() is None
    assert [path for path, _ in guest.told] == ["a"]
    assert guest.bytes(layout, 0, 5000) == sent == whole[:5000]


def test_what_was_read_whole_stays_whole() -> None:
    guest = Guest(1000).file("a", random.Random(1).randbytes(SECTION))
    layout = guest.layout()
    whole = guest.bytes(layout)
    guest.bad[b"a"] = [(3000, 3001)]
    with pytest.raises(Corrupt, match="a bad sector"):
        guest.bytes(layout, 100, 5000)
    assert guest.bytes(layout, 5000) == whole[5000:]
    assert guest.told == []


def begun(guest: Guest) -> tuple[Layout, Iterator[bytes], bytes]:
    """A range that has sent some thousand bytes and goes on later."""
    layout = guest.layout()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zips, "PIECE", 1)
        reading = layout.read(0, layout.size, guest.content, guest.problem)
        sent = b"".join(itertools.islice(reading, 6))
    assert 3000 < len(sent) < 9000
    return layout, reading, sent


def gather(reading: Iterator[bytes], into: bytearray) -> None:
    for piece in reading:
        into += piece


def test_two_ranges_that_find_different_things_do_not_both_send_them() -> None:
    data = random.Random(1).randbytes(SECTION)
    guest = Guest(1000).file("a", data)
    layout, reading, sent = begun(guest)
    guest.bad[b"a"] = [(10_000, SECTION)]
    broken = guest.bytes(layout)
    assert content_of(broken)["a"] == data[:10_000] + bytes(SECTION - 10_000)
    guest.bad.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zips, "PIECE", 1)
        more = bytearray()
        with pytest.raises(Unreadable, match="a file reads differently than before: a"):
            gather(reading, more)
        sent += more
    assert len(sent) > 9000
    assert broken.startswith(sent)
    assert guest.bytes(layout) == broken

    layout, reading, _ = begun(guest)
    whole = guest.bytes(layout)
    guest.bad[b"a"] = [(10_000, SECTION)]
    with pytest.raises(Unreadable, match="a file reads differently than before: a"):
        list(reading)
    guest.bad.clear()
    assert guest.bytes(layout) == whole

    layout, reading, _ = begun(guest)
    guest.files[b"a"] = bytes(reversed(data))
    guest.bytes(layout)
    with pytest.raises(Unreadable, match="a file reads differently than before: a"):
        list(reading)


def test_other_errors_end_the_range_and_are_not_remembered() -> None:
    guest = Guest(1000).file("a", b"a" * 5000).file("b", b"b" * 5000)
    whole = guest.bytes(guest.layout())
    layout = guest.layout()
    guest.fails = lambda member, at: (
        StoreUnavailable("it does not answer") if (member.path, at) == ("b", 3000) else None
    )
    with pytest.raises(StoreUnavailable):
        guest.bytes(layout)
    guest.fails = lambda member, at: None
    guest.read.clear()
    assert guest.bytes(layout) == whole
    assert guest.begun == guest.ended
    assert guest.told == []
    assert "Every file could be read" in report_of(whole)


def test_the_end_alone_tells_of_every_file() -> None:
    """Whoever fetches the report first gets the same as who fetches it last."""
    guest = Guest()
    for k in range(20):
        guest.file(f"f{k}", b"x" * 1000)
    guest.bad = {b"f7": [(0, 1)], b"f11": [(10, 20)]}
    whole = guest.bytes(guest.layout())
    layout = guest.layout()
    begin = layout._offsets[20]
    tail = guest.bytes(layout, begin)
    assert tail == whole[begin:]
    assert b"f7: 1000 of 1000 bytes" in tail
    assert b"f11: 990 of 1000 bytes" in tail
    assert guest.bytes(layout) == whole


# -- the report


def test_more_problems_than_there_is_room_for_are_counted() -> None:
    guest = Guest()
    for k in range(3000):
        path = f"{'long' * 50} {k}"
        guest.file(path, b"x" * 10)
        guest.bad[path.encode()] = [(k % 10, 10)]
    layout = guest.layout()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zip_report, "KEPT", 900)
        whole = guest.bytes(layout)
        order = guest.layout()
        for k in reversed(range(3000)):  # found in another order, it is told the same
            guest.bytes(order, order._offsets[k], order._offsets[k + 1])
        assert guest.bytes(order) == whole
    report = report_of(whole)
    told = [line for line in report.splitlines() if "could not be read" in line]
    assert 500 < len(told) < 900
    assert all(line.split(": ")[0].endswith(f" {k}") for k, line in enumerate(told))
    assert "Not read as they should be (3000):" in report
    assert f"  and {3000 - len(told)} more: there was no room for them" in report
    assert len(guest.told) == 2 * 3000


@given(st.integers(1, 1200), st.integers(0, 1200), st.integers(1, 400))
@settings(max_examples=30)
def test_a_report_is_as_long_as_was_promised(files: int, bad: int, length: int) -> None:
    problems = zip_report.Problems(files)
    for file in range(min(files, bad)):
        problems.add(file, 0, "why")
    size = zip_report.room(files)
    text = problems.text(size, lambda file, place, why: zip_report.line("p" * length, 10, 10, place, why))
    assert len(text) == size
    lines = text.decode().rstrip("\r\n").splitlines()
    assert len(lines) == 1 + min(files, bad) or "more: there was no room for them" in lines[-1]


def test_renames_and_what_is_left_out_are_told() -> None:
    report = Report("Files of a machine")
    guest = Guest().file("a_b", b"x")
    report.renamed(b"dir/a:b\n\xff", "dir/a_b_%FF")
    report.left_out(b"dir/socket", "a socket")
    guest.members.append(Member("dir/link", "link", 6, 0o777, 0, b""))
    guest.members.append(Member("/".join(["d" * 250] * 270), "folder", 0, 0o777, 0, b""))
    guest.members.append(Member("huge", "file", 1 << 60, 0o777, 0, b""))
    layout = guest.layout(report)
    text = report_of(guest.bytes(layout))
    assert text.startswith("Files of a machine\r\n1 files and 0 folders, 1 bytes\r\n")
    assert "  dir/a:b\\x0a\\xff\r\n    -> dir/a_b_%FF\r\n" in text
    assert "Left out (4):\r\n  dir/socket: a socket\r\n  dir/link: a symbolic link\r\n" in text
    assert "d: its path is longer than a zip can hold\r\n" in text
    assert f"  huge: it says that it has {1 << 60} bytes\r\n" in text
    assert layout.files == 1


def test_of_a_long_path_the_end_is_told() -> None:
    line = zip_report.line("p" * 5000 + "/end.txt", 10, 0, 0, "why")
    assert line.startswith("...p")
    assert line.endswith("/end.txt: why")
    assert len(line) < 320


def test_a_problem_is_noted_before_its_file_counts_as_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else another range could finish the report without it."""
    guest = Guest().file("a", b"x" * 100)
    guest.bad[b"a"] = [(0, 1)]
    layout = guest.layout()
    add = zip_report.Problems.add
    seen: list[bool] = []

    def adding(self: zip_report.Problems, file: int, place: int, why: str) -> bool:
        seen.append(layout._contents.is_settled(0, 100))
        return add(self, file, place, why)

    monkeypatch.setattr(zip_report.Problems, "add", adding)
    guest.bytes(layout)
    assert seen == [False]


def test_many_renames_are_counted_and_not_kept() -> None:
    report = Report("x")
    for k in range(100_000):
        report.renamed(b"old %d" % k, f"new {k}")
    text = report.text(0, 0, 0).decode()
    assert len(text) < zip_report.MOST_BYTES + 1000
    told = text.count("->")
    assert "(100000)" in text
    assert f"and {100_000 - told} more" in text


# -- links, names, limits


def test_a_link_is_a_link_when_it_is_asked_for() -> None:
    guest = Guest().file("a", b"content")
    guest.files[b"l"] = b"../a"
    guest.members.append(Member("l", "link", 4, 0o777, 0, b"l"))
    whole = guest.bytes(guest.layout(links=True))
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        info = archive.getinfo("l")
        assert archive.read(info) == b"../a"
        assert info.external_attr >> 16 == stat.S_IFLNK | 0o777


def test_set_uid_is_not_for_another_machine() -> None:
    guest = Guest().file("a", b"x", mode=0o6755).folder("b", mode=0o1777)
    with zipfile.ZipFile(io.BytesIO(guest.bytes(guest.layout()))) as archive:
        assert [info.external_attr >> 16 & 0o7777 for info in archive.infolist()] == [0o755, 0o777, 0o644]


def test_a_path_may_be_as_long_as_a_zip_can_hold() -> None:
    for length, fits in ((0xFFFF - 1, True), (0xFFFF, False)):
        path = ("d" * 99 + "/") * (length // 100) + "f" * (length % 100)
        assert len(path) == length
        guest = Guest().file(path, b"x").folder(path[:-1] + "g")
        assert list(content_of(guest.bytes(guest.layout()))) == ([path, path[:-1] + "g/"] if fits else [])


@pytest.mark.parametrize("path", ["/a", "a/", "a//b", "../a", "a/..", ".", "a/./b", "", NAME])
def test_a_path_that_leads_elsewhere_is_a_mistake(path: str) -> None:
    with pytest.raises(ValueError, match="not a member"):
        Guest().file(path, b"").layout()


@pytest.mark.parametrize("limit", ["MOST_MEMBERS", "MOST_BYTES", "MOST_TEXT"])
def test_a_zip_has_its_limits(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    guest = Guest()
    for k in range(10):
        guest.file(f"folder {k}/f", b"x" * 15)
    monkeypatch.setattr(zips, limit, {"MOST_MEMBERS": 10, "MOST_BYTES": 150, "MOST_TEXT": 210}[limit])
    guest.layout()
    with pytest.raises(TooMuch, match="more than one zip is made of"):
        guest.file("folder 9/g", b"x").layout()


# -- ETag


MEMBERS = st.lists(
    st.builds(
        Member,
        st.sampled_from(["a", "b", "ab", "a/b"]),
        st.sampled_from(["file", "folder", "link"]),
        st.integers(0, 2),
        st.sampled_from([0o644, 0o600]),
        st.none() | st.sampled_from([0, 10**9, 5 * 10**9]),
        st.sampled_from([b"", b"a", b"b", b"ba"]),
    ),
    max_size=3,
)


@settings(max_examples=300)
@given(MEMBERS, MEMBERS, st.booleans(), st.booleans(), st.sampled_from(["x", "y"]))
def test_an_etag_changes_when_the_bytes_do(
    first: list[Member], second: list[Member], one: bool, two: bool, title: str
) -> None:
    def content(member: Member, at: int) -> Iterator[bytes]:
        yield (member.source * 2 + b"..")[at : member.size]

    def made(members: list[Member], links: bool, title: str) -> tuple[str, bytes]:
        layout = Layout(members, Report(title), links=links)
        return layout.etag, b"".join(layout.read(0, layout.size, content, lambda path, why: None))

    a, b = made(first, one, "x"), made(second, two, title)
    if a[1] != b[1]:
        assert a[0] != b[0]
    assert made(first, one, "x") == a
    for k, member in enumerate(first):
        if member.kind == "file":
            for other in (
                replace(member, path="c"), replace(member, size=member.size + 1), replace(member, mode=0o400),
                replace(member, modified=7 * 10**9), replace(member, source=b"other"),
            ):  # fmt: skip
                assert Layout([*first[:k], other, *first[k + 1 :]], Report("x"), links=one).etag != a[0]


def test_other_bytes_of_the_same_members_need_another_version() -> None:
    """A download that was begun by an older release must not go on with these bytes."""
    guest = Guest().file("a", b"x" * 70_000, modified=10**18).folder("b").file("c", b"").file("d", b"d" * 10)
    guest.bad[b"d"] = [(3, 10)]
    layout = guest.layout()
    made = zips.VERSION, layout.etag, hashlib.sha256(guest.bytes(layout)).hexdigest()
    assert made == (
        1,
        "1cea37a0b3a0f277b977c9b3663b0ae37de6348fd6496535a7763c411958efec",
        "7b12107774769117bd51a7bd6cc6eb84216960009ec2900ae085d6ea48f51425",
    )


def test_a_member_takes_little_memory() -> None:
    count = 4000
    tracemalloc.start()
    try:
        members = (
            Member(f"folder {k // 50}/sub/some file number {k}.txt", "file", k, 0o644, k, b"%020d" % k)
            for k in range(count)
        )
        layout = Layout(members, Report("x"))
        assert tracemalloc.get_traced_memory()[1] < 200 * count
        guest = Guest()
        reading = layout.read(0, layout.size, lambda member, at: iter((bytes(member.size - at),)), guest.problem)
        most = tracemalloc.get_traced_memory()[0]
        for _ in reading:
            pass
        assert tracemalloc.get_traced_memory()[1] < most + 4 * count + (8 << 20)
    finally:
        tracemalloc.stop()
