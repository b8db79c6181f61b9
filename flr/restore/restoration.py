# SPDX-License-Identifier: Apache-2.0
"""One restore to the original machine: counted first, then carried out in the background, with how far each item is; and the
session's restores, one at a time.

Not here: what stands in the way before anything is written (`flr.restore.preview`), how steps are made (`flr.restore.steps`) and
carried out (`flr.restore.tool`).
"""

from __future__ import annotations

import secrets
import stat
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Literal, NamedTuple

from flr.errors import NodeNotFound, RecoveryError
from flr.printable import shown
from flr.recovery.basket import Item
from flr.recovery.life import Life
from flr.recovery.recovery import OpenPoint, Recovery
from flr.recovery.selection import Path
from flr.restore import tool
from flr.restore.steps import Entry, Places, Steps, folder_parts, text_of
from flr.restore.target import Order, Rule, Status, Step, Target
from mover.clock import Clock
from mover.errors import MoverError, UsageError
from mover.progress import Progress, Snapshot

MOST = 20
"""Restores of a session that are remembered."""
MOST_PROBLEMS, MOST_FAILED = 1000, 20_000
LOOK_AT_ONCE = 500
Told = Callable[[Entry, Status, str], None]
"""Of each file, link and folder: how it ended, and its SHA-256 if it was written."""
State = Literal["waiting", "counting", "running", "stopping", "done", "stopped", "failed"]


class Wish(NamedTuple):
    """`folder`: of the machine, b"" for where the items were. `only`: entries by their item and path, None for all."""

    items: tuple[Item, ...]
    rule: Rule
    folder: bytes = b""
    privileges: bool = False
    only: frozenset[tuple[int, bytes]] | None = None


class Tally:
    """Of one item: entries that ended, by how; bytes of files; `over` when nothing more of it comes."""

    def __init__(self) -> None:
        self.counts = {"done": 0, "warning": 0, "skipped": 0, "failed": 0}
        self.entries = self.bytes = self.sent = 0
        self.begun = self.over = False

    @property
    def ended(self) -> int:
        return sum(self.counts.values())


class _Known(NamedTuple):
    """An entry that was sent and did not end yet."""

    entry: Entry
    item: int
    digest: str


