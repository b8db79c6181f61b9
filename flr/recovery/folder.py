# SPDX-License-Identifier: Apache-2.0
"""A folder as a person looks at it: all its entries in columns, in the order and with the filter that is wanted, a page at a time.

It is read by a thread of its own and can be looked at meanwhile. Safe for many threads. Not here: how a row is worded.
"""

from __future__ import annotations

import re
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

from flr.errors import RecoveryError, TooMuch
from flr.fs.base import Attributes, Entry
from flr.fs.table import ROW, Rows, Table, unpack
from flr.recovery.recovery import OpenPoint

MOST_LISTED = 5_000_000
COLUMNS = ("name", "size", "modified", "type", "owner", "mode")
ORDERS_KEPT = 6
_DIGITS = re.compile(rb"[0-9]+")
Order = NDArray[np.int64]


class Page(msgspec.Struct, frozen=True):
    """`entries` from `offset` on, of `matched` that fit the filter, of `total` in the folder so far; `complete`: that is all."""

    entries: list[Entry]
    offset: int
    matched: int
    total: int
    complete: bool
    problem: RecoveryError | None


class Folder:
    """Of one volume. It begins to read itself when it is made."""

    def __init__(self, point: OpenPoint, volume: str, found: Attributes, done: Callable[[], None]) -> None:
        self.volume = volume
        self.found = found
        self.problem: RecoveryError | None = None
        self._lock = threading.Lock()
        self._news = threading.Condition(self._lock)
        self._complete = False
        self._names: list[bytes] = []
        self._rows: Rows = np.zeros(0, ROW)
        self._parts: list[Rows] = []
        self._problems: dict[int, str] = {}
        self._orders: OrderedDict[tuple[str, bool, bytes, int], Order] = OrderedDict()
        self._thread = threading.Thread(target=self._read, args=(point, done), name="flr-folder", daemon=True)
        self._thread.start()

    def _read(self, point: OpenPoint, done: Callable[[], None]) -> None:
        problem: RecoveryError | None = None
        try:
            for table in point.session.parts(self.volume, self.found.node):
                with self._news:
                    self._add(table)
                    self._news.notify_all()
        except RecoveryError as error:
            problem = error
        except Exception as error:
            problem = RecoveryError("a folder could not be read", getattr(error, "what", type(error).__name__))
        finally:
            with self._news:
                self.problem = problem
                self._complete = True
                self._news.notify_all()
            done()

    def _add(self, table: Table) -> None:
        if len(self._names) + len(table.names) > MOST_LISTED:
            raise TooMuch("a folder has more entries than are listed", f"{MOST_LISTED}")
        base = len(self._names)
        self._names += table.names
        self._parts.append(table.columns())
        self._problems.update({base + k: text for k, text in table.problems.items()})

    @property
    def weight(self) -> int:
        """Entries that it holds."""
        return len(self._names)

    def wait(self, seconds: float) -> None:
        """Until all of it is here, or something of it after that time."""
        with self._news:
            self._news.wait_for(lambda: self._complete, seconds)
            self._news.wait_for(lambda: self._complete or bool(self._names))

    def page(self, sort: str, descending: bool, text: bytes, offset: int, count: int) -> Page:
        """ValueError for a column that cannot be sorted by."""
        with self._lock:
            order = self._order(sort, descending, text)
            entries = self._entries(order[offset : offset + count])
            return Page(entries, offset, len(order), len(self._names), self._complete, self.problem)

    def place(self, sort: str, descending: bool, text: bytes, prefix: bytes, after: int) -> int | None:
        """Of the first entry behind `after` whose name begins so, from the beginning again when there is none; None without any."""
        wanted = _folded(prefix)
        with self._lock:
            order = self._order(sort, descending, text)
            hits = [k for k, number in enumerate(order.tolist()) if _folded(self._names[number]).startswith(wanted)]
            if not hits:
                return None
            return next((k for k in hits if k > after), hits[0])

    def where(self, sort: str, descending: bool, text: bytes, name: bytes) -> int | None:
        """Of the entry of that very name; None when there is none, or the filter leaves it out."""
        with self._lock:
            order = self._order(sort, descending, text)
            return next((k for k, number in enumerate(order.tolist()) if self._names[number] == name), None)

    def _entries(self, numbers: Order) -> list[Entry]:
        names = [self._names[k] for k in numbers.tolist()]
        problems = {k: self._problems[number] for k, number in enumerate(numbers.tolist()) if number in self._problems}
        return unpack(Table(names, self._columns()[numbers].tobytes(), problems, None)).entries

    def _columns(self) -> Rows:
        if self._parts:
            self._rows = np.concatenate([self._rows, *self._parts])
            self._parts.clear()
        return self._rows

    def _order(self, sort: str, descending: bool, text: bytes) -> Order:
        key = sort, descending, text, len(self._names)
        known = self._orders.get(key)
        if known is None:
            known = self._orders[key] = self._sorted(sort, descending, text)
            while len(self._orders) > ORDERS_KEPT:
                self._orders.popitem(last=False)
        else:
            self._orders.move_to_end(key)
        return known

    def _sorted(self, sort: str, descending: bool, text: bytes) -> Order:
        if sort not in COLUMNS:
            raise ValueError(sort)
        rows = self._columns()
        folders = (rows["mode"] & 0o170000) == stat.S_IFDIR
        names = self._by_name()
        if sort == "name":
            values = names
        elif sort == "type":
            values = _ranks([_extension(name) for name in self._names])
        else:
            values = np.minimum(rows[sort].astype(np.uint64), np.uint64(np.iinfo(np.int64).max)).astype(np.int64)
            if sort in ("size", "mode"):
                values = np.where(folders, -1, values) if sort == "size" else values & 0o7777
        order = np.lexsort((names, -values if descending else values, ~folders))
        if text:
            wanted = _folded(text)
            keep = np.fromiter((wanted in _folded(name) for name in self._names), np.bool_, len(self._names))
            order = order[keep[order]]
        return order

    def _by_name(self) -> Order:
        return _ranks([_natural(name) for name in self._names])


def _ranks(keys: list[bytes]) -> Order:
    """Of each its place among the sorted ones; equal ones share it."""
    order = sorted(range(len(keys)), key=keys.__getitem__)
    made = np.zeros(len(keys), np.int64)
    rank = 0
    for at, number in enumerate(order):
        if at and keys[number] != keys[order[at - 1]]:
            rank = at
        made[number] = rank
    return made


def _folded(name: bytes) -> bytes:
    """Without regard to case, of letters beyond ASCII as well."""
    if name.isascii():
        return name.lower()
    return name.decode("utf-8", "surrogateescape").casefold().encode("utf-8", "surrogateescape")


def _natural(name: bytes) -> bytes:
    """So that `file 9` comes before `file 10`."""
    return _DIGITS.sub(lambda digits: b"%03d" % len(digits[0].lstrip(b"0")) + digits[0].lstrip(b"0"), _folded(name))


def _extension(name: bytes) -> bytes:
    base, dot, extension = _folded(name).rpartition(b".")
    return extension if dot and base else b""


def kind_of(mode: int) -> str:
    """folder, file, link, pipe, socket, device or unknown."""
    return _KINDS.get(stat.S_IFMT(mode), "unknown")


_KINDS = {
    stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device", stat.S_IFBLK: "device",
}  # fmt: skip
