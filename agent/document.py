# SPDX-License-Identifier: Apache-2.0
"""The configuration document of a restore point, written to a file beside the restored disk."""

from __future__ import annotations

from dataclasses import dataclass

from agent.files import is_free, write_new
from mover.repository.repository import Point, Repository

NAME = "configuration"
"""Of the document among those of a point's record (docs/format.md section 6)."""
WHAT = "the configuration document"


@dataclass(frozen=True, slots=True)
class Document:
    """`written`: a file with just these bytes was there already."""

    path: str
    data: bytes
    written: bool

    @classmethod
    def of(cls, repository: Repository, point: Point, path: str) -> Document:
        """Read it first: a point without one, or a path that is taken, is told before hours of restoring."""
        data = repository.read_document(point, NAME)
        return cls(path, data, not is_free(path, lambda file: file.read(len(data) + 1) == data, WHAT))

    def write(self) -> None:
        if not self.written:
            write_new(self.path, self.data, WHAT)
