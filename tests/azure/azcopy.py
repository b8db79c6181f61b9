# SPDX-License-Identifier: Apache-2.0
"""azcopy, Microsoft's copier: a witness that is not ours of what a blob holds, and a peer to measure beside. For x86-64 only."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

BINARY = Path(__file__).parents[2] / ".azurite/node_modules/@azure-tools/azcopy-linux/dist/bin/azcopy_linux_amd64"


def copy(source: str, target: str, from_to: str, folder: Path, *words: str) -> None:
    """`from_to`: BlobLocal or LocalBlob. It keeps its logs and plans in `folder`. AssertionError when it fails."""
    environ = os.environ | {"AZCOPY_LOG_LOCATION": str(folder), "AZCOPY_JOB_PLAN_LOCATION": str(folder)}
    command = [str(BINARY), "copy", source, target, "--from-to", from_to, *words]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def content(url: str, folder: Path) -> bytes:
    """What azcopy reads from a blob."""
    path = folder / "azcopied"
    path.unlink(missing_ok=True)
    copy(url, str(path), "BlobLocal", folder)
    return path.read_bytes()
