# SPDX-License-Identifier: Apache-2.0
"""A support bundle: versions, configuration, what the worker does, its last log lines and events, as .tar.gz without secrets."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import os
import platform
import subprocess
import tarfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO

import msgspec

UNIT = "data-mover-agent"
FOLDER, COMMAND = "support/", "command.txt"
MAX_LOG = 32 * 1024 * 1024
MAX_BUNDLE = 50 * 1024 * 1024
_PACKAGES = (
    *("azure-identity", "azure-storage-blob", "azure-storage-queue", "blake3", "cryptography", "msgspec", "numpy"),
    *("structlog", "systemd-python", "xxhash", "zstandard"),
)


def write(
    out: BinaryIO,
    *,
    configuration: Mapping[str, Any],
    state: Mapping[str, Any],
    command: str,
    log_lines: Sequence[str] = (),
    events: Sequence[str] = (),
    redact: Callable[[bytes], bytes],
    now: int,
    journal: Callable[[], bytes | None] | None = None,
) -> list[str]:
    """The members' names. `state`: what the worker says of itself; `command`: the id of the one that asked for it; `log_lines`
    and `events`: the newest, as the worker logged and sent them."""
    pieces: dict[str, bytes] = {
        COMMAND: command.encode(),
        "versions.json": msgspec.json.format(msgspec.json.encode(versions())),
        "machine.json": msgspec.json.format(msgspec.json.encode(machine())),
        "configuration.json": msgspec.json.format(msgspec.json.encode(configuration)),
        "state.json": msgspec.json.format(msgspec.json.encode(state)),
    }
    for name, lines in (("log.jsonl", log_lines), ("events.jsonl", events)):
        if lines:
            pieces[name] = "\n".join(lines).encode()[-MAX_LOG:]
    entries = (journal or read_journal)()
    if entries is not None:
        pieces["journal.jsonl"] = entries[-MAX_LOG:]
    else:
        pieces["journal-is-missing.txt"] = b"there is no journal of this unit here\n"
    left = MAX_BUNDLE
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, data in pieces.items():
            data = redact(data)[-left:] if left else b""
            left -= len(data)
            member = tarfile.TarInfo(FOLDER + name)
            member.size, member.mode, member.mtime = len(data), 0o600, now
            archive.addfile(member, io.BytesIO(data))
    return list(pieces)


def is_of(file: BinaryIO, command: str) -> bool:
    """Whether a file is the bundle that this command asked for, by its first member; of whatever file a few KiB are looked at."""
    try:
        start = zlib.decompressobj(wbits=31).decompress(file.read(64 * 1024), 1024)
    except zlib.error:
        return False
    name = start[:100].rstrip(b"\0").decode(errors="replace")
    return name == FOLDER + COMMAND and start[512:1024].rstrip(b"\0").decode(errors="replace") == command


def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "kernel": platform.release(), "system": _system()}
    for name in ("data-mover", *_PACKAGES):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _system() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        return ""


def machine() -> dict[str, Any]:
    """Memory and disk as they are now, in bytes."""
    found: dict[str, Any] = {"processors": os.cpu_count(), "load": os.getloadavg()}
    with contextlib.suppress(OSError), open("/proc/meminfo", encoding="ascii") as file:  # a sandbox may hide it
        lines = dict(line.split(":", 1) for line in file)
        for name in ("MemTotal", "MemAvailable", "SwapFree"):
            found[name] = int(lines.get(name, "0 kB").split()[0]) * 1024
    for path in ("/", "/var", "/tmp"):  # noqa: S108 - how full it is, nothing is written there
        status = os.statvfs(path)
        found[f"free {path}"] = status.f_bavail * status.f_frsize
    return found


def read_journal() -> bytes | None:
    """The unit's newest entries; None where there is no journal."""
    command = ["journalctl", "--unit", UNIT, "--output", "json", "--no-pager", "--lines", "20000"]
    try:
        found = subprocess.run(command, capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout if found.returncode == 0 and found.stdout else None
