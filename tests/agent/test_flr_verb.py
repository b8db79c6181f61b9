# SPDX-License-Identifier: Apache-2.0
"""`data-mover flr` as one person runs it: its link, its certificate, and the way back to a machine."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.agent.waiting import wait_for
from tests.flr.corpus.catalogue import sample
from tests.flr.restore.ways import SSHD, Sshd
from tests.flr.web.serving import ASKED

PROGRAM = Path(sys.executable).with_name("data-mover")


@contextmanager
def session(*words: object) -> Iterator[tuple[dict[str, Any], httpx.Client]]:
    """What it printed, and somebody who signed in; Ctrl-C at the end."""
    image = sample("fat32").image
    command = [str(PROGRAM), "flr", "--image", str(image), "--name", "localhost", "--json", *map(str, words)]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert running.stdout is not None
    try:
        line = running.stdout.readline()
        assert line, running.communicate()[1].decode()
        told = json.loads(line)
        address, _, token = told["link"].partition("/#t=")
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        served = ssl.get_server_certificate(("127.0.0.1", told["port"]))
        assert hashlib.sha256(ssl.PEM_cert_to_DER_cert(served)).hexdigest().upper() == told["sha256"]
        with httpx.Client(base_url=address, verify=context, trust_env=False, timeout=60, headers=ASKED) as client:
            assert client.post("/api/sign-in", json={"token": token}).status_code == 200
            yield told, client
    finally:
        running.send_signal(signal.SIGINT)
        said = running.communicate(timeout=30)[1]
    assert running.returncode in (0, 130), said.decode()


def restored(client: httpx.Client, folder: Path) -> list[Path]:
    """Everything that is on the image, in that folder of the machine."""
    wait_for(lambda: client.get("/api/restore").json()["state"]["ready"])
    client.post("/api/basket/add", json={"items": [{"point": "disks", "volume": "0", "path": "/"}]})
    assert client.post("/api/restore/begin", json={"rule": "keep", "folder": str(folder)}).status_code == 200

    def over() -> dict[str, Any] | None:
        found: dict[str, Any] = client.get("/api/restores").json()["restores"][0]
        return found if found["ended"] else None

    made = wait_for(over, seconds=60)
    assert made["counts"]["failed"] == 0, made["problems"]
    return [path for path in folder.rglob("*") if path.is_file()]


def test_through_the_restore_tool(tmp_path: Path) -> None:
    box = tmp_path / "box"
    with session("--restore-tool", box) as (told, client):
        assert Path(told["restore_tool"]).stat().st_mode & 0o777 == 0o600
        tool = subprocess.Popen(["sh", told["restore_tool"]], stderr=subprocess.PIPE)
        assert restored(client, tmp_path / "found")
    tool.communicate(timeout=30)
    assert tool.returncode == 0
    assert not box.exists()


def test_by_ssh(tmp_path: Path) -> None:
    if SSHD is None:
        pytest.skip("needs OpenSSH's server (package openssh-server)")
    server = Sshd(tmp_path)
    (tmp_path / "scanned").write_text(f"# 127.0.0.1 SSH-2.0\n[127.0.0.1]:{server.port} {server.host_key}\n")
    (tmp_path / "key").write_text(server.key)
    login = server.login()
    words = (
        "--sftp",
        f"{login.user}@127.0.0.1:{server.port}",
        "--host-key",
        tmp_path / "scanned",
        "--ssh-key",
        tmp_path / "key",
    )
    try:
        with session(*words) as (told, client):
            assert "restore_tool" not in told
            assert restored(client, tmp_path / "found")
    finally:
        server.close()


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--sftp", "host", "--host-key", "k"], "not a machine"),
        (["--sftp", "a@host"], "not a machine"),
        (["--sftp", "a@host:x", "--host-key", "k"], "not a machine"),
        (["--sftp", "a@host", "--host-key", "k"], "by a key or a password"),
        (["--sftp", "a@host", "--host-key", "k", "--ssh-key", "x"], "host key cannot be read"),
        (["--ssh-key", "x"], "without a machine"),
        (["--restore-tool", "b", "--sftp", "a@host", "--host-key", "k", "--ssh-key", "x"], "two ways"),
        (["--restore-tool", "/tmp"], "is there already"),
    ],
)
def test_ways_back_that_are_none(words: list[str], what: str, tmp_path: Path) -> None:
    command = [str(PROGRAM), "flr", "--image", str(sample("fat32").image), *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "NO_COLOR": "1"})
    assert done.returncode == 2
    assert what in done.stderr
