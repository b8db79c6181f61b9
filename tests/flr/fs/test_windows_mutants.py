# SPDX-License-Identifier: Apache-2.0
"""Thousands of damaged volumes, each asked for everything: only RecoveryErrors come, and the process neither ends nor stops.

The mutants run in a child, as they do in the product, so that a fault of C code would be counted and not be ours.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.flr.corpus import windows
from tests.flr.corpus.populate import MIB

IMAGES: dict[str, tuple[str, Callable[[], Path]]] = {
    "ntfs": ("ntfs", lambda: windows.ntfs_plain().image),
    "wof": ("ntfs", lambda: windows.wof()[0]),
    "fat12": ("fat", lambda: windows.fat("12-few", 8 * MIB, ("-F", "12", "-s", "8"), 60, 100_000).image),
    "fat32": ("fat", lambda: windows.fat("32", 96 * MIB, ("-F", "32", "-s", "2")).image),
    "exfat": ("fat", lambda: windows.exfat("4k", 64 * MIB, ("-c", "4K")).image),
}


def outcomes(kind: str, image: Path, first: int, count: int) -> Counter[str]:
    """By the word of each mutant: done, refused; fault; died (with its signal), stuck."""
    found: Counter[str] = Counter()
    end = first + count
    faults: list[str] = []
    while first < end:
        command = (sys.executable, "-m", "tests.flr.corpus.mutants", kind, str(image), str(first), str(end - first))
        done = subprocess.run(command, capture_output=True, text=True)
        lines = done.stdout.splitlines()
        words = [line.split(" ", 2) for line in lines]
        found.update(word for word, *_ in words if word != "begins")
        faults += [line for line in lines if line.startswith("fault")]
        begun = [int(number) for word, number, *_ in words if word == "begins"]
        assert begun, done.stderr
        if done.returncode:
            found["stuck" if done.returncode == -14 else f"died of {-done.returncode}"] += 1
        first = begun[-1] + 1
    assert not faults, faults[0].encode().decode("unicode_escape")
    return found


def check(name: str, first: int, count: int) -> Counter[str]:
    kind, image = IMAGES[name]
    found = outcomes(kind, image(), first, count)
    print(name, dict(found))
    assert set(found) <= {"done", "refused"}, found
    assert found.total() == count
    return found


@pytest.mark.parametrize(("name", "count"), [("ntfs", 40), ("wof", 30), ("fat12", 25), ("fat32", 8), ("exfat", 25)])
def test_mutants_raise_nothing_but_our_errors(name: str, count: int) -> None:
    assert check(name, 0, count)["done"] > count // 2


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", IMAGES)
def test_many_mutants_raise_nothing_but_our_errors(name: str) -> None:
    check(name, 1000, 1500)
