# SPDX-License-Identifier: Apache-2.0
"""Cancels of jobs that do not run: they wait for something, they have not begun, or their worker took them twice."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from agent import execute as execute_module
from agent import worker as worker_module
from agent.appliance import Appliance
from agent.errors import SealedForAnother
from agent.jobs import HeldJob, JobStore
from agent.kinds.work import Work
from agent.protocol import (
    Accepted,
    LogItem,
    RepositoryReference,
    Result,
    Secret,
    TestConnectionPayload,
    decode_event,
    encode,
)
from agent.queue.base import Queue
from agent.run import Run
from agent.seal import SealKey
from agent.worker import Worker
from mover.errors import MoverError, SessionBusy, StoreUnavailable
from mover.repository import record
from mover.repository.leased import LeasedRecord
from tests.agent.conftest import Place
from tests.agent.rig import Rig, command, points
from tests.agent.waiting import wait_for

WAITED_FOR = [SessionBusy("busy", "x"), SealedForAnother("sealed", "x"), StoreUnavailable("gone", "x")]


@pytest.fixture
def _long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits is hidden for ten minutes."""
    for name in ("BUSY_SECONDS", "RETRY_SECONDS", "ELSEWHERE_LONGEST"):
        monkeypatch.setattr(worker_module, name, 600.0)


def fails_first(
    monkeypatch: pytest.MonkeyPatch, error: MoverError, before: Callable[[], object] = lambda: None
) -> None:
    """The first run of a job ends in `error`."""
    real, times = execute_module._run, iter([1])

    def fail(work: Work) -> None:
        if next(times, 0):
            before()
            raise error
        real(work)

    monkeypatch.setattr(execute_module, "_run", fail)


def next_of(worker: Worker, queue: Queue) -> Result | None:
    delivery = worker._take(queue)
    assert delivery is not None
    return worker._handle(delivery, "w")


def one_of(worker: Worker, rig: Rig) -> Result | None:
    return next_of(worker, rig.service.queue(rig.names.commands))


def cancel_by(worker: Worker, rig: Rig) -> None:
    rig.appliance.cancel("j1")
    next_of(worker, rig.service.queue(rig.names.control))


@pytest.mark.usefixtures("_long_waits")
@pytest.mark.parametrize("error", WAITED_FOR, ids=lambda error: type(error).__name__)
def test_a_job_that_waits_does_not_wait_on_when_it_is_cancelled(
    place: Place, rig: Rig, monkeypatch: pytest.MonkeyPatch, error: MoverError
) -> None:
    fails_first(monkeypatch, error)
    sent = rig.submit(command(place))
    with rig.running():
        wait_for(lambda: (there := rig.jobs.read("j1")) is not None and there.state == "waiting")
        rig.appliance.cancel("j1")
        (answer,) = wait_for(lambda: [r for r in rig.results() if r.job == "j1"])
    assert (answer.status, answer.command, answer.exit_code) == ("cancelled", sent.id, 8)
    kept = rig.jobs.read("j1")
    assert kept is not None
    assert (kept.state, kept.done_commands) == ("ended", (sent.id,))
    assert rig.jobs.claim_waiting("j1") is None
    assert points(place) == []


@pytest.mark.usefixtures("_long_waits")
@pytest.mark.parametrize("error", WAITED_FOR, ids=lambda error: type(error).__name__)
def test_a_cancel_that_comes_while_a_job_is_put_to_wait(
    place: Place, rig: Rig, monkeypatch: pytest.MonkeyPatch, error: MoverError
) -> None:
    """After the run's last look and before the record says that it waits."""
    fails_first(monkeypatch, error)
    worker = rig.worker()
    give_back = Run.give_back

    def slow(run: Run, *arguments: Any, **options: Any) -> None:
        if not run.wished:
            rig.jobs.cancel("j1", worker._moment(), "c")
        give_back(run, *arguments, **options)

    monkeypatch.setattr(Run, "give_back", slow)
    rig.submit(command(place))
    first = one_of(worker, rig)
    if first is None and not isinstance(error, SealedForAnother):
        assert worker.serve("w", once=True) == 8
    assert [r.status for r in rig.results()] == ["cancelled"]


def test_a_cancelled_job_whose_session_is_held_is_asked_again_soon_and_quietly(
    place: Place, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "BUSY_SECONDS", 600.0)
    worker = rig.worker()
    fails_first(monkeypatch, SessionBusy("busy", "x"), lambda: rig.jobs.cancel("j1", worker._moment(), "c"))
    look, real = Run.look_for_wish, Run.execute

    def execute(run: Run) -> Result:
        result = real(run)
        look(run)  # as its keeper would
        return result

    monkeypatch.setattr(Run, "execute", execute)
    rig.submit(command(place))
    assert worker.serve("w", once=True) == 8
    events = rig.events()
    assert [event.status for event in events if isinstance(event, Result)] == ["cancelled"]
    assert not [event for event in events if isinstance(event, LogItem) and "holds the session" in event.message]


