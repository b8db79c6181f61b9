# SPDX-License-Identifier: Apache-2.0
"""Real processes: workers that are killed or told to stop, and a terminal's Ctrl-C. Another one goes on.

What a minute of waiting would do, the lapse of a dead process's lease, is done by taking the local store's lease files
away; the demo and tests/mover/test_kill.py wait the minute.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.errors import EXIT_STOPPED
from agent.execute import execute
from agent.jobs import JobStore
from agent.opening import Settings
from agent.protocol import Result, decode_command
from agent.records import JobRecord
from mover.clock import SYSTEM
from mover.disk.target import FileTarget
from mover.repository import record
from mover.repository.repository import Repository
from mover.store.local import LocalStore
from tests.agent.conftest import MIB, PASSWORD, Place
from tests.agent.waiting import wait_for

SIZE = 320 * MIB
"""Five packs: two on their way and one being filled are all that memory takes, so with little bandwidth there is a middle."""
SMALL_SIZE = 64 * MIB
"""One pack, which zstd's level 19 makes last."""


def make_disk(place: Place, size: int) -> Place:
    place.repo(encrypted=True)
    with place.image.open("wb") as file:
        for _ in range(size // MIB // 4):
            file.write(os.urandom(4 * MIB))
    return place


@pytest.fixture
def big(place: Place) -> Place:
    return make_disk(place, SIZE)


@pytest.fixture
def small(place: Place) -> Place:
    return make_disk(place, SMALL_SIZE)


@pytest.fixture
def start(place: Place) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts processes of the programs, and ends those that are left."""
    started: list[subprocess.Popen[str]] = []

    def run(module: str, *words: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", module, *map(str, words)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def worker(start: Callable[..., subprocess.Popen[str]], place: Place, *words: str) -> subprocess.Popen[str]:
    return start("agent.daemon", "--queue", place.queue, "--visibility", "3", "--checkpoint-seconds", "1", *words)


def submit(place: Place) -> None:
    command = place.folder / "command.json"
    command.write_text(place.back_up("--print-command", "--job", "j1").out)
    place.dm("submit", command, "--queue", place.queue)


def job_record(place: Place) -> JobRecord | None:
    with contextlib.closing(LocalStore(f"{place.queue}.state")) as store:
        return JobStore(store, SYSTEM).read("j1")


def begun(place: Place) -> bool:
    record = job_record(place)
    return record is not None and record.progress is not None


def answer(place: Place) -> Result | None:
    record = job_record(place)
    return record.result if record is not None else None


def checkpoint(place: Place) -> int:
    """The blocks that the open session's newest checkpoint covers."""
    with contextlib.closing(LocalStore(place.folder / "repository")) as store:
        repository = Repository.open(store, password=PASSWORD)
        for entry in repository.point_entries():
            if entry.metadata["state"] == record.OPEN:
                header, _ = record.decode(store.read_record(entry.name).data, entry.name, repository.keys)
                return header.disks[0].covered if header.disks else 0
    return 0


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def assert_restores(place: Place) -> None:
    to = place.folder / "restored"
    place.dm("restore", "--point", place.point(), "--to", to)
    assert digest(to) == digest(place.image)


def test_a_killed_worker_s_command_is_gone_on_with_by_another(
    big: Place, start: Callable[..., subprocess.Popen[str]]
) -> None:
    submit(big)
    victim = worker(start, big, "--bandwidth", "24MiB")
    wait_for(lambda: checkpoint(big))
    victim.kill()
    victim.wait()
    covered = checkpoint(big)
    assert covered
    assert big.dm("points", "--json").document["points"] == []
    for folder in (big.folder / "repository", Path(f"{big.queue}.state")):
        for lease in (folder / ".leases").iterdir():
            lease.unlink()
    second = worker(start, big)
    found = wait_for(lambda: answer(big))
    assert (found.status, found.resumed) == ("success", True)
    assert found.statistics["read"] <= SIZE - covered * MIB  # nothing that was checkpointed
    second.terminate()
    assert second.wait(30) == 0
    assert_restores(big)
    assert PASSWORD not in second.communicate()[1]


def test_a_worker_that_is_told_to_stop_hands_the_command_back_at_once(
    big: Place, start: Callable[..., subprocess.Popen[str]]
) -> None:
    submit(big)
    first = worker(start, big, "--bandwidth", "24MiB")
    wait_for(lambda: begun(big))
    first.send_signal(signal.SIGTERM)
    assert first.wait(60) == 0
    lines = [json.loads(line) for line in first.communicate()[1].splitlines()]
    assert "the worker is stopping" in lines[-2]["event"]
    waiting = job_record(big)
    assert waiting is not None
    assert (waiting.state, waiting.result) == ("waiting", None)
    assert worker(start, big, "--once").wait(60) == 0  # no lease and no visibility to wait for
    found = answer(big)
    assert found is not None
    assert found.resumed
    assert_restores(big)


def next_event(process: subprocess.Popen[str], accept: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    assert process.stderr is not None
    for line in process.stderr:
        event: dict[str, Any] = json.loads(line)
        if accept(event):
            return event
    raise AssertionError("the process ended before that event")


def test_ctrl_c_ends_a_backup_in_good_order_and_the_same_words_go_on(
    small: Place, start: Callable[..., subprocess.Popen[str]]
) -> None:
    words = ["--resource", "vm1", "--disk", str(small.image), "--level", "19"]
    process = start("agent.cli", "backup", *words, "--json")
    next_event(process, lambda event: event["event"] == "progress" and event["done"] > 0)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    result = json.loads(out)
    assert process.returncode == result["error"]["exit_code"] == 8
    assert result["status"] == "cancelled"
    assert "go on from its last checkpoint" in result["error"]["hint"]
    assert small.dm("points", "--json").document["points"] == []
    states = small.dm("points", "--json", "--all").document["points"]
    assert [(point["state"], point["leased"], point["job"]) for point in states] == [("open", False, result["job"])]
    assert "can be resumed" in small.dm("points", "--all").out
    said = small.dm("backup", *words[:-2])
    assert f"going on with job {result['job']}" in said.err
    assert "resumed" in said.out
    assert_restores(small)


def test_ctrl_c_says_how_to_go_on(small: Place, start: Callable[..., subprocess.Popen[str]]) -> None:
    process = start("agent.cli", "backup", "--resource", "vm1", "--disk", small.image, "--level", "19")
    assert process.stderr is not None
    assert "back up disk.img" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 8
    lines = err.splitlines()
    assert lines[-4] == "data-mover: the backup was cancelled"
    assert lines[-2].startswith("  hint:  ")
    assert lines[-1].startswith("  go on: the same command again, or with --job job-")


def test_what_a_live_worker_holds_is_not_taken_from_it(big: Place, start: Callable[..., subprocess.Popen[str]]) -> None:
    """A backup of the same resource meanwhile is a job of its own; the same job is refused."""
    submit(big)
    holder = worker(start, big, "--bandwidth", "24MiB")
    wait_for(lambda: checkpoint(big))
    holder.send_signal(signal.SIGSTOP)  # for as long as we look; its lease lasts a minute
    said = big.back_up("--job", "j1", code=6)
    assert said.error[0] == "the session is held by another worker"
    said = big.back_up()
    assert "a worker has it" in said.err
    holder.send_signal(signal.SIGCONT)
    assert wait_for(lambda: answer(big)).status == "success"
    jobs = [point["job"] for point in big.dm("points", "--json").document["points"]]
    assert len(jobs) == 2
    assert "j1" in jobs


def test_a_restore_that_was_stopped_goes_on_from_what_is_there(small: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    small.back_up()
    to = small.folder / "restored"
    words = ["restore", "--point", small.point(), "--to", to]
    command = decode_command(small.dm(*words, "--print-command").out.encode())
    written: list[int] = []
    write = FileTarget.write

    def counted(target: FileTarget, offset: int, data: bytes) -> None:
        write(target, offset, data)
        written.append(offset)

    with monkeypatch.context() as patch:
        patch.setattr(FileTarget, "write", counted)
        result = execute(command, Settings(), lambda event: None, lambda: bool(written))
    assert result.status == "cancelled"
    assert result.error is not None
    assert result.error.exit_code == 8
    assert not to.exists()
    again = small.dm(*words, "--json").document
    assert again["statistics"]["equal"] > 0
    assert again["statistics"]["fetched"] < SMALL_SIZE
    assert digest(to) == digest(small.image)


def test_a_reader_that_has_enough_is_no_error(place: Place) -> None:
    place.repo()
    for number in range(3):
        place.back_up("--job", f"j{number}")
    done = subprocess.run(
        ["/bin/sh", "-c", f"{sys.executable} -m agent.cli points --json | head -c 10"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == '{"points":'
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


HANGS = """
import sys, threading
from agent import daemon
daemon.Daemon.run = lambda self, once=False: print("hangs", flush=True) or threading.Event().wait()
sys.exit(daemon.main())
"""


@pytest.mark.parametrize(("seconds", "signals"), [(1, 1), (3600, 2)])
def test_an_end_that_hangs_has_a_deadline_and_a_second_signal_is_the_deadline(
    place: Place, seconds: int, signals: int
) -> None:
    """Whatever the main thread does: signals are heard by a thread of their own."""
    config = place.folder / "worker.toml"
    config.write_text(f"[queue]\nservice = {json.dumps(str(place.queue))}\n[worker]\nstop = {seconds}\n")
    command = [sys.executable, "-c", HANGS, "--config", str(config)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "hangs\n"
        for _ in range(signals):
            process.send_signal(signal.SIGTERM)
            if signals > 1:  # two at once may be one
                wait_for(lambda: "SIGTERM" not in pending(process.pid))
        assert process.wait(60) == EXIT_STOPPED


def pending(process: int) -> str:
    """Names of signals that wait to be handled."""
    status = Path(f"/proc/{process}/status").read_text()
    bits = int(next(line.split()[1] for line in status.splitlines() if line.startswith("ShdPnd:")), 16)
    return " ".join(signal.Signals(n).name for n in range(1, 32) if bits >> (n - 1) & 1)
