# SPDX-License-Identifier: Apache-2.0
"""Lists of page ranges from services that are slow, busy, wrong or hostile. Without a server: what they answer is a function."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from xml.sax.saxutils import escape

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mover.disk.page_ranges import LEAST_PIECE, PIECE_BYTES, page_ranges
from mover.errors import StoreError, StoreUnavailable
from mover.store.patience import Patience, RetryLater, TooSlow
from tests.mover.store.clock import ManualClock

TIB = 1 << 40
Answer = Callable[[int, int, str], bytes]
"""To a range [low, high) and a marker."""


def page_list(*ranges: tuple[object, object], marker: str = "") -> bytes:
    told = "".join(f"<PageRange><Start>{low}</Start><End>{end}</End></PageRange>" for low, end in ranges)
    return f"<PageList>{told}<NextMarker>{escape(marker)}</NextMarker></PageList>".encode()


def listed(answer: Answer, size: int, clock: ManualClock | None = None) -> list[tuple[int, int]]:
    def ask(fields: Mapping[str, str], headers: Mapping[str, str]) -> bytes:
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", headers["x-ms-range"])
        assert found
        return answer(int(found[1]), int(found[2]) + 1, fields.get("marker", ""))

    return list(page_ranges(ask, "disk", size, Patience(clock or ManualClock())))


class Slow:
    """Answers what it can read in time, which is so many bytes; each failure takes half a minute."""

    def __init__(self, most: Callable[[int], int]) -> None:
        self.clock = ManualClock()
        self.late = self.asked = 0
        self._most = most

    def __call__(self, low: int, high: int, marker: str) -> bytes:
        self.asked += 1
        if high - low > self._most(low):
            self.late += 1
            self.clock.advance(30)
            raise TooSlow("the store did not finish in time", "disk")
        return page_list((low, high - 1))


@pytest.mark.parametrize("most", [LEAST_PIECE, 256 << 20, 2 << 30])
def test_a_service_that_takes_its_time_is_asked_for_less_and_rarely_for_more(most: int) -> None:
    slow = Slow(lambda low: most)
    ranges = listed(slow, TIB, slow.clock)
    assert sum(length for _, length in ranges) == TIB
    pieces = TIB // most
    assert slow.late <= (PIECE_BYTES // most).bit_length() + pieces.bit_length() + 1
    assert slow.asked < 3 * pieces


def test_after_a_fragmented_part_pieces_grow_again() -> None:
    slow = Slow(lambda low: LEAST_PIECE if low < 8 << 30 else PIECE_BYTES)
    ranges = listed(slow, 32 * TIB, slow.clock)
    assert sum(length for _, length in ranges) == 32 * TIB
    assert slow.asked < 2 * ((8 << 30) // LEAST_PIECE + 32 * TIB // PIECE_BYTES)


@example(34_360_000_512, 64 << 20, {0, 1, 12})
@given(st.integers(1, TIB), st.integers(LEAST_PIECE, PIECE_BYTES), st.sets(st.integers(0, 60)))
def test_whatever_fails_in_passing_each_byte_is_told(size: int, most: int, busy: set[int]) -> None:
    slow = Slow(lambda low: most)
    asked = itertools.count()

    def answer(low: int, high: int, marker: str) -> bytes:
        if next(asked) in busy:
            raise RetryLater("the store is busy", "disk", 1.0)
        return slow(low, high, marker)

    ranges = listed(answer, size, slow.clock)
    assert ranges[0][0] == 0
    assert all(low + length == start for (low, length), (start, _) in itertools.pairwise(ranges))
    assert sum(ranges[-1]) == size


def test_a_service_that_never_answers_is_given_up() -> None:
    def answer(low: int, high: int, marker: str) -> bytes:
        raise StoreUnavailable("the store failed", "disk")

    clock = ManualClock()
    with pytest.raises(StoreUnavailable):
        listed(answer, TIB, clock)


@pytest.mark.parametrize(
    "answer",
    [
        lambda low, high, marker: page_list((0, 511), marker="again"),
        lambda low, high, marker: page_list(marker=f"{marker}x"),
        lambda low, high, marker: (
            page_list((1024, 1535), marker="b") if not marker else page_list((0, 511), marker="a")
        ),
        lambda low, high, marker: page_list(("\u00b2", 511)),
        lambda low, high, marker: page_list((0, "9" * 5000)),
        lambda low, high, marker: page_list((512, 511)),
        lambda low, high, marker: page_list((-512, 511)),
        lambda low, high, marker: page_list(("", "")),
        lambda low, high, marker: b"<html/>",
        lambda low, high, marker: b"<PageList><PageRange>",
    ],
    ids=[
        "the same marker",
        "no end",
        "back",
        "superscript",
        "5000 digits",
        "backward",
        "negative",
        "nothing",
        "HTML",
        "cut",
    ],
)
def test_what_is_no_list_ends_the_run(answer: Answer) -> None:
    with pytest.raises(StoreError, match="not a list of page ranges"):
        listed(answer, TIB)


def test_what_lies_beyond_the_blob_is_left_out() -> None:
    assert listed(lambda low, high, marker: page_list((0, 10**17)), 4096) == [(0, 4096)]
