# SPDX-License-Identifier: Apache-2.0
"""A worker's process: what it is made of, its threads, and what it says of itself.

Threads: one for each job at a time, one that looks for cancels, one that feeds the watchdog, and the main one, which keeps house
and waits to be stopped.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import io
import secrets
import threading
from collections import deque
from collections.abc import Callable, Mapping, MutableMapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from agent import bundle, envelope, logs, notify
from agent.appliance import QueueNames
from agent.config import Config
from agent.envelope import Trust
from agent.errors import EXIT_IDLE, QueueMissing, QueueUnavailable
from agent.files import is_free, write_new
from agent.imds import ADDRESS, Announcement, MetadataService, Watch
from agent.jobs import JobStore
from agent.kinds.work import Work
from agent.opening import Settings, open_metered, state_url
from agent.outbox import Outbox
from agent.protocol import (
    PAYLOADS,
    SCHEMA,
    CollectLogsPayload,
    Command,
    Failed,
    Heartbeat,
    Ready,
    StopReason,
    WorkerState,
)
from agent.queue.base import Message
from agent.queue.open import open_service
from agent.queue.patient import PatientService
from agent.records import WorkerRecord
from agent.redaction import Redactor
from agent.run import defect
from agent.seal import Revealer, SealKey
from agent.signing import load_public
from agent.worker import Limits, Queues, Worker
from mover.clock import SYSTEM, Clock
from mover.errors import AccessDenied, Cancelled, MoverError, StoreUnavailable

WORKERS_KEPT = timedelta(days=1)
"""After its last word: the record of a worker that did not end in good order."""
NOTICE_SECONDS, LEAVE_SECONDS, ACKNOWLEDGE_SECONDS = 25.0, 5.0, 5.0
"""Preempt comes 30 s after it was announced."""
LEAVE_LONGEST = 3600.0
"""The longest notice of Azure's is 15 minutes: what is still announced after an hour is taken for an error of its."""
LOOK_SECONDS, FIRST_WAIT, LONGEST_WAIT, TIDY_SECONDS, FIRST_TIDY = 1.0, 1.0, 60.0, 12 * 3600.0, 600.0


