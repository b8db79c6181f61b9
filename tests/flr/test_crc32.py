# SPDX-License-Identifier: Apache-2.0
"""Checksums that are put together are those of the whole."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flr.crc32 import joined, with_zeros


@given(st.binary(), st.binary())
def test_two_parts_are_the_whole(first: bytes, second: bytes) -> None:
    assert joined(zlib.crc32(first), zlib.crc32(second), len(second)) == zlib.crc32(first + second)


@given(st.binary(), st.integers(0, 1 << 21))
def test_zeros_need_not_be_gone_through(data: bytes, length: int) -> None:
    assert with_zeros(zlib.crc32(data), length) == zlib.crc32(data + bytes(length))


@given(st.integers(0, 0xFFFFFFFF), st.lists(st.integers(0, 1 << 55), max_size=5))
def test_zeros_in_parts_are_zeros_at_once(crc: int, lengths: list[int]) -> None:
    made = crc
    for length in lengths:
        made = with_zeros(made, length)
    assert made == with_zeros(crc, sum(lengths))


@pytest.mark.parametrize(("length", "crc"), [(0, 0), (1 << 20, 0xA738EA1C), (1 << 32, 0xD202EF8D)])
def test_known_checksums_of_zeros(length: int, crc: int) -> None:
    """By zlib, once, of that many zeros."""
    assert with_zeros(0, length) == crc
