# SPDX-License-Identifier: Apache-2.0
"""What every target of a restore does: a file, a VHD, a page blob, a page blob that is a VHD, a managed disk's upload."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mover.disk.page_target import PageBlobTarget
from mover.disk.target import DiskTarget, FileTarget
from mover.errors import TargetError
from mover.repository.repository import Repository
from mover.restore import Restore, RestoreSettings
from mover.store.memory import MemoryStore
from tests.azure.conftest import MIB, BlobDisk, open_blob
from tests.azure.front import Front
from tests.mover.disks import MemoryDisk, back_up, quiet

pytestmark = pytest.mark.azurite
SIZE = 5 * MIB + 1536
KINDS = ("file", "vhd", "page blob", "page blob vhd", "upload")
RNG = random.Random(11)
NOT_UPLOADS = pytest.mark.parametrize("target_place", KINDS[:-1], indirect=True)
"""Of what a managed disk's upload is not: found finished, leased, made."""


class Place(Protocol):
    """Somewhere to restore to, one disk of SIZE bytes a number."""

    def open(self, number: int = 0, *, size: int = SIZE, in_place: bool = False) -> DiskTarget: ...

    def content(self, number: int = 0) -> bytes:
        """The finished disk."""


class Files:
    def __init__(self, folder: Path, as_vhd: bool) -> None:
        self._folder, self._as_vhd = folder, as_vhd

    def open(self, number: int = 0, *, size: int = SIZE, in_place: bool = False) -> DiskTarget:
        return FileTarget(str(self._folder / str(number)), size, in_place=in_place, as_vhd=self._as_vhd)

    def content(self, number: int = 0) -> bytes:
        data = (self._folder / str(number)).read_bytes()
        return data[:-512] if self._as_vhd else data


class Blobs:
    def __init__(self, blob: BlobDisk, as_vhd: bool) -> None:
        self._blob, self._as_vhd = blob, as_vhd

    def open(self, number: int = 0, *, size: int = SIZE, in_place: bool = False) -> DiskTarget:
        blob = open_blob(self._blob.url(name=f"made-{number}"))
        return PageBlobTarget(blob, size, in_place=in_place, as_vhd=self._as_vhd)

    def content(self, number: int = 0) -> bytes:
        data = self._blob.content(name=f"made-{number}")
        return data[:-512] if self._as_vhd else data


class Uploads:
    def __init__(self, blob: BlobDisk, front: Front) -> None:
        self._blob, self._front = blob, front
        self._urls: dict[int, str] = {}

    def open(self, number: int = 0, *, size: int = SIZE, in_place: bool = False) -> DiskTarget:
        if number not in self._urls:
            self._urls[number] = self._blob.waits_for_upload(SIZE, f"upload-{number}")
        return PageBlobTarget(open_blob(self._urls[number]), size, in_place=in_place)

    def content(self, number: int = 0) -> bytes:
        return self._front.uploaded(self._urls[number], SIZE)


@pytest.fixture(params=KINDS)
def target_place(request: pytest.FixtureRequest, tmp_path: Path, page_blob: BlobDisk, front: Front) -> Iterator[Place]:
    kind = request.param
    if kind == "upload":
        yield Uploads(page_blob, front)
    elif kind.startswith("page blob"):
        yield Blobs(page_blob, kind.endswith("vhd"))
    else:
        yield Files(tmp_path, kind == "vhd")


def read(target: DiskTarget, offset: int = 0, size: int = SIZE) -> bytes:
    data = bytearray(b"x" * size)
    target.read_into(offset, data)
    return bytes(data)


def test_a_new_target_holds_what_is_written_and_zeros(target_place: Place) -> None:
    target = target_place.open()
    assert not target.compare
    assert not target.existed
    data = RNG.randbytes(MIB)
    target.write(MIB, data)
    target.write(5 * MIB, data[:1536])
    target.zero(MIB, 512)
    target.sync()
    expected = bytearray(SIZE)
    expected[MIB : 2 * MIB] = bytes(512) + data[512:]
    expected[5 * MIB :] = data[:1536]
    assert read(target) == expected
    target.finish(1.0)
    target.close()
    assert target_place.content() == expected


