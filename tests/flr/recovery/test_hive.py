# SPDX-License-Identifier: Apache-2.0
"""Drive letters from a registry hive, whole, hostile and cut."""

from __future__ import annotations

import shutil
import subprocess
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flr.errors import Corrupt
from flr.recovery.guest import Guest
from flr.recovery.hive import letters, partition_of
from flr.session import Session
from flr.virtual.open import open_sources
from mover.disk.source import FileSource
from tests.flr.corpus.mounted import run
from tests.flr.corpus.windows import fuse, need
from tests.flr.recovery.hives import hive

PARTITION = uuid.UUID("a1b2c3d4-0102-0304-0506-0708090a0b0c")
MOUNTED = {
    "\\DosDevices\\C:": b"DMIO:ID:" + PARTITION.bytes_le,
    "\\dosdevices\\d:": (0x12345678).to_bytes(4, "little") + (1 << 20).to_bytes(8, "little"),
    "\\DosDevices\\A:": "\\??\\FDC#".encode("utf-16-le"),
    "\\??\\Volume{x}": b"DMIO:ID:" + PARTITION.bytes_le,
    "#{unicode \u20ac}": b"x",
    "short": b"abc",
}
WHOLE = hive({"Select": {"Current": b"\1\0\0\0"}, "MountedDevices": MOUNTED, "Setup": {}})


def read(data: bytes) -> dict[str, bytes]:
    return letters(lambda offset, length: data[offset : offset + length])


@pytest.mark.parametrize("lists", ["lf", "lh", "li", "ri"])
def test_letters(lists: str) -> None:
    data = hive({"Select": {}, "MountedDevices": MOUNTED}, lists=lists)
    found = read(data)
    assert found == {
        "C:": MOUNTED["\\DosDevices\\C:"],
        "D:": MOUNTED["\\dosdevices\\d:"],
        "A:": MOUNTED["\\DosDevices\\A:"],
    }
    assert partition_of(found["C:"]) == (str(PARTITION), None)
    assert partition_of(found["D:"]) == ("12345678", 1 << 20)
    assert partition_of(found["A:"]) is None
    assert read(hive({"Other": {}})) == {}


def test_hivex_reads_the_same(tmp_path: Path) -> None:
    """That what our tests write is a hive, another reader says."""
    if shutil.which("hivexget") is None:
        pytest.skip("needs hivex (package libhivex-bin)")
    (tmp_path / "SYSTEM").write_bytes(WHOLE)
    said = subprocess.run(
        ["hivexget", tmp_path / "SYSTEM", "\\MountedDevices"], capture_output=True, text=True, check=True
    )
    raw = MOUNTED["\\DosDevices\\C:"]
    assert f'"\\\\DosDevices\\\\C:"=hex(3):{",".join(f"{byte:02x}" for byte in raw)}' in said.stdout


@given(st.integers(0, len(WHOLE)))
def test_a_cut_one_is_damaged_or_tells_less(length: int) -> None:
    try:
        found = read(WHOLE[:length])
    except Corrupt:
        return
    assert found.items() <= read(WHOLE).items()


@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), max_size=8))
def test_whatever_it_says_it_is_read_or_damaged(changes: list[tuple[int, int]]) -> None:
    data = bytearray(WHOLE)
    for at, value in changes:
        data[at] = value
    try:
        read(bytes(data))
    except Corrupt:
        pass


@pytest.mark.parametrize("scheme", ["gpt", "dos"])
def test_a_windows_disk_tells_its_letters(tmp_path: Path, scheme: str) -> None:
    need("mkntfs", "ntfs-3g")
    image = tmp_path / "disk.img"
    with open(image, "wb") as file:
        file.truncate(64 << 20)
    script = (
        f"label: {scheme}\nlabel-id: {PARTITION if scheme == 'gpt' else '0x12345678'}\nstart=1MiB, size=40MiB, type="
    )
    script += "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7" if scheme == "gpt" else "7"
    script += f", uuid={PARTITION}\n" if scheme == "gpt" else "\n"
    subprocess.run(["sfdisk", "-q", str(image)], input=script, text=True, check=True)
    ntfs = tmp_path / "ntfs.img"
    with open(ntfs, "wb") as file:
        file.truncate(40 << 20)
    run("mkntfs", "-q", "-F", "-L", "System", ntfs)
    with fuse("ntfs-3g", ntfs, "") as place:
        config = place / "Windows/System32/config"
        config.mkdir(parents=True)
        (config / "SYSTEM").write_bytes(WHOLE)
    with open(image, "r+b") as file:
        file.seek(1 << 20)
        file.write(ntfs.read_bytes())
    with open_sources([FileSource(str(image))]) as disks, Session(disks) as session:
        guest = Guest.of(session, [entry for entry in session.found()[0] if entry.opens])
    assert guest.windows
    assert guest.mounts == {"0p1": "C:" if scheme == "gpt" else "D:"}
    assert guest.root == "0p1"
