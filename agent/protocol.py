# SPDX-License-Identifier: Apache-2.0
"""Commands to a worker and its events, as typed messages (design section 6). Pure: no queue, no repository, no clock.

A command is decoded in two steps, so that an unknown kind and a newer schema get an answer of their own instead of being
taken for damage. A secret is a type of its own, named or sealed (`agent.seal`); signature and claim check wrap these bytes
(`agent.envelope`). docs/protocol.md is made from this module.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from agent.errors import CommandRefused, Expired
from mover.disk.changes import ChangeMap, check
from mover.errors import MoverError, UsageError

SCHEMA: Final = 1
MAX_BYTES: Final = 128 * 1024 * 1024
"""Of an encoded command: room for a configuration document of 64 MiB in base64, and change maps."""
MOST_KEYS: Final = 64
"""That a secret is sealed to."""
TOLERANCE: Final = timedelta(minutes=5)
"""By which the clocks of the issuer and of the queue's host may differ before a command counts as expired."""

_END = r"(?![\s\S])"
"""The end of a text in any dialect of regular expressions: Python's `$` also comes before a last line's end."""

Identifier = Annotated[str, Meta(min_length=1, max_length=128, pattern=f"^[A-Za-z0-9][A-Za-z0-9._:-]*{_END}")]
FREE: Final[dict[str, Any]] = {"free": True}
"""Marks a text that may say anything, a secret too if nobody looked (`agent.redaction`). Any other is a word of the protocol or an
id, and left as it is: hidden because a password happens to be the same word it would say something else."""
Text = Annotated[str, Meta(extra=FREE)]
Name = Annotated[str, Meta(min_length=1, max_length=1024, extra=FREE)]
Path = Annotated[str, Meta(min_length=1, max_length=4096, pattern="^/", extra=FREE)]
"""Absolute: a worker has another working folder than whoever wrote the command."""


VaultUrl = Annotated[
    str,
    Meta(
        pattern=r"^https://[a-zA-Z0-9-]{3,24}\.vault\.(azure\.net|azure\.cn|usgovcloudapi\.net)"
        f"/secrets/[a-zA-Z0-9-]{{1,127}}(/[0-9a-f]{{32}})?{_END}"
    ),
]
"""A secret in Azure Key Vault, its newest version or a named one; in no other place."""

HostName = Annotated[
    str, Meta(min_length=1, max_length=253, pattern=f"^[A-Za-z0-9:]([A-Za-z0-9.:-]*[A-Za-z0-9:])?{_END}")
]
"""A DNS name or an address, an IPv6 one without brackets."""

QueueName = Annotated[str, Meta(min_length=3, max_length=63, pattern=f"^[a-z0-9]([a-z0-9]|-[a-z0-9])*{_END}")]


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of everything in a command."""


# -- commands -------------------------------------------------------------------------------------------------------


class SealedKey(Strict, frozen=True, kw_only=True):
    """A content key for one worker. `recipient`: the first 16 hex digits of the SHA-256 of its X25519 public key. `ephemeral`:
    the issuer's public key of this one exchange. `wrapped`: the content key under what the two agree on."""

    recipient: Annotated[str, Meta(pattern=f"^[0-9a-f]{{16}}{_END}")]
    ephemeral: Annotated[bytes, Meta(min_length=32, max_length=32)]
    wrapped: Annotated[bytes, Meta(min_length=48, max_length=48)]


class Sealed(Strict, frozen=True, kw_only=True):
    """A secret that only the workers whose keys are named can open, within the command that it was sealed for."""

    nonce: Annotated[bytes, Meta(min_length=12, max_length=12)]
    box: Annotated[bytes, Meta(min_length=17, max_length=32 * 1024)]
    keys: Annotated[tuple[SealedKey, ...], Meta(min_length=1, max_length=MOST_KEYS)]


