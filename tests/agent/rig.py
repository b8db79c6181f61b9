# SPDX-License-Identifier: Apache-2.0
"""A worker in this process with all that it needs, over a queue service and a state store of the test's choice."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from agent import envelope
from agent.appliance import Appliance, QueueNames
from agent.envelope import Trust
from agent.jobs import JobStore
from agent.opening import Settings
from agent.outbox import Outbox
from agent.protocol import Command, Event, Result, decode_command
from agent.queue.base import Message, QueueService
from agent.records import JobRecord
from agent.redaction import Redactor
from agent.seal import Revealer, SealKey
from agent.signing import Signer
from agent.worker import Limits, Queues, Worker
from mover.clock import SYSTEM, Clock
from mover.store.base import Store

if TYPE_CHECKING:
    from tests.agent.conftest import Place

QUICK = Limits(visibility=30, shortest=0.02, longest=0.1, control=0.02)


class Logs(list[dict[str, Any]]):
    """A structlog logger that keeps its lines."""

    def bind(self, **_: object) -> Logs:
        return self

    def info(self, event: str, **values: object) -> None:
        self.append({"event": event, **values})

    warning = error = info


class Rig:
    """Workers and an appliance on one queue service and one state store."""

    def __init__(
        self,
        service: QueueService,
        state: Store,
        *,
        clock: Clock = SYSTEM,
        environ: Mapping[str, str] | None = None,
        signer: Signer | None = None,
        trust: Trust | None = None,
        allow_clear: bool = True,
        names: QueueNames | None = None,
    ) -> None:
        self.service, self.state, self.clock = service, state, clock
        self.names = names or QueueNames.of("workers")
        self.environ = dict(os.environ) if environ is None else environ
        self.trust = trust or Trust()
        self.allow_clear = allow_clear
        self.logs = Logs()
        self.key = SealKey.generate()
        self.redactor = Redactor()
        self.jobs = JobStore(state, clock)
        for name in (self.names.commands, self.names.control, self.names.poison, self.names.events):
            service.queue(name).ensure()
        self.appliance = Appliance(service, state, clock, names=self.names, signer=signer, recipients=[self.key.public])

    def worker(
        self,
        name: str = "w1",
        limits: Limits = QUICK,
        stop: threading.Event | None = None,
        service: QueueService | None = None,
    ) -> Worker:
        service = service or self.service
        settings = Settings(worker=name, environ=self.environ, cancel=stop or threading.Event(), clock=self.clock)

        def fetch(claim: envelope.Claim) -> bytes:
            return bytes(self.state.read(claim.name, 0, claim.size))

        def admit(message: Message, queue: str) -> Command:
            return envelope.admit(
                message.body,
                self.trust,
                fetch,
                queue=queue,
                now=service.now(),
                inserted=message.inserted,
                begun=lambda command: self.jobs.has_begun(command.job, command.id),
            )

        def forget(message: Message) -> None:
            claim = envelope.claim_of(message.body)
            if claim is not None:
                self.state.delete(claim.name)

        revealer = Revealer(self.environ, self.key, allow_clear=self.allow_clear, learned=self.redactor.learn)
        return Worker(
            Queues(
                service.queue(self.names.commands), service.queue(self.names.control), service.queue(self.names.poison)
            ),
            JobStore(self.state, self.clock, self.redactor.message),
            Outbox(service.queue, self.names.events, 3600, self.clock, self.logs, self.redactor.message),  # type: ignore[arg-type]
            settings,
            self.logs,  # type: ignore[arg-type]
            admit=admit,
            now=service.now,
            reveal=revealer.of,
            limits=limits,
            redact=self.redactor.message,
            forget=forget,
        )

    @contextmanager
    def running(self, name: str = "w1", limits: Limits = QUICK) -> Iterator[Worker]:
        """A worker with both its threads, until the block ends."""
        stop = threading.Event()
        worker = self.worker(name, limits, stop)
        threads = [threading.Thread(target=target, args=(name,)) for target in (worker.serve, worker.obey_control)]
        for thread in threads:
            thread.start()
        try:
            yield worker
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def submit(self, body: str | bytes) -> Command:
        data = body.encode() if isinstance(body, str) else body
        self.appliance.submit(data)
        return decode_command(data)

    def submit_raw(self, body: bytes) -> None:
        """Past the appliance, which would refuse it."""
        self.service.queue(self.names.commands).put(body)

    def events(self) -> list[Event]:
        """Those that have come since the last call."""
        return list(self.appliance.events())

    def results(self) -> list[Result]:
        return [event for event in self.events() if isinstance(event, Result)]

    def waiting(self) -> int:
        return self.service.queue(self.names.commands).length()


def job_record(at: datetime, **fields: Any) -> JobRecord:
    """As the first delivery of a command at that time makes it; `fields` otherwise."""
    made = JobRecord(
        version=1,
        write_id="",
        job="Job:1",
        kind="backup",
        subject="vm",
        state="running",
        command="c1",
        message="m1",
        worker="w1",
        asked=at,
        began=at,
        updated=at,
    )
    return msgspec.structs.replace(made, **fields)


def changed(body: str, **fields: object) -> bytes:
    """A command's JSON with other fields."""
    return json.dumps(json.loads(body) | fields).encode()


def command(place: Place, job: str = "j1", **fields: object) -> bytes:
    return changed(place.back_up("--print-command", "--job", job).out, **fields)


def points(place: Place) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = place.dm("points", "--json").document["points"]
    return found
