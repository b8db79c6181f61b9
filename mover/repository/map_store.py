# SPDX-License-Identifier: Apache-2.0
"""A disk's map over a store: `MapReader` fetches pages of a map that exists, `MapBuilder` makes the next one.

A page whose entries equal the parent's is not written again, and a page that nobody touches is taken over without being
read. Both are thread-safe.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable

from mover.errors import Damaged
from mover.repository.frame import FrameReader
from mover.repository.keys import KeyRing, Kind
from mover.repository.live import LiveBytes, total
from mover.repository.maps import PAGE_BLOCKS, ChunkRef, MapEntry, Page, PageSlot, Root
from mover.repository.names import PackName
from mover.repository.reader import read_chunk
from mover.repository.tables import PackTable
from mover.store.base import Store

PAGES_KEPT = 64
"""Decoded pages that the readers of all disks side by side keep: about 20 MB."""


def pages_kept(disks: int) -> int:
    """The part of each reader of so many."""
    return max(2, PAGES_KEPT // disks)


class MapReader:
    """Pages of one disk's map, the last `kept` of them decoded. `entry` and `page` raise what `read_chunk` raises."""

    def __init__(self, store: Store, keys: KeyRing, root: Root, kept: int = PAGES_KEPT) -> None:
        self.root = root
        self._kept = kept
        self._store = store
        self._reader = FrameReader(keys)
        self._lock = threading.Lock()
        self._pages: OrderedDict[int, Page] = OrderedDict()

    @classmethod
    def open(cls, store: Store, keys: KeyRing, ref: ChunkRef, kept: int = PAGES_KEPT) -> MapReader:
        return cls(store, keys, Root.decode(read_chunk(store, FrameReader(keys), ref, Kind.ROOT)), kept)

    def page(self, number: int) -> Page | None:
        """None where all blocks are zero."""
        slot = self.root.pages[number]
        if slot is None:
            return None
        with self._lock:
            page = self._pages.get(number)
            if page is None:
                page = Page.decode(read_chunk(self._store, self._reader, slot.ref, Kind.PAGE))
                if len(page.entries) != self.root.page_blocks(number) or page.raw_lengths is not None:
                    raise Damaged("a map page has another number of blocks than its disk", slot.ref.place)
                self._pages[number] = page
                while len(self._pages) > self._kept:
                    self._pages.popitem(last=False)
            else:
                self._pages.move_to_end(number)
            return page

    def entry(self, block: int) -> MapEntry | None:
        page = self.page(block // PAGE_BLOCKS)
        return page.entries[block % PAGE_BLOCKS] if page else None


class _OpenPage:
    __slots__ = ("base", "entries", "unresolved")

    def __init__(
        self, entries: list[MapEntry | None], base: list[MapEntry | None] | None, unresolved: set[int]
    ) -> None:
        self.entries = entries
        self.base = base
        self.unresolved = unresolved


class MapBuilder:
    """The map of one disk while it is backed up. Pages are opened in order, blocks resolved in any order.

    `store_page(raw)` puts a page's bytes into a metadata pack. `base` is the parent's root, whose slots may be taken over.
    """

    def __init__(self, size: int, base: Root | None, store_page: Callable[[bytes], ChunkRef]) -> None:
        self.root = Root.empty(size)
        self._base = base
        self._store_page = store_page
        self._lock = threading.Lock()
        self._packs = PackTable()  # of the pages that are made here
        self._open: dict[int, _OpenPage] = {}
        self._next = 0

    # -- opening pages, in order

    def take_over(self, page: int, slot: PageSlot | None) -> None:
        """The page is as in a map that exists (None: all zero)."""
        with self._lock:
            self.root.pages[page] = slot
            self._next = max(self._next, page + 1)

    def open_page(
        self,
        page: int,
        entries: list[MapEntry | None],
        base: list[MapEntry | None] | None,
        unresolved: Iterable[int],
    ) -> None:
        """`entries` as far as they are known; `unresolved` are the page's blocks that will be `resolve`d. `base`: the parent's."""
        opened = _OpenPage(entries, base, set(unresolved))
        with self._lock:
            self._open[page] = opened
            self._next = max(self._next, page + 1)
            done = not opened.unresolved
        if done:
            self._finish(page, opened)

    def resolve(self, block: int, entry: MapEntry | None) -> None:
        """What a block turned out to be."""
        page, k = divmod(block, PAGE_BLOCKS)
        with self._lock:
            opened = self._open[page]
            opened.entries[k] = entry
            opened.unresolved.discard(k)
            done = not opened.unresolved
        if done:
            self._finish(page, opened)

    def base_entry(self, block: int) -> MapEntry | None:
        """The parent's entry of a block of an open page; None beyond the end of a smaller parent."""
        base = self._open[block // PAGE_BLOCKS].base
        k = block % PAGE_BLOCKS
        return base[k] if base and k < len(base) else None

    def _finish(self, page: int, opened: _OpenPage) -> None:
        slot = self._slot(page, opened.entries, opened.base)
        with self._lock:
            self.root.pages[page] = slot
            del self._open[page]

    def _slot(self, page: int, entries: list[MapEntry | None], base: list[MapEntry | None] | None) -> PageSlot | None:
        if not any(entries):
            return None
        if base is not None and self._base is not None and entries == base:
            return self._base.pages[page]
        made = Page(entries)
        ref, live = self._store_page(made.encode()), made.live_bytes()
        with self._lock:
            return PageSlot(ref, LiveBytes.of(live, self._packs))

    # -- publishing

    def covered(self) -> int:
        """Blocks from the start that are all resolved."""
        with self._lock:
            return self._covered()

    def _covered(self) -> int:
        if not self._open:
            return min(self._next * PAGE_BLOCKS, self.root.blocks)
        page = min(self._open)
        return page * PAGE_BLOCKS + min(self._open[page].unresolved, default=self.root.page_blocks(page))

    def snapshot(self) -> Root:
        """The map of the blocks that are resolved from the start on, as a checkpoint names it.

        Everything that it refers to was handed to a packer before the call; what is open beyond it does not count.
        """
        with self._lock:
            covered = self._covered()
            pages = -(-covered // PAGE_BLOCKS)
            root = Root(self.root.size, covered, [*self.root.pages[:pages], *([None] * (len(self.root.pages) - pages))])
            partial = self._open.get(pages - 1) if pages else None
            entries = list(partial.entries) if partial else []
        if partial:
            inside = covered - (pages - 1) * PAGE_BLOCKS
            entries[inside:] = [None] * (len(entries) - inside)
            root.pages[pages - 1] = self._slot(pages - 1, entries, None)
        return root

    def finish(self) -> Root:
        """The whole map; every page was opened and every block resolved."""
        with self._lock:
            if self._open:
                raise ValueError(f"blocks of pages {sorted(self._open)} are not resolved")
            self.root.covered = self.root.blocks
            return self.root


def live_of(roots: Iterable[tuple[ChunkRef, Root]]) -> dict[PackName, int]:
    """Every pack that maps name, data and metadata, with live bytes: what a point's summary says."""
    known = list(roots)
    slots = [slot for _, root in known for slot in root.pages if slot is not None]
    live = total(slot.live for slot in slots)
    for ref in (*(ref for ref, _ in known), *(slot.ref for slot in slots)):
        live[ref.place.pack] = live.get(ref.place.pack, 0) + ref.place.length
    return live
