# SPDX-License-Identifier: Apache-2.0
"""From a queue's message to a command that may be obeyed: signature, claim check, addressee, expiry (docs/protocol.md).

A message is a command's JSON as it stands, or `DMC1 `, a header in JSON on one line, and the command's exact bytes. The
signature is over the SHA-256 of those bytes, so that what is claim-checked is verified before it is fetched. With a trusted key
configured, what is not signed by one, for this queue, for a limited time, is refused; every refusal is a CommandRefused that
shows nothing of what the message held. Whether a command was carried out before is `agent.jobs`' question.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated

import msgspec
from msgspec import Meta

from agent import protocol
from agent.errors import CommandRefused, Expired, Forged, Misaddressed
from agent.protocol import MAX_BYTES, TOLERANCE, Command
from agent.queue.base import MAX_BODY
from agent.signing import Signer, key_id, verify
from mover.errors import ObjectNotFound, ShortObject

MAGIC = b"DMC1 "
DOMAIN = b"data-mover command 1\0"
MAX_HEADER = 2048
LONGEST_LIFE = timedelta(days=7)

Hex64 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}(?![\s\S])")]


class Claim(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where a command's bytes are, in the workers' state store, and what they are."""

    name: Annotated[str, Meta(pattern=r"^claims/[0-9a-f]{32}(?![\s\S])")]
    size: Annotated[int, Meta(ge=1, le=MAX_BYTES)]
    sha256: Hex64

    @classmethod
    def of(cls, name: str, body: bytes) -> Claim:
        return cls(name=name, size=len(body), sha256=hashlib.sha256(body).hexdigest())


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """`key` names the key of `signature`; neither, or both."""

    key: Annotated[str, Meta(pattern=r"^[0-9a-f]{16}(?![\s\S])")] | None = None
    signature: Annotated[bytes, Meta(min_length=64, max_length=64)] | None = None
    claim: Claim | None = None


@dataclass(frozen=True)
class Trust:
    """The appliances' public keys by id. None at all: whoever can write to the queue is obeyed."""

    keys: Mapping[str, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, *public: bytes) -> Trust:
        return cls({key_id(key): key for key in public})

    def __bool__(self) -> bool:
        return bool(self.keys)


Fetch = Callable[[Claim], bytes]


def wrap(body: bytes, *, signer: Signer | None, claim_to: Callable[[bytes], Claim] | None) -> bytes:
    """A message for the queue. A command that is too large for one goes to `claim_to` first."""
    signature = signer.sign(_signed(hashlib.sha256(body).digest())) if signer else None
    header = Header(key=signer.id if signer else None, signature=signature)
    message = body if signer is None and body.startswith(b"{") else _message(header, body)
    if len(message) <= MAX_BODY:
        return message
    if claim_to is None:
        raise CommandRefused(
            "a command is too large for the queue", f"{len(body)} bytes", "a state store is needed for it"
        )
    return _message(msgspec.structs.replace(header, claim=claim_to(body)), b"")


def _message(header: Header, body: bytes) -> bytes:
    return MAGIC + msgspec.json.encode(header) + b"\n" + body


def _signed(digest: bytes) -> bytes:
    return DOMAIN + digest


