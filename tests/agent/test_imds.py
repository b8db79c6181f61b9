# SPDX-License-Identifier: Apache-2.0
"""What Azure announces to a VM, and what a worker does about it; an upgrade's wish that it ends."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.appliance import Appliance
from agent.errors import EXIT_IDLE, QueueMissing
from agent.imds import Announcement, MetadataService, Watch
from agent.protocol import Event, Failed, Heartbeat, decode_event
from agent.queue.azure import AzureQueueService
from agent.queue.base import Queue
from agent.queue.sqlite import SqliteQueueService
from mover.clock import SYSTEM
from mover.store.azure_credentials import AccountKey
from mover.store.local import LocalStore
from tests.agent import metadata
from tests.agent.conftest import Place
from tests.agent.test_processes import answer, assert_restores, begun, job_record, small, start, submit, worker
from tests.agent.waiting import wait_for
from tests.azurite import Azurite

__all__ = ["small", "start"]
Start = Callable[..., "subprocess.Popen[str]"]
EVENT = {
    "EventId": "e1",
    "EventType": "Preempt",
    "Resources": [metadata.NAME],
    "NotBefore": "Thu, 26 Nov 2026 17:00:30 GMT",
}


@pytest.fixture
def announced(tmp_path: Path) -> Path:
    """The file of what is announced."""
    path = tmp_path / "events"
    path.write_text("[]")
    return path


def announce(path: Path, *events: object) -> None:
    path.with_suffix(".new").write_text(json.dumps(events))
    path.with_suffix(".new").rename(path)


@pytest.fixture
def service(announced: Path) -> Iterator[str]:
    running = metadata.server("127.0.0.1", 0, announced.parent)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()
    running.server_close()


def test_only_what_is_announced_to_this_vm_counts(announced: Path, service: str) -> None:
    asked = MetadataService(service)
    assert asked.announcements(5) == []
    announce(
        announced,
        EVENT,
        EVENT | {"EventId": "e2", "Resources": ["another"]},
        EVENT | {"EventId": "e3", "EventType": "Freeze"},
    )
    found = asked.announcements(5)
    assert found == [
        Announcement("e1", "Preempt", EVENT["NotBefore"], True),
        Announcement("e3", "Freeze", EVENT["NotBefore"], True),
    ]  # type: ignore[arg-type]
    assert [one.ends for one in found] == [True, False]
    asked.acknowledge(found[0], 5)
    assert json.loads((announced.parent / "acknowledged").read_text()) == {"StartRequests": [{"EventId": "e1"}]}


@pytest.mark.parametrize(
    ("resources", "ours", "alone"),
    [
        ([metadata.NAME.upper()], True, True),
        ([metadata.NAME, "another"], True, False),
        (["another"], False, False),
        ([f"{metadata.NAME}0"], False, False),
        ([], True, False),
        (None, True, False),
        (5, True, False),
        (f"{metadata.NAME}0", True, False),
        ([{}, metadata.NAME], True, False),
    ],
)
def test_whom_an_announcement_names(announced: Path, service: str, resources: object, ours: bool, alone: bool) -> None:
    """What names nobody is taken for this VM's; only what names nobody else is acknowledged."""
    announce(announced, EVENT | {"Resources": resources})
    assert [one.alone for one in MetadataService(service).announcements(5)] == [alone] * ours


def test_a_vm_that_is_not_told_its_name_takes_every_announcement_for_its_own(announced: Path, service: str) -> None:
    announce(announced, EVENT | {"Resources": ["another"]})
    (announced.parent / "nameless").touch()
    asked = MetadataService(service)
    assert [(one.kind, one.alone) for one in asked.announcements(5)] == [("Preempt", False)]
    (announced.parent / "nameless").unlink()
    assert asked.announcements(5) == []


