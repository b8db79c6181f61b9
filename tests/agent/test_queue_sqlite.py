# SPDX-License-Identifier: Apache-2.0
"""The queue's promises: a message is one taker's, comes back when he dies, and ends once."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent import queue_sqlite
from agent.errors import QueueError, StaleReceipt
from agent.protocol import Accepted, ProgressEvent, Result
from agent.queue_sqlite import Message, SqliteQueue
from mover.errors import UsageError
from tests.mover.store.clock import ManualClock

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def queue(tmp_path: Path, clock: ManualClock) -> Iterator[SqliteQueue]:
    made = SqliteQueue(tmp_path / "queue.db", clock)
    yield made
    made.close()


def put(queue: SqliteQueue, job: str = "j1") -> None:
    queue.put(f"body of {job}".encode(), command=f"c-{job}", job=job)


def take(queue: SqliteQueue, visibility: float = 60) -> Message:
    message = queue.take(visibility)
    assert message is not None
    return message


def result(job: str = "j1") -> Result:
    return Result(command=f"c-{job}", job=job, time=NOW, kind="backup", status="success")


def progress(done: int, job: str = "j1") -> ProgressEvent:
    return ProgressEvent(command=f"c-{job}", job=job, time=NOW, stage="s", done=done, total=9, rate=0, eta=None)


def test_a_message_is_given_out_as_it_came_oldest_first(queue: SqliteQueue) -> None:
    put(queue, "j1")
    put(queue, "j2")
    first, second = take(queue), take(queue)
    assert (first.job, first.command, first.body, first.deliveries) == ("j1", "c-j1", b"body of j1", 1)
    assert second.job == "j2"
    assert queue.take(60) is None


def test_a_message_of_a_dead_taker_comes_back_and_is_counted(queue: SqliteQueue, clock: ManualClock) -> None:
    put(queue)
    first = take(queue, 60)
    clock.advance(59.9)
    assert queue.take(60) is None
    clock.advance(0.2)
    again = take(queue)
    assert (again.number, again.deliveries) == (first.number, 2)
    assert again.receipt != first.receipt


def test_what_is_renewed_stays_invisible_under_a_new_receipt(queue: SqliteQueue, clock: ManualClock) -> None:
    put(queue)
    message = take(queue, 60)
    for _ in range(5):
        clock.advance(50)
        renewed = queue.renew(message, 60)
        assert renewed.receipt != message.receipt
        with pytest.raises(StaleReceipt):
            queue.renew(message, 60)
        message = renewed
        assert queue.take(60) is None
    queue.finish(message, result())
    clock.advance(1000)
    assert queue.take(60) is None


def test_a_lapsed_message_that_nobody_took_can_still_be_renewed(queue: SqliteQueue, clock: ManualClock) -> None:
    put(queue)
    message = take(queue, 60)
    clock.advance(100)
    queue.renew(message, 60)
    assert queue.take(60) is None


def test_a_stale_taker_can_do_nothing(queue: SqliteQueue, clock: ManualClock) -> None:
    put(queue)
    stale = take(queue, 60)
    clock.advance(61)
    take(queue, 60)
    for call in (
        lambda: queue.renew(stale, 60),
        lambda: queue.release(stale),
        lambda: queue.finish(stale, result()),
    ):
        with pytest.raises(StaleReceipt):
            call()
    assert queue.events("j1") == []
    assert queue.waiting("j1")


def test_the_end_is_a_result_and_no_message(queue: SqliteQueue) -> None:
    put(queue)
    message = take(queue)
    queue.send(Accepted(command="c-j1", job="j1", time=NOW, kind="backup", worker="w"))
    queue.finish(message, result())
    assert not queue.waiting("j1")
    assert [event for _, event in queue.events("j1")][-1] == result()
    with pytest.raises(StaleReceipt):
        queue.finish(message, result())
    assert len(queue.events("j1")) == 2


def test_what_is_given_back_is_visible_at_once_or_after_its_delay(queue: SqliteQueue, clock: ManualClock) -> None:
    put(queue)
    queue.release(take(queue))
    message = take(queue)
    assert message.deliveries == 2
    queue.release(message, 5)
    assert queue.take(60) is None
    clock.advance(5)
    assert take(queue).deliveries == 3


def test_after_another_boot_every_taker_is_dead(
    queue: SqliteQueue, clock: ManualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(queue)
    take(queue, 1e6)
    monkeypatch.setattr(queue_sqlite, "this_boot", lambda: "another")
    rebooted = SqliteQueue(tmp_path / "queue.db", ManualClock())
    assert take(rebooted).deliveries == 2
    rebooted.close()


def test_events_are_given_from_where_one_is(queue: SqliteQueue) -> None:
    for done in range(3):
        queue.send(Accepted(command="c-j1", job="j1", time=NOW, kind=str(done), worker="w"))
    queue.send(Accepted(command="c-j2", job="j2", time=NOW, kind="", worker="w"))
    numbers = [number for number, _ in queue.events("j1")]
    assert len(numbers) == 3
    assert [number for number, _ in queue.events("j1", numbers[1])] == numbers[2:]


def test_of_progress_only_the_newest_is_kept(queue: SqliteQueue) -> None:
    for done in range(5):
        queue.send(progress(done))
        queue.send(progress(done, "j2"))
    assert [event for _, event in queue.events("j1")] == [progress(4)]


def test_ten_takers_at_once_get_each_message_once(queue: SqliteQueue, tmp_path: Path, clock: ManualClock) -> None:
    for number in range(30):
        put(queue, f"j{number}")
    got: list[str] = []

    def take_all() -> None:
        mine = SqliteQueue(tmp_path / "queue.db", clock)
        while (message := mine.take(60)) is not None:
            got.append(message.job)
        mine.close()

    threads = [threading.Thread(target=take_all) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == sorted(f"j{number}" for number in range(30))


def test_only_its_owner_may_write_commands(queue: SqliteQueue) -> None:
    put(queue)
    files = [queue.path, *queue.path.parent.glob("queue.db-*")]
    assert len(files) == 3
    for file in files:
        assert file.stat().st_mode & 0o777 == 0o600


def test_another_program_s_database_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE bookmarks (url)")
    other.close()
    with pytest.raises(QueueError) as caught:
        SqliteQueue(path)
    assert caught.value.what == "not a queue that this release knows"
    with sqlite3.connect(path) as other:
        assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("bookmarks",)]
    other.close()


def test_a_queue_of_a_newer_release_is_refused(queue: SqliteQueue) -> None:
    with sqlite3.connect(queue.path) as raw:
        raw.execute("PRAGMA user_version = 2")
    raw.close()
    with pytest.raises(QueueError) as caught:
        SqliteQueue(queue.path)
    assert "version 2" in caught.value.value


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 5000)
    with pytest.raises(QueueError) as caught:
        SqliteQueue(path)
    assert caught.value.what == "not a queue"
    assert path.read_bytes() == b"x" * 5000


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(QueueError) as caught:
        SqliteQueue(tmp_path / "none" / "queue.db")
    assert "No such file" in caught.value.value


def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(root: Path) -> None:
        raise UsageError("a local store cannot be on a file system of type nfs4", root)

    monkeypatch.setattr(queue_sqlite, "refuse_network", refuse)
    with pytest.raises(UsageError):
        SqliteQueue(tmp_path / "queue.db")
    assert not (tmp_path / "queue.db").exists()
