# SPDX-License-Identifier: Apache-2.0
"""`backup`, `restore` and `run`: a command is built from words or read from a file, and carried out here and now."""

from __future__ import annotations

import argparse
import os
import shlex
from typing import TYPE_CHECKING, Any

from agent import passwords
from agent.figures import parse_size
from agent.verbs import Surroundings, add_json, add_repository
from agent.verbs.target import (
    disks_of,
    fresh_job,
    make_command,
    named_repository,
    parse_flags,
    restore_to,
    settings_for,
)
from mover.errors import UsageError

if TYPE_CHECKING:
    from agent.opening import Opened, Settings
    from agent.protocol import BackupPayload, Command

PRINT_HELP = "do nothing: print the command as JSON, for `run` and `submit`"


def add(verbs: argparse._SubParsersAction[Any]) -> None:
    backup = verbs.add_parser("backup", help="back up a resource's disks into one restore point")
    add_repository(backup)
    backup.add_argument(
        "--resource", metavar="NAME", required=True, help="whose disks these are; points are listed by it"
    )
    backup.add_argument(
        "--disk",
        metavar="[NAME=]PATH",
        required=True,
        action="append",
        help="image, fixed VHD or block device; NAME=@FILE or NAME=env:VARIABLE: where the URL of a page blob is; repeatable",
    )
    blob: dict[str, Any] = {"metavar": "[NAME=]ID", "action": "append", "default": []}
    backup.add_argument(
        "--previous-snapshot",
        metavar="[NAME=]@FILE",
        action="append",
        default=[],
        help="where the URL of the snapshot is that the last point was made from: what changed since is asked of Azure",
    )
    backup.add_argument("--disk-identity", **blob, help="which disk it is, whatever it is called")
    backup.add_argument("--snapshot-id", **blob, help="which state of a page blob this is")
    backup.add_argument("--previous-snapshot-id", **blob, help="which state that snapshot is")
    backup.add_argument("--changes", metavar="FILE", help="change maps: what changed since the last point")
    backup.add_argument("--config-document", metavar="FILE", help="the resource's configuration, kept with the point")
    backup.add_argument(
        "--job", metavar="ID", help="the same job again resumes it; default: an open one, else a new one"
    )
    backup.add_argument("--flags", metavar="D,W,M,Y", default="", help="the schedules that this point is for")
    backup.add_argument("--level", metavar="N", type=int, default=1, help="zstd's, 1 to 19 (default 1)")
    backup.add_argument("--no-check", action="store_true", help="do not decode each block again before it is stored")
    backup.add_argument("--memory", metavar="SIZE", default="1GiB", help="all that a backup may hold (default 1GiB)")
    backup.add_argument("--print-command", action="store_true", help=PRINT_HELP)
    add_json(backup)
    backup.set_defaults(run=run_backup)

    restore = verbs.add_parser("restore", help="write a disk of a restore point to a file, a device or a page blob")
    add_repository(restore)
    restore.add_argument("--point", metavar="ID", required=True, help="its id or the beginning of it, see `points`")
    which = restore.add_mutually_exclusive_group()
    which.add_argument("--disk", metavar="N", type=int, default=0, help="which of its disks (default 0)")
    which.add_argument("--all-disks", action="store_true", help="every disk, each under its name in the folder PATH")
    restore.add_argument(
        "--to",
        metavar="PATH",
        required=True,
        action="append",
        help="a new file, or a block device; or a folder; @FILE or env:VARIABLE: where the URL of a page blob or of a managed "
        "disk's upload is, with --all-disks DISK=@FILE for each",
    )
    restore.add_argument("--in-place", action="store_true", help="write over what is there, only where it differs")
    restore.add_argument("--dry-run", action="store_true", help="write nothing: say how much it would be, and how long")
    restore.add_argument("--verify", action="store_true", help="read everything back and compare")
    restore.add_argument("--format", metavar="F", default="raw", help="raw (default) or vhd")
    restore.add_argument("--document", metavar="FILE", help="write the point's configuration document there")
    restore.add_argument("--print-command", action="store_true", help=PRINT_HELP)
    add_json(restore)
    restore.set_defaults(run=run_restore)

    run = verbs.add_parser("run", help="carry out a command from a file, without a queue or a daemon")
    run.add_argument("command", metavar="COMMAND.json", help="'-' reads it from standard input")
    add_json(run)
    run.set_defaults(run=run_command)


