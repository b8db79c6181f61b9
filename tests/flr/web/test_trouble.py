# SPDX-License-Identifier: Apache-2.0
"""What goes wrong under somebody's hands: the parser dies, the repository does not answer, the session ends and is anew."""

from __future__ import annotations

import io
import os
import signal
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent.cli import main
from flr.recovery.points import RepositoryPoints
from mover.repository.repository import Point, Repository
from mover.store.fault import Fault, FaultStore
from mover.store.local import LocalStore
from tests.agent.waiting import wait_for
from tests.flr.corpus.catalogue import sample
from tests.flr.web.serving import Serving, serving


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trouble") / "repository"
    Repository.create(LocalStore(folder))
    words = ("--repository", folder.as_uri(), "--resource", "vm", "--disk", f"os={sample('fat32').image}")
    assert main(["backup", *words]) == 0
    return folder


class Shaky:
    """A browser over a store that fails when it is told to."""

    def __init__(self, running: Serving, store: FaultStore, point: Point, client: httpx.Client) -> None:
        self.running, self.store, self.point, self.client = running, store, point, client

    def ask(self, what: str, path: str = "/", **more: Any) -> httpx.Response:
        return self.client.get(f"/api/{what}", params={"point": self.point.id, "volume": "0", "path": path, **more})

    def files(self) -> list[dict[str, Any]]:
        return [row for row in self.ask("list", count=1000).json()["rows"] if row["kind"] == "file"]

    def break_store(self) -> None:
        """Every read of what the repository holds fails from now on."""
        self.store.faults = [Fault("read_into", "fail", times=1_000_000)]


@pytest.fixture
def shaky(place: Path) -> Iterator[Shaky]:
    store = FaultStore(LocalStore(place))
    repository = Repository.open(store)
    point = next(repository.points())
    with (
        serving(RepositoryPoints(repository, point, lambda text: None), first=point.id) as running,
        running.signed() as client,
    ):
        yield Shaky(running, store, point, client)


def parser_of(shaky: Shaky) -> int:
    with shaky.running.desk.recovery.using(shaky.point.id) as opened:
        process = opened.session.parser._process
        assert process is not None
        return process.pid


def test_a_parser_that_dies_is_replaced_and_nobody_sees_it(shaky: Shaky) -> None:
    before = shaky.ask("list").json()["rows"]
    os.kill(parser_of(shaky), signal.SIGKILL)
    answer = shaky.ask("details", f"/{before[0]['key']}")
    if (
        answer.status_code != 200
    ):  # it died while it had the word: said, with what to do, and the next question is answered
        assert answer.json()["error"]["type"] == "ParserDied"
        assert "started again" in answer.json()["error"]["hint"]
        answer = shaky.ask("details", f"/{before[0]['key']}")
    assert answer.status_code == 200
    assert shaky.ask("list").json()["rows"] == before


def test_an_outage_of_the_repository_is_said_and_passes(shaky: Shaky) -> None:
    assert shaky.ask("volumes").status_code == 200
    shaky.break_store()
    answer = shaky.ask("hash", f"/{max(shaky.files(), key=lambda row: row['size'])['key']}")
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert error["type"] == "StoreUnavailable"
    assert error["hint"]
    shaky.store.faults = []
    answer = shaky.ask("hash", f"/{max(shaky.files(), key=lambda row: row['size'])['key']}")
    assert answer.status_code == 200, answer.text


def test_a_download_that_an_outage_cuts_goes_on_in_another_session(shaky: Shaky, place: Path) -> None:
    """The connection breaks, so that no browser takes half for all; after a new start the same selection has the same address."""
    chosen = {"point": shaky.point.id, "volume": "0", "path": "/"}
    form = {"form": "zip", "items": [chosen]}
    made = shaky.client.post("/api/downloads/make", json=form).json()
    wait_for(lambda: shaky.client.get("/api/downloads").json()["downloads"][0]["state"] == "ready")
    whole = shaky.client.get(made["url"])
    tag = whole.headers["etag"]
    with zipfile.ZipFile(io.BytesIO(whole.content)) as archive:
        assert archive.testzip() is None
    store = LocalStore(place)
    repository = Repository.open(store)
    point = next(repository.points())
    with serving(RepositoryPoints(repository, point, lambda text: None)) as again, again.signed() as client:
        assert client.get(made["url"]).status_code == 404
        anew = client.post("/api/downloads/make", json=form).json()
        assert anew["url"] == made["url"]
        wait_for(lambda: client.get("/api/downloads").json()["downloads"][0]["state"] == "ready")
        half = len(whole.content) // 2
        rest = client.get(anew["url"], headers={"range": f"bytes={half}-", "if-range": tag})
        assert rest.status_code == 206
        assert whole.content[:half] + rest.content == whole.content


def test_an_outage_in_the_middle_breaks_the_connection(shaky: Shaky) -> None:
    big = max(shaky.files(), key=lambda row: row["size"])
    chosen = {"point": shaky.point.id, "volume": "0", "path": f"/{big['key']}"}
    made = shaky.client.post("/api/downloads/make", json={"form": "file", "items": [chosen]}).json()
    shaky.break_store()
    with pytest.raises(httpx.RemoteProtocolError):
        shaky.client.get(made["url"])
    log = shaky.client.get("/api/log").json()["records"]
    assert log[-1]["result"] == "failed"
    assert log[-1]["what"] == "download file"
