# SPDX-License-Identifier: Apache-2.0
"""Carries out one command: the command line's verbs, `data-mover run` and the worker all come through here.

What happens on the way is sent as events; the end is returned, not sent, because whoever called knows whether this was the
end (a worker that is being stopped gives the command back). Errors of `mover` become a Result; any other exception is a
defect and passes through.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from agent.opening import Opened, Settings, open_repository
from agent.protocol import (
    Accepted,
    BackupPayload,
    Command,
    ErrorBody,
    Event,
    LogItem,
    ProgressEvent,
    RestorePayload,
    Result,
    check_expiry,
)
from mover.clock import Clock
from mover.errors import Cancelled, MoverError
from mover.progress import Progress, Snapshot

Send = Callable[[Event], None]


@dataclass
class Outcome:
    """What a kind's function found out; `point` and `parent` are ids."""

    point: str | None = None
    parent: str | None = None
    already: bool = False
    resumed: bool = False
    notes: list[str] = field(default_factory=list)
    statistics: dict[str, float] = field(default_factory=dict)


class Reporter:
    """Turns the data plane's progress and notes into events of one command. Used by one thread at a time."""

    def __init__(self, command: Command, clock: Clock, send: Send) -> None:
        self._command = command
        self._clock = clock
        self._send = send
        self._stage = ""
        self._stage_began = self._moment()
        self.progress = Progress(clock, self._report, self._note)

    def _moment(self) -> datetime:
        return datetime.fromtimestamp(self._clock.wall(), UTC)

    def accepted(self, worker: str, delivery: int) -> None:
        command = self._command
        self._send(
            Accepted(
                command=command.id,
                job=command.job,
                time=self._moment(),
                kind=command.kind,
                worker=worker,
                delivery=delivery,
            )
        )

    def _report(self, snapshot: Snapshot) -> None:
        if snapshot.stage != self._stage:
            self.stage_ended("success")
            self._stage, self._stage_began = snapshot.stage, self._moment()
        self._send(
            ProgressEvent(
                command=self._command.id,
                job=self._command.job,
                time=self._moment(),
                stage=snapshot.stage,
                done=snapshot.done,
                total=snapshot.total,
                rate=snapshot.rate,
                eta=snapshot.eta,
            )
        )

    def stage_ended(self, status: str) -> None:
        """A log item for the stage that was going on, if one was."""
        if self._stage:
            self._log("success" if status == "success" else "error", self._stage, self._stage_began)
        self._stage = ""

    def _note(self, message: str) -> None:
        self._log("warning", message, self._moment())

    def _log(self, status: str, message: str, start: datetime) -> None:
        now = self._moment()
        self._send(
            LogItem(
                command=self._command.id,
                job=self._command.job,
                time=now,
                status=status,  # type: ignore[arg-type]
                message=message,
                resource=self._command.subject,
                start=start,
                duration=max(0.0, (now - start).total_seconds()),
            )
        )

    def result(
        self,
        outcome: Outcome,
        error: MoverError | None,
        api_calls: Mapping[str, Mapping[str, Mapping[str, float]]],
        seconds: float,
    ) -> Result:
        if error is None:
            status = "warning" if outcome.notes and not outcome.already else "success"
        else:
            status = "cancelled" if isinstance(error, Cancelled) else "failed"
        return Result(
            command=self._command.id,
            job=self._command.job,
            time=self._moment(),
            kind=self._command.kind,
            status=status,  # type: ignore[arg-type]
            resource=self._command.subject,
            point=outcome.point,
            parent=outcome.parent,
            already=outcome.already,
            resumed=outcome.resumed,
            error=ErrorBody.of(error) if error is not None else None,
            notes=tuple(outcome.notes),
            statistics=outcome.statistics,
            api_calls={o: {k: dict(f) for k, f in classes.items()} for o, classes in api_calls.items()},
            seconds=seconds,
        )


def execute(
    command: Command,
    settings: Settings,
    send: Send,
    cancelled: Callable[[], bool] = lambda: False,
    *,
    delivery: int = 1,
    opened: Opened | None = None,
) -> Result:
    """Until the command is done, refused, failed or cancelled. `opened`: its repository, when the caller has it open; it
    is closed here in any case."""
    clock = settings.clock
    reporter = Reporter(command, clock, send)
    began = clock.monotonic()
    outcome = Outcome()
    error: MoverError | None = None
    try:
        if delivery == 1:  # a command that was begun in time may be gone on with after it
            check_expiry(command, datetime.fromtimestamp(clock.wall(), UTC))
        reporter.accepted(settings.worker, delivery)
        opened = opened or open_repository(command.payload.repository, settings)
        if isinstance(command.payload, BackupPayload):
            _backup(command.job, command.payload, opened, settings, reporter, cancelled, outcome)
        else:
            _restore(command.payload, opened, settings, reporter, cancelled, outcome)
    except MoverError as raised:
        error = raised
    finally:
        if opened is not None:
            opened.repository.store.close()
    reporter.stage_ended("success" if error is None else "error")
    api_calls = opened.meter.snapshot() if opened is not None else {}
    return reporter.result(outcome, error, api_calls, clock.monotonic() - began)


def _backup(
    job: str,
    payload: BackupPayload,
    opened: Opened,
    settings: Settings,
    reporter: Reporter,
    cancelled: Callable[[], bool],
    outcome: Outcome,
) -> None:
    from mover.backup import Backup, BackupRequest, BackupSettings
    from mover.disk.source import FileSource

    sources: list[FileSource] = []
    try:
        for disk in payload.disks:
            sources.append(FileSource(disk.path, name=disk.name))  # noqa: PERF401 - what is open so far gets closed
        request = BackupRequest(
            resource=payload.resource,
            job=job,
            disks=sources,
            changes={one.disk: one for one in payload.changes},
            document=payload.document,
            flags=payload.flags,
        )
        limits = BackupSettings(
            level=payload.level,
            check=payload.check,
            memory=payload.memory,
            checkpoint_seconds=settings.checkpoint_seconds,
        )
        result = Backup(opened.repository, request, limits, reporter.progress, cancelled).run()
    finally:
        for source in sources:
            source.close()
    outcome.point = result.point.rsplit("/", 1)[-1]
    outcome.parent = result.parent.rsplit("/", 1)[-1] if result.parent else None
    outcome.already, outcome.resumed = result.already, result.resumed
    outcome.notes = list(result.notes)
    outcome.statistics = {name: float(value) for name, value in asdict(result.statistics).items()}
    outcome.statistics["checkpoints"] = float(result.checkpoints)
    outcome.statistics["size"] = float(sum(source.size for source in sources))


def _restore(
    payload: RestorePayload,
    opened: Opened,
    settings: Settings,
    reporter: Reporter,
    cancelled: Callable[[], bool],
    outcome: Outcome,
) -> None:
    from agent.document import Document
    from mover.disk.target import FileTarget
    from mover.restore import Restore, RestoreSettings

    point = opened.repository.find_point(payload.point)
    outcome.point = point.id
    document = Document.of(opened.repository, point, payload.document) if payload.document is not None else None
    limits = RestoreSettings(verify=payload.verify)
    restore = Restore(opened.repository, point, payload.disk, limits, reporter.progress, cancelled)
    target = FileTarget(payload.to, restore.size, in_place=payload.in_place, as_vhd=payload.format == "vhd")
    try:
        result = restore.run(target)
    finally:
        target.close()
    if document is not None:
        document.write()
    figures = asdict(result)
    outcome.notes = list(figures.pop("notes"))
    outcome.statistics = {name: float(value) for name, value in figures.items()}
