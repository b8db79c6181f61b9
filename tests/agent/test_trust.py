# SPDX-License-Identifier: Apache-2.0
"""A worker that trusts one appliance: what it obeys, and what it does nothing for."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from agent import envelope
from agent import worker as worker_module
from agent.protocol import (
    BackupPayload,
    Command,
    Disk,
    LogItem,
    RepositoryReference,
    Result,
    Secret,
    TestConnectionPayload,
    encode,
)
from agent.seal import SealKey
from agent.signing import Signer
from mover.errors import UsageError
from tests.agent.conftest import PASSWORD, Place
from tests.agent.rig import Rig
from tests.agent.waiting import wait_for


def issue_sealed(place: Place, strict: Rig) -> Command:
    """A backup whose password the appliance seals to the workers that it knows."""
    reference = RepositoryReference(url=place.url, password=Secret(clear=PASSWORD))
    payload = BackupPayload(what="disk", repository=reference, resource="vm", disks=(Disk(path=str(place.image)),))
    return strict.appliance.issue("backup", payload, job="sealed")


def test_a_signed_command_with_a_sealed_password(place: Place, strict: Rig) -> None:
    issued = issue_sealed(place, strict)
    assert issued.payload.repository.password is not None  # type: ignore[union-attr]
    assert issued.payload.repository.password.sealed is not None  # type: ignore[union-attr]
    assert strict.worker().serve("w", once=True) == 0
    assert [r.status for r in strict.results()] == ["success"]
    for path in place.folder.rglob("*"):
        if path.is_file() and path.name != "password":
            assert PASSWORD.encode() not in path.read_bytes(), path
    assert PASSWORD not in repr(strict.logs)


def test_unsigned_altered_replayed_and_misaddressed_commands_do_nothing(place: Place, strict: Rig) -> None:
    queue = strict.service.queue(strict.names.commands)
    good = strict.appliance.issue("test-connection", _connection(place), job="first")
    taken = queue.take(60)
    assert taken is not None
    queue.delete(taken)
    message, worker = taken.body, strict.worker()
    stranger = Signer.generate()

    body = encode(good)
    attempts = {
        "unsigned": body,
        "by a stranger": envelope.wrap(body, signer=stranger, claim_to=None),
        "altered": message.replace(b"first", b"other"),
        "cut": message[:-1],
        "with more": message + b" ",
    }
    for name, attempt in attempts.items():
        queue.put(attempt)
        assert worker.serve("w", once=True) in (2, 3), name
        (answer,) = strict.results()
        assert (answer.status, answer.command, answer.job) == ("refused", "", ""), name
        assert list(strict.jobs.lines()) == []
    strict.service.queue(strict.names.control).put(message)
    stop = threading.Event()
    control = strict.worker("c", stop=stop)
    thread = threading.Thread(target=control.obey_control, args=("c",))
    thread.start()
    (answer,) = wait_for(strict.results)
    stop.set()
    thread.join()
    assert answer.error is not None
    assert answer.error.type == "Misaddressed"
    queue.put(message)
    worker.serve("w", once=True)
    queue.put(message)  # replayed
    worker.serve("w", once=True)
    first, second = strict.results()
    assert (first.already, second.already) == (False, True)


def _connection(place: Place) -> Any:

    return TestConnectionPayload(disks=(str(place.image),))


def test_a_secret_in_the_clear_is_refused_where_it_must_not_be(place: Place, strict: Rig) -> None:

    strict.appliance._recipients = ()
    payload = TestConnectionPayload(repository=RepositoryReference(url=place.url, password=Secret(clear=PASSWORD)))
    with pytest.raises(UsageError, match="no worker whose key"):
        strict.appliance.issue("test-connection", payload)
    strict.appliance._allow_clear = True
    issued = strict.appliance.issue("test-connection", payload)
    assert PASSWORD.encode() in encode(issued)
    assert strict.worker().serve("w", once=True) == 2
    (answer,) = strict.results()
    assert answer.error is not None
    assert answer.error.what == "a secret in the clear"
    assert PASSWORD not in repr(answer)
    done = strict.jobs.read(issued.job)
    assert done is not None
    assert PASSWORD.encode() not in bytes(done.body)


# -- what a reviewer broke ------------------------------------------------------------------------------------------


def test_a_secret_for_another_worker_waits_for_that_one(
    place: Place, strict: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many wrong takers there are: only its time ends it."""
    issue_sealed(place, strict)
    monkeypatch.setattr(worker_module, "BUSY_SECONDS", 0.0)
    right, strict.key = strict.key, SealKey.generate()
    takers = 3 * worker_module.RETRIES
    with strict.running("wrong"):
        wait_for(lambda: sum("another worker's key" in line["event"] for line in strict.logs) >= takers)
    strict.key = right
    assert strict.worker().serve("w", once=True) == 0
    events = strict.events()
    assert [e.status for e in events if isinstance(e, Result)] == ["success"]
    said = [e for e in events if isinstance(e, LogItem) and "another worker's key" in e.message]
    assert len(said) == 1, "every taker's word would fill the reply queue"


def test_a_secret_that_nobody_here_opens_fails_when_the_command_s_time_is_over(
    place: Place, strict: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    issue_sealed(place, strict)
    strict.key = SealKey.generate()
    worker = strict.worker()
    monkeypatch.setattr(worker, "_may_look_elsewhere", lambda command: False)
    assert worker.serve("w", once=True) == 3
    (answer,) = strict.results()
    assert answer.error is not None
    assert answer.error.type == "SealedForAnother"
