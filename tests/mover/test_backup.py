# SPDX-License-Identifier: Apache-2.0
"""Backups and restores end to end over a store in memory: what is read, what is stored, what comes back."""

from __future__ import annotations

import random
import tempfile
import threading
import weakref
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mover.backup import MOST_DISKS, Backup, BackupRequest, BackupSettings
from mover.disk.changes import ChangeMap, check
from mover.disk_backup import DiskBackup, DiskMap
from mover.errors import Cancelled, SessionBusy, SourceError, UsageError, WrongPassword
from mover.progress import Progress, Snapshot
from mover.repository.chunk import ChunkRef
from mover.repository.index import DedupeView
from mover.repository.keys import Kind
from mover.repository.map_store import PAGES_KEPT, MapReader
from mover.repository.maps import PAGE_BLOCKS
from mover.repository.record import Header
from mover.repository.repository import Repository
from mover.repository.session import Session
from mover.store.memory import MemoryStore
from tests.mover.disks import MIB, MemoryDisk, back_up, checkpointed, covered_by_checkpoint, restore, until
from tests.mover.wounds import SparseDisk

BLOCKS = 40


@pytest.fixture(params=[None, "correct horse"], ids=["clear", "sealed"])
def repository(request: pytest.FixtureRequest) -> Repository:
    return Repository.create(MemoryStore(), password=request.param)


def disk_with(blocks: list[int], size: int = BLOCKS * MIB - 700, seed: int = 1, **kind: object) -> MemoryDisk:
    disk = MemoryDisk(size, **kind)  # type: ignore[arg-type]
    disk.fill(random.Random(seed), blocks)
    return disk


def changes(disk: MemoryDisk, blocks: list[int], base: str | None, snapshot: str) -> dict[str, ChangeMap]:
    ranges = tuple((block * MIB + 17, 5) for block in blocks)
    return {disk.identity: ChangeMap(disk=disk.identity, size=disk.size, snapshot=snapshot, base=base, ranges=ranges)}


def test_full_then_incremental_then_each_restored(repository: Repository, tmp_path: Path) -> None:
    disk = disk_with([0, 3, 7, 39])
    states = [bytes(disk.data)]
    first = back_up(repository, "one", disk)
    assert (first.statistics.new, first.statistics.unchanged) == (4 * MIB - 700, 0)
    disk.fill(random.Random(2), [3, 20])
    disk.clear([7])
    states.append(bytes(disk.data))
    second = back_up(repository, "two", disk)
    assert (second.statistics.new, second.statistics.unchanged) == (2 * MIB, 2 * MIB - 700)
    assert second.parent == first.point
    for number, (result, state) in enumerate(zip((first, second), states, strict=True)):
        restored = restore(repository, result.point, str(tmp_path / str(number)))
        assert (tmp_path / str(number)).read_bytes() == state
        assert restored.verified == disk.size


def test_zeros_are_neither_stored_nor_written(repository: Repository, tmp_path: Path) -> None:
    disk = disk_with([5], sparse=False)
    result = back_up(repository, "one", disk)
    assert result.statistics.zero == disk.size - MIB
    restored = restore(repository, result.point, str(tmp_path / "out"))
    assert restored.written == MIB
    assert (tmp_path / "out").stat().st_blocks * 512 <= MIB + 65536


def test_equal_blocks_are_stored_once_within_a_disk_and_across_resources(repository: Repository) -> None:
    disk = disk_with([1, 2])
    disk.data[10 * MIB : 11 * MIB] = disk.data[1 * MIB : 2 * MIB]
    first = back_up(repository, "one", disk)
    assert (first.statistics.new, first.statistics.deduplicated) == (2 * MIB, MIB)
    other = back_up(repository, "two", disk, resource="another")
    assert (other.statistics.new, other.statistics.deduplicated) == (0, 3 * MIB)
    assert other.parent is None


def test_the_same_job_again_reads_nothing(repository: Repository) -> None:
    disk = disk_with([1])
    first = back_up(repository, "one", disk)
    disk.reads.clear()
    again = back_up(repository, "one", disk)
    assert again.already
    assert again.point == first.point
    assert disk.reads == []


