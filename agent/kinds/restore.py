# SPDX-License-Identifier: Apache-2.0
"""`restore` of a disk to a file, a device or a page blob; or of all disks of a VM, with its configuration document."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING

from agent.document import NAME, Document
from agent.kinds.work import Work
from agent.protocol import RestorePayload, Secret
from mover.disk.target import PARTIAL, FileTarget
from mover.errors import TargetError, UsageError
from mover.repository.repository import Point
from mover.restore import Restore, RestoreSettings

if TYPE_CHECKING:
    from mover.disk.page_target import PageBlobTarget

DOCUMENT_IN_RESULT = 24 * 1024
"""Bytes of a document that travels in the result itself; a larger one needs `document`, the path of a file."""

Place = str | Secret
"""A file's or device's path, or where a page blob's URL is."""


def run(work: Work, payload: RestorePayload) -> None:
    repository = work.repository(payload.repository).repository
    point = repository.find_point(payload.point)
    work.outcome.point = point.id
    places = _places(point, payload)
    paths = [place for place in places.values() if isinstance(place, str)]
    if payload.document is not None and any(_collide(payload.document, path) for path in paths):
        raise UsageError("the document's file is a disk's", payload.document, "name another file for it")
    restore = Restore(repository, point, RestoreSettings(verify=payload.verify), work.reporter.progress, work.cancelled)
    sizes = {number: restore.disk(number).size for number in places}
    _look(work, payload, [(place, sizes[number]) for number, place in places.items() if not isinstance(place, str)])
    if payload.dry_run:
        work.outcome.statistics = _plan(work, restore, places)
        return
    document = Document.of(repository, point, payload.document) if payload.document is not None else None
    _restore(work, payload, restore, places, sizes)
    if document is not None:
        document.write()
    elif payload.what == "vm" and NAME in point.header.documents:
        data = repository.read_document(point, NAME)
        if len(data) <= DOCUMENT_IN_RESULT:
            work.outcome.document = data
        else:
            work.outcome.notes.append("the configuration document is too large for a result: name a file for it")


def _look(work: Work, payload: RestorePayload, urls: list[tuple[Secret, int]]) -> None:
    """Whether each can be a target: a bad SAS of the last disk is told before the first one has taken its hours."""
    seen: set[str] = set()
    for url, size in urls:
        from mover.disk import page_target

        blob = work.page_blob(url)
        try:
            if blob.where in seen:
                raise UsageError("two disks have the same target", blob.where, "name a blob for each")
            seen.add(blob.where)
            page_target.look(blob, size, in_place=payload.in_place, as_vhd=payload.format == "vhd")
        finally:
            blob.close()


def _restore(
    work: Work, payload: RestorePayload, restore: Restore, places: Mapping[int, Place], sizes: Mapping[int, int]
) -> None:
    with ExitStack() as opened:
        targets: dict[int, FileTarget | PageBlobTarget] = {}
        for number, place in places.items():
            targets[number] = _open(work, payload, sizes[number], place)
            opened.callback(targets[number].close)
        results = restore.run(targets)
        totals = Counter[str]()
        for number, target in targets.items():
            if target.existed:
                work.reporter.say(f"{target.path} was there already and holds the disk, byte for byte")
            if payload.what == "vm":
                work.outcome.details[f"disk {number}"] = target.path
            totals.update(asdict(results[number]))
            if not isinstance(target, FileTarget):
                totals["target_requests"] += target.blob.requests
    work.outcome.notes += restore.notes
    work.outcome.statistics = {name: float(value) for name, value in totals.items()}


def _open(work: Work, payload: RestorePayload, size: int, place: Place) -> FileTarget | PageBlobTarget:
    as_vhd = payload.format == "vhd"
    if isinstance(place, str):
        return FileTarget(place, size, in_place=payload.in_place, as_vhd=as_vhd)
    from mover.disk.page_target import PageBlobTarget  # a local disk does not pay for Azure's modules

    return PageBlobTarget(work.page_blob(place), size, in_place=payload.in_place, as_vhd=as_vhd)


def _plan(work: Work, restore: Restore, places: Mapping[int, Place]) -> dict[str, float]:
    """Of all disks: fetching is one after the other on this machine, while each page blob has limits of its own."""
    from mover.restore_plan import plan

    kind: type[FileTarget] | type[PageBlobTarget] = FileTarget
    limits = (0.0, 0.0)
    if not all(isinstance(place, str) for place in places.values()):
        from mover.disk.page_target import BYTES_A_SECOND, CALLS_A_SECOND, PageBlobTarget

        kind, limits = PageBlobTarget, (BYTES_A_SECOND, CALLS_A_SECOND)
    plans = [plan(restore, number, work.reporter.progress, kind.at_once, kind.most) for number in places]
    totals = Counter[str]()
    for one in plans:
        totals.update(asdict(one))
    del totals["rate"]
    fetching = sum(one.fetch_seconds() for one in plans)
    seconds = max(fetching, *(one.write_seconds(*limits) for one in plans))
    return {name: float(value) for name, value in totals.items()} | {"fetch_seconds": fetching, "seconds": seconds}


def _places(point: Point, payload: RestorePayload) -> Mapping[int, Place]:
    """Where each disk goes, by its number."""
    if payload.what == "disk":
        place = payload.url if payload.to is None else payload.to
        return {payload.disk: place} if place is not None else {}
    return _targets(point, payload) if payload.to is None else _files(point, payload.to, payload.format)


def _targets(point: Point, payload: RestorePayload) -> dict[int, Secret]:
    names = [disk.name for disk in point.body.disks]
    found: dict[int, Secret] = {}
    for target in payload.targets:
        number = _number(names, target.disk)
        if number in found:
            raise UsageError("a disk has two targets", names[number])
        found[number] = target.url
    missing = [name for number, name in enumerate(names) if number not in found]
    if missing:
        raise UsageError("a disk of the VM has no target", ", ".join(missing), "name one for each, or restore one disk")
    return dict(sorted(found.items()))


def _number(names: list[str], disk: int | str) -> int:
    """Of a disk by its number or name; UsageError when the same text is the one of one disk and the other of another."""
    number = int(disk) if isinstance(disk, int) or (disk.isascii() and disk.isdecimal()) else -1
    if isinstance(disk, str) and disk in names:
        named = names.index(disk)
        if 0 <= number < len(names) and number != named:
            hint = f"restore one disk after the other: --disk {named}"
            raise UsageError("a disk's name is another one's number", disk, hint)
        return named
    if not 0 <= number < len(names):
        raise UsageError("the restore point has no such disk", disk, f"it has: {', '.join(names)}")
    return number


def _files(point: Point, folder: str, form: str) -> dict[int, str]:
    """A file for each disk, under its name; a name is a person's word, and none may lead out of the folder."""
    if not os.path.isdir(folder):
        raise TargetError("the folder for the disks of a VM is not there", folder, "make it, or name another one")
    found: dict[int, str] = {}
    for number, disk in enumerate(point.body.disks):
        name = "".join(c if c.isalnum() or c in "._- " else "_" for c in disk.name).strip(". ") or f"disk-{number}"
        if form == "vhd" and not name.endswith(".vhd"):
            name += ".vhd"
        path = os.path.join(folder, name)
        while any(_collide(path, other) for other in found.values()):
            name = f"{number}-{name}"
            path = os.path.join(folder, name)
        found[number] = path
    return found


def _collide(one: str, other: str) -> bool:
    """Whether two files are the same, or one of them what the other is called while it is written."""
    first, second = os.path.normpath(one), os.path.normpath(other)
    return first == second or first + PARTIAL == second or second + PARTIAL == first
