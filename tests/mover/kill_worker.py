# SPDX-License-Identifier: Apache-2.0
"""The process that test_kill kills: one backup or one restore over a store given by URL.

It prints a line for every request to the store (before and after) and every read and write of the disk, so that it can be
killed between any two of them, and "done ..." at its end.

    kill_worker.py backup URL RESOURCE JOB DISK
    kill_worker.py restore URL POINT TARGET
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from mover.backup import Backup, BackupRequest, BackupSettings
from mover.clock import SYSTEM
from mover.disk.source import FileSource
from mover.disk.target import FileTarget
from mover.progress import Progress
from mover.repository.repository import Repository
from mover.restore import Restore, RestoreSettings
from mover.store.open import open_store
from mover.store.retry import RetryStore
from mover.store.wrapper import Wrapper

T = TypeVar("T")
PASSWORD = "kill me"


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


class LoudStore(Wrapper):
    def _do(self, operation: str, name: str, size: int, call: Callable[[], T]) -> T:
        say("before", operation, name)
        result = call()
        say("after", operation, name)
        return result


class LoudSource(FileSource):
    def read_into(self, offset: int, buffers: Sequence[bytearray | memoryview]) -> None:
        say("read", offset)
        super().read_into(offset, buffers)


class LoudTarget(FileTarget):
    def write(self, offset: int, data: bytes) -> None:
        super().write(offset, data)
        say("wrote", offset)


def main() -> None:
    verb, url, first, second, *rest = sys.argv[1:]
    store = LoudStore(RetryStore(open_store(url, os.environ), SYSTEM))
    repository = Repository.open(store, password=PASSWORD)
    progress = Progress(SYSTEM)
    if verb == "backup":
        request = BackupRequest(first, second, [LoudSource(rest[0])])
        settings = BackupSettings(checkpoint_seconds=0.02, workers=2)
        result = Backup(repository, request, settings, progress).run()
        say("done", result.point, int(result.resumed), result.statistics.read)
    else:
        restore = Restore(repository, repository.find_point(first), RestoreSettings(), progress)
        restored = restore.run({0: LoudTarget(second, restore.disk(0).size)})[0]
        say("done", restored.written, restored.equal)


if __name__ == "__main__":
    main()
