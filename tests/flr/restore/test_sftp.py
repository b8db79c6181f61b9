# SPDX-License-Identifier: Apache-2.0
"""SSH servers that are not the pinned one, do not take the user, or go away in the middle."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import pytest

from flr.restore.sftp import Login, SftpTarget
from flr.restore.target import Order, Status, Step, TargetGone
from mover.errors import UsageError
from tests.flr.restore.test_ways import above, file
from tests.flr.restore.ways import Sshd, by_sftp

OTHER = asyncssh.generate_private_key("ssh-ed25519")


def state(login: Login) -> tuple[bool, str]:
    target = SftpTarget(login)
    try:
        found = target.state()
        return found.ready, found.text
    finally:
        target.close()


def test_another_host_key_is_not_talked_to(sshd: Sshd) -> None:
    assert state(sshd.login()) == (True, f"connected as {sshd.login().user}@127.0.0.1")
    ready, text = state(sshd.login(host_key=OTHER.export_public_key().decode()))
    assert not ready
    assert "not the pinned one" in text


def test_a_user_or_key_that_is_not_taken(sshd: Sshd) -> None:
    for login in (
        sshd.login(key=OTHER.export_private_key().decode()),
        sshd.login(user="nobody-of-that-name"),
        sshd.login(key="", password="wrong-secret-word"),
    ):
        ready, text = state(login)
        assert not ready
        assert "does not take this user" in text
        assert "wrong-secret-word" not in text + repr(login)
        assert login.key not in repr(login) or not login.key


def test_nobody_there(sshd: Sshd) -> None:
    ready, text = state(sshd.login()._replace(port=1))
    assert not ready
    assert "not reached by SSH" in text


@pytest.mark.parametrize("key", ["", "ssh-ed25519", "ssh-ed25519 AAAA", "nonsense of somebody", "-----BEGIN"])
def test_what_is_no_host_key(sshd: Sshd, key: str) -> None:
    with pytest.raises(UsageError):
        SftpTarget(sshd.login(host_key=key))


def test_what_is_no_private_key(sshd: Sshd) -> None:
    locked = OTHER.export_private_key("pkcs8-pem", passphrase="secret-phrase").decode()
    for key in ("nonsense", locked):
        with pytest.raises(UsageError) as raised:
            SftpTarget(sshd.login(key=key))
        assert key not in str(raised.value)


def test_a_server_that_goes_away_and_comes_back(tmp_path: Path) -> None:
    server = Sshd(tmp_path)
    where = tmp_path / "out"
    where.mkdir()
    told: list[Status] = []
    with by_sftp(server) as target:
        half = threading.Event()

        def steps() -> Iterator[Step]:
            yield from above(where)
            yield from file(1, "whole", os.urandom(1000))
            for step in file(2, "half", os.urandom(3 << 20)):
                yield step
                if step.line[0] == "data" and not half.is_set():
                    half.set()
                    server.hang_up()

        with pytest.raises(TargetGone):
            target.run(Order("abcdabcd", "keep", "_R", False), steps(), told.append)
        assert half.is_set()
        assert {one.number: one.state for one in told} in (
            {2: "failed"},
            {1: "done", 2: "failed"},
            {1: "failed", 2: "failed"},
        )
        assert not (where / "half").exists()
        told.clear()
        assert target.state().ready  # a new connection
        target.run(Order("abcdabce", "keep", "_R", False), [*above(where), *file(2, "half", b"now whole")], told.append)
        assert [one.state for one in told] == ["done"]
        assert (where / "half").read_bytes() == b"now whole"
    server.close()
