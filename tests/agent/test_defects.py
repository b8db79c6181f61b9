# SPDX-License-Identifier: Apache-2.0
"""A defect of ours: it ends one delivery, never the worker, and what it was in is not lost."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from agent import worker as worker_module
from agent.worker import Worker
from tests.agent.conftest import Place
from tests.agent.rig import QUICK, Rig, command
from tests.agent.waiting import wait_for


class Bug(Exception):
    pass


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(worker_module, "BUSY_SECONDS", 0.0)


def no_lease_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease that was not given back would make the tests wait a minute: it must be."""

    def never(*_: object) -> bool:
        raise AssertionError("a job's lease was left behind")

    monkeypatch.setattr(Worker, "_wait_for_holder", never)


def ended(rig: Rig, job: str) -> bool:
    record = rig.jobs.read(job)
    return record is not None and record.state == "ended" and rig.waiting() == 0


@pytest.mark.parametrize("where", ["_run", "_work", "_answer"])
def test_a_defect_around_a_job_ends_neither_the_worker_nor_another_command(
    place: Place, rig: Rig, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    no_lease_is_left(monkeypatch)
    whole = getattr(Worker, where)
    calls: list[int] = []

    def broken_once(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise Bug("a secret")
        return whole(*arguments, **options)

    monkeypatch.setattr(Worker, where, broken_once)
    rig.submit(command(place))
    rig.submit(command(place, "j2"))
    with rig.running():
        wait_for(lambda: all(ended(rig, job) for job in ("j1", "j2")))
    assert {r.status for r in rig.results()} == {"success"}
    assert rig.waiting() == 0
    assert "a secret" not in repr(rig.logs)


@pytest.mark.parametrize("large", [False, True])
def test_what_always_ends_in_a_defect_is_put_away_even_when_the_poison_queue_is_gone(
    place: Place, rig: Rig, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    no_lease_is_left(monkeypatch)

    def broken(*_: object) -> None:
        raise Bug

    monkeypatch.setattr(Worker, "_work", broken)
    if large:
        monkeypatch.setattr(worker_module, "KEPT_COMMAND_BYTES", 1 << 20)
        monkeypatch.setattr("agent.records.RECORD_BYTES", 1 << 20)
    body = json.loads(command(place))
    if large:
        body["payload"]["document"] = base64.b64encode(bytes(60_000)).decode()
    sent = rig.submit(json.dumps(body))
    limits = replace(QUICK, attempts=3)
    assert rig.worker(limits=limits).serve("w", once=True) == 6
    (poison,) = rig.appliance.poisoned()
    assert poison.entry is not None
    assert poison.entry.command == sent.id
    assert rig.waiting() == 0


def test_a_message_that_cannot_even_be_looked_at_is_put_away(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise Bug

    worker = rig.worker(limits=replace(QUICK, attempts=3))
    monkeypatch.setattr(worker, "_admit", broken)
    rig.submit_raw(b"{}")
    assert worker.serve("w", once=True) == 70
    assert rig.waiting() == 0
    (poison,) = rig.appliance.poisoned()
    assert poison.entry is not None
    assert (poison.entry.command, poison.entry.error.value) == ("", "Bug")