@pytest.mark.parametrize("document", ["", "[]", "{}", '{"Events": 3}', '"text"', "{", '{"Events": [3]}'])
def test_what_is_no_metadata_service_announces_nothing(
    announced: Path, service: str, document: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MetadataService, "_ask", lambda self, *words: json.loads(document) if document else None)
    with contextlib.suppress(ValueError):
        assert MetadataService(service).announcements(5) == []
    assert Watch(MetadataService(service), SYSTEM, lambda one: pytest.fail(str(one))).look() == []


def test_nobody_there_announces_nothing() -> None:
    assert Watch(MetadataService("http://127.0.0.1:9"), SYSTEM, lambda one: None).look() == []


def test_what_is_announced_is_heard_once_and_again_when_it_comes_back(announced: Path, service: str) -> None:
    heard: list[str] = []
    watch = Watch(MetadataService(service), SYSTEM, lambda one: heard.append(one.id))
    for events in ((EVENT,), (EVENT,), (), (EVENT,)):
        announce(announced, *events)
        watch.look()
    assert heard == ["e1", "e1"]


@pytest.mark.parametrize("kind", ["Preempt", "Reboot"])
def test_a_vm_that_is_taken_away_hands_its_command_back_and_takes_no_other(
    small: Place, start: Start, announced: Path, service: str, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("DATA_MOVER_METADATA", service)
    first = busy(start, small)
    announce(announced, EVENT | {"EventType": "Freeze", "EventId": "e0"}, EVENT | {"EventType": kind})
    assert first.wait(60) == 0
    assert "e1" in (announced.parent / "acknowledged").read_text()
    assert "e0" not in (announced.parent / "acknowledged").read_text()
    waiting = job_record(small)
    assert waiting is not None
    assert (waiting.state, waiting.result) == ("waiting", None)
    second = worker(start, small, "--config", str(small.folder / "agent.toml"))  # as systemd starts it again
    assert second.stderr is not None
    assert any("no command is taken" in line for line in second.stderr)
    after = job_record(small)
    assert after is not None
    assert after.state == "waiting"
    announce(announced)
    found = wait_for(lambda: answer(small))
    assert (found.status, found.resumed) == ("success", True)
    second.terminate()
    assert second.wait(30) == 0
    assert_restores(small)


def test_an_announced_vm_that_is_shut_down_meanwhile_ends_in_good_order(
    small: Place, start: Start, announced: Path, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guest's own shutdown sends SIGTERM: to a worker that ends already it is the first one, not the second."""
    monkeypatch.setenv("DATA_MOVER_METADATA", service)
    first = busy(start, small)
    announce(announced, EVENT)
    assert first.stderr is not None
    assert any("announced" in line for line in first.stderr)
    first.terminate()
    assert first.wait(60) == 0
    waiting = job_record(small)
    assert waiting is not None
    assert waiting.state == "waiting"


def test_a_worker_says_why_it_stops(
    place: Place, start: Start, announced: Path, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_MOVER_METADATA", service)
    events = SqliteQueueService(str(place.queue))
    appliance = Appliance(events, LocalStore(f"{place.queue}.state"), SYSTEM)

    def reason(code: int, end: Callable[[subprocess.Popen[str]], None], options: str = "") -> str | None:
        configured(place, options)
        process = worker(start, place, "--config", str(place.folder / "agent.toml"))
        assert process.stderr is not None
        assert any('"ready"' in line for line in process.stderr)
        end(process)
        assert process.wait(60) == code
        beats = [event for event in appliance.events() if isinstance(event, Heartbeat)]
        assert [beat.state for beat in beats if beat.reason] == ["stopping"]
        return beats[-1].reason

    assert reason(EXIT_IDLE, lambda process: None, "idle_exit = 0.2\n") == "idle"
    assert reason(0, lambda process: process.terminate()) == "asked"
    assert reason(0, lambda process: process.send_signal(signal.SIGUSR1)) == "upgrade"
    assert reason(0, lambda process: announce(announced, EVENT)) == "announced"
    events.close()


@pytest.mark.azurite
def test_a_worker_whose_identity_is_refused_says_so_in_an_event(
    azurite: Azurite, tmp_path: Path, announced: Path, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under systemd it is asked again: a right that was given is known everywhere in some minutes."""
    (announced.parent / "stranger").touch()
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", service)
    monkeypatch.setenv("DATA_MOVER_QUEUE_ACCOUNT_KEY", azurite.account_key)
    queue = AzureQueueService(azurite.queue_url, AccountKey(azurite.account_name, azurite.account_key))
    name = f"w{uuid.uuid4().hex[:12]}"
    config = tmp_path / "agent.toml"
    config.write_text(
        f'[queue]\nservice = "{azurite.queue_url}"\nname = "{name}"\n[worker]\nannouncements = "no"\nname = "w7"\n'
        '[state]\nurl = "https://127.0.0.1:9/account/container/state"\n'
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        words = [sys.executable, "-m", "agent.daemon", "--config", str(config)]
        with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            events = queue.queue(f"{name}-events")
            found = wait_for(lambda: [event for event in said(events) if isinstance(event, Failed)], 60)
            process.terminate()
            assert process.wait(60) == 0
    (failed,) = found
    assert (failed.worker, failed.step) == ("w7", "start")
    assert "managed identity" in failed.hint
    queue.close()


def busy(start: Start, place: Place) -> subprocess.Popen[str]:
    """A worker that asks what is announced, in the middle of a backup."""
    configured(place)
    submit(place)
    found = worker(start, place, "--config", str(place.folder / "agent.toml"), "--bandwidth", "2MiB")
    wait_for(lambda: begun(place))
    return found


def said(queue: Queue) -> list[Event]:
    """The events in a queue that is not emptied; none where there is no queue."""
    try:
        return [decode_event(waiting.body) for waiting in queue.peek(32)]
    except QueueMissing:
        return []


def configured(place: Place, options: str = "") -> None:
    (place.folder / "agent.toml").write_text('[worker]\nannouncements = "yes"\n' + options)


def test_at_the_service_s_own_address_another_worker_goes_on(small: Place, start: Start, announced: Path) -> None:
    """In a network namespace, with 169.254.169.254 as in Azure."""
    if os.getuid() != 0:
        pytest.skip("a network namespace takes root")
    configured(small)
    submit(small)
    words = [
        sys.executable,
        "-m",
        "agent.daemon",
        "--queue",
        str(small.queue),
        "--visibility",
        "3",
        "--bandwidth",
        "2MiB",
    ]
    words += ["--checkpoint-seconds", "1", "--config", str(small.folder / "agent.toml")]
    script = f"""
        ip link set lo up
        ip addr add 169.254.169.254/32 dev lo
        {sys.executable} -m tests.agent.metadata 169.254.169.254 80 {shlex.quote(str(announced.parent))} &
        trap "kill $!" EXIT
        {shlex.join(words)}
    """
    environ = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    inside = ["unshare", "--net", "/bin/sh", "-euc", script]
    with subprocess.Popen(inside, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environ) as first:
        wait_for(lambda: begun(small))
        announce(announced, EVENT)
        assert first.wait(60) == 0
    assert worker(start, small, "--once").wait(60) == 0  # another VM's
    found = answer(small)
    assert found is not None
    assert (found.status, found.resumed) == ("success", True)
    assert_restores(small)


def test_a_worker_that_shall_drain_ends_when_its_job_is_done(small: Place, start: Start) -> None:
    submit(small)
    first = worker(start, small, "--bandwidth", "12MiB")
    wait_for(lambda: begun(small))
    first.send_signal(signal.SIGUSR1)
    assert first.wait(120) == 0
    found = answer(small)
    assert found is not None
    assert (found.status, found.resumed) == ("success", False)


def test_an_idle_worker_that_shall_drain_ends_at_once(place: Place, start: Start) -> None:
    first = worker(start, place)
    assert first.stderr is not None
    assert any('"ready"' in line for line in first.stderr)
    first.send_signal(signal.SIGUSR1)
    assert first.wait(30) == 0
