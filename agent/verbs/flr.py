# SPDX-License-Identifier: Apache-2.0
"""`flr`: the recovery browser for one person on one machine, over a restore point or images, until it is stopped or nobody uses it.

The same as a worker hosts for the appliance (`agent.kinds.recovery`); here the link and the certificate's thumbprints are printed.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent import passwords
from agent.verbs import Surroundings, add_json, add_repository, check_text
from agent.verbs.files import disk_source
from agent.verbs.target import named_repository, settings_for
from mover.errors import UsageError

if TYPE_CHECKING:
    from flr.recovery.points import Points


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
    from flr.web.hosting import Browser

    if not 0 < arguments.idle <= arguments.limit * 60:
        raise UsageError("not a time that a session can idle", arguments.idle, "minutes, not more than --limit")
    for text in (arguments.repository, arguments.point, arguments.log, *arguments.image, *arguments.name):
        check_text(text or "")
    console = around.console
    with (
        _points(arguments, around) as (points, first),
        Browser(
            points,
            first,
            names=arguments.name,
            address=arguments.address,
            port=arguments.port,
            idle=arguments.idle * 60,
            limit=arguments.limit * 3600,
            log=Path(arguments.log) if arguments.log else None,
            clock=around.clock,
        ) as browser,
    ):
        for note in browser.desk.notes:
            console.say(note)

        def ready() -> None:
            link, certificate = browser.link(), browser.certificate
            if console.json:
                console.document(
                    {"link": link, "sha256": certificate.sha256, "sha1": certificate.sha1, "port": browser.port}
                )
            else:
                console.line(f"link    {link}")
                console.line(f"SHA-256 {_grouped(certificate.sha256)}")
                console.line(f"SHA-1   {certificate.sha1}")
                console.say("the link works once; compare the certificate's thumbprint in the browser; Ctrl-C stops it")

        why = browser.serve(ready, lambda: "it was interrupted" if around.cancel.is_set() else "")
        console.say(f"the session has ended: {why}")
    return 0


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
