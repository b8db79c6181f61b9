# SPDX-License-Identifier: Apache-2.0
"""One command while this worker carries it out: its message is kept invisible, its job's lease renewed, its record kept true.

Either may be lost, to a worker that took the command meanwhile, or be in doubt: then the work stops at once and says nothing
more. What becomes of the command afterwards is `agent.worker`'s.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from agent.delivery import Delivery
from agent.errors import EXIT_UNEXPECTED
from agent.execute import execute
from agent.jobs import HeldJob, JobStore
from agent.opening import Settings
from agent.outbox import Outbox
from agent.protocol import Command, ErrorBody, Event, LogItem, ProgressEvent, Result
from mover.errors import Cancelled, MoverError, SessionLost
from mover.keeper import Keeper, is_keeping

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

WISH_SECONDS = 0.5
"""Between two looks whether a running job shall be cancelled."""
NOTE_SECONDS = 2.0
"""Between two writes of a running job's record: what `watch` sees."""


class Run:
    """`execute` once. `wished`: somebody wishes that the job ends. `settings.cancel` is set when the worker stops.

    `beat` is called when the work gets on: its progress has changed, or a store has answered it; what a keeper asks is no work."""

    def __init__(
        self,
        command: Command,
        held: HeldJob,
        delivery: Delivery,
        settings: Settings,
        jobs: JobStore,
        outbox: Outbox,
        log: FilteringBoundLogger,
        moment: Callable[[], datetime],
        beat: Callable[[], None],
    ) -> None:
        self._stop = settings.cancel
        self._ended = threading.Event()  # what waits of the work end at: the worker stops, or this job shall
        self._settings = replace(settings, heard=self._heard, cancel=self._ended)
        self._beat = beat
        self._jobs = jobs
        self._outbox = outbox
        self._moment = moment
        self.command = command
        self.held = held
        self.delivery = delivery
        self.log = log
        self.wished = False
        self._last_sign: object = None
        self._job_lost = self._unsure = False

    @property
    def lost(self) -> bool:
        """The delivery or the job is another's, or may be: nothing more is done and nothing is said."""
        if not self.held.sure:
            self._unsure = True  # for good: another may have had it meanwhile
        return self.delivery.lost or self._job_lost or self._unsure

    def execute(self) -> Result:
        self.delivery.tick()
        self.look_for_wish()
        if self.lost or (
            self.wished and not self.held.worked_before
        ):  # otherwise an earlier run may have committed its point
            return cancelled(self.command, self._moment())
        try:
            with (
                self.delivery.kept(),
                Keeper(self._keep_job, self._settings.clock, WISH_SECONDS, passing=(MoverError,)),
            ):
                deliveries = self.delivery.message.deliveries
                return execute(
                    self.command,
                    self._settings,
                    self._send,
                    self._cancelled,
                    delivery=deliveries,
                    wished=lambda: self.wished,
                )
        except Exception as error:
            return failed(self.command, defect(error, self.log, self._settings.environ), self._moment())

    def give_back(self, error: ErrorBody | None = None, *, untouched: bool = False, receipt: str = "") -> None:
        """The record says that the job waits, unless it is another's."""
        if self._job_lost:
            return
        try:
            self.held.give_back(self._moment(), retry=error, untouched=untouched, receipt=receipt)
        except MoverError as failure:
            self.log.warning("the job's record could not be given back: its lease lapses", what=failure.what)

    def _keep_job(self) -> None:
        if self._job_lost:
            return
        try:
            self.held.tick()
        except SessionLost:
            self._job_lost = True
        if self.lost or self._stop.is_set():
            self._ended.set()
        else:
            self.look_for_wish()

    def look_for_wish(self) -> None:
        """Somebody may wish that the job ends, from before it began on."""
        try:
            if not self.wished and self._jobs.is_cancelled(self.command.job, self.held.record.asked):
                self.wished = True
                self._ended.set()
        except MoverError as error:
            self.log.warning("it cannot be seen whether the job shall be cancelled", what=error.what)

    def _heard(self, operation: str) -> None:
        if operation != "lease" and not is_keeping():
            self._beat()

    def _cancelled(self) -> bool:
        return self.wished or self.lost or self._stop.is_set()

    def _send(self, event: Event) -> None:
        if self.lost:
            return
        sign = (event.stage, event.done) if isinstance(event, ProgressEvent) else event
        if sign != self._last_sign:
            self._last_sign = sign
            self._beat()
        self._outbox.send(event, self.command.reply)
        if isinstance(event, ProgressEvent | LogItem):
            try:
                self.held.note(event, every=NOTE_SECONDS if isinstance(event, ProgressEvent) else 0.0)
            except SessionLost:
                self._job_lost = True
            except MoverError as error:
                self.log.warning("the job's record could not be brought up to date", what=error.what)


def defect(error: Exception, log: FilteringBoundLogger, environ: Mapping[str, str]) -> ErrorBody:
    """An exception that is no MoverError, logged; its text is shown only when it is asked for, as it may hold anything."""
    log.error("a defect", type=type(error).__name__, exc_info=environ.get("DATA_MOVER_DEBUG") == "1")
    return ErrorBody(
        what="a defect in data-mover",
        value=type(error).__name__,
        hint="run the worker with DATA_MOVER_DEBUG=1 and report what it logs",
        exit_code=EXIT_UNEXPECTED,
        type=type(error).__name__,
    )


def failed(command: Command, error: ErrorBody, moment: datetime) -> Result:
    return _ended(command, "failed", error, moment)


def cancelled(command: Command, moment: datetime) -> Result:
    return _ended(command, "cancelled", ErrorBody.of(Cancelled("the command was cancelled", command.job)), moment)


def _ended(command: Command, status: Literal["failed", "cancelled"], error: ErrorBody, moment: datetime) -> Result:
    return Result(
        command=command.id,
        job=command.job,
        time=moment,
        kind=command.kind,
        status=status,
        resource=command.subject,
        error=error,
    )
