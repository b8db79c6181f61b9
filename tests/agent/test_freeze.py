# SPDX-License-Identifier: Apache-2.0
"""A VM that Azure freezes: its worker stands still, another goes on with its job, and its clocks may have jumped when it wakes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from azure.storage.blob import ContainerClient

from agent.appliance import Appliance, QueueNames
from agent.protocol import Event, Result
from agent.queue.azure import AzureQueueService
from mover.clock import SYSTEM
from mover.store.azure_credentials import AccountKey
from mover.store.open import open_store
from tests.agent.conftest import Place
from tests.agent.test_processes import SMALL_SIZE, digest
from tests.agent.waiting import wait_for
from tests.azurite import Azurite
from tests.mover.store.test_azure import make_container

pytestmark = pytest.mark.azurite


class Frozen:
    """Two workers on Azurite, of which one can be frozen."""

    def __init__(self, azurite: Azurite, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        self.place, self.azurite = place, azurite
        self.container = make_container(azurite)
        monkeypatch.setenv("DATA_MOVER_ACCOUNT_KEY", azurite.account_key)
        monkeypatch.setenv("DATA_MOVER_REPOSITORY", f"{self.container}/backups")
        make_disk_on(place)
        self.state = open_store(f"{self.container}/state", dict(os.environ))
        self.queue = AzureQueueService(azurite.queue_url, AccountKey(azurite.account_name, azurite.account_key))
        self.name = f"w{uuid.uuid4().hex[:12]}"
        names = QueueNames.of(self.name)
        for name in (names.commands, names.events):
            self.queue.queue(name).ensure()
        self.appliance = Appliance(self.queue, self.state, SYSTEM, names=names)
        self.events: list[Event] = []
        self.clocks = place.folder / "clocks"
        self._started: list[subprocess.Popen[bytes]] = []

    def worker(self, name: str, *words: str) -> subprocess.Popen[bytes]:
        config = self.place.folder / f"{name}.toml"
        config.write_text(
            f'[queue]\nservice = "{self.azurite.queue_url}"\nname = "{self.name}"\npoll_longest = 1\nvisibility = 5\n'
            f'[state]\nurl = "{self.container}/state"\n[worker]\nname = "{name}"\ncheckpoint = 1\nannouncements = "no"\n'
        )
        command = [sys.executable, "-m", "tests.agent.lagging", str(self.clocks if name == "frozen" else "/nowhere")]
        with open(self.place.folder / f"{name}.log", "wb") as log:
            process = subprocess.Popen([*command, "--config", str(config), *words], stdout=log, stderr=log)
        self._started.append(process)
        return process

    def submit(self, job: str) -> None:
        self.appliance.submit(self.place.back_up("--print-command", "--job", job, resource=job).out.encode())

    def begun(self, job: str) -> bool:
        record = self.appliance.records.read(job)
        return record is not None and record.progress is not None

    def results(self, job: str) -> list[Result]:
        self.events += self.appliance.events()
        return [event for event in self.events if isinstance(event, Result) and event.job == job]

    def lapse(self) -> None:
        """What a minute does: leases end."""
        with ContainerClient.from_container_url(self.container, credential=self.azurite.account_key) as client:
            for blob in client.list_blobs():
                if blob.lease.state == "leased":
                    client.get_blob_client(blob.name)._client.blob.break_lease(break_period=0)

    def close(self) -> None:
        for process in self._started:
            process.kill()
            process.wait()
        self.state.close()
        self.queue.close()


def make_disk_on(place: Place) -> None:
    place.dm("repo", "create", "--password-file", place.password_file)
    with place.image.open("wb") as file:
        file.write(os.urandom(SMALL_SIZE))


@pytest.fixture
def frozen(azurite: Azurite, place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[Frozen]:
    made = Frozen(azurite, place, monkeypatch)
    yield made
    made.close()


@pytest.mark.parametrize(("seen", "ahead"), [(True, 0), (True, 86400), (False, -86400)])
def test_a_worker_that_was_frozen_lets_its_lost_job_be_and_goes_on_with_others(
    frozen: Frozen, seen: bool, ahead: int
) -> None:
    """Whether CLOCK_BOOTTIME saw the pause or stood still, and whatever the wall clock was set to."""
    frozen.submit("j1")
    first = frozen.worker("frozen", "--bandwidth", "4MiB")
    wait_for(lambda: frozen.begun("j1"))
    first.send_signal(signal.SIGSTOP)
    stopped = SYSTEM.monotonic()
    second = frozen.worker("other")
    frozen.lapse()
    done = wait_for(lambda: frozen.results("j1"))[0]
    assert (done.status, done.resumed) == ("success", True)
    second.terminate()
    assert second.wait(60) == 0
    lag = 0 if seen else SYSTEM.monotonic() - stopped
    frozen.clocks.with_suffix(".new").write_text(f"{lag} {ahead}")
    frozen.clocks.with_suffix(".new").rename(frozen.clocks)
    first.send_signal(signal.SIGCONT)

    frozen.submit("j2")
    assert wait_for(lambda: frozen.results("j2"))[0].status == "success"
    first.terminate()
    assert first.wait(100) == 0
    assert len(frozen.results("j1")) == 1
    points = {point["job"]: point["point"] for point in frozen.place.dm("points", "--json").document["points"]}
    assert points.keys() == {"j1", "j2"}
    for job, point in points.items():
        to: Path = frozen.place.folder / job
        frozen.place.dm("restore", "--point", point, "--to", to)
        assert digest(to) == digest(frozen.place.image)
