# SPDX-License-Identifier: Apache-2.0
"""The appliance's side of the protocol: issue commands, sign them, seal their secrets, follow what becomes of them.

The command line uses this class, and so can an appliance. It looks at job records, which nobody uses up, to show a job to
people; `events` takes the reply queue's messages, which only one reader may do.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec

from agent import envelope, protocol
from agent.errors import CommandRefused, JobNotFound, QueueMissing
from agent.jobs import JobLine, JobStore
from agent.protocol import CONTROL_KINDS, MOST_KEYS, CancelPayload, Command, Event, Payload, PoisonEntry
from agent.queue.base import Message, Queue, QueueService
from agent.records import JobRecord, WorkerRecord
from agent.redaction import HIDDEN
from agent.seal import holds_clear, is_withheld, seal_all
from agent.signing import Signer
from mover.clock import Clock
from mover.errors import MoverError, UsageError
from mover.store.base import Store

LIFETIME = timedelta(days=7)
SEARCH_SECONDS = 60.0
"""For which messages that are looked through are hidden."""
CLAIMS = "claims/"


@dataclass(frozen=True, slots=True)
class QueueNames:
    """The four queues of a group of workers."""

    commands: str
    control: str
    poison: str
    events: str

    @classmethod
    def of(cls, name: str) -> QueueNames:
        return cls(name, f"{name}-control", f"{name}-poison", f"{name}-events")


@dataclass(frozen=True, slots=True)
class Poison:
    """A message of the poison queue. `entry` None: it cannot be read."""

    id: str
    entry: PoisonEntry | None
    deliveries: int


class Appliance:
    """`signer` None: commands go unsigned, for workers that know no appliance's key. `recipients`: the public keys that secrets
    are sealed to; None: those of the workers that are there. `reply`: the queue that wants the events. `allow_clear`: where there
    is no key to seal to, secrets travel in the clear."""

    def __init__(
        self,
        service: QueueService,
        state: Store,
        clock: Clock,
        *,
        names: QueueNames | None = None,
        signer: Signer | None = None,
        recipients: Sequence[bytes] | None = None,
        reply: str | None = None,
        lifetime: timedelta = LIFETIME,
        allow_clear: bool = False,
    ) -> None:
        self._service = service
        self._state = state
        self._clock = clock
        self._names = names or QueueNames.of("workers")
        self._signer = signer
        self._recipients = recipients
        self._reply = reply
        self._lifetime = lifetime
        self._allow_clear = allow_clear
        self.records = JobStore(state, clock)

    # -- issuing

    def issue(self, kind: str, payload: Payload, *, job: str | None = None) -> Command:
        """Make a command and put it into the queue, its clear secrets sealed. UsageError when there is no key to seal to."""
        issued = datetime.fromtimestamp(round(self._service.now(), 3), UTC)
        command = Command(
            schema=protocol.SCHEMA,
            id=secrets.token_hex(16),
            job=job or f"{kind}-{secrets.token_hex(8)}",
            kind=kind,
            issued=issued,
            expires=issued + self._lifetime,
            to=self._queue_for(kind),
            reply=self._reply,
            payload=payload,
        )
        keys = self._recipients if self._recipients is not None else self._keys_of_workers()
        if keys:
            command = seal_all(command, keys)
        elif holds_clear(command) and not self._allow_clear:
            hint = "start a worker, or give the public key that its `ready` event told"
            raise UsageError("there is no worker whose key a secret could be sealed to", self._names.commands, hint)
        self.submit(protocol.encode(command))
        return command

    def _keys_of_workers(self) -> list[bytes]:
        """Of those heard last: no more than a secret can be sealed to."""
        heard = sorted(self.records.workers(), key=lambda worker: worker.updated, reverse=True)
        return list(dict.fromkeys(worker.seal for worker in heard if worker.seal))[:MOST_KEYS]

    def submit(self, body: bytes) -> Command:
        """Put a command that exists, byte for byte, into the queue that it is for."""
        command = protocol.decode_command(body)
        queue = self._queue_for(command.kind)
        if command.to is not None and command.to != queue:
            raise UsageError(
                "a command for another queue", f"{command.to}, this is {queue}", "name the queue it is for"
            )
        message = envelope.wrap(body, signer=self._signer, claim_to=self._put_claim)
        # Not with the command's life as the message's: a job that takes longer would lose its message under it.
        self._open(queue).put(message)
        return command

    def cancel(self, job: str) -> Command:
        """Wish that a job ends, begun or not."""
        return self.issue("cancel", CancelPayload(target=job))

    def _queue_for(self, kind: str) -> str:
        return self._names.control if kind in CONTROL_KINDS else self._names.commands

    def _open(self, name: str) -> Queue:
        return self._service.queue(name)

    def _put_claim(self, body: bytes) -> envelope.Claim:
        name = CLAIMS + secrets.token_hex(16)
        self._state.put(name, [body])
        return envelope.Claim.of(name, body)

    # -- following

    def job(self, job: str) -> JobRecord | None:
        """What is known of a job; None: no worker has begun it."""
        return self.records.read(job)

    def jobs(self) -> list[JobLine]:
        return sorted(self.records.lines(), key=lambda line: line.updated)

    def workers(self) -> list[WorkerRecord]:
        return self.records.workers()

    def expect(self, jobs: Sequence[str]) -> list[str]:
        """Those of the jobs that no worker has begun. JobNotFound for one of which no command waits either, as far as can be seen:
        a message that a worker has just taken is hidden, and of many only the first 32 can be looked at."""
        unknown = [job for job in jobs if self.records.read(job) is None]
        if unknown:
            hidden, waiting = self._waiting()
            for job in unknown:
                if job not in waiting and not hidden and self.records.read(job) is None:
                    raise JobNotFound("the queue knows no such job", job[:128])
        return unknown

    def _waiting(self) -> tuple[bool, set[str]]:
        """(whether there are messages that cannot be seen, jobs of those that can)."""
        hidden, jobs = False, set()
        for name in (self._names.commands, self._names.control):
            queue = self._open(name)
            try:
                count, seen = queue.length(), queue.peek(32)
            except QueueMissing:
                continue
            hidden = hidden or count > len(seen)
            for waiting in seen:
                try:
                    jobs.add(envelope.look(waiting.body, self._fetch).job)
                except CommandRefused:
                    continue
        return hidden, jobs

    def _fetch(self, claim: envelope.Claim) -> bytes:
        return bytes(self._state.read(claim.name, 0, claim.size))

    def events(self, *, visibility: float = 60.0) -> Iterator[Event]:
        """Events of the reply queue, each deleted once the next is asked for; ends when there is none at the moment."""
        queue = self._open(self._reply or self._names.events)
        while (message := queue.take(visibility)) is not None:
            try:
                yield protocol.decode_event(message.body)
            except msgspec.MsgspecError:
                pass  # of a newer worker, or nobody's: it would come again for ever
            queue.delete(message)

    # -- poison

    def poisoned(self) -> list[Poison]:
        """What ended its workers; at most the 32 oldest."""
        found = []
        for waiting in self._open(self._names.poison).peek(32):
            try:
                entry = msgspec.json.decode(waiting.body, type=PoisonEntry)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                entry = None
            found.append(Poison(waiting.id, entry, waiting.deliveries))
        return found

    def send_again(self, message: str) -> Command:
        """Issue a poisoned command anew, with a new id and the same job, and take it out of the poison queue."""
        queue = self._open(self._names.poison)
        others: list[Message] = []  # held until the one is found: given back, the oldest would come again and again
        try:
            while (taken := queue.take(SEARCH_SECONDS)) is not None and taken.id not in {other.id for other in others}:
                if taken.id == message:
                    return self._issue_again(queue, taken)
                others.append(taken)
        finally:
            for other in others:
                try:
                    queue.release(other)
                except MoverError:
                    continue  # it shows again by itself, in a minute
        raise JobNotFound("the poison queue has no such message", message[:128], "`data-mover poison` lists them")

    def _issue_again(self, queue: Queue, taken: Message) -> Command:
        try:
            entry = msgspec.json.decode(taken.body, type=PoisonEntry)
            kept = protocol.decode_command(bytes(entry.body)) if bytes(entry.body) != b"null" else None
        except (msgspec.MsgspecError, CommandRefused, UnicodeDecodeError):
            kept = None
        if kept is None or is_withheld(kept) or HIDDEN.encode() in bytes(entry.body):
            queue.release(taken)
            hint = "issue it anew where it came from: its secrets, or all of it, were not kept"
            raise UsageError("this command cannot be sent again from here", taken.id, hint)
        command = self.issue(kept.kind, kept.payload, job=kept.job)
        queue.delete(taken)
        return command
