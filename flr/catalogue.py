# SPDX-License-Identifier: Apache-2.0
"""What a walk found, in an SQLite file: searched by name, path, size, time, type and owner, also while the walk goes on.

Entries are kept by their folder's number, so that a scan in another order than the tree's fits in as well; paths are put together
when they are shown. The file belongs to one session and one volume and is thrown away with it, unless somebody names one to keep.
Safe for many threads: one connection, used in turn.
"""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import re2  # takes time in the length of a name only, whatever the pattern: it may be anybody's

from flr.errors import Unsupported
from flr.fs.base import FIRST_TIME, Node
from flr.fs.table import Table
from flr.session import DEEPEST
from mover.errors import TargetError, UsageError

VERSION = 1
"""Of the schema, in `PRAGMA user_version`."""
BATCH = 1000
PATHS_KEPT = 10_000
_SCHEMA = """
CREATE TABLE entry (
    id INTEGER PRIMARY KEY,
    folder INTEGER NOT NULL,  -- the number of the folder that it stands in
    name BLOB NOT NULL,
    number INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    mode INTEGER NOT NULL,    -- with the type
    size INTEGER NOT NULL,
    modified INTEGER,         -- ns since 1970; the same for the other times
    changed INTEGER,
    created INTEGER,
    owner INTEGER,
    "group" INTEGER,
    flags INTEGER NOT NULL,
    problem TEXT NOT NULL
);
CREATE INDEX folders ON entry (number) WHERE (mode & 61440) = 16384;
CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
_INSERT = """INSERT INTO entry (folder, name, number, generation, mode, size, modified, changed, created, owner, "group", flags,
 problem) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_TYPES = {"file": 0o100000, "folder": 0o040000, "link": 0o120000}


@dataclass(frozen=True)
class Query:
    """All that is given must hold. `glob` and `regex` look at the name, or at the whole path when they have a slash; times are ns
    since 1970, sizes bytes; `folder` is the number of a folder and means everything below it."""

    glob: bytes = b""
    regex: bytes = b""
    ignore_case: bool = False
    least: int | None = None
    most: int | None = None
    since: int | None = None
    until: int | None = None
    kind: str = ""
    owner: int | None = None
    folder: int | None = None


@dataclass(frozen=True, slots=True)
class Match:
    """An entry that was found; `path` begins with a slash."""

    path: bytes
    node: Node
    mode: int
    size: int
    modified: int | None
    owner: int | None
    group: int | None
    flags: int
    problem: str


def _fits(query: Query) -> Callable[[bytes], bool]:
    """Whether a name, or a path, is wanted. UsageError for an expression that is none.

    Patterns are RE2's. A glob fits the whole of it; of a path with or without the slash at its beginning. An expression is searched
    for in it.
    """
    if query.glob and query.regex:
        raise UsageError(
            "a glob and a regular expression at once", query.glob.decode(errors="replace"), "give one of them"
        )
    if not query.glob and not query.regex:
        return lambda text: True
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1  # names are bytes
    options.dot_nl, options.log_errors, options.case_sensitive = True, False, not query.ignore_case
    try:
        wanted = re2.compile(_translated(query.glob) if query.glob else query.regex, options)
    except re2.error as error:
        value = (query.glob or query.regex).decode(errors="replace")
        told = error.args[0] if error.args else b""
        why = told.decode(errors="replace") if isinstance(told, bytes) else str(told)
        raise UsageError("not a pattern", value, f"{why}; quote it from the shell") from None
    if query.glob:
        return lambda text: bool(wanted.match(text) or (text.startswith(b"/") and wanted.match(text, 1)))
    return lambda text: bool(wanted.search(text))


def _translated(glob: bytes) -> bytes:
    """As a shell reads it: `*` and `?` stop at a slash, `**` does not; `[abc]`, `[!abc]`."""
    made = b""
    at = 0
    while at < len(glob):
        c = glob[at : at + 1]
        if glob[at : at + 3] == b"**/":
            made, at = made + rb"(?:.*/)?", at + 3
            continue
        if glob[at : at + 2] == b"**":
            made, at = made + b".*", at + 2
            continue
        end = glob.find(b"]", at + 2) if c == b"[" else -1
        if c == b"[" and end > 0:
            inside = glob[at + 1 : end].replace(b"\\", b"\\\\")
            made += b"[" + (b"^" + inside[1:] if inside[:1] == b"!" else inside.replace(b"^", b"\\^", 1)) + b"]"
            at = end + 1
            continue
        made += {b"*": b"[^/]*", b"?": b"[^/]"}.get(c, re.escape(c))
        at += 1
    return b"(?:" + made + rb")\z"


@contextmanager
def _disk() -> Iterator[None]:
    """What SQLite cannot write or read, as an error of ours."""
    try:
        yield
    except sqlite3.Error as error:
        hint = "free space in the folder for temporary files, or name another one by TMPDIR"
        raise TargetError("the catalogue of a search cannot be kept", str(error), hint) from None