class Restoration:
    """`told` is called with how each entry ended, from any thread. Everything else may be read at any time."""

    def __init__(
        self,
        recovery: Recovery,
        target: Target,
        wish: Wish,
        clock: Clock,
        told: Told,
        renamed: dict[Path, bytes],
        over: Callable[[Restoration], None],
    ) -> None:
        self.id = secrets.token_hex(4)
        self.wish = wish
        self.began = clock.wall()
        self.ended_at: float | None = None
        self.state: State = "waiting"
        self.error: MoverError | None = None
        self.tallies = [Tally() for _ in wish.items]
        self.problems: list[str] = []
        self.problem_count = 0
        self.failed: set[tuple[int, bytes]] = set()
        self.renamed = dict(renamed)
        self.stop = threading.Event()
        self.over = threading.Event()
        self._recovery = recovery
        self._target = target
        self._told = told
        self._over = over
        self._clock = clock
        self._lock = threading.Lock()
        self._progress = Progress(clock)
        self._known: dict[int, _Known] = {}
        self._bad: set[int] = set()
        self._index = {id(item): index for index, item in enumerate(wish.items)}
        self._finished = 0
        self._places = Places(recovery, folder_parts(wish.folder) if wish.folder else None)
        self._places.check(wish.items)

    # -- for whoever looks

    @property
    def suffix(self) -> str:
        return datetime.fromtimestamp(self.began, UTC).strftime("_RESTORED_%Y%m%d_%H%M%S")

    def snapshot(self) -> Snapshot:
        with self._lock:
            return self._progress.snapshot()

    def retry(self) -> Wish:
        """For what failed and what was not reached. UsageError when there is nothing."""
        with self._lock:
            again = {index for index, tally in enumerate(self.tallies) if not tally.over}
            failed = set(self.failed)
        if self.error is not None or len(failed) >= MOST_FAILED:
            only = None
        else:
            only = frozenset(failed)
        if self.state not in ("done", "stopped", "failed"):
            raise UsageError("the restore is still running", self.id, "wait for its end, or stop it")
        wanted = [
            item
            for index, item in enumerate(self.wish.items)
            if index in again
            or any(number == item.id for number, _ in failed)
            or (only is None and self.error is not None)
        ]
        if not wanted:
            raise UsageError("nothing failed", self.id, "there is nothing to do again")
        if again:
            only = None  # what was not reached has no list: everything of those items, by the same rule
        return self.wish._replace(items=tuple(wanted), only=only)

    # -- the work

    def run(self, life: Life) -> None:
        """Until it is over. Nothing is raised: `state` and `error` tell."""
        try:
            with life.transfer():
                self.state = "counting"
                self._count(life)
                self.state = "running"
                order = Order(self.id, self.wish.rule, self.suffix, self.wish.privileges)
                self._target.run(order, self._steps(life), self._ended)
            self.state = "stopped" if self._stopped(life) else "done"
        except MoverError as error:
            self.error, self.state = error, "failed"
        except Exception as error:  # its message may hold anything
            self.error, self.state = RecoveryError("a defect of this program", type(error).__name__), "failed"
        finally:
            self.ended_at = self._clock.wall()
            with self._lock:
                left, self._known = list(self._known.values()), {}
            for known in left:  # nobody heard how it ended
                self._note(known.item, known.entry, Status(0, "failed", "it is not known whether it was written"), "")
            self._over(self)
            self.over.set()

    def _stopped(self, life: Life) -> bool:
        return self.stop.is_set() or life.ended.is_set()

    def _wanted(self, entry: Entry) -> bool:
        return self.wish.only is None or (entry.item.id, entry.path) in self.wish.only

    def _entries(
        self, problem: Callable[[Item, bytes, str], None], begun: Callable[[Item], None]
    ) -> Iterator[tuple[OpenPoint, Entry]]:
        for opened, entry in self._places.entries(self.wish.items, problem, begun):
            if self._wanted(entry) and entry.place:
                yield opened, entry

    def _count(self, life: Life) -> None:
        total = 0
        for _, entry in self._entries(lambda item, path, text: None, lambda item: None):
            if self._stopped(life):
                return
            tally = self.tallies[self._index[id(entry.item)]]
            tally.entries += 1
            if entry.kind == "file":
                tally.bytes += entry.found.size
                total += entry.found.size
        self._progress.stage("restore", total)

    def _steps(self, life: Life) -> Iterator[Step]:
        steps = Steps(self._bad.__contains__, self.renamed)
        now: int | None = None

        def begun(item: Item) -> None:
            nonlocal now
            if now is not None:
                self.tallies[now].over = True
            now = self._index[id(item)]
            self.tallies[now].begun = True

        def problem(item: Item, path: bytes, text: str) -> None:
            index = self._index[id(item)]
            with self._lock:
                self.tallies[index].counts["failed"] += 1
                self._problem(shown(path), text)

        entries = self._entries(problem, begun)
        if self.wish.rule in ("skip", "newer"):
            entries = self._worth_sending(entries)
        for opened, entry in entries:
            if self._stopped(life):
                return
            index = self._index[id(entry.item)]
            number = steps.number()
            with self._lock:
                self._known[number] = _Known(entry, index, "")

            def sent(at: int, entry: Entry = entry) -> None:
                with self._lock:
                    self._progress.update(self._finished + at)

            try:
                for step in steps.of(opened, entry, number, lambda: self._stopped(life), sent):
                    if step.line[0] == "close":
                        with self._lock:
                            if number in self._known:
                                self._known[number] = _Known(entry, index, steps.digest)
                    yield step
            except RecoveryError as error:
                text = error.what if entry.kind == "other" else f"{error.what}: {error.value}".removesuffix(": ")
                state = "skipped" if entry.kind == "other" else "failed"
                self._ended(Status(number, state, text))
            if entry.kind == "file":
                with self._lock:
                    self._finished += entry.found.size
                    self._progress.update(self._finished)
        if now is not None:
            self.tallies[now].over = True

    def _worth_sending(self, entries: Iterator[tuple[OpenPoint, Entry]]) -> Iterator[tuple[OpenPoint, Entry]]:
        """Without files that would be skipped: their content need not be read. Whoever writes looks again."""
        while some := list(islice(entries, LOOK_AT_ONCE)):
            found, _ = self._target.look("/", [text_of(entry.target) for _, entry in some])
            for (opened, entry), there in zip(some, found, strict=True):
                choice = "make"
                if there.kind != "blocked" and entry.kind in ("file", "link"):
                    choice = tool.decide(
                        self.wish.rule, entry.kind, entry.found.modified or 0, there.kind, there.modified
                    )
                if choice == "skip":
                    text = "what stands there is not older" if self.wish.rule == "newer" else "something stands there"
                    self._note(self._index[id(entry.item)], entry, Status(0, "skipped", text), "")
                    if entry.kind == "file":
                        self._finished += entry.found.size
                    continue
                yield opened, entry

    def _ended(self, status: Status) -> None:
        with self._lock:
            known = self._known.pop(status.number, None)
            if status.state == "failed":
                self._bad.add(status.number)
        if known is not None:
            self._note(known.item, known.entry, status, known.digest)

    def _note(self, index: int, entry: Entry, status: Status, digest: str) -> None:
        with self._lock:
            tally = self.tallies[index]
            tally.counts[status.state] += 1
            if entry.kind == "file" and status.state in ("done", "warning"):
                tally.sent += entry.found.size
            if status.state == "failed" and len(self.failed) < MOST_FAILED:
                self.failed.add((entry.item.id, entry.path))
            if status.state in ("failed", "warning") or (status.state == "skipped" and entry.kind == "other"):
                self._problem(shown(entry.target), status.text)
            if status.name and stat.S_ISDIR(entry.found.mode):
                self.renamed[entry.place] = status.name.encode("utf-8", "surrogateescape")
        self._told(entry, status, digest if status.state in ("done", "warning") else "")

    def _problem(self, path: str, text: str) -> None:
        self.problem_count += 1
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(f"{path}: {text}")


