# SPDX-License-Identifier: Apache-2.0
"""Queues in one SQLite file, shared by the processes of one host.

Times of visibility are CLOCK_BOOTTIME of one boot (a clock that nobody sets); after another boot every taker is dead and all
messages are visible. Expiry and insertion are wall time, as a service's would be. Not for network file systems: SQLite's log
needs shared memory. An instance may be shared by threads.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from agent.errors import QueueError, QueueMissing, QueueUnavailable, StaleReceipt
from agent.queue.base import (
    Message,
    Queue,
    QueueService,
    Waiting,
    check_body,
    check_queue_name,
    check_visibility,
)
from mover.clock import SYSTEM, Clock
from mover.errors import StoreFull
from mover.store.local_lease import this_boot
from mover.store.local_mount import refuse_network

APPLICATION_ID, VERSION = 0x444D5155, 2  # "DMQU"
BUSY_SECONDS = 30.0
_TABLES = """
CREATE TABLE queues (name TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE messages (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    queue TEXT NOT NULL,
    body BLOB NOT NULL,
    inserted REAL NOT NULL,
    expires REAL NOT NULL,
    deliveries INTEGER NOT NULL DEFAULT 0,
    receipt TEXT NOT NULL DEFAULT '',
    boot TEXT NOT NULL DEFAULT '',
    visible REAL NOT NULL DEFAULT 0
);
CREATE INDEX messages_of_queues ON messages (queue, number);
CREATE INDEX messages_that_expire ON messages (expires);
"""
NEVER = 1e18


class SqliteQueueService(QueueService):
    """`create`: make the file when it is not there. `boot` names this boot of the machine (tests give others)."""

    def __init__(
        self, path: str | os.PathLike[str], clock: Clock = SYSTEM, *, create: bool = True, boot: str | None = None
    ) -> None:
        self.path = Path(path).absolute()
        self.clock = clock
        self.boot = boot if boot is not None else this_boot()
        self._lock = threading.RLock()
        refuse_network(self.path.parent.resolve())
        if not create and not self.path.exists():
            raise QueueError("there is no queue", self.path, "`data-mover submit` or a worker makes it: check the path")
        try:
            # Who may write here commands the worker: nobody else. SQLite gives its log files the same rights. Made without
            # opening it: closing any descriptor of a file drops all POSIX locks that this process has on it.
            os.mknod(self.path, 0o600 | stat.S_IFREG)
        except FileExistsError:
            pass
        except OSError as error:
            raise QueueError("the queue cannot be opened", f"{self.path}: {error.strerror}") from None
        with self._errors():
            self._db = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            with self._errors():
                self._prepare()
        except BaseException:
            self._db.close()
            raise

    def _prepare(self) -> None:
        self._db.execute("PRAGMA synchronous = FULL")  # what was submitted outlives a power cut
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
            # Others open the new file at this moment, and for this SQLite does not wait: one of them has done it.
        with self.transaction() as db:
            application = db.execute("PRAGMA application_id").fetchone()[0]
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if (application, version) == (APPLICATION_ID, VERSION):
                return
            if application or version or db.execute("SELECT 1 FROM sqlite_master").fetchone():
                hint = "name another file, or use the release that made this queue"
                raise QueueError("not a queue that this release knows", f"{self.path}: version {version}", hint)
            for statement in _TABLES.split(";"):
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {VERSION}")

    @property
    def where(self) -> str:
        return str(self.path)

    def queue(self, name: str) -> Queue:
        return SqliteQueue(self, check_queue_name(name))

    def now(self) -> float:
        return self.clock.wall()

    def close(self) -> None:
        with self._lock:
            self._db.close()

    # -- SQLite

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of the block or nothing of it, durable when it ends."""
        with self._errors(), self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest says where it happened
            if code == sqlite3.SQLITE_FULL:
                raise StoreFull("the queue's disk is full", self.path) from None
            if code == sqlite3.SQLITE_NOTADB:
                raise QueueError("not a queue", self.path, "name another file") from None
            kind = QueueUnavailable if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_IOERR) else QueueError
            raise kind("the queue does not answer", f"{self.path}: {error}") from None


