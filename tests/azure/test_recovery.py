# SPDX-License-Identifier: Apache-2.0
"""The recovery browser, hosted by a worker on command, over a cloud-native snapshot (a page blob by SAS) and over a repository in a
container: the same tree, the same bytes."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent.protocol import Disk, FlrReady, FlrStartPayload, FlrStopPayload, RepositoryReference, Result, Secret, encode
from agent.queue.sqlite import SqliteQueueService
from mover.store.local import LocalStore
from tests.agent.conftest import Place
from tests.agent.rig import Rig
from tests.agent.test_recovery import Waiting, command, open_link
from tests.azure.conftest import BlobDisk
from tests.azure.test_files import disk
from tests.azurite import Azurite
from tests.mover.store.test_azure import make_container

pytestmark = pytest.mark.azurite
__all__ = ["disk"]


def tree(client: httpx.Client, point: str) -> dict[str, Any]:
    """Every entry with all that its row says."""
    found: dict[str, Any] = {}
    todo = ["/"]
    while todo:
        path = todo.pop()
        page = client.get("/api/list", params={"point": point, "volume": "0", "path": path, "count": 1000}).json()
        assert page["complete"]
        assert page["total"] == len(page["rows"])
        for row in page["rows"]:
            place = path.rstrip("/") + "/" + row["key"]
            found[place] = row
            if row["kind"] == "folder":
                todo.append(place)
    return found


def files(client: httpx.Client, point: str) -> dict[str, bytes]:
    chosen = {"point": point, "volume": "0", "path": "/"}
    made = client.post("/api/downloads/make", json={"form": "zip", "items": [chosen]}).json()
    with zipfile.ZipFile(io.BytesIO(client.get(made["url"]).content)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist() if not name.startswith("_")}


def test_a_snapshot_and_a_point_show_the_same(
    place: Place, page_blob: BlobDisk, azurite: Azurite, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page_blob.write(0, disk.read_bytes())
    monkeypatch.setenv("DATA_MOVER_REPOSITORY", make_container(azurite))
    monkeypatch.setenv("DATA_MOVER_ACCOUNT_KEY", azurite.account_key)
    place.dm("repo", "create")
    place.dm("backup", "--resource", "vm1", "--disk", f"os={disk}")
    point = place.point()
    rig = Rig(SqliteQueueService(place.queue), LocalStore(place.folder / "state"))
    reference = RepositoryReference(url=str(rig.environ["DATA_MOVER_REPOSITORY"]))
    payloads = {
        "disks": FlrStartPayload(
            disks=(Disk(url=Secret(clear=page_blob.url()), name="os"),), names=("localhost",), port=0
        ),
        point: FlrStartPayload(repository=reference, point=point, names=("localhost",), port=0),
    }
    seen = []
    waiting = Waiting(rig)
    with rig.running():
        for number, (name, payload) in enumerate(payloads.items()):
            rig.submit(encode(command(payload, f"j{number}")))
            ready = waiting.of(FlrReady, number + 1)
            assert isinstance(ready, FlrReady)
            with open_link(ready) as client:
                seen.append((tree(client, name), files(client, name)))
            rig.submit(encode(command(FlrStopPayload(target=f"j{number}"), f"stop{number}")))
            waiting.of(Result, 2 * (number + 1))
    (blob_tree, blob_files), (point_tree, point_files) = seen
    assert blob_tree == point_tree
    assert blob_files == point_files
    assert blob_files["0/folder 7/file"] == b"\7" * 70_000
    assert len(blob_tree) > 40
    assert all(event.status == "success" for event in waiting.events if isinstance(event, Result))
    assert page_blob.url().partition("sig=")[2] not in repr(waiting.events) + str(rig.logs)
