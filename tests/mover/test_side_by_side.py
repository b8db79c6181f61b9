# SPDX-License-Identifier: Apache-2.0
"""Disks of one point, backed up and restored side by side: no disk waits for another one."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest

from mover.errors import Cancelled, SourceError, StoreUnavailable, TargetError, VerifyFailed
from mover.progress import Progress, Snapshot
from mover.repository.repository import Repository
from mover.restore import MOST_AT_ONCE, Restore, RestoreSettings
from mover.restore_steps import MOST_BLOCKS
from mover.store.memory import MemoryStore
from mover.store.patience import Patience
from tests.mover.disks import MIB, MemoryDisk, back_up, quiet, restore, until
from tests.mover.wounds import SparseTarget

BLOCKS = 48


@pytest.fixture
def repository() -> Repository:
    return Repository.create(MemoryStore())


def disk_with(blocks: list[int], seed: int = 1, **kind: str) -> MemoryDisk:
    disk = MemoryDisk(BLOCKS * MIB, **kind)
    disk.fill(random.Random(seed), blocks)
    return disk


class RemoteTarget(SparseTarget):
    remote = True
    at_once = 2

    def sync(self) -> None:
        """It is in memory."""

    def read_into(self, offset: int, target: bytearray | memoryview) -> None:
        first = offset // MIB
        target[:] = b"".join(self.blocks.get(first + k, bytes(MIB)) for k in range(-(-len(target) // MIB)))


def test_a_disk_that_does_not_answer_holds_up_no_other(repository: Repository, tmp_path: Path) -> None:
    slow, *others = disks = [disk_with(list(range(BLOCKS)), seed=k, name=f"d{k}") for k in range(3)]

    def on_read(offset: int) -> None:
        if offset >= 8 * MIB:
            until(lambda: all(len(disk.reads) == BLOCKS for disk in others))

    slow.on_read = on_read
    result = back_up(repository, "one", *disks)
    for number, disk in enumerate(disks):
        restore(repository, result.point, str(tmp_path / disk.name), number)
        assert (tmp_path / disk.name).read_bytes() == disk.data


def test_what_two_disks_have_alike_is_stored_once_though_both_are_read_at_a_time(repository: Repository) -> None:
    disks = [disk_with(list(range(BLOCKS)), name=f"d{k}") for k in range(2)]
    meet = threading.Barrier(2, timeout=60)
    for disk in disks:
        disk.in_flight = 1
        disk.on_read = lambda offset: None if offset else meet.wait() and None
    done = back_up(repository, "one", *disks).statistics
    assert done.new == done.deduplicated == disks[0].size


def test_a_target_that_takes_nothing_holds_up_no_other(repository: Repository) -> None:
    disks = [disk_with(list(range(BLOCKS)), seed=k, name=f"d{k}") for k in range(3)]
    point = repository.find_point(back_up(repository, "one", *disks).point)
    quick = [RemoteTarget(), RemoteTarget()]

    class Slow(RemoteTarget):
        def write(self, offset: int, data: bytes) -> None:
            until(lambda: all(len(target.blocks) == BLOCKS for target in quick))
            super().write(offset, data)

    targets = dict(enumerate([quick[0], Slow(), quick[1]]))
    job = Restore(repository, point, RestoreSettings(), quiet())
    done = job.run(targets)  # type: ignore[arg-type]
    for number, disk in enumerate(disks):
        assert b"".join(targets[number].blocks[at] for at in range(BLOCKS)) == disk.data
        assert done[number].written == disk.size


def test_one_target_that_fails_ends_the_restore_of_all(repository: Repository) -> None:
    disks = [disk_with(list(range(BLOCKS)), seed=k, name=f"d{k}") for k in range(2)]
    point = repository.find_point(back_up(repository, "one", *disks).point)
    finished: list[str] = []

    class Full(RemoteTarget):
        def write(self, offset: int, data: bytes) -> None:
            raise TargetError("the target is full")

        def finish(self, time: float) -> None:
            finished.append("full")

    class Good(RemoteTarget):
        def finish(self, time: float) -> None:
            finished.append("good")

    job = Restore(repository, point, RestoreSettings(), quiet())
    with pytest.raises(TargetError, match="full"):
        job.run({0: Good(), 1: Full()})  # type: ignore[dict-item]
    assert not finished


def test_blocks_that_are_all_alike_have_many_writers_and_a_cancel_waits_for_none_but_theirs(
    repository: Repository,
) -> None:
    disk = MemoryDisk(8 * MOST_BLOCKS * MIB, name="os")
    disk.data[:] = b"same" * (disk.size // 4)
    point = repository.find_point(back_up(repository, "one", disk).point)
    at_once = 4
    meet, cancel = threading.Barrier(at_once, timeout=60), threading.Event()

    class Target(RemoteTarget):
        at_once = 4

        def write(self, offset: int, data: bytes) -> None:
            super().write(offset, data)
            if not cancel.is_set():
                meet.wait()  # all of them write at a time
                cancel.set()

    target = Target()
    job = Restore(repository, point, RestoreSettings(), quiet(), cancel.is_set)
    with pytest.raises(Cancelled):
        job.run({0: target})  # type: ignore[dict-item]
    assert at_once <= len(target.blocks) < 3 * at_once


def test_so_many_disks_share_a_bounded_number_of_threads(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    disks = [disk_with([k], seed=k, name=f"d{k}") for k in range(20)]
    point = repository.find_point(back_up(repository, "one", *disks).point)
    most = 0

    class Target(RemoteTarget):
        def write(self, offset: int, data: bytes) -> None:
            nonlocal most
            most = max(most, sum(thread.name == "restore" for thread in threading.enumerate()))
            super().write(offset, data)

    targets = {number: Target() for number in range(20)}
    Restore(repository, point, RestoreSettings(), quiet()).run(targets)  # type: ignore[arg-type]
    assert most <= MOST_AT_ONCE
    assert all(targets[k].blocks == {k: disks[k].data[k * MIB : (k + 1) * MIB]} for k in range(20))


def test_a_disk_that_does_not_answer_holds_its_share_of_the_readers_and_no_more(repository: Repository) -> None:
    """All is queued while both stand still; then one goes on, and the readers that it sets free stay with it."""
    stuck, free = disks = [MemoryDisk(96 * MIB, name=name, sparse=False) for name in ("stuck", "free")]
    for disk in disks:
        disk.in_flight = 4
    queued: list[int] = []
    lock, waiting, most = threading.Lock(), 0, 0

    def on_stuck(offset: int) -> None:
        nonlocal waiting, most
        with lock:
            waiting += 1
            if len(free.reads) <= 96 - 5 * 8:  # of that disk more is left than four readers have on their way
                most = max(most, waiting)
        until(lambda: len(free.reads) == 96)

    stuck.on_read = on_stuck
    free.on_read = lambda offset: until(lambda: len(queued) == 24 and waiting >= 4)
    for disk in disks:
        disk.read_ahead = lambda offset, length: queued.append(offset)  # type: ignore[method-assign]
    back_up(repository, "one", *disks)
    assert most == 4


def test_so_many_disks_share_a_bounded_number_of_readers(repository: Repository) -> None:
    disks = [disk_with([k], seed=k, name=f"d{k}") for k in range(12)]
    counts: list[int] = []
    for disk in disks:
        disk.in_flight = 6
        disk.on_read = lambda offset: counts.append(sum(thread.name == "read" for thread in threading.enumerate()))
    back_up(repository, "one", *disks)
    assert max(counts) <= 8


class StandingClock:
    """No time passes; a wait ends when its event is set, or to wait again."""

    most = 3000

    def __init__(self) -> None:
        self.waits = 0

    def monotonic(self) -> float:
        return 0.0

    def wall(self) -> float:
        return 0.0

    def wait(self, event: threading.Event, seconds: float) -> bool:
        self.waits += 1
        assert self.waits < self.most
        return event.wait(0.01)


def test_a_disk_that_fails_waits_for_no_others_patience(repository: Repository) -> None:
    busy, dead = disks = [disk_with([0], name=name) for name in ("busy", "dead")]
    clock = StandingClock()

    def refused() -> None:
        raise StoreUnavailable("busy", "b")

    def die(offset: int) -> None:
        until(lambda: clock.waits)
        raise SourceError("a disk that is gone", "d")

    busy.on_read = lambda offset: Patience(clock).ask("busy", refused)
    dead.on_read = die
    with pytest.raises(SourceError, match="gone"):
        back_up(repository, "one", *disks)
    assert clock.waits < clock.most, "it waited on though the other disk had failed"


def test_every_target_is_made_durable_and_then_verified(repository: Repository) -> None:
    disks = [disk_with([0, 5], seed=k, name=f"d{k}") for k in range(2)]
    point = repository.find_point(back_up(repository, "one", *disks).point)

    class Durable(RemoteTarget):
        synced = False

        def sync(self) -> None:
            self.synced = True

        def read_into(self, offset: int, target: bytearray | memoryview) -> None:
            assert self.synced
            super().read_into(offset, target)

    class Forgetful(Durable):
        def sync(self) -> None:
            super().sync()
            self.blocks[5] = bytes(MIB)

    def go(second: Durable) -> None:
        job = Restore(repository, point, RestoreSettings(verify=True), quiet())
        job.run({0: Durable(), 1: second})  # type: ignore[dict-item]

    go(Durable())
    with pytest.raises(VerifyFailed):
        go(Forgetful())


def test_local_targets_are_written_one_after_the_other_and_told_as_one_each(repository: Repository) -> None:
    disks = [disk_with(list(range(BLOCKS)), seed=k, name=f"d{k}") for k in range(2)]
    point = repository.find_point(back_up(repository, "one", *disks).point)
    order: list[int] = []

    class Target(RemoteTarget):
        def __init__(self, number: int, remote: bool) -> None:
            super().__init__()
            self.number, self.remote = number, remote

        def write(self, offset: int, data: bytes) -> None:
            order.append(self.number)
            super().write(offset, data)

    def totals(remote: bool) -> set[int]:
        seen: list[Snapshot] = []
        job = Restore(repository, point, RestoreSettings(), Progress(repository.clock, seen.append))
        job.run({k: Target(k, remote) for k in range(2)})  # type: ignore[misc]
        return {snapshot.total for snapshot in seen if snapshot.stage == "restore"}

    assert totals(remote=False) == {BLOCKS * MIB}
    assert order == sorted(order)
    assert totals(remote=True) == {2 * BLOCKS * MIB}
