# SPDX-License-Identifier: Apache-2.0
"""The disks of a session: of a restore point, which is held while they are open, or images and page blobs as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from flr.virtual.blocks import PointBlocks, SourceBlocks
from flr.virtual.disk import Fetcher, VirtualDisk
from mover.disk.source import DiskSource
from mover.keeper import Keeper
from mover.repository.hold import Unheld
from mover.repository.repository import Point, Repository


@contextmanager
def open_point(repository: Repository, point: Point, note: Callable[[str], None]) -> Iterator[list[VirtualDisk]]:
    """All disks of a restore point, in its order. It is held meanwhile (rule I7), or `note` is told why it is not; a hold
    that is lost ends the next read."""
    hold = repository.hold(point)
    if isinstance(hold, Unheld):
        note(f"{hold.why}: the restore point is not held, retention could delete it meanwhile")
    with ExitStack() as stack:
        stack.callback(hold.end)
        keeper = stack.enter_context(Keeper(hold.tick, repository.clock))
        fetcher = stack.enter_context(Fetcher())
        bodies = point.body.disks
        yield [
            VirtualDisk(
                number,
                PointBlocks(repository, point, number, keeper.check),
                fetcher,
                bodies[number].name if number < len(bodies) else f"disk {number}",
            )
            for number in range(len(point.header.disks))
        ]


@contextmanager
def open_sources(sources: Sequence[DiskSource]) -> Iterator[list[VirtualDisk]]:
    """Of images, devices and page blobs, which are closed at the end."""
    with ExitStack() as stack:
        for source in sources:
            stack.callback(source.close)
        fetcher = stack.enter_context(Fetcher())
        yield [VirtualDisk(k, SourceBlocks(source), fetcher, source.name) for k, source in enumerate(sources)]
