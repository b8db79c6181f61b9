# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import multiprocessing
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.errors import QueueError, QueueUnavailable
from agent.queue.base import Queue, QueueService
from agent.queue.sqlite import SqliteQueueService
from mover.errors import StoreFull
from tests.agent.queue.conformance import Conformance, Place, drain
from tests.mover.store.clock import ManualClock


class TestSqlite(Conformance):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Iterator[Place]:
        clock = ManualClock()
        opened: list[SqliteQueueService] = []

        def other() -> QueueService:
            opened.append(SqliteQueueService(tmp_path / "queue.db", clock))
            return opened[-1]

        service = other()
        numbers = iter(range(1000))

        def make() -> Queue:
            queue = service.queue(f"queue-{next(numbers)}")
            queue.ensure()
            return queue

        def lapse(seconds: float, condition: Callable[[], object]) -> None:
            clock.advance(seconds + 0.01)
            assert condition()

        yield Place(service, make, other, lapse)
        for one in opened:
            one.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.db"


def made(service: QueueService, name: str = "workers") -> Queue:
    queue = service.queue(name)
    queue.ensure()
    return queue


def test_messages_outlive_the_process_that_put_them(path: Path) -> None:
    worker = multiprocessing.get_context("spawn").Process(target=_put_from_another_process, args=(path,))
    worker.start()
    worker.join()
    assert worker.exitcode == 0
    assert [m.body for m in drain(SqliteQueueService(path).queue("workers"))] == [b"from another process"]


def _put_from_another_process(path: Path) -> None:
    made(SqliteQueueService(path)).put(b"from another process")


def test_many_open_a_new_file_at_once(tmp_path: Path) -> None:
    """Each has its locks for as long as it lives, and each finds the log switched on."""
    for number in range(20):
        start = threading.Barrier(8)

        def use(who: int, path: Path = tmp_path / f"queue-{number}.db", start: threading.Barrier = start) -> int:
            start.wait()
            with contextlib.closing(SqliteQueueService(path)) as service:
                made(service).put(b"%d" % who)
                return service.queue("workers").length()

        with ThreadPoolExecutor(8) as pool:
            assert max(pool.map(use, range(8))) == 8
        database = sqlite3.connect(tmp_path / f"queue-{number}.db")
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        database.close()


def test_after_another_boot_every_taker_is_dead(path: Path) -> None:
    queue = made(SqliteQueueService(path, boot="one"))
    queue.put(b"body")
    queue.put(b"delayed", delay=1000)
    assert queue.take(3600) is not None
    assert queue.take(3600) is None
    assert len(drain(SqliteQueueService(path, boot="two").queue("workers"))) == 2


def test_the_wall_clock_may_be_set(path: Path) -> None:
    """Visibility is by the time since boot: a clock that is set back or forth shows nothing too soon and hides nothing."""
    clock = ManualClock()
    queue = made(SqliteQueueService(path, clock))
    queue.put(b"body")
    first = queue.take(60)
    assert first is not None
    clock._wall += 3600
    assert queue.take(60) is None
    clock._wall -= 7200
    assert queue.take(60) is None
    queue.renew(first, 60)


def test_it_is_for_its_owner_only(path: Path) -> None:
    made(SqliteQueueService(path)).put(b"body")
    for file in path.parent.glob("queue.db*"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_what_is_no_queue_is_refused(path: Path) -> None:
    path.write_bytes(b"no database" * 100)
    with pytest.raises(QueueError, match="not a queue"):
        SqliteQueueService(path)
    path.unlink()
    with sqlite3.connect(path) as foreign:
        foreign.execute("CREATE TABLE theirs (x)")
    with pytest.raises(QueueError, match="not a queue that this release knows"):
        SqliteQueueService(path)
    assert sqlite3.connect(path).execute("SELECT count(*) FROM theirs").fetchone() == (0,)
    path.unlink()
    with pytest.raises(QueueError, match="there is no queue"):
        SqliteQueueService(path, create=False)
    with pytest.raises(QueueError, match="cannot be opened"):
        SqliteQueueService(path / "under" / "nothing")


def test_a_queue_of_an_older_release_is_refused(path: Path) -> None:
    with sqlite3.connect(path) as older:
        older.execute(f"PRAGMA application_id = {0x444D5155}")
        older.execute("PRAGMA user_version = 1")
    with pytest.raises(QueueError, match="version 1"):
        SqliteQueueService(path)


def test_a_file_that_another_process_keeps_locked_is_unavailable(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.queue.sqlite.BUSY_SECONDS", 0.05)
    queue = made(SqliteQueueService(path))
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(QueueUnavailable, match="locked"):
            queue.put(b"body")
        other.execute("ROLLBACK")
    queue.put(b"body")


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (sqlite3.SQLITE_IOERR_WRITE, QueueUnavailable),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, QueueUnavailable),
        (sqlite3.SQLITE_FULL, StoreFull),
        (sqlite3.SQLITE_CORRUPT_INDEX, QueueError),
    ],
)
def test_an_error_is_known_by_its_kind_wherever_it_happened(path: Path, code: int, error: type[Exception]) -> None:
    service = SqliteQueueService(path)
    failure = sqlite3.OperationalError("disk I/O error")
    failure.sqlite_errorcode = code
    with pytest.raises(error) as caught, service._errors():
        raise failure
    assert type(caught.value) is error
