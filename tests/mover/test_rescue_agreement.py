# SPDX-License-Identifier: Apache-2.0
"""packaging/rescue/rescue.py restores every kind of repository that we can write, byte for byte as we do.

It shares no code with us, so where the two agree docs/format.md is true. Its own behaviour (its messages, damage, bad input) is
tested in `tests/packaging/test_rescue.py`; here it only reads, in this process but for one run of the program itself.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mover.backup import Backup, BackupRequest
from mover.clock import SYSTEM
from mover.disk import vhd
from mover.disk.source import FileSource
from mover.disk.target import FileTarget
from mover.errors import Cancelled
from mover.progress import Progress
from mover.repository.collector_state import read_state
from mover.repository.names import COLLECTOR_STATE, METADATA_BIT, PackName, parse_pack
from mover.repository.repository import Repository
from mover.restore import Restore, RestoreSettings
from mover.store.local import LocalStore
from tests.golden.test_golden import FOLDER as GOLDEN
from tests.golden.test_golden import PASSWORD as GOLDEN_PASSWORD
from tests.golden.test_golden import TABLE, extract, fingerprint, open_golden
from tests.mover.wounds import MIB, PASSWORD, QUICK, Content, SparseDisk, back_up, block, noise

RESCUE = Path(__file__).parents[2] / "packaging" / "rescue" / "rescue.py"

pytestmark = pytest.mark.skipif(not RESCUE.exists(), reason="the rescue reader is not there yet")


def rescue_main() -> Callable[[list[str]], int]:
    spec = importlib.util.spec_from_file_location("rescue", RESCUE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    main: Callable[[list[str]], int] = module.main
    return main


class Place:
    """A repository in a folder, and both ways to read it."""

    def __init__(self, folder: Path, password: str | None) -> None:
        self.folder = folder / "repository"
        self.scratch = folder
        self.repository = Repository.create(LocalStore(self.folder), password=password)
        self.rescue = rescue_main()
        self.options: list[str] = []
        self.count = 0
        if password is not None:
            (folder / "password").write_text(password + "\n", encoding="utf-8")
            self.options = ["--password-file", str(folder / "password")]

    def ours(self, name: str, disk: int) -> bytes:
        path = self._fresh()
        point = self.repository.read_point(name)
        job = Restore(self.repository, point, RestoreSettings(), Progress(SYSTEM))
        target = FileTarget(str(path), job.disk(disk).size)
        job.run({disk: target})
        target.close()
        return sparse(path)

    def theirs(self, name: str, disk: int) -> bytes:
        path = self._fresh()
        arguments = ["restore", name, "--disk", str(disk), "--to", str(path)]
        assert self.rescue([str(self.folder), *arguments, *self.options]) == 0
        return sparse(path)

    def document(self, name: str) -> bytes:
        path = self._fresh()
        assert self.rescue([str(self.folder), "document", name, "--to", str(path), *self.options]) == 0
        return path.read_bytes()

    def points(self, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
        capsys.readouterr()
        assert self.rescue([str(self.folder), "points", "--json", *self.options]) == 0
        found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
        return found

    def agree(self, name: str, *disks: Content | bytes, sizes: tuple[int, ...]) -> None:
        """Both restore the point, and to what was backed up."""
        for number, (disk, size) in enumerate(zip(disks, sizes, strict=True)):
            expected = disk if isinstance(disk, bytes) else expand(disk, size)
            assert self.ours(name, number) == expected
            assert self.theirs(name, number) == expected

    def _fresh(self) -> Path:
        self.count += 1
        return self.scratch / f"out-{self.count}"


def expand(blocks: Content, size: int) -> bytes:
    """As `sparse` tells a file: the blocks that are not zero with their numbers, and the size."""
    return b"".join(number.to_bytes(8, "little") + blocks[number] for number in sorted(blocks)) + size.to_bytes(
        8, "little"
    )


def sparse(path: Path) -> bytes:
    size, at = path.stat().st_size, 0
    blocks: Content = {}
    with path.open("rb") as file:
        while at < size:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA) // MIB * MIB
            except OSError:
                break  # a hole until the end
            data = os.pread(file.fileno(), MIB, at)
            if any(data):
                blocks[at // MIB] = data
            at += MIB
    return expand(blocks, size)


@pytest.fixture(params=[None, PASSWORD, "na\u00efve p\u00e4ss"], ids=["clear", "sealed", "unicode"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(tmp_path, request.param)


SIZES = (5 * MIB + 5_000, 1_030 * MIB - 1, 3 * MIB)


def disks() -> list[SparseDisk]:
    """Odd sizes, two pages of which one is sparse, a disk of zeros, equal and incompressible blocks."""
    return [
        SparseDisk("system", SIZES[0], {0: block(1), 2: block(1), 3: noise(3), 5: noise(5, 5_000)}),
        SparseDisk("data", SIZES[1], {5: block(1), 6: block(6), 1_029: block(7, MIB - 1)}),
        SparseDisk("empty", SIZES[2], {}),
    ]


def test_several_disks_points_and_resources(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    sources = disks()
    first = back_up(place.repository, "one", *sources, document=b'{"vm": 1}')
    before = [dict(source.blocks) for source in sources]
    sources[0].blocks[3], sources[1].blocks[7] = block(8), block(9)
    del sources[1].blocks[5]
    second = back_up(place.repository, "two", *sources, document=noise(1, 70_000))
    other = SparseDisk("other", SIZES[2], {0: block(9), 1: noise(3)})
    third = back_up(place.repository, "three", other, resource="db")
    place.agree(first.point, *before, sizes=SIZES)
    place.agree(second.point, *(source.blocks for source in sources), sizes=SIZES)
    place.agree(third.point, other.blocks, sizes=SIZES[2:])
    assert (place.document(first.point), place.document(second.point)) == (b'{"vm": 1}', noise(1, 70_000))
    ours = list(place.repository.points())
    assert sorted(row["point"] for row in place.points(capsys)) == sorted(point.name for point in ours)
    told = {
        row["point"]: (row["resource_name"], [disk["name"] for disk in row["disks"]]) for row in place.points(capsys)
    }
    assert told == {point.name: (point.body.resource_name, [d.name for d in point.body.disks]) for point in ours}


def test_an_open_session_is_listed_by_neither(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    first = back_up(place.repository, "one", *disks())
    asked = iter(range(1_000))
    request = BackupRequest("vm", "two", disks())
    with pytest.raises(Cancelled):
        Backup(place.repository, request, QUICK, Progress(SYSTEM), lambda: next(asked) > 2).run()
    assert [row["point"] for row in place.points(capsys)] == [first.point]
    assert [point.name for point in place.repository.points()] == [first.point]


def test_a_fixed_vhd_and_a_sparse_raw_image(place: Place) -> None:
    """The VHD's disk is restored without its footer."""
    content = block(1) + bytes(MIB) + noise(2, 700 * 512)
    image = place.scratch / "disk.vhd"
    image.write_bytes(content + vhd.make_footer(len(content), uuid.UUID(int=7), 1_700_000_000))
    raw = place.scratch / "disk.raw"
    with raw.open("wb") as file:
        file.truncate(9 * MIB + 1)
        file.seek(4 * MIB + 77)
        file.write(b"in the middle")
    sources = [FileSource(str(image)), FileSource(str(raw))]
    assert [source.size for source in sources] == [len(content), 9 * MIB + 1]
    request = BackupRequest("vm", "one", sources)
    point = Backup(place.repository, request, QUICK, Progress(SYSTEM)).run().point
    (place.scratch / "content").write_bytes(content)
    expected = [sparse(place.scratch / "content"), sparse(raw)]
    place.agree(point, *expected, sizes=(len(content), 9 * MIB + 1))


