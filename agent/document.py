# SPDX-License-Identifier: Apache-2.0
"""The configuration document of a restore point, written to a file beside the restored disk."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

from mover.errors import StoreFull, TargetError
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
        return cls(path, repository.read_document(point, NAME))

    def write(self) -> None:
        try:
            with open(self.path, "xb") as file:
                file.write(self.data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            kind = StoreFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else TargetError
            raise kind("the document cannot be written", f"{self.path}: {error.strerror}") from None
