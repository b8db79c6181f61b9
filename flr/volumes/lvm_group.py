# SPDX-License-Identifier: Apache-2.0
"""The logical volumes of one LVM group: linear, striped, raid0, mirrors; of other types the reason why they are not opened.

A volume stands on its own: what is wrong with one (a type that is not read, a disk that is not here, a damaged segment) is that
one's reason and no other's. Volumes that LVM keeps inside of others are not shown. Not here: where the metadata came from (`lvm`).

Sources: libyal's document "Logical Volume Manager (LVM) format", lvmraid(7), lvmthin(7), lvmcache(7). No document describes what a
raid image's own metadata volume holds; its fields were read off images that a kernel had made, in step and out of step.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from flr.blocks import Volume, Window
from flr.errors import Corrupt, Missing, OutOfBounds, RecoveryError, TooMuch, Unsupported
from flr.printable import printable
from flr.volumes.combined import Concatenated, Striped
from flr.volumes.lvm import SECTOR, Metadata
from flr.volumes.lvm_text import Section

MOST_DISKS = 1024
MOST_VOLUMES = 4096
MOST_SEGMENTS = 65536
"""Of a group, over all its volumes."""
MOST_DEPTH = 8
"""Volumes inside of volumes."""
MOST_EXTENTS = 1 << 40

NAME = re.compile(r"[A-Za-z0-9_.+][A-Za-z0-9_.+-]{0,127}")
REASONS = {
    "thin": "thin volumes", "thin-pool": "thin pools", "snapshot": "snapshots (copy on write)", "cache": "volumes with a cache",
    "cache-pool": "cache pools", "writecache": "volumes with a write cache", "vdo": "deduplicated volumes (VDO)",
    "vdo-pool": "deduplicated volumes (VDO)", "integrity": "volumes with integrity checksums", "error": "volumes without content",
    "zero": "volumes without content",
}  # fmt: skip
RAID_MAGIC = b"DmRd"


class LogicalVolume(msgspec.Struct, kw_only=True):
    """`volume` when it can be opened, else `why`. `size` in bytes; `words` is its type; `on`: the ids of the disks below."""

    name: str
    uuid: str
    size: int
    words: str
    on: list[str]
    volume: Volume | None
    why: RecoveryError | None
    warnings: list[str]


class Group(msgspec.Struct, kw_only=True):
    """A volume group. `members`: ids of its disks that are here; `missing`: what is known of those that are not."""

    name: str
    uuid: str
    size: int
    members: list[str]
    missing: list[str]
    volumes: list[LogicalVolume]
    warnings: list[str]
    why: RecoveryError | None = None


class _Disk(msgspec.Struct):
    id: str
    volume: Volume | None
    why: RecoveryError | None
    start: int
    extents: int


class _Solved(msgspec.Struct):
    volume: Volume
    on: dict[str, None]
    warnings: list[str]


def group(metadata: Metadata, present: Mapping[str, tuple[str, Volume]]) -> Group:
    """The group that the metadata describes. `present`: (id, volume) of the physical volumes found, by their LVM uuid."""
    made = Group(
        name=metadata.name if NAME.fullmatch(metadata.name) else "", uuid=printable(metadata.uuid, 64), size=0, members=[],
        missing=[], volumes=[], warnings=list(metadata.warnings),
    )  # fmt: skip
    try:
        if not made.name:
            raise Corrupt("a volume group's metadata cannot be read", "; ".join(metadata.warnings) or "it has no name")
        solver = _Solver(metadata.content, present, made)
        made.volumes = solver.shown()
    except RecoveryError as error:
        made.why = error
    return made


# -- values, checked --------------------------------------------------------------------------------------------------------------


def _int(section: Section, name: str, low: int, high: int) -> int:
    value = section.get(name)
    if not isinstance(value, int) or not low <= value <= high:
        raise Corrupt("a volume group's metadata says something impossible", f"{name} = {printable(value, 40)}")
    return value


def _list(section: Section, name: str) -> list[object]:
    value = section.get(name, [])
    return list(value) if isinstance(value, list) else [value]


def _sections(section: Section, name: str, most: int) -> dict[str, Section]:
    inside = section.get(name, {})
    found = {key: value for key, value in inside.items() if isinstance(value, dict)} if isinstance(inside, dict) else {}
    if len(found) > most:
        raise TooMuch(
            f"a volume group has more {name.replace('_', ' ')} than are read", f"{len(found)}, {most} at most"
        )
    return found


def _pairs(section: Section, name: str, count: int) -> list[tuple[str, int]]:
    flat = _list(section, name)
    pairs = [
        (where, at)
        for where, at in zip(flat[::2], flat[1::2], strict=False)
        if isinstance(where, str) and isinstance(at, int) and at >= 0
    ]
    if len(flat) != 2 * count or len(pairs) != count:
        raise Corrupt("a volume group's metadata says something impossible", f"{len(flat)} values for {count} {name}")
    return pairs


# -- solving ----------------------------------------------------------------------------------------------------------------------


class _Solver:
    def __init__(self, content: Section, present: Mapping[str, tuple[str, Volume]], made: Group) -> None:
        self._extent = _int(content, "extent_size", 1, 1 << 33) * SECTOR
        self._volumes = _sections(content, "logical_volumes", MOST_VOLUMES)
        self._disks: dict[str, _Disk] = {}
        self._segments_left = MOST_SEGMENTS
        self._solved: dict[str, _Solved | RecoveryError | None] = {}
        self._made = made
        for name, disk in _sections(content, "physical_volumes", MOST_DISKS).items():
            self._disks[name] = self._disk(disk, present)
            made.size += self._disks[name].extents * self._extent
        if "EXPORTED" in _list(content, "status"):
            made.warnings.append("the group was exported: it was on its way to another machine")

    def _disk(self, disk: Section, present: Mapping[str, tuple[str, Volume]]) -> _Disk:
        identity = printable(disk.get("id"), 64)
        start, extents = _int(disk, "pe_start", 0, 1 << 54) * SECTOR, _int(disk, "pe_count", 0, MOST_EXTENTS)
        size = disk.get("dev_size")
        size = size * SECTOR if isinstance(size, int) else "unknown"
        told = f"PV {identity}, {size} bytes, was {printable(disk.get('device'), 64)}"
        found = present.get(identity)
        why: RecoveryError | None = None
        if found is None:
            why = Missing("a disk of this volume group is not in this restore point", told)
        elif "MISSING" in _list(disk, "flags"):
            why = Missing(
                "a disk of this volume group was away while the group was in use, so what it holds is old", told,
                "the group needs `vgextend --restoremissing` on the machine; a later restore point may be whole",
            )  # fmt: skip
        if why is not None:
            self._made.missing.append(told)
        if found is not None:
            self._made.members.append(found[0])
        return _Disk(found[0] if found else told, found[1] if found and why is None else None, why, start, extents)

    def shown(self) -> list[LogicalVolume]:
        """What LVM shows, in the metadata's order; snapshots by the name that people know them by."""
        snapshots = self._snapshots()
        shown = []
        for name, volume in self._volumes.items():
            if not NAME.fullmatch(name):
                self._made.warnings.append("a logical volume has a name that none can have; it is left out")
            elif name in snapshots:
                shown.append(self._entry(name, snapshots[name]))
            elif "VISIBLE" in _list(volume, "status") and not self._is_snapshot(volume):
                shown.append(self._entry(name, volume))
        return shown

    def _is_snapshot(self, volume: Section) -> bool:
        return any(segment.get("type") == "snapshot" for segment in volume.values() if isinstance(segment, dict))

    def _snapshots(self) -> dict[str, Section]:
        """The volume that describes a snapshot, by the name of the one that holds its changes."""
        found: dict[str, Section] = {}
        for volume in self._volumes.values():
            for segment in volume.values():
                if isinstance(segment, dict) and segment.get("type") == "snapshot":
                    store = segment.get("cow_store", segment.get("merging_store"))
                    if isinstance(store, str):
                        found[store] = volume
                    if "merging_store" in segment and isinstance(origin := segment.get("origin"), str):
                        self._solved[origin] = Unsupported(
                            "a snapshot is being merged into this volume", printable(origin)
                        )
        return found

    def _entry(self, name: str, described: Section) -> LogicalVolume:
        made = LogicalVolume(
            name=name, uuid=printable(self._volumes[name].get("id"), 64), size=0, words="", on=list(self._made.members),
            volume=None, why=None, warnings=[],
        )  # fmt: skip
        try:
            segments = self._segments(described)
            made.size = sum(count for _, count, _ in segments) * self._extent
            made.words = ", ".join(dict.fromkeys(_words(segment) for _, _, segment in segments))[:200]
            if described is not self._volumes[name]:
                raise _unsupported("snapshot")
            solved = self._solve(name, 0)
            made.volume, made.on, made.warnings = solved.volume, list(solved.on), solved.warnings
        except RecoveryError as error:
            made.why = error
        return made

    def _segments(self, volume: Section) -> list[tuple[int, int, Section]]:
        """(first extent, extents, segment) in order, without gaps."""
        found = [
            (_int(segment, "start_extent", 0, MOST_EXTENTS), _int(segment, "extent_count", 1, MOST_EXTENTS), segment)
            for segment in volume.values()
            if isinstance(segment, dict) and "start_extent" in segment
        ]
        found.sort(key=lambda one: one[0])
        at = 0
        for start, count, _ in found:
            if start != at:
                raise Corrupt("the segments of a logical volume leave gaps or overlap", f"extent {start} after {at}")
            at += count
        if not found:
            raise Corrupt("a logical volume has no segments", printable(volume.get("id"), 64))
        return found

    def _solve(self, name: str, depth: int) -> _Solved:
        """The volume `name`, put together once. It is at most MOST_DEPTH deep, and never inside of itself."""
        known = self._solved.get(name, False)
        if isinstance(known, _Solved):
            return known
        if isinstance(known, RecoveryError):
            raise known
        if known is None or depth == MOST_DEPTH:
            raise TooMuch("a logical volume lies in itself, or too deep in others", printable(name))
        self._solved[name] = None
        try:
            solved: _Solved | RecoveryError = self._put_together(name, depth)
        except RecoveryError as error:
            solved = error
        self._solved[name] = solved
        if isinstance(solved, RecoveryError):
            raise solved
        return solved

    def _put_together(self, name: str, depth: int) -> _Solved:
        volume = self._volumes.get(name)
        if volume is None:
            raise Corrupt("a logical volume stands on something that is not in its group", printable(name))
        segments = self._segments(volume)
        self._segments_left -= len(segments)
        if self._segments_left < 0:
            raise TooMuch("a volume group has more segments than are read", f"{MOST_SEGMENTS} at most")
        made = _Solved(Concatenated([]), {}, [])
        parts = [self._segment(segment, count, depth, made) for _, count, segment in segments]
        made.volume = parts[0] if len(parts) == 1 else Concatenated(parts)
        return made

    def _segment(self, segment: Section, count: int, depth: int, made: _Solved) -> Volume:
        kind = segment.get("type")
        if kind in ("striped", "linear"):
            stripes = _int(segment, "stripe_count", 1, MOST_DISKS)
            areas = [
                self._area(name, at, self._share(count, stripes), depth, made)
                for name, at in _pairs(segment, "stripes", stripes)
            ]
            return areas[0] if stripes == 1 else self._striped(areas, segment)
        if kind in ("raid0", "raid0_meta"):
            images = [
                image
                for image in (_list(segment, "raid0_lvs") or _list(segment, "raids")[1::2])
                if isinstance(image, str)
            ]
            if len(images) != _int(segment, "stripe_count", 1, MOST_DISKS):
                raise Corrupt("a logical volume's stripes are not all named", f"{len(images)} names")
            share = self._share(count, len(images))
            return self._striped([self._area(image, 0, share, depth, made) for image in images], segment)
        if kind == "raid1":
            return self._raid1(segment, count, depth, made)
        if kind == "mirror":
            return self._mirror(segment, count, depth, made)
        raise _unsupported(str(kind))

    def _share(self, count: int, stripes: int) -> int:
        if count % stripes:
            raise Corrupt("a logical volume's extents cannot be shared by its stripes", f"{count} by {stripes}")
        return count // stripes

    def _striped(self, areas: list[Volume], segment: Section) -> Volume:
        return Striped(areas, _int(segment, "stripe_size", 1, 1 << 33) * SECTOR)

    def _area(self, name: str, first: int, count: int, depth: int, made: _Solved) -> Volume:
        """`count` extents from extent `first` of a disk, or of a volume inside."""
        disk = self._disks.get(name)
        start, size = first * self._extent, count * self._extent
        if disk is None:
            inner = self._solve(name, depth + 1)
            made.on.update(inner.on)
            made.warnings += [warning for warning in inner.warnings if warning not in made.warnings]
            return Window(inner.volume, start, size)
        if disk.volume is None:
            raise disk.why or Missing("a disk of this volume group is not in this restore point", disk.id)
        if first + count > disk.extents:
            raise Corrupt("a logical volume has extents that its disk has not", f"{first + count} of {disk.extents}")
        if disk.start + start + size > disk.volume.size:
            raise OutOfBounds(
                "the image of a disk of this volume group is cut",
                f"{disk.id}: byte {disk.start + start + size} is needed, it has {disk.volume.size}",
            )
        made.on[disk.id] = None
        return Window(disk.volume, disk.start + start, size)

    # -- mirrors --

    def _mirror(self, segment: Section, count: int, depth: int, made: _Solved) -> Volume:
        """The first copy that is here. Copies are written together; which is behind after a fault, only a log would tell."""
        copies = _pairs(segment, "mirrors", _int(segment, "mirror_count", 1, MOST_DISKS))
        failed: list[RecoveryError] = []
        for name, first in copies:
            try:
                area = self._area(name, first, count, depth, made)
            except RecoveryError as error:
                failed.append(error)
                continue
            if failed:
                made.warnings.append(f"{len(failed)} of {len(copies)} copies are not used: {_short(failed[0])}")
            return area
        raise failed[0]

    def _raid1(self, segment: Section, count: int, depth: int, made: _Solved) -> Volume:
        flat = _list(segment, "raids")
        names = [name for name in flat if isinstance(name, str)]
        if len(names) != len(flat) or len(names) != 2 * _int(segment, "device_count", 1, MOST_DISKS):
            raise Corrupt("the copies of a mirrored volume are not all named", f"{len(names)} names")
        states = [self._raid_state(meta, depth) for meta in names[::2]]
        newest = max((state.events for state in states if state), default=0)
        lost = 0  # a bit for each copy that one of the newest saw fail
        for state in states:
            if state and state.events == newest:
                lost |= state.failed
        reasons: list[RecoveryError] = []
        unknown: list[tuple[int, Volume]] = []
        chosen: Volume | None = None
        for leg, (image, state) in enumerate(zip(names[1::2], states, strict=True)):
            try:
                area = self._area(image, 0, count, depth, made)
                if lost >> leg & 1 or (state and state.events < newest):
                    raise Corrupt("a copy of a mirrored volume is older than the other", f"copy {leg}")
                if state and state.recovered < area.size:
                    raise Corrupt(
                        "a copy of a mirrored volume was not filled yet", f"copy {leg}, {state.recovered} bytes"
                    )
            except RecoveryError as error:
                reasons.append(error)
                continue
            if state is None:
                unknown.append((leg, area))
            elif chosen is None:
                chosen = area
        if chosen is None and unknown:
            chosen = unknown[0][1]
            made.warnings.append(f"which copies are whole is not known; copy {unknown[0][0]} of {len(states)} is read")
        if chosen is None:
            raise reasons[0]
        if reasons:
            made.warnings.append(f"{len(reasons)} of {len(states)} copies are not used: {_short(reasons[0])}")
        return chosen

    def _raid_state(self, meta: str, depth: int) -> _State | None:
        """What a copy's metadata volume says of it; None when it is not here or says nothing."""
        try:
            raw = self._solve(meta, depth + 1).volume.pread(0, SECTOR)
        except RecoveryError:
            return None
        if raw[:4] != RAID_MAGIC:
            return None
        recovered = int.from_bytes(raw[32:40], "little")
        return _State(int.from_bytes(raw[16:24], "little"), int.from_bytes(raw[24:32], "little"), recovered * SECTOR)


class _State(msgspec.Struct):
    """`failed`: a bit for each copy that this one saw fail. `recovered`: bytes up to which it was filled."""

    events: int
    failed: int
    recovered: int


def _words(segment: Section) -> str:
    kind = printable(segment.get("type"), 40)
    return "linear" if kind == "striped" and segment.get("stripe_count") == 1 else kind


def _short(error: RecoveryError) -> str:
    return f"{error.what}: {error.value}"


def _unsupported(kind: str) -> Unsupported:
    what = REASONS.get(kind, "RAID volumes of this level" if kind.startswith("raid") else "volumes of this type")
    return Unsupported(f"{what} are not read by this release", f"type {printable(kind, 40)}")
