# SPDX-License-Identifier: Apache-2.0
"""A disk's life on page blobs, by the command line: every restore point is the disk as it was, on a page blob and in a file.

azcopy reads the restored blobs back: a witness that shares no code with us.
"""

from __future__ import annotations

import platform
import random
from typing import Any

import pytest

from tests.agent.conftest import Place
from tests.azure import azcopy
from tests.azure.conftest import MIB, BlobDisk
from tests.azure.front import NOTHING_CHANGED, Front
from tests.azurite import Azurite

pytestmark = [
    pytest.mark.azurite,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="azcopy's binary is for x86-64"),
]
RNG = random.Random(31)


class Life:
    """Backs up snapshot after snapshot, and keeps what each held."""

    def __init__(self, place: Place, front: Front) -> None:
        self._place, self._front = place, front
        place.repo()
        self.states: list[tuple[str, bytes]] = []
        self._previous = ("", "")  # of the last snapshot: its URL, its name

    def back_up(self, disk: BlobDisk, identity: str = "disk-1", base: str = "") -> dict[str, Any]:
        taken = disk.snapshot()
        url = self._front.export(disk.url(taken))
        file = self._place.folder / "url"
        file.write_text(url)
        words = ["--disk", f"os=@{file}", "--disk-identity", identity, "--snapshot-id", taken]
        if self._previous[0]:
            earlier = self._place.folder / "previous"
            earlier.write_text(self._previous[0])
            words += ["--previous-snapshot", f"@{earlier}", "--previous-snapshot-id", base or self._previous[1]]
        said: dict[str, Any] = self._place.dm("backup", "--resource", "vm1", *words, "--json").document
        self._previous = (url, taken)
        self.states.append((said["point"], disk.content(taken)))
        return said


def scatter(disk: BlobDisk, count: int = 20) -> None:
    for _ in range(count):
        disk.write(RNG.randrange(disk.size // 512 - 16) * 512, RNG.randbytes(512 * RNG.randrange(1, 16)))


def test_every_point_of_a_disk_s_life_restores(
    place: Place, azurite: Azurite, page_blob: BlobDisk, front: Front
) -> None:
    front.results = 7
    life = Life(place, front)
    disk = page_blob
    disk.write(0, RNG.randbytes(3 * MIB))
    scatter(disk)
    assert life.back_up(disk)["notes"] == []

    scatter(disk)
    disk.clear(MIB, MIB)
    disk.clear(2 * MIB + 512, 512)
    said = life.back_up(disk)
    assert said["notes"] == []
    assert said["statistics"]["skipped"] > 0

    disk.resize(15 * MIB)
    disk.write(14 * MIB + 512, RNG.randbytes(1024))
    life.back_up(disk)

    disk.resize(9 * MIB)
    scatter(disk, 5)
    life.back_up(disk)

    scatter(disk)
    assert any("everything is read" in note for note in life.back_up(disk, base="another")["notes"])

    swapped = BlobDisk(azurite, front, 9 * MIB)
    swapped.write(0, RNG.randbytes(9 * MIB))
    assert any("everything is read" in note for note in life.back_up(swapped, identity="disk-2")["notes"])

    swapped.write(0, RNG.randbytes(9 * MIB))
    front.faults.append(lambda request, _: NOTHING_CHANGED if request.is_diff else None)
    assert any("everything is read" in note for note in life.back_up(swapped, identity="disk-2")["notes"])
    front.faults.clear()

    for number, (point, state) in enumerate(life.states):
        to = place.folder / f"restored-{number}"
        place.dm("restore", "--point", point, "--to", to)
        assert to.read_bytes() == state
        url = place.folder / "to-url"
        url.write_text(disk.url(name=f"restored-{number}"))
        place.dm("restore", "--point", point, "--to", f"@{url}")
        assert azcopy.content(url.read_text(), place.folder) == state
        upload = disk.waits_for_upload(len(state), f"upload-{number}")
        url.write_text(upload)
        place.dm("restore", "--point", point, "--to", f"@{url}")
        assert front.uploaded(upload, len(state)) == state
