# SPDX-License-Identifier: Apache-2.0
"""Which pages of a page blob hold data, and which changed since an earlier snapshot: Azure's Get Page Ranges, asked in pieces.

A blob of many fragments can take the service longer than it allows itself: the blob is asked about a piece at a time, and a piece
that fails is halved. What comes twice because of that is the same set of bytes. Source: Microsoft's "Get Page Ranges".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from mover.errors import StoreUnavailable
from mover.store.azure_listing import document, unreadable
from mover.store.patience import Patience

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
    pieces = [(at, min(at + PIECE_BYTES, size)) for at in range(0, size, PIECE_BYTES)][::-1]
    pause = patience.pauses(name)
    while pieces:
        low, high = pieces.pop()
        try:
            yield from _piece(ask, name, low, high, fields or {}, headers or {})
            pause = patience.pauses(name)
        except StoreUnavailable as error:
            pause(error)
            middle = (low + high) // 2 // PAGE * PAGE
            halves = [(middle, high), (low, middle)] if high - low > LEAST_PIECE else [(low, high)]
            pieces += halves


def _piece(
    ask: Ask, name: str, low: int, high: int, fields: Mapping[str, str], headers: Mapping[str, str]
) -> Iterator[tuple[int, int]]:
    asked = {"comp": "pagelist", "maxresults": str(PAGE_RESULTS)} | dict(fields)
    marker = ""
    while True:
        body = ask(
            asked | ({"marker": marker} if marker else {}), {"x-ms-range": f"bytes={low}-{high - 1}"} | dict(headers)
        )
        ranges, marker = _parse(name, body)
        for first, last in ranges:
            start, end = max(first, low), min(last + 1, high)
            if start < end:
                yield start, end - start
        if not marker:
            return


def _parse(name: str, body: bytes) -> tuple[list[tuple[int, int]], str]:
    """([(first byte, last byte)], the next page's marker); StoreError for what is no list of page ranges."""
    ranges, marker = [], ""
    for item in document(body, "PageList", WHAT, name):
        if item.tag == "NextMarker":
            marker = item.text or ""
            continue
        first, last = item.findtext("Start") or "", item.findtext("End") or ""
        if item.tag not in ("PageRange", "ClearRange") or not first.isdigit() or not last.isdigit():
            raise unreadable(WHAT, name)
        if int(last) < int(first):
            raise unreadable(WHAT, name)
        ranges.append((int(first), int(last)))
    return ranges, marker
