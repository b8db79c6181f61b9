# SPDX-License-Identifier: Apache-2.0
"""Services that are gone for a while and come back, clocks that are wrong, and cancels at every stage.

Ten minutes are the clock's business where a test has its own clock, and a cut connection's (longer than a delivery's visibility)
where the service is real.
"""

from __future__ import annotations

import json
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest

from agent import run as run_module
from agent import worker as worker_module
from agent.appliance import QueueNames
from agent.errors import QueueUnavailable
from agent.execute import execute
from agent.opening import Settings
from agent.protocol import Event, ProgressEvent, Result, decode_command
from agent.queue.azure import AzureQueueService
from agent.queue.base import QueueService
from agent.queue.patient import PatientService
from agent.queue.polling import Pace, polls_an_hour
from agent.queue.sqlite import SqliteQueueService
from agent.worker import Limits
from mover.store.azure_credentials import AccountKey
from mover.store.open import open_store
from tests.agent.conftest import MIB, Place
from tests.agent.rig import QUICK, Rig, changed
from tests.agent.waiting import wait_for
from tests.azurite import Azurite
from tests.mover.store.clock import ManualClock
from tests.mover.store.test_azure import make_container


class Line:
    """A TCP line to a server that can be cut and mended."""

    def __init__(self, url: str) -> None:
        split = urlsplit(url)
        self._there = (split.hostname or "", split.port or 0)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = url.replace(f":{split.port}", f":{self._server.getsockname()[1]}", 1)
        self._whole = threading.Event()
        self._whole.set()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            if not self._whole.is_set():
                near.close()
                continue
            far = socket.create_connection(self._there)
            with self._lock:
                self._open |= {near, far}
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket) -> None:
        try:
            while data := one.recv(65536):
                other.sendall(data)
        except OSError:
            pass
        for end in (one, other):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        with self._lock:
            self._open -= {one, other}
        one.close()

    def cut(self) -> None:
        self._whole.clear()
        with self._lock:
            for end in self._open:
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def mend(self) -> None:
        self._whole.set()

    def close(self) -> None:
        self.cut()
        self._server.close()


def command(place: Place, job: str = "j1", **fields: object) -> bytes:
    return changed(place.back_up("--print-command", "--job", job).out, **fields)


@pytest.fixture
def lines(azurite: Azurite) -> Iterator[tuple[Line, Line]]:
    """To the queues and to the state store."""
    made = Line(azurite.queue_url), Line(azurite.blob_url)
    yield made
    for line in made:
        line.close()


