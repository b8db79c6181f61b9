# SPDX-License-Identifier: Apache-2.0
"""The worker's loop in this process: answers, renewals, lost messages, a session that another worker holds."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from agent import worker as worker_module
from agent.errors import QueueError, StaleReceipt
from agent.execute import execute
from agent.opening import Settings
from agent.protocol import Accepted, Command, LogItem, Result, decode_command
from agent.queue_sqlite import Message, SqliteQueue
from agent.worker import Worker
from mover.errors import SessionBusy
from mover.repository import record
from mover.repository.repository import Repository
from mover.repository.session import Session
from mover.store.local import LocalStore
from tests.agent.conftest import Place
from tests.agent.waiting import wait_for

Execute = Callable[..., Result]


class Logs(list[dict[str, Any]]):
    """A structlog logger that keeps its lines."""

    def bind(self, **_: object) -> Logs:
        return self

    def info(self, event: str, **values: object) -> None:
        self.append({"event": event, **values})

    warning = error = info


@pytest.fixture
def queue(place: Place) -> Iterator[SqliteQueue]:
    place.repo()
    made = SqliteQueue(place.queue)
    yield made
    made.close()


def submit(place: Place, queue: SqliteQueue, job: str = "j1", *words: object) -> Command:
    body = place.back_up("--print-command", "--job", job, *words).out.encode()
    command = decode_command(body)
    queue.put(body, command=command.id, job=job)
    return command


def make_worker(queue: SqliteQueue, visibility: float = 30, stop: threading.Event | None = None) -> tuple[Worker, Logs]:
    logs = Logs()
    settings = Settings(worker="w1", cancel=stop or threading.Event())
    return Worker(queue, settings, logs, visibility=visibility), logs  # type: ignore[arg-type]


def results(queue: SqliteQueue, job: str = "j1") -> list[Result]:
    return [event for _, event in queue.events(job) if isinstance(event, Result)]


@contextmanager
def running(place: Place, visibility: float = 30) -> Iterator[threading.Event]:
    """A worker in a thread, with a connection of its own, until the block ends or the event is set."""
    mine, stop = SqliteQueue(place.queue), threading.Event()
    worker, _ = make_worker(mine, visibility, stop)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join()
        mine.close()


def test_a_command_is_carried_out_and_answered(place: Place, queue: SqliteQueue) -> None:
    command = submit(place, queue)
    worker, logs = make_worker(queue)
    assert worker.run(once=True) == 0
    events = [event for _, event in queue.events("j1")]
    assert isinstance(events[0], Accepted)
    assert results(queue) == events[-1:]
    assert (events[-1].command, results(queue)[0].status) == (command.id, "success")
    assert not queue.waiting("j1")
    assert [line["event"] for line in logs] == ["ready", "command taken", "command done"]


def test_a_command_delivered_twice_is_done_once(place: Place, queue: SqliteQueue) -> None:
    submit(place, queue)
    submit(place, queue)
    worker, _ = make_worker(queue)
    worker.run(once=True)
    worker.run(once=True)
    first, second = results(queue)
    assert not first.already
    assert second.already
    assert first.point == second.point
    assert len(place.dm("points", "--json").document["points"]) == 1


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"{", "a command is not JSON"),
        (json.dumps({"schema": 9, "kind": "backup"}).encode(), "a command of a schema that this release does not know"),
        (json.dumps({"schema": 1, "kind": "dance"}).encode(), "a command of an unknown kind"),
        (b"[" * 100_000, "a command is malformed"),
    ],
)
def test_what_cannot_be_understood_is_answered_and_gone(queue: SqliteQueue, body: bytes, what: str) -> None:
    queue.put(body, command="c1", job="j1")
    worker, _ = make_worker(queue)
    assert worker.run(once=True) == 2
    answer = results(queue)[0]
    assert answer.error is not None
    assert (answer.command, answer.status, answer.error.what) == ("c1", "failed", what)
    assert answer.error.hint
    assert not queue.waiting("j1")


def test_a_command_that_was_begun_in_time_is_gone_on_with_after_its_time(place: Place, queue: SqliteQueue) -> None:
    command = place.back_up("--print-command", "--job", "j1").document
    command |= {"issued": "2020-01-01T00:00:00Z", "expires": "2020-01-02T00:00:00Z"}
    for _ in range(2):
        queue.put(json.dumps(command).encode(), command="c1", job="j1")
    begun = queue.take(60)
    assert begun is not None
    queue.release(begun)
    worker, _ = make_worker(queue)
    assert worker.run(once=True) == 0
    assert worker.run(once=True) == 2


def test_an_error_is_the_answer_with_its_exit_code(place: Place, queue: SqliteQueue) -> None:
    submit(place, queue)
    (place.folder / "repository" / "repository.json").unlink()
    worker, _ = make_worker(queue)
    assert worker.run(once=True) == 4
    error = results(queue)[0].error
    assert error is not None
    assert (error.what, error.type) == ("there is no repository", "RepositoryNotFound")
    assert not queue.waiting("j1")


def test_a_defect_is_answered_and_the_worker_goes_on(
    place: Place, queue: SqliteQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(place, queue)
    submit(place, queue, "j2")
    calls: list[int] = []

    def broken_once(*arguments: Any, **options: Any) -> Result:
        calls.append(1)
        if len(calls) == 1:
            raise ZeroDivisionError("a secret")
        return execute(*arguments, **options)

    monkeypatch.setattr(worker_module, "execute", broken_once)
    worker, logs = make_worker(queue)
    assert worker.run(once=True) == 70
    assert worker.run(once=True) == 0
    error = results(queue)[0].error
    assert error is not None
    assert (error.value, error.exit_code) == ("ZeroDivisionError", 70)
    assert "a secret" not in repr(error) + repr(logs)


# -- keeping the message --------------------------------------------------------------------------------------------


def instead(monkeypatch: pytest.MonkeyPatch, work: Callable[[Callable[[], bool]], None]) -> None:
    """The job does `work(cancelled)` before its real work."""

    def run(command: Command, settings: Settings, send: Any, cancelled: Any, **options: Any) -> Result:
        work(cancelled)
        return execute(command, settings, send, cancelled, **options)

    monkeypatch.setattr(worker_module, "execute", run)


def test_the_message_is_kept_invisible_for_as_long_as_the_job_takes(
    place: Place, queue: SqliteQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(place, queue)
    renewals: list[Message] = []
    renew = queue.renew
    monkeypatch.setattr(
        queue, "renew", lambda message, visibility: renewals.append(renew(message, visibility)) or renewals[-1]
    )
    other = SqliteQueue(place.queue)

    def work(cancelled: Callable[[], bool]) -> None:
        wait_for(lambda: len(renewals) >= 5)
        assert other.take(60) is None

    instead(monkeypatch, work)
    worker, _ = make_worker(queue, visibility=1.5)
    assert worker.run(once=True) == 0
    assert len({message.receipt for message in renewals}) == len(renewals)
    other.close()


def test_a_message_that_is_another_s_stops_the_job_without_an_answer(
    place: Place, queue: SqliteQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other worker does the job; this one, which believed to have it, says nothing and commits nothing."""
    submit(place, queue)
    stop = threading.Event()

    def stolen(message: Message, visibility: float) -> Message:
        stop.set()
        raise StaleReceipt("stolen", "")

    monkeypatch.setattr(queue, "renew", stolen)
    instead(monkeypatch, lambda cancelled: wait_for(cancelled) and None)
    worker, logs = make_worker(queue, visibility=0.3, stop=stop)
    assert worker.run() == 0
    assert results(queue) == []
    assert "lost" in logs[2]["event"]
    assert place.dm("points", "--json").document["points"] == []


