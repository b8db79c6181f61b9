# SPDX-License-Identifier: Apache-2.0
"""Cancels of jobs that do not run: they wait for something, they have not begun, or their worker took them twice."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from agent import run as run_module
from agent import worker as worker_module
from agent.errors import SealedForAnother
from agent.jobs import JobStore
from agent.protocol import Accepted, LogItem, Result
from agent.run import Run
from agent.worker import Worker
from mover.errors import MoverError, SessionBusy, StoreUnavailable
from tests.agent.conftest import Place
from tests.agent.rig import Rig, command, points
from tests.agent.waiting import wait_for

WAITED_FOR = [SessionBusy("busy", "x"), SealedForAnother("sealed", "x"), StoreUnavailable("gone", "x")]


def ends_in(monkeypatch: pytest.MonkeyPatch, error: MoverError, before: Callable[[], object] = lambda: None) -> None:
    def fail(work: object) -> None:
        before()
        raise error

    monkeypatch.setattr("agent.execute._run", fail)


@pytest.mark.parametrize("error", WAITED_FOR, ids=lambda error: type(error).__name__)
def test_a_job_that_waits_is_told_at_once(
    place: Place, rig: Rig, monkeypatch: pytest.MonkeyPatch, error: MoverError
) -> None:
    """Its message is hidden for ten minutes; the answer does not wait for it."""
    for name in ("BUSY_SECONDS", "RETRY_SECONDS", "ELSEWHERE_LONGEST"):
        monkeypatch.setattr(worker_module, name, 600.0)
    ends_in(monkeypatch, error)
    sent = rig.submit(command(place))
    with rig.running():
        wait_for(lambda: (there := rig.jobs.read("j1")) is not None and there.state == "waiting")
        rig.appliance.cancel("j1")
        (answer,) = wait_for(lambda: [r for r in rig.results() if r.job == "j1"])
    assert (answer.status, answer.command, answer.exit_code) == ("cancelled", sent.id, 8)
    record = rig.jobs.read("j1")
    assert record is not None
    assert (record.state, record.done_commands) == ("ended", (sent.id,))
    assert rig.jobs.claim_waiting("j1") is None


@pytest.mark.parametrize("error", WAITED_FOR, ids=lambda error: type(error).__name__)
def test_a_cancelled_job_is_not_put_back_to_wait(
    place: Place, rig: Rig, monkeypatch: pytest.MonkeyPatch, error: MoverError
) -> None:
    rig.submit(command(place))
    ends_in(monkeypatch, error, lambda: rig.jobs.cancel("j1", worker._moment(), "c"))
    look = Run.look_for_wish
    monkeypatch.setattr(run_module.Run, "give_back", lambda *_, **__: pytest.fail("it was put back"))

    def failing(run: Run, *arguments: Any, **options: Any) -> Result:
        try:
            return real(run, *arguments, **options)
        finally:
            look(run)  # as its keeper would

    real = Run.execute
    monkeypatch.setattr(Run, "execute", failing)
    worker = rig.worker()
    assert worker.serve("w", once=True) == 8
    assert [r.status for r in rig.results()] == ["cancelled"]


def test_a_job_that_was_cancelled_before_it_began_touches_nothing(place: Place, rig: Rig) -> None:
    rig.submit(command(place))
    rig.jobs.cancel("j1", rig.worker()._moment(), "c")
    assert rig.worker().serve("w", once=True) == 8
    events = rig.events()
    assert [event.status for event in events if isinstance(event, Result)] == ["cancelled"]
    assert not [event for event in events if isinstance(event, Accepted)]
    assert points(place) == []
    assert list((place.folder / "repository" / "points").glob("*/*")) == []


def test_who_cannot_open_the_secrets_has_accepted_nothing(
    place: Place, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "BUSY_SECONDS", 600.0)
    body = command(
        place, payload={**place_payload(place), "repository": {"url": place.url, "password": {"clear": "x"}}}
    )
    rig.submit(body)
    worker = rig.worker()

    def closed(_: object) -> str:
        raise SealedForAnother("sealed", "x")

    monkeypatch.setattr(worker, "_reveal", lambda command: closed)
    delivery = worker._take(rig.service.queue(rig.names.commands))
    assert delivery is not None
    assert worker._handle(delivery, "w") is None
    kinds = [type(event) for event in rig.events()]
    assert kinds == [LogItem]


def place_payload(place: Place) -> dict[str, Any]:
    return {"what": "disk", "resource": "vm1", "disks": [{"path": str(place.image)}]}


def test_a_worker_that_takes_a_job_again_which_it_lost_keeps_it(
    place: Place, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With several jobs at a time: the first run ends later than the second begins, and takes nothing of its away."""
    turns = [threading.Event(), threading.Event()]
    began: list[Run] = []
    real = Run.execute

    def turn(run: Run) -> Result:
        began.append(run)
        number = len(began) - 1
        assert turns[number].wait(60)
        if number == 0:
            run._job_lost = True
        return real(run)

    monkeypatch.setattr(Run, "execute", turn)
    sent = command(place)
    rig.submit(sent)
    worker = rig.worker()
    outcomes: list[Any] = []
    threads = [
        threading.Thread(target=lambda: outcomes.append(one_of(worker, rig)), name=f"job-{number}")
        for number in range(2)
    ]
    threads[0].start()
    wait_for(lambda: len(began) == 1)
    rig.state.break_lease(next(iter(rig.state.list("jobs/"))).name)  # as time would
    rig.submit(sent)
    threads[1].start()
    wait_for(lambda: len(began) == 2)
    turns[0].set()
    threads[0].join()
    assert worker.jobs() == ("j1",)
    assert worker._running["j1"] is began[1]
    turns[1].set()
    threads[1].join()
    assert outcomes[0] is None
    assert outcomes[1].status == "success"
    assert worker.jobs() == ()
    assert len(points(place)) == 1


def one_of(worker: Worker, rig: Rig) -> Result | None:
    delivery = worker._take(rig.service.queue(rig.names.commands))
    assert delivery is not None
    return worker._handle(delivery, "w")


def test_a_cancel_does_not_end_what_came_after_it(place: Place, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A waiting job whose command is newer than the wish waits on."""
    monkeypatch.setattr(worker_module, "BUSY_SECONDS", 600.0)
    ends_in(monkeypatch, SessionBusy("busy", "x"))
    rig.submit(command(place))
    assert one_of(rig.worker(), rig) is None
    record = rig.jobs.read("j1")
    assert record is not None
    JobStore(rig.state, rig.clock).cancel("j1", record.asked.replace(year=2000), "c")
    assert rig.jobs.claim_waiting("j1") is None
