# SPDX-License-Identifier: Apache-2.0
"""`flr`: the recovery browser for one person on one machine, over a restore point or images, until it is stopped or nobody uses it.

The same as a worker hosts for the appliance (`agent.kinds.recovery`); here the link and the certificate's thumbprints are printed.
"""

from __future__ import annotations

import argparse
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent import passwords
from agent.verbs import Surroundings, add_json, add_repository, check_text
from agent.verbs.files import disk_source
from agent.verbs.target import named_repository, settings_for
from mover.errors import UsageError

if TYPE_CHECKING:
    from flr.recovery.points import Points

WAIT_SECONDS = 0.5


def add(verbs: argparse._SubParsersAction[Any]) -> None:
    flr = verbs.add_parser("flr", help="open a restore point's files in a web browser")
    add_repository(flr)
    flr.add_argument("--point", metavar="ID", help="its id or the beginning of it, see `points`")
    flr.add_argument(
        "--image",
        metavar="PATH",
        action="append",
        default=[],
        help="instead of a point: an image, a VHD or a device; @FILE or env:VARIABLE: where a page blob's URL is; repeatable",
    )
    flr.add_argument("--address", metavar="ADDRESS", default="127.0.0.1", help="what it listens on (default 127.0.0.1)")
    flr.add_argument("--port", metavar="N", type=int, default=0, help="default: a free one")
    flr.add_argument(
        "--name", metavar="NAME", action="append", default=[], help="another name or address that people reach it by"
    )
    flr.add_argument("--idle", metavar="MINUTES", type=float, default=30.0, help="ends when nobody used it so long")
    flr.add_argument("--limit", metavar="HOURS", type=float, default=12.0, help="ends then in any case")
    flr.add_argument("--log", metavar="FILE", help="who did what, a JSON line each, appended to this file")
    add_json(flr)
    flr.set_defaults(run=run, raw=True)


def run(arguments: argparse.Namespace, around: Surroundings) -> int:
    from flr.recovery.audit import Audit
    from flr.recovery.desk import Desk
    from flr.recovery.life import Life
    from flr.web.access import Access
    from flr.web.app import application
    from flr.web.certificate import make, own_names
    from flr.web.server import Server

    if not 0 < arguments.idle <= arguments.limit * 60:
        raise UsageError("not a time that a session can idle", arguments.idle, "minutes, not more than --limit")
    for text in (arguments.repository, arguments.point, arguments.log, *arguments.image, *arguments.name):
        check_text(text or "")
    console = around.console
    with ExitStack() as stack:
        points, first = stack.enter_context(_points(arguments, around))
        life = Life(around.clock, arguments.idle * 60, arguments.limit * 3600)
        audit = Audit(around.clock, Path(arguments.log) if arguments.log else None)
        stack.callback(audit.close)
        desk = stack.enter_context(Desk(points, life, audit, first=first, clock=around.clock))
        with desk.recovery.using(first):
            pass  # what cannot be opened is said here and not to somebody's browser
        for note in desk.notes:
            console.say(note)
        names = [*arguments.name, *own_names()]
        certificate = make(names, datetime.fromtimestamp(around.clock.wall(), UTC))
        access = Access(around.clock)
        server = Server(application(desk, access, certificate), certificate, arguments.address, arguments.port)
        host = (arguments.name or [arguments.address if arguments.address not in ("0.0.0.0", "::") else names[0]])[0]  # noqa: S104
        host = f"[{host}]" if ":" in host else host
        link = f"https://{host}:{server.port}/#t={access.new_token()}"

        def ready() -> None:
            if console.json:
                console.document(
                    {"link": link, "sha256": certificate.sha256, "sha1": certificate.sha1, "port": server.port}
                )
            else:
                console.line(f"link    {link}")
                console.line(f"SHA-256 {_grouped(certificate.sha256)}")
                console.line(f"SHA-1   {certificate.sha1}")
                console.say("the link works once; compare the certificate's thumbprint in the browser; Ctrl-C stops it")

        watches = [
            threading.Thread(target=life.watch, name="flr-life", daemon=True),
            threading.Thread(
                target=_until_cancelled, args=(around, life.ended, life.end), name="flr-stop", daemon=True
            ),
        ]
        for watch in watches:
            watch.start()
        try:
            server.serve(life, ready)
        finally:
            life.end("it was interrupted")
            for watch in watches:
                watch.join()
        console.say(f"the session has ended: {life.why}")
    return 0


def _until_cancelled(around: Surroundings, ended: threading.Event, end: Callable[[str], None]) -> None:
    while not ended.is_set():
        if around.clock.wait(around.cancel, WAIT_SECONDS):
            end("it was interrupted")


def _grouped(text: str) -> str:
    return ":".join(text[k : k + 2] for k in range(0, len(text), 2))


@contextmanager
def _points(arguments: argparse.Namespace, around: Surroundings) -> Iterator[tuple[Points, str]]:
    """What can be looked into, and which point is shown first."""
    from flr.recovery.points import DiskPoints, RepositoryPoints

    if bool(arguments.point) == bool(arguments.image):
        hint = "--point ID looks into a restore point, --image PATH into an image"
        raise UsageError("one restore point, or images: neither or both were named", arguments.point or "", hint)
    if arguments.image:
        name = ", ".join(
            "disk" if text.startswith(("@", "env:")) else os.path.basename(text) for text in arguments.image
        )
        yield DiskPoints(name, None, lambda: [disk_source(text, around) for text in arguments.image]), DiskPoints.ID
        return
    from agent.opening import open_repository, reference

    url, environ = named_repository(arguments.repository, around.environ)
    place = passwords.reference(arguments.password_file, arguments.password_fd, environ)
    with open_repository(reference(url, place), settings_for(around, environ)) as opened:
        point = opened.repository.find_point(arguments.point)
        yield RepositoryPoints(opened.repository, point, around.console.say), point.id
