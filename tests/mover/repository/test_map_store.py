# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mover.errors import Damaged
from mover.repository import map_store
from mover.repository.frame import FrameReader, FrameWriter
from mover.repository.keys import KeyRing, Kind
from mover.repository.live import LiveBytes
from mover.repository.map_store import MapBuilder, MapReader, live_of, pages_kept
from mover.repository.maps import BLOCK_SIZE, PAGE_BLOCKS, ChunkRef, MapEntry, Page, PageSlot, Root
from mover.repository.names import METADATA_BIT, PackName
from mover.repository.pack import Place
from mover.repository.packer import Packer
from mover.repository.reader import read_chunk
from mover.repository.tables import PackTable
from mover.store.base import Store
from mover.store.memory import MemoryStore

PACK, META = PackName(b"w" * 48, 0), PackName(b"w" * 48, METADATA_BIT)
Entries = list[MapEntry | None]


def entry(number: int) -> MapEntry:
    return MapEntry(number.to_bytes(32, "big"), Place(PACK, number, 70))


class Pages:
    """Stands for a session: keeps pages by what they hold, so that equal pages have equal places."""

    def __init__(self) -> None:
        self.raw: dict[bytes, bytes] = {}
        self.stored: list[bytes] = []

    def store(self, raw: bytes) -> ChunkRef:
        name = hashlib.sha256(raw).digest()
        self.raw[name] = raw
        self.stored.append(name)
        return ChunkRef(name, Place(META, int.from_bytes(name[:3], "big"), len(raw)))

    def entries(self, root: Root) -> Entries:
        """The whole map as the root tells it."""
        found: Entries = []
        for number, slot in enumerate(root.pages):
            page = (
                [None] * root.page_blocks(number) if slot is None else Page.decode(self.raw[slot.ref.chunk_id]).entries
            )
            assert len(page) == root.page_blocks(number)
            found += page
        return found


def size_of(blocks: int) -> int:
    return blocks * BLOCK_SIZE - 17


def build(
    pages: Pages,
    entries: Entries,
    order: Callable[[list[int]], list[int]],
    base: Root | None = None,
    after: Callable[[MapBuilder, set[int]], None] = lambda builder, resolved: None,
) -> Root:
    """The map of `entries`, every block of it resolved, in the order given; `after` is called after each."""
    builder = MapBuilder(size_of(len(entries)), base, pages.store)
    known = pages.entries(base) if base else []
    for number in range(len(builder.root.pages)):
        low, count = number * PAGE_BLOCKS, builder.root.page_blocks(number)
        page_base = known[low : low + count] if base and number < len(base.pages) else None
        if page_base is not None and len(page_base) != count:
            page_base = None
        builder.open_page(number, [None] * count, page_base, range(count))
    resolved: set[int] = set()
    for block in order(list(range(len(entries)))):
        builder.resolve(block, entries[block])
        resolved.add(block)
        after(builder, resolved)
    return builder.finish()


def shuffled(seed: int) -> Callable[[list[int]], list[int]]:
    def order(blocks: list[int]) -> list[int]:
        random.Random(seed).shuffle(blocks)
        return blocks

    return order


def sample(blocks: int, seed: int = 1) -> Entries:
    rng = random.Random(seed)
    return [entry(k) if rng.random() < 0.3 else None for k in range(blocks)]


@pytest.mark.parametrize("blocks", [1, 1023, 1024, 1025, 2500])
def test_any_order_gives_the_same_map(blocks: int) -> None:
    entries = sample(blocks)
    pages = Pages()
    roots = [build(pages, entries, order) for order in (list, lambda b: b[::-1], shuffled(1), shuffled(2))]
    assert all(root == roots[0] for root in roots)
    assert roots[0].covered == blocks
    assert pages.entries(roots[0]) == entries
    assert Root.decode(roots[0].encode()) == roots[0]


@given(st.integers(0, 1 << 30), st.sampled_from([5, 1024, 1030, 2100]))
def test_a_snapshot_names_what_is_resolved_and_nothing_else(seed: int, blocks: int) -> None:
    entries, pages, rng = sample(blocks, seed), Pages(), random.Random(seed)

    def check(builder: MapBuilder, resolved: set[int]) -> None:
        if rng.random() > 0.01 and len(resolved) not in (1, blocks):
            return
        covered = next((k for k in range(blocks) if k not in resolved), blocks)
        assert builder.covered() == covered
        root = builder.snapshot()
        assert root.covered == covered
        assert pages.entries(root) == entries[:covered] + [None] * (blocks - covered)
        assert Root.decode(root.encode()) == root

    def nearly(all_blocks: list[int]) -> list[int]:
        """As readers and workers finish: near the order, not in it."""
        return sorted(all_blocks, key=lambda block: block + rng.randrange(40))

    build(pages, entries, nearly, after=check)


