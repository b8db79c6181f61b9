# SPDX-License-Identifier: Apache-2.0
"""What a restore would meet, before anything is written: how much there is, what stands in its way, and what each rule makes of
it."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Sequence
from itertools import islice
from typing import Any

import msgspec

from flr.errors import RecoveryError
from flr.printable import shown
from flr.recovery.basket import Item
from flr.recovery.life import Life
from flr.recovery.recovery import Recovery
from flr.restore import tool
from flr.restore.steps import Entry, Places, folder_parts, text_of
from flr.restore.target import RULES, Found, Target, rounded
from mover.errors import MoverError, UsageError

AT_ONCE = 1000
MOST_CONFLICTS = 500
CHOICES = ("make", "merge", "beside", "replace", "skip", "refuse")


class Conflict(msgspec.Struct, frozen=True):
    """Something stands where `path` goes. Sizes in bytes, times in seconds since 1970."""

    path: str
    kind: str
    size: int
    modified: float | None
    there: str
    there_size: int
    there_modified: float
    same: bool


class Preview:
    """Made in the background; may be read at any time. `by_rule`: of entries, how many of each of CHOICES."""

    def __init__(self, recovery: Recovery, target: Target, items: Sequence[Item], folder: bytes, life: Life) -> None:
        if not items:
            raise UsageError("nothing was chosen", "", "put files or folders on the restore list first")
        self.state = "running"
        self.error: MoverError | None = None
        self.entries = self.files = self.bytes = 0
        self.free: int | None = None
        self.conflicts: list[Conflict] = []
        self.conflict_count = 0
        self.blocked: dict[str, int] = {}
        self.left_out = 0
        self.unreadable = 0
        self.by_rule = {rule: dict.fromkeys(CHOICES, 0) for rule in RULES}
        self.stop = threading.Event()
        self.over = threading.Event()
        self._items = list(items)
        self._target = target
        self._life = life
        self._base = folder
        self.id = secrets.token_hex(4)
        self._places = Places(recovery, folder_parts(folder) if folder else None)
        self._places.check(self._items)
        threading.Thread(target=self._run, name="flr-preview", daemon=True).start()

    def _run(self) -> None:
        try:
            with self._life.transfer():
                self._look()
            self.state = "stopped" if self.stop.is_set() else "ready"
        except MoverError as error:
            self.error, self.state = error, "failed"
        except Exception as error:
            self.error, self.state = RecoveryError("a defect of this program", type(error).__name__), "failed"
        finally:
            self.over.set()

    def _unread(self, item: Item, path: bytes, text: str) -> None:
        self.unreadable += 1

    def _look(self) -> None:
        entries = self._places.entries(self._items, self._unread, lambda item: None)
        first = True
        while some := [entry for _, entry in islice(entries, AT_ONCE)]:
            if self.stop.is_set() or self._life.ended.is_set():
                return
            found, free = self._target.look(text_of(self._base or b"/"), [text_of(entry.target) for entry in some])
            if first:
                self.free, first = free, False
            for entry, there in zip(some, found, strict=True):
                self._count(entry, there)

    def _count(self, entry: Entry, there: Found) -> None:
        if entry.kind == "other":
            self.left_out += 1
            return
        self.entries += 1
        if entry.kind == "file":
            self.files += 1
            self.bytes += entry.found.size
        if there.kind == "blocked":
            self.blocked[there.why] = self.blocked.get(there.why, 0) + 1
            return
        modified = entry.found.modified
        seen = rounded(modified, self._target.resolution)
        for rule in RULES:
            self.by_rule[rule][tool.decide(rule, entry.kind, seen, there.kind, there.modified)] += 1
        if there.kind and not (entry.kind == "folder" and there.kind == "folder"):
            self.conflict_count += 1
            if len(self.conflicts) < MOST_CONFLICTS:
                same = there.kind == entry.kind == "file" and (there.size, there.modified) == (entry.found.size, seen)
                self.conflicts.append(
                    Conflict(
                        shown(entry.target), entry.kind, entry.found.size, None if modified is None else modified / 1e9,
                        there.kind, there.size, there.modified / 1e9, same,
                    )
                )  # fmt: skip

    def document(self) -> dict[str, Any]:
        return {
            "id": self.id, "state": self.state, "entries": self.entries, "files": self.files, "bytes": self.bytes,
            "free": self.free,
            "conflicts": self.conflicts, "conflict_count": self.conflict_count, "rules": self.by_rule,
            "blocked": [{"why": why, "count": count} for why, count in list(self.blocked.items())[:20]],
            "left_out": self.left_out, "unreadable": self.unreadable,
        }  # fmt: skip
