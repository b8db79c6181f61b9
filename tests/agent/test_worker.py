# SPDX-License-Identifier: Apache-2.0
"""The worker in this process, on SQLite and on Azurite: answers, renewals, lost messages, doubles, cancels, outages, poison."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from agent import run as run_module
from agent import worker as worker_module
from agent.errors import QueueUnavailable, StaleReceipt
from agent.execute import execute
from agent.jobs import Ended, HeldJob
from agent.opening import Settings
from agent.protocol import (
    Accepted,
    Command,
    LogItem,
    Result,
    encode,
)
from agent.queue.base import Message, Queue, QueueService
from mover.errors import MoverError, SessionBusy, StoreUnavailable
from mover.repository import record
from mover.repository.repository import Repository
from mover.repository.session import Session
from mover.store.local import LocalStore
from tests.agent.conftest import Place
from tests.agent.rig import QUICK, Rig, changed, command, points
from tests.agent.waiting import wait_for


def test_a_command_is_carried_out_and_answered(place: Place, rig: Rig) -> None:
    sent = rig.submit(command(place))
    assert rig.worker().serve("w", once=True) == 0
    events = rig.events()
    assert isinstance(events[0], Accepted)
    assert isinstance(events[-1], Result)
    assert (events[-1].command, events[-1].status) == (sent.id, "success")
    assert rig.waiting() == 0
    done = rig.jobs.read("j1")
    assert done is not None
    assert (done.state, done.result) == ("ended", events[-1])
    assert [line["event"] for line in rig.logs] == ["command taken", "command done"]


def test_a_command_put_twice_is_done_once(place: Place, rig: Rig) -> None:
    body = command(place)
    rig.submit(body)
    rig.submit(body)
    worker = rig.worker()
    worker.serve("w", once=True)
    worker.serve("w", once=True)
    first, second = rig.results()
    assert (first.already, second.already, first.point) == (False, True, second.point)
    assert len(points(place)) == 1


def test_two_copies_at_two_workers_at_once(place: Place, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    body = command(place)
    rig.submit(body)
    rig.submit(body)
    both = threading.Event()
    instead(monkeypatch, lambda cancelled: both.wait(60) and None)
    with rig.running("w1"), rig.running("w2"):
        wait_for(lambda: [line for line in rig.logs if "put twice" in line["event"]])
        both.set()
        results = wait_for(rig.results)
    assert [(r.status, r.already) for r in results] == [("success", False)]
    assert rig.waiting() == 0
    assert len(points(place)) == 1


def test_a_job_asked_for_again_is_answered_and_a_failed_one_is_tried_again(place: Place, rig: Rig) -> None:
    first = json.loads(command(place))
    place.image.rename(place.image.with_suffix(".away"))
    rig.submit(json.dumps(first))
    worker = rig.worker()
    assert worker.serve("w", once=True) == 1
    rig.submit(json.dumps(first))  # the same command: answered as before, not tried again
    place.image.with_suffix(".away").rename(place.image)
    assert worker.serve("w", once=True) == 1
    again = command(place)  # a new command of the same job
    rig.submit(again)
    assert worker.serve("w", once=True) == 0
    assert [(r.status, r.already) for r in rig.results()] == [("failed", False), ("failed", True), ("success", False)]


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"{", "a command is not JSON"),
        (json.dumps({"schema": 9, "kind": "backup"}).encode(), "a command of a schema that this release does not know"),
        (json.dumps({"schema": 1, "kind": "dance"}).encode(), "a command of an unknown kind"),
        (b"[" * 40_000, "a command is malformed"),
        (b"DMC1 {}", "a command's envelope is malformed"),
    ],
)
def test_what_cannot_be_understood_is_answered_and_gone(rig: Rig, body: bytes, what: str) -> None:
    rig.service.queue(rig.names.commands).put(body)
    assert rig.worker().serve("w", once=True) == 2
    (answer,) = rig.results()
    assert answer.error is not None
    assert (answer.status, answer.error.what) == ("refused", what)
    assert answer.error.hint
    assert rig.waiting() == 0
    assert list(rig.jobs.lines()) == []


def test_a_command_whose_time_is_over_is_refused_however_often_it_was_taken(place: Place, rig: Rig) -> None:
    """Begun in time is what counts, and what was put after its time was not: an old message taken twice stays refused."""
    rig.submit(command(place, issued="2020-01-01T00:00:00Z", expires="2020-01-02T00:00:00Z"))
    queue = rig.service.queue(rig.names.commands)
    begun = queue.take(60)
    assert begun is not None
    queue.release(begun)
    assert rig.worker().serve("w", once=True) == 2
    (answer,) = rig.results()
    assert (answer.status, answer.job) == ("refused", "j1")


def test_an_error_is_the_answer_with_its_exit_code(place: Place, rig: Rig) -> None:
    rig.submit(command(place))
    (place.folder / "repository" / "repository.json").unlink()
    assert rig.worker().serve("w", once=True) == 4
    error = rig.results()[0].error
    assert error is not None
    assert (error.what, error.type) == ("there is no repository", "RepositoryNotFound")
    assert rig.waiting() == 0


def test_a_defect_is_answered_and_the_worker_goes_on(place: Place, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.submit(command(place))
    rig.submit(command(place, "j2"))
    calls: list[int] = []

    def broken_once(*arguments: Any, **options: Any) -> Result:
        calls.append(1)
        if len(calls) == 1:
            raise ZeroDivisionError("a secret")
        return execute(*arguments, **options)

    monkeypatch.setattr(run_module, "execute", broken_once)
    worker = rig.worker()
    assert worker.serve("w", once=True) == 70
    assert worker.serve("w", once=True) == 0
    error = rig.results()[0].error
    assert error is not None
    assert (error.value, error.exit_code) == ("ZeroDivisionError", 70)
    assert "a secret" not in repr(error) + repr(rig.logs)


# -- keeping the message and the job --------------------------------------------------------------------------------


def instead(monkeypatch: pytest.MonkeyPatch, work: Callable[[Callable[[], bool]], None]) -> None:
    """The job does `work(cancelled)` before its real work."""

    def run(command: Command, settings: Settings, send: Any, cancelled: Any, **options: Any) -> Result:
        work(cancelled)
        return execute(command, settings, send, cancelled, **options)

    monkeypatch.setattr(run_module, "execute", run)


@dataclass
class Faults:
    """What a wrapped queue does to renewals: `error` is raised while it is set; `renewed` counts."""

    error: MoverError | None = None
    renewed: int = 0


class FaultyService(QueueService):
    """The rig's service, its command queue under `faults`."""

    def __init__(self, inner: QueueService, faults: Faults) -> None:
        self._inner, self._faults = inner, faults

    @property
    def where(self) -> str:
        return self._inner.where

    def queue(self, name: str) -> Queue:
        queue, faults = self._inner.queue(name), self._faults
        renew = queue.renew

        def faulty(message: Message, visibility: float) -> Message:
            faults.renewed += 1
            if faults.error is not None:
                raise faults.error
            return renew(message, visibility)

        queue.renew = faulty  # type: ignore[method-assign]
        return queue

    def now(self) -> float:
        return self._inner.now()

    def close(self) -> None:
        pass


