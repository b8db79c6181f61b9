# SPDX-License-Identifier: Apache-2.0
"""The real ways to a machine, here: OpenSSH on loopback, and the restore tool as another process, by its own command line."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import asyncssh

from flr.restore.mailbox import FolderMailbox, Mailbox
from flr.restore.sftp import Login, SftpTarget
from flr.restore.target import Target
from flr.restore.through_tool import ToolTarget
from mover.clock import SYSTEM

SSHD = shutil.which("sshd") or shutil.which("/usr/sbin/sshd")


class Sshd:
    """OpenSSH's server with a host key of its own, for the user of the tests and one key."""

    def __init__(self, folder: Path, machine: Path | None = None) -> None:
        assert SSHD is not None
        host, user = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
        (folder / "host").write_bytes(host.export_private_key())
        (folder / "host").chmod(0o600)
        (folder / "authorized").write_bytes(user.export_public_key())
        self.host_key = host.export_public_key().decode().strip()
        self.key = user.export_private_key().decode()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        (folder / "config").write_text(
            f"ListenAddress 127.0.0.1:{self.port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\n"
            f"PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nSubsystem sftp internal-sftp\n"
            f"PermitRootLogin yes\nMaxStartups 100\n"
        )
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        command = [*inside(machine), SSHD, "-D", "-e", "-f", str(folder / "config")]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert self._process.poll() is None
                assert time.monotonic() < until
                time.sleep(0.05)

    def login(self, **more: str) -> Login:
        return Login("127.0.0.1", self.port, getpass.getuser(), self.host_key, key=self.key)._replace(**more)

    def hang_up(self) -> None:
        """Every connection that there is breaks; new ones are taken."""
        self.signal(signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        """To every process that serves a connection."""
        for process in _below(self._process.pid):
            with suppress(ProcessLookupError):
                os.kill(process, number)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()


def _below(process: int) -> set[int]:
    """Processes that it started, and those that they did."""
    found: set[int] = set()
    todo = [process]
    while todo:
        parent = todo.pop()
        try:
            children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        except OSError:
            continue
        todo += [int(child) for child in children]
        found |= {int(child) for child in children}
    return found


def inside(machine: Path | None) -> list[str]:
    """Words before a command that shall see the folder as /srv, as if it were another machine. Needs root."""
    if machine is None:
        return []
    # In a chroot "/" is no mount, whose propagation could be changed; nor is anything there shared with others.
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    alone = [] if "/" in mounts else ["--propagation", "unchanged"]
    return ["unshare", "--mount", *alone, "sh", "-c", 'mount --bind "$0" /srv && exec "$@"', str(machine)]


@contextmanager
def by_sftp(sshd: Sshd) -> Iterator[Target]:
    target = SftpTarget(sshd.login())
    try:
        yield target
    finally:
        target.close()


def started(target: ToolTarget, machine: Path | None = None) -> subprocess.Popen[bytes]:
    """The restore tool, by the command line that the session's event carries, in a locale as the Azure VM agent's.
    RESTORE_TOOL_PYTHON: a folder with another `python3` for it, an old one."""
    python = os.environ.get("RESTORE_TOOL_PYTHON", str(Path(sys.executable).parent))
    paths = os.pathsep.join((python, "/usr/bin", "/bin"))
    command = [*inside(machine), "sh"]
    tool = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env={"PATH": paths, "LC_ALL": "C"})
    assert tool.stdin is not None
    tool.stdin.write(target.command(detach=False).encode())
    tool.stdin.close()
    tool.stdin = None
    return tool


def connected(target: Target) -> None:
    until = time.monotonic() + 30
    while not target.state().ready:
        assert time.monotonic() < until, target.state()
        time.sleep(0.02)


@contextmanager
def by_tool(mailbox: Mailbox, machine: Path | None = None) -> Iterator[ToolTarget]:
    target = ToolTarget(mailbox, SYSTEM, SYSTEM.wall() + 3600)
    target.open()
    tool = started(target, machine)
    try:
        connected(target)
        yield target
    finally:
        target.close()
        _, said = tool.communicate(timeout=30)
        assert tool.returncode == 0, said.decode()


@contextmanager
def by_tool_here(folder: Path, machine: Path | None = None) -> Iterator[ToolTarget]:
    with by_tool(FolderMailbox(folder / "mailbox"), machine) as target:
        yield target
    assert not (folder / "mailbox").exists()
