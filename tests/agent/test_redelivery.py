# SPDX-License-Identifier: Apache-2.0
"""A command whose work was done, or half of it, comes again: what it left is found, and nothing else is taken for it."""

from __future__ import annotations

import gzip
import itertools
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from agent import bundle
from agent.files import is_free, write_new
from agent.jobs import HeldJob
from agent.protocol import BackupPayload, Command, Disk, RepositoryReference, RestorePayload, encode
from mover.disk_restore import DiskRestore
from mover.errors import StoreFull, TargetError
from tests.agent.conftest import MIB, Place, write_image
from tests.agent.rig import Rig


class Death(BaseException):
    """Of a worker."""


def die(*_: object, **__: object) -> None:
    raise Death


def backed_up(place: Place, rig: Rig) -> str:
    """A point of a VM of two disks, with a document."""
    write_image(place.folder / "data.img", MIB + 512, seed=2)
    payload = BackupPayload(
        what="vm",
        repository=RepositoryReference(url=place.url),
        resource="vm1",
        disks=(Disk(path=str(place.image)), Disk(path=str(place.folder / "data.img"))),
        document=b"{}",
    )
    rig.appliance.issue("backup", payload, job="b")
    assert rig.worker().serve("w", once=True) == 0
    (done,) = rig.results()
    assert done.point is not None
    return done.point


def restore_of(place: Place, point: str, what: str, form: str) -> RestorePayload:
    to = place.folder / "to"
    to.mkdir()
    return RestorePayload(
        what=what,  # type: ignore[arg-type]
        repository=RepositoryReference(url=place.url),
        point=point,
        to=str(to if what == "vm" else to / "disk"),
        format=form,  # type: ignore[arg-type]
        document=str(to / "vm.json"),
    )


def lapse(rig: Rig, sent: Command) -> None:
    """As time would after a worker's death: its lease is gone, its message shows again."""
    for entry in list(rig.state.list("jobs/")):
        rig.state.break_lease(entry.name)
    rig.service.queue(rig.names.commands).put(encode(sent))


@pytest.mark.parametrize("form", ["raw", "vhd"])
@pytest.mark.parametrize("what", ["disk", "vm"])
def test_a_restore_that_had_finished_when_its_worker_died(
    place: Place, rig: Rig, monkeypatch: pytest.MonkeyPatch, what: str, form: str
) -> None:
    payload = restore_of(place, backed_up(place, rig), what, form)
    sent = rig.appliance.issue("restore", payload, job="r")
    with monkeypatch.context() as patch:
        patch.setattr(HeldJob, "end", die)
        with pytest.raises(Death):
            rig.worker().serve("w", once=True)
    before = {path.name: (path.stat().st_ino, path.read_bytes()) for path in (place.folder / "to").iterdir()}
    assert len(before) == (3 if what == "vm" else 2)
    lapse(rig, sent)
    assert rig.worker("w2").serve("w", once=True) == 0
    (again,) = rig.results()
    assert (again.status, again.statistics["written"]) == ("success", 0)
    assert {path.name: (path.stat().st_ino, path.read_bytes()) for path in (place.folder / "to").iterdir()} == before