def test_what_was_written_before_is_found_and_gone_on_with(target_place: Place) -> None:
    data = RNG.randbytes(MIB)
    target = target_place.open()
    target.write(2 * MIB, data)
    target.close()
    again = target_place.open()
    assert again.compare
    assert not again.existed
    assert read(again, 2 * MIB, MIB) == data
    assert any(low <= 2 * MIB and high >= 3 * MIB for low, high in again.data_within(0, SIZE))
    again.write(0, data)
    again.finish(1.0)
    again.close()
    assert target_place.content() == data + bytes(MIB) + data + bytes(SIZE - 3 * MIB)


@NOT_UPLOADS
def test_a_finished_one_is_only_compared_unless_it_is_written_in_place(target_place: Place) -> None:
    data = RNG.randbytes(SIZE)
    finished(target_place, data)
    again = target_place.open()
    assert again.existed
    assert again.compare
    assert read(again) == data
    for change in (lambda: again.write(0, data[:512]), lambda: again.zero(0, 512)):
        with pytest.raises(TargetError, match="exists and is not this disk"):
            change()
    again.finish(1.0)
    again.close()
    assert target_place.content() == data
    over = target_place.open(in_place=True)
    assert over.compare
    assert not over.existed
    over.write(MIB, data[:MIB])
    over.finish(1.0)
    over.close()
    assert target_place.content() == data[:MIB] + data[:MIB] + data[2 * MIB :]


def finished(where: Place, data: bytes) -> None:
    target = where.open()
    for at in range(0, SIZE, MIB):
        target.write(at, data[at : at + MIB])
    target.finish(1.0)
    target.close()


@NOT_UPLOADS
def test_another_size_is_another_disk(target_place: Place) -> None:
    finished(target_place, RNG.randbytes(SIZE))
    with pytest.raises(TargetError):
        target_place.open(size=SIZE + 512)


@NOT_UPLOADS
def test_two_restores_do_not_write_one_target(target_place: Place) -> None:
    first = target_place.open()
    with pytest.raises(TargetError, match="another restore writes the target"):
        target_place.open()
    first.finish(1.0)
    first.close()
    again = target_place.open()
    assert again.existed
    again.close()


@NOT_UPLOADS
def test_in_place_needs_something_that_is_there(target_place: Place) -> None:
    with pytest.raises(TargetError, match="nothing to restore in place"):
        target_place.open(in_place=True)


PIECES = st.lists(st.tuples(st.integers(0, 10), st.integers(1, 11), st.booleans()), max_size=6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_restore_over_any_state_of_an_unfinished_target_is_the_disk(
    kind: str, tmp_path_factory: pytest.TempPathFactory, page_blob: BlobDisk, front: Front
) -> None:
    """Whatever an earlier run left in the target, a restore makes it the disk, byte for byte, and reads it back."""
    repository = Repository.create(MemoryStore())
    disk = MemoryDisk(SIZE)
    disk.fill(RNG, [0, 1, 3, 5])
    point = repository.find_point(back_up(repository, "job", disk).point)
    folder = tmp_path_factory.mktemp("targets")
    places: dict[str, Place] = {
        "file": Files(folder, False),
        "vhd": Files(folder, True),
        "page blob": Blobs(page_blob, False),
        "page blob vhd": Blobs(page_blob, True),
        "upload": Uploads(page_blob, front),
    }
    place, numbers = places[kind], iter(range(1000))

    @settings(max_examples=8, deadline=None)
    @given(pieces=PIECES)
    def check(pieces: list[tuple[int, int, bool]]) -> None:
        number = next(numbers)
        left = place.open(number)
        for start, length, right in pieces:
            low, high = start * SIZE // 11 // 512 * 512, min(SIZE, (start + length) * SIZE // 11 // 512 * 512)
            part = bytes(disk.data[low:high]) if right else RNG.randbytes(high - low)
            for at in range(0, len(part), MIB):
                left.write(low + at, part[at : at + MIB])
        left.close()
        target = place.open(number)
        job = Restore(repository, point, RestoreSettings(verify=True), quiet())
        done = job.run({0: target})[0]
        target.close()
        assert place.content(number) == disk.data
        assert done.verified == SIZE

    check()
