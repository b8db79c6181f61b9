# SPDX-License-Identifier: Apache-2.0
"""What pyproject.toml and the locks promise: pinned, hashed, consistent with each other, and no bare clock."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = ["build", "runtime", "systemd", "dev"]


def locked(name: str) -> dict[str, str]:
    """Version by package; every entry must have a hash, or `pip --require-hashes` would refuse the file."""
    text = (ROOT / f"packaging/requirements/{name}.txt").read_text()
    versions: dict[str, str] = {}
    for entry in re.split(r"\n(?=\S)", text.strip()):
        pinned = re.match(r"([\w.-]+)==([^ ;]+)", entry)
        assert pinned, f"{name}.txt: not pinned: {entry[:80]}"
        assert "--hash=sha256:" in entry, f"{name}.txt: no hash: {pinned[1]}"
        # One version for all Pythons: what was tested is what runs.
        assert pinned[1] not in versions, f"{name}.txt: twice: {pinned[1]}"
        versions[pinned[1]] = pinned[2]
    return versions


@pytest.mark.parametrize(
    ("lock", "wanted"),
    [
        ("build", PROJECT["build-system"]["requires"] + PROJECT["dependency-groups"]["build"]),
        ("runtime", PROJECT["project"]["dependencies"]),
        ("systemd", PROJECT["project"]["optional-dependencies"]["systemd"]),
        ("dev", PROJECT["dependency-groups"]["dev"]),
        ("oracles", PROJECT["dependency-groups"]["oracles"]),
    ],
)
def test_the_lock_holds_what_the_project_asks_for(lock: str, wanted: list[str]) -> None:
    versions = locked(lock)
    for requirement in map(Requirement, wanted):
        version = versions.get(canonicalize_name(requirement.name))
        assert version, f"{lock}.txt lacks {requirement}; hint: make lock"
        assert requirement.specifier.contains(version), f"{lock}.txt has {version}, not {requirement}; hint: make lock"


def test_a_larger_lock_repeats_the_smaller_ones() -> None:
    runtime, systemd, dev = locked("runtime"), locked("systemd"), locked("dev")
    assert runtime.items() <= systemd.items() <= dev.items()
    # Build tools are installed before, from their own lock; where both name one it is the same.
    assert all(dev.get(name, version) == version for name, version in locked("build").items())
    assert "systemd-python" not in runtime  # the demo needs no compiler


def test_the_oracles_are_in_no_environment_but_their_own() -> None:
    """Some are AGPL; what both name is the same version, so that the same code was compared."""
    oracles = locked("oracles")
    dev = locked("dev")
    assert {name for name in oracles if name in dev} <= {"libfsfat-python", "libfsntfs-python", "msgspec", "numpy"}
    assert all(dev.get(name, version) == version for name, version in oracles.items())
    assert not re.search(r"a\d|b\d|rc|dev", oracles["dissect-util"]), "a release"


@pytest.mark.parametrize(
    ("statement", "call"),
    [
        ("import time", "time.time()"),
        ("import time", "time.monotonic()"),
        ("from time import sleep", "sleep(1)"),
        ("import datetime", "datetime.datetime.now(datetime.UTC)"),
        ("from datetime import datetime, UTC", "datetime.now(UTC)"),
    ],
)
@pytest.mark.parametrize(("file", "banned"), [("mover/a.py", True), ("agent/a.py", True), ("mover/clock.py", False)])
def test_a_bare_clock_is_refused(statement: str, call: str, file: str, banned: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--no-cache", "--select", "TID251", "--stdin-filename", file, "-"],
        cwd=ROOT,
        input=f"{statement}\n\n{call}\n",
        capture_output=True,
        text=True,
    )
    assert ("take a mover.clock.Clock" in done.stdout) is banned
    assert done.returncode == int(banned)
