# SPDX-License-Identifier: Apache-2.0
"""What the state store's records say, and in which bytes: of jobs, of wishes that a job shall end, of workers. Pure.

Who may write them, and when, is `agent.jobs`'.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal, TypeVar

import msgspec

from agent.protocol import ErrorBody, LogItem, ProgressEvent, Result, Text, WorkerState
from mover.errors import Damaged, UnsupportedFormat

VERSION = 1
LOG_LINES = 40
"""The newest log items that a record keeps; all of them are events."""
COMMANDS_KEPT = 64
CANCELS_KEPT = 16
KEPT_COMMAND_BYTES = 24 * 1024
"""A larger command is not kept with the record: sent again it must be issued again."""
RECORD_BYTES = 60 * 1024

State = Literal["running", "waiting", "ended"]


class JobRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`state` waiting: begun, given back, a worker will go on. `command` and `message` are of the newest delivery; `result` is of
    the last end, `state` tells whether that was this one's; `done_commands` the ids of those whose work has ended. `asked`:
    when the queue took the command, by the queue's clock, as all that it is compared with. `attempts` counts beginnings since
    the last orderly end, `retries` ends in an error that passes since the last one that was for good; of whichever commands of the
    job, or two that kill their workers in turn would do so for ever. `worked`: a run of it may have
    changed something, a point be committed. `receipt`: by which a waiting job's hidden message can be shown. `body`: the command,
    its secrets withheld."""

    version: int
    write_id: str
    job: str
    kind: str
    subject: Text
    state: State
    command: str
    message: str
    worker: str
    asked: datetime
    began: datetime
    updated: datetime
    attempts: int = 0
    retries: int = 0
    worked: bool = False
    receipt: str = ""
    reply: str | None = None
    begun_commands: tuple[str, ...] = ()
    done_commands: tuple[str, ...] = ()
    progress: ProgressEvent | None = None
    log: tuple[LogItem, ...] = ()
    result: Result | None = None
    last_error: ErrorBody | None = None
    body: msgspec.Raw = msgspec.Raw(b"null")


class CancelWish(msgspec.Struct, frozen=True, kw_only=True):
    """`asked`: when the queue took it. A command of the job that came later is a new wish, and stands. `commands`: the newest
    cancels that were obeyed; one of them that comes again is no new wish."""

    version: int
    target: str
    asked: datetime
    commands: tuple[str, ...] = ()


class WorkerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`seal`: the public key that secrets for this worker are sealed to."""

    version: int
    worker: str
    state: WorkerState
    since: datetime
    updated: datetime
    seal: bytes
    queue: str
    release: str
    jobs: tuple[str, ...] = ()


def newest(commands: tuple[str, ...], command: str) -> tuple[str, ...]:
    """With this one as the last of at most COMMANDS_KEPT."""
    return (*(one for one in commands if one != command), command)[-COMMANDS_KEPT:]


def encode_record(record: JobRecord) -> bytes:
    """At most RECORD_BYTES: the log gives way first, then the command, then the result's notes and figures."""
    data = msgspec.json.encode(record)
    while len(data) > RECORD_BYTES and record.log:
        record = msgspec.structs.replace(record, log=record.log[len(record.log) // 2 + 1 :])
        data = msgspec.json.encode(record)
    if len(data) > RECORD_BYTES:
        record = msgspec.structs.replace(record, body=msgspec.Raw(b"null"))
        data = msgspec.json.encode(record)
    if len(data) > RECORD_BYTES and record.result is not None:
        result = msgspec.structs.replace(record.result, notes=record.result.notes[:20], api_calls={}, document=None)
        data = msgspec.json.encode(msgspec.structs.replace(record, result=result))
    return data


def metadata_of(record: JobRecord) -> dict[str, str]:
    state = record.result.status if record.state == "ended" and record.result else record.state
    return {
        "job": record.job,
        "kind": record.kind,
        "state": state,
        "updated": record.updated.isoformat(timespec="seconds"),
    }


def told_of(value: CancelWish | WorkerRecord) -> dict[str, str]:
    """What a listing shows of it."""
    when = value.asked if isinstance(value, CancelWish) else value.updated
    return {"updated": when.isoformat(timespec="seconds")}


def decode_record(data: bytes, name: str) -> JobRecord:
    """Damaged, UnsupportedFormat."""
    return decode(data, JobRecord, name)


_R = TypeVar("_R", JobRecord, CancelWish, WorkerRecord)


class _Versioned(msgspec.Struct):
    version: int


def decode(data: bytes, kind: type[_R], name: str) -> _R:
    try:
        version = msgspec.json.decode(data, type=_Versioned).version
        if version != VERSION:
            raise UnsupportedFormat("a record of the state store has another version", f"{name}: {version}")
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Damaged("a record of the state store is malformed", name) from None
