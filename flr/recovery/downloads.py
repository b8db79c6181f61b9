# SPDX-License-Identifier: Apache-2.0
"""What is on its way to somebody's computer, or may be fetched again: a file as it is, or a selection as one archive.

A download is made first and fetched then, by its id, as often and in whichever parts the browser wants, until the session ends or
MOST newer ones were made. Safe for many threads. Not here: HTTP's ranges (`flr.web.download`).
"""

from __future__ import annotations

import hashlib
import stat
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from flr.errors import NodeNotFound, RecoveryError, WrongKind
from flr.printable import shown
from flr.recovery.basket import Item
from flr.recovery.content import file_bytes
from flr.recovery.recovery import Recovery
from flr.recovery.tarball import tar
from flr.recovery.zipball import Zipball
from mover.errors import MoverError, UsageError

MOST = 50
MOST_PROBLEMS = 1000
Form = Literal["file", "zip", "tar"]


class Busy(RecoveryError):
    """Another one first."""

    exit_code = 6


class Download:
    """`streams`: of its bytes that are on their way. `size` in bytes, None where nobody knows it before the end; `etag` names its
    bytes; `sent` counts what went out. `state` is preparing, ready or failed, then with `error`."""

    def __init__(self, recovery: Recovery, form: Form, items: Sequence[Item]) -> None:
        self.form = form
        self.items = list(items)
        self.id = _id(form, self.items)
        self.problems: list[str] = []
        self.problem_count = 0
        self.sent = 0
        self.streams = 0
        self.size: int | None = None
        self.etag = ""
        self.state = "ready"
        self.error: MoverError | None = None
        self._recovery = recovery
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._zip: Zipball | None = None
        first = self.items[0]
        self.name = first.name or first.volume.encode()
        if form == "file":
            if len(self.items) != 1:
                raise UsageError("several files are not one", len(self.items), "download them as a zip or a tar")
            if not stat.S_ISREG(first.found.mode):
                raise WrongKind("not a file", shown(first.path), "download it in a zip or a tar")
            self.size = first.found.size
            self.etag = self.id
        else:
            if len(self.items) > 1:
                self.name = b"recovered"
            self.name += b"." + form.encode()
        if form == "zip":
            self.state = "preparing"
            self._zip = Zipball(recovery, self.items, self._problem)
            threading.Thread(target=self._prepare, args=(self._zip,), name="flr-zip", daemon=True).start()
        else:
            self._ready.set()

    def _prepare(self, made: Zipball) -> None:
        try:
            made.prepare(lambda: not self._stop.is_set())
            self.size, self.etag = made.size, made.etag
            self.state = "ready"
        except MoverError as error:
            self.error, self.state = error, "failed"
        except Exception as error:
            self.error = RecoveryError("a download could not be made ready", type(error).__name__)
            self.state = "failed"
        finally:
            self._ready.set()

    @property
    def files(self) -> int:
        """That are in it, of a zip; as far as they were counted."""
        return self._zip.files if self._zip is not None else 0

    def wait(self, seconds: float) -> None:
        """Until it is ready, or failed, or so long."""
        self._ready.wait(seconds)

    def give_up(self) -> None:
        """What is made ready is not wanted any more."""
        self._stop.set()

    def read(self, start: int, end: int) -> Iterator[bytes]:
        """Bytes of it; of one whose size is not known all of them, whatever is asked for. Why it failed, if it did."""
        if self.error is not None:
            raise self.error
        if self.form == "tar":
            return self._counted(tar(self._recovery, self.items, self._problem))
        if self._zip is not None:
            return self._counted(self._zip.read(start, end))
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


def _id(form: Form, items: Sequence[Item]) -> str:
    """The same for the same selection, in every session: a browser goes on with a download after a session was started anew. It is
    no secret; who signed in may have it."""
    told = [form, *((i.point, i.volume, i.path, i.found.node, i.found.size, i.found.modified) for i in items)]
    return hashlib.sha256(repr(told).encode()).hexdigest()[:32]


class Downloads:
    """Of a session, the newest MOST."""

    def __init__(self, recovery: Recovery) -> None:
        self._recovery = recovery
        self._lock = threading.Lock()
        self._made: OrderedDict[str, Download] = OrderedDict()

    def make(self, form: Form, items: Sequence[Item]) -> Download:
        """The one that there is already for this selection, or a new one. UsageError, WrongKind."""
        if not items:
            raise UsageError("nothing was chosen", "", "choose files or folders first")
        with self._lock:
            known = self._made.get(_id(form, items))
            if known is not None and known.state != "failed":
                self._made.move_to_end(known.id)
                return known
            made = self._made[_id(form, items)] = Download(self._recovery, form, items)
            spare = [self._made.popitem(last=False)[1] for _ in range(len(self._made) - MOST)]
        for old in spare:
            old.give_up()
        return made

    def get(self, identifier: str) -> Download:
        """NodeNotFound."""
        with self._lock:
            found = self._made.get(identifier)
        if found is None:
            hint = "it belongs to a session that has ended, or is too old: make it again, and the browser can go on with it"
            raise NodeNotFound("no such download", "", hint)
        return found

    def all(self) -> list[Download]:
        """The newest first."""
        with self._lock:
            return list(reversed(self._made.values()))

    @contextmanager
    def sending(self, made: Download) -> Iterator[None]:
        """While an archive's bytes are on their way. Busy while those of another one are: each keeps the disks and a core busy,
        and two are not sooner done than one after the other. Of the same one several may be, for a browser that goes on with what
        was cut."""
        if made.form == "file":
            yield
            return
        with self._lock:
            other = next((one for one in self._made.values() if one.streams and one is not made), None)
            if other is not None:
                raise Busy("another archive is on its way", shown(other.name), "this one can be had when that is done")
            made.streams += 1
        try:
            yield
        finally:
            with self._lock:
                made.streams -= 1

    def close(self) -> None:
        for made in self.all():
            made.give_up()
