# SPDX-License-Identifier: Apache-2.0
"""`backup` of a VM or a disk."""

from __future__ import annotations

from dataclasses import asdict

from agent.kinds.work import Work
from agent.protocol import BackupPayload
from mover.backup import Backup, BackupRequest, BackupSettings
from mover.disk.source import FileSource
from mover.errors import UsageError


def run(work: Work, payload: BackupPayload) -> None:
    ceiling = work.settings.memory
    if ceiling is not None and payload.memory > ceiling:
        hint = "ask for less, or raise worker.memory in the worker's configuration"
        raise UsageError("a backup asks for more memory than this worker gives", f"{payload.memory} of {ceiling}", hint)
    opened = work.repository(payload.repository)
    sources: list[FileSource] = []
    try:
        for disk in payload.disks:
            sources.append(FileSource(disk.path, name=disk.name))  # noqa: PERF401 - what is open so far gets closed
        request = BackupRequest(
            resource=payload.resource,
            job=work.command.job,
            disks=sources,
            changes={one.disk: one for one in payload.changes},
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
    outcome.notes = list(result.notes)
    outcome.statistics = {name: float(value) for name, value in asdict(result.statistics).items()}
    outcome.statistics["checkpoints"] = float(result.checkpoints)
    outcome.statistics["size"] = float(sum(source.size for source in sources))
