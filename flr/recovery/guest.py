# SPDX-License-Identifier: Apache-2.0
"""What a guest's own files tell of it: the names of owners and groups, and where it had its volumes.

Read from /etc/passwd, /etc/group and /etc/fstab of the volume that has them, or from Windows' registry (`flr.recovery.hive`): hints
for a person, nothing is decided by them. What is damaged or missing is passed over. Sources: passwd(5), group(5), fstab(5).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import msgspec

from flr.errors import RecoveryError
from flr.recovery.hive import letters, partition_of
from flr.session import Session
from flr.volumes.find import Entry

LARGEST = 1 << 20
"""Bytes of such a file; what is beyond is not looked at."""
MOST_NAMES = 100_000
_OCTAL = re.compile(rb"\\([0-7]{3})")


class Guest(msgspec.Struct, frozen=True):
    """Names by number; and by a volume's id where the guest had it mounted. `root` is the volume that told, "" for none;
    `windows`: it is Windows' own, and the places are drive letters."""

    root: str
    owners: dict[int, str]
    groups: dict[int, str]
    mounts: dict[str, str]
    windows: bool = False

    @classmethod
    def of(cls, session: Session, volumes: Sequence[Entry]) -> Guest:
        for entry in volumes:
            passwd = _read(session, entry.id, b"/etc/passwd")
            if passwd is not None:
                fstab = _read(session, entry.id, b"/etc/fstab") or b""
                return cls(
                    entry.id,
                    _names(passwd),
                    _names(_read(session, entry.id, b"/etc/group") or b""),
                    _mounts(fstab, volumes, entry.id),
                )
        for entry in volumes:
            drives = _drives(session, entry.id, volumes)
            if drives is not None:
                return cls(entry.id, {}, {}, drives, windows=True)
        return cls("", {}, {}, {})


def _drives(session: Session, volume: str, volumes: Sequence[Entry]) -> dict[str, str] | None:
    """Drive letters by a volume's id, if Windows stands on this one."""
    try:
        hive = session.find(volume, b"/Windows/System32/config/SYSTEM", follow=True)
    except RecoveryError:
        return None
    found: dict[str, str] = {}
    try:
        for letter, data in letters(lambda offset, length: session.read(volume, hive.node, offset, length)).items():
            told = partition_of(data)
            for entry in volumes:
                if told is not None and _is(entry, *told):
                    found.setdefault(entry.id, letter)
    except RecoveryError:
        pass  # damaged: what was found so far is told
    return found


def _is(entry: Entry, identifier: str, start: int | None) -> bool:
    if start is None:
        return entry.uuid.lower() == identifier
    return entry.start == start and entry.uuid.lower().startswith(identifier + "-")


def _read(session: Session, volume: str, path: bytes) -> bytes | None:
    """The beginning of a file; None when there is none that can be read."""
    try:
        found = session.find(volume, path, follow=True)
        return session.read(volume, found.node, 0, min(found.size, LARGEST))
    except RecoveryError:
        return None


def _lines(data: bytes) -> Iterator[bytes]:
    for line in data.split(b"\n"):
        if line.strip() and not line.lstrip().startswith(b"#"):
            yield line


def _names(data: bytes) -> dict[int, str]:
    """Name by number; the first of a number counts, as for the guest."""
    found: dict[int, str] = {}
    for line in _lines(data):
        fields = line.split(b":")
        if len(fields) > 2 and fields[2].isdigit() and len(fields[2]) < 11 and len(found) < MOST_NAMES:
            found.setdefault(int(fields[2]), fields[0].decode("utf-8", "replace")[:64])
    return found


def _mounts(fstab: bytes, volumes: Sequence[Entry], root: str) -> dict[str, str]:
    """Volumes that the table names by UUID, PARTUUID, label or the path of a logical volume."""
    found: dict[str, str] = {}
    for line in _lines(fstab):
        fields = line.split()
        if len(fields) < 2 or not fields[1].startswith(b"/"):
            continue
        spec = fields[0].decode("utf-8", "replace").strip('"')
        place = _OCTAL.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), fields[1]).decode("utf-8", "replace")
        for entry in volumes:
            if _names_it(spec, entry):
                found.setdefault(entry.id, place)
    if "/" not in found.values():
        found.setdefault(root, "/")
    return found


def _names_it(spec: str, entry: Entry) -> bool:
    key, separator, value = spec.partition("=")
    value = value.strip('"')
    if separator:
        if key == "UUID":
            return bool(value) and value.lower() == entry.content_uuid.lower()
        if key == "PARTUUID":
            return bool(value) and value.lower() == entry.uuid.lower()
        if key == "LABEL":
            return bool(value) and value == entry.label
        return key == "PARTLABEL" and bool(value) and value == entry.name
    if spec.startswith("/dev/disk/by-uuid/"):
        return bool(entry.content_uuid) and spec.rpartition("/")[2].lower() == entry.content_uuid.lower()
    if entry.kind == "volume" and spec.startswith(("/dev/mapper/", "/dev/")):
        group, _, name = entry.id.partition("/")
        doubled = f"{group.replace('-', '--')}-{name.replace('-', '--')}"
        return spec in (f"/dev/mapper/{doubled}", f"/dev/{entry.id}")
    return False
