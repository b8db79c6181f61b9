# SPDX-License-Identifier: Apache-2.0
"""A queue of commands and their events in one SQLite file, shared by the processes of one host.

It gives what Azure Queue Storage gives: a message that is taken is invisible for a time, its receipt changes with every
renewal, deliveries are counted, and a message whose taker died shows again. Delivery is at least once. In addition the end
of a command is one transaction: its result appears if and only if its message goes, for the receipt's holder only.

Times are CLOCK_BOOTTIME of one boot (a clock that nobody sets); after another boot every taker is dead and all is visible.
An instance may be shared by threads. Not for network file systems: SQLite's log needs shared memory.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from agent.errors import QueueError, StaleReceipt
from agent.protocol import Event, ProgressEvent, Result, decode_event, encode
from mover.clock import SYSTEM, Clock
from mover.errors import StoreFull
from mover.store.local_lease import this_boot
from mover.store.local_mount import refuse_network

APPLICATION_ID, VERSION = 0x444D5155, 1  # "DMQU"
BUSY_SECONDS = 30.0
_TABLES = """
CREATE TABLE messages (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    command TEXT NOT NULL,
    job TEXT NOT NULL,
    body BLOB NOT NULL,
    deliveries INTEGER NOT NULL DEFAULT 0,
    receipt TEXT NOT NULL DEFAULT '',
    boot TEXT NOT NULL DEFAULT '',
    visible REAL NOT NULL DEFAULT 0
);
CREATE TABLE events (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    command TEXT NOT NULL,
    job TEXT NOT NULL,
    progress INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX events_of_jobs ON events (job, number);
CREATE INDEX messages_of_jobs ON messages (job);
"""


@dataclass(frozen=True, slots=True)
class Message:
    """A command as it was submitted, byte for byte. `receipt` names this delivery; a renewal gives a new one."""

    number: int
    receipt: str
    deliveries: int
    command: str
    job: str
    body: bytes


class SqliteQueue:
    def __init__(self, path: str | os.PathLike[str], clock: Clock = SYSTEM, *, create: bool = True) -> None:
        self.path = Path(path).absolute()
        self._clock = clock
        self._boot = this_boot()
        self._lock = threading.RLock()
        refuse_network(self.path.parent.resolve())
        if not create and not self.path.exists():
            raise QueueError("there is no queue", self.path, "`data-mover submit` or a worker makes it: check the path")
        try:
            # Who may write here commands the worker: nobody else. SQLite gives its log files the same rights.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
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
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")  # what was submitted outlives a power cut
        with self._transaction():
            application = self._db.execute("PRAGMA application_id").fetchone()[0]
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if (application, version) == (APPLICATION_ID, VERSION):
                return
            if application or version or self._db.execute("SELECT 1 FROM sqlite_master").fetchone():
                hint = "name another file, or use the release that made this queue"
                raise QueueError("not a queue that this release knows", f"{self.path}: version {version}", hint)
            for statement in _TABLES.split(";"):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            self._db.execute(f"PRAGMA user_version = {VERSION}")

    # -- commands

    def put(self, body: bytes, *, command: str, job: str) -> None:
        """Durable when it returns."""
        with self._transaction():
            self._db.execute("INSERT INTO messages (command, job, body) VALUES (?, ?, ?)", (command, job, body))

    def take(self, visibility: float) -> Message | None:
        """The oldest visible message, invisible to others for so many seconds; None when there is none."""
        with self._transaction():
            row = self._db.execute(
                "SELECT number, deliveries, command, job, body FROM messages "
                "WHERE boot != ? OR visible <= ? ORDER BY number LIMIT 1",
                (self._boot, self._clock.monotonic()),
            ).fetchone()
            if row is None:
                return None
            message = Message(row[0], secrets.token_hex(16), row[1] + 1, row[2], row[3], bytes(row[4]))
            self._db.execute(
                "UPDATE messages SET deliveries = ?, receipt = ?, boot = ?, visible = ? WHERE number = ?",
                (message.deliveries, message.receipt, self._boot, self._clock.monotonic() + visibility, message.number),
            )
            return message

    def renew(self, message: Message, visibility: float) -> Message:
        """Invisible for so many seconds from now, under a new receipt. StaleReceipt: it is another's, or done."""
        renewed = replace(message, receipt=secrets.token_hex(16))
        with self._transaction():
            self._change(
                message,
                "UPDATE messages SET receipt = ?, boot = ?, visible = ? WHERE number = ? AND receipt = ?",
                (renewed.receipt, self._boot, self._clock.monotonic() + visibility),
            )
        return renewed

    def release(self, message: Message, delay: float = 0.0) -> None:
        """Give it back: visible to all after so many seconds. StaleReceipt."""
        with self._transaction():
            self._change(
                message,
                "UPDATE messages SET receipt = '', boot = ?, visible = ? WHERE number = ? AND receipt = ?",
                (self._boot, self._clock.monotonic() + delay),
            )

    def finish(self, message: Message, result: Result) -> None:
        """The command is done: its result appears and its message goes, both or neither. StaleReceipt."""
        with self._transaction():
            self._change(message, "DELETE FROM messages WHERE number = ? AND receipt = ?", ())
            self._insert(result)

    def _change(self, message: Message, statement: str, values: tuple[object, ...]) -> None:
        if self._db.execute(statement, (*values, message.number, message.receipt)).rowcount != 1:
            raise StaleReceipt("the message is no longer this worker's", f"message {message.number}")

    def waiting(self, job: str) -> bool:
        """Whether a command of the job is in the queue, visible or being carried out."""
        with self._errors(), self._lock:
            return self._db.execute("SELECT 1 FROM messages WHERE job = ? LIMIT 1", (job,)).fetchone() is not None

    # -- events

    def send(self, event: Event) -> None:
        with self._transaction():
            self._insert(event)

    def _insert(self, event: Event) -> None:
        """Of a command's progress only the newest is kept."""
        progress = isinstance(event, ProgressEvent)
        if progress:
            self._db.execute(
                "DELETE FROM events WHERE job = ? AND command = ? AND progress", (event.job, event.command)
            )
        self._db.execute(
            "INSERT INTO events (command, job, progress, body) VALUES (?, ?, ?, ?)",
            (event.command, event.job, progress, encode(event)),
        )

    def events(self, job: str, after: int = 0) -> list[tuple[int, Event]]:
        """(number, event) of a job, ascending, from behind number `after` on."""
        with self._errors(), self._lock:
            rows = self._db.execute(
                "SELECT number, body FROM events WHERE job = ? AND number > ? ORDER BY number", (job, after)
            ).fetchall()
        return [(number, decode_event(body)) for number, body in rows]

    # -- SQLite

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._errors(), self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL:
                raise StoreFull("the queue's disk is full", self.path) from None
            if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_NOTADB:
                raise QueueError("not a queue", self.path, "name another file") from None
            raise QueueError("the queue does not answer", f"{self.path}: {error}") from None

    def close(self) -> None:
        with self._lock:
            self._db.close()
