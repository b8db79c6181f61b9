# SPDX-License-Identifier: Apache-2.0
"""Volumes made of several, against a model that knows every byte's place."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flr.blocks import MemoryDisk, Volume, Window, read_segments
from flr.errors import OutOfBounds
from flr.volumes.combined import Concatenated, Striped


class Watched(MemoryDisk):
    """Counts reads, and remembers what was read and announced."""

    def __init__(self, data: bytes, number: int) -> None:
        super().__init__(data, number)
        self.reads: list[tuple[int, int]] = []
        self.announced: list[tuple[int, int]] = []

    def pread(self, offset: int, length: int) -> bytes:
        self.reads.append((offset, length))
        return super().pread(offset, length)

    def prefetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        self.announced += ranges


def parts(sizes: list[int], around: int = 7) -> tuple[list[Watched], list[Window]]:
    """Disks of unlike bytes, and a window of each that leaves `around` bytes at either end."""
    disks = [
        Watched(bytes((37 * at + 101 * number) % 251 for at in range(size + 2 * around)), number)
        for number, size in enumerate(sizes)
    ]
    return disks, [Window(disk, around, size) for disk, size in zip(disks, sizes, strict=True)]


def check(disks: list[Watched], volume: Volume, model: bytes, offset: int, length: int, around: int = 7) -> None:
    assert volume.size == len(model)
    for disk in disks:
        disk.reads.clear()
    assert volume.pread(offset, length) == model[offset : offset + length]
    read = [len(disk.reads) for disk in disks]
    for disk in disks:
        assert all(at >= around and at + size <= disk.size - around for at, size in disk.reads)
    assert read_segments(disks, volume.locate(offset, length)) == model[offset : offset + length]
    assert all(segment.length for segment in volume.locate(offset, length))
    volume.prefetch([(offset, length), (-1, 5), (volume.size, 1)])
    announced = [sum(size for _, size in disk.announced) for disk in disks]
    assert sum(announced) == length, "what is announced is what is read"
    assert max(read, default=0) <= 1 or not isinstance(volume, Striped), "stripes cost one read of each part"


@given(st.data(), st.lists(st.integers(0, 40), max_size=8))
def test_parts_one_after_the_other(data: st.DataObject, sizes: list[int]) -> None:
    disks, windows = parts(sizes)
    model = b"".join(window.pread(0, window.size) for window in windows)
    offset = data.draw(st.integers(0, len(model)))
    length = data.draw(st.integers(0, len(model) - offset))
    check(disks, Concatenated(windows), model, offset, length)


def striped(contents: list[bytes], chunk: int) -> bytes:
    model, at = b"", 0
    while at < len(contents[0]):
        model += b"".join(content[at : at + chunk] for content in contents)
        at += chunk
    return model


@given(st.data(), st.integers(1, 5), st.integers(1, 9), st.integers(0, 60))
def test_stripes(data: st.DataObject, count: int, chunk: int, size: int) -> None:
    disks, windows = parts([size] * count)
    model = striped([window.pread(0, size) for window in windows], chunk)
    offset = data.draw(st.integers(0, len(model)))
    length = data.draw(st.integers(0, len(model) - offset))
    check(disks, Striped(windows, chunk), model, offset, length)


@given(st.data(), st.lists(st.tuples(st.integers(1, 3), st.integers(1, 20), st.integers(1, 6)), min_size=1, max_size=3))
def test_stripes_one_after_the_other(data: st.DataObject, layout: list[tuple[int, int, int]]) -> None:
    disks, windows = parts([size for count, size, _ in layout for _ in range(count)])
    model, volumes, at = b"", [], 0
    for count, size, chunk in layout:
        these = windows[at : at + count]
        model += striped([window.pread(0, size) for window in these], chunk)
        volumes.append(Striped(these, chunk))
        at += count
    offset = data.draw(st.integers(0, len(model)))
    length = data.draw(st.integers(0, len(model) - offset))
    check(disks, Concatenated(volumes), model, offset, length)


def test_a_long_read_over_stripes_is_one_read_of_each_part() -> None:
    disks, windows = parts([1 << 16] * 3)
    Striped(windows, 16).pread(5, 3 * (1 << 16) - 9)
    assert [len(disk.reads) for disk in disks] == [1, 1, 1]


def test_nothing_is_read_outside() -> None:
    _, windows = parts([30, 30])
    for volume in (Concatenated(windows), Striped(windows, 4)):
        for offset, length in ((-1, 2), (59, 2), (61, 0), (0, -1)):
            with pytest.raises(OutOfBounds):
                volume.pread(offset, length)
            with pytest.raises(OutOfBounds):
                volume.locate(offset, length)


def test_sectors_are_as_large_as_the_largest_of_the_parts() -> None:
    small, large = MemoryDisk(bytes(8192)), MemoryDisk(bytes(8192), sector_size=4096)
    assert Concatenated([small, large]).sector_size == 4096
    assert Striped([large, small], 512).sector_size == 4096


def test_stripes_of_unlike_parts_are_a_mistake() -> None:
    _, windows = parts([30, 20])
    with pytest.raises(ValueError, match="one size"):
        Striped(windows, 4)
