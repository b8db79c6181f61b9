# SPDX-License-Identifier: Apache-2.0
"""`test-connection`: can this worker reach and open what a later command will name? Nothing is written anywhere."""

from __future__ import annotations

from agent.kinds.work import Work
from agent.protocol import Secret, TestConnectionPayload
from mover.disk.source import FileSource
from mover.errors import MoverError, SourceError, UsageError


def run(work: Work, payload: TestConnectionPayload) -> None:
    """All of it is tried; the first failure is the answer's error, the others are notes."""
    if payload.repository is None and not payload.disks and not payload.blobs:
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
    for number, url in enumerate(payload.blobs):
        work.check()
        try:
            work.outcome.details[f"blob {number}"] = _look(work, url)
        except MoverError as error:
            failures.append(error)
    work.outcome.notes += [str(error) for error in failures[1:]]
    if failures:
        raise failures[0]


def _look(work: Work, url: Secret) -> str:
    blob = work.page_blob(url)
    try:
        found = blob.open(SourceError, "a disk that is no page blob", "name a page blob or an exported disk")
        if found is None:
            raise SourceError(
                "there is no such page blob", blob.where, "check its URL and whether its access has ended"
            )
        page = bytearray(min(found[0], 512))
        if page:
            blob.ask(lambda: blob.pages.read_into(blob.name, 0, memoryview(page)))
        work.reporter.say(f"the page blob can be read: {blob.where}")
        return f"{blob.where}: {found[0]} bytes"
    finally:
        blob.close()
