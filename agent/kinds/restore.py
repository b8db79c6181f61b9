# SPDX-License-Identifier: Apache-2.0
"""`restore` of a disk to a file or device, or of all disks of a VM into a folder, with its configuration document."""

from __future__ import annotations

import os
from dataclasses import asdict

from agent.document import NAME, Document
from agent.kinds.work import Work
from agent.protocol import RestorePayload
from mover.disk.target import PARTIAL, FileTarget
from mover.errors import TargetError, UsageError
from mover.repository.repository import Point, Repository
from mover.restore import Restore, RestoreSettings

DOCUMENT_IN_RESULT = 24 * 1024
"""Bytes of a document that travels in the result itself; a larger one needs `document`, the path of a file."""


def run(work: Work, payload: RestorePayload) -> None:
    repository = work.repository(payload.repository).repository
    point = repository.find_point(payload.point)
    work.outcome.point = point.id
    targets = {payload.disk: payload.to} if payload.what == "disk" else _targets(point, payload.to, payload.format)
    if payload.document is not None and any(_collide(payload.document, path) for path in targets.values()):
        raise UsageError("the document's file is a disk's", payload.document, "name another file for it")
    document = Document.of(repository, point, payload.document) if payload.document is not None else None
    totals: dict[str, float] = {}
    for number, path in targets.items():
        for name, value in _restore(work, payload, repository, point, number, path).items():
            totals[name] = totals.get(name, 0.0) + value
    if document is not None:
        document.write()
    work.outcome.statistics = totals
    if payload.what == "vm":
        work.outcome.details = {f"disk {number}": path for number, path in targets.items()}
        if document is None and NAME in point.header.documents:
            data = repository.read_document(point, NAME)
            if len(data) <= DOCUMENT_IN_RESULT:
                work.outcome.document = data
            else:
                work.outcome.notes.append("the configuration document is too large for a result: name a file for it")


def _restore(
    work: Work, payload: RestorePayload, repository: Repository, point: Point, number: int, path: str
) -> dict[str, float]:
    limits = RestoreSettings(verify=payload.verify)
    restore = Restore(repository, point, number, limits, work.reporter.progress, work.cancelled)
    target = FileTarget(path, restore.size, in_place=payload.in_place, as_vhd=payload.format == "vhd")
    try:
        result = restore.run(target)
        if target.existed:
            work.reporter.say(f"{path} was there already and holds the disk, byte for byte")
    finally:
        target.close()
    figures = asdict(result)
    work.outcome.notes += figures.pop("notes")
    return {name: float(value) for name, value in figures.items()}


def _targets(point: Point, folder: str, form: str) -> dict[int, str]:
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