@pytest.mark.azurite
@pytest.mark.parametrize("which", ["queue", "state"])
def test_a_service_that_is_gone_for_longer_than_a_delivery_lives(
    place: Place, azurite: Azurite, lines: tuple[Line, Line], which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job stops or waits, and when the service is back it is done, once."""
    place.repo()
    queue_line, state_line = lines
    names = QueueNames.of(f"q-{uuid.uuid4().hex[:20]}")
    key = AccountKey(azurite.account_name, azurite.account_key)
    container = make_container(azurite).replace(azurite.blob_url, state_line.url)
    service = AzureQueueService(queue_line.url, key)
    state = open_store(container, {"DATA_MOVER_ACCOUNT_KEY": azurite.account_key})
    rig = Rig(service, state, names=names)
    rig.submit(command(place))
    began, gone, stopped = threading.Event(), threading.Event(), threading.Event()

    def work(cancelled: Callable[[], bool]) -> None:
        began.set()
        gone.wait(60)
        if which == "queue":
            wait_for(cancelled)
        stopped.set()

    def run(one: Any, settings: Settings, send: Any, cancelled: Any, **options: Any) -> Result:
        if not began.is_set():
            work(cancelled)
        return execute(one, settings, send, cancelled, **options)

    monkeypatch.setattr(run_module, "execute", run)
    monkeypatch.setattr(worker_module, "BUSY_SECONDS", 0.2)
    line = queue_line if which == "queue" else state_line
    with rig.running(limits=replace(QUICK, visibility=3.0)):
        assert began.wait(60)
        line.cut()
        gone.set()
        assert stopped.wait(60)
        wait_for(lambda: any("does not answer" in e["event"] or "could not" in e["event"] for e in rig.logs))
        line.mend()
        ended = wait_for(lambda: [r for r in rig.results() if r.status in ("success", "warning")])
    assert {r.job for r in ended} == {"j1"}
    assert len(place.dm("points", "--json").document["points"]) == 1
    state.close()
    service.close()


class Gone(QueueService):
    """A service that answers again at a time of the clock."""

    def __init__(self, clock: ManualClock, until: float, wait: float = 0.0) -> None:
        self._clock, self._until, self._wait = clock, until, wait
        self.asked = 0

    where = "gone"

    def queue(self, name: str) -> Any:
        raise AssertionError("only the time is asked for")

    def now(self) -> float:
        self.asked += 1
        if self._clock.monotonic() < self._until:
            raise QueueUnavailable("gone", "", wait=self._wait)
        return 42.0

    def close(self) -> None:
        pass


def test_ten_minutes_are_waited_out_with_growing_pauses() -> None:
    clock = ManualClock()
    gone = Gone(clock, clock.monotonic() + 600)
    assert PatientService(gone, clock, patience=900, cancel=threading.Event()).now() == 42.0
    assert gone.asked < 60, "each question is billed"
    assert max(clock.waits) <= 45


def test_patience_has_an_end_and_a_service_s_word_counts() -> None:
    clock = ManualClock()
    gone = Gone(clock, clock.monotonic() + 600, wait=100.0)
    with pytest.raises(QueueUnavailable):
        PatientService(gone, clock, patience=300, cancel=threading.Event()).now()
    assert set(clock.waits) == {100.0}
    stop = threading.Event()
    stop.set()
    asked = Gone(clock, clock.monotonic() + 600)
    with pytest.raises(QueueUnavailable):
        PatientService(asked, clock, patience=300, cancel=stop).now()
    assert asked.asked == 1


def test_an_idle_worker_s_polls() -> None:
    pace = Pace(shortest=1, longest=30)
    waits = [pace.idle() for _ in range(200)]
    assert 0.75 <= waits[0] <= 1.25
    assert all(22.5 <= wait <= 37.5 for wait in waits[6:])
    assert 3600 / (sum(waits[6:]) / len(waits[6:])) == pytest.approx(polls_an_hour(30), rel=0.1)
    assert len({round(wait, 6) for wait in waits[6:]}) > 100, "workers do not poll in step"
    pace.busy()
    assert pace.idle() < 2


def test_a_job_that_begins_while_the_control_queue_is_quiet_is_listened_for_at_once(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An idle worker looks for cancels seldom; the look that it had put off for long comes when a job begins."""
    service, state = SqliteQueueService(place.queue), open_store((place.folder / "state").as_uri(), {})
    clock = ManualClock()
    worker = Rig(service, state, clock=clock).worker(limits=Limits(control=1.0))
    worker._rest(30)
    assert sum(clock.waits) == pytest.approx(30)
    clock.waits.clear()

    monkeypatch.setattr(worker, "jobs", lambda: ("j",) if len(clock.waits) == 3 else ())
    worker._rest(30)
    assert clock.waits == [1.0, 1.0, 1.0]
    state.close()
    service.close()


@pytest.mark.parametrize("by", [-3600.0, 3600.0])
def test_a_worker_whose_clock_is_wrong_by_an_hour(place: Place, by: float) -> None:
    """Expiry is judged by the queue's clock: here the host's, which the worker's own wall clock is not asked about."""
    place.repo()
    service, state = SqliteQueueService(place.queue), open_store((place.folder / "state").as_uri(), {})
    rig = Rig(service, state)
    worker = rig.worker()
    issued = datetime.fromtimestamp(service.now(), UTC)
    expires = (issued + timedelta(minutes=1)).isoformat()
    rig.submit(command(place, issued=issued.isoformat(), expires=expires))

    class Wrong:
        def __getattr__(self, name: str) -> Any:
            return getattr(rig.clock, name)

        def wall(self) -> float:
            return rig.clock.wall() + by

    worker._clock = Wrong()
    worker.settings = type(worker.settings)(**{**worker.settings.__dict__, "clock": Wrong()})
    assert worker.serve("w", once=True) == 0
    assert [r.status for r in rig.results()] == ["success"]
    state.close()
    service.close()


STAGES = ["sample disk.img", "back up disk.img", "commit", "restore", "verify"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_cancel_at_each_stage_ends_it_soon_and_leaves_nothing_half(place: Place, stage: str) -> None:
    """What is said after the wish is bounded: the stage that goes on ends, no other begins. The point is whole or not there."""
    place.repo()
    with place.image.open("ab") as file:
        file.truncate(96 * MIB)
        file.seek(0)
        for _ in range(24):
            file.write(uuid.uuid4().bytes * (MIB // 16) * 2)
    size = place.image.stat().st_size
    changes = place.folder / "changes.json"
    one = {"disk": "disk.img", "size": size, "ranges": []}
    changes.write_text(json.dumps({**one, "snapshot": "s0"}))
    place.back_up("--changes", changes)
    first = place.point()
    changes.write_text(json.dumps({**one, "snapshot": "s1", "base": "s0"}))
    to = place.folder / "restored"
    if stage in ("restore", "verify"):
        words = place.dm("restore", "--point", first, "--to", to, "--verify", "--print-command").out
    else:
        extra = ["--changes", changes] if stage.startswith("sample") else []
        words = place.back_up("--job", "c", "--print-command", *extra).out
    wish, after = threading.Event(), []

    def send(event: Event) -> None:
        if wish.is_set():
            after.append(event)
        if isinstance(event, ProgressEvent) and event.stage == stage:
            wish.set()

    result = execute(decode_command(words.encode()), Settings(), send, wish.is_set)
    assert wish.is_set(), "the stage never came"
    stages = {event.stage for event in after if isinstance(event, ProgressEvent)} - {stage}
    points = [point["point"] for point in place.dm("points", "--json").document["points"]]
    if result.status == "cancelled":
        assert not stages, "another stage began after the wish"
        assert points == [first]
        assert not to.exists()
    else:
        assert stage == "commit", "only what is past its last moment may end"
        assert result.status == "success"
    assert len(after) <= 8