class Secret(Strict, frozen=True, kw_only=True, omit_defaults=True):
    """Where the worker finds a password, a SAS or a key: a file or a variable of its own, Key Vault, or sealed in the command.

    `clear` is the secret itself; a worker takes it only where its configuration says so. `withheld` stands in copies that are
    kept (job records, poison queue) for a secret that is not.
    """

    file: Path | None = None
    environment: Name | None = None
    vault: VaultUrl | None = None
    sealed: Sealed | None = None
    clear: Annotated[str, Meta(min_length=1, max_length=16384)] | None = None
    withheld: Literal[True] | None = None

    def __post_init__(self) -> None:
        if sum(getattr(self, name) is not None for name in self.__struct_fields__) != 1:
            raise ValueError("a secret is named by one of `file`, `environment`, `vault`, `sealed` and `clear`")

    def __repr__(self) -> str:
        return f"Secret({next(name for name in self.__struct_fields__ if getattr(self, name) is not None)})"


class RepositoryReference(Strict, frozen=True, kw_only=True):
    """What is not named here is found by the worker's own settings (docs/operations.md). A SAS is no part of `url`: a URL is
    shown and kept, a secret is not."""

    url: Name
    password: Secret | None = None
    sas: Secret | None = None

    def __post_init__(self) -> None:
        if "?" in self.url or "#" in self.url:  # not quoted: the query may be a SAS
            raise ValueError("a repository's URL with a query: name a SAS in `sas`, or in the worker's DATA_MOVER_SAS")


class PreviousSnapshot(Strict, frozen=True, kw_only=True):
    """The state that a backup's parent point was made from, to ask the service what changed since. `url`: with its SAS. `snapshot`:
    what that state was called then; empty where its URL tells."""

    url: Secret
    snapshot: Annotated[str, Meta(max_length=1024, extra=FREE)] = ""


class Disk(Strict, frozen=True, kw_only=True):
    """`path`: an image or a block device of the worker's; or `url`: a page blob's URL with its SAS, which is a secret: an exported
    snapshot of a managed disk, a blob, or a blob's snapshot. `name` tells the disks of a resource apart; empty: the last part of
    the path. `identity` and `snapshot`: which disk this is, and which state of it; an export's URL tells neither."""

    path: Path | None = None
    url: Secret | None = None
    name: Annotated[str, Meta(max_length=255, extra=FREE)] = ""
    identity: Annotated[str, Meta(max_length=1024, extra=FREE)] = ""
    snapshot: Annotated[str, Meta(max_length=1024, extra=FREE)] = ""
    previous: PreviousSnapshot | None = None

    def __post_init__(self) -> None:
        if (self.path is None) == (self.url is None):
            raise ValueError("a disk is named by one of `path` and `url`")
        if self.url is None and (self.previous is not None or self.snapshot):
            raise ValueError("`snapshot` and `previous` are for a disk that has a `url`")


class BackupPayload(Strict, frozen=True, kw_only=True):
    """`document`: the resource's configuration, any bytes (base64 in JSON). `memory` in bytes. `level` is zstd's."""

    what: Literal["vm", "disk"]
    repository: RepositoryReference
    resource: Name
    disks: Annotated[tuple[Disk, ...], Meta(min_length=1, max_length=256)]
    changes: tuple[ChangeMap, ...] = ()
    document: bytes | None = None
    flags: Annotated[str, Meta(pattern=f"^D?W?M?Y?{_END}")] = ""
    level: Annotated[int, Meta(ge=1, le=19)] = 1
    check: bool = True
    memory: Annotated[int, Meta(ge=1)] = 1 << 30

    def __post_init__(self) -> None:
        try:
            for one in self.changes:
                check(one, one.disk)
        except UsageError as error:
            raise ValueError(f"{error.what}: {error.value}") from None
        if len({one.disk for one in self.changes}) != len(self.changes):
            raise ValueError("two change maps are of the same disk")


class RestoreTarget(Strict, frozen=True, kw_only=True):
    """A page blob for one disk of a VM: its number from 0 or its name (a text of digits that is no disk's name is a
    number, too); and the URL with its SAS."""

    disk: Annotated[int, Meta(ge=0)] | Annotated[str, Meta(min_length=1, max_length=255, extra=FREE)]
    url: Secret


