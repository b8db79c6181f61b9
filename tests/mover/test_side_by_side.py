# SPDX-License-Identifier: Apache-2.0
"""Disks of one point, backed up and restored side by side: no disk waits for another one."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest

from mover.errors import Cancelled, TargetError
from mover.repository.repository import Repository
from mover.restore import MOST_AT_ONCE, Restore, RestoreSettings
from mover.restore_steps import MOST_BLOCKS
from mover.store.memory import MemoryStore
from tests.mover.disks import MIB, MemoryDisk, back_up, quiet, restore
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


def test_a_disk_that_does_not_answer_holds_up_no_other(repository: Repository, tmp_path: Path) -> None:
    slow, *others = disks = [disk_with(list(range(BLOCKS)), seed=k, name=f"d{k}") for k in range(3)]

    def on_read(offset: int) -> None:
        if offset >= 8 * MIB:
            while any(len(disk.reads) < BLOCKS for disk in others):
                threading.Event().wait(0.01)

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
            while any(len(target.blocks) < BLOCKS for target in quick):
                threading.Event().wait(0.01)
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
