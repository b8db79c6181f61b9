# SPDX-License-Identifier: Apache-2.0
"""`test-connection`: can this worker reach and open what a later command will name? Nothing is written anywhere."""

from __future__ import annotations

from agent.kinds.work import Work
from agent.protocol import TestConnectionPayload
from mover.disk.source import FileSource
from mover.errors import MoverError, UsageError


def run(work: Work, payload: TestConnectionPayload) -> None:
    """All of it is tried; the first failure is the answer's error, the others are notes."""
    if payload.repository is None and not payload.disks:
        raise UsageError("nothing to test", "", "name a repository, disks, or both")
    failures: list[MoverError] = []
    if payload.repository is not None:
        work.check()
        try:
            repository = work.repository(payload.repository).repository
            work.outcome.statistics["points"] = float(sum(1 for _ in repository.point_entries()))
            work.outcome.details["repository"] = repository.descriptor.id
            work.reporter.say(f"the repository opens and lists: {payload.repository.url}")
        except MoverError as error:
            failures.append(error)
    for number, path in enumerate(payload.disks):
        work.check()
        try:
            source = FileSource(path)
            source.read_into(0, [bytearray(min(source.size, 4096))])
            source.close()
            work.outcome.details[f"disk {number}"] = f"{path}: {source.size} bytes"
            work.reporter.say(f"the disk can be read: {path}")
        except MoverError as error:
            failures.append(error)
    work.outcome.notes += [str(error) for error in failures[1:]]
    if failures:
        raise failures[0]