# -- a point that is there is never told as cancelled ---------------------------------------------------------------


class Death(BaseException):
    """Of a worker."""


def test_a_cancel_after_a_worker_died_between_the_commit_and_the_answer(
    place: Place, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = rig.submit(command(place))

    def die(*_: object, **__: object) -> None:
        raise Death

    with monkeypatch.context() as patch:
        patch.setattr(HeldJob, "end", die)
        with pytest.raises(Death):
            rig.worker().serve("w", once=True)
    rig.state.break_lease(next(iter(rig.state.list("jobs/"))).name)  # as time would
    second = rig.worker("w2")
    cancel_by(second, rig)
    rig.service.queue(rig.names.commands).put(encode(sent))  # the hidden one shows again
    assert second.serve("w", once=True) == 0
    (answer,) = (r for r in rig.results() if r.job == "j1")
    assert (answer.status, answer.already) == ("success", True)
    assert answer.point == points(place)[0]["point"]


@pytest.mark.parametrize("seen", ["by the run", "while it waits"])
def test_a_cancel_of_a_job_that_did_not_hear_of_its_commit(
    place: Place, rig: Rig, monkeypatch: pytest.MonkeyPatch, seen: str
) -> None:
    monkeypatch.setattr(worker_module, "RETRY_SECONDS", 600.0)
    worker = rig.worker()
    put, lost = LeasedRecord._put, iter([1])

    def unanswered(leased: LeasedRecord, wanted: Any, data: bytes) -> None:
        put(leased, wanted, data)
        if wanted.state == record.COMMITTED and next(lost, 0):
            if seen == "by the run":
                rig.jobs.cancel("j1", worker._moment(), "c")
                (run,) = worker._running.values()
                run.look_for_wish()
            raise StoreUnavailable("no answer", "x")

    monkeypatch.setattr(LeasedRecord, "_put", unanswered)
    rig.submit(command(place))
    assert one_of(worker, rig) is None
    if seen == "while it waits":
        cancel_by(worker, rig)
    assert worker.serve("w", once=True) == 0
    (answer,) = (r for r in rig.results() if r.job == "j1")
    assert (answer.status, answer.point) == ("success", points(place)[0]["point"])


def test_a_record_that_cannot_be_ended_is_let_go(place: Place, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "ELSEWHERE_LONGEST", 600.0)
    fails_first(monkeypatch, SealedForAnother("sealed", "x"))
    rig.submit(command(place))
    worker = rig.worker()
    assert one_of(worker, rig) is None
    end, fails = HeldJob.end, iter([1])

    def failing(held: HeldJob, result: Result) -> None:
        if next(fails, 0):
            raise StoreUnavailable("gone", "x")
        end(held, result)

    monkeypatch.setattr(HeldJob, "end", failing)
    monkeypatch.setattr(worker_module, "BUSY_SECONDS", 0.0)
    cancel_by(worker, rig)
    assert next_of(worker, rig.service.queue(rig.names.control)) is not None
    assert [r.status for r in rig.results() if r.job == "j1"] == ["cancelled"]


def test_the_answer_at_once_goes_where_it_is_wanted(place: Place, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the command is too large to be kept."""
    monkeypatch.setattr(worker_module, "ELSEWHERE_LONGEST", 600.0)
    reply = f"{rig.names.events}-mine"
    rig.service.queue(reply).ensure()
    fails_first(monkeypatch, SealedForAnother("sealed", "x"))
    payload = {**place_payload(place), "repository": {"url": place.url}, "document": "A" * 30_000}
    rig.submit(command(place, reply=reply, payload=payload))
    worker = rig.worker()
    assert one_of(worker, rig) is None
    cancel_by(worker, rig)
    found = []
    while (message := rig.service.queue(reply).take(60)) is not None:
        found.append(decode_event(message.body))
    assert [event.status for event in found if isinstance(event, Result)] == ["cancelled"]


# -- jobs that have not begun ---------------------------------------------------------------------------------------


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
    another = SealKey.generate().public
    issuer = Appliance(rig.service, rig.state, rig.clock, names=rig.names, recipients=[another])
    sealed = RepositoryReference(url=place.url, password=Secret(clear="correct horse"))
    issuer.issue("test-connection", TestConnectionPayload(repository=sealed))
    assert one_of(rig.worker(), rig) is None
    assert [type(event) for event in rig.events()] == [LogItem]


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


def test_a_cancel_does_not_end_what_came_after_it(place: Place, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A waiting job whose command is newer than the wish waits on."""
    monkeypatch.setattr(worker_module, "BUSY_SECONDS", 600.0)
    fails_first(monkeypatch, SealedForAnother("sealed", "x"))
    rig.submit(command(place))
    assert one_of(rig.worker(), rig) is None
    kept = rig.jobs.read("j1")
    assert kept is not None
    JobStore(rig.state, rig.clock).cancel("j1", kept.asked.replace(year=2000), "c")
    assert rig.jobs.claim_waiting("j1") is None
