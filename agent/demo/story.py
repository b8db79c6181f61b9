# SPDX-License-Identifier: Apache-2.0
"""What the demo does, step by step, and what it checks. Every check that fails makes the demo fail."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from agent.console import Console, calls
from agent.demo.disk import DemoDisk, check_tools, is_sound, sha256
from agent.demo.report import Check, Report, Step
from agent.demo.workers import WorkerProcess
from agent.figures import format_size
from agent.opening import Settings, open_metered, open_repository
from agent.protocol import (
    BackupPayload,
    Command,
    Disk,
    Payload,
    RepositoryReference,
    RestorePayload,
    Result,
    Secret,
    encode,
)
from agent.verbs import Surroundings
from agent.verbs.queue import appliance_for, follow
from agent.verbs.target import make_command
from mover.clock import Clock
from mover.errors import Cancelled, MoverError
from mover.repository import record
from mover.repository.repository import Repository

RESOURCE = "demo-vm"
VISIBILITY, CHECKPOINT, BANDWIDTH = "3", "1", "48MiB"
"""The workers' settings: a dead worker's command shows again soon, checkpoints come soon, and the worker that is to be
killed stores so slowly that there is a middle to kill it in."""
CANCELLED = "demo-restore-cancelled"
LOOK_SECONDS, PATIENCE_SECONDS = 0.02, 120.0


class CheckFailed(MoverError):
    """The demo cannot go on."""

    hint_default = "run it again with --keep and look at the workers' logs"


@dataclass
class Story:
    """One demo in one empty folder."""

    folder: Path
    console: Console
    clock: Clock
    cancel: threading.Event
    report: Report = field(default_factory=Report)
    hashes: dict[str, str] = field(default_factory=dict)
    points: dict[str, str] = field(default_factory=dict)
    _workers: list[WorkerProcess] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.disk = DemoDisk(self.folder / "disk.img", self.folder)
        self._password = Secret(file=str(self.folder / "password"))
        self._reference = RepositoryReference(url=(self.folder / "repository").as_uri(), password=self._password)
        self._settings = Settings(clock=self.clock, cancel=self.cancel)
        self._around = Surroundings(self.console, self._settings.environ, self.clock, self.cancel)

    def play(self) -> bool:
        """All of it; true when every check passed."""
        check_tools()
        self._make()
        with appliance_for(str(self.folder / "queue.db"), self._around, create=True) as self._appliance:
            return self._play()

    def _play(self) -> bool:
        try:
            first = self._worker("worker-1")
            self._backup("1", "full backup")
            with self._step("change the disk"):
                self.disk.change()
            self._backup("2", "incremental backup")
            self._check("the worker ends in good order when it is told to", first.stop() == 0)
            self._interrupted()
            self._restore("3")
            self._cancelled()
            self._operated()
            self._check(
                "the repository lists three restore points, oldest first",
                self._listed() == [self.points[name] for name in ("1", "2", "3")],
            )
        finally:
            for worker in self._workers:
                worker.stop()
        files = (self.folder / "repository").rglob("*")
        self.report.stored = sum(path.stat().st_size for path in files if path.is_file())
        return self.report.passed

    # -- the steps

    def _make(self) -> None:
        with self._step("make a disk of this machine's files") as step:
            count, size = self.disk.make()
            step.verdict = f"{count} files, {format_size(size)}"
        with self._step("make an encrypted repository"):
            place = Path(self._password.file or "")
            place.touch(0o600)
            place.write_text(secrets.token_urlsafe(24) + "\n")
            password = place.read_text().strip()
            (self.folder / "repository").mkdir()
            store, _ = open_metered(self._reference.url, self._settings)
            Repository.create(store, password=password, hint="it is in the file beside it", clock=self.clock)

    def _backup(self, name: str, what: str) -> None:
        result = self._follow(what, self._submit(self._backup_command(name)))
        self._backed_up(name, what, result)

    def _backup_command(self, name: str) -> Command:
        self.hashes[name] = sha256(self.disk.image)
        self.report.used.append(self.disk.in_use())
        disks = (Disk(path=str(self.disk.image), name="os"),)
        payload = BackupPayload(what="disk", repository=self._reference, resource=RESOURCE, disks=disks)
        return self._command("backup", f"demo-backup-{name}", payload)

    def _backed_up(self, name: str, what: str, result: Result) -> None:
        figures = result.statistics
        used = figures["read"] + figures["skipped"]
        self.report.steps.append(
            Step(
                what,
                read=int(figures["read"]),
                unchanged=int(figures["unchanged"] + figures["skipped"]),
                stored=int(figures["stored"]),
                saved=1 - figures["stored"] / used if used else None,
                api_calls=calls(result),
                seconds=result.seconds,
                verdict=f"point {(result.point or '')[:8]}{', resumed' if result.resumed else ''}",
            )
        )
        self.points[name] = result.point or ""
        self._check(f"backup {name} ended as a success", result.status == "success")

    def _interrupted(self) -> None:
        """The third backup: killed after a checkpoint, gone on with by another worker, which meanwhile restores the others."""
        with self._step("add 384 MiB of new data"):
            self.disk.grow()
        victim = self._worker("worker-2", "--bandwidth", BANDWIDTH)
        command = self._backup_command("3")
        allocated = self.report.used[-1]
        self._submit(command)
        with open_repository(self._reference, self._settings) as opened:
            covered = self._kill_after_checkpoint(victim, opened.repository)
        self._check("no half restore point is listed", self._listed() == [self.points["1"], self.points["2"]])
        self._worker("worker-3")
        self._restore("1")
        self._restore("2")
        self.console.say(
            "the dead worker's lease on its session lapses a minute after its last sign of life; then it goes on"
        )
        result = self._follow("the killed backup, resumed", command)
        self._backed_up("3", "the same backup, resumed by worker-3", result)
        read = int(result.statistics["read"])
        self._check("the killed backup was resumed", result.resumed and not result.already)
        self._check("what was checkpointed was not read again", read < allocated and covered > 0)

    def _kill_after_checkpoint(self, worker: WorkerProcess, repository: Repository) -> int:
        """SIGKILL as soon as a checkpoint covers a part of the disk; the blocks that it covers."""
        began = self.clock.monotonic()
        name = ""
        while True:
            worker.check()
            for entry in repository.point_entries(RESOURCE):
                if entry.metadata.get("state") == record.OPEN:
                    name = entry.name
            if name:
                header, _ = record.decode(repository.store.read_record(name).data, name, repository.keys)
                covered = header.disks[0].covered if header.disks else 0
                if header.state != record.OPEN:
                    raise CheckFailed("the backup that was to be killed ended before it could be", header.state)
                if covered and header.runs:
                    worker.kill()
                    break
            if self.clock.monotonic() - began > PATIENCE_SECONDS:
                raise CheckFailed("no checkpoint was written", f"in {PATIENCE_SECONDS:g} s")
            self._wait(LOOK_SECONDS)
        header, _ = record.decode(repository.store.read_record(name).data, name, repository.keys)
        self._check("the worker was killed in the middle: its session is open", header.state == record.OPEN)
        step = Step("third backup, its worker killed (kill -9)", seconds=self.clock.monotonic() - began)
        step.verdict = f"{header.disks[0].covered} blocks are safe in a checkpoint"
        self.report.steps.append(step)
        return header.disks[0].covered

    def _restore(self, name: str) -> None:
        to = self.folder / f"restored-{name}.img"
        payload = RestorePayload(what="disk", repository=self._reference, point=self.points[name], to=str(to))
        result = self._follow(
            f"restore {name}", self._submit(self._command("restore", f"demo-restore-{name}", payload))
        )
        same, sound = sha256(to) == self.hashes[name], is_sound(to)
        self._check(f"restore {name} is the disk as it was, by SHA-256", same)
        self._check(f"restore {name} is a sound file system, by e2fsck -fn", sound)
        verdict = f"{'same SHA-256' if same else 'NOT THE SAME'}, {'e2fsck finds nothing' if sound else 'NOT SOUND'}"
        self.report.steps.append(
            Step(
                f"restore point {name}",
                read=int(result.statistics["fetched"]),
                api_calls=calls(result),
                seconds=result.seconds,
                verdict=verdict,
            )
        )
        to.unlink()

    def _cancelled(self) -> None:
        """An operator changes her mind in the middle of a restore."""
        self._workers[-1].stop()
        self._worker("worker-4", "--bandwidth", BANDWIDTH)
        to = self.folder / "cancelled.img"
        payload = RestorePayload(what="disk", repository=self._reference, point=self.points["3"], to=str(to))
        command = self._submit(self._command("restore", CANCELLED, payload))
        while (seen := self._appliance.job(CANCELLED)) is None or seen.progress is None or seen.progress.done == 0:
            self._workers[-1].check()
            self._wait(LOOK_SECONDS)
        self.console.say(f"$ data-mover cancel {CANCELLED} --queue {self.folder / 'queue.db'}")
        with self._step("restore 3 once more, cancelled") as step:
            self._appliance.cancel(CANCELLED)
            result = follow(self._appliance, [command.job], self._around, self._workers[-1].check)[0]
            step.verdict = f"{result.status}, {format_size(seen.progress.done)} were written"
        self._check(
            "a cancelled restore ends as cancelled, and no file is there",
            result.status == "cancelled" and not to.exists(),
        )

    def _operated(self) -> None:
        """What an operator sees afterwards: every job, how it ended, and the workers that are there."""
        lines = {line.job: line.state for line in self._appliance.jobs()}
        self.console.say(f"$ data-mover jobs --queue {self.folder / 'queue.db'}")
        for job, state in lines.items():
            self.console.say(f"  {job}: {state}")
        for worker in self._appliance.workers():
            self.console.say(f"  worker {worker.worker}: {worker.state}, last heard of at {worker.updated:%H:%M:%S}Z")
        self._check(
            "the operator's list has every job, ended once",
            len(lines) == 7 and {job for job, state in lines.items() if state != "success"} == {CANCELLED},
        )

    def _listed(self) -> list[str]:
        with open_repository(self._reference, self._settings) as opened:
            return [point.id for point in opened.repository.points(RESOURCE)]

    # -- queue, workers, checks

    def _command(self, kind: str, job: str, payload: Payload) -> Command:
        return make_command(kind, job, payload, self.clock)

    def _submit(self, command: Command) -> Command:
        return self._appliance.submit(encode(command))

    def _follow(self, what: str, command: Command) -> Result:
        """The command's result; CheckFailed when it is an error, WorkerEnded when nobody is there to carry it out."""
        result = follow(self._appliance, [command.job], self._around, self._workers[-1].check)[0]
        if result.error is not None:
            raise CheckFailed(f"{what} failed: {result.error.what}", result.error.value, result.error.hint)
        return result

    def _worker(self, name: str, *options: str) -> WorkerProcess:
        queue = self.folder / "queue.db"
        worker = WorkerProcess(name, queue, "--visibility", VISIBILITY, "--checkpoint-seconds", CHECKPOINT, *options)
        self._workers.append(worker)
        self.console.say(f"{name} started: process {worker.pid}, data-mover-agent --queue {queue}")
        return worker

    def _check(self, what: str, passed: bool) -> None:
        self.report.checks.append(Check(what, passed))
        self.console.say(f"{'ok' if passed else 'FAILED'}: {what}")

    @contextmanager
    def _step(self, what: str) -> Iterator[Step]:
        if self.cancel.is_set():
            raise Cancelled("the demo was interrupted", what, "run it again")
        self.console.say(f"{what} ...")
        began = self.clock.monotonic()
        step = Step(what)
        yield step
        step.seconds = self.clock.monotonic() - began
        self.report.steps.append(step)

    def _wait(self, seconds: float) -> None:
        if self.clock.wait(self.cancel, seconds):
            raise Cancelled("the demo was interrupted", "", "run it again")
