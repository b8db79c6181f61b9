# SPDX-License-Identifier: Apache-2.0
"""Repositories that were made once and must be read for ever: healthy ones, and broken ones named by their wound.

`TABLE` says what opening, listing and restoring yield. Disks of a point are told by a fingerprint of what is restored, so
nothing here leans on today's writer. `make_golden.py` says what each repository is.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mover.clock import SYSTEM
from mover.disk.target import FileTarget
from mover.errors import Damaged, MissingObject, MoverError, PointNotFound, UnsupportedFormat, WrongPassword
from mover.progress import Progress
from mover.repository.repository import Point, Repository
from mover.restore import Restore, RestoreSettings
from mover.store.local import LocalStore
from tests.golden import make_golden
from tests.golden.make_golden import back_up, first

FOLDER = Path(__file__).parent
PASSWORD = "golden days are kept"
MIB = 1 << 20
DOCUMENT = b'{"vm": "golden"}'

SYSTEM_1 = "4f07c63f37021de24ee347e682857a7fa4e5d3fa50ed68e43aeff8ec83955f73"
SYSTEM_2 = "8e1dbc0f555ab000e4a6bb993e3ec6be2fdd63198d12ed9899274fdfa3119b67"
DATA = "00990f78e197ac6ad2e48a2e3cc6bb149f6c229c6d230a95c738c9a0e724c8cd"

Outcome = str | type[MoverError]
"""A disk's fingerprint, or the error."""
ONE: tuple[Outcome, ...] = (SYSTEM_1, DATA)
TWO: tuple[Outcome, ...] = (SYSTEM_2, DATA)


@dataclass(frozen=True)
class Expected:
    """`points`: (resource, job) of the listing and what its disks restore to; an error: that the listing raises.
    `says`: what every error's text names."""

    points: dict[tuple[str, str], tuple[Outcome, ...]] = field(default_factory=dict)
    open: type[MoverError] | None = None
    listing: type[MoverError] | None = None
    says: str = ""
    password: str | None = PASSWORD


HEALTHY: dict[tuple[str, str], tuple[Outcome, ...]] = {("vm", "one"): ONE, ("vm", "two"): TWO}
TABLE = {
    "v1-healthy-clear": Expected(HEALTHY, password=None),
    "v1-healthy-password": Expected(HEALTHY),
    "v1-missing-pack": Expected({("vm", "one"): ONE, ("vm", "two"): (MissingObject, DATA)}, says="packs/"),
    "v1-truncated-pack": Expected(
        {("vm", "one"): (Damaged, Damaged), ("vm", "two"): (Damaged, Damaged)}, says="packs/"
    ),
    "v1-lying-index": Expected(HEALTHY | {("victim", "three"): (Damaged,)}, says="packs/"),
    "v1-duplicate-chunk": Expected(HEALTHY | {("twin", "three"): (SYSTEM_1,)}),
    "v1-orphan-session": Expected(HEALTHY),
    "v1-quarantined-forward": Expected(HEALTHY),
    "v1-unknown-feature": Expected(open=UnsupportedFormat, says="repository.json"),
    "v1-unknown-feature-point": Expected(
        {("vm", "one"): ONE, ("vm", "two"): (UnsupportedFormat,)}, listing=UnsupportedFormat, says="points/"
    ),
}


def extract(archive: bytes, folder: Path) -> Path:
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        for member in tar:
            content = tar.extractfile(member)
            assert content is not None
            path = folder / member.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.read())
    return folder


def open_golden(folder: Path, password: str | None) -> Repository:
    return Repository.open(LocalStore(folder), password=password)


