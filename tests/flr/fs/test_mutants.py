# SPDX-License-Identifier: Apache-2.0
"""Damaged volumes of every kind, each asked for everything: only RecoveryErrors come, and the process neither ends nor stops.

The mutants run in a child, as they do in the product. What came of each: refused as a whole, raised for some of it, changed
without an error (a name, a time, a byte), unchanged; fault (of another type), stuck and died must not be.
"""

from __future__ import annotations

import itertools
import resource
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.flr.corpus.catalogue import CATALOGUE, sample
from tests.flr.corpus.mutants import KINDS

IMAGES = (
    "ext4-no-checksums", "ext4-inline", "ext3-1k", "ext4-busy", "xfs-small", "xfs-busy", "ntfs-plain", "ntfs-wof", "fat12-few",
    "fat32", "exfat",
)  # fmt: skip
SOAK_SECONDS = 20 * 60
"""Of processor time, for each file system: its images take turns."""
QUICK = dict.fromkeys(("ext3-1k", "ext4-inline", "ext4-busy", "xfs-small", "xfs-busy", "fat32"), 15)


def outcomes(kind: str, image: Path, first: int, count: int) -> Counter[str]:
    """By the word of each mutant."""
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
    found = outcomes(CATALOGUE[name].holds, sample(name).image, first, count)
    print(name, dict(found))
    assert set(found) <= {"refused", "raised", "changed", "unchanged"}, found
    assert found.total() == count
    return found


@pytest.mark.parametrize("name", IMAGES)
def test_mutants_raise_nothing_but_our_errors(name: str) -> None:
    count = QUICK.get(name, 30)
    assert check(name, 0, count)["refused"] < count // 2


@pytest.mark.soak
@pytest.mark.timeout(4 * SOAK_SECONDS)
@pytest.mark.parametrize("kind", KINDS)
def test_mutants_for_long(kind: str) -> None:
    turns = itertools.cycle([name for name in IMAGES if CATALOGUE[name].holds == kind])
    first, began = 1000, used()
    totals: Counter[str] = Counter()
    while used() - began < SOAK_SECONDS:
        totals += check(next(turns), first, 200)
        first += 200
    print(kind, totals.total(), "mutants", dict(totals))


def used() -> float:
    """Seconds of processor time of the children so far."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
