# SPDX-License-Identifier: Apache-2.0
"""`repo create` and `points`: what an operator asks a repository itself, without a command to a worker."""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from agent import passwords
from agent.figures import format_moment, format_size, moment, parse_moment
from agent.verbs import Surroundings, add_json, add_password, add_repository
from agent.verbs.target import named_repository, settings_for
from mover.errors import Damaged, MoverError, NotARecord, ObjectNotFound, UnsupportedFormat, UsageError

if TYPE_CHECKING:
    from mover.repository.record import Body, Header
    from mover.repository.repository import Repository

READERS = 8


def add(verbs: argparse._SubParsersAction[Any]) -> None:
    repo = verbs.add_parser("repo", help="make a repository")
    actions = repo.add_subparsers(dest="action", metavar="ACTION", required=True)
    create = actions.add_parser("create", help="make a repository in an empty folder or container")
    create.add_argument("url", metavar="URL", nargs="?", help="file:///path or a container's https URL and a folder")
    add_password(create)
    create.add_argument("--hint", metavar="TEXT", default="", help="reminds of the password; readable without it")
    create.add_argument(
        "--tier", metavar="T", default="hot", help="hot (default), cool, archive or inferred; cannot be changed"
    )
    add_json(create)
    create.set_defaults(run=run_create)

    points = verbs.add_parser("points", help="list restore points")
    add_repository(points)
    points.add_argument("--resource", metavar="NAME", help="of this resource only")
    points.add_argument("--since", metavar="TIME", help="made since a date, a time, or so long ago: 12h, 7d, 2w")
    points.add_argument("--flag", metavar="F", help="with this flag: D, W, M or Y")
    points.add_argument("--latest", action="store_true", help="only the newest of each resource")
    points.add_argument("--all", action="store_true", help="sessions that are open or were aborted, too")
    add_json(points)
    points.set_defaults(run=run_points)


def run_create(arguments: argparse.Namespace, around: Surroundings) -> int:
    from agent.opening import VERB_PATIENCE_SECONDS, open_metered
    from mover.repository.repository import Repository

    url, environ = named_repository(arguments.url, around.environ)
    place = passwords.reference(arguments.password_file, arguments.password_fd, around.environ)
    password = passwords.read(place, around.environ) if place is not None else None
    if arguments.hint and password is None:
        raise UsageError("a hint without a password", arguments.hint, "give a password too, or leave the hint away")
    if password is not None and password in arguments.hint:
        raise UsageError(
            "the hint tells the password", "--hint", "the hint is readable by everybody: word it otherwise"
        )
    store, _ = open_metered(url, settings_for(around, environ), VERB_PATIENCE_SECONDS)
    try:
        repository = Repository.create(
            store, password=password, hint=arguments.hint, tier=arguments.tier, clock=around.clock
        )
    finally:
        store.close()
    descriptor = repository.descriptor
    if around.console.json:
        around.console.document(
            {
                "repository": {
                    "id": descriptor.id,
                    "url": url,
                    "encryption": descriptor.method,
                    "hint": descriptor.hint,
                    "tier": descriptor.tier,
                    "created": datetime.fromtimestamp(descriptor.created, UTC),
                }
            }
        )
    else:
        kind = "encrypted" if descriptor.encrypted else "NOT encrypted (no password was given)"
        around.console.line(f"repository {descriptor.id} made: {url}, {kind}, tier {descriptor.tier}")
    return 0


