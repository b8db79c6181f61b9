# SPDX-License-Identifier: Apache-2.0
"""One restore to the original machine: counted first, then carried out in the background, with how far each item is; and the
session's restores, one at a time.

Not here: what stands in the way before anything is written (`flr.restore.preview`), how steps are made (`flr.restore.steps`) and
carried out (`flr.restore.tool`).
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from array import array
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Literal, NamedTuple

from flr.errors import NodeNotFound, RecoveryError
from flr.printable import shown
from flr.recovery.basket import Item
from flr.recovery.life import Life
from flr.recovery.recovery import OpenPoint, Recovery
from flr.recovery.selection import Path, sources
from flr.restore import tool
from flr.restore.preview import Preview
from flr.restore.steps import Entry, Places, Steps, folder_parts, text_of
from flr.restore.target import Found, Order, Rule, Status, Step, Target, rounded
from mover.clock import Clock
from mover.errors import MoverError, UsageError
from mover.progress import Progress, Snapshot

MOST, MOST_PREVIEWS = 20, 4
"""Restores of a session that are remembered."""
MOST_PROBLEMS, MOST_SHOWN = 1000, 200
LOOK_AT_ONCE = 500
STOP_SECONDS = 10.0
"""For which a restore may take to stop at a session's end before its machine is let go of."""
Told = Callable[[Entry, Status, str], None]
"""Of each file, link and folder: how it ended, and its SHA-256 if it was written."""
State = Literal["waiting", "counting", "running", "done", "stopped", "failed"]


class Ledger:
    """Which entries of a selection ended well, by a digest of what they are; retries of a restore share it with the first. 16
    bytes an entry. `left`: whether something did not end well, or may not have. `ours`: folders of the machine that were made."""

    def __init__(self) -> None:
        self._table = array("Q", bytes(8 << 10))
        self._count = 0
        self.left = True
        self.ours: set[Path] = set()

    @staticmethod
    def _digest(entry: Entry) -> int:
        item = entry.item
        key = b"\0".join((item.point.encode(), item.volume.encode(), entry.path, *entry.place))
        return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little") or 1

    def _slot(self, digest: int) -> int:
        """Where it stands, or would."""
        most = len(self._table) - 1
        slot = digest & most
        while self._table[slot] not in (0, digest):
            slot = (slot + 1) & most
        return slot

    def mark(self, entry: Entry) -> None:
        self._add(self._digest(entry))
        if 2 * self._count > len(self._table):
            old, self._table, self._count = self._table, array("Q", bytes(16 * len(self._table))), 0
            for digest in old:
                if digest:
                    self._add(digest)

    def _add(self, digest: int) -> None:
        slot = self._slot(digest)
        if not self._table[slot]:
            self._table[slot] = digest
            self._count += 1

    def has(self, entry: Entry) -> bool:
        return self._count > 0 and bool(self._table[self._slot(self._digest(entry))])


class Wish(NamedTuple):
    """`folder`: of the machine, b"" for where the items were."""

    items: tuple[Item, ...]
    rule: Rule
    folder: bytes = b""
    privileges: bool = False


class Tally:
    """Of one item: entries that ended, by how; bytes of files; `over` when nothing more of it comes."""

    def __init__(self) -> None:
        self.counts = {"done": 0, "warning": 0, "skipped": 0, "failed": 0}
        self.entries = self.bytes = self.sent = self.unread = 0
        self.begun = self.over = False

    @property
    def ended(self) -> int:
        return sum(self.counts.values()) - self.unread


class _Known(NamedTuple):
    """An entry that was sent and did not end yet."""

    entry: Entry
    item: int
    digest: str


