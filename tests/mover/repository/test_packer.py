# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import random
import threading

import pytest

from mover.errors import ObjectExists, StoreFull, StoreUnavailable
from mover.repository.frame import Frame, FrameReader, FrameWriter
from mover.repository.keys import KeyRing, Kind
from mover.repository.names import METADATA_BIT, PackName
from mover.repository.pack import TARGET_SIZE, Place
from mover.repository.packer import Packer
from mover.repository.reader import read_directory
from mover.store.fault import Fault, FaultStore
from mover.store.memory import MemoryStore

RING = KeyRing(b"i" * 32, {1: b"1" * 32}, 1)
WRITER = b"w" * 48
UPLOADS = pytest.mark.parametrize("uploads", [0, 1, 3])


def frames(count: int, size: int = 200, kind: Kind = Kind.DATA) -> list[tuple[bytes, Frame]]:
    rng, writer = random.Random(1), FrameWriter(RING)
    raws = [rng.randbytes(size) for _ in range(count)]
    return [(raw, writer.write(kind, raw)) for raw in raws]


@UPLOADS
@pytest.mark.parametrize("metadata", [False, True])
def test_what_is_added_stands_where_it_was_said(uploads: int, metadata: bool) -> None:
    store, stored = MemoryStore(), list[PackName]()
    packer = Packer(store, WRITER, metadata=metadata, uploads=uploads, on_stored=stored.append, target_size=1_000)
    kind = Kind.PAGE if metadata else Kind.DATA
    placed = [(raw, frame, packer.add(frame)) for raw, frame in frames(10, kind=kind)]
    packer.flush()
    packer.stop()
    for raw, frame, place in placed:
        data = store.read(place.pack.object, place.offset, place.length)
        assert FrameReader(RING).open(memoryview(data), frame.chunk_id, kind, place) == raw
    packs = [PackName(WRITER, number | (METADATA_BIT if metadata else 0)) for number in range(4)]  # three frames fit
    assert sorted(stored) == packs
    assert (packer.stored_packs, packer.stored_bytes) == (4, sum(store.size(pack.object) for pack in packs))
    listed = [
        (entry.chunk_id, Place(pack, entry.offset, entry.length))
        for pack in packs
        for entry in read_directory(store, pack)
    ]
    assert listed == [(frame.chunk_id, place) for _, frame, place in placed]


def test_a_frame_larger_than_a_pack_has_one_of_its_own() -> None:
    store = MemoryStore()
    packer = Packer(store, WRITER, metadata=False, uploads=0, target_size=1_000)
    places = [packer.add(frame) for _, frame in (*frames(1), *frames(1, 5_000), *frames(1))]
    packer.flush()
    assert [place.pack.number for place in places] == [0, 1, 2]
    assert [place.offset for place in places] == [0, 0, 0]


def test_sixty_four_incompressible_blocks_fill_a_pack() -> None:
    """The number behind "at most 16,700 data-pack writes a TiB"."""
    assert TARGET_SIZE // (64 + 28 + (1 << 20)) == 64


def test_an_empty_packer_stores_nothing() -> None:
    store = MemoryStore()
    packer = Packer(store, WRITER, metadata=False)
    packer.flush()
    packer.flush()
    packer.stop()
    assert list(store.list("packs/")) == []


@UPLOADS
def test_a_failed_upload_ends_all_that_follows(uploads: int) -> None:
    store = FaultStore(MemoryStore(), [Fault("put", "fail", error=lambda name: StoreFull("full", name))])
    packer = Packer(store, WRITER, metadata=False, uploads=uploads, target_size=500)
    made = [frame for _, frame in frames(6)]

    def fill() -> None:
        for frame in made:
            packer.add(frame)
        packer.flush()

    for _ in range(2):
        with pytest.raises(StoreFull):
            fill()
    with pytest.raises(StoreFull):
        packer.flush()
    packer.stop()


@UPLOADS
def test_our_own_object_after_a_lost_answer_is_success(uploads: int) -> None:
    """I12: a retry finds what the first request stored; another size would be another's, and is told."""
    inner = MemoryStore()
    store = FaultStore(inner, [Fault("put", "lose")])
    ((_, frame),) = frames(1)
    for again in (False, True):
        packer = Packer(store, WRITER, metadata=False, uploads=uploads)
        packer.add(frame)
        if again:
            packer.flush()
        else:
            with pytest.raises(StoreUnavailable):
                packer.flush()
        packer.stop()
    packer = Packer(store, WRITER, metadata=False, uploads=uploads)
    packer.add(frame)
    packer.add(frame)
    with pytest.raises(ObjectExists):
        packer.flush()
    packer.stop()


def test_uploads_in_flight_are_bounded() -> None:
    """`add` waits for a slot rather than holding one more pack in memory."""
    started, go = threading.Semaphore(0), threading.Event()

    def before(operation: str, name: str) -> None:
        started.release()
        assert go.wait(30)

    packer = Packer(FaultStore(MemoryStore(), before=before), WRITER, metadata=False, uploads=2, target_size=500)
    added = threading.Semaphore(0)

    def fill() -> None:
        for _, frame in frames(8):
            packer.add(frame)
            added.release()

    thread = threading.Thread(target=fill)
    thread.start()
    for _ in range(2):
        assert started.acquire(timeout=30)
    for _ in range(3):  # the first frames of three packs; the fourth waits until the third pack can be closed
        assert added.acquire(timeout=30)
    assert not added.acquire(blocking=False)
    assert not started.acquire(blocking=False)
    go.set()
    thread.join(30)
    packer.flush()
    packer.stop()
    assert packer.stored_packs == 8
