# SPDX-License-Identifier: Apache-2.0
"""Back to the original machine through a storage account: a worker on command, the restore tool by the line that its event
carries, and what is left in the account afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import (
    AccountSasPermissions,
    BlobServiceClient,
    ResourceTypes,
    generate_account_sas,
)
from azure.storage.blob._shared.models import Services
from azure.storage.queue import QueueServiceClient

from agent.protocol import Disk, FlrReady, FlrStartPayload, FlrStopPayload, Result, Secret, ThroughTool, encode
from agent.queue.sqlite import SqliteQueueService
from agent.restore_mailbox import PREFIX, AzureMailbox
from flr.restore.target import Target
from mover.clock import SYSTEM
from mover.errors import AccessDenied
from mover.store.azure_credentials import Sas
from mover.store.local import LocalStore
from tests.agent.conftest import Place
from tests.agent.rig import Rig
from tests.agent.test_recovery import Waiting, command, open_link
from tests.agent.waiting import wait_for
from tests.azurite import Azurite
from tests.flr.restore import lost
from tests.flr.restore.test_ways import (
    test_a_full_disk_fails_its_file_and_leaves_nothing,
    test_a_link_in_the_way_is_never_followed,
    test_any_tree_comes_back,
    test_files_folders_and_links_come_as_they_were,
    test_what_is_not_what_was_sent_never_gets_its_name,
)
from tests.flr.restore.ways import by_tool

pytestmark = pytest.mark.azurite
SAME_SUITE = (
    test_a_full_disk_fails_its_file_and_leaves_nothing, test_a_link_in_the_way_is_never_followed, test_any_tree_comes_back,
    test_files_folders_and_links_come_as_they_were, test_what_is_not_what_was_sent_never_gets_its_name,
)  # fmt: skip


def sas(azurite: Azurite, *, tool: bool = False, hours: float = 2) -> str:
    """Of the account: all that a worker needs, or what the tool gets."""
    rights = AccountSasPermissions.from_string("rap" if tool else "rwdlacup")
    kinds = ResourceTypes(object=True) if tool else ResourceTypes(service=True, container=True, object=True)
    end = datetime.now(UTC) + timedelta(hours=hours)
    made: str = generate_account_sas(
        azurite.account_name, azurite.account_key, kinds, rights, end, services=Services(blob=True, queue=True)
    )
    return made


def mailbox(azurite: Azurite, job: str, until: float = 3600) -> AzureMailbox:
    credential = Sas(sas(azurite))
    end = SYSTEM.wall() + until
    return AzureMailbox(
        azurite.blob_url, azurite.queue_url, credential, job, end, SYSTEM, tool_sas=sas(azurite, tool=True)
    )


def left(azurite: Azurite) -> list[str]:
    """Names of containers and queues of restores."""
    with BlobServiceClient(azurite.blob_url, azurite.account_key, retry_total=0) as blobs:
        containers = [one.name for one in blobs.list_containers(name_starts_with=PREFIX)]
    with QueueServiceClient(azurite.queue_url, azurite.account_key, retry_total=0) as queues:
        return sorted([*containers, *(one.name for one in queues.list_queues(name_starts_with=PREFIX))])


@pytest.fixture(scope="module")
def way(azurite: Azurite) -> Iterator[Target]:
    """What the suite of all ways runs on, here: Azurite's blobs and queues."""
    with by_tool(mailbox(azurite, "suite")) as target:
        yield target


def test_a_worker_restores_through_the_account(place: Place, azurite: Azurite, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: a guest's disk is filled by a loop mount")
    before = left(azurite)
    image = lost.image_of(tmp_path)
    rig = Rig(SqliteQueueService(place.queue), LocalStore(place.folder / "state"))
    secrets = sas(azurite), sas(azurite, tool=True)
    restore = ThroughTool(
        blobs=azurite.blob_url,
        queues=azurite.queue_url,
        sas=Secret(clear=secrets[0]),
        tool_sas=Secret(clear=secrets[1]),
    )
    start = FlrStartPayload(
        disks=(Disk(path=str(image), name="data"),), resource="shop", names=("localhost",), port=0, restore=restore,
        reason="ticket 4711",
    )  # fmt: skip
    waiting = Waiting(rig)
    with rig.running():
        rig.submit(encode(command(start, "j1")))
        ready = waiting.of(FlrReady)
        assert isinstance(ready, FlrReady)
        assert ready.restore_tool is not None
        assert len(left(azurite)) == len(before) + 3
        with open_link(ready) as client:
            assert client.get("/api/session").json()["reason"] == "ticket 4711"
            assert not client.get("/api/restore").json()["state"]["ready"]
            paths = f"{Path(sys.executable).parent}:/usr/bin:/bin"
            done = subprocess.run(
                ["sh"], input=ready.restore_tool, capture_output=True, timeout=60, env={"PATH": paths, "LC_ALL": "C"}
            )
            assert (done.returncode, done.stderr) == (0, b"")
            wait_for(lambda: client.get("/api/restore").json()["state"]["ready"])
            client.post("/api/basket/add", json={"items": [{"point": "disks", "volume": "0", "path": "/shop"}]})
            body = {"rule": "keep", "folder": str(tmp_path / "found")}
            assert client.post("/api/restore/begin", json=body).status_code == 200
            wait_for(lambda: client.get("/api/restores").json()["restores"][0]["ended"], seconds=60)
            counts = client.get("/api/restores").json()["restores"][0]["counts"]
            assert counts["failed"] == 0
            assert (tmp_path / "found/shop/catalogue.db").read_bytes() == lost.content("catalogue", lost.BIG)
        rig.submit(encode(command(FlrStopPayload(target="j1"), "j2")))
        results = [waiting.of(Result), waiting.of(Result, 2)]
    result = next(one for one in results if isinstance(one, Result) and one.job == "j1")
    assert result.status == "success"
    assert result.statistics["restored"] == counts["done"] + counts["warning"] - 3  # of folders
    assert left(azurite) == before
    told = [event for event in waiting.events if getattr(event, "what", "") == "restore"]
    catalogue = next(event for event in told if "catalogue.db" in getattr(event, "path", ""))
    assert getattr(catalogue, "size", 0) == lost.BIG
    others = [event for event in waiting.events if event is not ready]  # that one carries the tool's, by design
    said = repr(others) + str(rig.logs)
    for secret in secrets:
        assert secret.partition("sig=")[2] not in said


def test_what_a_dead_worker_left_is_gone_with_the_next_one(azurite: Azurite) -> None:
    first, other = mailbox(azurite, "a job"), mailbox(azurite, "another job")
    over = mailbox(azurite, "an old job", until=-2 * 3600)
    for one in (first, other, over):
        one.open()  # and never closed
    again = mailbox(azurite, "a job")
    again.open()
    there = left(azurite)
    assert not [name for name in there if name.startswith((first.name, over.name))]
    assert len([name for name in there if name.startswith(other.name)]) == 3
    again.close()
    other.close()
    again.close()
    assert not [name for name in left(azurite) if name.startswith((again.name, other.name))]


@pytest.mark.parametrize("more", [{"tool": True}, {"hours": -1}], ids=["narrow", "over"])
def test_a_sas_that_may_not_is_told_before_anybody_waits(azurite: Azurite, more: dict[str, Any]) -> None:
    credential = Sas(sas(azurite, **more))
    end = SYSTEM.wall() + 60
    box = AzureMailbox(azurite.blob_url, azurite.queue_url, credential, "job", end, SYSTEM, tool_sas="x")
    with pytest.raises(AccessDenied):
        box.open()