class Restoration:
    """`told` is called with how each entry ended, from any thread. Everything else may be read at any time. `after`: the one that
    this one does again what is left of."""

    def __init__(
        self,
        recovery: Recovery,
        target: Target,
        wish: Wish,
        clock: Clock,
        told: Told,
        over: Callable[[Restoration], None],
        after: Restoration | None = None,
        old: tuple[str, ...] = (),
    ) -> None:
        self.id = secrets.token_hex(4)
        self.wish = wish
        self.began = clock.wall()
        self.ended_at: float | None = None
        self.state: State = "waiting"
        self.error: MoverError | None = None
        self.problems: list[str] = []
        self.problem_count = 0
        self.ledger: Ledger = after.ledger if after is not None else Ledger()
        self.renamed: dict[Path, bytes] = dict(after.renamed) if after is not None else {}
        self.stop = threading.Event()
        self.over = threading.Event()
        self._old = old
        self._recovery = recovery
        self._target = target
        self._told = told
        self._at_end = over
        self._clock = clock
        self._lock = threading.Lock()
        self._progress = Progress(clock)
        self._known: dict[int, _Known] = {}
        self._bad: set[int] = set()
        self._finished = 0
        whole = {id(item) for source in sources(wish.items) for _, item in source.items}
        self.items = [item for item in wish.items if id(item) in whole]
        self.within = [(item, self._outer(item)) for item in wish.items if id(item) not in whole]
        self.tallies = [Tally() for _ in self.items]
        self._index = {id(item): index for index, item in enumerate(self.items)}
        self._places = Places(recovery, folder_parts(wish.folder) if wish.folder else None)
        self._places.check(self.items)

    def _outer(self, item: Item) -> int:
        """The item that this one stands within, or is."""
        return next(
            index
            for index, outer in enumerate(self.items)
            if (outer.point, outer.volume) == (item.point, item.volume)
            and (outer.path == item.path or item.path.startswith(outer.path.rstrip(b"/") + b"/"))
        )

    # -- for whoever looks

    @property
    def suffix(self) -> str:
        return datetime.fromtimestamp(self.began, UTC).strftime("_RESTORED_%Y%m%d_%H%M%S")

    @property
    def retries(self) -> bool:
        """Whether it can be gone on with: it is over, and something of it did not end well."""
        return self.over.is_set() and self.ledger.left

    @property
    def counts(self) -> dict[str, int]:
        """Entries that ended, by how."""
        return {
            word: sum(tally.counts[word] for tally in self.tallies) for word in ("done", "warning", "skipped", "failed")
        }

    def snapshot(self) -> Snapshot:
        with self._lock:
            return self._progress.snapshot()

    # -- the work

    def run(self, life: Life) -> None:
        """Until it is over. Nothing is raised: `state` and `error` tell."""
        try:
            with life.transfer():
                self.state = "counting"
                self._count(life)
                self.state = "running"
                order = Order(self.id, self.wish.rule, self.suffix, self.wish.privileges, self._old)
                with closing(self._steps(life)) as steps:  # an error keeps them, and they keep a point open
                    self._target.run(order, steps, self._ended)
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
                self._note(known, Status(0, "failed", "it is not known whether it was written"))
            self.ledger.left = self.state != "done" or any(tally.counts["failed"] for tally in self.tallies)
            try:
                self._at_end(self)
            except Exception as error:
                self._lost_record(error)
            finally:
                self.over.set()

    def _stopped(self, life: Life) -> bool:
        return self.stop.is_set() or life.ended.is_set()

    def _entries(
        self, problem: Callable[[Item, bytes, str], None], begun: Callable[[Item], None]
    ) -> Generator[tuple[OpenPoint, Entry], None, None]:
        """Those that are wanted."""
        with closing(self._places.entries(self.items, problem, begun)) as every:
            for opened, entry in every:
                if entry.place and not self.ledger.has(entry):  # without a place it is the machine's root
                    yield opened, entry

    def _count(self, life: Life) -> None:
        total = 0
        with closing(self._entries(lambda item, path, text: None, lambda item: None)) as entries:
            for _, entry in entries:
                if self._stopped(life):
                    return
                tally = self.tallies[self._index[id(entry.item)]]
                tally.entries += 1
                if entry.kind == "file":
                    tally.bytes += entry.found.size
                    total += entry.found.size
        self._progress.stage("restore", total)

    def _steps(self, life: Life) -> Generator[Step, None, None]:
        steps = Steps(self._bad.__contains__, self.renamed, self.ledger.ours)
        order: list[int] = []  # of items, as their entries begin to come: perhaps long before they are looked at

        def problem(item: Item, path: bytes, text: str) -> None:
            tally = self.tallies[self._index[id(item)]]
            with self._lock:
                tally.counts["failed"] += 1
                tally.unread += 1
                self._problem(shown(path), text)

        def begins(index: int) -> None:
            for other in order[: order.index(index)]:
                self.tallies[other].over = True
            self.tallies[index].begun = True

        with ExitStack() as stack:
            entries = self._entries(problem, lambda item: order.append(self._index[id(item)]))
            stack.enter_context(closing(entries))
            if self.wish.rule in ("skip", "newer"):
                entries = stack.enter_context(closing(self._worth_sending(entries, life)))
            for opened, entry in entries:
                if self._stopped(life):
                    return
                begins(self._index[id(entry.item)])
                yield from self._of(steps, opened, entry, life)
                self._pass(entry)
        if not self._stopped(life):
            for tally in self.tallies:
                tally.over = True

    def _of(self, steps: Steps, opened: OpenPoint, entry: Entry, life: Life) -> Iterator[Step]:
        """Of one entry."""
        index = self._index[id(entry.item)]
        number = steps.number()
        with self._lock:
            self._known[number] = _Known(entry, index, "")

        def sent(at: int) -> None:
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
            self._ended(Status(number, "skipped" if entry.kind == "other" else "failed", text))

    def _pass(self, entry: Entry) -> None:
        """Its bytes are behind us, whether they were sent or not."""
        if entry.kind == "file":
            with self._lock:
                self._finished += entry.found.size
                self._progress.update(self._finished)

    def _worth_sending(
        self, entries: Iterator[tuple[OpenPoint, Entry]], life: Life
    ) -> Generator[tuple[OpenPoint, Entry], None, None]:
        """Without files that would be skipped: their content need not be read. Whoever writes looks again."""
        while some := [entry for _, entry in islice(entries, LOOK_AT_ONCE)]:
            if self._stopped(life):
                return
            found, _ = self._target.look("/", [text_of(entry.target) for entry in some])
            with ExitStack() as stack:  # the walk may be at another point already
                points: dict[str, OpenPoint] = {}
                for entry, there in zip(some, found, strict=True):
                    if self._skips(entry, there):
                        text = (
                            "what stands there is not older" if self.wish.rule == "newer" else "something stands there"
                        )
                        self._note(_Known(entry, self._index[id(entry.item)], ""), Status(0, "skipped", text))
                        self._pass(entry)
                        continue
                    point = entry.item.point
                    if point not in points:
                        points[point] = stack.enter_context(self._recovery.using(point))
                    yield points[point], entry

    def _skips(self, entry: Entry, there: Found) -> bool:
        if there.kind == "blocked" or entry.kind not in ("file", "link"):
            return False
        modified = rounded(entry.found.modified, self._target.resolution)
        return bool(tool.decide(self.wish.rule, entry.kind, modified, there.kind, there.modified) == "skip")

    def _ended(self, status: Status) -> None:
        with self._lock:
            if status.state == "made":
                begun = self._known.get(status.number)
                if begun is not None:
                    self._made(begun.entry, status)
                return
            known = self._known.pop(status.number, None)
            if status.state == "failed":
                self._bad.add(status.number)
        if known is not None:
            self._note(known, status)

    def _made(self, entry: Entry, status: Status) -> None:
        self.ledger.ours.add(entry.place)
        if status.name:
            self.renamed[entry.place] = tool.raw(status.name)

    def _lost_record(self, error: Exception) -> None:
        """The session's log cannot be written: what is restored stays so."""
        with self._lock:
            self._problem("session log", getattr(error, "strerror", None) or type(error).__name__)

    def _note(self, known: _Known, status: Status) -> None:
        entry = known.entry
        with self._lock:
            tally = self.tallies[known.item]
            tally.counts[status.state] += 1
            if entry.kind == "file" and status.state in ("done", "warning"):
                tally.sent += entry.found.size
            if status.state != "failed":
                self.ledger.mark(entry)
            if status.state in ("failed", "warning") or (status.state == "skipped" and entry.kind == "other"):
                self._problem(shown(entry.target), status.text)
        try:
            self._told(entry, status, known.digest if status.state in ("done", "warning") else "")
        except Exception as error:
            self._lost_record(error)

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
        self._previews: list[Preview] = []

    def look(self, items: Sequence[Item], folder: bytes) -> Preview:
        """What a restore would meet. The newest MOST_PREVIEWS go on: each person has one. UsageError."""
        made = Preview(self._recovery, self.target, items, folder, self._life)
        with self._lock:
            self._previews.append(made)
            for old in self._previews[:-MOST_PREVIEWS]:
                old.stop.set()
            self._previews = [old for old in self._previews if not old.stop.is_set() or not old.over.is_set()]
        return made

    def preview(self, identifier: str) -> Preview:
        with self._lock:
            for made in self._previews:
                if made.id == identifier and not made.stop.is_set():
                    return made
        raise NodeNotFound("no such preview", shown(identifier.encode()[:100]), "open the dialog again")

    def start(
        self, wish: Wish, told: Told, over: Callable[[Restoration], None] = lambda made: None, after: str = ""
    ) -> Restoration:
        """UsageError for what cannot be, or while another one runs. `after`: the id of the one that is gone on with, whose wish
        counts; `over` is called at the end."""
        earlier = self.get(after) if after else None
        if earlier is not None:
            if not earlier.retries:
                raise UsageError(
                    "there is nothing to do again", earlier.id, "all of it was restored, or it is still running"
                )
            wish = earlier.wish
        if not wish.items:
            raise UsageError("nothing was chosen", "", "put files or folders on the restore list first")
        state = self.target.state()
        if not state.ready:
            raise UsageError("the machine cannot be written to yet", state.text, "the restore list says when it can")
        with self._lock:
            if any(not made.over.is_set() for made, _ in self._made):
                raise UsageError("another restore is running", "", "wait for its end, or stop it")
            old = tuple(made.id for made, _ in self._made if made.state in ("failed", "stopped"))
            made = Restoration(self._recovery, self.target, wish, self._clock, told, over, earlier, old)
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
        """What runs is stopped: the file that is being written goes, what is written stays. A machine that does not answer is not
        waited for."""
        with self._lock:
            threads = [thread for _, thread in self._made]
            previews = list(self._previews)
        for stop in [made.stop for made in self.all()] + [preview.stop for preview in previews]:
            stop.set()
        for thread in threads:
            thread.join(STOP_SECONDS)
        self.target.close()
        for thread in threads:
            thread.join()
        for preview in previews:
            preview.over.wait()