def test_several_disks_and_a_document_make_one_point(repository: Repository, tmp_path: Path) -> None:
    disks = [disk_with([k, 9], seed=k, name=f"disk{k}") for k in range(3)]
    result = back_up(repository, "one", *disks, document=b'{"vm": 1}')
    point = repository.find_point(result.point)
    assert [disk.name for disk in point.body.disks] == ["disk0", "disk1", "disk2"]
    assert repository.read_document(point, "configuration") == b'{"vm": 1}'
    for number, disk in enumerate(disks):
        restore(repository, result.point, str(tmp_path / disk.name), number)
        assert (tmp_path / disk.name).read_bytes() == disk.data


def test_in_place_writes_only_what_differs(repository: Repository, tmp_path: Path) -> None:
    disk = disk_with([0, 3, 7, 39])
    result = back_up(repository, "one", disk)
    target = tmp_path / "disk"
    damaged = bytearray(disk.data)
    damaged[3 * MIB + 5] ^= 1
    damaged[20 * MIB] = 9
    target.write_bytes(damaged)
    restored = restore(repository, result.point, str(target), in_place=True)
    assert target.read_bytes() == disk.data
    assert restored.written == 2 * MIB
    assert restored.equal == 3 * MIB - 700


# -- change maps


def test_a_change_map_is_all_that_is_read_but_for_the_sample(repository: Repository, tmp_path: Path) -> None:
    disk = disk_with(list(range(BLOCKS)))
    back_up(repository, "one", disk, changes=changes(disk, [], None, "s1"))
    disk.fill(random.Random(2), [3, 20])
    disk.clear([30])
    disk.reads.clear()
    result = back_up(repository, "two", disk, changes=changes(disk, [3, 20, 30], "s1", "s2"))
    assert result.notes == []
    assert len(disk.reads) <= 3 + 10
    assert result.statistics.new == 2 * MIB
    restore(repository, result.point, str(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == disk.data


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"base": "s0"}, "its base is 's0'"),
        ({"size": BLOCKS * MIB + 5}, "the disk was resized"),
        ({"identity": "swapped"}, "the parent point is of disk"),
    ],
)
def test_a_map_that_is_not_bound_to_the_parent_is_not_believed(
    repository: Repository, tmp_path: Path, wrong: dict[str, object], why: str
) -> None:
    disk = disk_with(list(range(BLOCKS)))
    back_up(repository, "one", disk, changes=changes(disk, [], None, "s1"))
    if "identity" in wrong:
        disk.identity = str(wrong["identity"])
    disk.fill(random.Random(2), [3])
    given = changes(disk, [], str(wrong.get("base", "s1")), "s2")
    if "size" in wrong:
        disk.data += bytes(int(str(wrong["size"])) - disk.size)
        disk.size = len(disk.data)
        given = changes(disk, [], "s1", "s2")
    result = back_up(repository, "two", disk, changes=given)
    assert [why in note for note in result.notes] == [True]
    restore(repository, result.point, str(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == disk.data


def test_a_lying_map_is_found_by_the_sample_and_everything_is_read(repository: Repository, tmp_path: Path) -> None:
    disk = disk_with(list(range(BLOCKS)))
    back_up(repository, "one", disk, changes=changes(disk, [], None, "s1"))
    disk.fill(random.Random(2), list(range(BLOCKS)))  # everything changed, and the map denies it
    result = back_up(repository, "two", disk, changes=changes(disk, [], "s1", "s2"))
    assert "changed and the map says that it did not" in result.notes[0]
    assert result.statistics.new == disk.size
    restore(repository, result.point, str(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == disk.data


@pytest.mark.parametrize("clones", [(1, 2), (1,), (2,)], ids=["both", "only before", "only now"])
def test_a_map_that_may_mean_either_of_two_clones_is_not_believed(
    repository: Repository, tmp_path: Path, clones: tuple[int, ...]
) -> None:
    """A fixed VHD's identity is its unique id, which a copy of the file shares."""
    one = disk_with(list(range(BLOCKS)), name="one", identity="vhd:1")
    two = disk_with(list(range(BLOCKS)), name="two", identity="vhd:1")
    two.fill(random.Random(9), [5])
    first = (one, two) if 1 in clones else (one,)
    second = (one, two) if clones == (1, 2) else (two, one) if 2 in clones else (two,)
    back_up(repository, "one", *first, changes=changes(one, [], None, "s1"))
    result = back_up(repository, "two", *second, changes=changes(one, [], "s1", "s2"))
    assert all("more than one disk is called 'vhd:1'" in note for note in result.notes)
    assert len(result.notes) == len(second)
    for number, disk in enumerate(second):
        restore(repository, result.point, str(tmp_path / disk.name), number)
        assert (tmp_path / disk.name).read_bytes() == disk.data
    if clones == (1, 2):
        assert result.statistics.unchanged >= 2 * one.size, "each is compared with its own map"


def test_a_swapped_disk_of_the_same_name_is_compared_block_by_block(repository: Repository, tmp_path: Path) -> None:
    disk = disk_with([1, 2])
    back_up(repository, "one", disk)
    other = disk_with([1, 2, 3], seed=9)
    result = back_up(repository, "two", other)
    assert result.statistics.unchanged == 0
    restore(repository, result.point, str(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == other.data


@settings(max_examples=25)
@given(st.data())
def test_any_sequence_of_changes_restores_byte_for_byte(data: st.DataObject) -> None:
    """Grow, shrink, fill, clear; with a true map or without one: each point is a full one to read."""
    with mock.patch("mover.repository.keys.SCRYPT_N", 16):  # the password is not what is tested
        repository = Repository.create(MemoryStore(), password="p")
    disk = MemoryDisk(9 * MIB + 5)
    states: list[tuple[str, bytes]] = []
    snapshot = None
    for step in range(data.draw(st.integers(2, 4))):
        blocks = -(-disk.size // MIB)
        filled = data.draw(st.lists(st.integers(0, blocks - 1), max_size=4, unique=True))
        cleared = data.draw(st.lists(st.integers(0, blocks - 1), max_size=2, unique=True))
        disk.fill(random.Random(step % 2), filled)
        disk.clear(cleared)
        given = {}
        if data.draw(st.booleans()):
            given = changes(disk, filled + cleared, snapshot, f"s{step}")
            snapshot = f"s{step}"
        else:
            snapshot = None
        result = back_up(repository, f"job{step}", disk, changes=given)
        states.append((result.point, bytes(disk.data)))
        if data.draw(st.booleans()):
            size = data.draw(st.integers(1, 11 * MIB))
            disk.data = disk.data[:size] + bytes(max(0, size - disk.size))
            disk.size = size
    with tempfile.TemporaryDirectory() as folder:
        for number, (point, state) in enumerate(states):
            restore(repository, point, f"{folder}/{number}")
            assert Path(f"{folder}/{number}").read_bytes() == state


# -- crashes and resuming


class Crash(Exception):
    """The worker dies here."""


def crash_after_checkpoint(repository: Repository, disk: MemoryDisk, block: int, *covered: int) -> None:
    """Reading from `block` on ends the worker as soon as a checkpoint covers so many blocks of each disk."""

    def on_read(offset: int) -> None:
        if offset // MIB >= block:
            until(lambda: checkpointed(repository, *covered))
            raise Crash

    disk.on_read = on_read


def every_range() -> BackupSettings:
    """A checkpoint after every range."""
    return BackupSettings(workers=1, checkpoint_seconds=0.0)


def test_a_crash_resumes_from_the_checkpoint_without_reading_again(repository: Repository, tmp_path: Path) -> None:
    disk = disk_with(list(range(BLOCKS)))
    disk.source = "same"
    crash_after_checkpoint(repository, disk, 32, 16)
    with pytest.raises(Crash):
        back_up(repository, "one", disk, settings=every_range())
    assert list(repository.points()) == []
    read_before = set(disk.reads)
    disk.on_read = lambda offset: None
    disk.reads.clear()
    result = back_up(repository, "one", disk)
    assert result.resumed
    assert min(disk.reads) >= 16
    assert set(disk.reads) | read_before == set(range(BLOCKS))
    restore(repository, result.point, str(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == disk.data


def test_a_source_that_is_not_the_same_is_read_again(repository: Repository, tmp_path: Path) -> None:
    disk = disk_with(list(range(BLOCKS)))
    disk.source = "before"
    crash_after_checkpoint(repository, disk, 32, 16)
    with pytest.raises(Crash):
        back_up(repository, "one", disk, settings=every_range())
    disk.on_read = lambda offset: None
    disk.fill(random.Random(5), [0])
    disk.source = "after"
    disk.reads.clear()
    result = back_up(repository, "one", disk)
    assert sorted(disk.reads) == list(range(BLOCKS))
    assert result.statistics.deduplicated > 0, "what the checkpoint published is not stored again"
    restore(repository, result.point, str(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == disk.data


def test_a_source_that_changed_before_two_crashes_is_read_again(repository: Repository, tmp_path: Path) -> None:
    """The attempt between them wrote its own source beside the checkpoint of the old one, and made none itself."""
    disk = disk_with(list(range(BLOCKS)))
    disk.source = "before"
    crash_after_checkpoint(repository, disk, 32, 16)
    with pytest.raises(Crash):
        back_up(repository, "one", disk, settings=every_range())
    disk.fill(random.Random(5), list(range(BLOCKS)))
    disk.source = "after"

    def crash(offset: int) -> None:
        raise Crash

    disk.on_read = crash
    with pytest.raises(Crash):
        back_up(repository, "one", disk, settings=every_range())
    disk.on_read = lambda offset: None
    disk.reads.clear()
    result = back_up(repository, "one", disk)
    assert sorted(disk.reads) == list(range(BLOCKS))
    restore(repository, result.point, str(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == disk.data


def test_a_crash_keeps_what_a_checkpoint_has_of_each_disk(repository: Repository, tmp_path: Path) -> None:
    disks = [disk_with(list(range(size)), size * MIB, seed=size, name=f"d{size}") for size in (16, 17, 64)]
    for disk in disks:
        disk.source = f"same{disk.name}"
    crash_after_checkpoint(repository, disks[2], 24, 16, 17, 16)
    with pytest.raises(Crash):
        back_up(repository, "one", *disks, settings=every_range())
    for disk in disks:
        disk.reads.clear()
        disk.on_read = lambda offset: None
    result = back_up(repository, "one", *disks)
    assert disks[0].reads == disks[1].reads == []
    assert min(disks[2].reads) >= 16
    for number, disk in enumerate(disks):
        restore(repository, result.point, str(tmp_path / disk.name), number)
        assert (tmp_path / disk.name).read_bytes() == disk.data


@pytest.mark.parametrize("in_flight", [2, 0], ids=["side by side", "one after the other"])
def test_no_checkpoint_of_a_resumed_backup_says_less_than_the_one_before(
    repository: Repository, in_flight: int
) -> None:
    disks = [disk_with(list(range(BLOCKS)), seed=k, name=f"d{k}") for k in range(3)]
    wanted = (16, 16, 16) if in_flight else (BLOCKS, BLOCKS, 16)
    for disk in disks if in_flight else disks[2:]:
        crash_after_checkpoint(repository, disk, 32, *wanted)
    for disk in disks:
        disk.in_flight = in_flight
        disk.source = f"same {disk.name}"
    with pytest.raises(Crash):
        back_up(repository, "one", *disks, settings=every_range())
    before = covered_by_checkpoint(repository)
    assert min(before) >= 16
    seen: list[list[int]] = []

    def look() -> bool:
        seen.append(covered_by_checkpoint(repository))
        return False

    def crash(offset: int) -> None:
        enough = len(seen) + 4
        until(lambda: len(seen) >= enough)  # a checkpoint may be made after each
        raise Crash

    for disk in disks:
        disk.on_read = crash
    with pytest.raises(Crash):
        back_up(repository, "one", *disks, settings=every_range(), cancelled=look)
    seen.append(covered_by_checkpoint(repository))
    assert all(now >= then for found in seen for now, then in zip(found, before, strict=True))


def test_a_disk_whose_source_changed_takes_no_other_disk_back(repository: Repository, tmp_path: Path) -> None:
    disks = [disk_with(list(range(BLOCKS)), seed=k, name=f"d{k}") for k in range(3)]
    for disk in disks:
        disk.in_flight = 0
        disk.source = f"same {disk.name}"
    crash_after_checkpoint(repository, disks[2], 32, BLOCKS, BLOCKS, 16)
    with pytest.raises(Crash):
        back_up(repository, "one", *disks, settings=every_range())
    disks[0].fill(random.Random(9), list(range(BLOCKS)))
    disks[0].source = "another"

    def crash(offset: int) -> None:
        raise Crash

    disks[0].on_read = crash
    with pytest.raises(Crash):
        back_up(repository, "one", *disks, settings=every_range())
    assert covered_by_checkpoint(repository)[:2] == [0, BLOCKS]
    for disk in disks:
        disk.on_read = lambda offset: None
        disk.reads.clear()
    result = back_up(repository, "one", *disks)
    assert sorted(disks[0].reads) == list(range(BLOCKS))
    assert disks[1].reads == []
    assert min(disks[2].reads) >= 16
    for number, disk in enumerate(disks):
        restore(repository, result.point, str(tmp_path / disk.name), number)
        assert (tmp_path / disk.name).read_bytes() == disk.data


def test_a_checkpoint_that_would_say_nothing_new_is_not_made(repository: Repository) -> None:
    disk = disk_with(list(range(8)))
    asked: list[None] = []

    def on_read(offset: int) -> None:
        enough = len(asked) + 6
        until(lambda: len(asked) >= enough)

    disk.on_read = on_read
    settings = BackupSettings(workers=1, checkpoint_seconds=0.0)
    result = back_up(repository, "one", disk, settings=settings, cancelled=lambda: bool(asked.append(None)))
    assert result.checkpoints <= 2  # of the disk's one range, there or not


@pytest.mark.parametrize("damaged", [False, True])
def test_a_map_that_the_last_checkpoint_has_is_not_stored_again_unless_damaged(
    repository: Repository, damaged: bool
) -> None:
    roots: list[Kind] = []
    add, finish = Session.add_metadata, DiskBackup.finish

    def counted(session: Session, kind: Kind, raw: bytes) -> ChunkRef:
        roots.extend([kind] * (kind == Kind.ROOT))
        return add(session, kind, raw)

    def after_a_checkpoint(disk: DiskBackup) -> DiskMap:
        disk.stored(disk.snapshot())
        return finish(disk)

    with (
        mock.patch.object(Session, "add_metadata", counted),
        mock.patch.object(DiskBackup, "finish", after_a_checkpoint),
        mock.patch.object(DedupeView, "quarantined", return_value=damaged),
    ):
        back_up(repository, "one", disk_with([1, 39]))
    assert (len(roots) == 1) != damaged


def test_the_pages_of_a_map_are_dropped_when_its_disk_is_read(repository: Repository) -> None:
    disks = [disk_with([1, 39], name=f"d{k}") for k in range(2)]
    back_up(repository, "one", *disks)
    opened: list[weakref.ref[MapReader]] = []
    reader, commit = DiskBackup._reader, Session.commit

    def noted(disk: DiskBackup, ref: ChunkRef) -> MapReader:
        found = reader(disk, ref)
        opened.append(weakref.ref(found))
        assert found._kept == PAGES_KEPT // 2
        return found

    def looked(session: Session, *arguments: Any) -> Header:
        assert [ref() for ref in opened] == [None, None]
        return commit(session, *arguments)

    with mock.patch.object(DiskBackup, "_reader", noted), mock.patch.object(Session, "commit", looked):
        assert back_up(repository, "two", *disks).statistics.new == 0


def test_the_progress_is_of_all_disks_to_the_byte(repository: Repository) -> None:
    disks = [disk_with([0, 5, BLOCKS - 1], seed=k, name=f"d{k}") for k in range(2)]
    seen: list[Snapshot] = []
    request = BackupRequest("vm", "one", disks)
    Backup(repository, request, BackupSettings(workers=2), Progress(repository.clock, seen.append)).run()
    assert {snapshot.total for snapshot in seen if snapshot.stage == "back up 2 disks"} == {2 * (3 * MIB - 700)}


def test_a_cancel_is_asked_for_at_every_page_also_where_nothing_is_read(repository: Repository) -> None:
    asked: list[None] = []
    pages = 50
    disk = SparseDisk("thin", pages * PAGE_BLOCKS * MIB, {})
    progress = Progress(repository.clock)
    Backup(
        repository, BackupRequest("vm", "one", [disk]), BackupSettings(), progress, lambda: bool(asked.append(None))
    ).run()
    assert len(asked) >= pages


def test_cancel_leaves_no_point_and_resumes(repository: Repository) -> None:
    disk = disk_with(list(range(BLOCKS)))
    disk.source = "same"
    cancel = threading.Event()

    disk.on_read = lambda offset: cancel.set() if offset >= 16 * MIB else None
    with pytest.raises(Cancelled):
        back_up(repository, "one", disk, settings=every_range(), cancelled=cancel.is_set)
    assert list(repository.points()) == []
    cancel.clear()
    disk.on_read = lambda offset: None
    assert back_up(repository, "one", disk).resumed


def test_a_session_that_is_held_is_not_touched(repository: Repository) -> None:
    disk = disk_with([1, 2, 3])
    refused: list[SessionBusy] = []

    def on_read(offset: int) -> None:
        disk.on_read = lambda offset: None
        with pytest.raises(SessionBusy) as raised:
            back_up(repository, "one", disk)
        refused.append(raised.value)

    disk.on_read = on_read
    result = back_up(repository, "one", disk)
    assert not result.resumed
    assert "another worker" in refused[0].hint


@pytest.mark.parametrize("resources", [("vm", "vm"), ("vm", "other")], ids=["same resource", "two resources"])
def test_two_workers_at_once(repository: Repository, tmp_path: Path, resources: tuple[str, str]) -> None:
    disks = [disk_with(list(range(BLOCKS)), seed=k) for k in (1, 2)]
    points = ["", ""]

    def work(number: int) -> None:
        points[number] = back_up(repository, f"job{number}", disks[number], resource=resources[number]).point

    workers = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for number, disk in enumerate(disks):
        restore(repository, points[number], str(tmp_path / str(number)))
        assert (tmp_path / str(number)).read_bytes() == disk.data


# -- bad input


def test_two_disks_of_one_name_are_refused(repository: Repository) -> None:
    with pytest.raises(UsageError, match="same name"):
        back_up(repository, "one", disk_with([1]), disk_with([2]))


def test_a_wrong_password_touches_nothing() -> None:
    store = MemoryStore()
    Repository.create(store, password="right", hint="the usual")
    with pytest.raises(WrongPassword):
        Repository.open(store, password="wrong")
    with pytest.raises(UsageError, match="the usual"):
        Repository.open(store)


def test_a_disk_that_cannot_be_read_ends_the_backup_and_can_be_gone_on_with(repository: Repository) -> None:
    disk = disk_with(list(range(BLOCKS)))

    def on_read(offset: int) -> None:
        if offset >= 24 * MIB:
            raise SourceError("a disk cannot be read", f"block {offset // MIB}: Input/output error")

    disk.on_read = on_read
    with pytest.raises(SourceError, match="Input/output error"):
        back_up(repository, "one", disk)
    disk.on_read = lambda offset: None
    assert back_up(repository, "one", disk).resumed


def test_as_many_disks_as_azure_allows_fit_in_one_record(repository: Repository) -> None:
    disks = [disk_with([0], 2 * MIB, seed=k, name=f"disk{k:02}", identity="i" * 90 + str(k)) for k in range(MOST_DISKS)]
    maps = {disk.identity: changes(disk, [], None, "s" * 180 + disk.name)[disk.identity] for disk in disks}
    for disk in disks:  # so that every block of the second backup is found in another session
        back_up(repository, f"alone {disk.name}", disk, resource=disk.name)
    result = back_up(repository, "all", *disks, changes=maps)
    assert result.statistics.deduplicated == MOST_DISKS * MIB
    assert len(repository.find_point(result.point).body.disks) == MOST_DISKS
    with pytest.raises(UsageError, match="too many disks"):
        back_up(repository, "more", *disks, disk_with([0], MIB, name="one more"))


def test_a_checkpoint_that_cannot_be_read_is_not_the_end_of_its_job(repository: Repository, tmp_path: Path) -> None:
    disk = disk_with(list(range(BLOCKS)))
    disk.source = "same"
    crash_after_checkpoint(repository, disk, 32, 16)
    with pytest.raises(Crash):
        back_up(repository, "one", disk, settings=every_range())
    for entry in list(repository.store.list("packs/")):
        if "-m" in entry.name:
            repository.store.delete(entry.name)
    disk.on_read = lambda offset: None
    disk.reads.clear()
    result = back_up(repository, "one", disk)
    assert any("its checkpoint cannot be read" in note for note in result.notes)
    assert sorted(disk.reads) == list(range(BLOCKS))
    restore(repository, result.point, str(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == disk.data


@pytest.mark.parametrize(
    "wrong", [{"snapshot": ""}, {"base": ""}, {"disk": ""}, {"base": "s", "snapshot": "s", "ranges": ((0, 1),)}]
)
def test_a_change_map_whose_names_mean_nothing_is_refused(wrong: dict[str, object]) -> None:
    given = {"disk": "d", "size": MIB, "snapshot": "s2", "base": "s1"} | wrong
    with pytest.raises(UsageError, match="a change map has"):
        check(ChangeMap(**given), "here")  # type: ignore[arg-type]