def run_points(arguments: argparse.Namespace, around: Surroundings) -> int:
    now = datetime.fromtimestamp(around.clock.wall(), UTC)
    since = parse_moment(arguments.since, now) if arguments.since is not None else None
    if arguments.flag is not None and arguments.flag.upper() not in ("D", "W", "M", "Y"):
        raise UsageError("not a flag", arguments.flag, "one of D, W, M and Y")
    from agent.opening import open_repository, reference

    url, environ = named_repository(arguments.repository, around.environ)
    place = passwords.reference(arguments.password_file, arguments.password_fd, environ)
    with open_repository(reference(url, place), settings_for(around, environ)) as opened:
        found, damaged = _read(opened.repository, arguments.resource, everything=arguments.all)
    rows = [
        row
        for row in found
        if (since is None or row["time"] >= since)
        and (arguments.flag is None or arguments.flag.upper() in row["flags"])
    ]
    if arguments.latest:
        rows = list({row["resource"]: row for row in rows}.values())
    _show(rows, damaged, around, everything=arguments.all)
    return damaged[0].exit_code if damaged else 0


def _show(rows: list[dict[str, Any]], damaged: list[MoverError], around: Surroundings, *, everything: bool) -> None:
    from agent.protocol import ErrorBody

    bodies = [ErrorBody.of(error) for error in damaged]
    if around.console.json:
        around.console.document({"points": rows, "damaged": bodies})
        return
    columns = ["Point", "Made", "Resource", "Flags", "Disks", "Size", "Stored"]
    if everything:
        columns.append("State")
    if rows:
        around.console.table(
            columns, (_cells(row)[: len(columns)] for row in rows), right=("Size", "Stored"), whole=("Point", "Made")
        )
    else:
        around.console.line("no restore points")
    for body in bodies:
        around.console.error(body)


def _read(
    repository: Repository, resource: str | None, *, everything: bool
) -> tuple[list[dict[str, Any]], list[MoverError]]:
    """The points, oldest first within a resource, and what is wrong with those that cannot be read: one does not hide the rest."""
    from mover.repository import record

    def read(name: str) -> dict[str, Any] | MoverError | None:
        try:
            found = repository.store.read_record(name)
            header, body = record.decode(found.data, name, repository.keys)
        except ObjectNotFound:
            return None  # deleted since it was listed
        except (Damaged, UnsupportedFormat, NotARecord) as error:
            return error
        return _row(header, body, leased=found.leased) if everything or header.state == record.COMMITTED else None

    skipped = () if everything else (record.OPEN, record.ABORTED)
    names = [entry.name for entry in repository.point_entries(resource) if entry.metadata.get("state") not in skipped]
    with ThreadPoolExecutor(READERS) as pool:  # one after the other, a thousand points in Azure take a minute
        found = list(pool.map(read, names))
    rows = [row for row in found if isinstance(row, dict)]
    damaged = [error for error in found if isinstance(error, MoverError)]
    return sorted(rows, key=lambda row: (row["resource"], row["sequence"], row["point"])), damaged


def _row(header: Header, body: Body, *, leased: bool) -> dict[str, Any]:
    names = [disk.name for disk in body.disks]
    return {
        "point": header.name.rsplit("/", 1)[-1],
        "time": moment(header.time),
        "resource": body.resource_name,
        "sequence": header.sequence,
        "flags": header.flags,
        "state": header.state,
        "leased": leased,
        "job": body.job,
        "parent": header.parent.rsplit("/", 1)[-1] if header.parent else None,
        "disks": [
            {"number": number, "name": name, "size": disk.size}
            for number, (name, disk) in enumerate(zip(names, body.disks, strict=True))
        ],
        "documents": sorted(header.documents),
        "statistics": header.statistics,
    }


def _cells(row: dict[str, Any]) -> list[str]:
    figures = row["statistics"]
    state = row["state"]
    if state == "open":
        state = "open, a worker has it" if row["leased"] else f"open, job {row['job']} can be resumed"
    return [
        row["point"][:12],
        format_moment(row["time"]),
        row["resource"],
        row["flags"] or "-",
        ", ".join(f"{disk['number']}: {disk['name']}" for disk in row["disks"]),
        format_size(sum(disk["size"] for disk in row["disks"])),
        format_size(figures["stored"]) if "stored" in figures else "-",
        state,
    ]