def test_a_page_that_nobody_opened_is_not_covered() -> None:
    builder = MapBuilder(size_of(3 * PAGE_BLOCKS), None, Pages().store)
    assert builder.covered() == 0
    builder.take_over(0, None)
    assert builder.covered() == PAGE_BLOCKS
    builder.open_page(1, [None] * PAGE_BLOCKS, None, [5])
    assert builder.covered() == PAGE_BLOCKS + 5
    builder.resolve(PAGE_BLOCKS + 5, None)
    assert builder.covered() == 2 * PAGE_BLOCKS
    assert builder.snapshot().covered == 2 * PAGE_BLOCKS


def test_pages_as_in_the_parent_are_not_written_again() -> None:
    entries, pages = sample(2500), Pages()
    base = build(pages, entries, list)
    pages.stored.clear()
    again = build(pages, entries, shuffled(1), base)
    assert (pages.stored, again.pages) == ([], base.pages)
    changed = [*entries]
    changed[1100] = entry(9999)
    root = build(pages, changed, shuffled(2), base)
    assert len(pages.stored) == 1
    assert (root.pages[0], root.pages[2]) == (base.pages[0], base.pages[2])
    assert pages.entries(root) == changed


def test_a_page_that_became_zero_is_no_chunk() -> None:
    pages = Pages()
    base = build(pages, sample(1500), list)
    root = build(pages, [None] * 1500, list, base)
    assert root.pages == [None, None]


def test_a_disk_that_grew_gets_new_pages_where_the_old_one_was_shorter() -> None:
    pages = Pages()
    base = build(pages, sample(1500), list)
    entries = sample(2600, 2)
    root = build(pages, entries, list, base)
    assert pages.entries(root) == entries


def test_a_map_is_finished_when_all_is_resolved() -> None:
    builder = MapBuilder(size_of(10), None, Pages().store)
    builder.open_page(0, [None] * 10, None, [3])
    with pytest.raises(ValueError, match="not resolved"):
        builder.finish()


def test_known_entries_need_not_be_resolved() -> None:
    pages = Pages()
    builder = MapBuilder(size_of(10), None, pages.store)
    entries: Entries = [entry(k) for k in range(10)]
    builder.open_page(0, [*entries], None, [])
    assert pages.entries(builder.finish()) == entries


# -- reading


def stored_map(entries: Entries) -> tuple[MemoryStore, KeyRing, ChunkRef]:
    store, ring = MemoryStore(), KeyRing(b"i" * 32, {1: b"1" * 32}, 1)
    packer, writer = Packer(store, b"w" * 48, metadata=True, uploads=0), FrameWriter(ring)

    def add(kind: Kind, raw: bytes) -> ChunkRef:
        frame = writer.write(kind, raw)
        return ChunkRef(frame.chunk_id, packer.add(frame))

    builder = MapBuilder(size_of(len(entries)), None, lambda raw: add(Kind.PAGE, raw))
    for number in range(len(builder.root.pages)):
        low, count = number * PAGE_BLOCKS, builder.root.page_blocks(number)
        builder.open_page(number, entries[low : low + count], None, [])
    ref = add(Kind.ROOT, builder.finish().encode())
    packer.flush()
    return store, ring, ref


def test_a_reader_gives_every_entry() -> None:
    entries = sample(1100) + [None] * 1000
    store, ring, ref = stored_map(entries)
    reader = MapReader.open(store, ring, ref)
    assert [reader.entry(block) for block in range(len(entries))] == entries
    assert reader.page(2) is None


def test_a_reader_keeps_so_many_pages_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    store, ring, ref = stored_map(sample(3 * PAGE_BLOCKS))
    reader = MapReader.open(store, ring, ref, kept=2)
    fetched: list[ChunkRef] = []

    def noted(store: Store, reader: FrameReader, ref: ChunkRef, kind: Kind) -> bytes:
        fetched.append(ref)
        return read_chunk(store, reader, ref, kind)

    monkeypatch.setattr(map_store, "read_chunk", noted)
    for number in (0, 1, 2, 1, 2, 0):
        assert reader.page(number)
    assert [slot and slot.ref for slot in (*reader.root.pages, reader.root.pages[0])] == fetched
    assert [pages_kept(disks) for disks in (1, 4, 64)] == [64, 16, 2]


def test_a_page_of_another_size_is_damage() -> None:
    store, ring, ref = stored_map(sample(2000))
    root = MapReader.open(store, ring, ref).root
    root.pages.reverse()
    with pytest.raises(Damaged, match="another number of blocks"):
        MapReader(store, ring, root).page(0)


def test_live_bytes_of_maps_add_up() -> None:
    other = PackName(b"x" * 48, 1)
    slot = PageSlot(ChunkRef(bytes(32), Place(META, 0, 300)), LiveBytes.of({PACK: 140, other: 70}, PackTable()))
    root = Root(size_of(2 * PAGE_BLOCKS), 2 * PAGE_BLOCKS, [slot, slot])
    ref = ChunkRef(bytes(32), Place(META, 300, 200))
    assert live_of([(ref, root), (ref, Root.empty(1))]) == {META: 2 * 300 + 2 * 200, PACK: 280, other: 140}