def test_packs_that_were_moved(place: Place) -> None:
    """Both follow forwards, of data and metadata, when the pack is gone and when it is damaged."""
    sources = disks()
    point = back_up(place.repository, "one", *sources).point
    store = place.repository.store
    forwards = {}
    for number, entry in enumerate(list(store.list("packs/"))):
        old = parse_pack(entry.name.removeprefix("packs/"))
        middle, new = (PackName(b"\xee" * 48, (2 * number + k) | (old.number & METADATA_BIT)) for k in range(2))
        data = bytes(store.read_all(entry.name))
        store.put(new.object, [data])
        store.delete(entry.name)
        forwards |= {old: (middle,), middle: (new,)}
        if not old.is_metadata:
            store.put(entry.name, [data[:50] + bytes(len(data) - 50)])
    found = store.read_record(COLLECTOR_STATE)
    state = read_state(store)
    moved = dataclasses.replace(state, write_id="ab" * 16, forwards=forwards)
    store.replace_record(COLLECTOR_STATE, moved.encode(), found.metadata, etag=found.etag, lease=None)
    place.agree(point, *(source.blocks for source in sources), sizes=SIZES)


def test_the_program_itself_on_downloaded_blobs(tmp_path: Path) -> None:
    """A copy without the local store's first lines, as a download from Azure is; run as a person runs it."""
    place = Place(tmp_path, PASSWORD)
    sources = disks()
    point = back_up(place.repository, "one", *sources).point
    copy = tmp_path / "downloaded"
    store = place.repository.store
    for entry in store.list(""):
        is_record = entry.name.startswith(("points/", "holds/", "repository.json")) or entry.name == COLLECTOR_STATE
        data = store.read_record(entry.name).data if is_record else store.read_all(entry.name)
        (copy / entry.name).parent.mkdir(parents=True, exist_ok=True)
        (copy / entry.name).write_bytes(data)
    command = [
        sys.executable,
        RESCUE,
        copy,
        "restore",
        point.rsplit("/", 1)[1][:8],
        "--disk",
        "0",
        "--to",
        tmp_path / "out",
    ]
    done = subprocess.run([*command, *place.options], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert sparse(tmp_path / "out") == expand(sources[0].blocks, SIZES[0])


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row.open is None])
def test_golden_repositories(name: str, tmp_path: Path) -> None:
    """What is whole in them is restored by the rescue reader too, what is not is told and never given a name."""
    row = TABLE[name]
    folder = extract((GOLDEN / f"{name}.tar.gz").read_bytes(), tmp_path / "repository")
    (tmp_path / "password").write_text(GOLDEN_PASSWORD, encoding="utf-8")
    options = ["--password-file", str(tmp_path / "password")] if row.password else []
    repository = open_golden(folder, row.password)
    rescue = rescue_main()
    for (resource, job), outcomes in row.points.items():
        point = f"points/{repository.keys.resource_id(resource)}/{repository.keys.point_id(job)}"
        for disk, outcome in enumerate(outcomes):
            path = tmp_path / f"{resource}-{job}-{disk}"
            code = rescue([str(folder), "restore", point, "--disk", str(disk), "--to", str(path), *options])
            assert (code == 0, path.exists()) == ((True, True) if isinstance(outcome, str) else (False, False))
            assert not isinstance(outcome, str) or fingerprint(path) == outcome