def unwrap(message: bytes, trust: Trust, fetch: Fetch) -> bytes:
    """The command's bytes, signed by a trusted key where there is one. Nothing is fetched for a signature that is wrong."""
    if len(message) > MAX_BODY:
        raise CommandRefused("a message is too large", f"{len(message)} bytes")
    if not message.startswith(MAGIC):
        if trust:
            raise Forged(
                "a command without a signature", f"{len(message)} bytes", "this worker obeys signed commands only"
            )
        return message
    line, newline, body = message[len(MAGIC) :].partition(b"\n")
    if not newline or len(line) > MAX_HEADER:
        raise CommandRefused("a command's envelope is malformed", f"{len(line)} bytes before the first line's end")
    try:
        header = msgspec.json.decode(line, type=Header, strict=True)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise CommandRefused("a command's envelope is malformed", f"a header of {len(line)} bytes") from None
    if (header.key is None) != (header.signature is None) or (header.claim is not None and body):
        raise CommandRefused("a command's envelope does not add up", f"a header of {len(line)} bytes")
    digest = bytes.fromhex(header.claim.sha256) if header.claim else hashlib.sha256(body).digest()
    if trust:
        public = trust.keys.get(header.key or "")
        if public is None:
            hint = "add the appliance's public key to trust.appliance_keys, if it is the appliance's"
            raise Forged("a command that no trusted key has signed", header.key or "unsigned", hint)
        if not verify(public, header.signature or b"", _signed(digest)):
            raise Forged(
                "a command whose signature is wrong", f"key {header.key}", "it was altered, or is not the appliance's"
            )
    if header.claim is None:
        return body
    try:
        body = fetch(header.claim)
    except (ObjectNotFound, ShortObject):
        hint = "a command that was answered is removed: issue it anew if it was not"
        raise CommandRefused("a claim check whose command is not there", header.claim.name, hint) from None
    if len(body) != header.claim.size or hashlib.sha256(body).digest() != digest:
        raise Forged("a claim check does not hold what its message says", header.claim.name)
    return body


def admit(
    message: bytes,
    trust: Trust,
    fetch: Fetch,
    *,
    queue: str,
    now: float,
    inserted: float | None = None,
    begun: Callable[[Command], bool] = lambda command: False,
) -> Command:
    """The command, if it may be obeyed. `now`, and when the message was `inserted`: the queue service's time, Unix seconds.

    One whose time is over is admitted when a worker has `begun` it, in time; but not when the message was put after it. Deliveries
    do not tell: whoever can write to the queue could keep an old message hidden until nobody remembers it.
    """
    body = unwrap(message, trust, fetch)
    try:
        command = protocol.decode_command(body)
    except CommandRefused as error:
        error.command, error.job, error.reply = protocol.ids_of(body)
        raise
    try:
        moment = datetime.fromtimestamp(now, UTC)
        try:
            _check(command, bool(trust), queue, moment, moment)
        except Expired:
            if inserted is None or not begun(command):
                raise
            _check(command, bool(trust), queue, moment, datetime.fromtimestamp(inserted, UTC))
    except CommandRefused as error:
        error.command, error.job, error.reply = command.id, command.job, command.reply
        raise
    return command


def _check(command: Command, trusted: bool, queue: str, now: datetime, begun: datetime) -> None:
    if command.to is not None and command.to != queue:
        raise Misaddressed("a command for another queue", f"for {command.to}, this is {queue}")
    if (command.kind in protocol.CONTROL_KINDS) != queue.endswith("-control"):
        raise Misaddressed("a command in the wrong queue", f"{command.kind} in {queue}")
    if trusted:
        if command.to is None:
            raise Misaddressed("a signed command that is for no queue in particular", command.id)
        if command.expires is None or command.expires - command.issued > LONGEST_LIFE:
            raise Expired("a signed command that is good for too long", command.id, "let it expire in a week at most")
    if command.issued > now + TOLERANCE:  # `now` is the service's: it cannot overflow
        value = f"issued {command.issued:%Y-%m-%d %H:%M:%S}Z, now {now:%Y-%m-%d %H:%M:%S}Z"
        raise Expired("a command of the future", value, "set the appliance's clock")
    protocol.check_expiry(command, begun)


def claim_of(message: bytes) -> Claim | None:
    """Where a message's command lies, if it does not hold it itself; None also for what is no message."""
    line = message[len(MAGIC) :].partition(b"\n")[0] if message.startswith(MAGIC) else b""
    try:
        return msgspec.json.decode(line, type=Header).claim
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def look(message: bytes, fetch: Fetch) -> Command:
    """The command in a message, for people to look at; whoever signed it. CommandRefused when there is none."""
    return protocol.decode_command(unwrap(message, Trust(), fetch))