def test_a_vm_of_which_some_disks_were_restored_when_the_disk_was_full(
    place: Place, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    payload = restore_of(place, backed_up(place, rig), "vm", "raw")
    tasks = DiskRestore.tasks

    def full(restore: DiskRestore, target: Any) -> Any:
        if restore.size < 2 * MIB:
            raise StoreFull("the disk is full", "x")
        return tasks(restore, target)

    with monkeypatch.context() as patch:
        patch.setattr(DiskRestore, "tasks", full)
        rig.appliance.issue("restore", payload, job="r")
        assert rig.worker().serve("w", once=True) == 7
    rig.appliance.issue("restore", payload, job="r")
    assert rig.worker().serve("w", once=True) == 0
    to = place.folder / "to"
    assert (to / "disk.img").read_bytes() == place.image.read_bytes()
    assert (to / "data.img").read_bytes() == (place.folder / "data.img").read_bytes()
    assert (to / "vm.json").read_bytes() == b"{}"


@pytest.mark.parametrize("change", ["byte", "hole", "shorter", "longer"])
@pytest.mark.parametrize("form", ["raw", "vhd"])
def test_a_file_that_is_not_the_disk_stays_as_it_is(place: Place, form: str, change: str) -> None:
    place.repo()
    place.back_up()
    target = place.folder / "x"
    words = ("restore", "--point", place.point(), "--to", target, "--format", form)
    place.dm(*words)
    place.dm(*words)  # the same again
    with target.open("r+b") as file:
        if change == "shorter":
            file.truncate(target.stat().st_size - 512)
        elif change == "longer":
            file.truncate(target.stat().st_size + 512)
        else:
            file.seek(place.image.stat().st_size // 2 if change == "hole" else 4096)
            file.write(b"another's")
    before = target.read_bytes()
    said = place.dm(*words, code=1)
    assert said.error[0] == "the target exists and is not this disk"
    assert target.read_bytes() == before
    assert sorted(path.name for path in place.folder.glob("x*")) == ["x"]


def test_a_vhd_without_its_footer_is_not_the_disk(place: Place) -> None:
    place.repo()
    place.back_up()
    target = place.folder / "x"
    words = ("restore", "--point", place.point(), "--to", target, "--format", "vhd")
    place.dm(*words)
    with target.open("r+b") as file:
        file.seek(-512, os.SEEK_END)
        file.write(bytes(512))
    assert "does not end as a fixed VHD" in place.dm(*words, code=1).error[1]


def test_a_document_s_file_is_another_s_unless_it_holds_the_document(place: Place) -> None:
    place.repo()
    document, copy = place.folder / "vm.json", place.folder / "copy.json"
    document.write_bytes(b"{}")
    place.back_up("--config-document", document)
    words = ("restore", "--point", place.point(), "--to", place.folder / "x", "--document", copy)
    for text in (b"", b"{", b"{}\n"):
        copy.write_bytes(text)
        assert "exists" in place.dm(*words, code=1).error[0]
        assert copy.read_bytes() == text
    copy.unlink()
    os.mkfifo(copy)
    place.dm(*words, code=1)
    assert not (place.folder / "x").exists()


def test_a_bundle_is_known_by_its_command(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    with path.open("wb") as file:
        bundle.write(
            file,
            configuration={},
            state={},
            command="c1",
            log_lines=[],
            redact=bytes,
            now=0,
            journal=lambda: None,
        )
    whole = path.read_bytes()
    for data, command, expected in (
        (whole, "c1", True),
        (whole, "c", False),
        (whole, "c12", False),
        (b"", "c1", False),
        (b"another's", "c1", False),
    ):
        path.write_bytes(data)
        with path.open("rb") as file:
            assert bundle.is_of(file, command) is expected


def test_a_bundle_is_looked_for_in_a_few_kib(tmp_path: Path) -> None:
    """Whatever file is there: a bomb, a tar of other things, a pipe's worth of zeros."""
    path = tmp_path / "x"
    for data in (gzip.compress(bytes(64 * MIB)), gzip.compress(b"support/command.txt"), bytes(MIB), b"\x1f\x8b"):
        path.write_bytes(data)
        with path.open("rb") as file:
            assert not bundle.is_of(file, "c1")
            assert file.tell() <= MIB


# -- files that appear whole, and never in place of another ---------------------------------------------------------


def test_of_two_writers_of_one_name_one_succeeds_with_its_own_bytes(tmp_path: Path) -> None:
    path = str(tmp_path / "vm.json")
    gate = threading.Barrier(8)

    def write(number: int) -> bytes | None:
        data = bytes([number]) * MIB
        gate.wait()
        try:
            write_new(path, data, "the document")
        except TargetError:
            return None
        return data

    with ThreadPoolExecutor(8) as pool:
        written = [data for data in pool.map(write, range(8)) if data is not None]
    assert written == [Path(path).read_bytes()]
    assert os.listdir(tmp_path) == ["vm.json"]


def test_a_file_that_is_called_as_a_partial_one_stays(tmp_path: Path) -> None:
    mine = tmp_path / "vm.json.partial"
    mine.write_bytes(b"a person's")
    write_new(str(tmp_path / "vm.json"), b"{}", "the document")
    assert mine.read_bytes() == b"a person's"


@pytest.mark.parametrize("name", ["x" * 255, "x" * 256, "none/x"])
def test_what_no_file_can_be_called_is_told_before_the_work(tmp_path: Path, name: str) -> None:
    path = str(tmp_path / name)
    if len(name) == 255:
        assert is_free(path, lambda file: False, "the document")
        write_new(path, b"{}", "the document")
    else:
        with pytest.raises(TargetError):
            is_free(path, lambda file: False, "the document")


@pytest.mark.parametrize("names", list(itertools.permutations(("a.partial", "a", "a.partial.partial"))))
def test_disks_whose_names_are_each_other_s_partial_files(place: Place, names: tuple[str, ...]) -> None:
    place.repo()
    contents = {}
    words: list[object] = []
    for number, name in enumerate(names):
        path = place.folder / f"{number}.img"
        path.write_bytes(bytes([number + 1]) * MIB)
        contents[number] = path.read_bytes()
        words += ["--disk", f"{name}={path}"]
    place.dm("backup", "--resource", "vm1", *words)
    to = place.folder / "to"
    to.mkdir()
    place.dm("restore", "--point", place.point(), "--all-disks", "--to", to)
    assert sorted(path.read_bytes() for path in to.iterdir()) == sorted(contents.values())


def test_a_document_whose_file_is_the_disk_s(place: Place) -> None:
    place.repo()
    document = place.folder / "vm.json"
    document.write_bytes(b"{}")
    place.back_up("--config-document", document)
    to = place.folder / "x"
    for other in (to, f"{to}.partial"):
        said = place.dm("restore", "--point", place.point(), "--to", to, "--document", other, code=2)
        assert "is a disk's" in said.error[0]
    assert not to.exists()
