# SPDX-License-Identifier: Apache-2.0
"""packaging/apt-install.sh installs what is missing and nothing else. The system's programs are scripted stand-ins."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "packaging/apt-install.sh"


class Machine:
    """A folder of stand-ins that write down how they were called."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.log = folder / "calls"
        self.bin.mkdir()
        self.log.touch()
        self.program("env", 'while case $1 in *=*) ;; *) false ;; esac; do shift; done; exec "$@"')
        self.dpkg(installed=[])
        self.user(0)

    def program(self, name: str, body: str) -> None:
        (self.bin / name).write_text(f"#!/bin/sh\n{body}\n")
        (self.bin / name).chmod(0o755)

    def dpkg(self, *, installed: Sequence[str]) -> None:
        listed = "|".join(installed) or "none"
        self.program(
            "dpkg-query", f"case $3 in {listed}) printf installed ;; removed) printf config-files ;; *) exit 1 ;; esac"
        )

    def user(self, number: int) -> None:
        self.program("id", f"echo {number}")

    def apt(self, body: str = "") -> None:
        self.program("apt-get", f'echo "apt-get $*" >> {self.log}\n{body}')

    def run(self, *packages: str) -> subprocess.CompletedProcess[str]:
        command = ["/bin/sh", str(SCRIPT), *packages]
        return subprocess.run(command, env={"PATH": str(self.bin)}, capture_output=True, text=True)

    @property
    def lines(self) -> list[str]:
        return self.log.read_text().splitlines()

    @property
    def calls(self) -> list[str]:
        """What was called, without the options."""
        return [" ".join(word for word in line.split() if word[0] != "-" and "::" not in word) for line in self.lines]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_machine_that_has_all_is_not_touched_and_needs_no_root(machine: Machine) -> None:
    machine.dpkg(installed=["git", "zstd"])
    machine.user(1000)
    done = machine.run("git", "zstd")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_only_what_is_missing_is_installed(machine: Machine) -> None:
    machine.dpkg(installed=["git"])
    machine.apt()
    assert machine.run("git", "zstd", "removed").returncode == 0
    assert machine.calls == ["apt-get install zstd removed"] * 2  # tried, then done
    assert "--simulate" in machine.lines[0]
    assert "--simulate" not in machine.lines[1]


def test_lists_that_do_not_know_a_package_are_updated_once(machine: Machine) -> None:
    machine.apt('case "$*" in *--simulate*) exit 100 ;; esac')
    assert machine.run("zstd").returncode == 0
    assert machine.calls == ["apt-get install zstd", "apt-get update", "apt-get install zstd"]


def test_lists_that_name_an_old_version_are_updated_once(machine: Machine) -> None:
    updated = machine.bin / "updated"
    machine.apt(f'case "$*" in *--simulate*) ;; update*) : > {updated} ;; *) [ -e {updated} ] ;; esac')
    assert machine.run("zstd").returncode == 0
    assert [call.split()[1] for call in machine.calls] == ["install", "install", "update", "install"]


def test_sudo_is_used_by_who_is_not_root(machine: Machine) -> None:
    machine.user(1000)
    machine.apt()
    machine.program("sudo", f'echo "sudo $*" >> {machine.log}; exec "$@"')
    assert machine.run("zstd").returncode == 0
    assert [line.split()[0] for line in machine.lines] == ["apt-get", "sudo", "apt-get"]


def test_without_root_and_sudo_it_says_what_to_do(machine: Machine) -> None:
    machine.user(1000)
    machine.apt()
    done = machine.run("zstd", "gcc")
    assert done.returncode == 1
    assert "missing system packages: zstd gcc; you are not root and there is no sudo" in done.stderr
    assert "hint: run as root: apt-get install zstd gcc" in done.stderr
    assert machine.calls == []


def test_without_apt_it_says_what_is_missing(machine: Machine) -> None:
    done = machine.run("zstd")
    assert done.returncode == 1
    assert "missing system packages: zstd; there is no apt-get here" in done.stderr
    assert "hint: " in done.stderr


def test_a_failure_of_apt_is_a_failure(machine: Machine) -> None:
    machine.apt('case "$1" in update) ;; *) echo "E: no such thing" >&2; exit 100 ;; esac')
    done = machine.run("zstd")
    assert done.returncode == 1
    assert "E: no such thing" in done.stderr
    assert "apt-get could not install: zstd\nhint: " in done.stderr
