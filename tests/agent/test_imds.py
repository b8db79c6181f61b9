# SPDX-License-Identifier: Apache-2.0
"""What Azure announces to a VM, and what a worker does about it; an upgrade's wish that it ends."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.imds import Announcement, MetadataService, Watch
from mover.clock import SYSTEM
from tests.agent import metadata
from tests.agent.conftest import Place
from tests.agent.test_processes import answer, assert_restores, begun, job_record, small, start, submit, worker
from tests.agent.waiting import wait_for

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
        Announcement("e1", "Preempt", EVENT["NotBefore"]),
        Announcement("e3", "Freeze", EVENT["NotBefore"]),
    ]  # type: ignore[arg-type]
    assert [one.ends for one in found] == [True, False]
    asked.acknowledge(found[0], 5)
    assert json.loads((announced.parent / "acknowledged").read_text()) == {"StartRequests": [{"EventId": "e1"}]}


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
    configured(small)
    submit(small)
    first = worker(start, small, "--config", str(small.folder / "agent.toml"), "--bandwidth", "2MiB")
    wait_for(lambda: begun(small))
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


def configured(place: Place) -> None:
    (place.folder / "agent.toml").write_text('[worker]\nannouncements = "yes"\n')


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
