# SPDX-License-Identifier: Apache-2.0
"""The worker: takes commands, carries each out while its message is kept invisible and its job's lease is renewed, answers.

A job belongs to who holds its lease (`agent.jobs`), a delivery to who holds its receipt. Whoever loses either stops at once and
says nothing more. The order of an end is the safety: the record first, then the result's event, then the message goes; a
crash between any two makes the command come again, and it is answered from the record. Which command may be obeyed is
`agent.envelope`'s question, what a kind does is `agent.kinds`'.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from agent import protocol
from agent.delivery import Delivery
from agent.errors import CommandRefused, JobBusy, Poisoned, QueueMissing, QueueUnavailable, StaleReceipt
from agent.jobs import Ended, HeldJob, JobStore
from agent.opening import Settings
from agent.outbox import Outbox
from agent.protocol import CancelPayload, Command, ErrorBody, FlrStopPayload, LogItem, Result
from agent.queue.base import VISIBILITY_SHORTEST, Message, Queue
from agent.queue.polling import Pace
from agent.records import KEPT_COMMAND_BYTES, VERSION, JobRecord
from agent.run import Run, cancelled, defect, failed
from agent.seal import withhold
from mover.errors import Cancelled, Damaged, MoverError, UnsupportedFormat, UsageError

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

BUSY_SECONDS = 5.0
"""How long a command waits in the queue whose job or session another worker holds, or held until its lease lapses."""
PASSING = frozenset({"StoreUnavailable", "QueueUnavailable", "SessionLost"})
"""Errors after which the same command may succeed later: it goes back to the queue, RETRIES times, each time for longer."""
BUSY = frozenset({"SessionBusy"})
"""The session is another worker's for now."""
ELSEWHERE = frozenset({"SealedForAnother"})
"""Another worker can do it: the command looks for that one until it expires."""
WISHED_SECONDS = 1.0
"""As BUSY_SECONDS, for a job that shall be cancelled and must be asked whether it is done."""
DEFECTS_KEPT = 1000
RETRIES, RETRY_SECONDS, RETRY_LONGEST = 5, 10.0, 600.0
ELSEWHERE_LONGEST, ELSEWHERE_LIFE = 60.0, timedelta(days=1)
"""Seconds until the next worker may try; and for how long it is tried when the command has no expiry."""


@dataclass(frozen=True, slots=True)
class Limits:
    """`visibility`: seconds for which a delivery stays invisible after its worker's last sign of life. `attempts`: beginnings of a
    command without an orderly end after which it goes to the poison queue. Polls of an idle worker come `shortest` to `longest`
    seconds apart; `control`: seconds between polls of the control queue while a job runs."""

    visibility: float = 60.0
    attempts: int = 5
    shortest: float = 1.0
    longest: float = 30.0
    control: float = 1.0


@dataclass(frozen=True, slots=True)
class Queues:
    """Of one worker: where commands come from, where cancels come from, where what kills workers goes."""

    commands: Queue
    control: Queue
    poison: Queue


