# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args, get_type_hints
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import protocol
from agent.protocol import (
    BackupPayload,
    Command,
    Disk,
    ErrorBody,
    Event,
    LogItem,
    PoisonEntry,
    ProgressEvent,
    RepositoryReference,
    Result,
    Secret,
    encode,
)
from agent.records import decode_record, encode_record
from agent.redaction import HIDDEN, SHORTEST, Redactor, _free_fields
from tests.agent.rig import job_record


@given(st.text(min_size=SHORTEST, max_size=40), st.text(max_size=20), st.text(max_size=20))
def test_a_known_secret_is_hidden_wherever_it_stands(secret: str, before: str, after: str) -> None:
    redactor = Redactor()
    redactor.learn(secret)
    for form in (
        secret,
        quote(secret, safe=""),
        base64.b64encode(secret.encode(errors="replace")).decode().rstrip("="),
    ):
        shown = redactor.text(f"{before}{form}{after}")
        assert form not in shown or form in f"{before}{after}{HIDDEN}" or form in before + HIDDEN + after
    nested = redactor.value({"a": [secret, {"b": (secret,)}], secret: secret.encode()})
    assert secret not in repr(nested).replace(HIDDEN, "") or secret in "{}[]'a: b,"


@pytest.mark.parametrize(
    "text",
    [
        "GET https://acc.blob.core.windows.net/c?sv=1&sig=abc%2Bdef%3D&se=2026",
        "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=YWJjZGVm;EndpointSuffix=x",
        "SharedAccessSignature=sv=1&sig=abcdef",
        "Authorization: Bearer eyJhbGciOi.abc-def_1",
        "Authorization: SharedKey acc:YWJjZGVm=",
        "-----BEGIN PRIVATE KEY-----\nYWJj\nZGVm\n-----END PRIVATE KEY-----",
    ],
)
def test_what_is_a_secret_whatever_it_holds(text: str) -> None:
    shown = Redactor().text(text)
    assert HIDDEN in shown
    for part in ("abc", "YWJj", "ZGVm", "eyJ"):
        assert part not in shown


def test_the_environment_s_secrets_are_known() -> None:
    redactor = Redactor()
    redactor.learn_environment(
        {
            "DATA_MOVER_PASSWORD": "pass-word-1",
            "DATA_MOVER_SAS": "sv=1&sig=signature-1",
            "DATA_MOVER_QUEUE_CONNECTION_STRING": "AccountName=a;AccountKey=key-key-1",
            "HOME": "/home/somebody",
        }
    )
    shown = redactor.text("pass-word-1 signature-1 key-key-1 /home/somebody")
    assert shown == f"{HIDDEN} {HIDDEN} {HIDDEN} /home/somebody"


def test_other_text_is_left_alone() -> None:
    redactor = Redactor()
    redactor.learn("short")
    assert redactor.text("a short text with signals") == "a short text with signals"
    assert redactor.value([1, 2.5, None, True]) == [1, 2.5, None, True]
    assert redactor.data(b"\xff\xfe raw") == b"\xff\xfe raw"


@pytest.mark.parametrize("secret", ['p"ass\\word1', "107374", "line\nline-2", "tab\there-it-is"])
def test_what_is_json_stays_json_whatever_is_hidden(secret: str) -> None:
    redactor = Redactor()
    redactor.learn(secret)
    document = {"memory": 1073741824, "text": f"a {secret} b", "key": "-----BEGIN PRIVATE KEY-----", "more": ["x"]}
    shown = json.loads(redactor.data(json.dumps(document).encode()))
    assert shown["memory"] == 1073741824
    assert shown["more"] == ["x"]
    assert secret not in shown["text"]
    assert shown["text"].startswith("a ")


def test_what_the_environment_names_a_file_for_is_known_too(tmp_path: Path) -> None:
    sas, key = tmp_path / "sas", tmp_path / "key"
    sas.write_text("?sv=1&sig=secret-signature-1\n")
    key.write_text("secret-account-key\n")
    redactor = Redactor()
    redactor.learn_environment(
        {"DATA_MOVER_SAS_FILE": str(sas), "DATA_MOVER_ACCOUNT_KEY_FILE": str(key), "DATA_MOVER_PASSWORD_FILE": "/none"}
    )
    shown = redactor.text("got secret-signature-1 and secret-account-key")
    assert "secret" not in shown


WORDS = sorted(
    {
        *protocol.PAYLOADS,
        *("success", "warning", "failed", "cancelled", "refused", "running", "waiting", "commit", "result"),
        *("command", "backup-1", "status", "StoreUnavailable", "worker-1", "password", "message", "resource"),
    }
)


def command_of(said: str) -> Command:
    return Command(
        schema=1,
        id="command",
        job="backup-1",
        kind="backup",
        issued=datetime(2026, 1, 1, tzinfo=UTC),
        payload=BackupPayload(
            what="disk",
            repository=RepositoryReference(url=said, password=Secret(file=f"/{said}")),
            resource=said,
            disks=(Disk(path=f"/{said}", name=said),),
        ),
    )


@pytest.mark.parametrize("word", WORDS)
def test_a_password_that_is_a_word_of_ours_spoils_no_message_and_no_record(word: str) -> None:
    redactor = Redactor()
    redactor.learn(word)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    said = f"before {word} after"
    names = {"command": "command", "job": "backup-1", "time": now}
    error = ErrorBody(what=said, value=said, hint=said, exit_code=7, type="StoreUnavailable")
    result = Result(
        **names,
        kind="backup",
        status="failed",
        resource=said,
        point="result",
        error=error,
        notes=(said, "another"),
        statistics={"message": 1.0},
        api_calls={"result": {"commit": {"status": 1.0}}},
        document=word.encode(),
        details={"status": said},
    )
    record = job_record(
        now,
        write_id="result",
        job="backup-1",
        subject=said,
        command="command",
        message="message",
        worker="worker-1",
        done_commands=("command",),
        progress=ProgressEvent(**names, stage=said, done=0, total=1, rate=0.0, eta=None),
        log=(LogItem(**names, status="running", message=said, resource=said, start=now),),
        result=result,
        last_error=error,
        body=msgspec.Raw(encode(command_of(said))),
    )
    shown = redactor.message(record)
    expected = msgspec.json.encode(record).replace(said.encode(), f"before {HIDDEN} after".encode())
    assert msgspec.json.encode(shown) == expected
    assert decode_record(encode_record(shown), "x") == shown
    assert redactor.message(result) == shown.result


def test_what_is_a_secret_by_its_shape_is_hidden_in_names_too() -> None:
    shown = Redactor().message(RepositoryReference(url="https://a/c&sig=abcdef"))
    assert shown.url == f"https://a/c&sig={HIDDEN}"


def test_every_text_that_may_say_anything_is_marked_as_such() -> None:
    """Who adds a member with free text must mark it; names are these."""
    names: set[str] = set()
    for kind in (ErrorBody, PoisonEntry, *get_args(Event)):
        for name, hint in get_type_hints(kind, include_extras=True).items():
            if name not in _free_fields(kind) and "str" in str(hint):
                names.add(name)
    assert names == {
        *("command", "job", "kind", "kinds", "parent", "point", "queue", "statistics", "type"),
        *("version", "worker", "jobs", "api_calls"),
        *("link", "sha1", "sha256", "what", "address"),
    }
