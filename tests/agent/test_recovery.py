# SPDX-License-Identifier: Apache-2.0
"""`flr-start` and `flr-stop`: a worker hosts a recovery browser for a point of a repository, or for disks as they are."""

from __future__ import annotations

import json
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from agent.errors import CommandRefused
from agent.protocol import (
    SCHEMA,
    Command,
    Disk,
    Event,
    FlrReady,
    FlrStartPayload,
    FlrStopPayload,
    OverSftp,
    Recovered,
    RepositoryReference,
    Result,
    Secret,
    ThroughFolder,
    decode_command,
    encode,
)
from mover.repository import record
from mover.repository.repository import Repository
from mover.store.local import LocalStore
from tests.agent.conftest import Place
from tests.agent.rig import Rig
from tests.agent.waiting import wait_for
from tests.flr.corpus.catalogue import sample
from tests.flr.restore.ways import SSHD, Sshd
from tests.flr.web.serving import ASKED


def command(payload: FlrStartPayload | FlrStopPayload, job: str) -> Command:
    kind = "flr-start" if isinstance(payload, FlrStartPayload) else "flr-stop"
    return Command(schema=SCHEMA, id=f"{job}-{kind}", job=job, kind=kind, issued=datetime.now(UTC), payload=payload)


class Waiting:
    """The events of a rig so far."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.events: list[Event] = []

    def of(self, kind: type[Event], count: int = 1) -> Event:
        def found() -> list[Event]:
            self.events += self.rig.events()
            return [event for event in self.events if isinstance(event, kind)][count - 1 :]

        return wait_for(found)[0]


@contextmanager
def open_link(ready: FlrReady) -> Iterator[httpx.Client]:
    """As a person does who opens the link: signed in."""
    address, _, token = ready.link.partition("/#t=")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with httpx.Client(base_url=address, verify=context, trust_env=False, timeout=60, headers=ASKED) as client:
        assert client.post("/api/sign-in", json={"token": token}).status_code == 200
        yield client


def a_file(client: httpx.Client, point: str, volume: str) -> tuple[str, int]:
    rows = client.get("/api/list", params={"point": point, "volume": volume, "count": 1000}).json()["rows"]
    return next(("/" + row["key"], row["size"]) for row in rows if row["kind"] == "file" and row["size"] > 1000)


def test_a_worker_hosts_a_browser_until_it_is_told_to_stop(rig: Rig) -> None:
    image = sample("fat32").image
    start = FlrStartPayload(disks=(Disk(path=str(image), name="os"),), resource="vm 1", names=("localhost",), port=0)
    with rig.running():
        rig.submit(encode(command(start, "j1")))
        waiting = Waiting(rig)
        ready = waiting.of(FlrReady)
        assert isinstance(ready, FlrReady)
        assert ready.link.startswith("https://localhost:")
        assert ready.until > ready.expires > ready.time
        with open_link(ready) as client:
            about = client.get("/api/session").json()
            assert about["resource"] == "vm 1"
            assert about["certificate"] == {"sha256": ready.sha256, "sha1": ready.sha1}
            path, size = a_file(client, "disks", "0")
            chosen = {"point": "disks", "volume": "0", "path": path}
            made = client.post("/api/downloads/make", json={"form": "file", "items": [chosen]}).json()
            assert len(client.get(made["url"]).content) == size
        rig.submit(encode(command(FlrStopPayload(target="j1"), "j2")))
        results = {
            event.job: event for event in (waiting.of(Result), waiting.of(Result, 2)) if isinstance(event, Result)
        }
    assert results["j1"].status == "success"
    assert results["j1"].details["ended"] == "it was stopped"
    assert results["j1"].statistics == {"sign_ins": 1.0, "downloads": 1.0, "bytes": float(size), "restored": 0.0}
    assert results["j2"].status == "success"
    told = [event for event in waiting.events if isinstance(event, Recovered)]
    assert [event.what for event in told] == ["sign-in", "download file"]
    assert told[1].size == size
    assert len(told[1].sha256) == 64
    assert told[1].address == "127.0.0.1"
    token = ready.link.partition("#t=")[2]
    assert token not in str(rig.logs)


def test_the_next_worker_gives_a_new_link(rig: Rig) -> None:
    """The first one stops in good order, as before its VM is taken away; what it hosted is not over."""
    start = FlrStartPayload(disks=(Disk(path=str(sample("fat32").image)),), resource="vm", names=("localhost",), port=0)
    waiting = Waiting(rig)
    with rig.running("w1"):
        rig.submit(encode(command(start, "j1")))
        first = waiting.of(FlrReady)
    assert not any(isinstance(event, Result) for event in waiting.events + rig.events())
    with rig.running("w2"):
        second = waiting.of(FlrReady, 2)
        assert isinstance(first, FlrReady)
        assert isinstance(second, FlrReady)
        assert second.sha256 != first.sha256
        with open_link(second) as client:
            assert client.get("/api/session").json()["resource"] == "vm"
        rig.submit(encode(command(FlrStopPayload(target="j1"), "j2")))
        results = {
            event.job: event for event in (waiting.of(Result), waiting.of(Result, 2)) if isinstance(event, Result)
        }
    assert {job: result.status for job, result in results.items()} == {"j1": "success", "j2": "success"}


def test_a_point_of_a_repository_is_held_while_it_is_looked_into(rig: Rig, place: Place) -> None:
    place.dm("backup", "--resource", "vm", "--disk", sample("fat32").image)
    repository = Repository.open(LocalStore(place.folder / "repository"))
    point = next(repository.points())
    start = FlrStartPayload(repository=RepositoryReference(url=place.url), point=point.id, names=("localhost",), port=0)

    def holds() -> list[str]:
        return [one.name for one in repository.store.list("holds/") if one.metadata["state"] == record.OPEN]

    with rig.running():
        rig.submit(encode(command(start, "j1")))
        waiting = Waiting(rig)
        ready = waiting.of(FlrReady)
        assert isinstance(ready, FlrReady)
        assert holds()
        with open_link(ready) as client:
            assert client.get("/api/session").json()["points"][0]["id"] == point.id
            assert a_file(client, point.id, "0")
            assert client.post("/api/stop", json={}).status_code == 200
        result = waiting.of(Result)
    assert isinstance(result, Result)
    assert (result.status, result.details["ended"]) == ("success", "it was stopped in the browser")
    assert not holds()


@pytest.mark.parametrize(
    "payload",
    [
        {"disks": []},
        {"point": "abcd"},
        {"repository": {"url": "file:///x"}},
        {"disks": [{"path": "/x"}], "names": ["a b"]},
        {"disks": [{"path": "/x"}], "names": ["a/b"]},
        {"disks": [{"path": "/x"}], "port": 65536},
        {"disks": [{"path": "/x"}], "idle": 1},
    ],
)
def test_a_command_that_makes_no_sense_is_refused(payload: dict[str, object]) -> None:
    body = {
        "schema": SCHEMA,
        "id": "c",
        "job": "j",
        "kind": "flr-start",
        "issued": "2026-01-01T00:00:00Z",
        "payload": payload,
    }
    with pytest.raises(CommandRefused):
        decode_command(json.dumps(body).encode())


@pytest.mark.parametrize("way", ["folder", "sftp"])
def test_a_worker_s_browser_restores(rig: Rig, tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many files the first are told one by one, then those that did not come back; all of them stand in the session's log."""
    monkeypatch.setattr("agent.kinds.recovery.MOST_TOLD", 3)
    server = None
    if way == "sftp":
        if SSHD is None:
            pytest.skip("needs OpenSSH's server (package openssh-server)")
        server = Sshd(tmp_path)
        login = server.login()
        restore: ThroughFolder | OverSftp = OverSftp(
            host="127.0.0.1", port=login.port, user=login.user, host_key=login.host_key, key=Secret(clear=login.key)
        )
    else:
        restore = ThroughFolder(path=str(tmp_path / "box"))
    disk = Disk(path=str(sample("fat32").image))
    start = FlrStartPayload(disks=(disk,), resource="vm", names=("localhost",), port=0, restore=restore)
    waiting = Waiting(rig)
    tool = None
    with rig.running():
        rig.submit(encode(command(start, "j1")))
        ready = waiting.of(FlrReady)
        assert isinstance(ready, FlrReady)
        assert (ready.restore_tool is None) == (way == "sftp")
        if ready.restore_tool is not None:
            tool = subprocess.run(["sh"], input=ready.restore_tool, capture_output=True, timeout=60)
            assert tool.returncode == 0, tool.stderr
        with open_link(ready) as client:
            wait_for(lambda: client.get("/api/restore").json()["state"]["ready"])
            client.post("/api/basket/add", json={"items": [{"point": "disks", "volume": "0", "path": "/"}]})
            body = {"rule": "skip", "folder": str(tmp_path / "found")}
            assert client.post("/api/restore/begin", json=body).status_code == 200
            made = wait_for(lambda: [one for one in client.get("/api/restores").json()["restores"] if one["ended"]])[0]
            assert made["counts"]["failed"] == 0
            logged = [one for one in client.get("/api/log").json()["records"] if one["what"] == "restore"]
            assert client.post("/api/stop", json={}).status_code == 200
        result = waiting.of(Result)
    assert isinstance(result, Result)
    assert result.status == "success"
    told = [event.what for event in waiting.events if isinstance(event, Recovered)]
    assert told.count("restore") == 3 < len(logged)
    assert told[-2:] == ["restore ends", "stop"]
    assert result.statistics["restored"] == len(logged)
    assert not (tmp_path / "box").exists()
    if server is not None:
        server.close()
        assert server.key.splitlines()[1] not in str(rig.logs) + repr(waiting.events)


def test_a_way_back_that_cannot_be_had_ends_the_command(rig: Rig, tmp_path: Path) -> None:
    """Nobody gets a link whose restores fail."""
    (tmp_path / "file").write_text("in the way")
    disk = Disk(path=str(sample("fat32").image))
    ways = (
        ThroughFolder(path=str(tmp_path)),
        OverSftp(host="localhost", user="root", host_key="nonsense", password=Secret(clear="wrong-secret")),
    )
    waiting = Waiting(rig)
    with rig.running():
        for number, restore in enumerate(ways):
            start = FlrStartPayload(disks=(disk,), resource="vm", names=("localhost",), port=0, restore=restore)
            rig.submit(encode(command(start, f"j{number}")))
            result = waiting.of(Result, number + 1)
            assert isinstance(result, Result)
            assert result.status in ("failed", "refused")
            assert result.error is not None
            assert result.error.hint
    assert (tmp_path / "file").exists()
    assert not any(isinstance(event, FlrReady) for event in waiting.events)
    assert "wrong-secret" not in repr(waiting.events) + str(rig.logs)
