# SPDX-License-Identifier: Apache-2.0
"""The sandbox proved from inside: whatever the parser's process tries, it gets nothing."""

from __future__ import annotations

import os
import platform
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from flr.parser import sandbox
from tests.flr.parser import inside


def run(path: Path, *before: str) -> str:
    command = [*before, sys.executable, "-m", "tests.flr.parser.inside", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[3])
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nothing_that_it_tries_works(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("secret")
    told = run(path)
    assert "DONE" not in told
    for name in inside.ATTEMPTS:
        assert f"refused {name} " in told
    assert path.read_text() == "secret"
    assert sorted(tmp_path.iterdir()) == [path]


def test_nor_without_namespaces_and_another_user(tmp_path: Path) -> None:
    """As under a service manager that forbids both: the filter alone holds, and what is missing is named."""
    if os.geteuid() != 0:
        pytest.skip("needs root to give up being it")
    tree = Path(__file__).parents[3]
    if subprocess.run(["setpriv", "--reuid=65534", "--clear-groups", "ls", str(tree)], capture_output=True).returncode:
        pytest.skip(f"needs a tree that every user can read: {tree}")
    path = tmp_path / "file"
    path.write_text("secret")
    tmp_path.chmod(0o777)
    # unshare(2) is forbidden to a user who has no capability and no user namespaces left
    without = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs", "--bounding-set=-all")
    told = run(path, *without)
    assert "DONE" not in told
    assert "seccomp" in told.splitlines()[0]


def test_the_filter_allows_what_it_lists_and_kills_foreign_architectures() -> None:
    """The program, run by a small interpreter of classic BPF, for every call on both architectures."""
    for machine, (column, audit) in {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}.items():
        program = list(struct.iter_unpack("<HBBI", sandbox.program(machine)))
        allowed = {numbers[column] for numbers in sandbox.ALLOWED.values()} - {None}
        guarded = {numbers[column] for numbers in sandbox.NOT_EXECUTABLE.values()}
        for call in range(600):
            verdict = interpret(program, call, audit, 1)
            if call in allowed | guarded:
                assert verdict == 0x7FFF0000
            else:
                assert verdict == 0x00050001
            executable = interpret(program, call, audit, 7)
            assert executable == (0x7FFF0000 if call in allowed else 0x00050001)
        assert interpret(program, 0x40000000, audit, 0) == 0x80000000
        assert interpret(program, 0, 0x40000003, 0) == 0x80000000


def interpret(program: list[tuple[int, int, int, int]], call: int, audit: int, third: int) -> int:
    data = struct.pack("<IIQ6Q", call, audit, 0, 0, 0, third, 0, 0, 0)
    at = accumulator = 0
    while True:
        code, yes, no, k = program[at]
        at += 1
        if code == 0x20:
            accumulator = struct.unpack_from("<I", data, k)[0]
        elif code == 0x06:
            return k
        else:
            taken = {0x15: accumulator == k, 0x35: accumulator >= k, 0x45: bool(accumulator & k)}[code]
            at += yes if taken else no


def test_an_unknown_machine_is_not_locked() -> None:
    with pytest.raises(sandbox.NotLocked, match="riscv64"):
        sandbox.program("riscv64")
    sandbox.program(platform.machine())
