# SPDX-License-Identifier: Apache-2.0
"""A bounded set of open files, so that many small reads of one pack open it once.

Shared by threads: a file leaves the set at once when it is evicted or found replaced, and is closed by the last thread
that reads it. Every use asks the file system whether the name still means that file; no content is cached here.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mover.store.local_envelope import Envelope, read_envelope


@dataclass(slots=True, eq=False)
class OpenFile:
    descriptor: int
    identity: tuple[int, int]
    envelope: Envelope
    size: int  # bytes of content, without a first line
    users: int = 0
    evicted: bool = False


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


class OpenFiles:
    def __init__(self, root: Path, capacity: int = 64) -> None:
        self._root = str(root)
        self._capacity = capacity
        self._lock = threading.Lock()
        self._files: OrderedDict[str, OpenFile] = OrderedDict()

    @contextmanager
    def use(self, name: str) -> Iterator[OpenFile]:
        """The file that has the name now. Raises OSError as open() does."""
        file = self._take(name)
        try:
            yield file
        finally:
            with self._lock:
                file.users -= 1
                last = file.evicted and not file.users
            if last:
                os.close(file.descriptor)

    def close(self) -> None:
        with self._lock:
            for name in list(self._files):
                self._evict(name)

    # -- inside

    def _take(self, name: str) -> OpenFile:
        path = f"{self._root}/{name}"
        with self._lock:
            known = self._files.get(name)
        if known is not None:
            identity = _identity(path)
            with self._lock:
                current = self._files.get(name) is known
                if current and identity == known.identity:
                    # The inode cannot be another file's: this descriptor keeps it from being used again.
                    self._files.move_to_end(name)
                    known.users += 1
                    return known
                if current:
                    self._evict(name)
        file = self._open(path, name)
        with self._lock:
            if name in self._files:
                self._evict(name)
            self._files[name] = file
            file.users += 1
            while len(self._files) > self._capacity:
                self._evict(next(iter(self._files)))
        return file

    def _open(self, path: str, name: str) -> OpenFile:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            envelope = read_envelope(descriptor, name)
        except BaseException:
            os.close(descriptor)
            raise
        return OpenFile(descriptor, (status.st_dev, status.st_ino), envelope, status.st_size - envelope.start)

    def _evict(self, name: str) -> None:
        """Under the lock."""
        file = self._files.pop(name)
        file.evicted = True
        if not file.users:
            os.close(file.descriptor)
