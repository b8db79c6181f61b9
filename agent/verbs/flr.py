# SPDX-License-Identifier: Apache-2.0
"""`flr`: the recovery browser for one person on one machine, over a restore point or images, until it is stopped or nobody uses it.

The same as a worker hosts for the appliance (`agent.kinds.recovery`); here the link and the certificate's thumbprints are printed.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent import passwords
from agent.verbs import Surroundings, add_json, add_repository, check_text
from agent.verbs.files import disk_source
from agent.verbs.target import named_repository, settings_for
from mover.errors import UsageError

if TYPE_CHECKING:
    from flr.recovery.points import Points
    from flr.restore.target import Target


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
    flr.add_argument(
        "--restore-tool",
        metavar="FOLDER",
        help="files can go back to this machine, or to one that shares the folder: prints what is run there as root; the folder is "
        "made, and deleted at the end",
    )
    flr.add_argument("--sftp", metavar="USER@HOST[:PORT]", help="files can go back to that machine by SSH")
    flr.add_argument("--host-key", metavar="FILE", help="with its public host key, as `ssh-keyscan HOST` prints it")
    flr.add_argument("--ssh-key", metavar="FILE", help="the user's private key, without a passphrase")
    flr.add_argument("--ssh-password-file", metavar="FILE", help="or the user's password")
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
    target = _target(arguments, around)
    with (
        nullcontext() if target is None else closing(target),
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
            target=target,
            clock=around.clock,
        ) as browser,
    ):
        for note in browser.desk.notes:
            console.say(note)

        def ready() -> None:
            link, certificate = browser.link(), browser.certificate
            start = _start_tool(target, arguments.restore_tool)
            if console.json:
                told = {"link": link, "sha256": certificate.sha256, "sha1": certificate.sha1, "port": browser.port}
                console.document(told | ({"restore_tool": start} if start else {}))
            else:
                console.line(f"link    {link}")
                console.line(f"SHA-256 {_grouped(certificate.sha256)}")
                console.line(f"SHA-1   {certificate.sha1}")
                if start:
                    console.line(f"tool    sudo sh {start}")
                    console.say("run that on the machine that files go back to, as root")
                console.say("the link works once; compare the certificate's thumbprint in the browser; Ctrl-C stops it")

        why = browser.serve(ready, lambda: "it was interrupted" if around.cancel.is_set() else "")
        console.say(f"the session has ended: {why}")
    return 0


def _target(arguments: argparse.Namespace, around: Surroundings) -> Target | None:
    """The way back that the options name; None: they name none. UsageError."""
    from agent.protocol import OverSftp, Secret, ThroughFolder
    from agent.restore_target import open_target

    settings = settings_for(around, around.environ)
    named = arguments.host_key, arguments.ssh_key, arguments.ssh_password_file
    if arguments.sftp is None:
        if any(named):
            raise UsageError("SSH without a machine", "", "--sftp USER@HOST names it")
        if arguments.restore_tool is None:
            return None
        folder = os.path.abspath(arguments.restore_tool)
        if os.path.exists(folder):
            raise UsageError(
                "the restore tool's folder is there already", folder, "name one that is not: it is deleted at the end"
            )
        return open_target(ThroughFolder(path=folder), "flr", arguments.limit * 3600, settings)
    if arguments.restore_tool is not None:
        raise UsageError("two ways back", "--restore-tool and --sftp", "give one of them")
    user, _, place = arguments.sftp.rpartition("@")
    host, _, port = place.partition(":") if place.count(":") == 1 else (place, "", "")
    if not user or not host or not (port or "22").isdigit() or arguments.host_key is None:
        raise UsageError(
            "not a machine that can be reached by SSH", arguments.sftp, "--sftp USER@HOST[:PORT] with --host-key FILE"
        )
    if (arguments.ssh_key is None) == (arguments.ssh_password_file is None):
        raise UsageError(
            "an SSH user is known by a key or a password", user, "give one of --ssh-key and --ssh-password-file"
        )

    def secret(path: str | None) -> Secret | None:
        return None if path is None else Secret(file=os.path.abspath(path))

    way = OverSftp(
        host=host,
        port=int(port or "22"),
        user=user,
        host_key=_host_key(arguments.host_key),
        key=secret(arguments.ssh_key),
        password=secret(arguments.ssh_password_file),
    )
    return open_target(way, "flr", arguments.limit * 3600, settings)


def _host_key(path: str) -> str:
    """The first key of a file: a line of known_hosts, of ssh-keyscan, or of a public key's file."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UsageError("the host key cannot be read", f"{path}: {getattr(error, 'strerror', 'not a text')}") from None
    for line in lines:
        words = line.split()
        for k, word in enumerate(words[:-1]):
            if word.startswith(("ssh-", "ecdsa-", "sk-")) and not line.startswith("#"):
                return f"{word} {words[k + 1]}"
    raise UsageError("no host key in the file", path, "`ssh-keyscan HOST` prints it")


def _start_tool(target: Target | None, folder: str | None) -> str:
    """Where the script is that starts the restore tool; "" where there is none."""
    from flr.restore.through_tool import ToolTarget

    if not isinstance(target, ToolTarget) or folder is None:
        return ""
    path = os.path.join(os.path.abspath(folder), "start.sh")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w") as file:
        file.write(target.command(detach=False))
    return path


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