class SqliteQueue(Queue):
    """One queue of the file."""

    def __init__(self, service: SqliteQueueService, name: str) -> None:
        self._service = service
        self.name = name

    def ensure(self) -> None:
        with self._service.transaction() as db:
            db.execute("INSERT OR IGNORE INTO queues (name) VALUES (?)", (self.name,))

    @contextmanager
    def _there(self) -> Iterator[sqlite3.Connection]:
        """A transaction on a queue that exists; messages whose time is over are gone."""
        with self._service.transaction() as db:
            if db.execute("SELECT 1 FROM queues WHERE name = ?", (self.name,)).fetchone() is None:
                raise QueueMissing("there is no such queue", f"{self.name} in {self._service.path}")
            db.execute("DELETE FROM messages WHERE expires <= ?", (self._service.clock.wall(),))
            yield db

    def put(self, body: bytes, *, ttl: float | None = None, delay: float = 0.0) -> str:
        check_body(body)
        service = self._service
        now = service.clock.wall()
        with self._there() as db:
            inserted = db.execute(
                "INSERT INTO messages (queue, body, inserted, expires, boot, visible) VALUES (?, ?, ?, ?, ?, ?)",
                (
                    self.name,
                    body,
                    now,
                    NEVER if ttl is None else now + ttl,
                    service.boot,
                    service.clock.monotonic() + delay if delay else 0,
                ),
            )
            return str(inserted.lastrowid)

    def take(self, visibility: float) -> Message | None:
        service = self._service
        check_visibility(visibility)
        with self._there() as db:
            now = service.clock.monotonic()
            row = db.execute(
                "SELECT number, deliveries, body, inserted FROM messages "
                "WHERE queue = ? AND (boot != ? OR visible <= ?) ORDER BY number LIMIT 1",
                (self.name, service.boot, now),
            ).fetchone()
            if row is None:
                return None
            message = Message(str(row[0]), secrets.token_hex(16), bytes(row[2]), row[1] + 1, row[3])
            db.execute(
                "UPDATE messages SET deliveries = ?, receipt = ?, boot = ?, visible = ? WHERE number = ?",
                (message.deliveries, message.receipt, service.boot, now + visibility, row[0]),
            )
            return message

    def renew(self, message: Message, visibility: float) -> Message:
        renewed = replace(message, receipt=secrets.token_hex(16))
        self._show(message, renewed.receipt, check_visibility(visibility))
        return renewed

    def release(self, message: Message, delay: float = 0.0) -> None:
        self._show(message, "", delay)

    def _show(self, message: Message, receipt: str, seconds: float) -> None:
        service = self._service
        with self._there() as db:
            self._mine(
                message,
                db.execute(
                    "UPDATE messages SET receipt = ?, boot = ?, visible = ? WHERE number = ? AND queue = ? AND receipt = ?",
                    (
                        receipt,
                        service.boot,
                        service.clock.monotonic() + seconds,
                        message.id,
                        self.name,
                        message.receipt,
                    ),
                ),
            )

    def delete(self, message: Message) -> None:
        with self._there() as db:
            self._mine(
                message,
                db.execute(
                    "DELETE FROM messages WHERE number = ? AND queue = ? AND receipt = ?",
                    (message.id, self.name, message.receipt),
                ),
            )

    def _mine(self, message: Message, cursor: sqlite3.Cursor) -> None:
        if cursor.rowcount != 1:
            raise StaleReceipt("the message is no longer this worker's", f"message {message.id} of {self.name}")

    def peek(self, count: int) -> list[Waiting]:
        service = self._service
        with self._there() as db:
            rows = db.execute(
                "SELECT number, body, deliveries, inserted FROM messages "
                "WHERE queue = ? AND (boot != ? OR visible <= ?) ORDER BY number LIMIT ?",
                (self.name, service.boot, service.clock.monotonic(), count),
            ).fetchall()
        return [Waiting(str(number), bytes(body), deliveries, inserted) for number, body, deliveries, inserted in rows]

    def length(self) -> int:
        with self._there() as db:
            return int(db.execute("SELECT count(*) FROM messages WHERE queue = ?", (self.name,)).fetchone()[0])