def run_backup(arguments: argparse.Namespace, around: Surroundings) -> int:
    from agent.opening import open_repository, reference
    from agent.protocol import BackupPayload
    from mover.disk.changes import read_changes

    url, environ = named_repository(arguments.repository, around.environ)
    if arguments.print_command and arguments.password_fd is not None:
        hint = "name a file, or a variable of the worker's environment"
        raise UsageError("a command for others cannot name a descriptor of this process", "--password-fd", hint)
    place = passwords.reference(arguments.password_file, arguments.password_fd, environ)
    disks = disks_of(
        arguments.disk,
        arguments.previous_snapshot,
        arguments.disk_identity,
        arguments.snapshot_id,
        arguments.previous_snapshot_id,
    )
    if not 1 <= arguments.level <= 19:
        raise UsageError("not a level", arguments.level, "zstd's levels here are 1 to 19")
    if not arguments.resource.strip():
        raise UsageError("an empty name of a resource", repr(arguments.resource))
    payload = BackupPayload(
        what="disk" if len(disks) == 1 else "vm",
        repository=reference(url, place),
        resource=arguments.resource,
        disks=disks,
        changes=tuple(read_changes(arguments.changes).values()) if arguments.changes is not None else (),
        document=_read_document(arguments.config_document),
        flags=parse_flags(arguments.flags),
        level=arguments.level,
        check=not arguments.no_check,
        memory=parse_size(arguments.memory),
    )
    if arguments.print_command:
        return _print(make_command("backup", arguments.job or fresh_job(), payload, around.clock), around)
    settings = settings_for(around, environ)
    job, opened = arguments.job, None
    if job is None:
        opened = open_repository(payload.repository, settings)
        try:
            job = _open_job(opened, payload, around) or fresh_job()
        except BaseException:
            opened.repository.store.close()
            raise
    command = make_command("backup", job, payload, around.clock)
    return _carry_out(command, settings, around, opened, f"the same command again, or with --job {shlex.quote(job)}")


def _open_job(opened: Opened, payload: BackupPayload, around: Surroundings) -> str | None:
    """The job that a crash left open, if nobody is at it."""
    from agent.resume import find_open_job

    names = [disk.name or os.path.basename(disk.path or "") for disk in payload.disks]
    found = find_open_job(opened.repository, payload.resource, names, payload.flags)
    if found is None:
        return None
    if found.held:
        around.console.say(
            f"job {found.job} of {payload.resource} is open and a worker has it, or had it until a minute ago: "
            "this is a new job"
        )
        return None
    around.console.say(f"going on with job {found.job} of {payload.resource}, which was left open")
    return found.job


def _read_document(path: str | None) -> bytes | None:
    from mover.backup import MAX_DOCUMENT

    if path is None:
        return None
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_DOCUMENT + 1)
    except OSError as error:
        value = f"{path}: {os.strerror(error.errno or 0)}"
        raise UsageError(
            "the configuration document cannot be read", value, "check the path and your rights to it"
        ) from None
    if len(data) > MAX_DOCUMENT:
        raise UsageError("the configuration document is too large", path, f"at most {MAX_DOCUMENT} bytes are kept")
    return data


def run_restore(arguments: argparse.Namespace, around: Surroundings) -> int:
    from agent.opening import reference
    from agent.protocol import RestorePayload

    url, environ = named_repository(arguments.repository, around.environ)
    if arguments.print_command and arguments.password_fd is not None:
        hint = "name a file, or a variable of the worker's environment"
        raise UsageError("a command for others cannot name a descriptor of this process", "--password-fd", hint)
    place = passwords.reference(arguments.password_file, arguments.password_fd, environ)
    if arguments.format not in ("raw", "vhd"):
        raise UsageError("not a format", arguments.format, "raw or vhd")
    if arguments.disk < 0:
        raise UsageError(
            "not a disk's number", arguments.disk, "disks are counted from 0; `data-mover points` shows them"
        )
    to, blob, targets = restore_to(arguments.to, arguments.all_disks)
    payload = RestorePayload(
        what="vm" if arguments.all_disks else "disk",
        repository=reference(url, place),
        point=arguments.point,
        disk=arguments.disk,
        to=to,
        url=blob,
        targets=targets,
        in_place=arguments.in_place,
        verify=arguments.verify,
        dry_run=arguments.dry_run,
        format=arguments.format,
        document=os.path.abspath(arguments.document) if arguments.document is not None else None,
    )
    command = make_command("restore", fresh_job(), payload, around.clock)
    if arguments.print_command:
        return _print(command, around)
    return _carry_out(command, settings_for(around, environ), around, None, "the same command again")


def run_command(arguments: argparse.Namespace, around: Surroundings) -> int:
    from datetime import UTC, datetime

    from agent.protocol import check_expiry, decode_command

    command = decode_command(read_command(arguments.command))
    check_expiry(command, datetime.fromtimestamp(around.clock.wall(), UTC))
    again = f"data-mover run {shlex.quote(arguments.command)}"
    return _carry_out(command, settings_for(around, around.environ), around, None, again)


def read_command(path: str) -> bytes:
    """The bytes of a command's file; '-' is standard input."""
    from agent.protocol import MAX_BYTES

    try:
        with open(0 if path == "-" else path, "rb", closefd=path != "-") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        hint = "check the path and your rights to it"
        raise UsageError("the command cannot be read", f"{path}: {os.strerror(error.errno or 0)}", hint) from None


def _print(command: Command, around: Surroundings) -> int:
    around.console.document(command)
    return 0


def _carry_out(command: Command, settings: Settings, around: Surroundings, opened: Opened | None, resume: str) -> int:
    from agent.execute import execute

    result = execute(command, settings, around.console.event, around.cancel.is_set, opened=opened)
    return around.console.result(result, resume)
