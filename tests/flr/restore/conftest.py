# SPDX-License-Identifier: Apache-2.0
"""Both ways to the original machine, each real."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flr.restore.target import Target
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