class Worker:
    """`cancel` of the settings ends the loops, and the jobs that are going on, in good order; `draining` takes no more commands,
    and lets those that run go on."""

    def __init__(
        self,
        queues: Queues,
        jobs: JobStore,
        outbox: Outbox,
        settings: Settings,
        log: FilteringBoundLogger,
        *,
        admit: Callable[[Message, str], Command],
        now: Callable[[], float],
        reveal: Callable[[Command], Callable[[protocol.Secret], str]],
        limits: Limits,
        beat: Callable[[str], None] = lambda who: None,
        redact: Callable[[Any], Any] = lambda message: message,
        forget: Callable[[Message], None] = lambda message: None,
        draining: threading.Event | None = None,
    ) -> None:
        self._queues = queues
        self._jobs = jobs
        self._outbox = outbox
        self.settings = settings
        self._clock = settings.clock
        self._log = log
        self._admit = admit
        self._now = now
        self._reveal = reveal
        self.limits = limits
        self._redact = redact
        self._forget = forget
        self._beat = beat
        self._stop = settings.cancel
        self._running: dict[str, Run] = {}  # by job
        self._lock = threading.Lock()
        self._defects: dict[str, int] = {}  # by message
        self._shown = threading.Event()
        self._draining = draining or threading.Event()
        self.idle_since = self._clock.monotonic()

    # -- loops

    def serve(self, who: str, *, once: bool = False) -> int:
        """Take and carry out commands until stopped: 0. With `once` until one has got its answer: that answer's exit code."""
        pace = Pace(shortest=self.limits.shortest, longest=self.limits.longest)
        while not self._stop.is_set() and not self._draining.is_set():
            self._beat(who)
            delivery = self._take(self._queues.commands)
            if delivery is None:
                self._wait_for_work(pace.idle())
                continue
            pace.busy()
            result = self._handle(delivery, who)
            self.idle_since = self._clock.monotonic()
            if once and result is not None:
                return result.exit_code
        return 0

    def obey_control(self, who: str) -> None:
        """Take cancels until stopped: often while a job runs, seldom otherwise."""
        pace = Pace(shortest=self.limits.shortest, longest=self.limits.longest)
        while not self._stop.is_set():
            self._beat(who)
            delivery = self._take(self._queues.control)
            if delivery is None:
                self._rest(pace.idle())
                continue
            pace.busy()
            self._handle(delivery, who)

    def _wait_for_work(self, seconds: float) -> None:
        """So long at most; less when a message was shown that somebody waits for."""
        until = self._clock.monotonic() + seconds
        while (
            (left := until - self._clock.monotonic()) > 0 and not self._shown.is_set() and not self._draining.is_set()
        ):
            if self._clock.wait(self._stop, min(left, self.limits.control)):
                return
        self._shown.clear()

    def _rest(self, seconds: float) -> None:
        """So long at most; a job that runs, or begins meanwhile, makes it short: it may be cancelled at any time."""
        until = self._clock.monotonic() + seconds
        while (left := until - self._clock.monotonic()) > 0:
            if self._clock.wait(self._stop, min(left, self.limits.control)) or self.jobs():
                return

    def jobs(self) -> tuple[str, ...]:
        """What this process works on."""
        with self._lock:
            return tuple(sorted(self._running))

    def _take(self, queue: Queue) -> Delivery | None:
        visibility = self.limits.visibility
        taken_at = self._clock.monotonic()  # before the request: its visibility began no sooner
        try:
            message = queue.take(visibility)
            return Delivery(queue, message, visibility, self._clock, taken_at) if message is not None else None
        except MoverError as error:
            self._log.warning("the queue does not answer", what=error.what, value=error.value)
            self._clock.wait(self._stop, BUSY_SECONDS)
            return None

    # -- one delivery

    def _handle(self, delivery: Delivery, who: str) -> Result | None:
        """The answer that was given; None when none was. A defect of ours ends this delivery, never the worker."""
        message = delivery.message
        try:
            result = self._handle_one(delivery, who)
            self._defects.pop(message.id, None)
            return result
        except Exception as error:
            if len(self._defects) > DEFECTS_KEPT:
                self._defects.clear()
            count = self._defects[message.id] = self._defects.get(message.id, 0) + 1
            body = defect(error, self._log, self.settings.environ)
        try:
            if count <= self.limits.attempts:  # what has a job is poisoned by its record, with its command
                delivery.queue.release(delivery.message, min(RETRY_LONGEST, RETRY_SECONDS * 2 ** (count - 1)))
                return None
            self._put_away(protocol.PoisonEntry(time=self._moment(), error=body, body=msgspec.Raw(b"null")))
            result = self._of_defect(delivery, body)
            self._deliver(result, delivery.command.reply if delivery.command is not None else None, self._log)
            delivery.queue.delete(delivery.message)
        except Exception as error:
            self._log.warning("a message that ends in a defect could not be put away", type=type(error).__name__)
            return None
        del self._defects[message.id]
        return result

    def _of_defect(self, delivery: Delivery, error: ErrorBody) -> Result:
        """The answer to a message that only ends in defects: to whoever commanded, if that was found out."""
        if delivery.command is not None:
            return failed(delivery.command, error, self._moment())
        return Result(command="", job="", time=self._moment(), kind="", status="failed", error=error)

    def _handle_one(self, delivery: Delivery, who: str) -> Result | None:
        try:
            with delivery.kept():
                command = delivery.command = self._admit(delivery.message, delivery.queue.name)
        except CommandRefused as error:
            return self._refuse(delivery, error)
        except MoverError as error:  # its claim check could not be fetched
            self._log.warning("a command could not be read: it waits", what=error.what, value=error.value)
            self._release(delivery, BUSY_SECONDS)
            return None
        log = self._log.bind(job=command.job, kind=command.kind, command=command.id)
        log.info("command taken", delivery=delivery.message.deliveries)
        try:
            if isinstance(command.payload, CancelPayload | FlrStopPayload):
                return self._cancel(delivery, command, command.payload, log)
            with delivery.kept():
                claimed = self._jobs.claim(self._fresh(command, delivery.message))
        except JobBusy as busy:
            self._wait_for_holder(delivery, command, busy, log)
            return None
        except (Damaged, UnsupportedFormat) as error:
            return self._answer(delivery, command.reply, failed(command, ErrorBody.of(error), self._moment()), log)
        except MoverError as error:
            log.warning("the job's record cannot be used: the command waits", what=error.what, value=error.value)
            self._release(delivery, BUSY_SECONDS)
            return None
        if isinstance(claimed, Ended):
            log.info("the command's work was done before: answered again")
            again = msgspec.structs.replace(claimed.result, command=command.id, already=True, time=self._moment())
            return self._answer(delivery, command.reply, again, log)
        try:
            if claimed.record.attempts > self.limits.attempts:
                return self._poison(delivery, command, claimed, log)
            return self._work(self._run(delivery, command, claimed, who, log))
        except Exception:
            claimed.abandon()
            raise

    def _run(self, delivery: Delivery, command: Command, held: HeldJob, who: str, log: FilteringBoundLogger) -> Run:
        return Run(
            command,
            held,
            delivery,
            replace(self.settings, reveal=self._reveal(command)),
            self._jobs,
            self._outbox,
            log,
            self._moment,
            lambda: self._beat(who),
        )

    def _fresh(self, command: Command, message: Message) -> JobRecord:
        body = protocol.encode(withhold(command))  # redacted with the record, at each of its writes
        now = self._moment()
        return JobRecord(
            version=VERSION,
            write_id="",
            job=command.job,
            kind=command.kind,
            subject=command.subject,
            state="running",
            command=command.id,
            message=message.id,
            worker=self.settings.worker,
            reply=command.reply,
            asked=datetime.fromtimestamp(message.inserted, UTC),
            began=now,
            updated=now,
            body=msgspec.Raw(body if len(body) <= KEPT_COMMAND_BYTES else b"null"),
        )

    def _refuse(self, delivery: Delivery, error: CommandRefused) -> Result | None:
        self._log.warning("a command was refused", what=error.what, value=error.value, message=delivery.message.id)
        result = Result(
            command=error.command,
            job=error.job,
            time=self._moment(),
            kind="",
            status="refused",
            error=ErrorBody.of(error),
        )
        return self._answer(delivery, error.reply, result, self._log)

    def _cancel(
        self, delivery: Delivery, command: Command, payload: CancelPayload | FlrStopPayload, log: FilteringBoundLogger
    ) -> Result | None:
        # A cancel that somebody put again is no new wish: it counts as of when it was issued, give or take the clocks.
        inserted = datetime.fromtimestamp(delivery.message.inserted, UTC)
        with delivery.kept():
            self._jobs.cancel(payload.target, min(inserted, command.issued + protocol.TOLERANCE), command.id)
            with self._lock:
                run = self._running.get(payload.target)
            if run is not None:
                run.look_for_wish()
            else:
                self._end_waiting(payload.target, log)
        result = Result(
            command=command.id,
            job=command.job,
            time=self._moment(),
            kind=command.kind,
            status="success",
            resource=payload.target,
        )
        return self._answer(delivery, command.reply, result, log)

    def _end_waiting(self, job: str, log: FilteringBoundLogger) -> None:
        """A job that waits for a session, a key or a service shall not wait on when it is cancelled. One that has changed nothing
        is ended from its record; any other is given to a worker at once, which finds out whether its point was committed."""
        try:
            found = self._jobs.claim_waiting(job)
        except (Damaged, UnsupportedFormat):
            return  # who claims the job hears of it
        if isinstance(found, JobRecord):
            self._show(found)
            return
        if found is None:
            return
        record = found.record
        result = Result(
            command=record.command,
            job=job,
            time=self._moment(),
            kind=record.kind,
            status="cancelled",
            resource=record.subject,
            error=ErrorBody.of(Cancelled("the command was cancelled while it waited", job)),
        )
        try:
            found.end(result)
        except Exception:
            found.abandon()
            raise
        log.info("a job that waited was cancelled", target=job)
        try:
            self._deliver(result, record.reply, log)
        except MoverError as error:
            log.warning("no answer could be given: the command shows again", why=error.what)

    def _show(self, record: JobRecord) -> None:
        """The message of a job that waits, now instead of later."""
        hidden = Message(record.message, record.receipt, b"", 1, 0.0)
        try:
            if record.receipt:
                self._queues.commands.release(hidden)
        except MoverError as error:
            self._log.info("a hidden command could not be shown: it shows by itself", what=error.what, job=record.job)
        self._shown.set()

    def _wait_for_holder(self, delivery: Delivery, command: Command, busy: JobBusy, log: FilteringBoundLogger) -> None:
        """A second copy of the command that the holder works on is not needed: the holder has a message of its own, which
        shows again if it dies. Anything else waits."""
        holder = busy.holder
        if holder is not None and holder.command == command.id and holder.message != delivery.message.id:
            log.info("the command was put twice: this copy goes", holder=holder.worker)
            try:
                delivery.queue.delete(delivery.message)
            except MoverError:
                pass  # it shows again and goes then
            return
        log.info("another worker is at this job: the command waits", holder=holder.worker if holder else "")
        self._release(delivery, BUSY_SECONDS)

    def _poison(self, delivery: Delivery, command: Command, held: HeldJob, log: FilteringBoundLogger) -> Result | None:
        """What ends its workers is kept for a person to look at, without its secrets."""
        last = held.record.last_error
        error = Poisoned(
            "a job was begun too often and never ended",
            f"{held.record.attempts - 1} times",
            "look at the workers' logs; `data-mover poison` shows it and sends it again",
        )
        body = ErrorBody.of(error)
        entry = protocol.PoisonEntry(
            time=self._moment(),
            job=command.job,
            command=command.id,
            kind=command.kind,
            error=last or body,
            body=held.record.body,
        )
        result = failed(command, body, self._moment())
        try:
            self._put_away(entry)
            held.end(result)
        except MoverError as failure:
            log.warning("the command could not be put away", what=failure.what)
            held.abandon()
            return None
        log.error("command poisoned", attempts=held.record.attempts)
        return self._answer(delivery, command.reply, result, log)

    def _put_away(self, entry: protocol.PoisonEntry) -> None:
        """Into the poison queue, which is made again when it was removed; without its command when that is too large."""
        for body in (entry.body, msgspec.Raw(b"null")):
            data = msgspec.json.encode(self._redact(msgspec.structs.replace(entry, body=body)))
            try:
                try:
                    self._queues.poison.put(data)
                except QueueMissing:
                    self._queues.poison.ensure()
                    self._queues.poison.put(data)
                return
            except UsageError:
                if bytes(body) == b"null":
                    raise

    # -- carrying one out

    def _work(self, run: Run) -> Result | None:
        job = run.command.job
        with self._lock:
            self._running[job] = run
        try:
            result = run.execute()
        finally:
            with self._lock:
                if self._running.get(job) is run:  # otherwise this worker lost the job, and took it again meanwhile
                    del self._running[job]
        if run.lost:
            run.log.warning("the command or its job is another worker's: stopped without an answer")
            run.give_back()
            return None
        error = result.error
        untouched = error is not None and error.type in ELSEWHERE
        if run.wished and untouched and not run.held.worked_before:
            result, error = cancelled(run.command, self._moment()), None
        if result.status == "cancelled" and not run.wished:
            stopping = "the worker is stopping: the command waits for another one"
            unsure = "it was not certain that this worker still had the command: it waits for another one"
            self._hand_back(run, stopping if self._stop.is_set() else unsure, 0.0)
            return None
        if error is not None and error.type in BUSY:
            why = "another worker holds the session: the command waits for it"
            self._hand_back(run, why, WISHED_SECONDS if run.wished else BUSY_SECONDS, said=run.wished)
            return None
        if error is not None and error.type in ELSEWHERE and self._may_look_elsewhere(run.command):
            takers = run.delivery.message.deliveries
            why = "another worker's key opens the command's secrets: it waits for that one"
            delay = min(ELSEWHERE_LONGEST, BUSY_SECONDS * 2 ** min(takers - 1, 10))
            self._hand_back(run, why, delay, said=takers > 1, untouched=True)
            return None
        retries = run.held.record.retries
        if error is not None and error.type in PASSING and retries < RETRIES:
            delay = WISHED_SECONDS if run.wished else min(RETRY_LONGEST, RETRY_SECONDS * 2**retries)
            self._hand_back(run, f"{error.what}: tried again in {delay:g} s", delay, error)
            return None
        try:
            run.held.end(result)
        except MoverError as failure:
            run.log.warning("the result could not be recorded: the command shows again", what=failure.what)
            return None
        return self._answer(run.delivery, run.command.reply, result, run.log)

    def _may_look_elsewhere(self, command: Command) -> bool:
        return self._moment() < (command.expires or command.issued + ELSEWHERE_LIFE)

    def _hand_back(
        self,
        run: Run,
        why: str,
        delay: float,
        error: ErrorBody | None = None,
        *,
        said: bool = False,
        untouched: bool = False,
    ) -> None:
        """In good order: the record says that the job waits, and its message shows again after `delay`. `said`: no event says it
        once more; `untouched`: the run has changed nothing."""
        now = self._moment()
        item = LogItem(
            command=run.command.id,
            job=run.command.job,
            time=now,
            status="warning" if error else "running",
            message=why,
            resource=run.command.subject,
            start=now,
        )
        if not said:
            self._outbox.send(item, run.command.reply)
        run.log.info(why)
        receipt = self._hide(run.delivery, delay) if delay else ""  # before the record, which holds it
        run.give_back(error, untouched=untouched, receipt=receipt)
        if not delay:
            self._release(run.delivery, 0.0)
        if not receipt or run.wished:
            return
        try:
            self._end_waiting(run.command.job, run.log)  # a cancel that came meanwhile found no job that waits
        except MoverError as failure:
            run.log.warning("it cannot be seen whether the job shall be cancelled", what=failure.what)

    def _answer(
        self, delivery: Delivery, reply: str | None, result: Result, log: FilteringBoundLogger
    ) -> Result | None:
        """The result's event, then the message goes. When the event cannot be sent the message stays: it is answered again."""
        figures: dict[str, Any] = {"status": result.status, "seconds": round(result.seconds, 2)}
        if result.error is not None:
            figures |= {"what": result.error.what, "value": result.error.value, "exit_code": result.error.exit_code}
        try:
            self._deliver(result, reply, log)
            delivery.queue.delete(delivery.message)
        except StaleReceipt:
            log.info("the command is in other hands already", **figures)
            return result
        except MoverError as error:
            log.warning("no answer could be given: the command shows again", why=error.what, **figures)
            return None
        log.info("command done", **figures)
        if result.status == "refused":
            return result  # what it names may be another's
        try:
            self._forget(delivery.message)
        except MoverError as error:
            log.warning("a command's claim check could not be removed", what=error.what, value=error.value)
        return result

    def _deliver(self, result: Result, reply: str | None, log: FilteringBoundLogger) -> None:
        """To the reply queue; what that queue will never take goes to the default one, in short."""
        try:
            self._outbox.deliver(result, reply)
        except QueueUnavailable:
            raise
        except MoverError as error:
            log.error("the reply queue does not take the result: it goes to the default one", what=error.what)
            short = Result(
                command=result.command,
                job=result.job,
                time=result.time,
                kind=result.kind,
                status=result.status,
                point=result.point,
                already=result.already,
                error=ErrorBody(what="the result could not be sent where it was wanted", exit_code=1),
            )
            self._outbox.deliver(short, None)

    def _hide(self, delivery: Delivery, delay: float) -> str:
        """The receipt by which the message can be shown sooner; empty when it could not be hidden for so long."""
        try:
            return delivery.queue.renew(delivery.message, max(delay, VISIBILITY_SHORTEST)).receipt
        except MoverError as error:
            self._log.warning("a command could not be given back: it shows again by itself", what=error.what)
            return ""

    def _release(self, delivery: Delivery, delay: float) -> None:
        try:
            delivery.queue.release(delivery.message, delay)
        except MoverError as error:
            self._log.warning("a command could not be given back: it shows again by itself", what=error.what)

    def _moment(self) -> datetime:
        return datetime.fromtimestamp(self._now(), UTC)
