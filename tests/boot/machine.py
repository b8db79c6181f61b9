# SPDX-License-Identifier: Apache-2.0
"""An empty machine that boots: a tree of mmdebstrap's, started by systemd-nspawn, with a NoCloud seed.

It shares this machine's network, so that servers of the test are reachable; what it is not: a kernel of its own. Needs root.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path
from types import TracebackType

BASES = Path("/var/tmp/data-mover-boot")
"""Trees are made once and copied: they cost a minute."""
PACKAGES = (
    "systemd,systemd-sysv,dbus,cloud-init,unattended-upgrades,udev,iproute2,ca-certificates,netbase,python3,libsystemd0"
)
HERE = Path(__file__).resolve().parents[2]


def base(suite: str, more: str = "") -> Path:
    """The tree of a machine that nobody has booted yet; `more` are packages, each with a comma before it."""
    place = BASES / f"{suite}{more}"
    if not place.exists():
        subprocess.run([HERE / "packaging/apt-install.sh", "systemd-container"], check=True)
        BASES.mkdir(parents=True, exist_ok=True)
        half = place.with_name(f"{place.name}.half")
        shutil.rmtree(half, ignore_errors=True)
        subprocess.run(
            [HERE / "packaging/bare-tree.sh", suite, half, PACKAGES + more], check=True, stdout=subprocess.DEVNULL
        )
        half.rename(place)
    return place


class Machine:
    """A context manager; within it the machine is booted, and whatever it wrote to its console is in `console`."""

    def __init__(self, root: Path, suite: str, user_data: str, *options: str, more: str = "") -> None:
        """`options`: of systemd-nspawn; `more` as of `base`."""
        self.root = root
        self._options = options
        subprocess.run(["cp", "-a", "--reflink=auto", base(suite, more), root], check=True)
        seed = root / "var/lib/cloud/seed/nocloud"
        seed.mkdir(parents=True)
        (seed / "meta-data").write_text("instance-id: worker-1\nlocal-hostname: worker-1\n")
        (seed / "user-data").write_text(user_data)
        (root / "etc/cloud/cloud.cfg.d/99-test.cfg").write_text("datasource_list: [ NoCloud, None ]\n")
        (root / "etc/machine-id").write_text("")
        shutil.copy("/etc/hosts", root / "etc/hosts")
        self.console = ""
        self.booted_at = 0.0
        self._process: subprocess.Popen[str] | None = None

    def words(self) -> list[str]:
        """What boots it."""
        nspawn = ["systemd-nspawn", "--quiet", "-D", str(self.root), "--boot", "--register=no", "--keep-unit"]
        landlock = (
            "--system-call-filter=landlock_create_ruleset landlock_restrict_self"  # a VM has it, nspawn forbids it
        )
        return [*nspawn, landlock, "--console=read-only", f"--machine=dm-{os.getpid()}", *self._options]

    def __enter__(self) -> Machine:
        self.booted_at = time.monotonic()
        self._process = subprocess.Popen(
            self.words(),
            env=os.environ | {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},  # systemd 258 and later take no other
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._listen, args=(self._process,))
        self._reader.start()
        return self

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.console += line

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        assert process is not None
        if process.poll() is None and (init := self._init()):
            os.kill(init, signal.SIGRTMIN + 4)  # power off
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
        self._reader.join()
        assert process.stdout is not None
        process.stdout.close()

    def _init(self) -> int:
        """The machine's process 1, as this machine numbers it; 0: it is not there."""
        assert self._process is not None
        found = subprocess.run(["pgrep", "-P", str(self._process.pid)], capture_output=True, text=True).stdout.split()
        return int(found[0]) if found else 0

    def run(self, *words: str, check: bool = True) -> str:
        """What a command says, run in the machine."""
        inside = [
            "nsenter",
            "--target",
            str(self._init()),
            "--mount",
            "--uts",
            "--ipc",
            "--pid",
            "--cgroup",
            "--root",
            "--wd",
            "--",
        ]
        done = subprocess.run([*inside, *words], capture_output=True, text=True)
        if check and done.returncode:
            raise AssertionError(f"{words} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def reboot(self) -> None:
        """nspawn ends when its machine wants that, and is started again as by firmware."""
        assert self._process is not None
        os.kill(self._init(), signal.SIGRTMIN + 5)
        self._process.wait(90)
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self.__enter__()

    def journal(self) -> str:
        return self.run(
            "journalctl", "--no-pager", "--lines=60", "--unit=data-mover-agent", "--output=cat", check=False
        )
