# SPDX-License-Identifier: Apache-2.0
"""`backup` of a VM or a disk."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from agent.kinds.work import Work
from agent.protocol import BackupPayload, Disk, PreviousSnapshot, Secret
from mover.backup import Backup, BackupRequest, BackupSettings
from mover.disk.changes import ChangedBlocks, Changes
from mover.disk.source import DiskSource, FileSource
from mover.errors import AccessDenied, StoreError, StoreUnavailable, UsageError

if TYPE_CHECKING:
    from mover.disk.page_source import PageBlobSource


def run(work: Work, payload: BackupPayload) -> None:
    ceiling = work.settings.memory
    if ceiling is not None and payload.memory > ceiling:
        hint = "ask for less, or raise worker.memory in the worker's configuration"
        raise UsageError("a backup asks for more memory than this worker gives", f"{payload.memory} of {ceiling}", hint)
    opened = work.repository(payload.repository)
    sources: list[DiskSource] = []
    blobs: list[PageBlobSource] = []
    changes: dict[str, Changes] = {one.disk: one for one in payload.changes}
    notes: list[str] = []
    try:
        for disk in payload.disks:
            if disk.url is None:
                sources.append(FileSource(disk.path or "", name=disk.name, identity=disk.identity))
                continue
            blob = _source(work, disk, disk.url, len(payload.disks))
            sources.append(blob)
            blobs.append(blob)
            if disk.previous is not None:
                try:
                    changes[blob.identity] = _changes_since(work, blob, disk.previous)
                except (AccessDenied, StoreUnavailable):
                    raise
                except (StoreError, UsageError) as error:
                    notes.append(f"disk {blob.name}: what changed is not known ({error}): everything is read")
        for note in notes:
            work.reporter.progress.note(note)
        request = BackupRequest(
            resource=payload.resource,
            job=work.command.job,
            disks=sources,
            changes=changes,
            document=payload.document,
            flags=payload.flags,
        )
        limits = BackupSettings(
            level=payload.level,
            check=payload.check,
            memory=payload.memory,
            checkpoint_seconds=work.settings.checkpoint_seconds,
        )
        result = Backup(opened.repository, request, limits, work.reporter.progress, work.cancelled).run()
    finally:
        for source in sources:
            source.close()
    outcome = work.outcome
    outcome.point = result.point.rsplit("/", 1)[-1]
    outcome.parent = result.parent.rsplit("/", 1)[-1] if result.parent else None
    outcome.already, outcome.resumed = result.already, result.resumed
    outcome.notes = [*notes, *result.notes]
    outcome.statistics = {name: float(value) for name, value in asdict(result.statistics).items()}
    outcome.statistics["checkpoints"] = float(result.checkpoints)
    if blobs:
        outcome.statistics["source_requests"] = float(sum(one.blob.requests for one in blobs))
    outcome.statistics["size"] = float(sum(source.size for source in sources))


def _source(work: Work, disk: Disk, url: Secret, disks: int) -> PageBlobSource:
    """One of so many `disks`."""
    from mover.disk.page_source import MOST_RANGES, PageBlobSource  # a local disk does not pay for Azure's modules

    named = {"name": disk.name, "identity": disk.identity, "snapshot": disk.snapshot}
    return PageBlobSource(work.page_blob(url), **named, most_ranges=MOST_RANGES // disks)


def _changes_since(work: Work, source: PageBlobSource, previous: PreviousSnapshot) -> ChangedBlocks:
    work.reporter.progress.stage(f"ask what changed of {source.name}", 0)
    return source.changes_since(work.settings.secret(previous.url), previous.snapshot)
