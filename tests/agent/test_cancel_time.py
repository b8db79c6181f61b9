# SPDX-License-Identifier: Apache-2.0
"""How long a cancel takes: from its message to the job's result, at each stage, with a worker's default settings.

The worker is a process, the disk is large and the line is narrow, so that every stage is really cut in its middle. Seconds are a
figure of a benchmark (docs/performance.md); what a cancel leaves behind is asserted by test_outages.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.appliance import Appliance, QueueNames
from agent.protocol import BackupPayload, Disk, Payload, ProgressEvent, RepositoryReference, RestorePayload, Result
from agent.queue.open import open_service
from mover.clock import SYSTEM
from mover.repository.repository import Repository
from mover.store.open import open_store
from tests.agent.waiting import wait_for
from tests.azurite import Azurite
from tests.mover.store.test_azure import make_container

pytestmark = pytest.mark.bench
MIB = 1 << 20
SIZE = 768 * MIB
ROUNDS = 5


@contextmanager
def worker(folder: Path, environ: dict[str, str], queue: str, state: str) -> Iterator[None]:
    config = folder / "worker.toml"
    config.write_text(
        f"[queue]\nservice = {json.dumps(queue)}\n[state]\nurl = {json.dumps(state)}\n[worker]\nbandwidth = '96MiB'\n"
    )
    command = [sys.executable, "-m", "agent.daemon", "--config", str(config)]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, env=environ, stdout=log, stderr=log) as process:
        try:
            yield
        finally:
            process.terminate()


def cancelled_after(appliance: Appliance, payload: Payload, kind: str, stage: str) -> tuple[float, str]:
    """Seconds from the cancel's message to the result, and the result's status."""
    job = appliance.issue(kind, payload).job

    def seen(accept: Callable[[object], bool]) -> bool:
        return any(accept(event) for event in appliance.events())

    wait_for(lambda: seen(lambda e: isinstance(e, ProgressEvent) and e.job == job and e.stage == stage))
    began = time.monotonic()
    appliance.cancel(job)
    found: list[str] = []

    def ended(event: object) -> bool:
        if isinstance(event, Result) and event.job == job:
            found.append(event.status)
        return bool(found)

    wait_for(lambda: seen(ended))
    return time.monotonic() - began, found[0]


def measure(folder: Path, queue: str, base: str, environ: dict[str, str]) -> None:
    store = open_store(f"{base}/repository", environ)
    Repository.create(store)
    store.close()
    image = folder / "disk.img"
    with image.open("wb") as file:
        for _ in range(SIZE // MIB):
            file.write(os.urandom(MIB))
    state_url = f"{base}/state"
    service, state = open_service(queue, environ, SYSTEM), open_store(state_url, environ)
    names = QueueNames.of("workers")
    appliance = Appliance(service, state, SYSTEM, names=names)
    reference = RepositoryReference(url=f"{base}/repository")
    disk = (Disk(path=str(image), name="os"),)

    def backup(resource: str) -> BackupPayload:
        return BackupPayload(what="disk", repository=reference, resource=resource, disks=disk)

    with worker(folder, environ, queue, state_url):
        wait_for(lambda: appliance.workers())
        whole = appliance.issue("backup", backup("whole")).job
        record = wait_for(lambda: (r := appliance.job(whole)) and r.result and r)
        assert record
        assert record.result
        assert record.result.point
        point = record.result.point
        for kind, stage in (("backup", "back up os"), ("restore", "restore"), ("restore", "verify")):
            seconds, cancelled = [], 0
            for number in range(ROUNDS):
                to = str(folder / f"out-{stage}-{number}".replace(" ", ""))
                payload: Payload = backup(f"{stage} {number}")
                if kind == "restore":
                    payload = RestorePayload(what="disk", repository=reference, point=point, to=to, verify=True)
                else:  # what is in the repository already would pass at once
                    with image.open("r+b") as file:
                        for _ in range(SIZE // MIB):
                            file.write(os.urandom(MIB))
                took, status = cancelled_after(appliance, payload, kind, stage)
                assert status == "cancelled" or stage == "verify", "only a verify may be over before the wish is seen"
                seconds.append(took)
                cancelled += status == "cancelled"
            figures = f"median {statistics.median(seconds):.2f} s, longest {max(seconds):.2f} s"
            print(f"  {kind}, at '{stage}': {figures}; {cancelled} of {ROUNDS} cancelled")
            assert max(seconds) <= 2
    state.close()
    service.close()


def test_cancels_on_one_machine(tmp_path: Path) -> None:
    measure(tmp_path, str(tmp_path / "queue.db"), tmp_path.as_uri(), dict(os.environ))


@pytest.mark.azurite
def test_cancels_on_azurite(tmp_path: Path, azurite: Azurite) -> None:
    environ = {**os.environ, "DATA_MOVER_ACCOUNT_KEY": azurite.account_key}
    measure(tmp_path, azurite.queue_url, make_container(azurite), environ)
