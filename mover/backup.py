# SPDX-License-Identifier: Apache-2.0
"""A backup of a resource's disks into one restore point: the request, the session, the commit.

Not here: which blocks of a disk are read (`mover.disk_backup`), the stages of a block (`mover.pipeline`) and the rules of
sessions (`mover.repository`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from mover.disk.changes import ChangeMap
from mover.disk.source import DiskSource
from mover.disk_backup import CHECKPOINT_SECONDS, DiskBackup, Pacing, Work, uses
from mover.errors import Cancelled, UsageError
from mover.keeper import Keeper
from mover.pipeline import Statistics
from mover.progress import Progress
from mover.repository import record
from mover.repository.keys import Kind
from mover.repository.map_store import live_of
from mover.repository.maps import BLOCK_SIZE
from mover.repository.names import PackName
from mover.repository.opening import Finished
from mover.repository.repository import Repository
from mover.repository.session import Session, SessionSettings

LEAST_MEMORY, ROOMY = 384 * 1024 * 1024, 640 * 1024 * 1024
"""With less than ROOMY one pack at a time is uploaded: each costs 64 MiB, and as much again while Azure's client sends it."""
MOST_DISKS = 65
"""Azure's largest VMs have an operating system's disk and 64 of data."""
MAX_DOCUMENT = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class BackupSettings:
    """`memory`: the promise in bytes for everything that a backup holds. `workers` None: one for each processor."""

    level: int = 1
    check: bool = True
    memory: int = 1 << 30
    workers: int | None = None
    uploads: int = 2
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    poll_seconds: float = 30.0


@dataclass(slots=True)
class BackupResult:
    """What a backup did. `already` = the command had been carried out before. `notes` are the warnings, in order."""

    point: str
    parent: str | None
    already: bool = False
    resumed: bool = False
    statistics: Statistics = field(default_factory=Statistics)
    checkpoints: int = 0
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class BackupRequest:
    """`changes` by disk identity. The same `job` again means the same restore point: done, resumed or refused as busy."""

    resource: str
    job: str
    disks: Sequence[DiskSource]
    changes: Mapping[str, ChangeMap] = field(default_factory=dict)
    document: bytes | None = None
    flags: str = ""


