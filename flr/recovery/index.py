# SPDX-License-Identifier: Apache-2.0
"""Searches: a catalogue of a volume, or of what is below a folder, that a walk fills; and what was found in it so far.

A catalogue is made when something is first searched there and serves every later search; the newest MOST_INDEXES stay. Searches go
on while the walk does. Safe for many threads.
"""

from __future__ import annotations

import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import msgspec

from flr.catalogue import Catalogue, Match, Query
from flr.errors import NodeNotFound, RecoveryError
from flr.fs.base import Attributes
from flr.printable import shown
from flr.recovery.recovery import Recovery
from flr.walk import everything
from mover.errors import MoverError

MOST_INDEXES, MOST_SEARCHES, MOST_FOUND = 4, 8, 10_000
MOST_PROBLEMS = 100
WAIT_SECONDS = 0.2


class State(msgspec.Struct, frozen=True):
    """Of a search: `found` so far, `seen` entries of those that the walk has come by; `complete` when both are at their end;
    `more` when there are more than are kept."""

    found: int
    seen: int
    complete: bool
    more: bool
    problems: list[str]
    problem_count: int


class Index:
    """The catalogue below a folder, which stands at `prefix`."""

    def __init__(
        self, recovery: Recovery, point: str, volume: str, start: Attributes, prefix: bytes, place: Path
    ) -> None:
        self.point = point
        self.prefix = prefix.rstrip(b"/")
        self.users = 0
        self.problems: list[str] = []
        self.problem_count = 0
        self.trouble: MoverError | None = None
        self.stop = threading.Event()
        self.done = threading.Event()
        self.catalogue = Catalogue(place, start.number)
        self._thread = threading.Thread(
            target=self._fill, args=(recovery, point, volume, start), name="flr-index", daemon=True
        )
        self._thread.start()

    def _fill(self, recovery: Recovery, point: str, volume: str, start: Attributes) -> None:
        try:
            with recovery.using(point) as opened:
                prefix = self.prefix or b"/"
                for folders, table in everything(opened.session, volume, start, prefix, self._problem):
                    self.catalogue.add(folders, table)
                    if self.stop.is_set():
                        return
        except MoverError as error:
            self.trouble = error
        except Exception as error:
            self.trouble = RecoveryError("the walk through the volume broke off", type(error).__name__)
        finally:
            self.catalogue.complete = True
            self.done.set()

    def _problem(self, path: bytes, error: RecoveryError) -> None:
        self.problem_count += 1
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(f"{shown(path)}: {error.what}")

    def close(self) -> None:
        self.stop.set()
        self._thread.join()
        self.catalogue.__exit__(None, None, None)


class Search:
    """One question. It reads the catalogue in a thread of its own until it is stopped or everything was looked at."""

    def __init__(self, index: Index, query: Query, ended: Callable[[], None]) -> None:
        self.point = index.point
        self._index = index
        self._matches: list[Match] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._done = threading.Event()
        self._more = False
        self._trouble: MoverError | None = None
        index.catalogue.search(query)  # a pattern that is none is said to whoever asked
        self._thread = threading.Thread(target=self._run, args=(query, ended), name="flr-search", daemon=True)
        self._thread.start()

    def _run(self, query: Query, ended: Callable[[], None]) -> None:
        after = 0
        try:
            while not self._stop.is_set():
                complete = self._index.done.is_set()
                for number, match in self._index.catalogue.search(query, after):
                    after = number
                    if self._stop.is_set():
                        return
                    if match is not None:
                        if len(self._matches) == MOST_FOUND:
                            self._more = True
                            return
                        with self._lock:
                            self._matches.append(match)
                if complete:
                    return
                self._index.done.wait(WAIT_SECONDS)
        except MoverError as error:
            self._trouble = error
        finally:
            self._done.set()
            ended()

    def results(self, offset: int, count: int, wait: float) -> tuple[list[tuple[bytes, Match]], State]:
        """(path from the volume's root, match) from `offset` on; waits a while for the first or the end."""
        self._done.wait(wait)
        trouble = self._trouble or self._index.trouble
        if trouble is not None:
            raise trouble
        with self._lock:
            matches = self._matches[offset : offset + count]
            state = State(
                len(self._matches),
                self._index.catalogue.count(),
                self._done.is_set(),
                self._more,
                list(self._index.problems),
                self._index.problem_count,
            )
        return [(self._index.prefix + match.path, match) for match in matches], state

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


class Searches:
    """Of a session, by a number. A context manager."""

    def __init__(self, recovery: Recovery) -> None:
        self._recovery = recovery
        self._stack = ExitStack()
        self._place = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="data-mover-")))
        self._lock = threading.Lock()
        self._indexes: OrderedDict[tuple[str, str, int], Index] = OrderedDict()
        self._searches: OrderedDict[int, tuple[Search, Index]] = OrderedDict()
        self._next = 1

    def __enter__(self) -> Searches:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            searches = [search for search, _ in self._searches.values()]
            indexes = list(self._indexes.values())
            self._searches.clear()
            self._indexes.clear()
        for search in searches:
            search.stop()
        for index in indexes:
            index.close()
        self._stack.close()

    def start(self, point: str, volume: str, folder: bytes, query: Query) -> int:
        """Below a folder, the volume's root for all of it. UsageError for a pattern that is none."""
        with self._recovery.using(point) as opened:
            start = opened.session.find(volume, folder, follow=True)
            root = opened.session.open(volume).root.number
        with self._lock:
            index = self._indexes.get((point, volume, root))
            if index is not None and start.number != root:
                query = replace(query, folder=start.number)
            else:
                index = self._indexes.get((point, volume, start.number))
            if index is None or index.trouble is not None:
                place = self._place / f"{self._next}.sqlite"
                index = Index(self._recovery, point, volume, start, folder, place)
                self._indexes[point, volume, start.number] = index
            number = self._next
            self._next += 1
            index.users += 1
            used = index

            def ended() -> None:
                with self._lock:
                    used.users -= 1

            self._searches[number] = Search(index, query, ended), index
            spare = [self._searches.popitem(last=False)[1][0] for _ in range(len(self._searches) - MOST_SEARCHES)]
        for search in spare:
            search.stop()
        self._drop()
        return number

    def _drop(self) -> None:
        with self._lock:
            idle = [key for key, index in self._indexes.items() if not index.users]
            spare = [self._indexes.pop(key) for key in idle[: max(0, len(self._indexes) - MOST_INDEXES)]]
        for index in spare:
            index.close()

    def get(self, number: int) -> Search:
        """NodeNotFound when it was so long ago that it is gone."""
        with self._lock:
            found = self._searches.get(number)
        if found is None:
            raise NodeNotFound("no such search", number, "search again")
        return found[0]

    def stop(self, number: int) -> None:
        self.get(number).stop()
