# SPDX-License-Identifier: Apache-2.0
"""The points that are open, each with its parser; and what was found on them.

A point is opened when something of it is asked for first, and stays open while it is used; of those that nobody uses at the moment
the ones used last stay open, at most MOST_OPEN, because each costs a process and a cache. Safe for many threads.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType

import msgspec

from flr.errors import RecoveryError
from flr.fs.base import Attributes
from flr.recovery.guest import Guest
from flr.recovery.points import PointInfo, Points
from flr.session import Opened, Session
from flr.volumes.find import Entry
from mover.clock import SYSTEM, Clock

MOST_OPEN = 2


class Volume(msgspec.Struct, frozen=True):
    """What was found on the disks, and, if it holds a file system that could be opened, what that is. `why_not` says why not,
    empty when it can be looked into or is there for others' sake."""

    entry: Entry
    opened: Opened | None
    why_not: str
    hint: str
    warnings: list[str]


class OpenPoint:
    """A point that is open. `info` is what its list says of it."""

    def __init__(self, identifier: str, session: Session) -> None:
        self.id = identifier
        self.session = session
        self.users = 0
        self._lock = threading.Lock()
        self._volumes: list[Volume] | None = None
        self._guest: Guest | None = None
        self._news: dict[str, list[str]] = {}

    def volumes(self) -> list[Volume]:
        """All that was found, in the order of the disks; those with a file system are opened, which replays their journals."""
        with self._lock:
            if self._volumes is None:
                self._volumes = [self._volume(entry) for entry in self.session.found()[0]]
            return self._volumes

    def _volume(self, entry: Entry) -> Volume:
        if not entry.opens:
            return Volume(entry, None, entry.why_not, entry.hint, entry.warnings)
        try:
            opened = self.session.open(entry.id)
        except RecoveryError as error:
            return Volume(
                entry, None, f"{error.what}: {error.value}" if error.value else error.what, error.hint, entry.warnings
            )
        return Volume(entry, opened, "", "", entry.warnings + opened.warnings)

    def guest(self) -> Guest:
        """What the disks tell of the machine: names of owners, where it had its volumes."""
        volumes = self.volumes()
        with self._lock:
            if self._guest is None:
                self._guest = Guest.of(self.session, [volume.entry for volume in volumes if volume.opened is not None])
            return self._guest

    def news(self, volume: str) -> list[str]:
        """What the reader found odd since the volume was opened: damage that it read around."""
        fresh = self.session.news(volume)
        with self._lock:
            known = self._news.setdefault(volume, [])
            known += [text for text in fresh if text not in known]
            return list(known)

    def find(self, volume: str, path: bytes) -> Attributes:
        """As `Session.find`, without following a link at the end unless the path ends with a slash."""
        return self.session.find(volume, path, follow=path.endswith(b"/"))


class Recovery:
    """A context manager. `note` is told, once each, which layers of protection a parser runs without."""

    def __init__(self, points: Points, clock: Clock = SYSTEM, note: Callable[[str], None] = lambda text: None) -> None:
        self.points = points
        self.clock = clock
        self._note = note
        self._lock = threading.Lock()
        self._opening: dict[str, threading.Lock] = {}
        self._open: OrderedDict[str, tuple[OpenPoint, ExitStack]] = OrderedDict()
        self._ended = threading.Event()

    def __enter__(self) -> Recovery:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._ended.set()
            left = [self._open.popitem() for _ in range(len(self._open))]
        for _, (_, stack) in left:
            stack.close()

    def all(self) -> list[PointInfo]:
        return self.points.all()

    @contextmanager
    def using(self, identifier: str) -> Iterator[OpenPoint]:
        """The point, open until the end of the block at least. NodeNotFound when there is none; what opening its disks raises."""
        point = self._taken(identifier)
        try:
            yield point
        finally:
            with self._lock:
                point.users -= 1
            self._let_go()

    def _taken(self, identifier: str) -> OpenPoint:
        with self._lock:
            if self._ended.is_set():
                raise RecoveryError("the session has ended", identifier, "start another one")
            opening = self._opening.setdefault(identifier, threading.Lock())
        with opening:  # what opens is waited for, and does not keep the others waiting
            with self._lock:
                known = self._open.get(identifier)
                if known is not None:
                    self._open.move_to_end(identifier)
                    known[0].users += 1
                    return known[0]
            stack = ExitStack()
            try:
                disks = stack.enter_context(self.points.open(identifier))
                session = stack.enter_context(
                    Session(disks, clock=self.clock, note=self._note, of=self.points.resource)
                )
                session.found()
            except BaseException:
                stack.close()
                raise
            point = OpenPoint(identifier, session)
            point.users = 1
            with self._lock:
                ended = self._ended.is_set()
                if not ended:
                    self._open[identifier] = point, stack
            if ended:
                stack.close()
                raise RecoveryError("the session has ended", identifier, "start another one")
            return point

    def _let_go(self) -> None:
        with self._lock:
            idle = [name for name, (point, _) in self._open.items() if not point.users]
            spare = idle[: max(0, len(self._open) - MOST_OPEN)]
            stacks = [self._open.pop(name)[1] for name in spare]
        for stack in stacks:
            stack.close()