class RestorePayload(Strict, frozen=True, kw_only=True):
    """`what` disk: disk number `disk` (from 0) to the file or device `to`, or to the page blob `url` (with its SAS, a secret): one
    of a storage account, made if it is not there, or a managed disk's upload. vm: every disk into the folder `to`, each under its
    name, or each to its own of `targets`. `document`: a path for the point's configuration document; None: it is not wanted as a
    file. `dry_run`: nothing is written; the result says how many bytes and requests it would be, and how long it would take."""

    what: Literal["disk", "vm"]
    repository: RepositoryReference
    point: Name
    to: Path | None = None
    url: Secret | None = None
    targets: Annotated[tuple[RestoreTarget, ...], Meta(max_length=256)] = ()
    disk: Annotated[int, Meta(ge=0)] = 0
    in_place: bool = False
    verify: bool = False
    dry_run: bool = False
    format: Literal["raw", "vhd"] = "raw"
    document: Path | None = None

    def __post_init__(self) -> None:
        blob = bool(self.targets) if self.what == "vm" else self.url is not None
        other = self.url is not None if self.what == "vm" else bool(self.targets)
        if other or (self.to is not None) == blob:
            raise ValueError("a disk goes to one of `to` and `url`, a VM's disks to one of `to` and `targets`")


class CancelPayload(Strict, frozen=True, kw_only=True):
    """`target`: the job that shall end. Goes to the control queue, which busy workers look at too."""

    target: Identifier


class ThroughTool(Strict, frozen=True, kw_only=True, tag_field="way", tag="tool"):
    """Through the restore tool, which the appliance starts on the machine by the command line in `flr-ready`. `blobs` and
    `queues`: the endpoints of a storage account that worker and machine reach. `sas`: an account's SAS that makes, fills and
    deletes containers and queues there; without one the worker's identity does. `tool_sas`: what the tool gets, to read blobs,
    take and add messages; without one the worker makes some for it of its identity, each for one thing."""

    blobs: Name
    queues: Name
    sas: Secret | None = None
    tool_sas: Secret | None = None

    def __post_init__(self) -> None:
        if any("?" in url or "#" in url for url in (self.blobs, self.queues)):
            raise ValueError("an endpoint with a query: name a SAS in `sas`")
        if self.sas is not None and self.tool_sas is None:
            raise ValueError("of a SAS no narrower one can be made: name `tool_sas` too")


class ThroughFolder(Strict, frozen=True, kw_only=True, tag_field="way", tag="folder"):
    """Through the restore tool on the worker's own machine, or one that shares the folder `path` with it, which is made, emptied
    and deleted."""

    path: Path


class OverSftp(Strict, frozen=True, kw_only=True, tag_field="way", tag="sftp"):
    """To an SSH server whose public key is `host_key` ("ssh-ed25519 AAAA..."), by one of a password and a private key."""

    host: HostName
    port: Annotated[int, Meta(ge=1, le=65535)] = 22
    user: Name
    host_key: Name
    password: Secret | None = None
    key: Secret | None = None

    def __post_init__(self) -> None:
        if (self.password is None) == (self.key is None):
            raise ValueError("an SSH user is known by one of `password` and `key`")


