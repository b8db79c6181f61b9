# SPDX-License-Identifier: Apache-2.0
"""A restore of disks of a restore point, side by side where each target has limits of its own.

The point is held meanwhile (rule I7), or the restore says that it reads unheld. Not here: what is done to one disk
(`mover.disk_restore`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from mover.disk.target import DiskTarget
from mover.disk_restore import DiskRestore, RestoreResult, RestoreWork, Task
from mover.errors import Cancelled, Damaged, ObjectNotFound, PointGone, PointNotFound
from mover.keeper import Keeper
from mover.lanes import Crew, Lane, Lanes
from mover.progress import Progress
from mover.repository.hold import Unheld
from mover.repository.repository import Point, Repository
from mover.restore_steps import Want

MOST_AT_ONCE = 16
"""Tasks, each with 8 MiB of frames and what it writes."""


@dataclass(frozen=True, slots=True)
class RestoreSettings:
    """`verify`: read the target back and compare."""

    verify: bool = False


class Restore:
    """One run of one restore. `cancelled()` is asked often; what was written stays, and the same restore goes on from it."""

    def __init__(
        self,
        repository: Repository,
        point: Point,
        settings: RestoreSettings,
        progress: Progress,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        self._repository = repository
        self._point = point
        self._settings = settings
        self._progress = progress
        self._cancelled = cancelled
        self._work = RestoreWork(repository, point, self._stop)
        self._keeper: Keeper | None = None
        self.notes: list[str] = []

    def disk(self, number: int) -> DiskRestore:
        """UsageError when the point has no such disk."""
        return DiskRestore(self._work, number)

    def run(self, targets: Mapping[int, DiskTarget]) -> dict[int, RestoreResult]:
        """Until the targets hold their disks, which are named by number, byte for byte, durably."""
        repository = self._repository
        disks = [(self.disk(number), target) for number, target in targets.items()]
        hold = repository.hold(self._point)
        if isinstance(hold, Unheld):
            message = f"{hold.why}: the restore point is not held, retention could delete it meanwhile"
            self.notes.append(message)
            self._progress.note(message)
        try:
            with Keeper(hold.tick, repository.clock) as self._keeper:
                for together in _groups(disks):
                    self._restore(together)
        except (Damaged, ObjectNotFound):
            self._check_point_exists()
            raise
        finally:
            hold.end()
        return {number: disk.result for number, (disk, _) in zip(targets, disks, strict=True)}

    def _restore(self, disks: list[tuple[DiskRestore, DiskTarget]]) -> None:
        at_once = min(sum(target.at_once for _, target in disks), MOST_AT_ONCE)
        self._progress.stage("restore", sum(disk.size for disk, _ in disks))
        self._carry_out([Lane(disk.tasks(target)) for disk, target in disks], at_once)
        verified = [(disk, target) for disk, target in disks if self._settings.verify or target.unguarded]
        if verified:
            for _, target in verified:
                target.sync()
            self._progress.stage("verify", sum(disk.size for disk, _ in verified))
            self._carry_out([Lane(disk.verifications(target)) for disk, target in verified], at_once)
        for _, target in disks:
            target.finish(self._repository.clock.wall())

    def sample(self, disk: DiskRestore, runs: Iterable[list[Want]], at_once: int) -> float:
        """Bytes of the disk that are fetched and decoded in a second, so many runs at a time; they are written nowhere."""
        done: list[int] = []
        began = self._repository.clock.monotonic()
        self._carry_out([Lane(disk.measuring(runs, done))], at_once)
        seconds = self._repository.clock.monotonic() - began
        return sum(done) / seconds if seconds > 0 else 0.0

    def check(self, handled: int) -> None:
        """So many bytes of the stage are done. Cancelled when that was asked for."""
        if self._keeper is not None:
            self._keeper.check()
        self._stop()
        self._progress.update(handled)

    def _stop(self) -> None:
        if self._cancelled():
            raise Cancelled("the restore was cancelled", self._point.name, "issue it again to go on")

    def _check_point_exists(self) -> None:
        """A chunk that is missing because retention took the point (unheld readers) is told as that."""
        try:
            self._repository.read_point(self._point.name)
        except PointNotFound:
            raise PointGone("the restore point was deleted while it was read", self._point.name) from None

    # -- carrying out

    def _carry_out(self, lanes: list[Lane[Task]], at_once: int) -> None:
        self._work.handled = 0
        with Crew(Lanes(lanes, at_once), lambda: self.check(self._work.handled)) as crew:
            crew.start(partial(crew.serve, lambda lane, task: task()), at_once, "restore")
            crew.feed()
        self.check(self._work.handled)


def _groups(disks: list[tuple[DiskRestore, DiskTarget]]) -> list[list[tuple[DiskRestore, DiskTarget]]]:
    """Which are restored side by side: all that have limits of their own; local ones one after the other."""
    remote = [one for one in disks if one[1].remote]
    return [*([remote] if remote else []), *([one] for one in disks if not one[1].remote)]
