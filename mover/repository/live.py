# SPDX-License-Identifier: Apache-2.0
"""Which packs a map's pages name, and how many bytes of each: the numbers that a root carries for retention.

A disk of 32 TiB has 32,768 pages, and years of incrementals let each name hundreds of packs: eight bytes a pair, over one
table of names for all pages of a root, instead of a dictionary a page.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mover.repository.names import PackName
from mover.repository.tables import PackTable

Numbers = NDArray[np.uint32]


class LiveBytes(Mapping[PackName, int]):
    """Bytes by pack. `names` is shared with other pages and may grow; `index` counts in it, `sizes` goes along with `index`."""

    __slots__ = ("index", "names", "sizes")

    def __init__(self, names: Sequence[PackName], index: Numbers, sizes: Numbers) -> None:
        self.names = names
        self.index = index
        self.sizes = sizes

    @classmethod
    def of(cls, live: Mapping[PackName, int], table: PackTable) -> LiveBytes:
        index = np.array([table.index(pack) for pack in live], dtype="<u4")
        return cls(table.packs, index, np.array(list(live.values()), dtype="<u4"))

    def __len__(self) -> int:
        return len(self.index)

    def __iter__(self) -> Iterator[PackName]:
        return (self.names[k] for k in self.index.tolist())

    def __getitem__(self, pack: PackName) -> int:
        for found, size in zip(self, self.sizes.tolist(), strict=True):
            if found == pack:
                return int(size)
        raise KeyError(pack)


def renumbered(pages: Sequence[LiveBytes], table: PackTable) -> list[Numbers]:
    """Each page's index, counting in `table` instead, which learns the packs that it lacks."""
    known: dict[int, NDArray[np.int64]] = {}
    found: list[Numbers] = []
    for page in pages:
        numbers = known.get(id(page.names))
        if numbers is None:
            numbers = known[id(page.names)] = np.full(len(page.names), -1, dtype=np.int64)
        for k in page.index[numbers[page.index] < 0].tolist():
            numbers[k] = table.index(page.names[k])
        found.append(numbers[page.index].astype("<u4"))
    return found


def total(pages: Iterable[LiveBytes]) -> dict[PackName, int]:
    """The sum over pages, for every pack that one of them names."""
    sums: dict[int, tuple[Sequence[PackName], NDArray[np.int64], NDArray[np.bool_]]] = {}
    for page in pages:
        if id(page.names) not in sums:
            count = len(page.names)
            sums[id(page.names)] = page.names, np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.bool_)
        _, sizes, named = sums[id(page.names)]
        np.add.at(sizes, page.index, page.sizes)
        named[page.index] = True
    live: dict[PackName, int] = {}
    for names, sizes, named in sums.values():
        for k in named.nonzero()[0].tolist():
            live[names[k]] = live.get(names[k], 0) + int(sizes[k])
    return live
