# SPDX-License-Identifier: Apache-2.0
"""From the data plane's progress and notes to the events of one command, and to its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from agent.protocol import Accepted, Command, ErrorBody, Event, LogItem, ProgressEvent, Result
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
    document: bytes | None = None
    details: dict[str, str] = field(default_factory=dict)


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

    def event(self, kind: type[Any], **more: Any) -> None:
        """One that a kind of its own has, with the command's ids and the time."""
        self._send(kind(command=self._command.id, job=self._command.job, time=self._moment(), **more))

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

    def stage_ended(self, status: Literal["success", "warning", "error"]) -> None:
        """A log item for the stage that was going on, if one was."""
        if self._stage:
            self._log(status, self._stage, self._stage_began)
        self._stage = ""

    def say(self, message: str) -> None:
        """A log item of something that went well."""
        self._log("success", message, self._moment())

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
            document=outcome.document,
            details=outcome.details,
        )