def test_a_queue_that_does_not_answer_stops_the_job_when_the_message_may_be_another_s(
    place: Place, queue: SqliteQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(place, queue)
    stop = threading.Event()
    tried: list[int] = []

    def silent(message: Message, visibility: float) -> Message:
        tried.append(1)
        raise QueueError("silent", "")

    def work(cancelled: Callable[[], bool]) -> None:
        wait_for(cancelled)
        stop.set()

    monkeypatch.setattr(queue, "renew", silent)
    instead(monkeypatch, work)
    worker, _ = make_worker(queue, visibility=0.6, stop=stop)
    assert worker.run() == 0
    assert len(tried) >= 2  # one failure is no loss
    assert results(queue) == []
    assert queue.waiting("j1")


def test_a_worker_that_is_stopped_gives_its_command_back(
    place: Place, queue: SqliteQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(place, queue)
    stop = threading.Event()
    instead(monkeypatch, lambda cancelled: stop.set())
    worker, _ = make_worker(queue, stop=stop)
    assert worker.run() == 0
    assert results(queue) == []
    last = queue.events("j1")[-1][1]
    assert isinstance(last, LogItem)
    assert "the worker is stopping" in last.message
    monkeypatch.undo()
    worker, _ = make_worker(queue)
    assert worker.run(once=True) == 0  # visible at once
    assert results(queue)[0].resumed


def test_a_session_that_another_worker_holds_is_waited_for_in_the_queue(
    place: Place, queue: SqliteQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "BUSY_SECONDS", 0.1)
    repository = Repository.open(LocalStore(place.folder / "repository"))
    held = repository.begin(resource_name="vm1", job="j1", body=record.Body(resource_name="vm1", job="j1"))
    assert isinstance(held, Session)
    submit(place, queue)
    with running(place):
        wait_for(lambda: [event for _, event in queue.events("j1") if isinstance(event, LogItem)])
        assert results(queue) == []
        with pytest.raises(SessionBusy):
            repository.begin(resource_name="vm1", job="j1", body=record.Body())
        held.close()
        answer = wait_for(lambda: results(queue))[0]
    assert answer.status in ("success", "warning")
    assert answer.resumed


def test_two_workers_end_every_job_once(place: Place, queue: SqliteQueue) -> None:
    jobs = [f"j{number}" for number in range(12)]
    for job in jobs:
        submit(place, queue, job)
    with running(place), running(place):
        wait_for(lambda: not any(map(queue.waiting, jobs)))
    for job in jobs:
        assert [answer.status for answer in results(queue, job)] == ["success"]
    listed = place.dm("points", "--json").document["points"]
    assert sorted(point["job"] for point in listed) == sorted(jobs)
