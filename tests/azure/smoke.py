# SPDX-License-Identifier: Apache-2.0
"""The main path against a real account: `make azure-smoke`. It makes blobs of its own in the container and deletes them again.

    DATA_MOVER_SMOKE_CONTAINER  a container's URL with a SAS (racwdl)
    DATA_MOVER_SMOKE_UPLOAD     optional: the SAS of a managed disk that waits for its upload, of 32 MiB and 512 bytes or
                                more; what it holds is written over

A page blob of 32 MiB is backed up, changed, and backed up again by what the service says changed since; each point is restored
to a page blob, which azcopy reads back. What Azurite answers wrongly (lists of changes) is thus asked of a real service; how
many of them were believed is the last line. Any failure ends it with 1.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from urllib.parse import urlsplit

from azure.storage.blob import BlobClient

from tests.azure import azcopy

MIB = 1 << 20
SIZE = 32 * MIB


class Smoke:
    def __init__(self, container: str, folder: Path) -> None:
        split = urlsplit(container)
        self.base, self.sas = f"{split.scheme}://{split.netloc}{split.path}/smoke-{uuid.uuid4().hex[:8]}", split.query
        self.folder = folder
        self.made: list[str] = []
        self.believed = 0
        subprocess.run([*MOVER, "repo", "create", self.repository], check=True, capture_output=True)

    @property
    def repository(self) -> str:
        return (self.folder / "repository").as_uri()

    def url(self, name: str, snapshot: str = "") -> str:
        self.made += [name] if name not in self.made else []
        return f"{self.base}-{name}?{f'snapshot={snapshot}&' if snapshot else ''}{self.sas}"

    def file(self, name: str, url: str) -> str:
        path = self.folder / name
        path.write_text(url)
        return f"@{path}"

    def mover(self, *words: str) -> dict[str, object]:
        done = subprocess.run(
            [*MOVER, *words, "--repository", self.repository, "--json"], capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(f"{words[0]} ended with {done.returncode}: {done.stdout[-3000:]}")
        found: dict[str, object] = json.loads(done.stdout)
        return found

    def run(self, upload: str) -> None:
        rng = random.Random(1)
        content, previous, points = bytearray(SIZE), "", []
        with BlobClient.from_blob_url(self.url("disk")) as disk:
            disk.create_page_blob(SIZE)
            for turn in range(3):
                for _ in range(8):
                    at, data = rng.randrange(SIZE // 512 - 16) * 512, rng.randbytes(512 * rng.randrange(1, 16))
                    disk.upload_page(data, at, len(data))
                    content[at : at + len(data)] = data
                if turn:
                    disk.clear_page(turn * 3 * MIB, MIB)
                    content[turn * 3 * MIB : (turn * 3 + 1) * MIB] = bytes(MIB)
                taken = disk.create_snapshot()["snapshot"]
                words = ["backup", "--resource", "smoke", "--disk", f"os={self.file('url', self.url('disk', taken))}"]
                if previous:
                    words += ["--previous-snapshot", self.file("previous", self.url("disk", previous))]
                said = self.mover(*words)
                self.believed += bool(previous) and not said["notes"]
                points.append((str(said["point"]), bytes(content)))
                print(f"backup {turn}: {said['statistics']}, notes {said['notes']}", flush=True)
                previous = taken
        for number, (point, state) in enumerate(points):
            url = self.url(f"restored-{number}")
            said = self.mover("restore", "--point", point, "--to", self.file("to", url), "--verify")
            if azcopy.content(url, self.folder) != state:
                sys.exit(f"point {number} was not restored byte for byte")
            print(f"restore {number}: {said['statistics']}; azcopy reads the same", flush=True)
        if upload:
            said = self.mover("restore", "--point", points[-1][0], "--to", self.file("to", upload), "--verify")
            print(f"upload: {said['statistics']}; revoke its access, then it is a disk", flush=True)

    def clean(self) -> None:
        for name in self.made:
            with BlobClient.from_blob_url(self.url(name)) as blob:
                if blob.exists():
                    blob.delete_blob(delete_snapshots="include")


MOVER = [str(Path(sys.executable).parent / "data-mover")]


def main() -> None:
    container = os.environ.get("DATA_MOVER_SMOKE_CONTAINER", "")
    if not container:
        sys.exit(
            "azure-smoke: set DATA_MOVER_SMOKE_CONTAINER to a container's URL with a SAS (racwdl); see tests/azure/smoke.py"
        )
    with tempfile.TemporaryDirectory() as folder:
        smoke = Smoke(container, Path(folder))
        try:
            smoke.run(os.environ.get("DATA_MOVER_SMOKE_UPLOAD", ""))
        finally:
            smoke.clean()
    print(f"azure-smoke: all points are what the disk was; {smoke.believed} of 2 lists of changes were believed")


if __name__ == "__main__":
    main()
