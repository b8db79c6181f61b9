# SPDX-License-Identifier: Apache-2.0
"""The demo: its disk is a sound file system after every change, and the whole of it passes its own checks."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agent.demo import disk as demo_disk
from agent.demo.disk import DemoDisk, is_sound, sha256
from agent.demo.report import Check, Report
from tests.agent.conftest import MIB, Place


def test_the_disk_is_sound_after_every_change_and_every_change_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_disk, "WANTED", 12 * MIB)
    monkeypatch.setattr(demo_disk, "NEW", 64 * MIB)
    disk = DemoDisk(tmp_path / "disk.img", tmp_path)
    count, size = disk.make()
    assert count > 20
    assert size > 8 * MIB
    states = []
    for change in (lambda: None, disk.change, disk.grow):
        change()
        assert is_sound(disk.image)
        states.append(sha256(disk.image))
    assert len(set(states)) == 3
    assert disk.in_use() > 64 * MIB
    assert not (tmp_path / "files").exists()


def test_a_broken_file_system_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_disk, "WANTED", 12 * MIB)
    disk = DemoDisk(tmp_path / "disk.img", tmp_path)
    disk.make()
    with disk.image.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096)  # group descriptors
    assert not is_sound(disk.image)


def test_one_failed_check_fails_all(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not Report().passed
    assert Report(checks=[Check("a", True)]).passed
    assert not Report(checks=[Check("a", True), Check("b", False)]).passed

    def play(story: object) -> bool:
        story.report = Report(checks=[Check("the bytes are the same", False)], used=[100], stored=10)  # type: ignore[attr-defined]
        return False

    monkeypatch.setattr("agent.demo.story.Story.play", play)
    said = place.dm("demo", "--directory", place.folder / "demo", code=1)
    assert "FAILED: the bytes are the same" in said.out
    assert "0 of 1 checks passed" in said.out
    assert not (place.folder / "demo").exists()


@pytest.mark.slow
def test_the_demo_passes_its_checks_and_leaves_nothing(tmp_path: Path) -> None:
    """It kills a worker and waits for its lease: over a minute."""
    folder = tmp_path / "demo"
    words = [sys.executable, "-m", "agent.cli", "demo", "--json", "--directory", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout)
    assert report["ok"]
    assert len(report["checks"]) == 17
    assert all(check["passed"] for check in report["checks"])
    assert any("resumed" in step["verdict"] for step in report["steps"])
    assert not folder.exists()


@pytest.mark.slow
def test_ctrl_c_ends_the_demo_its_workers_and_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    words = [sys.executable, "-m", "agent.cli", "demo", "--directory", str(folder)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    worker = next(line for line in process.stderr if "worker-1 started" in line)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 8, err
    assert not folder.exists()
    number = worker.partition("process ")[2].partition(",")[0]
    assert not Path(f"/proc/{number}").exists()