class FlrStartPayload(Strict, frozen=True, kw_only=True):
    """A recovery browser over restore point `point` of `repository`, or over `disks` as they are: the URLs of a cloud-native
    snapshot's disks, each with its SAS. `resource`: what those are called; a point's is in the repository. `names`: DNS names and
    addresses under which people reach the worker; the first one is the link's. `idle`: seconds without a request after which it
    ends, `limit`: after which it ends in any case. `restore`: how files get back to the original machine; without it they are only
    handed out. `reason`: why somebody wanted it, for the records."""

    repository: RepositoryReference | None = None
    point: Name | None = None
    disks: Annotated[tuple[Disk, ...], Meta(max_length=256)] = ()
    resource: Annotated[str, Meta(max_length=1024, extra=FREE)] = ""
    names: Annotated[tuple[HostName, ...], Meta(max_length=32)] = ()
    port: Annotated[int, Meta(ge=0, le=65535)] = 443
    idle: Annotated[int, Meta(ge=60, le=86400)] = 1800
    limit: Annotated[int, Meta(ge=60, le=604800)] = 43200
    restore: ThroughTool | ThroughFolder | OverSftp | None = None
    reason: Annotated[str, Meta(max_length=1024, extra=FREE)] = ""

    def __post_init__(self) -> None:
        if (self.repository is None) == (not self.disks) or (self.repository is None) != (self.point is None):
            raise ValueError("what is looked into is a `point` of a `repository`, or `disks`")


class FlrStopPayload(Strict, frozen=True, kw_only=True):
    """`target`: the job whose recovery browser shall end. Goes to the control queue."""

    target: Identifier


class TestConnectionPayload(Strict, frozen=True, kw_only=True):
    """Can the worker reach and open these? Nothing is written. `disks`: paths that it could back up; `blobs`: the URLs, with their
    SAS, of page blobs and exported disks."""

    repository: RepositoryReference | None = None
    disks: Annotated[tuple[Path, ...], Meta(max_length=256)] = ()
    blobs: Annotated[tuple[Secret, ...], Meta(max_length=256)] = ()


class CollectLogsPayload(Strict, frozen=True, kw_only=True):
    """A support bundle. `to`: a file of the worker's; None: a blob of the state store, which the result names."""

    to: Path | None = None


Payload = (
    BackupPayload
    | RestorePayload
    | FlrStartPayload
    | FlrStopPayload
    | CancelPayload
    | TestConnectionPayload
    | CollectLogsPayload
)
PAYLOADS: Final[dict[str, type[Payload]]] = {
    "backup": BackupPayload,
    "restore": RestorePayload,
    "flr-start": FlrStartPayload,
    "flr-stop": FlrStopPayload,
    "cancel": CancelPayload,
    "test-connection": TestConnectionPayload,
    "collect-logs": CollectLogsPayload,
}
CONTROL_KINDS: Final = frozenset({"cancel", "flr-stop"})
"""What goes to the control queue: a worker that is busy takes these too."""


class Command(Strict, frozen=True, kw_only=True):
    """`job` is the same when a job is asked for again, `id` is not. `to` names the queue that it is for: in another one it is
    refused. `reply` names the queue that wants the events."""

    schema: int
    id: Identifier
    job: Identifier
    kind: str
    issued: Annotated[datetime, Meta(tz=True)]
    expires: Annotated[datetime, Meta(tz=True)] | None = None
    to: QueueName | None = None
    reply: QueueName | None = None
    payload: Payload

    @property
    def subject(self) -> str:
        """What the command is about, for people."""
        match self.payload:
            case BackupPayload(resource=resource):
                return resource
            case RestorePayload(point=point):
                return point
            case FlrStartPayload(point=point, resource=resource):
                return point or resource
            case CancelPayload(target=target) | FlrStopPayload(target=target):
                return target
            case TestConnectionPayload(repository=repository) if repository is not None:
                return repository.url
            case _:
                return ""


class _Opening(msgspec.Struct):
    """What every schema has: enough to say why the rest is not understood, and to whom."""

    schema: int
    kind: str
    id: str = ""
    job: str = ""


class _Ids(msgspec.Struct):
    """What a refusal is addressed by, each only if it is well-formed."""

    id: Identifier = ""
    job: Identifier = ""
    reply: QueueName | None = None


def ids_of(data: bytes) -> tuple[str, str, str | None]:
    """(command, job, reply) of a command that is not understood otherwise, as far as they can be read."""
    try:
        found = msgspec.json.decode(data, type=_Ids)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return "", "", None
    return found.id, found.job, found.reply