def fingerprint(path: Path) -> str:
    """SHA-256 over number (8 bytes) and content of each block of 1 MiB that is not zero, then over the size."""
    digest, size, at = hashlib.sha256(), path.stat().st_size, 0
    with path.open("rb") as file:
        while at < size:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA) // MIB * MIB
            except OSError:
                break  # a hole until the end
            data = os.pread(file.fileno(), MIB, at)
            if any(data):
                digest.update((at // MIB).to_bytes(8, "little") + data)
            at += MIB
    digest.update(size.to_bytes(8, "little"))
    return digest.hexdigest()


def restored(repository: Repository, point: Point, disk: int, path: Path) -> str:
    job = Restore(repository, point, RestoreSettings(), Progress(SYSTEM))
    target = FileTarget(str(path), job.disk(disk).size)
    try:
        job.run({disk: target})
    finally:
        target.close()
    return fingerprint(path)


def check(folder: Path, expected: Expected, to: Path) -> None:
    if expected.open is not None:
        with pytest.raises(expected.open, match=expected.says):
            open_golden(folder, expected.password)
        return
    repository = open_golden(folder, expected.password)
    named = {
        f"points/{repository.keys.resource_id(resource)}/{repository.keys.point_id(job)}": (resource, job)
        for resource, job in expected.points
    }
    if expected.listing is not None:
        with pytest.raises(expected.listing, match=expected.says):
            list(repository.points())
    else:
        assert {point.name for point in repository.points()} == set(named)
    for name, key in named.items():
        for disk, outcome in enumerate(expected.points[key]):
            path = to / f"{'-'.join(key)}-{disk}"
            if isinstance(outcome, str):
                assert restored(repository, repository.read_point(name), disk, path) == outcome, (key, disk)
                continue
            with pytest.raises(outcome, match=expected.says):
                restored(repository, repository.read_point(name), disk, path)
            assert not path.exists()
    repository.store.close()


@pytest.mark.parametrize("name", TABLE)
def test_golden_repository(name: str, tmp_path: Path) -> None:
    folder = extract((FOLDER / f"{name}.tar.gz").read_bytes(), tmp_path / "repository")
    check(folder, TABLE[name], tmp_path)


def test_what_is_made_today_is_as_the_table_says(tmp_path: Path) -> None:
    """The script still runs; its archives are not compared with the kept ones byte for byte."""
    for name in ("v1-truncated-pack", "v1-lying-index", "v1-quarantined-forward", "v1-unknown-feature-point"):
        folder = extract(make_golden.make(name), tmp_path / name / "repository")
        check(folder, TABLE[name], tmp_path / name)


def test_the_table_is_whole() -> None:
    assert set(TABLE) == set(make_golden.REPOSITORIES)
    kept = {path.name.removesuffix(".tar.gz"): path.stat().st_size for path in FOLDER.glob("*.tar.gz")}
    assert set(kept) == set(TABLE)
    assert sum(kept.values()) < 300_000


def test_the_password_is_the_documented_one(tmp_path: Path) -> None:
    folder = extract((FOLDER / "v1-healthy-password.tar.gz").read_bytes(), tmp_path)
    with pytest.raises(WrongPassword):
        open_golden(folder, "another")
    repository = open_golden(folder, PASSWORD)
    assert {repository.read_document(point, "configuration") for point in repository.points()} == {DOCUMENT}


def test_an_orphaned_session_is_no_point_and_is_resumed_by_its_job(tmp_path: Path) -> None:
    folder = extract((FOLDER / "v1-orphan-session.tar.gz").read_bytes(), tmp_path)
    repository = open_golden(folder, PASSWORD)
    name = f"points/{repository.keys.resource_id('vm')}/{repository.keys.point_id('orphan')}"
    with pytest.raises(PointNotFound, match=name):
        repository.read_point(name)
    result = back_up(repository, "orphan", first())
    assert (result.point, result.resumed) == (name, True)
    assert restored(repository, repository.read_point(name), 0, tmp_path / "out") == SYSTEM_1


@pytest.mark.parametrize(
    "name", ["v1-healthy-clear", "v1-healthy-password", "v1-duplicate-chunk", "v1-quarantined-forward"]
)
def test_a_golden_repository_takes_new_points(name: str, tmp_path: Path) -> None:
    folder = extract((FOLDER / f"{name}.tar.gz").read_bytes(), tmp_path / "repository")
    repository = open_golden(folder, TABLE[name].password)
    result = back_up(repository, "new", first())
    assert result.parent is not None
    assert restored(repository, repository.read_point(result.point), 0, tmp_path / "out") == SYSTEM_1
