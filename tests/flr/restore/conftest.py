# SPDX-License-Identifier: Apache-2.0
"""Both ways to the original machine, each real."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from flr.restore.target import Target
from tests.flr.restore import lost
from tests.flr.restore.ways import SSHD, Sshd, by_sftp, by_tool_here


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    if SSHD is None:
        pytest.skip("needs OpenSSH's server (package openssh-server)")
    server = Sshd(tmp_path_factory.mktemp("sshd"))
    yield server
    server.close()


@pytest.fixture(params=["tool", "sftp"], scope="module")
def way(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    if request.param == "sftp":
        with by_sftp(request.getfixturevalue("sshd")) as target:
            yield target
    else:
        with by_tool_here(tmp_path_factory.mktemp("tool")) as target:
            yield target


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if os.geteuid() != 0:
        pytest.skip("needs root: a guest's disk is filled by a loop mount")
    return lost.image_of(tmp_path_factory.mktemp("lost"))


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Path]:
    with lost.machine_in(tmp_path) as folder:
        yield folder


@pytest.fixture(params=["tool", "sftp"])
def target(request: pytest.FixtureRequest, tmp_path: Path, machine: Path) -> Iterator[Target]:
    if request.param == "tool":
        with by_tool_here(tmp_path, machine) as way:
            yield way
        return
    (tmp_path / "sshd").mkdir()
    server = Sshd(tmp_path / "sshd", machine)
    try:
        with by_sftp(server) as way:
            yield way
    finally:
        server.close()


@pytest.fixture
def by_tool(tmp_path: Path, machine: Path) -> Iterator[Target]:
    with by_tool_here(tmp_path, machine) as way:
        yield way
