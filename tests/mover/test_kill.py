# SPDX-License-Identifier: Apache-2.0
"""Kill -9 at random moments of backups and restores: another worker goes on, nothing committed is lost, no half point shows.

The worker is killed, never the store. A moment is a number of requests and reads that it has made, not of seconds, so a
slow machine is killed as deep in the work as a quick one.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
from hashlib import file_digest, sha256
from pathlib import Path

import pytest

from mover.clock import SYSTEM
from mover.repository import record
from mover.repository.repository import Repository
from mover.store.base import Store
from mover.store.open import open_store
from mover.store.retry import RetryStore
from tests.azurite import Azurite
from tests.mover.disks import MIB
from tests.mover.kill_worker import PASSWORD
from tests.mover.store.test_azure import make_container

BLOCKS = 400


class Workers:
    """Starts worker processes, kills them at their n-th line, and counts."""

    def __init__(self, environ: dict[str, str]) -> None:
        self._environ = {**os.environ, **environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        self.killed = 0

    def run(self, *arguments: str, kill_at: int | None = None) -> list[str] | None:
        """The words after "done"; None when the worker was killed before it was done. `read` has the disk's reads."""
        command = [sys.executable, "-m", "tests.mover.kill_worker", *arguments]
        self.read: set[int] = set()
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=self._environ) as process:
            assert process.stdout is not None
            for number, line in enumerate(process.stdout):
                words = line.split()
                if words[0] == "read":
                    self.read.add(int(words[1]) // MIB)
                if words[0] == "done":
                    return words[1:]
                if number == kill_at:
                    os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, f"the worker failed by itself: {arguments}"
        self.killed += 1
        return None


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def checkpointed(repository: Repository) -> int:
    """How many blocks the checkpoint of the open session covers. Its lease is ended, as time would end it."""
    covered = 0
    for entry in repository.point_entries():
        if entry.metadata["state"] == record.OPEN:
            header = record.decode_header(repository.store.read_record(entry.name).data, entry.name)
            covered = header.disks[-1].covered if header.disks else 0
            repository.store.break_lease(entry.name)
    return covered


def kill_and_resume(url: str, environ: dict[str, str], folder: Path, kills: int, seed: int) -> None:
    """Backups and restores until `kills` workers were killed."""
    with contextlib.closing(RetryStore(open_store(url, {**os.environ, **environ}), SYSTEM)) as store:
        rounds(store, url, environ, folder, kills, random.Random(seed))


def rounds(store: Store, url: str, environ: dict[str, str], folder: Path, kills: int, rng: random.Random) -> None:
    repository = Repository.create(store, password=PASSWORD)
    workers = Workers(environ)
    disk = folder / "disk.img"
    content = bytearray(b"".join(rng.randbytes(MIB // 16) + bytes(15 * MIB // 16) for _ in range(BLOCKS)))
    committed: list[tuple[str, str]] = []
    deepest = 0
    while workers.killed < kills:
        number = len(committed)
        for block in rng.sample(range(BLOCKS), BLOCKS // 2):
            content[block * MIB : block * MIB + 64] = rng.randbytes(64)
        disk.write_bytes(content)
        moment: int | None = rng.randrange(430)
        while (done := workers.run("backup", url, "vm", f"job{number}", str(disk), kill_at=moment)) is None:
            listed = [point.name for point in repository.points()]
            assert listed[: len(committed)] == [name for name, _ in committed], "no point is lost"
            # The signal may reach a worker after its commit: then its point is whole, and compared below as the same job's.
            assert len(listed) <= len(committed) + 1, "no half point"
            covered = checkpointed(repository)
            deepest = max(deepest, covered)
            moment = rng.choice([None, rng.randrange(430)])
            if moment is None:
                done = workers.run("backup", url, "vm", f"job{number}", str(disk))
                assert done is not None
                assert min(workers.read, default=BLOCKS) >= covered, "what was checkpointed is not read again"
                break
        assert done is not None
        committed.append((done[0], sha256(content).hexdigest()))
        point, expected = rng.choice(committed)
        target = folder / f"restored{number}"
        moment = rng.randrange(450)
        while workers.run("restore", url, point, str(target), kill_at=moment) is None:
            assert not target.exists(), "a half restore has no name"
            moment = None
        assert digest(target) == expected
        target.unlink()
    for point, expected in committed:
        assert workers.run("restore", url, point, str(folder / "last"))
        assert digest(folder / "last") == expected
        (folder / "last").unlink()
    assert deepest > 0, "at least one session was gone on with from a checkpoint"


@pytest.mark.timeout(600)
def test_killed_workers_lose_nothing(tmp_path: Path) -> None:
    kill_and_resume(f"file://{tmp_path}/repository", {}, tmp_path, kills=10, seed=1)


@pytest.mark.kill
@pytest.mark.timeout(3600)
def test_a_hundred_killed_workers_lose_nothing(tmp_path: Path) -> None:
    kill_and_resume(f"file://{tmp_path}/repository", {}, tmp_path, kills=100, seed=2)


@pytest.mark.kill
@pytest.mark.azurite
@pytest.mark.timeout(3600)
def test_forty_killed_workers_lose_nothing_on_azurite(azurite: Azurite, tmp_path: Path) -> None:
    environ = {"DATA_MOVER_ACCOUNT_KEY": azurite.account_key}
    kill_and_resume(f"{make_container(azurite)}/repository", environ, tmp_path, kills=40, seed=3)