class Catalogue:
    """A context manager. `root` is the number of the volume's root folder."""

    def __init__(self, path: Path, root: int) -> None:
        self.root = root
        self.complete = False
        self._lock = threading.Lock()
        self._folders: dict[int, tuple[int, bytes]] = {}
        self._paths: dict[int, bytes] = {}
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        tables = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if version != VERSION and tables:
            self._db.close()
            raise Unsupported(
                "a catalogue of another version", f"{path}: {version}, not {VERSION}", "delete it; it is made anew"
            )
        self._db.execute("PRAGMA journal_mode = OFF")  # it can be made again at any time
        self._db.execute("PRAGMA synchronous = OFF")
        if not tables:
            self._db.executescript(_SCHEMA)
            self._db.execute(f"PRAGMA user_version = {VERSION}")

    def __enter__(self) -> Catalogue:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._db.close()

    def add(self, folders: int | list[int], table: Table) -> None:
        """Entries of a folder; or of one each."""
        rows = table.columns()
        count = len(table.names)
        known = rows["known"]
        if isinstance(folders, int):
            folders = [folders] * count
        columns: list[list[object]] = [[_sqlite(folder) for folder in folders], list(table.names)]
        columns += [_signed(rows["number"]), rows["generation"].tolist(), rows["mode"].tolist(), _signed(rows["size"])]
        for bit, name in ((3, "modified"), (4, "changed"), (6, "created"), (0, "owner"), (1, "group")):
            values: list[object] = rows[name].tolist()
            if name not in ("owner", "group"):
                values = [_sqlite(value + FIRST_TIME) for value in rows[name].tolist()]
            for k in np.flatnonzero((known >> bit & 1) == 0).tolist():
                values[k] = None
            columns.append(values)
        columns += [rows["flags"].tolist(), [table.problems.get(k, "") for k in range(count)]]
        inside = np.flatnonzero((rows["mode"] & 0o170000) == 0o040000).tolist()
        with self._lock, _disk():
            self._db.execute("BEGIN")
            self._db.executemany(_INSERT, zip(*columns, strict=True))
            self._db.execute("COMMIT")
            for k in inside:
                self._folders.setdefault(int(rows[k]["number"]), (folders[k], table.names[k]))

    def count(self) -> int:
        """Entries so far."""
        with self._lock:
            found: int = self._db.execute("SELECT coalesce(max(id), 0) FROM entry").fetchone()[0]
            return found

    def path(self, folder: int, name: bytes) -> bytes | None:
        """Of an entry; None while a folder above it has not been met."""
        above = self._path_of(folder)
        return None if above is None else above + b"/" + name

    def _path_of(self, folder: int) -> bytes | None:
        """Without a slash at its end; of the last folders that were asked for it is remembered."""
        known = self._paths.get(folder)
        if known is not None:
            return known
        parts: list[bytes] = []
        at = folder
        for _ in range(DEEPEST):
            if at == self.root:
                made = b"".join(b"/" + part for part in reversed(parts))
                if len(self._paths) == PATHS_KEPT:
                    self._paths.clear()
                self._paths[folder] = made
                return made
            above = self._folders.get(at)
            if above is None:
                return None
            at, name = above
            parts.append(name)
        return None  # a circle, or deeper than a walk goes

    def search(self, query: Query, after: int = 0) -> Iterator[tuple[int, Match | None]]:
        """(id, match) of entries behind `after`, in the order in which they were found; None for each that does not match. An entry
        whose folders are not all known yet ends it: ask again from the last id. UsageError, at once, for a pattern that is none."""
        return self._search(query, _fits(query), after)

    def _search(self, query: Query, fits: Callable[[bytes], bool], after: int) -> Iterator[tuple[int, Match | None]]:
        by_path = b"/" in (query.glob or query.regex)
        where, values = _conditions(query)
        sql = f"""SELECT id, folder, name, number, generation, mode, size, modified, owner, "group", flags, problem FROM entry
 WHERE id > ?{where} ORDER BY id LIMIT {BATCH}"""  # noqa: S608 - columns and signs of ours
        while True:
            with self._lock, _disk():
                rows = self._db.execute(sql, (after, *values)).fetchall()
            for (
                identifier,
                folder,
                name,
                number,
                generation,
                mode,
                size,
                modified,
                owner,
                group,
                flags,
                problem,
            ) in rows:
                after = identifier
                if not by_path and not fits(name):
                    yield identifier, None
                    continue
                path = self.path(folder, name)
                if path is None and not self.complete:
                    return
                path = path or b"?/" + name
                if (by_path and not fits(path)) or (query.folder is not None and not self._below(folder, query.folder)):
                    yield identifier, None
                    continue
                node = Node(number & (1 << 64) - 1, generation)
                yield identifier, Match(path, node, mode, size, modified, owner, group, flags, problem)
            if len(rows) < BATCH:
                return

    def _below(self, folder: int, above: int) -> bool:
        for _ in range(DEEPEST):
            if folder == above:
                return True
            if folder not in self._folders:
                return False
            folder = self._folders[folder][0]
        return False


def _conditions(query: Query) -> tuple[str, list[int]]:
    where, values = "", []
    for condition, value in (
        ("size >= ?", query.least),
        ("size <= ?", query.most),
        ("modified >= ?", query.since),
        ("modified <= ?", query.until),
        ("owner = ?", query.owner),
        ("(mode & 61440) = ?", _TYPES[query.kind] if query.kind else None),
    ):
        if value is not None:
            where += f" AND {condition}"
            values.append(value)
    return where, values


def _sqlite(value: int) -> int:
    """SQLite's integers are signed and of 64 bits: a time after 2262 is kept as the last one that there is."""
    return min(value, (1 << 63) - 1)


def _signed(column: np.ndarray) -> list[object]:
    return list(column.astype(np.int64).tolist())
