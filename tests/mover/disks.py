# SPDX-License-Identifier: Apache-2.0
"""Disks for tests: in memory, with identities and snapshots that the test chooses; and repositories to put them in."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from mover.backup import Backup, BackupRequest, BackupResult, BackupSettings
from mover.clock import SYSTEM, Clock
from mover.disk.target import FileTarget
from mover.progress import Progress
from mover.repository import record
from mover.repository.repository import Repository
from mover.restore import Restore, RestoreResult, RestoreSettings

MIB = 1 << 20


class MemoryDisk:
    """A disk in memory. Blocks of zeros count as unallocated when `sparse`. `reads` lists the blocks that were read."""

    def __init__(self, size: int, *, name: str = "disk", identity: str = "", sparse: bool = True) -> None:
        self.data = bytearray(size)
        self.name = name
        self.identity = identity or name
        self.size = size
        self.sector_size = 512
        self.snapshot: str | None = None
        self.source: str | None = None
        self.sparse = sparse
        self.in_flight = 2
        self.reads: list[int] = []
        self.on_read: Callable[[int], None] = lambda offset: None

    def extents(self) -> Iterator[tuple[int, int]]:
        if not self.sparse:
            yield 0, self.size
            return
        for at in range(0, self.size, MIB):
            if any(self.data[at : at + MIB]):
                yield at, min(MIB, self.size - at)

    def read_into(self, offset: int, buffers: Sequence[bytearray | memoryview]) -> None:
        self.on_read(offset)
        for buffer in buffers:
            self.reads.append(offset // MIB)
            buffer[:] = self.data[offset : offset + len(buffer)]
            offset += len(buffer)

    def read_ahead(self, offset: int, length: int) -> None:
        pass

    def check_unchanged(self) -> None:
        pass

    def close(self) -> None:
        pass

    # -- changes

    def fill(self, rng: random.Random, blocks: Sequence[int]) -> None:
        """Half-compressible content, different for every block."""
        for block in blocks:
            end = min((block + 1) * MIB, self.size)
            half = (end - block * MIB) // 2
            self.data[block * MIB : block * MIB + half] = rng.randbytes(half)
            self.data[block * MIB + half : end] = bytes([block % 251 + 1]) * (end - block * MIB - half)

    def clear(self, blocks: Sequence[int]) -> None:
        for block in blocks:
            end = min((block + 1) * MIB, self.size)
            self.data[block * MIB : end] = bytes(end - block * MIB)


def quiet(clock: Clock = SYSTEM, notes: list[str] | None = None) -> Progress:
    return Progress(clock, note=(notes if notes is not None else []).append)


def back_up(
    repository: Repository,
    job: str,
    *disks: MemoryDisk,
    resource: str = "vm",
    settings: BackupSettings | None = None,
    cancelled: Callable[[], bool] = lambda: False,
    **request: object,
) -> BackupResult:
    made = BackupRequest(resource, job, list(disks), **request)  # type: ignore[arg-type]
    progress = quiet(repository.clock)
    return Backup(repository, made, settings or BackupSettings(workers=2), progress, cancelled, seed=1).run()


def until(condition: Callable[[], object]) -> None:
    """Wait for what other threads do; only what never comes takes so long that it fails."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it never came"
        threading.Event().wait(0.01)


def covered_by_checkpoint(repository: Repository) -> list[int]:
    """Blocks of each disk that the record of the only point names."""
    (entry,) = repository.point_entries()
    header = record.decode_header(repository.store.read_record(entry.name).data, entry.name)
    return [state.covered for state in header.disks]


def checkpointed(repository: Repository, *covered: int) -> bool:
    """Whether a point, or what is to be one, has so many blocks of each disk."""
    for entry in repository.point_entries():
        header = record.decode_header(repository.store.read_record(entry.name).data, entry.name)
        if header.disks and all(state.covered >= k for state, k in zip(header.disks, covered, strict=True)):
            return True
    return False


def restore(
    repository: Repository, point: str, path: str, disk: int = 0, *, notes: list[str] | None = None, **target: bool
) -> RestoreResult:
    progress = quiet(repository.clock, notes)
    job = Restore(repository, repository.find_point(point), RestoreSettings(verify=True), progress)
    opened = FileTarget(path, job.disk(disk).size, **target)
    try:
        return job.run({disk: opened})[disk]
    finally:
        opened.close()
