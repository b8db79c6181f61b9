# SPDX-License-Identifier: Apache-2.0
"""Virtual disks: right bytes for many threads, each block fetched once, bounded in memory, and errors of what they are about."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from flr.errors import Unreadable
from flr.virtual.cache import BlockCache
from flr.virtual.disk import Fetcher, VirtualDisk
from flr.virtual.open import open_point, open_sources
from mover.disk.source import FileSource
from mover.errors import SourceError, StoreUnavailable
from mover.repository.repository import Repository
from mover.store.local import LocalStore
from tests.agent.conftest import MIB, Place, dm, place  # noqa: F401 - fixtures

CHANCE = random.Random(11)


class Blocks:
    """Out of memory; counts what is fetched. Block 3 is zeros; `broken` blocks cannot be had."""

    sector_size = 512

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)
        self.fetched: list[int] = []
        self.broken: set[int] = set()
        self.lock = threading.Lock()
        self.gate = threading.Event()
        self.gate.set()

    def plan(self, blocks: Sequence[int]) -> tuple[list[tuple[list[int], list[int]]], list[int]]:
        wanted = [block for block in blocks if block != 3]
        return [(wanted[k : k + 2], wanted[k : k + 2]) for k in range(0, len(wanted), 2)], [b for b in blocks if b == 3]

    def fetch(self, request: list[int]) -> Iterator[tuple[int, bytes]]:
        self.gate.wait(20)
        for block in request:
            if block in self.broken:
                raise StoreUnavailable("the store does not answer", block)
            with self.lock:
                self.fetched.append(block)
            yield block, self.data[block * MIB : (block + 1) * MIB]


def content(blocks: int, rest: int = 1000) -> bytes:
    data = CHANCE.randbytes(blocks * MIB + rest)
    return data[: 3 * MIB] + bytes(MIB) + data[4 * MIB :]


def test_many_threads_read_right_bytes_and_fetch_each_block_once() -> None:
    blocks = Blocks(content(12))
    wrong: list[tuple[int, int]] = []
    with Fetcher() as fetcher:
        disk = VirtualDisk(0, blocks, fetcher)

        def read(seed: int) -> None:
            chance = random.Random(seed)
            for _ in range(50):
                at = chance.randrange(disk.size)
                length = chance.randrange(min(3 * MIB, disk.size - at) + 1)
                if disk.pread(at, length, metadata=chance.random() < 0.5) != blocks.data[at : at + length]:
                    wrong.append((at, length))

        threads = [threading.Thread(target=read, args=(k,)) for k in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert disk.pread(disk.size - 10, 10) == blocks.data[-10:]
        disk.pread(0, disk.size)
    assert wrong == []
    assert sorted(blocks.fetched) == [k for k in range(13) if k != 3]
    assert fetcher.cache.misses == 12


def test_a_block_on_its_way_is_waited_for_and_not_fetched_twice() -> None:
    blocks = Blocks(content(2))
    with Fetcher() as fetcher:
        disk = VirtualDisk(0, blocks, fetcher)
        blocks.gate.clear()
        disk.prefetch([(0, MIB)])
        found: list[bytes] = []
        thread = threading.Thread(target=lambda: found.append(disk.pread(10, 100)))
        thread.start()
        blocks.gate.set()
        thread.join()
    assert found == [blocks.data[10:110]]
    assert blocks.fetched == [0]


def test_the_cache_is_bounded_and_data_does_not_push_out_metadata() -> None:
    blocks = Blocks(content(40))
    with Fetcher(BlockCache(metadata_bytes=4 * MIB, data_bytes=6 * MIB)) as fetcher:
        disk = VirtualDisk(0, blocks, fetcher)
        disk.pread(0, 2 * MIB, metadata=True)
        for k in range(4, 40):
            disk.pread(k * MIB, MIB)
            held = fetcher.cache.held
            assert held[0] <= 6 * MIB
            assert held[1] <= 4 * MIB
        before = len(blocks.fetched)
        disk.pread(0, 2 * MIB, metadata=True)
        assert len(blocks.fetched) == before
        disk.prefetch([(0, disk.size)])  # a hint of more than there is room for is cut
        assert disk.pread(0, 10) == blocks.data[:10]


def test_what_cannot_be_had_is_told_and_asked_for_again() -> None:
    blocks = Blocks(content(6))
    with Fetcher() as fetcher:
        disk = VirtualDisk(0, blocks, fetcher)
        blocks.broken = {5}
        disk.prefetch([(5 * MIB, MIB)])
        with pytest.raises(StoreUnavailable):
            disk.pread(4 * MIB, 2 * MIB)
        assert disk.pread(4 * MIB, MIB) == blocks.data[4 * MIB : 5 * MIB]
        blocks.broken = set()
        assert disk.pread(5 * MIB, MIB) == blocks.data[5 * MIB : 6 * MIB]
        for at, length in ((-1, 1), (disk.size, 1), (0, disk.size + 1), (5, -1)):
            with pytest.raises(SourceError):
                disk.pread(at, length)
        disk.prefetch([(-1, 5), (disk.size, 10), (0, 0)])


def test_an_image_reads_as_it_is_with_its_holes(tmp_path: Path) -> None:
    path = tmp_path / "image"
    data = content(5, 512)
    with open(path, "wb") as file:
        file.write(data)
        file.truncate(20 * MIB)
    data += bytes(20 * MIB - len(data))
    with open_sources([FileSource(str(path))]) as disks:
        assert disks[0].pread(0, disks[0].size) == data
        assert disks[0].cache.misses <= 6


def test_a_point_reads_as_its_disk_and_one_damaged_chunk_is_of_its_block_alone(place: Place) -> None:  # noqa: F811
    place.repo()
    place.back_up()
    repository = Repository.open(LocalStore(place.folder / "repository"))
    point = repository.find_point(place.point())
    data = place.image.read_bytes()
    with open_point(repository, point, print) as disks:
        assert disks[0].pread(0, len(data)) == data
        assert disks[0].name == "disk.img"
    pack = max((place.folder / "repository" / "packs").rglob("*"), key=lambda path: path.stat().st_size)
    raw = bytearray(pack.read_bytes())
    raw[len(raw) // 2] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(raw)
    bad, good = [], []
    with open_point(repository, point, print) as disks:
        for at in range(0, len(data), MIB):
            length = min(MIB, len(data) - at)
            try:
                assert disks[0].pread(at, length) == data[at : at + length]
                good.append(at)
            except Unreadable:
                bad.append(at)
    assert len(bad) == 1
    assert len(good) == -(-len(data) // MIB) - 1
