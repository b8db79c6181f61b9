# SPDX-License-Identifier: Apache-2.0
"""What a restore would do, and how long that takes: counted in the disk's map, and measured on a sample that is written nowhere."""

from __future__ import annotations

import random
from dataclasses import dataclass

from mover.progress import Progress
from mover.repository.maps import BLOCK_SIZE
from mover.restore import Restore
from mover.restore_steps import Want, Zeros, in_disk_order, joined, length_of, steps

SAMPLE = 8
"""Fetches that are measured: at most 64 MiB of packs."""


@dataclass(slots=True)
class RestorePlan:
    """Of a restore into a target of zeros. Bytes of the disk that are `zero` and that are to `write`, in so many requests; the
    requests that `fetch` so many bytes of packs. `rate`: bytes of the disk a second, fetched from this store and decoded by this
    machine; 0.0 of a disk of zeros."""

    size: int
    zero: int = 0
    write: int = 0
    write_calls: int = 0
    fetch: int = 0
    fetch_calls: int = 0
    rate: float = 0.0

    def fetch_seconds(self) -> float:
        return self.write / self.rate if self.rate > 0 else 0.0

    def write_seconds(self, bytes_a_second: float, calls_a_second: float) -> float:
        """At least, within these limits of the target's; 0.0: a limit that is not known."""
        amounts = ((self.write, bytes_a_second), (self.write_calls, calls_a_second))
        return max((amount / limit for amount, limit in amounts if limit > 0), default=0.0)


def plan(restore: Restore, number: int, progress: Progress, at_once: int, most: int) -> RestorePlan:
    """Of disk `number`. `at_once`, `most`: of the target, see `DiskTarget`. Nothing is written; the point is not held."""
    disk = restore.disk(number)
    found = RestorePlan(disk.size)
    sample: list[list[Want]] = []
    chosen = random.Random(1)  # noqa: S311 - a sample, not a secret
    progress.stage("plan", disk.size)
    for step in steps(disk.reader()):
        restore.check(found.zero + found.write)
        if step is None:
            continue
        if isinstance(step, Zeros):
            found.zero += min(step.end * BLOCK_SIZE, disk.size) - step.start * BLOCK_SIZE
            continue
        blocks = ((at * BLOCK_SIZE, disk.block_size(at), at) for want in in_disk_order(step) for at in want.blocks)
        for _, parts in joined(blocks, most):
            found.write_calls += 1
            found.write += sum(disk.block_size(at) for at in parts)
        found.fetch_calls += 1
        found.fetch += length_of(step)
        if len(sample) < SAMPLE:
            sample.append(step)
        elif (place := chosen.randrange(found.fetch_calls)) < SAMPLE:
            sample[place] = step
    progress.stage("measure", 0)
    found.rate = restore.sample(disk, sample, at_once)
    return found
