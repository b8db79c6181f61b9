# SPDX-License-Identifier: Apache-2.0
"""Which pages of a page blob hold data, and which changed since an earlier snapshot: Azure's Get Page Ranges, asked in pieces.

A blob of many fragments can take the service longer than it allows itself: the blob is asked about a piece at a time, and a piece
that fails is halved. What comes twice because of that is the same set of bytes. Source: Microsoft's "Get Page Ranges".
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from mover.errors import StoreError, StoreUnavailable
from mover.store.patience import Patience

PIECE_BYTES = 128 << 30
LEAST_PIECE = 64 << 20
PAGE_RESULTS = 10_000
"""Ranges in one answer, Azure's most."""
PAGE = 512

Ask = Callable[[Mapping[str, str], Mapping[str, str]], bytes]
"""The body of an answer to these fields of the query and these headers."""


class PageRange(NamedTuple):
    """Bytes from `offset` on; `clear`: they had data in the earlier snapshot and have none now."""

    offset: int
    length: int
    clear: bool


def page_ranges(
    ask: Ask,
    name: str,
    size: int,
    patience: Patience,
    fields: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Iterator[PageRange]:
    """Ranges of a blob of `size` bytes; `fields` and `headers` say since which snapshot, if since one. Neither ascending nor
    disjoint where a piece had to be asked about again."""
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
) -> Iterator[PageRange]:
    asked = {"comp": "pagelist", "maxresults": str(PAGE_RESULTS)} | dict(fields)
    marker = ""
    while True:
        body = ask(
            asked | ({"marker": marker} if marker else {}), {"x-ms-range": f"bytes={low}-{high - 1}"} | dict(headers)
        )
        ranges, marker = _parse(name, body)
        for start, end, clear in ranges:
            start, end = max(start, low), min(end, high)
            if start < end:
                yield PageRange(start, end - start, clear)
        if not marker:
            return


def _parse(name: str, body: bytes) -> tuple[list[tuple[int, int, bool]], str]:
    """([(start, end, clear)], the next page's marker); StoreError for what is no list of page ranges."""
    try:
        root = ElementTree.fromstring(body)  # noqa: S314 - from the store that the disk is read from
    except ElementTree.ParseError:
        raise _unreadable(name) from None
    if root.tag != "PageList":
        raise _unreadable(name)
    ranges, marker = [], ""
    for item in root:
        if item.tag == "NextMarker":
            marker = item.text or ""
            continue
        start, end = item.findtext("Start") or "", item.findtext("End") or ""
        if item.tag not in ("PageRange", "ClearRange") or not start.isdigit() or not end.isdigit():
            raise _unreadable(name)
        if int(end) < int(start):
            raise _unreadable(name)
        ranges.append((int(start), int(end) + 1, item.tag == "ClearRange"))
    return ranges, marker


def _unreadable(name: str) -> StoreError:
    return StoreError("the answer is not a list of page ranges", name, "is a proxy in between?")
