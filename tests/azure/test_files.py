# SPDX-License-Identifier: Apache-2.0
"""`files` over a cloud-native snapshot (a page blob by SAS) and over a repository in a container: the same tree, the same bytes."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from tests.agent.conftest import Place
from tests.azure.conftest import MIB, BlobDisk
from tests.azurite import Azurite
from tests.flr.corpus.mounted import need, run
from tests.mover.store.test_azure import make_container

pytestmark = pytest.mark.azurite


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """An ext4 disk, filled without a mount."""
    need("mkfs.ext4")
    source = tmp_path / "source"
    for k in range(20):
        (source / f"folder {k}").mkdir(parents=True)
        (source / f"folder {k}" / "file").write_bytes(bytes([k]) * (k * 10_000))
    image = tmp_path / "guest.img"
    with open(image, "wb") as file:
        file.truncate(12 * MIB)
    run("mkfs.ext4", "-q", "-d", source, image)
    return image


def content(tar: Path) -> dict[str, tuple[int, bytes]]:
    found = {}
    with tarfile.open(tar) as archive:
        for member in archive:
            part = archive.extractfile(member) if member.isreg() else None
            found[member.name] = (int(member.mtime), part.read() if part else b"")
    return found


def test_a_page_blob_and_a_point_show_the_same(
    place: Place, page_blob: BlobDisk, azurite: Azurite, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page_blob.write(0, disk.read_bytes())
    url = place.folder / "url"
    url.write_text(page_blob.url() + "\n")
    place.dm("files", "get", "--image", f"@{url}", "/", "--to", place.folder / "blob.tar")
    monkeypatch.setenv("DATA_MOVER_REPOSITORY", make_container(azurite))
    monkeypatch.setenv("DATA_MOVER_ACCOUNT_KEY", azurite.account_key)
    place.dm("repo", "create")
    place.dm("backup", "--resource", "vm1", "--disk", f"os={disk}")
    place.dm("files", "get", "--point", place.point(), "/", "--to", place.folder / "point.tar")
    one, two = content(place.folder / "blob.tar"), content(place.folder / "point.tar")
    assert one == two
    assert one["./folder 7/file"][1] == b"\7" * 70_000


def test_an_expired_sas_is_told_without_the_sas(place: Place, page_blob: BlobDisk, disk: Path) -> None:
    page_blob.write(0, disk.read_bytes())
    url = place.folder / "url"
    url.write_text(page_blob.url_with("r", hours=-1) + "\n")
    said = place.dm("files", "list", "--image", f"@{url}", code=3)
    assert said.error[2]
    assert "sig=" not in said.err
