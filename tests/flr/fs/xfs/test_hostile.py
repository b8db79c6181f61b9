# SPDX-License-Identifier: Apache-2.0
"""Whatever the volume holds, a walk ends, and nothing but `flr.errors` comes out of it."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flr.blocks import MemoryDisk, Volume
from tests.flr.corpus import mounted
from tests.flr.corpus.image import opened
from tests.flr.fs.xfs import images, mutants

SEEDS = st.integers(0, 2**64 - 1)


@pytest.fixture(autouse=True)
def _tools() -> None:
    mounted.need("mkfs.xfs")


def all_of(seed: int, volume: Volume, make: Callable[[random.Random], dict[int, bytes]]) -> None:
    mutants.walk(mutants.Watched(volume, make(random.Random(seed))))


def read_by_a_walk(disk: MemoryDisk) -> list[list[int]]:
    watched = mutants.Watched(disk)
    assert mutants.walk(watched) > 60
    return mutants.kinds(disk, watched.sectors)


def test_a_walk_through_a_damaged_file_system_ends() -> None:
    with opened(images.small().image) as disk:
        sectors = read_by_a_walk(disk)

        @settings(max_examples=60)
        @given(SEEDS)
        def walks(seed: int) -> None:
            all_of(seed, disk, lambda chance: mutants.mutant(disk, sectors, chance))

        walks()


def test_a_walk_through_a_file_system_with_a_damaged_log_ends() -> None:
    with opened(images.dirty().image) as disk:
        sectors = read_by_a_walk(disk)

        @settings(max_examples=30)
        @given(SEEDS)
        def walks(seed: int) -> None:
            all_of(seed, disk, lambda chance: mutants.mutant(disk, sectors, chance))

        walks()


def test_a_walk_through_a_file_system_with_a_lying_log_ends() -> None:
    with opened(images.dirty().image) as disk:
        forger = mutants.Forger(disk)

        @settings(max_examples=40)
        @given(SEEDS)
        def walks(seed: int) -> None:
            all_of(seed, disk, forger.mutant)

        walks()
