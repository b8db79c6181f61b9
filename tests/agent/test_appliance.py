# SPDX-License-Identifier: Apache-2.0
"""The appliance's side: whom secrets are sealed to, and what is sent again out of the poison queue."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from agent.appliance import Appliance
from agent.errors import JobNotFound
from agent.protocol import ErrorBody, PoisonEntry, RepositoryReference, Secret, TestConnectionPayload
from agent.records import WorkerRecord
from agent.seal import SealKey
from mover.errors import UsageError
from tests.agent.conftest import Place
from tests.agent.rig import Rig, command

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_of_many_poisoned_the_newest_can_be_sent_again(place: Place, rig: Rig) -> None:
    queue = rig.service.queue(rig.names.poison)
    for number in range(5):
        body = command(place, f"j{number}")
        entry = PoisonEntry(time=NOW, job=f"j{number}", error=ErrorBody(what="x", exit_code=6), body=msgspec.Raw(body))
        queue.put(msgspec.json.encode(entry))
    for number in (4, 2):
        (one,) = (poison for poison in rig.appliance.poisoned() if poison.entry and poison.entry.job == f"j{number}")
        assert rig.appliance.send_again(one.id).job == f"j{number}"
    assert {poison.entry.job for poison in rig.appliance.poisoned() if poison.entry} == {"j0", "j1", "j3"}
    with pytest.raises(JobNotFound):
        rig.appliance.send_again("nobody's")
    assert len(rig.appliance.poisoned()) == 3  # none stays hidden


def test_a_command_that_redaction_changed_is_not_sent_again(place: Place, rig: Rig) -> None:
    body = command(place).replace(b'"vm1"', b'"v***"')
    entry = PoisonEntry(time=NOW, error=ErrorBody(what="x", exit_code=6), body=msgspec.Raw(body))
    rig.service.queue(rig.names.poison).put(msgspec.json.encode(entry))
    (one,) = rig.appliance.poisoned()
    with pytest.raises(UsageError, match="cannot be sent again"):
        rig.appliance.send_again(one.id)


def test_secrets_are_sealed_to_the_workers_that_live(rig: Rig) -> None:
    """At most as many as a secret may have recipients, the newest first, each once; the dead open nothing."""
    appliance = Appliance(rig.service, rig.state, rig.clock, names=rig.names)
    now = datetime.fromtimestamp(rig.service.now(), UTC)
    secret = RepositoryReference(url="file:///r", password=Secret(clear="correct horse"))

    def there(name: str, heard: datetime, seal: bytes) -> None:
        rig.jobs.publish(
            WorkerRecord(
                version=1, worker=name, state="idle", since=heard, updated=heard, seal=seal, queue="q", release="1"
            )
        )

    with pytest.raises(UsageError, match="no worker"):
        appliance.issue("test-connection", TestConnectionPayload(repository=secret))
    there("dead", now - timedelta(days=4), SealKey.generate().public)
    keys = [SealKey.generate() for _ in range(70)]
    for number, key in enumerate(keys):
        there(f"w{number}", now - timedelta(minutes=number), key.public)
        there(f"again{number}", now - timedelta(minutes=number + 1), key.public)
    issued = appliance.issue("test-connection", TestConnectionPayload(repository=secret))
    assert isinstance(issued.payload, TestConnectionPayload)
    assert issued.payload.repository is not None
    assert issued.payload.repository.password is not None
    sealed = issued.payload.repository.password.sealed
    assert sealed is not None
    assert [one.recipient for one in sealed.keys] == [key.id for key in keys[:64]]
