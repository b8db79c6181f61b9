# SPDX-License-Identifier: Apache-2.0
"""Commands as bytes: what is taken, and what each refusal says. Events there and back."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import CommandRefused
from agent.protocol import (
    MAX_BYTES,
    Accepted,
    BackupPayload,
    ErrorBody,
    LogItem,
    ProgressEvent,
    RestorePayload,
    Result,
    check_expiry,
    decode_command,
    decode_event,
    encode,
)
from mover.errors import StoreFull

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)


def backup(**changes: Any) -> dict[str, Any]:
    payload = {
        "what": "disk",
        "repository": {"url": "file:///r", "password": {"file": "/p"}},
        "resource": "vm1",
        "disks": [{"path": "/d"}],
    }
    return envelope("backup", payload | changes)


def restore(**changes: Any) -> dict[str, Any]:
    payload = {"what": "disk", "repository": {"url": "file:///r"}, "point": "0123", "to": "/t"}
    return envelope("restore", payload | changes)


def envelope(kind: str, payload: Any, **changes: Any) -> dict[str, Any]:
    whole = {"schema": 1, "id": "c1", "job": "j1", "kind": kind, "issued": "2026-03-15T12:00:00Z", "payload": payload}
    return whole | changes


def refused(command: object) -> CommandRefused:
    data = command if isinstance(command, bytes) else json.dumps(command).encode()
    with pytest.raises(CommandRefused) as caught:
        decode_command(data)
    assert caught.value.what
    assert caught.value.hint or "expires before" in caught.value.what
    assert caught.value.exit_code == 2
    return caught.value


def test_a_backup_is_decoded_with_its_defaults() -> None:
    command = decode_command(json.dumps(backup()).encode())
    assert isinstance(command.payload, BackupPayload)
    assert command.payload.level == 1
    assert command.payload.check
    assert command.payload.memory == 1 << 30
    assert command.subject == "vm1"


def test_a_restore_is_decoded_with_its_defaults() -> None:
    command = decode_command(json.dumps(restore()).encode())
    assert isinstance(command.payload, RestorePayload)
    assert (command.payload.disk, command.payload.format, command.payload.verify) == (0, "raw", False)


def test_what_is_encoded_is_decoded() -> None:
    changes = [{"disk": "d", "size": 10, "snapshot": "s2", "base": "s1", "ranges": [[0, 5]]}]
    command = decode_command(json.dumps(backup(changes=changes, document="AAEC", flags="DM")).encode())
    assert isinstance(command.payload, BackupPayload)
    assert command.payload.document == b"\0\1\2"
    assert decode_command(encode(command)) == command


def test_an_unknown_kind_is_told_from_damage() -> None:
    error = refused(envelope("defragment", {"anything": 1}))
    assert error.what == "a command of an unknown kind"
    assert error.value == "'defragment'"
    assert "backup, restore" in error.hint


@pytest.mark.parametrize(("schema", "hint"), [(2, "newer release"), (99, "newer release"), (0, "anew")])
def test_another_schema_is_told_from_damage_whatever_else_it_has(schema: int, hint: str) -> None:
    error = refused(envelope("backup", {"new": []}, schema=schema, signature="x"))
    assert error.what == "a command of a schema that this release does not know"
    assert error.value == str(schema)
    assert hint in error.hint


@pytest.mark.parametrize(
    ("command", "where"),
    [
        (backup(level=0), "$.payload.level"),
        (backup(level=20), "$.payload.level"),
        (backup(flags="X"), "$.payload.flags"),
        (backup(disks=[]), "$.payload.disks"),
        (backup(disks=[{"path": "relative"}]), "$.payload.disks[0].path"),
        (backup(resource=""), "$.payload.resource"),
        (backup(surprise=1), "surprise"),
        (backup(what="sql"), "$.payload.what"),
        (backup(repository={"url": "file:///r", "password": "secret"}), "$.payload.repository.password"),
        (backup(repository={"url": "file:///r", "password": {}}), "$.payload.repository.password"),
        (backup(repository={"url": "file:///r", "password": {"file": "/p", "environment": "X"}}), "named by one of"),
        (backup(changes=[{"disk": "d", "size": 10, "snapshot": "s", "ranges": [[5, 6]]}]), "outside its disk"),
        (backup(changes=[{"disk": "d", "size": 10, "snapshot": "s"}] * 2), "same disk"),
        (restore(disk=-1), "$.payload.disk"),
        (restore(format="vmdk"), "$.payload.format"),
        (restore(to="relative"), "$.payload.to"),
        (envelope("backup", {}, job=""), "$.job"),
        (envelope("backup", {}, id="../../x"), "$.id"),
        (envelope("backup", {}, issued="yesterday"), "$.issued"),
        (envelope("backup", {}, issued="2026-03-15T12:00:00"), "$.issued"),
        (envelope("backup", {}, signature="x"), "signature"),
        (envelope("backup", 7), "$.payload"),
        ([], "array"),
        ({"schema": 1}, "kind"),
        ({"schema": "1", "kind": "backup"}, "$.schema"),
    ],
)
def test_what_is_malformed_is_told_by_its_place(command: Any, where: str) -> None:
    error = refused(command)
    assert error.what == "a command is malformed"
    assert where in error.value


def test_no_refusal_repeats_what_a_field_holds() -> None:
    secret = "hunter2-hunter2"
    for command in (
        backup(repository={"url": "file:///r", "password": secret}),
        backup(repository={"url": "file:///r", "password": {"text": secret}}),
        backup(flags=secret),
        restore(disk=secret),
    ):
        assert secret not in str(refused(command))


@pytest.mark.parametrize("data", [b"", b"{", b"null {}", b"\xff\xfe", b'{"schema": 1, "kind": "\xff"}', b"\0" * 100])
def test_what_is_no_json_is_told_so(data: bytes) -> None:
    assert refused(data).what in ("a command is not JSON", "a command is malformed")


@pytest.mark.parametrize(
    "opening", [b"[", b'{"a":', b'{"schema":1,"kind":"backup","payload":[', b'{"schema":1,"kind":']
)
def test_a_hugely_nested_command_is_refused(opening: bytes) -> None:
    assert refused(opening * 200_000).what in (
        "a command is nested too deeply",
        "a command is malformed",
        "a command is not JSON",
    )


def test_a_huge_command_is_refused_unread() -> None:
    assert refused(bytes(MAX_BYTES + 1)).what == "a command is too large"


@given(st.binary(max_size=200))
def test_no_bytes_do_anything_but_decode_or_be_refused(data: bytes) -> None:
    with pytest.raises(CommandRefused):
        decode_command(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(["backup", "restore"]), st.data())
def test_a_valid_command_with_one_member_replaced_decodes_or_is_refused(kind: str, data: st.DataObject) -> None:
    command = backup() if kind == "backup" else restore()
    inside = data.draw(st.booleans())
    target = command["payload"] if inside else command
    target[data.draw(st.sampled_from(sorted(target)))] = data.draw(JSON)
    try:
        decode_command(json.dumps(command).encode())
    except CommandRefused as error:
        assert error.what  # noqa: PT017 - either is right


def test_a_command_that_is_over_before_it_begins_is_refused() -> None:
    assert refused(envelope("backup", backup()["payload"], expires="2026-03-15T12:00:00Z")).value == "c1"


def test_expiry_has_five_minutes_of_tolerance() -> None:
    command = decode_command(
        json.dumps(envelope("backup", backup()["payload"], expires="2026-03-15T13:00:00Z")).encode()
    )
    check_expiry(command, NOW + timedelta(minutes=64))
    with pytest.raises(CommandRefused) as caught:
        check_expiry(command, NOW + timedelta(minutes=66))
    assert caught.value.what == "the command has expired"


@pytest.mark.parametrize(
    "event",
    [
        Accepted(command="c", job="j", time=NOW, kind="backup", worker="w", delivery=2),
        ProgressEvent(command="c", job="j", time=NOW, stage="restore", done=1, total=2, rate=0.5, eta=None),
        LogItem(command="c", job="j", time=NOW, status="warning", message="m", resource="r", start=NOW, duration=1.5),
        Result(command="c", job="j", time=NOW, kind="backup", status="success", statistics={"read": 1.0}),
        Result(command="c", job="j", time=NOW, kind="", status="failed", error=ErrorBody.of(StoreFull("full", "disk"))),
    ],
)
def test_events_there_and_back(event: Accepted | ProgressEvent | LogItem | Result) -> None:
    assert decode_event(encode(event)) == event


def test_an_error_crosses_with_everything_that_a_person_needs() -> None:
    body = ErrorBody.of(StoreFull("full", "disk"))
    assert (body.what, body.value, body.exit_code, body.type) == ("full", "disk", 7, "StoreFull")
    assert "free space" in body.hint
