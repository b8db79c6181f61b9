# SPDX-License-Identifier: Apache-2.0
"""Which pages of a page blob hold data, and which changed since an earlier snapshot: Azure's Get Page Ranges, asked in pieces.

A blob of many fragments can take the service longer than it allows itself: the blob is asked about a piece at a time, and a piece
that fails is halved, without a wait if it took too long. Later pieces begin with the size that went well, and grow again, ever
more seldom where that fails. What comes twice because of a failure is the same set of bytes. Source: Microsoft's "Get Page
Ranges".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from mover.errors import StoreUnavailable
from mover.store.azure_errors import number
from mover.store.azure_listing import document, unreadable
from mover.store.patience import Patience, RetryLater, TooSlow

PIECE_BYTES = 128 << 30
LEAST_PIECE = 64 << 20
PAGE_RESULTS = 10_000
"""Ranges in one answer, Azure's most."""
PAGE = 512
WHAT = "a list of page ranges"

Ask = Callable[[Mapping[str, str], Mapping[str, str]], bytes]
"""The body of an answer to these fields of the query and these headers."""


def page_ranges(
    ask: Ask,
    name: str,
    size: int,
    patience: Patience,
    fields: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Iterator[tuple[int, int]]:
    """Ranges (offset, length) of a blob of `size` bytes: those that hold data, or those written or cleared since the snapshot that
    `fields` and `headers` name. Neither ascending nor disjoint where a piece had to be asked about again."""
    at, piece, good, enough, grown = 0, PIECE_BYTES, 0, 2, False
    pause = patience.pauses(name)
    while at < size:
        high = min(at + piece, size)
        try:
            yield from _piece(ask, name, at, high, fields or {}, headers or {})
        except StoreUnavailable as error:
            if high - at <= LEAST_PIECE or not isinstance(error, TooSlow):
                pause(error)
            else:
                pause = patience.pauses(name)  # a smaller piece is another question
            if not isinstance(error, RetryLater):  # a service that is busy does not blame the size
                piece = max(LEAST_PIECE, (high - at) // 2 // PAGE * PAGE)
                enough, good, grown = enough * 2 if grown else enough, 0, False
            continue
        pause = patience.pauses(name)
        at, good = high, good + 1
        enough, grown = 2 if grown else enough, False
        if good >= enough and piece < PIECE_BYTES:
            piece, good, grown = piece * 2, 0, True


def _piece(
    ask: Ask, name: str, low: int, high: int, fields: Mapping[str, str], headers: Mapping[str, str]
) -> Iterator[tuple[int, int]]:
    asked = {"comp": "pagelist", "maxresults": str(PAGE_RESULTS)} | dict(fields)
    marker, last = "", -1
    while True:
        body = ask(
            asked | ({"marker": marker} if marker else {}), {"x-ms-range": f"bytes={low}-{high - 1}"} | dict(headers)
        )
        ranges, marker = _parse(name, body)
        before = last
        for first, stop in ranges:
            start, end = max(first, low), min(stop + 1, high)
            if start < end:
                yield start, end - start
            last = max(last, stop)
        if not marker:
            return
        if last <= before:  # a service that goes round in a circle would never end
            raise unreadable(WHAT, name)


def _parse(name: str, body: bytes) -> tuple[list[tuple[int, int]], str]:
    """([(first byte, last byte)], the next page's marker); StoreError for what is no list of page ranges."""
    ranges, marker = [], ""
    for item in document(body, "PageList", WHAT, name):
        if item.tag == "NextMarker":
            marker = item.text or ""
            continue
        first, last = number(item.findtext("Start")), number(item.findtext("End"))
        if item.tag not in ("PageRange", "ClearRange") or first is None or last is None or last < first:
            raise unreadable(WHAT, name)
        ranges.append((first, last))
    return ranges, marker