SHORT = replace(QUICK, visibility=3.0)


def test_the_message_is_kept_for_as_long_as_the_job_takes(
    place: Place, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.submit(command(place))
    faults = Faults()

    def work(cancelled: Callable[[], bool]) -> None:
        wait_for(lambda: faults.renewed >= 4)
        assert rig.service.queue(rig.names.commands).take(60) is None

    instead(monkeypatch, work)
    assert rig.worker(limits=SHORT, service=FaultyService(rig.service, faults)).serve("w", once=True) == 0


@pytest.mark.parametrize("what", ["read", "claimed"])
def test_the_message_is_kept_while_its_command_is_read_and_its_job_claimed(
    place: Place, rig: Rig, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """A claim check of many MiB, or a state store that answers late, takes longer than a delivery lives."""
    rig.submit(command(place))
    faults = Faults()
    worker = rig.worker(limits=SHORT, service=FaultyService(rig.service, faults))
    owner, name = (worker, "_admit") if what == "read" else (worker._jobs, "claim")
    real = getattr(owner, name)

    def late(*arguments: Any) -> Any:
        wait_for(lambda: faults.renewed >= 4)
        return real(*arguments)

    monkeypatch.setattr(owner, name, late)
    assert worker.serve("w", once=True) == 0
    assert rig.waiting() == 0


def test_a_message_that_is_another_s_stops_the_job_without_an_answer(
    place: Place, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stale pop receipt: work stops at once, nothing is said, and nothing that was in flight becomes visible later."""
    rig.submit(command(place))
    stop = threading.Event()

    def work(cancelled: Callable[[], bool]) -> None:
        wait_for(cancelled)
        stop.set()

    instead(monkeypatch, work)
    faulty = FaultyService(rig.service, Faults(StaleReceipt("stolen", "")))
    assert rig.worker(limits=SHORT, stop=stop, service=faulty).serve("w") == 0
    assert rig.results() == []
    assert any("stopped without an answer" in line["event"] for line in rig.logs)
    assert points(place) == []
    monkeypatch.undo()
    wait_for(lambda: rig.worker().serve("w", once=True) == 0 or True)
    assert [r.status for r in rig.results()] == ["success"]


def test_a_queue_that_does_not_answer_stops_the_job_when_the_message_may_be_another_s(
    place: Place, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.submit(command(place))
    stop, faults = threading.Event(), Faults(QueueUnavailable("silent", ""))

    def work(cancelled: Callable[[], bool]) -> None:
        wait_for(cancelled)
        stop.set()

    instead(monkeypatch, work)
    rig.worker(limits=SHORT, stop=stop, service=FaultyService(rig.service, faults)).serve("w")
    assert faults.renewed >= 2, "one failure is no loss"
    assert rig.results() == []
    assert points(place) == []
    kept = rig.jobs.read("j1")
    assert kept is not None
    assert (kept.state, kept.attempts) == ("waiting", 0), "an outage is no failed attempt"


def test_a_worker_that_is_stopped_gives_its_command_back(
    place: Place, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.submit(command(place))
    stop = threading.Event()
    instead(monkeypatch, lambda cancelled: stop.set())
    assert rig.worker(stop=stop).serve("w") == 0
    last = rig.events()[-1]
    assert isinstance(last, LogItem)
    assert "the worker is stopping" in last.message
    monkeypatch.undo()
    assert rig.worker("w2").serve("w", once=True) == 0  # visible at once
    assert [r.resumed for r in rig.results()] == [True]


def test_a_session_that_another_worker_holds_is_waited_for_in_the_queue(
    place: Place, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "BUSY_SECONDS", 0.1)
    repository = Repository.open(LocalStore(place.folder / "repository"))
    held = repository.begin(resource_name="vm1", job="j1", body=record.Body(resource_name="vm1", job="j1"))
    assert isinstance(held, Session)
    rig.submit(command(place))
    with rig.running():
        wait_for(lambda: [line for line in rig.logs if "holds the session" in line["event"]])
        assert rig.results() == []
        with pytest.raises(SessionBusy):
            repository.begin(resource_name="vm1", job="j1", body=record.Body())
        held.close()
        (answer,) = wait_for(rig.results)
    assert answer.status in ("success", "warning")
    assert answer.resumed


def test_a_dead_worker_s_job_goes_on_elsewhere(place: Place, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """It died with message and lease in hand; both lapse, and the next worker counts its attempt as the second."""
    rig.submit(command(place))
    queue = rig.service.queue(rig.names.commands)
    message = queue.take(1)
    assert message is not None
    body = json.loads(message.body)
    dead = rig.worker("dead")
    held = rig.jobs.claim(dead._fresh(dead._admit(message, rig.names.commands), message))
    assert not isinstance(held, Ended)
    monkeypatch.setattr(worker_module, "BUSY_SECONDS", 0.2)
    with rig.running("w2"):
        wait_for(lambda: [line for line in rig.logs if "another worker is at this job" in line["event"]])
        held.abandon()  # as if its lease had lapsed
        (answer,) = wait_for(rig.results)
    assert (answer.status, answer.command) == ("success", body["id"])
    done = rig.jobs.read("j1")
    assert done is not None
    assert done.worker == "w2"


@pytest.mark.parametrize("error", [StoreUnavailable("gone", "x"), QueueUnavailable("gone", "x")])
def test_an_error_that_passes_sends_the_command_back_a_few_times(
    place: Place, rig: Rig, monkeypatch: pytest.MonkeyPatch, error: MoverError
) -> None:
    monkeypatch.setattr(worker_module, "RETRY_SECONDS", 0.05)
    rig.submit(command(place))
    tries: list[int] = []

    def fail(cancelled: Callable[[], bool]) -> None:
        tries.append(1)
        raise error

    def run(command: Command, settings: Settings, send: Any, cancelled: Any, **options: Any) -> Result:
        def failing(work: object) -> None:
            fail(cancelled)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("agent.execute._run", failing)
            return execute(command, settings, send, cancelled, **options)

    monkeypatch.setattr(run_module, "execute", run)
    assert rig.worker().serve("w", once=True) == 7
    assert len(tries) == worker_module.RETRIES + 1
    events = rig.events()
    warnings = [e for e in events if isinstance(e, LogItem) and "tried again" in e.message]
    assert len(warnings) == worker_module.RETRIES
    assert [e.status for e in events if isinstance(e, Result)] == ["failed"]


def test_what_kills_its_workers_is_put_away_and_can_be_sent_again(
    place: Place, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = rig.submit(command(place))

    class Death(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Death

    limits = replace(QUICK, attempts=3)
    for _ in range(3):
        with monkeypatch.context() as patch:
            patch.setattr(run_module, "execute", die)
            with pytest.raises(Death):
                rig.worker(limits=limits).serve("w", once=True)
        rig.state.break_lease(next(iter(rig.state.list("jobs/"))).name)  # as time would
        rig.service.queue(rig.names.commands).put(encode(sent))  # the hidden one shows again later
    assert rig.worker(limits=limits).serve("w", once=True) == 6
    (poison,) = rig.appliance.poisoned()
    assert poison.entry is not None
    assert (poison.entry.job, poison.entry.kind) == ("j1", "backup")
    (answer,) = rig.results()
    assert answer.error is not None
    assert answer.error.type == "Poisoned"
    again = rig.appliance.send_again(poison.id)
    assert (again.job, again.id != sent.id) == ("j1", True)
    assert rig.appliance.poisoned() == []
    with rig.running():
        wait_for(lambda: [r for r in rig.results() if r.command == again.id and r.status == "success"])
    assert len(points(place)) == 1


# -- cancelling -----------------------------------------------------------------------------------------------------


def test_a_running_job_is_cancelled(place: Place, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.submit(command(place))
    began = threading.Event()

    def work(cancelled: Callable[[], bool]) -> None:
        began.set()
        wait_for(cancelled)

    instead(monkeypatch, work)
    with rig.running():
        assert began.wait(60)
        asked = time.monotonic()
        rig.appliance.cancel("j1")
        results = wait_for(lambda: [r for r in rig.results() if r.job == "j1"])
        took = time.monotonic() - asked
    assert [r.status for r in results] == ["cancelled"]
    print(f"cancelled in {took:.2f} s")
    assert points(place) == []
    assert rig.waiting() == 0


def test_a_job_is_cancelled_by_another_worker_s_hand(place: Place, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever takes the cancel leaves the wish in the state store; who runs the job finds it there."""
    rig.submit(command(place))
    began = threading.Event()

    def work(cancelled: Callable[[], bool]) -> None:
        began.set()
        wait_for(cancelled)

    instead(monkeypatch, work)
    busy, stop = rig.worker("w1"), threading.Event()
    threads = [threading.Thread(target=busy.serve, args=("w",), kwargs={"once": True})]
    other = rig.worker("w2", stop=stop)
    threads.append(threading.Thread(target=other.obey_control, args=("c",)))
    for thread in threads:
        thread.start()
    assert began.wait(60)
    rig.appliance.cancel("j1")
    threads[0].join()
    stop.set()
    threads[1].join()
    assert {r.status for r in rig.results() if r.job == "j1"} == {"cancelled"}


def test_a_job_that_waits_is_cancelled_and_the_next_wish_is_a_new_one(place: Place, rig: Rig) -> None:
    rig2 = rig.worker()
    rig.submit(command(place, "j2"))
    stop = threading.Event()
    rig.appliance.cancel("j2")
    control = rig.worker("c", stop=stop)
    thread = threading.Thread(target=control.obey_control, args=("c",))
    thread.start()
    wait_for(lambda: rig.service.queue(rig.names.control).length() == 0)
    stop.set()
    thread.join()
    while rig.waiting():
        rig2.serve("w", once=True)
    assert [r.status for r in rig.results() if r.job == "j2"] == ["cancelled"]
    wished = rig.service.now()
    wait_for(
        lambda: rig.service.now() > wished + 1
    )  # a service tells seconds; in the same one the wish counts as later
    rig.submit(command(place, "j2"))
    rig2.serve("w", once=True)
    assert [r.status for r in rig.results()] == ["success"]


# -- large commands, secrets, trust ---------------------------------------------------------------------------------


def test_a_command_of_200_kib_travels_as_a_claim(place: Place, rig: Rig) -> None:
    document = base64.b64encode(bytes(150 * 1024)).decode()
    body = json.loads(command(place))
    body["payload"]["document"] = document
    rig.submit(json.dumps(body))
    assert len(json.dumps(body)) > 200 * 1024
    assert rig.worker().serve("w", once=True) == 0
    point = rig.results()[0].point
    out = place.folder / "document"
    place.dm("restore", "--point", point, "--to", place.folder / "out.img", "--document", out)
    assert out.read_bytes() == bytes(150 * 1024)
    assert list(rig.state.list("claims/")) == [], "what was answered is not kept"


def test_a_claim_that_holds_something_else_is_refused(place: Place, rig: Rig) -> None:
    body = json.loads(command(place))
    body["payload"]["document"] = base64.b64encode(bytes(100 * 1024)).decode()
    rig.submit(json.dumps(body))
    (entry,) = rig.state.list("claims/")
    rig.state.delete(entry.name)
    rig.state.put(entry.name, [b"x" * entry.size])
    assert rig.worker().serve("w", once=True) == 3
    (answer,) = rig.results()
    assert answer.error is not None
    assert (answer.status, answer.error.type) == ("refused", "Forged")
    assert list(rig.jobs.lines()) == []


def test_a_refused_message_removes_no_one_s_claim(place: Place, rig: Rig) -> None:
    """Whoever can write to the queue could name a claim that a genuine command waits for."""
    body = json.loads(command(place))
    body["payload"]["document"] = base64.b64encode(bytes(100 * 1024)).decode()
    queue = rig.service.queue(rig.names.commands)
    rig.submit(json.dumps(body))
    genuine = queue.take(60)
    assert genuine is not None
    (entry,) = rig.state.list("claims/")
    claim = {"claim": {"name": entry.name, "size": 1, "sha256": "0" * 64}}
    queue.put(b"DMC1 " + json.dumps(claim).encode() + b"\n")
    assert rig.worker().serve("w", once=True) == 3
    queue.release(genuine)
    assert rig.worker().serve("w", once=True) == 0
    assert [r.status for r in rig.results()] == ["refused", "success"]


def test_the_end_of_time_ends_no_worker(place: Place, rig: Rig) -> None:
    rig.submit(command(place, expires="9999-12-31T23:59:59Z"))
    assert rig.worker().serve("w", once=True) == 0
    assert [r.status for r in rig.results()] == ["success"]


def test_a_job_that_may_have_been_another_s_is_handed_back_not_cancelled(
    place: Place, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lease that could not be renewed in time and then could: what was stopped meanwhile is nobody's wish."""
    rig.submit(command(place))
    unsure = threading.Event()
    sure = HeldJob.sure.fget  # type: ignore[attr-defined]
    monkeypatch.setattr(HeldJob, "sure", property(lambda held: not unsure.is_set() and sure(held)))

    def work(cancelled: Callable[[], bool]) -> None:
        unsure.set()
        assert cancelled()
        unsure.clear()
        assert cancelled(), "once unsure is unsure for good"

    first = [True]

    def once(cancelled: Callable[[], bool]) -> None:
        if first:
            first.clear()
            work(cancelled)

    instead(monkeypatch, once)
    worker = rig.worker()
    delivery = worker._take(rig.service.queue(rig.names.commands))
    assert delivery is not None
    assert worker._handle(delivery, "w") is None
    kept = rig.jobs.read("j1")
    assert kept is not None
    assert (kept.state, kept.result) == ("waiting", None)
    delivery.queue.release(delivery.message)
    assert worker.serve("w", once=True) == 0
    assert [r.status for r in rig.results()] == ["success"]


def test_a_reply_queue_that_is_not_there_loses_no_result(place: Place, rig: Rig) -> None:
    rig.submit(command(place, reply="nobody-made-it"))
    assert rig.worker().serve("w", once=True) == 0
    (answer,) = rig.results()
    assert (answer.job, answer.status) == ("j1", "success")
    assert answer.error is not None
    assert rig.waiting() == 0
    done = rig.jobs.read("j1")
    assert done is not None
    assert done.result is not None
    assert done.result.statistics


def test_a_refusal_names_the_command_that_it_is_about(place: Place, rig: Rig) -> None:
    rig.submit_raw(changed(command(place).decode(), kind="dance"))
    assert rig.worker().serve("w", once=True) == 2
    (answer,) = rig.results()
    assert (answer.job, bool(answer.command), answer.status) == ("j1", True, "refused")
