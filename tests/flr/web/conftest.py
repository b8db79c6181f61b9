# SPDX-License-Identifier: Apache-2.0
"""A guest's disk with what people and attackers have on it, and its restore points."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.cli import main
from flr.recovery.points import RepositoryPoints
from mover.repository.repository import Repository
from mover.store.local import LocalStore
from tests.flr.corpus.mounted import mounted, run
from tests.flr.web.serving import Serving, serving

MANY = 100_000
HOSTILE = (
    b"<b>bold<b>.html", b"bad\xff\nname", "rtl\u202egnp.exe".encode(), b"..\\..\\evil", b"CON", b"x" * 255,
    b"&amp;<script>alert(1)<", b"' onmouseover='alert(1)", b"%2e%2e%2f",
)  # fmt: skip
THESIS = b"Once upon a time\n" * 9000
PICTURE = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360f8cf500f0003840182a5a7b8d6"
    "0000000049454e44ae426082"
)


def fill(place: Path) -> None:
    for name in ("etc", "home/anna/Documents", "home/anna/Pictures", "var/log", "srv/many"):
        (place / name).mkdir(parents=True)
    (place / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nanna:x:1000:1000::/home/anna:/bin/sh\n")
    (place / "etc/group").write_text("root:x:0:\nanna:x:1000:\n")
    (place / "etc/fstab").write_text("LABEL=root / ext4 defaults 0 1\n")
    documents = place / "home/anna/Documents"
    (documents / "thesis.txt").write_bytes(THESIS)
    (documents / "link").symlink_to("thesis.txt")
    (documents / "page.html").write_text("<script>document.title = 'run'</script>")
    (documents / "picture.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>')
    for name in HOSTILE:
        (documents / os.fsdecode(name)).write_bytes(name)
    (place / "home/anna/Pictures/dot.png").write_bytes(PICTURE)
    reports = place / "home/anna/Reports"
    reports.mkdir()
    for name in ("2024", "2025", "2026", "Drafts"):
        (reports / name).mkdir()
    for k, name in enumerate(
        ("Annual report.odt", "Budget 2026.ods", "Invoice 1001.pdf", "Invoice 1002.pdf", "Minutes.docx", "Photo.jpg")
    ):
        (reports / name).write_bytes(random.Random(k).randbytes(40_000 * (k + 1)))
    (reports / "Notes.md").write_text(
        "# What is left to do\n\n- ask Emil for the figures of May\n- send the minutes\n" * 12
    )
    (place / "var/log/big.log").write_bytes(random.Random(1).randbytes(24 << 20))
    for k in range(MANY):
        (place / f"srv/many/file {k} of many.txt").touch()
    for folder, _, names in os.walk(place / "home/anna"):
        os.chown(folder, 1000, 1000)
        for name in names:
            os.lchown(os.path.join(folder, name), 1000, 1000)


@pytest.fixture(scope="session")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A repository with two restore points of a machine; between them a file was changed and one was deleted."""
    if os.geteuid() != 0:
        pytest.skip("needs root: the guest's disk is filled by a loop mount")
    folder = tmp_path_factory.mktemp("guest")
    image = folder / "os.img"
    with open(image, "wb") as file:
        file.truncate(320 << 20)
    run("mkfs.ext4", "-q", "-L", "root", "-N", str(MANY + 20_000), image)
    with mounted(image) as place:
        fill(place)
        (place / "home/anna/Documents/deleted.txt").write_text("it was here\n")
    store = LocalStore(folder / "repository")
    Repository.create(store)
    repository = Repository.open(store)
    for number in range(2):
        words = (
            "--repository",
            (folder / "repository").as_uri(),
            "--resource",
            "vm one",
            "--disk",
            f"os={image}",
            "--job",
            f"job-{number}",
        )
        assert main(["backup", *words]) == 0
        if not number:
            with mounted(image) as place:
                (place / "home/anna/Documents/deleted.txt").unlink()
                (place / "home/anna/Documents/thesis.txt").write_bytes(THESIS + b"The end.\n")
    return repository


@pytest.fixture
def served(guest: Repository) -> Iterator[Serving]:
    """Over both points; the older one is shown first."""
    first = next(guest.points())
    with serving(RepositoryPoints(guest, first, lambda text: None), first=first.id) as running:
        yield running
