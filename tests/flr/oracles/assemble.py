# SPDX-License-Identifier: Apache-2.0
"""A process that lets one oracle put a volume or an array together: `python -m tests.flr.oracles.assemble ORACLE NAME FILE...`

NAME is GROUP/VOLUME for LVM, without a slash for md; the files are the members. It prints the size and the SHA-256 of the whole,
or why not. It runs in the oracles' own environment, within limits.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import resource
import sys
from collections.abc import Callable, Sequence
from typing import Any

from tests.flr.corpus.truth import PIECE
from tests.flr.oracles.tell import MEMORY, SECONDS, problem

LARGEST = 1 << 30
"""Bytes; no volume of the corpus has more than 64 MiB."""


def libyal(name: str, members: Sequence[str]) -> tuple[int, Callable[[int], bytes]]:
    library = importlib.import_module("pyvslvm")
    handle = library.handle()
    handle.open(members[0])
    handle.open_physical_volume_files(list(members))
    for volume in handle.get_volume_group().logical_volumes:
        if volume.name == name.split("/")[1]:
            return volume.size, volume.read_buffer
    raise KeyError(f"no volume {name}")


def dissect(name: str, members: Sequence[str]) -> tuple[int, Callable[[int], bytes]]:
    files: list[Any] = [open(member, "rb") for member in members]  # noqa: SIM115 - read until the process ends
    if "/" in name:
        group = importlib.import_module("dissect.volume.lvm").LVM2(files).vg
        stream = next(lv for lv in group.lv if lv.name == name.split("/")[1]).open()
        return stream.size, stream.read
    array = importlib.import_module("dissect.volume.md").MD(files)
    disk = array.configurations[0].virtual_disks[0]
    return disk.size, disk.open().read


def main() -> None:
    oracle, name, *members = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    digest = hashlib.sha256()
    try:
        size, read = {"libyal": libyal, "dissect": dissect}[oracle](name, members)
        left = min(size, LARGEST)
        while left and (data := read(min(PIECE, left))):
            digest.update(data)
            left -= len(data)
        print(json.dumps({"size": size, "sha256": digest.hexdigest(), "why_not": ""}))
    except Exception as error:
        print(json.dumps({"size": 0, "sha256": "", "why_not": problem(error)}))


if __name__ == "__main__":
    main()
