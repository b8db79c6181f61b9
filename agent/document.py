# SPDX-License-Identifier: Apache-2.0
"""The configuration document of a restore point, written to a file beside the restored disk."""

from __future__ import annotations

import os
from dataclasses import dataclass

from mover.errors import StoreFull, TargetError, UsageError
from mover.repository.frame import FrameReader
from mover.repository.keys import Kind
from mover.repository.reader import read_chunk
from mover.repository.record import place_from_json
from mover.repository.repository import Point, Repository

NAME = "configuration"
"""Of the document among those of a point's record (docs/format.md section 6)."""


@dataclass(frozen=True, slots=True)
class Document:
    path: str
    data: bytes

    @classmethod
    def of(cls, repository: Repository, point: Point, path: str) -> Document:
        """Read it first: a point without one, or a path that is taken, is told before hours of restoring."""
        if os.path.lexists(path):
            raise TargetError("the document's file exists", path, "name a file that does not exist")
        place = point.header.documents.get(NAME)
        if place is None:
            raise UsageError("the restore point has no configuration document", point.id, "leave --document away")
        data = read_chunk(repository.store, FrameReader(repository.keys), place_from_json(place), Kind.DOCUMENT)
        return cls(path, bytes(data))

    def write(self) -> None:
        try:
            with open(self.path, "xb") as file:
                file.write(self.data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            kind = StoreFull if error.errno in (28, 122) else TargetError
            raise kind("the document cannot be written", f"{self.path}: {error.strerror}") from None
