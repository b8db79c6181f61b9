# SPDX-License-Identifier: Apache-2.0
"""LVM volumes and md arrays by ours and by the oracles, beside what the kernel read: size, and SHA-256 of the whole.

The oracles get the members as files, cut out of the disks by our own tables; what is compared is the putting together.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from flr.errors import RecoveryError
from flr.volumes.find import Entry, Found, find
from tests.flr.corpus import arrays
from tests.flr.volumes.disks import digest, files
from tests.flr.volumes.test_arrays import DISKS as ARRAY_DISKS
from tests.flr.volumes.test_groups import DISKS as GROUP_DISKS

ROOT = Path(__file__).parents[3]
ORACLES = ("libyal", "dissect")
NAMELESS = {"one090": ["0p4", "1p4"], "old": ["3", "4"]}
"""Arrays with metadata 0.90, by what they stand on."""
SECONDS = 120


class Assembled(msgspec.Struct):
    size: int
    sha256: str
    why_not: str


class Row(msgspec.Struct):
    name: str
    size: int
    ours: str
    cells: dict[str, str]
    reasons: dict[str, str]


def rows(python: str) -> Iterator[Row]:
    for made, disks in ((arrays.groups(), GROUP_DISKS), (arrays.arrays(), ARRAY_DISKS)):
        found = find(files(made.disk, *disks))
        for name, known in made.truth.items():
            entry = entry_of(found, name)
            row = Row(name, known.size, ours(found, entry, known), {}, {})
            with tempfile.TemporaryDirectory() as place:
                members = written(found, entry, Path(place))
                for oracle in ORACLES:
                    if oracle == "libyal" and "/" not in name:
                        row.cells[oracle] = "-"  # it has none for md
                        continue
                    told = asked(oracle, name, members, python)
                    row.cells[oracle] = "does not open" if told.why_not else judged(told.size, told.sha256, known)
                    if told.why_not:
                        row.reasons[oracle] = told.why_not
            yield row


def entry_of(found: Found, name: str) -> Entry:
    if name in NAMELESS:
        return next(entry for entry in found.entries if entry.on == NAMELESS[name])
    return found.entry(name if "/" in name else f"md:made:{name}")


def ours(found: Found, entry: Entry, known: arrays.Known) -> str:
    try:
        volume = found.raw(entry.id)
    except RecoveryError as error:
        return error.what
    return judged(volume.size, digest(volume), known)


def judged(size: int, sha256: str, known: arrays.Known) -> str:
    if size != known.size:
        return f"wrong size: {size}"
    return "equal" if sha256 == known.sha256 else "wrong bytes"


def written(found: Found, entry: Entry, place: Path) -> list[Path]:
    """The members of its group, or its own, as files in their order."""
    home = f"vg:{entry.id.split('/')[0]}" if entry.kind == "volume" else entry.id
    paths = []
    for member in (member for member in found.entries if member.part_of == home):
        volume = found.raw(member.id)
        paths.append(place / str(len(paths)))
        paths[-1].write_bytes(volume.pread(0, volume.size))
    return paths


def asked(oracle: str, name: str, members: list[Path], python: str) -> Assembled:
    command = [python, "-m", "tests.flr.oracles.assemble", oracle, name, *map(str, members)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return Assembled(0, "", f"no answer within {SECONDS} s")
    if done.returncode:  # of memory, of processor time, by a fault of C
        return Assembled(0, "", f"its process ended with {done.returncode}")
    return msgspec.json.decode(done.stdout, type=Assembled)
