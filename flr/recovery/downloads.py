# SPDX-License-Identifier: Apache-2.0
"""What is on its way to somebody's computer, or may be fetched again: a file as it is, or a selection as one archive.

A download is made first and fetched then, by an id that cannot be guessed, as often and in whichever parts the browser wants, until
the session ends or MOST newer ones were made. Safe for many threads. Not here: HTTP's ranges (`flr.web.download`).
"""

from __future__ import annotations

import hashlib
import secrets
import stat
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Literal

from flr.errors import NodeNotFound, WrongKind
from flr.printable import shown
from flr.recovery.basket import Item
from flr.recovery.content import file_bytes
from flr.recovery.recovery import Recovery
from flr.recovery.tarball import tar
from mover.errors import UsageError

MOST = 50
MOST_PROBLEMS = 1000
Form = Literal["file", "tar"]


class Download:
    """`size` in bytes, None where nobody knows it before the end; `etag` names its bytes; `sent` counts what went out."""

    def __init__(self, recovery: Recovery, form: Form, items: Sequence[Item]) -> None:
        self.id = secrets.token_urlsafe(16)
        self.form = form
        self.items = list(items)
        self.problems: list[str] = []
        self.problem_count = 0
        self.sent = 0
        self._recovery = recovery
        self._lock = threading.Lock()
        first = self.items[0]
        self.name = first.name or first.volume.encode()
        self.size: int | None = None
        if form == "file":
            if len(self.items) != 1:
                raise UsageError("several files are not one", len(self.items), "download them as a zip or a tar")
            if not stat.S_ISREG(first.found.mode):
                raise WrongKind("not a file", shown(first.path), "download it in a zip or a tar")
            self.size = first.found.size
        else:
            if len(self.items) > 1:
                self.name = b"recovered"
            self.name += b"." + form.encode()
        told = f"{first.point} {first.volume} {first.found.node} {first.found.size} {first.found.modified}"
        self.etag = hashlib.sha256(told.encode()).hexdigest()[:32] if form == "file" else ""

    def read(self, start: int, end: int) -> Iterator[bytes]:
        """Bytes of it; of one whose size is not known all of them, whatever is asked for."""
        if self.form == "tar":
            return self._counted(tar(self._recovery, self.items, self._problem))
        return self._counted(self._file(start, end))

    def _file(self, start: int, end: int) -> Iterator[bytes]:
        item = self.items[0]
        with self._recovery.using(item.point) as opened:
            yield from file_bytes(opened.session, item.volume, item.found.node, item.found.size, start, end)

    def _counted(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            yield piece
            with self._lock:
                self.sent += len(piece)

    def _problem(self, path: str, text: str) -> None:
        with self._lock:
            self.problem_count += 1
            if len(self.problems) < MOST_PROBLEMS:
                self.problems.append(f"{path}: {text}")


class Downloads:
    def __init__(self, recovery: Recovery) -> None:
        self._recovery = recovery
        self._lock = threading.Lock()
        self._made: OrderedDict[str, Download] = OrderedDict()

    def make(self, form: Form, items: Sequence[Item]) -> Download:
        """UsageError, WrongKind."""
        if not items:
            raise UsageError("nothing was chosen", "", "choose files or folders first")
        made = Download(self._recovery, form, items)
        with self._lock:
            self._made[made.id] = made
            while len(self._made) > MOST:
                self._made.popitem(last=False)
        return made

    def get(self, identifier: str) -> Download:
        """NodeNotFound."""
        with self._lock:
            found = self._made.get(identifier)
        if found is None:
            raise NodeNotFound(
                "no such download", "", "it belongs to a session that has ended, or is too old: make it again"
            )
        return found

    def all(self) -> list[Download]:
        with self._lock:
            return list(self._made.values())