class _Envelope(Strict, frozen=True, kw_only=True):
    """As `Command`, the payload still in bytes."""

    schema: int
    id: Identifier
    job: Identifier
    kind: str
    issued: Annotated[datetime, Meta(tz=True)]
    expires: Annotated[datetime, Meta(tz=True)] | None = None
    to: QueueName | None = None
    reply: QueueName | None = None
    payload: msgspec.Raw


def encode(message: Command | Event) -> bytes:
    return msgspec.json.encode(message)


def decode_command(data: bytes) -> Command:
    """CommandRefused names places, types and members, never what a field of free text holds."""
    if len(data) > MAX_BYTES:
        raise CommandRefused("a command is too large", f"{len(data)} bytes", f"at most {MAX_BYTES} bytes are taken")
    opening = _decode(data, _Opening)
    if opening.schema != SCHEMA:
        hint = (
            f"this release knows schema {SCHEMA}: use a newer release" if opening.schema > SCHEMA else "write it anew"
        )
        raise CommandRefused("a command of a schema that this release does not know", opening.schema, hint)
    if opening.kind not in PAYLOADS:
        hint = f"this release knows: {', '.join(PAYLOADS)}"
        raise CommandRefused("a command of an unknown kind", repr(opening.kind[:64]), hint)
    envelope = _decode(data, _Envelope)
    payload = _decode(envelope.payload, PAYLOADS[opening.kind], "payload")
    if envelope.expires is not None and envelope.expires <= envelope.issued:
        raise Expired("a command that expires before it is issued", envelope.id)
    fields = {name: getattr(envelope, name) for name in envelope.__struct_fields__}
    return Command(**(fields | {"payload": payload}))


def check_expiry(command: Command, now: datetime) -> None:
    """CommandRefused when its time is over by more than TOLERANCE."""
    if command.expires is not None and now - TOLERANCE > command.expires:
        raise Expired("the command has expired", command.expires.isoformat(), "issue it again")


def _decode(data: bytes | msgspec.Raw, kind: type[Any], within: str = "") -> Any:
    hint = "`data-mover backup` and `restore` write a valid one with --print-command"
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        where = str(error).replace("`$", f"`$.{within}") if within else str(error)
        if within and "`$" not in where:
            where += f" - at `$.{within}`"
        raise CommandRefused("a command is malformed", where, hint) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CommandRefused("a command is not JSON", error, hint) from None
    except RecursionError:
        raise CommandRefused("a command is nested too deeply", f"{len(bytes(data))} bytes", hint) from None


# -- events ---------------------------------------------------------------------------------------------------------


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """A MoverError as a message. `type` is its class, for programs."""

    what: Text
    value: Text = ""
    hint: Text = ""
    exit_code: int
    type: str = ""

    @classmethod
    def of(cls, error: MoverError) -> ErrorBody:
        value = error.value.encode(errors="backslashreplace").decode()  # a guest's or a user's bytes may be no text
        return cls(what=error.what, value=value, hint=error.hint, exit_code=error.exit_code, type=error.type)


class _AnyEvent(msgspec.Struct, frozen=True, kw_only=True, tag_field="event"):
    """`time` by the worker's clock."""

    time: datetime


class _Event(_AnyEvent, frozen=True, kw_only=True):
    """`command` and `job` as the command named them."""

    command: str
    job: str


WorkerState = Literal["starting", "idle", "busy", "recovering", "stopping"]
StopReason = Literal["asked", "idle", "upgrade", "announced"]


class Ready(_AnyEvent, frozen=True, kw_only=True, tag="ready"):
    """A worker waits for commands. `seal` is the X25519 public key that secrets are sealed to."""

    worker: str
    queue: str
    version: str
    schema: int
    kinds: tuple[str, ...]
    seal: bytes


class Heartbeat(_AnyEvent, frozen=True, kw_only=True, tag="heartbeat"):
    """A worker lives. `since` is when it came into this state; `jobs` are those that it works on. `reason`: why it stops; after
    idle nothing starts it again, and its VM can go."""

    worker: str
    state: WorkerState
    since: datetime
    jobs: tuple[str, ...] = ()
    reason: StopReason | None = None


