# SPDX-License-Identifier: Apache-2.0
"""Windows and overlays: whatever is put over whatever, every way to the bytes tells the same, and nothing outside is read."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flr.blocks import Extent, Hole, Literal, MemoryDisk, Segment, Volume, Window, joined, read_segments
from flr.errors import OutOfBounds, TooMuch
from flr.fs import overlay
from flr.fs.overlay import Overlay

SIZE = 9000
BASE = bytes(k * 7 % 251 for k in range(SIZE))


class Strict(MemoryDisk):
    """Refuses what is outside by itself, so that no layer above can hide it."""

    def pread(self, offset: int, length: int) -> bytes:
        assert 0 <= offset <= offset + length <= self.size
        return super().pread(offset, length)


puts = st.lists(st.tuples(st.integers(0, SIZE - 1), st.binary(max_size=1500)), max_size=8)
ranges = st.tuples(st.integers(0, SIZE), st.integers(0, SIZE))


def same(volume: Volume, disk: MemoryDisk, model: bytes, at: int, length: int) -> None:
    length = min(length, volume.size - at)
    assert volume.pread(at, length) == model[at : at + length]
    segments = volume.locate(at, length)
    assert read_segments([disk], segments) == model[at : at + length]
    assert all(segment.length > 0 for segment in segments)


@given(puts, st.sampled_from([1, 512, 1024, 4096, 8192]), st.lists(ranges, min_size=1, max_size=5))
def test_an_overlay_is_what_was_put_over_what_was_there(
    changes: list[tuple[int, bytes]], unit: int, asked: list[tuple[int, int]]
) -> None:
    disk = Strict(BASE)
    over = Overlay(disk, unit)
    model = bytearray(BASE)
    for at, data in changes:
        data = data[: SIZE - at]
        over.put(at, data)
        model[at : at + len(data)] = data
    for at, length in asked:
        same(over, disk, bytes(model), at, length)
        places = np.array(sorted({at // 3, at // 2, at} & set(range(SIZE - 64))), np.int64)
        rows = over.gather(places, 64)
        assert [bytes(row) for row in rows] == [bytes(model[place : place + 64]) for place in places.tolist()]


@given(st.integers(0, SIZE), st.integers(0, SIZE), st.lists(ranges, min_size=1, max_size=5))
def test_a_window_shows_its_part_and_nothing_else(start: int, size: int, asked: list[tuple[int, int]]) -> None:
    size = min(size, SIZE - start)
    disk = Strict(BASE)
    window = Window(disk, start, size)
    for at, length in asked:
        if at <= size:
            same(window, disk, BASE[start : start + size], at, length)
        for offset, count in ((at, size - at + 1), (-1, 1), (size, 1), (0, size + 1), (0, -1)):
            if offset < 0 or count < 0 or offset + count > size:
                for ask in (window.pread, window.locate):
                    with pytest.raises(OutOfBounds):
                        ask(offset, count)
    with pytest.raises(OutOfBounds):
        window.gather(np.array([max(0, size - 10)], np.int64), 64)
    window.prefetch([(-5, 10), (0, size), (size, 1), (0, size + 1)])


def test_an_overlay_does_not_grow_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlay, "MOST_BYTES", 4096)
    over = Overlay(MemoryDisk(BASE), 512)
    over.put(0, bytes(4096))
    with pytest.raises(TooMuch):
        over.put(5000, b"x")
    with pytest.raises(OutOfBounds):
        over.put(SIZE - 1, b"xy")


segments = st.lists(
    st.one_of(
        st.integers(0, 50).map(Hole),
        st.tuples(st.integers(0, 8000), st.integers(0, 900)).map(lambda pair: Extent(0, *pair)),
        st.binary(max_size=20).map(Literal),
    ),
    max_size=12,
)


@given(segments)
def test_joined_segments_are_the_same_bytes_and_no_more_segments(found: list[Segment]) -> None:
    disk = MemoryDisk(BASE)
    made = joined(found)
    assert read_segments([disk], made) == read_segments([disk], found)
    assert len(made) <= len(found)
    assert all(segment.length for segment in made)