class Daemon:
    """One worker process. `reload_with`, when set, is called for a new configuration by the thread that keeps house."""

    def __init__(
        self, config: Config, environ: Mapping[str, str], stop: threading.Event, clock: Clock = SYSTEM
    ) -> None:
        self.reload_with: Callable[[], Config] | None = None
        self._config = config
        self._environ = environ
        self._stop = stop
        self._clock = clock
        self._redactor = Redactor()
        self._redactor.learn_environment(environ)
        self._recent: deque[str] = deque(maxlen=5000)
        self._log = logs.set_up(config["log.level"], config["log.format"], self._noted, clock=clock)
        self._key = SealKey.load(config["trust.seal_key"]) if config["trust.seal_key"] else SealKey.generate()
        self._trust = Trust.of(*(load_public(text) for text in config["trust.appliance_keys"]))
        self._state: WorkerState = "starting"
        self._since = self._told_at = float("-inf")
        self._tidied_at = clock.monotonic() - TIDY_SECONDS + FIRST_TIDY
        self._codes: list[int] = []
        self._is_ready = False
        self._draining = threading.Event()
        self.end_within: Callable[[float], None] = lambda seconds: stop.set()
        self._ending: Announcement | None = None
        self._reason: StopReason = "asked"

    def drain(self) -> None:
        """Take no more commands, and end when those that run are done."""
        self._reason = "upgrade"
        self._draining.set()

    def _noted(self, logger: object, name: str, event: MutableMapping[str, Any]) -> Any:
        """The one redaction of the log; what passed it is kept for a support bundle."""
        redacted = self._redactor(logger, name, event)
        self._recent.append(msgspec.json.encode(redacted).decode())
        return redacted

    # -- assembling

    def _open(self) -> None:
        """Services, stores and the worker; nothing is asked of them yet."""
        config = self._config
        self._notify = notify.notifier(self._environ)
        self._watchdog = notify.Watchdog(self._clock, self._notify, notify.watchdog_seconds(self._environ))
        self._clock = clock = notify.LivingClock(self._clock, self._watchdog.beat)
        names = QueueNames.of(config["queue.name"])
        self._events = config["queue.events"] or names.events
        service = open_service(config["queue.service"], self._environ, clock)
        self._service = PatientService(service, clock, patience=config["queue.patience"], cancel=self._stop)
        self._settings = Settings(
            worker=config["worker.name"],
            environ=self._environ,
            clock=clock,
            checkpoint_seconds=config["worker.checkpoint"],
            bandwidth=config["worker.bandwidth"],
            cancel=self._stop,
            memory=config["worker.memory"] // config["worker.jobs"],
            collect_logs=self._collect_logs,
        )
        url = config["state.url"] or state_url(config["queue.service"])
        # worker.bandwidth is for disks: behind a job's data its record and its command would wait until they are another's
        unlimited = dataclasses.replace(self._settings, bandwidth=None)
        self._store, impatient = open_metered(url, unlimited, config["queue.patience"])
        self._jobs = JobStore(self._store, clock, self._redactor.message)
        # Until it is ready each service is asked once at a time, so that why it is not ready is told at once.
        self._first_asked = JobStore(impatient, clock, self._redactor.message), service
        self._names = names.commands, names.control, names.poison
        self._queues = Queues(*(self._service.queue(name) for name in self._names))
        ttl = config["queue.events_ttl"]
        self._outbox = Outbox(self._service.queue, self._events, ttl, clock, self._log, self._redactor.message)
        # A heartbeat that the queue does not take at once is late already: the next one says more.
        self._pulse = Outbox(service.queue, self._events, ttl, clock, self._log, self._redactor.message)
        revealer = Revealer(
            self._environ, self._key, allow_clear=config.allows_clear_secrets, learned=self._redactor.learn
        )
        self._worker = Worker(
            self._queues,
            self._jobs,
            self._outbox,
            self._settings,
            self._log,
            admit=self._admit,
            now=self._service.now,
            reveal=revealer.of,
            limits=_limits(config),
            beat=self._watchdog.beat,
            redact=self._redactor.message,
            forget=self._forget,
            draining=self._draining,
        )

    def _admit(self, message: Message, queue: str) -> Command:
        return envelope.admit(
            message.body,
            self._trust,
            self._fetch,
            queue=queue,
            now=self._service.now(),
            inserted=message.inserted,
            begun=lambda command: self._jobs.has_begun(command.job, command.id),
        )

    def _forget(self, message: Message) -> None:
        """A large command that was answered is not needed any more."""
        claim = envelope.claim_of(message.body)
        if claim is not None:
            self._store.delete(claim.name)

    def _fetch(self, claim: envelope.Claim) -> bytes:
        return bytes(self._store.read(claim.name, 0, claim.size))

    def _close(self) -> None:
        self._store.close()
        self._service.close()

    @property
    def stop_seconds(self) -> float:
        """How long an orderly end may take."""
        seconds: float = self._config["worker.stop"]
        return seconds

    # -- running

    def run(self, *, once: bool = False) -> int:
        """Until stopped. The exit code: 0, or with `once` that of the one command's answer."""
        self._open()
        with self._watchdog:
            if not self._config.asks_azure:
                return self._run(once)
            service = MetadataService(self._environ.get("DATA_MOVER_METADATA", ADDRESS))
            self._wait_for_leave(service)
            with Watch(service, self._clock, self._heard):
                code = self._run(once)
            if self._ending is not None and self._ending.alone:
                try:
                    service.acknowledge(self._ending, ACKNOWLEDGE_SECONDS)
                except (OSError, ValueError):
                    pass  # then it comes at its time
            return code

    def _heard(self, announcement: Announcement) -> None:
        """Azure has something in mind for this VM."""
        self._log.warning("announced", what=announcement.kind, not_before=announcement.not_before or "now")
        if announcement.ends:
            self._ending, self._reason = announcement, "announced"
            self.end_within(min(self.stop_seconds, NOTICE_SECONDS))

    def _wait_for_leave(self, service: MetadataService) -> None:
        """Until Azure has nothing more in mind that would end this VM: a command taken before would only be handed back."""
        until = self._clock.monotonic() + LEAVE_LONGEST
        told = False
        while not self._is_to_end() and self._clock.monotonic() < until:
            try:
                if not any(one.ends for one in service.announcements(ACKNOWLEDGE_SECONDS)):
                    return
            except (OSError, ValueError):
                return
            if not told:
                self._log.warning("no command is taken: this VM will be taken away or restarted")
            told = True
            self._tell("recovering")
            self._extend(LEAVE_SECONDS)
            self._clock.wait(self._stop, LEAVE_SECONDS)

    def _is_to_end(self) -> bool:
        return self._stop.is_set() or self._draining.is_set()

    def _extend(self, seconds: float) -> None:
        """The unit's TimeoutStartSec is for hangs: this start takes so much longer."""
        if self._notify is not None:
            self._notify(f"EXTEND_TIMEOUT_USEC={int((seconds + 60.0) * 1e6)}")

    def _run(self, once: bool) -> int:
        threads: list[threading.Thread] = []
        house = threading.current_thread().name
        self._watchdog.watch(house)
        try:
            if not self._get_ready():
                return 0
            self._is_ready = True
            if self._notify is not None:
                self._notify("READY=1")
            threads.append(threading.Thread(target=self._obey_control, name="control"))
            for number in range(self._config["worker.jobs"]):
                name = f"job-{number}"
                threads.append(threading.Thread(target=self._serve, args=(name, once), name=name))
            for thread in threads:
                self._watchdog.watch(thread.name)
                thread.start()
            self._keep_house(threads[1:], once)
            self._tell("stopping")
            if self._notify is not None:
                self._notify("STOPPING=1")
        finally:
            self._watchdog.forget(house)  # it waits for the others, each of which is watched
            self._stop.set()  # whatever ended this thread: the others do not live on without it
            for thread in threads:
                thread.join()
            self._withdraw()
            self._close()
        self._log.info("stopped")
        return self._codes[0] if self._codes else 0

    def _get_ready(self) -> bool:
        """Queues there, state store reachable, and said so; asked again until then. False: told to stop before."""
        wait = FIRST_WAIT
        refused = False
        _, service = self._first_asked
        while not self._is_to_end():
            self._extend(wait)
            try:
                for name in (*self._names, self._events):
                    service.queue(name).ensure()
                self._tell("idle" if self._state == "recovering" else "starting")
                self._pulse.deliver(
                    Ready(
                        time=self._moment(),
                        worker=self._settings.worker,
                        queue=self._config["queue.name"],
                        version=importlib.metadata.version("data-mover"),
                        schema=SCHEMA,
                        kinds=tuple(PAYLOADS),
                        seal=self._key.public,
                    )
                )
                self._log.info("ready", worker=self._settings.worker, queue=self._service.where)
                return True
            except Cancelled:
                break  # it was waiting for the state store when it was told to stop
            except (QueueUnavailable, StoreUnavailable, AccessDenied) as error:
                # A right that was given to this VM's identity a moment ago is known everywhere in some minutes.
                if isinstance(error, AccessDenied) and self._notify is None:
                    raise  # somebody started it at a terminal
                self._log.warning("not ready", what=error.what, value=error.value, hint=error.hint, again_in=wait)
                self._tell("recovering")
                if isinstance(error, AccessDenied) and not refused:
                    refused = True
                    self._pulse.send(self._not_ready(error))
                self._extend(wait)
                self._clock.wait(self._stop, wait)
                wait = min(LONGEST_WAIT, wait * 2)
        return False

    def _not_ready(self, error: MoverError) -> Failed:
        lines = (error.value,) if error.value else ()
        return Failed(
            time=self._moment(),
            worker=self._settings.worker,
            step="start",
            what=error.what,
            hint=error.hint,
            lines=lines,
        )

    def _serve(self, who: str, once: bool) -> None:
        try:
            code = self._worker.serve(who, once=once)
            if once:
                self._codes.append(code)
        except Exception as error:
            self._end_with(error)
        finally:
            self._watchdog.forget(who)

    def _obey_control(self) -> None:
        try:
            self._worker.obey_control("control")
        except Exception as error:  # a worker that obeys no cancel is not to live on
            self._end_with(error)
        finally:
            self._watchdog.forget("control")

    def _end_with(self, error: Exception) -> None:
        """A defect of a loop itself: the process ends with its code, and is started again."""
        self._codes.append(defect(error, self._log, self._environ).exit_code)
        self._stop.set()

    def _keep_house(self, servers: list[threading.Thread], once: bool) -> None:
        """Until stopped, or no thread serves any more: heartbeat, reload, old records, idle exit."""
        while any(thread.is_alive() for thread in servers):
            if self._clock.wait(self._stop, 0.05 if once else LOOK_SECONDS):
                return
            if self.reload_with is not None:
                self._reload(self.reload_with)
            jobs = self._tell_work()
            now = self._clock.monotonic()
            if now - self._tidied_at > TIDY_SECONDS:
                self._tidied_at = now
                self._tidy()
            idle = self._config["worker.idle_exit"]
            if idle and not jobs and now - self._worker.idle_since >= idle:
                self._log.info("nothing to do: the worker ends", idle=idle)
                self._reason = "idle"
                self._codes.append(EXIT_IDLE)
                return

    def _reload(self, load: Callable[[], Config]) -> None:
        self.reload_with = None
        if self._notify is not None:
            self._notify("RELOADING=1")
        try:
            self._redactor.learn_environment(self._environ)
            self._config, applied, restart = self._config.reloaded(load())
            self._worker.limits = _limits(self._config)
            self._settings = dataclasses.replace(
                self._settings,
                checkpoint_seconds=self._config["worker.checkpoint"],
                bandwidth=self._config["worker.bandwidth"],
                memory=self._config["worker.memory"] // self._config["worker.jobs"],
            )
            self._worker.settings = self._settings
            self._log.info("configuration read anew", applied=applied, needs_restart=restart)
        except MoverError as error:
            self._log.error("the new configuration is not used", what=error.what, value=error.value, hint=error.hint)
        if self._notify is not None:
            self._notify("READY=1")

    def _tell_work(self) -> tuple[str, ...]:
        jobs = self._worker.jobs()
        self._tell("busy" if jobs else "idle")
        return jobs

    def _tell(self, state: WorkerState) -> None:
        """Heartbeat: when the state changes, and now and then."""
        now = self._clock.monotonic()
        changed = state != self._state
        if not changed and now - self._told_at < self._config["state.heartbeat"]:
            return
        if changed:
            self._state, self._since = state, self._service.now()
        self._told_at = now
        moment, since = self._moment(), datetime.fromtimestamp(max(0.0, self._since), UTC)
        jobs = self._worker.jobs()
        if self._notify is not None:
            self._notify(f"STATUS={state}{': ' + ', '.join(jobs) if jobs else ''}")
        reason = self._reason if state == "stopping" else None
        self._pulse.send(
            Heartbeat(time=moment, worker=self._settings.worker, state=state, since=since, jobs=jobs, reason=reason)
        )
        record = WorkerRecord(
            version=1,
            worker=self._settings.worker,
            state=state,
            since=since,
            updated=moment,
            seal=self._key.public,
            queue=self._config["queue.name"],
            release=importlib.metadata.version("data-mover"),
            jobs=jobs,
        )
        try:
            (self._jobs if self._is_ready else self._first_asked[0]).publish(record)
        except MoverError as error:
            if not self._is_ready and state != "recovering":
                raise
            self._log.warning("the worker's record could not be written", what=error.what, value=error.value)

    def _withdraw(self) -> None:
        try:
            self._jobs.withdraw(self._settings.worker)
        except MoverError:
            pass  # it grows old and is tidied away

    def _tidy(self) -> None:
        """As long as it takes: meanwhile the worker lives, says so, and can be stopped."""
        house = threading.current_thread().name

        def go_on() -> bool:
            self._watchdog.beat(house)
            self._tell_work()
            return not self._stop.is_set()

        now = self._moment()
        kept = timedelta(seconds=self._config["state.records_kept"])
        try:
            removed = self._jobs.tidy(now - kept, now - WORKERS_KEPT, go_on)
        except MoverError as error:
            self._log.warning("old records could not be removed", what=error.what, value=error.value)
            return
        if removed:
            self._log.info("old records removed", count=removed)

    def _moment(self) -> datetime:
        return datetime.fromtimestamp(self._service.now(), UTC)

    # -- collect-logs

    def _collect_logs(self, work: Work, payload: CollectLogsPayload) -> None:
        what, command = "the support bundle", work.command.id
        if payload.to is not None:
            work.outcome.details["file"] = payload.to
            if not is_free(payload.to, lambda file: bundle.is_of(file, command), what):
                return  # by the same command, before its worker ended
        state = {"worker": self._settings.worker, "state": self._state, "jobs": self._worker.jobs()}
        out = io.BytesIO()
        members = bundle.write(
            out,
            configuration=self._config.shown(),
            state=state,
            command=command,
            log_lines=list(self._recent),
            events=[*self._pulse.recent, *self._outbox.recent],
            redact=self._redactor.data,
            now=int(self._service.now()),
        )
        data = out.getvalue()
        if payload.to is not None:
            write_new(payload.to, data, what)
        else:
            name = f"bundles/{secrets.token_hex(16)}"
            self._store.put(name, [data])
            work.outcome.details["object"] = name
        work.outcome.details["members"] = ", ".join(members)
        work.outcome.statistics["size"] = float(len(data))

    # -- --check

    def check(self) -> int:
        """Print what the configuration means and whether what it names answers; the exit code of the first failure."""
        self._open()
        codes = []
        try:
            for what, ask in (
                (f"queue service {self._service.where}", lambda: self._queues.commands.length()),
                ("state store", lambda: next(iter(self._store.list("workers/")), None)),
            ):
                try:
                    ask()
                    print(f"ok: {what}")
                except QueueMissing:
                    print(f"ok: {what} (the queue {self._config['queue.name']} is not there yet)")
                except MoverError as error:
                    print(f"failed: {what}: {error}")
                    codes.append(error.exit_code)
        finally:
            self._close()
        signed = (
            f"{len(self._trust.keys)} appliance key(s)"
            if self._trust
            else "whoever can write to the queue: trust.appliance_keys is empty"
        )
        print(f"obeys: {signed}")
        print(f"secrets in the clear: {'taken' if self._config.allows_clear_secrets else 'refused'}")
        return codes[0] if codes else 0


def _limits(config: Config) -> Limits:
    return Limits(
        visibility=config["queue.visibility"],
        attempts=config["queue.deliveries"],
        shortest=config["queue.poll_shortest"],
        longest=config["queue.poll_longest"],
        control=config["queue.control_poll"],
    )
