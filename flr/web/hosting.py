# SPDX-License-Identifier: Apache-2.0
"""One recovery browser from its certificate to its end: as a worker hosts it, and as `data-mover flr` does for one person."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from flr.recovery.audit import Audit, Record
from flr.recovery.desk import Desk
from flr.recovery.life import IDLE_SECONDS, LIMIT_SECONDS, Life
from flr.recovery.points import Points
from flr.restore.target import Target
from flr.web.access import Access
from flr.web.app import application
from flr.web.certificate import make, own_names
from flr.web.server import Server
from mover.clock import SYSTEM, Clock

EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - said by whoever wants it
CANCEL_SECONDS = 0.5
"""Between two looks whether it shall end."""


class Browser:
    """A context manager: it listens, and what is looked into is open, from the beginning of the block on. `names`: under which
    people reach it beside what this machine calls itself; the first is the link's. `log`: a file for the record of who did what;
    `target`: the way to the original machine, closed with this; `reason`: why
    somebody wanted it, for the record; `tell` is called with each. TargetError for a port or a file that
    cannot be had; what opening the point raises."""

    def __init__(
        self,
        points: Points,
        first: str,
        *,
        names: Sequence[str] = (),
        address: str = EVERYWHERE[0],
        port: int = 0,
        idle: float = IDLE_SECONDS,
        limit: float = LIMIT_SECONDS,
        log: Path | None = None,
        target: Target | None = None,
        reason: str = "",
        tell: Callable[[Record], None] = lambda record: None,
        clock: Clock = SYSTEM,
    ) -> None:
        self._clock = clock
        self.life = Life(clock, idle, limit)
        with ExitStack() as stack:
            audit = Audit(clock, log, tell)
            stack.callback(audit.close)
            self.desk = stack.enter_context(Desk(points, self.life, audit, first=first, clock=clock, target=target))
            self.desk.reason = reason
            if reason:
                audit.add("begin", text=reason)
            with self.desk.recovery.using(first):
                pass  # what cannot be opened is said here and not to somebody's browser
            known = [*names, *([] if address in EVERYWHERE else [address]), *own_names()]
            self.certificate = make(list(dict.fromkeys(known)), datetime.fromtimestamp(clock.wall(), UTC))
            self.access = Access(clock)
            app = application(self.desk, self.access, self.certificate)
            self._server = Server(app, self.certificate, address, port)
            self.port = self._server.port
            self._stack = stack.pop_all()

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def link(self) -> str:
        """A new one, for one person to be used once."""
        name = self.certificate.names[0]
        host = f"[{name}]" if ":" in name else name
        port = "" if self.port == 443 else f":{self.port}"
        return f"https://{host}{port}/#t={self.access.new_token()}"

    def serve(self, ready: Callable[[], None], ended: Callable[[], str]) -> str:
        """Until nobody uses it, its time is over, somebody stops it there, or `ended` says why. Returns why."""

        def look() -> None:
            while not self.life.ended.is_set():
                if why := ended():
                    self.life.end(why)
                self._clock.wait(self.life.ended, CANCEL_SECONDS)

        watches = [threading.Thread(target=run, name="flr-watch", daemon=True) for run in (look, self.life.watch)]
        for watch in watches:
            watch.start()
        try:
            self._server.serve(self.life, ready)
        finally:
            self.life.end("the server ended")
            for watch in watches:
                watch.join()
        return self.life.why
