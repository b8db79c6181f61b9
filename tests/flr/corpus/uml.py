# SPDX-License-Identifier: Apache-2.0
"""Shell scripts run as root inside a User-Mode Linux kernel, which has the device-mapper and md that this machine's may lack.

The script sees this machine's files read-only, `work` as its folder (writable), the images as /dev/ubda, /dev/ubdb and so on,
and loads modules by `load NAME...`. It touches nothing else: no device, network or mount of this machine's kernel is used.
"""

from __future__ import annotations

import functools
import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from shutil import which

import pytest

MODULES = "/usr/lib/uml/modules"
MOST_DISKS = 16

INIT = """#!/bin/bash
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C HOME=/run
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev 2>/dev/null
mount -t tmpfs run /run
mkdir -p /run/lvm /run/lock /run/mdadm /run/work /run/modules/lib
ln -s {modules} /run/modules/lib/modules
mount -t hostfs work /run/work -o {work}
cd /run/work
load() {{ modprobe -d /run/modules -a "$@"; }}
export -f load
bash -euo pipefail ./uml-script >uml-output 2>&1
echo $? >uml-status
sync
halt -f >/dev/null 2>&1
"""


def need(*programs: str) -> None:
    """Skips the test unless a User-Mode Linux kernel and the programs are there."""
    packages = {
        "mdadm": "mdadm",
        "lvm": "lvm2",
        "thin_check": "thin-provisioning-tools",
        "sgdisk": "gdisk",
        "sfdisk": "fdisk",
    }
    if which("linux.uml") is None or not os.path.isdir(MODULES):
        pytest.skip(
            "needs linux.uml with its modules (package user-mode-linux): its kernel's reading is the truth here"
        )
    missing = [program for program in programs if which(program) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)} (packages {', '.join(packages.get(p, p) for p in missing)})")
    if os.geteuid() != 0:
        pytest.skip("needs root: the programs inside refuse to make volumes for anyone else")
    if problem := _problem():
        pytest.skip(f"linux.uml does not run on this machine, its kernel's reading is the truth here: {problem}")


@functools.cache
def _problem() -> str:
    """Why even an empty script fails, "" when it does not: the kernel of some distributions cannot save the registers of a
    processor that has AMX."""
    with tempfile.TemporaryDirectory() as work:
        try:
            run("true", [], Path(work), 30)
        except RuntimeError as error:
            lines = str(error).splitlines()
            return next((line for line in lines if "regs failed" in line), lines[-1])
    return ""


def run(script: str, disks: Sequence[Path], work: Path, seconds: int = 120, memory: str = "256M") -> str:
    """What the script said. RuntimeError, with that, when it failed or did not end in time."""
    if len(disks) > MOST_DISKS:
        raise ValueError(f"{len(disks)} disks, {MOST_DISKS} at most")
    (work / "uml-script").write_text(script)
    with tempfile.TemporaryDirectory() as place:
        init = Path(place) / "init"
        init.write_text(INIT.format(modules=MODULES, work=shlex.quote(str(work))))
        init.chmod(0o755)
        command = [
            "linux.uml", f"mem={memory}", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", f"init={init}", "quiet",
            "con=null", "con0=null,fd:1", f"uml_dir={place}/", *(f"ubd{number}={disk}" for number, disk in enumerate(disks)),
        ]  # fmt: skip
        console = _bounded(command, seconds)
    said = _taken(work / "uml-output")
    status = _taken(work / "uml-status").strip()
    (work / "uml-script").unlink()
    if status != "0":
        raise RuntimeError(
            f"the script inside linux.uml ended with {status or 'no status'}:\n{said}\n{console[-2000:]}"
        )
    return said


def _bounded(command: list[str], seconds: int) -> str:
    """Runs it as a group of its own, all of which ends with it."""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        return process.communicate(timeout=seconds)[0].decode(errors="replace")
    except subprocess.TimeoutExpired:
        return f"not at its end after {seconds} s"
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # as it should be
        process.communicate()


def _taken(file: Path) -> str:
    try:
        text = file.read_text(errors="replace")
    except FileNotFoundError:
        return ""
    file.unlink()
    return text