class Failed(_AnyEvent, frozen=True, kw_only=True, tag="failed"):
    """A VM that is to be a worker is none: `step` failed. `worker`: its name, or the host's; `lines`: the last of what was said.
    `ready` may follow: a start that was refused is tried again, and so is all of it at the VM's next boot."""

    worker: str
    step: Literal["download", "install", "configure", "start"]
    what: Text
    hint: Text = ""
    lines: tuple[Text, ...] = ()


class Accepted(_Event, frozen=True, kw_only=True, tag="accepted"):
    """A worker has begun. `delivery` counts how often the queue has given the command out."""

    kind: str
    worker: str
    delivery: int = 1


class ProgressEvent(_Event, frozen=True, kw_only=True, tag="progress"):
    """`done`, `total` in bytes of the stage, `rate` in bytes a second, `eta` in seconds."""

    stage: Text
    done: int
    total: int
    rate: float
    eta: float | None


class LogItem(_Event, frozen=True, kw_only=True, tag="log"):
    """A line of the job's log, with the product's fields: `duration` in seconds, since `start`."""

    status: Literal["running", "success", "warning", "error"]
    message: Text
    resource: Text
    start: datetime
    duration: float = 0.0


class FlrReady(_Event, frozen=True, kw_only=True, tag="flr-ready"):
    """A recovery browser waits for a person. `link` works once, and only until `expires`; the thumbprints are of its certificate,
    upper-case hexadecimal of SHA-256 and SHA-1, for whoever compares them. It ends at `until` at the latest. `restore_tool`: a
    script for the original machine's `sh`, run there as root, where files can go back through the restore tool; it is as secret
    as the link, and good for this session."""

    link: str
    sha256: str
    sha1: str
    expires: datetime
    until: datetime
    restore_tool: bytes | None = None


class Recovered(_Event, frozen=True, kw_only=True, tag="recovered"):
    """Somebody did something in a recovery browser: signed in, took something out, sent something back, stopped it. `address` and
    `agent` are the person's browser's; `size` in bytes; `sha256` of what was handed out whole, or written. `what` is "restore"
    for a file that went back to the machine: of a session the first thousand, then those that did not come back well; "restore
    ends" has the numbers of all."""

    what: str
    result: Literal["ok", "warning", "skipped", "failed", "refused", "cut"]
    address: str = ""
    agent: Text = ""
    point: str = ""
    volume: Text = ""
    path: Text = ""
    size: int | None = None
    sha256: str = ""
    text: Text = ""


class Result(_Event, frozen=True, kw_only=True, tag="result"):
    """The last event of a command. `warning` is success with `notes`; `refused`: nothing was done. `already`: it had been
    carried out before. `api_calls`: operation -> class -> figures. `document`: the configuration document of a VM that was
    restored. `details`: what else a kind has to say."""

    kind: str
    status: Literal["success", "warning", "failed", "cancelled", "refused"]
    resource: Text = ""
    point: str | None = None
    parent: str | None = None
    already: bool = False
    resumed: bool = False
    error: ErrorBody | None = None
    notes: tuple[Text, ...] = ()
    statistics: dict[str, float] = {}
    api_calls: dict[str, dict[str, dict[str, float]]] = {}
    seconds: float = 0.0
    document: bytes | None = None
    details: dict[str, Text] = {}

    @property
    def exit_code(self) -> int:
        return self.error.exit_code if self.error is not None else 0


class PoisonEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A message of the poison queue. `body`: the command, its secrets withheld; null when it was too large to keep, or could
    not be read: then there are no names either."""

    time: datetime
    job: str = ""
    command: str = ""
    kind: str = ""
    error: ErrorBody
    body: msgspec.Raw


Event = Ready | Heartbeat | Failed | Accepted | ProgressEvent | LogItem | FlrReady | Recovered | Result


def decode_event(data: bytes) -> Event:
    event: Event = msgspec.json.decode(data, type=Event)
    return event
