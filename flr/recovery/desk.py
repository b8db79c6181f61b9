# SPDX-License-Identifier: Apache-2.0
"""Everything that one session has: its points, folders that were looked at, searches, the basket, transfers, restores, its life
and its log.

What a web page or a test works with. Not here: HTTP, and who may come in.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import ExitStack
from types import TracebackType

from flr.errors import WrongKind
from flr.printable import shown
from flr.recovery.audit import Audit
from flr.recovery.basket import Basket
from flr.recovery.downloads import Downloads
from flr.recovery.folder import Folder
from flr.recovery.index import Searches
from flr.recovery.inside import Counter
from flr.recovery.life import Life
from flr.recovery.points import Points
from flr.recovery.recovery import Recovery
from flr.restore.restoration import Restorations
from flr.restore.target import Target
from mover.clock import SYSTEM, Clock

FOLDERS_KEPT, ENTRIES_KEPT = 16, 2_000_000
"""Of folders that were looked at, the newest."""
FIRST_LOOK_SECONDS = 1.0
"""A folder that is not whole by then is shown as far as it is."""


class Desk:
    """A context manager; the session's life is its maker's to watch. `target`: the way to the original machine, closed with this;
    None where nobody gave one."""

    def __init__(
        self,
        points: Points,
        life: Life,
        audit: Audit,
        *,
        first: str = "",
        clock: Clock = SYSTEM,
        target: Target | None = None,
    ) -> None:
        self.clock = clock
        self.life = life
        self.audit = audit
        self.first = first
        self.reason = ""
        self.notes: list[str] = []
        self._stack = ExitStack()
        self.recovery = self._stack.enter_context(Recovery(points, clock, self._note))
        self.searches = self._stack.enter_context(Searches(self.recovery))
        self.basket = Basket(self.recovery)
        self.inside = Counter(self.recovery)
        self._stack.callback(self.inside.close)
        self.downloads = Downloads(self.recovery)
        self._stack.callback(self.downloads.close)
        self._restores: Restorations | None = None
        if target is not None:
            self._restores = Restorations(self.recovery, target, life, clock)
            self._stack.callback(self._restores.close)
        self._lock = threading.Lock()
        self._folders: OrderedDict[tuple[str, str, int], Folder] = OrderedDict()

    def __enter__(self) -> Desk:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def restores(self) -> tuple[Restorations | None, str]:
        """What writes to the original machine; or None, and why files only go to the person's own computer."""
        with self.recovery.using(self.first or self.recovery.all()[0].id) as opened:
            if opened.guest().windows:
                return None, "a Windows machine cannot be written to yet: download the files, and copy them there"
        if self._restores is None:
            return None, "this session has no way to the original machine: download the files, and copy them there"
        return self._restores, ""

    def folder(self, point: str, volume: str, path: bytes) -> Folder:
        """What stands at that path, as it was read before or is being read now. NodeNotFound, WrongKind."""
        with self.recovery.using(point) as opened:
            found = opened.session.find(volume, path, follow=True)
            if not found.is_directory:
                raise WrongKind("not a folder", shown(path), "its folder shows it")
            key = point, volume, found.number
            with self._lock:
                folder = self._folders.get(key)
                if folder is None or folder.problem is not None:
                    held = ExitStack()
                    held.enter_context(self.recovery.using(point))
                    folder = self._folders[key] = Folder(opened, volume, found, held.close)
                self._folders.move_to_end(key)
                while len(self._folders) > 1 and (
                    len(self._folders) > FOLDERS_KEPT
                    or sum(kept.weight for kept in self._folders.values()) > ENTRIES_KEPT
                ):
                    self._folders.popitem(last=False)
        folder.wait(FIRST_LOOK_SECONDS)
        return folder
