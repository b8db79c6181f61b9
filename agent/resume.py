# SPDX-License-Identifier: Apache-2.0
"""The session that a crash or a Ctrl-C left open, found again, so that asking for the same backup goes on with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mover.errors import Damaged, ObjectNotFound, UnsupportedFormat
from mover.repository import record
from mover.repository.repository import Repository


@dataclass(frozen=True, slots=True)
class OpenJob:
    """`held`: a worker holds it, or did until less than a minute ago."""

    job: str
    point: str
    held: bool


def find_open_job(repository: Repository, resource: str, disks: Sequence[str], flags: str) -> OpenJob | None:
    """The resource's newest open session of the same disks (by name) and flags.

    One that is older than the newest committed point is passed over: gone on with it would put newer bytes into an older
    place of the resource's history.
    """
    entries = list(repository.point_entries(resource))
    committed = [_sequence(entry.metadata) for entry in entries if entry.metadata.get("state") == record.COMMITTED]
    newest = max(committed, default=-1)
    found: list[tuple[int, OpenJob]] = []
    for entry in entries:
        if entry.metadata.get("state") != record.OPEN or _sequence(entry.metadata) <= newest:
            continue
        try:
            read = repository.store.read_record(entry.name)
            header, body = record.decode(read.data, entry.name, repository.keys)
        except (Damaged, UnsupportedFormat, ObjectNotFound):
            continue  # nothing to go on with: the backup is a new job
        if header.state == record.OPEN and header.flags == flags and [disk.name for disk in body.disks] == list(disks):
            point = entry.name.rsplit("/", 1)[-1]
            found.append((header.sequence, OpenJob(body.job, point, read.leased)))
    return max(found, key=lambda pair: pair[0])[1] if found else None


def _sequence(metadata: Mapping[str, str]) -> int:
    """As the listing shows it; 0 when damage made it unreadable."""
    text = metadata.get("sequence", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0
