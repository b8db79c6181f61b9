# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mover.errors import Damaged, UnsupportedFormat
from mover.repository import packlist
from mover.repository.maps import ChunkRef
from mover.repository.names import METADATA_BIT, PackName
from mover.repository.packlist import CUT, cut_lists, decode_list, decode_summary, encode_list, encode_summary
from tests.mover.repository import codecs

live_bytes = st.integers(0, 2**64 - 1)


@given(st.dictionaries(codecs.packs, live_bytes, max_size=20))
def test_a_list_is_read_back(live: dict[PackName, int]) -> None:
    packs = sorted(live.items())
    assert decode_list(encode_list(packs)) == packs


@given(st.lists(st.tuples(codecs.refs, st.integers(0, codecs.WORD), live_bytes), max_size=10))
def test_a_summary_is_read_back(lists: list[tuple[ChunkRef, int, int]]) -> None:
    assert decode_summary(encode_summary(lists)) == lists


def test_no_wound_yields_another_exception() -> None:
    packs = [(PackName(b"w" * 48, number), 7) for number in range(3)]
    codecs.assert_sturdy(decode_list, encode_list(packs))
    ref = ChunkRef(b"i" * 32, packlist.Place(packs[0][0], 1, 100))
    codecs.assert_sturdy(decode_summary, encode_summary([(ref, 3, 21), (ref, 1, 7)]))


def test_what_is_not_ascending_is_damage() -> None:
    one, two = PackName(b"w" * 48, 1), PackName(b"w" * 48, 2)
    for packs in ([(two, 0), (one, 0)], [(one, 0), (one, 0)]):
        with pytest.raises(Damaged, match="ascending"):
            decode_list(encode_list(packs))


@pytest.mark.parametrize("at", [4, 5])
def test_an_unknown_version_is_refused(at: int) -> None:
    for data, decode in ((encode_list([]), decode_list), (encode_summary([]), decode_summary)):
        changed = bytearray(data)
        changed[at] ^= 2
        with pytest.raises(UnsupportedFormat):
            decode(bytes(changed))  # type: ignore[operator]


@pytest.mark.parametrize("at", [6, 7])
def test_bytes_that_must_be_zero_are(at: int) -> None:
    for data, decode in ((encode_list([]), decode_list), (encode_summary([]), decode_summary)):
        changed = bytearray(data)
        changed[at] = 1
        with pytest.raises(Damaged):
            decode(bytes(changed))  # type: ignore[operator]


def packs_of(writer: int, count: int) -> dict[PackName, int]:
    return {PackName(bytes([writer]) * 48, number): number for number in range(count)}


def test_lists_are_cut_where_names_say_so() -> None:
    """Packs that are added leave all lists but a few as they were, so points share them."""
    live = packs_of(1, 5 * CUT) | packs_of(2, 10) | packs_of(3, 3 * CUT + 7)
    before = list(cut_lists(live))
    assert [row for part in before for row in part] == sorted(live.items())
    assert all(CUT <= len(part) <= 4 * CUT for part in before[:-1])
    more = live | packs_of(4, 2 * CUT) | {PackName(b"\1" * 48, METADATA_BIT): 5}
    after = [encode_list(part) for part in cut_lists(more)]
    shared = sum(encode_list(part) in after for part in before)
    assert shared >= len(before) - 3


@given(st.lists(st.integers(0, 3 * CUT), min_size=1, max_size=4), st.integers(1, 50))
def test_the_lists_are_the_whole_without_repetition(counts: list[int], step: int) -> None:
    live = {
        PackName(bytes([writer]) * 48, number * step): number
        for writer, count in enumerate(counts)
        for number in range(count)
    }
    parts = list(cut_lists(live))
    assert [row for part in parts for row in part] == sorted(live.items())
    assert all(parts)
    assert all(one[-1][0] < two[0][0] for one, two in pairwise(parts))
