# SPDX-License-Identifier: Apache-2.0
"""What a restore makes of a map."""

from __future__ import annotations

from types import SimpleNamespace

from mover.repository.maps import BLOCK_SIZE, PAGE_BLOCKS, MapEntry, Page, Root
from mover.repository.names import PackName
from mover.repository.pack import Place
from mover.restore_steps import Want, in_disk_order, joined, steps


def test_neighbours_of_the_disk_are_written_together_however_they_were_packed() -> None:
    pack = PackName(bytes(24), 0)
    run = [
        Want(MapEntry(bytes([block]) * 32, Place(pack, at, 10)), [block]) for at, block in ((0, 2), (10, 0), (20, 1))
    ]
    parts = ((block, 1, block) for want in in_disk_order(run) for block in want.blocks)
    assert list(joined(parts, 3)) == [(0, [0, 1, 2])]


def test_before_each_page_that_is_fetched_others_may_have_their_turn() -> None:
    pack = PackName(bytes(24), 0)
    pages = [Page([MapEntry(bytes([k]) * 32, Place(pack, 0, 10))] * PAGE_BLOCKS) for k in range(2)]
    fetched: list[int] = []

    def page(number: int) -> Page:
        fetched.append(number)
        return pages[number]

    reader = SimpleNamespace(root=Root(2 * PAGE_BLOCKS * BLOCK_SIZE, 0, [None, None]), page=page)
    found = steps(reader)  # type: ignore[arg-type]
    for before in ([], [0]):
        assert next(found) is None
        assert fetched == before
    assert None not in list(found)
