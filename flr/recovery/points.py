# SPDX-License-Identifier: Apache-2.0
"""The restore points that a session may look into: those of one resource of a repository, or disks as they are now.

Each opens as virtual disks; a point of a repository is held while it is open (rule I7). Not here: how many are open at once
(`flr.recovery.recovery`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import msgspec

from flr.errors import NodeNotFound
from flr.virtual.disk import VirtualDisk
from flr.virtual.open import open_point, open_sources
from mover.disk.source import DiskSource
from mover.repository.repository import Point, Repository


class PointInfo(msgspec.Struct, frozen=True):
    """`made` is seconds since 1970, None where nobody knows; `size` the bytes of all disks."""

    id: str
    made: float | None
    kind: str
    disks: list[str]
    size: int


class Points(Protocol):
    """`resource` is the name that a person knows."""

    resource: str

    def all(self) -> list[PointInfo]:
        """The newest first."""

    def open(self, identifier: str) -> AbstractContextManager[list[VirtualDisk]]:
        """NodeNotFound when it is none of these, or is gone."""


class RepositoryPoints:
    """Those of the resource that `first` is of. `note` is told what a person should know, a hold that cannot be had for one."""

    def __init__(self, repository: Repository, first: Point, note: Callable[[str], None]) -> None:
        self.resource = first.body.resource_name
        self._repository = repository
        self._note = note

    def all(self) -> list[PointInfo]:
        found = list(self._repository.points(self.resource))
        return [_told(point) for point in reversed(found) if point.header.disks]

    def open(self, identifier: str) -> AbstractContextManager[list[VirtualDisk]]:
        for point in self._repository.points(self.resource):
            if point.id == identifier:
                return open_point(self._repository, point, self._note)
        raise NodeNotFound(
            "no such restore point", identifier, "it may have expired; the list shows those that there are"
        )


def _told(point: Point) -> PointInfo:
    names = [disk.name or f"disk {number}" for number, disk in enumerate(point.body.disks)]
    return PointInfo(point.id, point.header.time, "restore point", names, sum(disk.size for disk in point.body.disks))


class DiskPoints:
    """One point: disks that are read where they are, of a cloud-native snapshot or images. `sources` opens them anew each time."""

    ID = "disks"

    def __init__(self, resource: str, made: float | None, sources: Callable[[], Sequence[DiskSource]]) -> None:
        self.resource = resource
        self._made = made
        self._sources = sources
        self._info: PointInfo | None = None

    def all(self) -> list[PointInfo]:
        if self._info is None:
            sources = self._sources()
            try:
                names = [source.name for source in sources]
                self._info = PointInfo(self.ID, self._made, "disks", names, sum(source.size for source in sources))
            finally:
                for source in sources:
                    source.close()
        return [self._info]

    def open(self, identifier: str) -> AbstractContextManager[list[VirtualDisk]]:
        if identifier != self.ID:
            raise NodeNotFound("no such restore point", identifier)
        return open_sources(self._sources())