def document(made: Restoration) -> dict[str, Any]:
    """As a page shows it."""
    snapshot = made.snapshot()
    items = [_item(made, item, made.tallies[index]) for index, item in enumerate(made.items[:MOST_SHOWN])]
    items += [_item(made, item, made.tallies[outer]) for item, outer in made.within[:MOST_SHOWN]]
    return {
        "id": made.id, "state": made.state, "rule": made.wish.rule, "folder": shown(made.wish.folder),
        "began": made.began, "ended": made.ended_at if made.over.is_set() else None, "counts": made.counts,
        "stopping": made.stop.is_set() and not made.over.is_set(), "entries": sum(tally.entries for tally in made.tallies),
        "done": snapshot.done, "total": snapshot.total, "rate": snapshot.rate, "eta": snapshot.eta,
        "items": items, "item_count": len(made.wish.items), "retry": made.retries,
        "problems": made.problems[:MOST_SHOWN], "problem_count": made.problem_count,
    }  # fmt: skip


def _item(made: Restoration, item: Item, tally: Tally) -> dict[str, Any]:
    counts = tally.counts
    whole = tally.over and tally.ended >= tally.entries
    if not whole:
        state = (
            ("failed" if made.error else "stopped") if made.over.is_set() else "running" if tally.begun else "waiting"
        )
    elif counts["failed"]:
        state = "failed"
    elif counts["warning"]:
        state = "warning"
    else:
        state = "skipped" if counts["skipped"] and not counts["done"] else "done"
    return {
        "id": item.id, "name": shown(item.name or b"/"), "path": shown(item.path), "state": state, "counts": counts,
        "entries": tally.entries, "bytes": tally.bytes, "sent": tally.sent,
    }  # fmt: skip
