# SPDX-License-Identifier: Apache-2.0
"""The fixed VHD's footer against bytes laid out by hand from Microsoft's specification, and qemu-img as an independent reader."""

from __future__ import annotations

import json
import struct
import subprocess
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mover.disk import vhd
from mover.disk.target import FileTarget
from mover.errors import SourceError
from tests.mover.repository.codecs import wounded

MIB, GIB = 1 << 20, 1 << 30
ID = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")


def by_hand(size: int, kind: int = 2, **fields: tuple[int, bytes]) -> bytes:
    """Field by field, big-endian, by the offsets of the specification's table."""
    footer = bytearray(512)
    footer[0:8] = b"conectix"
    footer[8:12] = bytes([0, 0, 0, 2])  # features: the reserved bit
    footer[12:16] = bytes([0, 1, 0, 0])  # version 1.0
    footer[16:24] = b"\xff" * 8 if kind == 2 else bytes(6) + b"\2\0"  # data offset: none in a fixed disk
    footer[24:28] = (5).to_bytes(4, "big")  # seconds since 2000
    footer[28:32] = b"test"
    footer[36:40] = b"Wi2k"
    footer[40:48] = footer[48:56] = size.to_bytes(8, "big")
    footer[60:64] = kind.to_bytes(4, "big")
    footer[68:84] = ID.bytes
    for at, data in fields.values():
        footer[at : at + len(data)] = data
    footer[64:68] = (~sum(footer) & 0xFFFFFFFF).to_bytes(4, "big")
    return bytes(footer)


def test_a_footer_laid_out_by_hand_is_read() -> None:
    assert vhd.read_footer(by_hand(3 * MIB), 3 * MIB + 512, "disk") == vhd.Footer(3 * MIB, ID)


@given(st.integers(1, 1 << 50), st.uuids(), st.floats(0, 5e9))
def test_what_is_made_is_read_back(sectors: int, unique: uuid.UUID, time: float) -> None:
    size = sectors * 512
    footer = vhd.make_footer(size, unique, time)
    assert len(footer) == 512
    assert vhd.read_footer(footer, size + 512, "disk") == vhd.Footer(size, unique)


def test_what_is_made_stands_where_the_specification_says() -> None:
    footer = vhd.make_footer(GIB, ID, 946_684_800 + 77)
    fields = struct.unpack(">8sIIQI4s4s4sQQHBBI", footer[:64])
    shape = (2080, 16, 63)
    assert fields == (b"conectix", 2, 0x10000, 2**64 - 1, 77, b"win ", b"\0\1\0\0", b"Wi2k", GIB, GIB, *shape, 2)
    assert int.from_bytes(footer[64:68], "big") == ~(sum(footer[:64]) + sum(footer[68:])) & 0xFFFFFFFF
    assert footer[68:84] == ID.bytes
    assert not any(footer[84:])


def test_time_before_2000_is_2000() -> None:
    assert vhd.make_footer(MIB, ID, 0.0)[24:28] == bytes(4)


@pytest.mark.parametrize(
    ("size", "shape"),
    [
        (MIB, (30, 4, 17)),
        (10 * MIB, (301, 4, 17)),
        (100 * MIB, (1003, 12, 17)),
        (GIB, (2080, 16, 63)),
        (127 * GIB, (65278, 16, 255)),
        (1 << 42, (65535, 16, 255)),
    ],
)
def test_the_geometry_is_the_appendixs(size: int, shape: tuple[int, int, int]) -> None:
    assert vhd.geometry(size) == shape


@given(st.integers(1, 65535 * 16 * 255))
def test_a_geometry_fits_its_disk(sectors: int) -> None:
    cylinders, heads, per_track = vhd.geometry(sectors * 512)
    assert cylinders <= 65535
    assert 4 <= heads <= 16
    assert per_track in (17, 31, 63, 255)
    assert sectors - heads * per_track - heads * 17 < cylinders * heads * per_track <= sectors


@pytest.mark.parametrize(("kind", "name"), [(3, "dynamic"), (4, "differencing"), (6, "type 6")])
def test_other_kinds_are_refused_by_name(kind: int, name: str) -> None:
    with pytest.raises(SourceError, match=f"a {name} VHD cannot be read: disk .*qemu-img convert"):
        vhd.read_footer(by_hand(MIB, kind), 40_000, "disk")


def test_a_footer_that_does_not_fit_its_file_is_refused() -> None:
    for file_size in (MIB, MIB + 511, MIB + 1024):
        with pytest.raises(SourceError, match="does not fit"):
            vhd.read_footer(by_hand(MIB), file_size, "disk")


def test_what_is_no_valid_footer_is_data() -> None:
    """A raw disk may end in anything: every wound of a footer makes the file a raw disk again, or changes no field."""
    healthy = vhd.Footer(MIB, ID)
    for wound in wounded(by_hand(MIB)):
        assert vhd.read_footer(wound, MIB + 512, "disk") in (None, healthy)
    assert vhd.read_footer(bytes(512), MIB + 512, "disk") is None


@pytest.mark.parametrize("size", [MIB, 100 * MIB + 512, 3 * GIB + 4096])
def test_qemu_reads_the_whole_disk(size: int, tmp_path: Path) -> None:
    """An independent reader ends our VHD where the disk ends, not at its geometry's last cylinder, and reads its bytes."""
    path, raw = tmp_path / "disk.vhd", tmp_path / "disk.raw"
    for target in (FileTarget(str(path), size, as_vhd=True), FileTarget(str(raw), size)):
        target.write(0, b"first")
        target.write(size - 512, bytes(range(256)) * 2)
        target.finish(1e9)
        target.close()
    info = subprocess.run(["qemu-img", "info", "-f", "vpc", "--output", "json", path], check=True, capture_output=True)
    assert json.loads(info.stdout)["virtual-size"] == size
    subprocess.run(["qemu-img", "compare", "-f", "vpc", "-F", "raw", path, raw], check=True, capture_output=True)


@pytest.mark.parametrize("size", [MIB, 100 * MIB, 3 * GIB])
def test_a_disk_of_qemus_is_read(size: int, tmp_path: Path) -> None:
    path = tmp_path / "disk.vhd"
    command = ["qemu-img", "create", "-f", "vpc", "-o", "subformat=fixed,force_size", path, str(size)]
    subprocess.run(command, check=True, capture_output=True)
    with path.open("rb") as file:
        file.seek(-512, 2)
        footer = vhd.read_footer(file.read(), path.stat().st_size, "disk")
    assert footer is not None
    assert footer.size == size