class Restorations:
    """Of a session: one runs at a time, the newest MOST are remembered. Safe for many threads."""

    def __init__(self, recovery: Recovery, target: Target, life: Life, clock: Clock) -> None:
        self.target = target
        self._recovery = recovery
        self._life = life
        self._clock = clock
        self._lock = threading.Lock()
        self._made: list[tuple[Restoration, threading.Thread]] = []

    def start(
        self,
        wish: Wish,
        told: Told,
        renamed: dict[Path, bytes] | None = None,
        over: Callable[[Restoration], None] = lambda made: None,
    ) -> Restoration:
        """`renamed`: folders that an earlier try put beside others; `over` is called at its end. UsageError for what cannot be,
        or while another one runs; TargetGone."""
        if not wish.items:
            raise UsageError("nothing was chosen", "", "put files or folders on the restore list first")
        state = self.target.state()
        if not state.ready:
            raise UsageError("the machine cannot be written to yet", state.text, "the restore list says when it can")
        with self._lock:
            if any(not made.over.is_set() for made, _ in self._made):
                raise UsageError("another restore is running", "", "wait for its end, or stop it")
            made = Restoration(self._recovery, self.target, wish, self._clock, told, renamed or {}, over)
            thread = threading.Thread(target=made.run, args=(self._life,), name="flr-restore", daemon=True)
            self._made = [*self._made, (made, thread)][-MOST:]
        thread.start()
        return made

    def get(self, identifier: str) -> Restoration:
        for made in self.all():
            if made.id == identifier:
                return made
        raise NodeNotFound("no such restore", shown(identifier.encode()[:100]))

    def all(self) -> list[Restoration]:
        """The newest first."""
        with self._lock:
            return [made for made, _ in reversed(self._made)]

    def close(self) -> None:
        """What runs is stopped: the file that is being written goes, what is written stays."""
        with self._lock:
            threads = [thread for _, thread in self._made]
        for made in self.all():
            made.stop.set()
        for thread in threads:
            thread.join()
        self.target.close()


def document(made: Restoration) -> dict[str, Any]:
    """As a page shows it."""
    snapshot = made.snapshot()
    counts = {
        word: sum(tally.counts[word] for tally in made.tallies) for word in ("done", "warning", "skipped", "failed")
    }
    return {
        "id": made.id, "state": made.state, "rule": made.wish.rule, "folder": shown(made.wish.folder),
        "began": made.began, "ended": made.ended_at, "counts": counts,
        "entries": sum(tally.entries for tally in made.tallies),
        "done": snapshot.done, "total": snapshot.total, "rate": snapshot.rate, "eta": snapshot.eta,
        "items": [_item(made, item, tally) for item, tally in zip(made.wish.items[:200], made.tallies, strict=False)],
        "problems": made.problems[:200], "problem_count": made.problem_count,
        "retry": made.over.is_set() and (bool(made.failed) or any(not tally.over for tally in made.tallies)),
        "error": made.error,
    }  # fmt: skip


def _item(made: Restoration, item: Item, tally: Tally) -> dict[str, Any]:
    over = made.over.is_set()
    counts = tally.counts
    if not over and not (tally.over and tally.ended >= tally.entries):
        state = "running" if tally.begun else "waiting"
    elif not tally.over:
        state = "stopped" if made.error is None else "failed"
    elif counts["failed"]:
        state = "failed"
    elif counts["warning"]:
        state = "warning"
    elif counts["skipped"] and not counts["done"]:
        state = "skipped"
    else:
        state = "done"
    return {
        "id": item.id, "name": shown(item.name or b"/"), "path": shown(item.path), "state": state, "counts": counts,
        "entries": tally.entries, "bytes": tally.bytes, "sent": tally.sent,
    }  # fmt: skip
