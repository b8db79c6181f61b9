# SPDX-License-Identifier: Apache-2.0
"""The local store's lease files: one small JSON file a leased record, below `.leases`, named by the record's hash.

A lease is judged by CLOCK_BOOTTIME and belongs to one boot of the machine: after another boot its holder is dead and it
has lapsed. So the files need not survive a power cut, and none is forced to the disk. Callers hold the name's lock.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from mover.store.lease import Lease

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_LONG_AGO = float("-inf")


def this_boot() -> str:
    return _BOOT_ID.read_text().strip()


class LeaseFiles:
    """`temporary` is a folder for half-written files, on the same file system."""

    def __init__(self, folder: Path, temporary: Path, boot: str) -> None:
        self._folder = folder
        self._temporary = temporary
        self._boot = boot

    def read(self, name: str) -> Lease | None:
        try:
            fields = json.loads(self._path(name).read_bytes())
            expires = float(fields["expires"]) if fields["boot"] == self._boot else _LONG_AGO
            return Lease(str(fields["id"]), int(fields["seconds"]), expires, bool(fields["broken"]))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            # Renames are whole while the machine runs: a torn file is from before a power cut, and so is its holder.
            return None

    def write(self, name: str, lease: Lease | None) -> None:
        path = self._path(name)
        if lease is None or (lease.broken and lease.expires == _LONG_AGO):
            path.unlink(missing_ok=True)  # of another boot: nobody is left to release it
            return
        fields = {
            "name": name,
            "id": lease.id,
            "seconds": lease.seconds,
            "boot": self._boot,
            "expires": lease.expires,
            "broken": lease.broken,
        }
        new = self._temporary / os.urandom(16).hex()
        new.write_text(json.dumps(fields) + "\n", encoding="ascii")
        os.rename(new, path)

    def _path(self, name: str) -> Path:
        return self._folder / hashlib.sha256(name.encode()).hexdigest()[:32]
