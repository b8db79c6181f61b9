# SPDX-License-Identifier: Apache-2.0
"""A 32 TiB sparse disk through a backup, an incremental and a restore, in a process whose memory is looked at afterwards.

huge_disk.py MEMORY_PROMISE     exits non-zero when a byte differs or the promise is broken
"""

from __future__ import annotations

import os
import random
import sys
import tempfile

from mover.backup import Backup, BackupRequest, BackupSettings
from mover.clock import SYSTEM
from mover.disk.changes import ChangeMap
from mover.disk.source import FileSource
from mover.disk.target import FileTarget
from mover.progress import Progress
from mover.repository.repository import Repository
from mover.restore import Restore, RestoreSettings
from mover.store.local import LocalStore

MIB, SIZE, ISLANDS, CHANGED = 1 << 20, 32 << 40, 2048, 1000


def main(promise: int) -> None:
    rng = random.Random(1)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        path, out = f"{folder}/disk", f"{folder}/out"
        islands = sorted(rng.sample(range(SIZE // MIB), ISLANDS))
        body = rng.randbytes(MIB // 8) + bytes(MIB - MIB // 8)
        with open(path, "wb") as file:
            file.truncate(SIZE)
            for island in islands:
                file.seek(island * MIB)
                file.write(island.to_bytes(8, "little") + body[8:])
        repository = Repository.create(LocalStore(f"{folder}/repository"), password="p")

        def back_up(job: str, change_map: ChangeMap) -> tuple[str, float]:
            source = FileSource(path, identity="disk")
            request = BackupRequest("vm", job, [source], changes={"disk": change_map})
            started = SYSTEM.monotonic()
            result = Backup(repository, request, BackupSettings(memory=promise), Progress(SYSTEM), seed=1).run()
            source.close()
            assert not result.notes, result.notes
            print(f"{job}: {SYSTEM.monotonic() - started:.1f} s, {result.statistics}")
            return result.point, SYSTEM.monotonic() - started

        back_up("full", ChangeMap(disk="disk", size=SIZE, snapshot="s1"))
        changed = rng.sample(range(SIZE // MIB), CHANGED)
        with open(path, "r+b") as file:
            for block in changed:
                file.seek(block * MIB + 4096)
                file.write(rng.randbytes(512))
        ranges = tuple((block * MIB + 4096, 512) for block in changed)
        point, _ = back_up("incremental", ChangeMap(disk="disk", size=SIZE, snapshot="s2", base="s1", ranges=ranges))
        started = SYSTEM.monotonic()
        restore = Restore(repository, repository.find_point(point), RestoreSettings(), Progress(SYSTEM))
        target = FileTarget(out, restore.disk(0).size)
        print(f"restore: {restore.run({0: target})}, {SYSTEM.monotonic() - started:.1f} s")
        with open(path, "rb") as one, open(out, "rb") as two:
            for block in sorted({*islands, *changed}):
                one.seek(block * MIB)
                two.seek(block * MIB)
                assert one.read(MIB) == two.read(MIB), f"block {block}"
        written = (len({*islands, *changed}) + 1) * MIB
        assert os.stat(out).st_blocks * 512 <= written, "zero blocks were written"
    with open("/proc/self/status") as status:  # ru_maxrss would count what the parent held when it started us
        peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024
    print(f"peak memory {peak / MIB:.0f} MiB")
    assert peak < promise


main(int(sys.argv[1]))
