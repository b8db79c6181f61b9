# SPDX-License-Identifier: Apache-2.0
"""Where worker and restore tool leave things for each other: requests, replies, and blobs that only the worker writes.

The worker's side. In Azure it is a temporary container and two queues (`agent.restore_mailbox`); here it is a folder, for a machine
without Azure. What is in it is authenticated by who reads it (`flr.restore.through_tool`), not by where it is.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from mover.errors import TargetError


class Mailbox(Protocol):
    """Safe for two threads: one that takes, one that does the rest. StoreError and its like when it cannot be reached. `busy` and
    `idle`: seconds between two looks for replies, when one is expected and when not."""

    busy: float
    idle: float

    def open(self) -> None:
        """Makes it, empty. What an earlier worker's session left in it is gone then."""

    def put(self, name: str, parts: Sequence[bytes]) -> None: ...

    def remove(self, name: str) -> None: ...

    def send(self, message: bytes) -> None: ...

    def take(self) -> list[bytes]:
        """Replies that are waiting, in no promised order. They are taken away."""

    def config(self) -> dict[str, Any]:
        """What the tool must know to use it. Secret."""

    def fetch(self, name: str) -> str:
        """Python that evaluates to a blob's bytes on the tool's machine, with `config` as `C`."""

    def close(self) -> None:
        """Deletes it with all that is in it."""


class FolderMailbox:
    """For the worker's own user, or root: the folder's mode says so. A folder that is there already and was not made by one of
    these is left alone: it would be emptied."""

    PARTS = ("requests", "replies", "blobs")
    MARK = ".flr-restore"
    busy, idle = 0.02, 0.2

    def __init__(self, root: Path) -> None:
        self._root = root
        self._serial = 0

    def open(self) -> None:
        try:
            if self._root.exists() and any(self._root.iterdir()) and not (self._root / self.MARK).exists():
                hint = "name a folder that is not there yet: it is emptied, and deleted at the end"
                raise TargetError("the restore tool's folder holds something else", self._root, hint)
            self.close()
            self._root.mkdir(parents=True, exist_ok=True)
            self._root.chmod(0o700)
            (self._root / self.MARK).touch()
            for part in self.PARTS:
                (self._root / part).mkdir(mode=0o700)
        except OSError as error:
            raise TargetError(
                "the folder for the restore tool cannot be made", f"{self._root}: {error.strerror}"
            ) from None

    def _write(self, part: str, name: str, parts: Sequence[bytes]) -> None:
        path = self._root / part / name
        beside = path.with_name(name + ".tmp")
        try:
            with open(beside, "wb") as file:
                for data in parts:
                    file.write(data)
            beside.rename(path)
        except OSError as error:
            raise TargetError(
                "the folder for the restore tool cannot be written to", f"{path}: {error.strerror}"
            ) from None

    def put(self, name: str, parts: Sequence[bytes]) -> None:
        self._write("blobs", name, parts)

    def remove(self, name: str) -> None:
        try:
            (self._root / "blobs" / name).unlink(missing_ok=True)
        except OSError:
            pass  # it goes with the folder

    def send(self, message: bytes) -> None:
        self._serial += 1
        self._write("requests", f"{self._serial:012d}", [message])

    def take(self) -> list[bytes]:
        found = []
        try:
            for name in sorted(os.listdir(self._root / "replies")):
                if not name.endswith(".tmp"):
                    path = self._root / "replies" / name
                    found.append(path.read_bytes())
                    path.unlink()
        except OSError as error:
            raise TargetError(
                "the folder for the restore tool cannot be read", f"{self._root}: {error.strerror}"
            ) from None
        return found

    def config(self) -> dict[str, Any]:
        return {"folder": str(self._root)}

    def fetch(self, name: str) -> str:
        return f"open({str(self._root / 'blobs' / name)!r}, 'rb').read()"

    def close(self) -> None:
        if (self._root / self.MARK).exists():
            shutil.rmtree(self._root, ignore_errors=True)
