# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mover.errors import Damaged
from mover.repository.names import PackName
from mover.repository.tables import Cursor, PackTable
from tests.mover.repository import codecs


@given(st.lists(codecs.packs, max_size=20))
def test_tables_are_read_back(packs: list[PackName]) -> None:
    table = PackTable()
    indices = [table.index(pack) for pack in packs]
    writers, count, data = table.encode()
    assert writers == len({pack.writer for pack in packs})
    assert count == len(set(packs))
    cursor = Cursor(data, "thing")
    found = cursor.packs(writers, count)
    cursor.end()
    assert [found[index] for index in indices] == packs


def test_a_pack_of_no_writer_is_damage() -> None:
    data = bytes(48) + struct.pack("<II", 1, 0)
    with pytest.raises(Damaged, match="writer 1 of 1"):
        Cursor(data, "thing").packs(1, 1)


@pytest.mark.parametrize("size", [-1, 11, 1 << 62])
def test_nothing_is_taken_beyond_the_end(size: int) -> None:
    with pytest.raises(Damaged, match="a thing is malformed"):
        Cursor(bytes(10), "thing").take(size)


def test_a_byte_left_over_is_damage() -> None:
    cursor = Cursor(bytes(10), "thing")
    cursor.take(9)
    with pytest.raises(Damaged, match="1 bytes too many"):
        cursor.end()
