# SPDX-License-Identifier: Apache-2.0
"""What large disks cost: requests, memory and metadata, as counts and bounds (docs/performance.md has the seconds)."""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from mover.backup import Backup, BackupRequest, BackupSettings
from mover.clock import SYSTEM
from mover.progress import Progress
from mover.repository.frame import FrameWriter
from mover.repository.keys import Kind
from mover.repository.live import LiveBytes
from mover.repository.map_store import MapBuilder
from mover.repository.maps import PAGE_BLOCKS, ChunkRef, MapEntry, PageSlot, Root
from mover.repository.names import METADATA_BIT, PackName, request_class
from mover.repository.pack import Place
from mover.repository.repository import Repository
from mover.repository.tables import PackTable
from mover.store.discard import DiscardStore
from mover.store.memory import MemoryStore
from mover.store.meter import MeterStore
from tests.mover.disks import MIB, MemoryDisk

TIB = 1 << 40


class IncompressibleDisk(MemoryDisk):
    """Every block is different and does not shrink."""

    def __init__(self, size: int) -> None:
        super().__init__(0, name="random")
        self.size = size
        self._block = random.Random(1).randbytes(MIB)

    def extents(self) -> Iterator[tuple[int, int]]:
        yield 0, self.size

    def read_into(self, offset: int, buffers: Sequence[bytearray | memoryview]) -> None:
        for number, buffer in enumerate(buffers, offset // MIB):
            buffer[:] = self._block
            buffer[:8] = number.to_bytes(8, "little")


def test_writes_a_tebibyte_and_a_checkpoint() -> None:
    """At most 16,700 data packs a TiB stored; a checkpoint is a metadata pack and an index run beside its session's write."""
    size = 8 << 30
    meter = MeterStore(DiscardStore(MemoryStore()), request_class)
    repository = Repository.create(meter, password="p")
    settings = BackupSettings(check=False, checkpoint_seconds=3.0)
    backup = Backup(repository, BackupRequest("vm", "job", [IncompressibleDisk(size)]), settings, Progress(SYSTEM))
    result = backup.run()
    counts = meter.snapshot()
    puts = {name: line["calls"] for name, line in counts["put"].items()}
    partial = result.checkpoints  # each closes the pack that is being filled
    assert puts["data-pack"] - partial <= 16_700 * size / TIB
    assert puts["metadata-pack"] <= result.checkpoints + 1
    assert puts["index-run"] <= result.checkpoints + 1
    session_writes = counts["replace_record"]["session"]["calls"]
    assert session_writes <= result.checkpoints + 2, "the acknowledgement, the checkpoints, the commit"
    assert set(puts) == {"data-pack", "metadata-pack", "index-run"}
    assert "session" in counts["lease"], "lease calls have their own line"


def test_a_partial_pack_a_checkpoint_stays_within_the_promise() -> None:
    """With the real pacing, packs closed early by checkpoints fit in the 16,700 a TiB even at the product's slowest speed."""
    slowest = 70 * 1000 * 1000  # bytes a second, product-facts.md section 0
    seconds = TIB / slowest
    checkpoints, at = 0, 30.0
    while at < seconds:
        checkpoints += 1
        at += min(max(30.0, at), 600.0)
    assert TIB // (64 * MIB) + checkpoints <= 16_700


def test_a_32_tib_sparse_disk_within_the_memory_promise(tmp_path: Path) -> None:
    """2,048 islands of 1 MiB in 32 TiB: full, an incremental of 1,000 blocks, restore; time goes with data, memory is bounded."""
    if not os.access("/dev/shm", os.W_OK):
        pytest.fail("no tmpfs at /dev/shm: a 32 TiB sparse file needs one")
    script = Path(__file__).with_name("huge_disk.py")
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, str(script), str(1 << 30)], check=True, env=environ, timeout=280)


def test_metadata_of_1000_scattered_blocks_on_a_dense_32_tib_map() -> None:
    """At most 64 MB of metadata for an incremental of 1,000 scattered blocks (docs/decisions/ has the figures)."""
    store = MeterStore(DiscardStore(MemoryStore()), request_class)
    repository = Repository.create(store, password="p")
    rng = random.Random(1)
    writer = rng.randbytes(48)
    stored = 0

    frames = FrameWriter(repository.keys, check=False)

    def store_page(raw: bytes) -> ChunkRef:
        nonlocal stored
        frame = frames.write(Kind.PAGE, raw)
        stored += frame.length
        return ChunkRef(frame.chunk_id, Place(PackName(writer, METADATA_BIT), 0, frame.length))

    def dense_page(page: int) -> list[MapEntry | None]:
        """What a full backup makes: frames one after the other, about half a MiB each."""
        at, entries = page * PAGE_BLOCKS, []
        for block in range(at, at + PAGE_BLOCKS):
            place = Place(PackName(writer, block // 120), block % 120 * 550_000, 500_000 + rng.randrange(50_000))
            entries.append(MapEntry(rng.randbytes(32), place))
        return list(entries)

    base = Root.empty(32 * TIB)
    pages, table = len(base.pages), PackTable()
    for page in range(pages):
        live = {PackName(writer, page * PAGE_BLOCKS // 120 + k): 60_000_000 for k in range(10)}
        ref = ChunkRef(
            rng.randbytes(32), Place(PackName(writer, METADATA_BIT | page // 1500), page % 1500 * 41_000, 40_900)
        )
        base.pages[page] = PageSlot(ref, LiveBytes.of(live, table))
    builder = MapBuilder(base.size, base, store_page)
    touched = set(rng.sample(range(pages), 1000))  # the dearest case: every block in a page of its own
    for page in range(pages):
        if page not in touched:
            builder.take_over(page, base.pages[page])
            continue
        entries = dense_page(page)
        builder.open_page(page, list(entries), entries, [7])
        builder.resolve(
            page * PAGE_BLOCKS + 7, MapEntry(rng.randbytes(32), Place(PackName(writer, 1 << 20), 0, 500_000))
        )
    root = frames.write(Kind.ROOT, builder.finish().encode())
    total = stored + root.length
    print(
        f"pages {stored} bytes, root {root.length} bytes, peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss} KiB"
    )
    assert total <= 64_000_000
