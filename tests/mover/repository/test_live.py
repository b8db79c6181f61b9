# SPDX-License-Identifier: Apache-2.0
"""Bytes by pack over a shared table, against dictionaries; and what the largest roots cost."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mover.repository.chunk import ChunkRef
from mover.repository.live import LiveBytes, renumbered, total
from mover.repository.map_store import live_of
from mover.repository.maps import PageSlot, Root
from mover.repository.names import METADATA_BIT, PackName
from mover.repository.pack import Place
from mover.repository.tables import PackTable

PACKS = [PackName(b"w" * 48, k) for k in range(8)]
dictionaries = st.dictionaries(st.sampled_from(PACKS), st.integers(0, (1 << 32) - 1))


@given(st.lists(st.tuples(st.booleans(), dictionaries), max_size=6), st.lists(st.sampled_from(PACKS), max_size=3))
def test_pages_over_one_table_or_two_are_their_dictionaries(
    rows: list[tuple[bool, dict[PackName, int]]], before: list[PackName]
) -> None:
    one, two = PackTable(), PackTable()
    pages = [LiveBytes.of(live, one if first else two) for first, live in rows]
    assert [dict(page) for page in pages] == [live for _, live in rows]
    sums: dict[PackName, int] = {}
    for _, live in rows:
        for pack, size in live.items():
            sums[pack] = sums.get(pack, 0) + size
    assert total(pages) == sums
    table = PackTable(before)
    numbers = renumbered(pages, table)
    assert [[table.packs[k] for k in row.tolist()] for row in numbers] == [list(live) for _, live in rows]
    assert set(table.packs) == {*before, *sums}, "a pack that no page names is not in the table"


def test_a_pack_that_a_page_does_not_name() -> None:
    live = LiveBytes.of({PACKS[0]: 7}, PackTable(PACKS))
    assert live.get(PACKS[1]) is None
    assert live[PACKS[0]] == 7
    with pytest.raises(KeyError):
        live[PACKS[1]]


def test_a_root_of_32_tib_whose_pages_name_300_packs_each() -> None:
    """Ten million pairs; as dictionaries they took 1.3 GB."""
    writer, count, pages = b"w" * 48, 300, 32 << 10
    table = PackTable(PackName(writer, k) for k in range(500_000))
    sizes = np.full(count, 60_000, dtype="<u4")
    index = (np.arange(count, dtype="<u4") * np.uint32(1666)).astype("<u4")
    tracemalloc.start()
    try:
        root = Root(32 << 40, 0)
        for page in range(pages):
            ref = ChunkRef(page.to_bytes(32, "big"), Place(PackName(writer, METADATA_BIT | page // 1500), 0, 40_900))
            root.pages.append(PageSlot(ref, LiveBytes(table.packs, index + np.uint32(page % 1000), sizes)))
        raw = root.encode()
        del root
        found = Root.decode(raw)
        assert len(raw) > 8 * count * pages
        assert sum(live_of([(ref, found)]).values()) == pages * (count * 60_000 + 40_900) + ref.place.length
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    print(f"root {len(raw) / 1e6:.0f} MB, peak {peak / 1e6:.0f} MB")
    assert peak < 512 << 20
