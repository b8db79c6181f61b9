# SPDX-License-Identifier: Apache-2.0
"""A backup of a resource's disks into one restore point: the request, the session, the commit.

Not here: which blocks of a disk are read (`mover.disk_backup`), the stages of a block (`mover.pipeline`) and the rules of
sessions (`mover.repository`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from mover.disk.changes import Changes
from mover.disk.source import DiskSource
from mover.disk_backup import DiskBackup, Work, uses
from mover.errors import Cancelled, UsageError
from mover.keeper import Keeper
from mover.pipeline import Pipeline, Statistics
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


CHECKPOINT_SECONDS, CHECKPOINT_SECONDS_LONGEST = 30.0, 600.0
CHECKPOINT_CHUNKS = 65_536
"""Unpublished chunks that call for a checkpoint before the interval is over: they are kept in memory until then."""


class Pacing:
    """When the next checkpoint is due: at least `seconds` apart, the interval doubling with the session's age."""

    def __init__(self, seconds: float, now: Callable[[], float]) -> None:
        self._seconds = seconds
        self._now = now
        self._began = self._last = now()

    def due(self, unpublished: int) -> bool:
        since = self._now() - self._last
        interval = min(max(self._seconds, self._last - self._began), max(self._seconds, CHECKPOINT_SECONDS_LONGEST))
        return since >= interval or (unpublished >= CHECKPOINT_CHUNKS and since >= self._seconds)

    def done(self) -> None:
        self._last = self._now()


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
    changes: Mapping[str, Changes] = field(default_factory=dict)
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
        work = Work(session, self._progress, self._random, self._between, self._note, self._result.statistics)
        self._session = session
        self._disks = [
            DiskBackup(work, number, source, self._request.changes.get(source.identity))
            for number, source in enumerate(self._request.disks)
        ]
        for disk in self._disks:
            disk.prepare()
        self._covered = [disk.snapshot().covered for disk in self._disks]
        self._pacing = Pacing(self._settings.checkpoint_seconds, self._clock.monotonic)
        for side_by_side in _groups(self._disks):
            self._read(side_by_side)
        self._replace_quarantined()
        for source in self._request.disks:
            source.check_unchanged()
        self._between()
        documents = {}
        if self._request.document is not None:
            documents["configuration"] = session.add_metadata(Kind.DOCUMENT, self._request.document)
        statistics = {name: float(value) for name, value in asdict(self._result.statistics).items()}
        self._progress.stage("commit", 0)
        maps = [disk.finish() for disk in self._disks]
        session.commit([done.state for done in maps], documents, live_of(maps), statistics)
        self._result.checkpoints = session.statistics.checkpoints
        return self._result

    def _read(self, disks: list[DiskBackup]) -> None:
        """Their lanes to the end, side by side."""
        pipeline = Pipeline(
            self._session,
            [disk.lane for disk in disks],
            workers=self._settings.workers,
            buffer_bytes=buffer_bytes(self._settings.memory),
        )
        name = disks[0].name if len(disks) == 1 else f"{len(disks)} disks"
        self._progress.stage(f"back up {name}", sum(disk.left for disk in disks))

        def between() -> None:
            self._between()
            self._progress.update(pipeline.statistics.read)
            if self._pacing.due(self._session.unpublished()):
                self._checkpoint()

        try:
            pipeline.run(between)
            for disk in disks:
                disk.finish()
        finally:
            self._result.statistics.add(pipeline.statistics)

    def _checkpoint(self) -> None:
        """I2: packs, run, record. The maps are taken first, so all that they name is handed to the packers before they flush."""
        self._pacing.done()
        roots = [disk.snapshot() for disk in self._disks]
        covered = [root.covered for root in roots]
        if covered == self._covered:
            return  # nothing that a resume would gain
        self._covered = covered
        self._session.data.flush()
        self._session.checkpoint([disk.stored(root).state for disk, root in zip(self._disks, roots, strict=True)])

    def _replace_quarantined(self) -> None:
        """I8: before commit, what the collector has found damaged since is read and stored again."""
        replaced: frozenset[tuple[PackName, int]] = frozenset()
        while True:
            state = self._session.refresh()
            dirty = [disk for disk in self._disks if uses(disk.finish().root, state.quarantine)]
            if not dirty or state.quarantine == replaced:
                return
            replaced = state.quarantine
            self._session.metadata.flush()  # the pages of the new map are read back
            for disk in dirty:
                self._note(f"disk {disk.name}: stored blocks were found damaged: they are read again")
                disk.prepare_again()
                self._read([disk])

    def _between(self) -> None:
        if self._keeper is not None:
            self._keeper.check()
        if self._cancelled():
            raise Cancelled("the backup was cancelled", self._result.point)


def _groups(disks: list[DiskBackup]) -> list[list[DiskBackup]]:
    """Which are read side by side: all that answer requests, as each has limits of its own; local ones one after the other."""
    remote = [disk for disk in disks if disk.lane.source.in_flight]
    return [*([remote] if remote else []), *([disk] for disk in disks if not disk.lane.source.in_flight)]


def buffer_bytes(memory: int) -> int:
    """What the memory promise leaves for blocks being read: a twelfth of it, at most 64 MiB.

    The rest is for packs (one filling, two on their way, each joined once for an upload), the index and maps.
    """
    if memory < LEAST_MEMORY:
        raise UsageError("a backup needs more memory than that", f"{memory} bytes", "give at least 384 MiB")
    return min(64 * BLOCK_SIZE, memory // 12)
