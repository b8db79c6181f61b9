# SPDX-License-Identifier: Apache-2.0
"""The worker's loop: take a command, carry it out while its message is kept invisible, answer, take the next.

A message that could not be renewed is another worker's: the job stops and says nothing. A worker that is told to stop gives
its message back, and the session's record in the repository says how far it had come. One job at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any

from agent import protocol
from agent.errors import EXIT_UNEXPECTED, CommandRefused, StaleReceipt
from agent.execute import execute
from agent.opening import Settings
from agent.protocol import Command, ErrorBody, LogItem, Result
from agent.queue_sqlite import Message, SqliteQueue
from mover.clock import Clock
from mover.errors import MoverError, SessionBusy

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

VISIBILITY_SECONDS, VISIBILITY_SHORTEST = 60.0, 3.0
IDLE_SECONDS = 0.2
BUSY_SECONDS = 3.0
"""How long a command waits in the queue whose session another worker holds, or held until its lease lapses."""


class Keeping:
    """Keeps a taken message invisible, from a thread of its own. `lost`: it is not ours any more; work on it must stop."""

    def __init__(self, queue: SqliteQueue, message: Message, visibility: float, clock: Clock) -> None:
        self._queue = queue
        self._visibility = visibility
        self._clock = clock
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="visibility", daemon=True)
        self.message = message
        self.lost = False

    def __enter__(self) -> Keeping:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        sure_until = self._clock.monotonic() + self._visibility
        while not self._clock.wait(self._stop, self._visibility / 3):
            sent = self._clock.monotonic()
            try:
                self.message = self._queue.renew(self.message, self._visibility)
                sure_until = sent + self._visibility
            except StaleReceipt:
                self.lost = True
                return
            except MoverError:
                if self._clock.monotonic() >= sure_until:
                    self.lost = True
                    return


class Worker:
    """`stop` ends the loop, and the job that is going on, in good order."""

    def __init__(
        self,
        queue: SqliteQueue,
        settings: Settings,
        log: FilteringBoundLogger,
        *,
        visibility: float = VISIBILITY_SECONDS,
    ) -> None:
        self._queue = queue
        self._settings = settings
        self._clock = settings.clock
        self._log = log
        self._visibility = visibility
        self._stop = settings.cancel

    def run(self, *, once: bool = False) -> int:
        """Until stopped: 0. With `once` until one command has got its answer: that answer's exit code."""
        self._log.info("ready", worker=self._settings.worker, queue=str(self._queue.path))
        while not self._stop.is_set():
            message = self._next()
            if message is None:
                self._clock.wait(self._stop, IDLE_SECONDS)
                continue
            result = self._carry_out(message)
            if once and result is not None:
                return result.exit_code
        self._log.info("stopped")
        return 0

    def _next(self) -> Message | None:
        try:
            return self._queue.take(self._visibility)
        except MoverError as error:
            self._log.warning("the queue does not answer", what=error.what, value=error.value)
            self._clock.wait(self._stop, BUSY_SECONDS)
            return None

    def _carry_out(self, message: Message) -> Result | None:
        """The answer that was given; None when none was."""
        try:
            command = protocol.decode_command(message.body)
        except CommandRefused as error:
            return self._finish(message, self._failed(message, "", ErrorBody.of(error)))
        log = self._log.bind(job=command.job, kind=command.kind, command=command.id)
        log.info("command taken", delivery=message.deliveries)
        with Keeping(self._queue, message, self._visibility, self._clock) as keeping:
            result = self._execute(command, keeping, log)
        message = keeping.message
        if keeping.lost:
            log.warning("the message was lost to another worker: stopped without an answer")
            return None
        if result.status == "cancelled" and self._stop.is_set():
            self._give_back(message, command, "the worker is stopping: the command waits for another one", 0.0)
            return None
        if result.error is not None and result.error.type == SessionBusy.__name__:
            self._give_back(
                message, command, "another worker holds the session: the command waits for it", BUSY_SECONDS
            )
            return None
        return self._finish(message, result)

    def _execute(self, command: Command, keeping: Keeping, log: FilteringBoundLogger) -> Result:
        def cancelled() -> bool:
            return self._stop.is_set() or keeping.lost

        try:
            return execute(command, self._settings, self._send, cancelled, delivery=keeping.message.deliveries)
        except Exception as error:
            debug = self._settings.environ.get("DATA_MOVER_DEBUG") == "1"
            log.error("a defect", type=type(error).__name__, exc_info=debug)
            body = ErrorBody(
                what="a defect in data-mover",
                value=type(error).__name__,
                hint="run the worker with DATA_MOVER_DEBUG=1 and report what it logs",
                exit_code=EXIT_UNEXPECTED,
                type=type(error).__name__,
            )
            return self._failed(keeping.message, command.kind, body)

    def _send(self, event: protocol.Event) -> None:
        """An event that the queue does not take is missing for those who watch; the job is not the worse for it."""
        try:
            self._queue.send(event)
        except MoverError as error:
            self._log.warning("an event could not be sent", what=error.what, value=error.value)

    def _finish(self, message: Message, result: Result) -> Result | None:
        figures: dict[str, Any] = {"job": result.job, "status": result.status, "seconds": round(result.seconds, 2)}
        if result.error is not None:
            figures |= {"what": result.error.what, "value": result.error.value, "exit_code": result.error.exit_code}
        try:
            self._patiently(lambda: self._queue.finish(message, result))
        except MoverError as error:
            self._log.warning("no answer could be given: the command shows again", why=error.what, **figures)
            return None
        self._log.info("command done", **figures)
        return result

    def _give_back(self, message: Message, command: Command, why: str, delay: float) -> None:
        now = datetime.fromtimestamp(self._clock.wall(), UTC)
        self._send(
            LogItem(
                command=command.id,
                job=command.job,
                time=now,
                status="running",
                message=why,
                resource=command.subject,
                start=now,
            )
        )
        try:
            self._queue.release(message, delay)
        except MoverError as error:
            self._log.warning("the command could not be given back: it shows again by itself", what=error.what)
        self._log.info(why, job=command.job)

    def _patiently(self, call: Callable[[], None]) -> None:
        """A queue that does not answer is asked again for as long as the message is surely ours."""
        until = self._clock.monotonic() + self._visibility / 2
        while True:
            try:
                return call()
            except StaleReceipt:
                raise
            except MoverError:
                if self._clock.monotonic() >= until or self._clock.wait(self._stop, 1.0):
                    raise

    def _failed(self, message: Message, kind: str, error: ErrorBody) -> Result:
        now = datetime.fromtimestamp(self._clock.wall(), UTC)
        return Result(command=message.command, job=message.job, time=now, kind=kind, status="failed", error=error)
