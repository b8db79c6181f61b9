# SPDX-License-Identifier: Apache-2.0
"""Workers that are killed every few moments while many jobs run: every job ends once, every point restores.

The workers are real processes; what is killed is a worker, never the queue's service. A small round on a SQLite queue runs in
CI; `make test-all` has eight workers on one Azurite queue and 200 jobs.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from agent.appliance import Appliance, QueueNames
from agent.opening import Settings, open_repository
from agent.protocol import BackupPayload, Disk, RepositoryReference, Result, Secret
from agent.queue.open import open_service
from mover.clock import SYSTEM
from mover.disk.target import FileTarget
from mover.progress import Progress
from mover.repository.repository import Repository
from mover.restore import Restore, RestoreSettings
from mover.store.open import open_store
from tests.azurite import Azurite
from tests.mover.store.test_azure import make_container

MIB = 1 << 20
PASSWORD = "chaos-Password-91"


class Fleet:
    """Workers as processes, one of which is killed now and then and replaced."""

    def __init__(self, folder: Path, environ: dict[str, str], queue: str, state: str, count: int) -> None:
        self._folder = folder
        self._environ = environ
        self._config = folder / "worker.toml"
        self._config.write_text(
            f"[queue]\nservice = {json.dumps(queue)}\nvisibility = 4\npoll_shortest = 0.1\npoll_longest = 0.5\ndeliveries = 60\n"
            f"[state]\nurl = {json.dumps(state)}\n[worker]\ncheckpoint = 1\n[log]\nformat = 'json'\n"
        )
        self.killed = 0
        self._number = 0
        self._workers = [self._start() for _ in range(count)]

    def _start(self) -> subprocess.Popen[bytes]:
        self._number += 1
        with (self._folder / f"worker-{self._number}.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "agent.daemon", "--config", str(self._config)],
                env=self._environ | {"DATA_MOVER_WORKER": f"w{self._number}"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def kill_one(self, rng: random.Random) -> None:
        place = rng.randrange(len(self._workers))
        victim = self._workers[place]
        assert victim.poll() is None, self.logs()
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        self.killed += 1
        self._workers[place] = self._start()

    def stop(self) -> list[int]:
        for worker in self._workers:
            worker.terminate()
        return [worker.wait(60) for worker in self._workers]

    def logs(self) -> str:
        return "\n".join(p.read_text()[-1500:] for p in sorted(self._folder.glob("worker-*.log")))


def chaos(
    folder: Path, queue: str, base: str, environ: dict[str, str], *, workers: int, jobs: int, every: float
) -> None:
    """`jobs` backups of small disks while a worker is killed about every so many seconds."""
    rng = random.Random(7)
    password = folder / "password"
    password.touch(0o600)
    password.write_text(PASSWORD)
    repository_url, state_url = f"{base}/repository", f"{base}/state"
    made = open_store(repository_url, environ)
    Repository.create(made, password=PASSWORD)
    made.close()
    reference = RepositoryReference(url=repository_url, password=Secret(file=str(password)))
    service = open_service(queue, environ, SYSTEM)
    state = open_store(state_url, environ)
    names = QueueNames.of("workers")
    for name in (names.commands, names.control, names.poison, names.events):
        service.queue(name).ensure()
    appliance = Appliance(service, state, SYSTEM, names=names)
    hashes: dict[str, str] = {}
    for number in range(jobs):
        image = folder / f"disk-{number}.img"
        image.write_bytes(rng.randbytes(2 * MIB) * 2 + bytes(MIB) + rng.randbytes(rng.randrange(3 * MIB)))
        job = f"job-{number}"
        hashes[job] = hashlib.sha256(image.read_bytes()).hexdigest()
        disks = (Disk(path=str(image), name="os"),)
        payload = BackupPayload(what="disk", repository=reference, resource=f"vm-{number % 20}", disks=disks)
        appliance.issue("backup", payload, job=job)
    fleet = Fleet(folder, environ, queue, state_url, workers)
    ended: Counter[str] = Counter()
    wrong: list[Result] = []
    try:
        began = time.monotonic()
        kill_at, ended_then = began + every, 0
        while len(ended) < jobs:
            assert time.monotonic() - began < 1500, f"{len(ended)} of {jobs}\n{fleet.logs()}"
            for event in appliance.events():
                if isinstance(event, Result):
                    ended[event.job] += not event.already
                    wrong += [event] if event.status not in ("success", "warning") else []
            # On a slow machine workers that are killed before they begin would never end anything.
            late = time.monotonic() - kill_at
            if late > 0 and (len(ended) > ended_then or late > 10 * every):
                fleet.kill_one(rng)
                kill_at, ended_then = time.monotonic() + every * rng.uniform(0.5, 1.5), len(ended)
            time.sleep(0.05)
        seconds = time.monotonic() - began
    finally:
        codes = fleet.stop()
    assert not wrong, wrong[:3]
    assert set(codes) <= {0, -signal.SIGTERM}, "a worker that has just been started has no handler yet"
    assert fleet.killed >= 2, "nothing was killed: make the jobs larger"
    assert set(ended) == set(hashes)
    assert {line.job: line.state for line in appliance.jobs()}.keys() == hashes.keys()
    print(f"{jobs} jobs, {workers} workers, {fleet.killed} killed, {seconds:.0f} s")
    opened = open_repository(reference, Settings(environ=environ))
    points = {point.body.job: point for point in opened.repository.points()}
    assert points.keys() == hashes.keys(), "each job made one restore point"
    for job, point in points.items():
        out = folder / "restored.img"
        restore = Restore(opened.repository, point, RestoreSettings(), Progress(SYSTEM))
        target = FileTarget(str(out), restore.disk(0).size)
        restore.run({0: target})
        target.close()
        assert hashlib.sha256(out.read_bytes()).hexdigest() == hashes[job]
        out.unlink()
    opened.repository.store.close()
    state.close()
    service.close()


def test_every_job_ends_once_whoever_is_killed(tmp_path: Path) -> None:
    environ = dict(os.environ)
    chaos(tmp_path, str(tmp_path / "queue.db"), tmp_path.as_uri(), environ, workers=3, jobs=12, every=1.5)


@pytest.mark.kill
@pytest.mark.azurite
@pytest.mark.timeout(2400)
def test_eight_workers_200_jobs_on_azurite(tmp_path: Path, azurite: Azurite) -> None:
    environ = {**os.environ, "DATA_MOVER_CONNECTION_STRING": azurite.connection_string}
    chaos(tmp_path, azurite.queue_url, make_container(azurite), environ, workers=8, jobs=200, every=3.0)