class Backup:
    """One run of one backup command. `cancelled()` is asked often; true ends the run with Cancelled, resumable."""

    def __init__(
        self,
        repository: Repository,
        request: BackupRequest,
        settings: BackupSettings,
        progress: Progress,
        cancelled: Callable[[], bool] = lambda: False,
        seed: int | None = None,
    ) -> None:
        self._repository = repository
        self._request = request
        self._settings = settings
        self._progress = progress
        self._cancelled = cancelled
        self._random = random.Random(seed)  # noqa: S311 - a sample, not a secret
        self._clock = repository.clock
        self._result = BackupResult("", None)
        self._keeper: Keeper | None = None

    def run(self) -> BackupResult:
        """Until the point is committed. Any error leaves the session open: the same job resumes it."""
        self._check_request()
        begun = self._repository.begin(
            resource_name=self._request.resource,
            job=self._request.job,
            body=self._body(),
            flags=self._request.flags,
            settings=SessionSettings(
                uploads=self._settings.uploads if self._settings.memory >= ROOMY else min(1, self._settings.uploads),
                index_bytes=self._settings.memory // 12,
                check=self._settings.check,
                level=self._settings.level,
                poll_seconds=self._settings.poll_seconds,
            ),
        )
        self._result.point = begun.name
        if isinstance(begun, Finished):
            self._result.already = True
            self._note("this command had been carried out before: nothing was read")
            return self._result
        session = begun
        try:
            with Keeper(session.tick, self._clock) as self._keeper:
                return self._run(session)
        finally:
            session.close()

    def _check_request(self) -> None:
        request = self._request
        if not request.disks:
            raise UsageError("a backup needs at least one disk", request.resource)
        buffer_bytes(self._settings.memory)  # refuses too little before anything is written
        if len(request.disks) > MOST_DISKS:
            raise UsageError("too many disks for one restore point", f"{len(request.disks)}, at most {MOST_DISKS}")
        names = [disk.name for disk in request.disks]
        if len(set(names)) != len(names):
            raise UsageError("two disks have the same name", ", ".join(names), "name them: --disk NAME=PATH")
        strangers = set(request.changes) - {disk.identity for disk in request.disks}
        for identity in sorted(strangers):
            self._note(f"the change map of disk {identity!r} is for none of the disks: it is ignored")
        if request.document is not None and len(request.document) > MAX_DOCUMENT:
            raise UsageError("the configuration document is too large", f"{len(request.document)} bytes")
        if set(request.flags) - set("DWMY"):
            raise UsageError("flags are letters of D, W, M and Y", request.flags)

    def _body(self) -> record.Body:
        disks = []
        for disk in self._request.disks:
            change_map = self._request.changes.get(disk.identity)
            disks.append(
                record.DiskBody(
                    name=disk.name,
                    identity=disk.identity,
                    size=disk.size,
                    sector_size=disk.sector_size,
                    snapshot=change_map.snapshot if change_map else disk.snapshot,
                    source=disk.source,
                )
            )
        return record.Body(resource_name=self._request.resource, job=self._request.job, disks=tuple(disks))

    def _note(self, message: str) -> None:
        self._result.notes.append(message)
        self._progress.note(message)

    # -- the run

    def _run(self, session: Session) -> BackupResult:
        self._result.parent = session.parent.name if session.parent else None
        if session.unreadable_parent:
            self._note(f"the latest restore point cannot be read ({session.unreadable_parent}): everything is read")
        self._result.resumed = session.resumed is not None
        work = Work(
            session=session,
            progress=self._progress,
            pacing=Pacing(self._settings.checkpoint_seconds, self._clock.monotonic),
            random=self._random,
            between=self._between,
            note=self._note,
            workers=self._settings.workers,
            buffer_bytes=buffer_bytes(self._settings.memory),
            statistics=self._result.statistics,
        )
        for number in range(len(self._request.disks)):
            work.done.append(self._disk(work, number).run())
        self._replace_quarantined(work)
        for source in self._request.disks:
            source.check_unchanged()
        self._between()
        documents = {}
        if self._request.document is not None:
            documents["configuration"] = session.add_metadata(Kind.DOCUMENT, self._request.document)
        statistics = {name: float(value) for name, value in asdict(self._result.statistics).items()}
        self._progress.stage("commit", 0)
        session.commit(work.states(), documents, live_of([(done.ref, done.root) for done in work.done]), statistics)
        self._result.checkpoints = session.statistics.checkpoints
        return self._result

    def _disk(self, work: Work, number: int) -> DiskBackup:
        source = self._request.disks[number]
        return DiskBackup(work, number, source, self._request.changes.get(source.identity))

    def _replace_quarantined(self, work: Work) -> None:
        """I8: before commit, what the collector has found damaged since is read and stored again."""
        replaced: frozenset[tuple[PackName, int]] = frozenset()
        while True:
            state = work.session.refresh()
            dirty = [number for number, done in enumerate(work.done) if uses(done.root, state.quarantine)]
            if not dirty or state.quarantine == replaced:
                return
            replaced = state.quarantine
            work.session.metadata.flush()  # the pages of the new map are read back
            for number in dirty:
                name = self._request.disks[number].name
                self._note(f"disk {name}: stored blocks were found damaged: they are read again")
                work.done[number] = self._disk(work, number).run_again(work.done[number])

    def _between(self) -> None:
        if self._keeper is not None:
            self._keeper.check()
        if self._cancelled():
            raise Cancelled("the backup was cancelled", self._result.point)


def buffer_bytes(memory: int) -> int:
    """What the memory promise leaves for blocks being read: a twelfth of it, at most 64 MiB.

    The rest is for packs (one filling, two on their way, each joined once for an upload), the index and maps.
    """
    if memory < LEAST_MEMORY:
        raise UsageError("a backup needs more memory than that", f"{memory} bytes", "give at least 384 MiB")
    return min(64 * BLOCK_SIZE, memory // 12)
