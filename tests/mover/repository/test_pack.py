# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from mover.errors import Damaged, UnsupportedFormat
from mover.repository import pack
from mover.repository.frame import HEADER_SIZE
from mover.repository.keys import Kind
from mover.repository.names import METADATA_BIT, PackName
from mover.repository.pack import DirectoryEntry
from tests.mover.repository import codecs

DATA, METADATA = PackName(b"w" * 48, 3), PackName(b"w" * 48, 3 | METADATA_BIT)


def made(rows: list[tuple[bytes, int, Kind]], name: PackName) -> tuple[list[DirectoryEntry], bytes]:
    entries, at = [], 0
    for chunk_id, length, kind in rows:
        entries.append(DirectoryEntry(chunk_id, at, length, kind))
        at += length
    return entries, bytes(at) + pack.write_tail(entries, at, metadata=name.is_metadata)


def directory(data: bytes, name: PackName) -> list[DirectoryEntry]:
    if len(data) < pack.FOOTER_SIZE:
        raise Damaged("short")
    at, count, checksum = pack.read_footer(data[-pack.FOOTER_SIZE :], len(data), name)
    found = pack.read_directory(data[at : -pack.FOOTER_SIZE], checksum, name)
    assert len(found) == count
    return found


rows = st.lists(st.tuples(codecs.ids, st.integers(HEADER_SIZE, 500), st.sampled_from(Kind)), max_size=8)


@given(rows, st.sampled_from([DATA, METADATA]))
def test_a_directory_is_read_back(given_rows: list[tuple[bytes, int, Kind]], name: PackName) -> None:
    entries, data = made(given_rows, name)
    assert directory(data, name) == entries


def test_no_wound_of_a_tail_yields_another_directory() -> None:
    entries, data = made([(bytes([k]) * 32, 64 + k, Kind.DATA) for k in range(5)], DATA)
    tail = data[entries[-1].offset + entries[-1].length :]
    frames = len(data) - len(tail)
    assert codecs.assert_guarded(lambda wound: directory(bytes(frames) + wound, DATA), tail) == 0


def test_a_footer_belongs_to_its_kind_and_size() -> None:
    _, data = made([(bytes(32), 64, Kind.DATA)], DATA)
    for name, wrong in ((METADATA, data), (DATA, b"\0" + data), (DATA, data[1:])):
        with pytest.raises(Damaged, match=name.object):
            directory(wrong, name)


@pytest.mark.parametrize(("at", "value"), [(4, 2), (8, 1), (15, 128)])
def test_an_unknown_version_or_feature_is_refused(at: int, value: int) -> None:
    _, data = made([(bytes(32), 64, Kind.DATA)], DATA)
    footer = bytearray(data[-pack.FOOTER_SIZE :])
    footer[at] = value
    footer[40:] = xxh3_64_intdigest(footer[:40]).to_bytes(8, "little")
    with pytest.raises(UnsupportedFormat, match=DATA.object):
        pack.read_footer(footer, len(data), DATA)


@pytest.mark.parametrize(
    "entries",
    [
        [DirectoryEntry(bytes(32), 1, 64, 1)],
        [DirectoryEntry(bytes(32), 0, 63, 1)],
        [DirectoryEntry(bytes(32), 0, 64, 7)],
        [DirectoryEntry(bytes(32), 0, 64, 1), DirectoryEntry(bytes(32), 65, 64, 1)],
    ],
    ids=["hole", "too short", "kind", "gap"],
)
def test_a_directory_that_cannot_be_is_damage(entries: list[DirectoryEntry]) -> None:
    data = pack.write_tail(entries, 200, metadata=False)[: -pack.FOOTER_SIZE]
    with pytest.raises(Damaged, match="inconsistent"):
        pack.read_directory(data, xxh3_64_intdigest(data), DATA)


@pytest.mark.parametrize("at", [7, 28, 31])
def test_bytes_of_the_footer_that_must_be_zero_are(at: int) -> None:
    _, data = made([(bytes(32), 64, Kind.DATA)], DATA)
    footer = bytearray(data[-pack.FOOTER_SIZE :])
    footer[at] = 1
    footer[40:] = xxh3_64_intdigest(footer[:40]).to_bytes(8, "little")
    with pytest.raises(Damaged, match="zero"):
        pack.read_footer(footer, len(data), DATA)


@pytest.mark.parametrize("at", [41, 47, 48 + 41])
def test_bytes_of_the_directory_that_must_be_zero_are(at: int) -> None:
    entries, _ = made([(bytes(32), 64, Kind.DATA), (b"\xff" * 32, 70, Kind.DATA)], DATA)
    data = bytearray(pack.write_tail(entries, 134, metadata=False)[: -pack.FOOTER_SIZE])
    data[at] = 1
    with pytest.raises(Damaged, match="zero"):
        pack.read_directory(data, xxh3_64_intdigest(data), DATA)
