# SPDX-License-Identifier: Apache-2.0
"""Pages and roots. Their bytes are guarded by their chunk ids; alone they owe that nothing but a MoverError comes of any bytes."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mover.errors import Damaged, MoverError, UnsupportedFormat
from mover.repository.live import LiveBytes
from mover.repository.maps import PAGE_BLOCKS, ChunkRef, MapEntry, Page, PageSlot, Root
from mover.repository.names import PackName
from mover.repository.pack import Place
from mover.repository.tables import PackTable
from tests.mover.repository import codecs

MIB = 1 << 20
runs = st.lists(st.tuples(st.none() | codecs.entries, st.integers(1, 60)), min_size=1, max_size=12)


def page_of(rows: list[tuple[MapEntry | None, int]]) -> Page:
    return Page([entry for entry, count in rows for _ in range(count)][:PAGE_BLOCKS])


@given(runs)
def test_a_page_is_read_back(rows: list[tuple[MapEntry | None, int]]) -> None:
    page = page_of(rows)
    assert Page.decode(page.encode()) == page


@given(runs)
def test_live_bytes_count_each_frame_once(rows: list[tuple[MapEntry | None, int]]) -> None:
    page = page_of(rows)
    places = {entry.place for entry in page.entries if entry is not None}
    live = page.live_bytes()
    assert sum(live.values()) == sum(place.length for place in places)
    assert set(live) == {place.pack for place in places}


def test_a_full_and_a_stream_page_are_read_back() -> None:
    pack = PackName(b"w" * 48, 0)
    entries = [MapEntry(bytes([k % 256]) * 32, Place(pack, k * 70, 70)) for k in range(PAGE_BLOCKS)]
    assert Page.decode(Page([*entries]).encode()).entries == entries
    stream = Page([*entries[:3]], [5, 1 << 20, 7])
    assert Page.decode(stream.encode()) == stream


live_bytes = st.dictionaries(codecs.packs, st.integers(0, codecs.WORD), min_size=1, max_size=4).map(
    lambda live: LiveBytes.of(live, PackTable())
)
slots = st.none() | st.builds(PageSlot, codecs.refs, live_bytes)


@given(st.lists(slots, max_size=6), st.integers(0, PAGE_BLOCKS * MIB - 1), st.data())
def test_a_root_is_read_back(pages: list[PageSlot | None], less: int, data: st.DataObject) -> None:
    size = max(0, len(pages) * PAGE_BLOCKS * MIB - less) if pages else 0
    root = Root(size, 0, pages)
    root.covered = data.draw(st.integers(0, root.blocks))
    assert Root.decode(root.encode()) == root
    if pages:
        assert sum(root.page_blocks(k) for k in range(len(pages))) == root.blocks


def sample_page() -> Page:
    one, two = PackName(b"w" * 48, 0), PackName(b"x" * 48, 9)
    entry = MapEntry(b"i" * 32, Place(one, 5, 100))
    return Page([None, entry, entry, None, MapEntry(b"j" * 32, Place(two, 0, 70))])


def sample_root() -> Root:
    one, two = PackName(b"w" * 48, 0), PackName(b"x" * 48, 9)
    slot = PageSlot(ChunkRef(b"i" * 32, Place(two, 5, 100)), LiveBytes.of({one: 7, two: 9}, PackTable()))
    return Root(3 * PAGE_BLOCKS * MIB - 5, 17, [slot, None, slot])


def test_no_wound_yields_another_exception() -> None:
    codecs.assert_sturdy(Page.decode, sample_page().encode())
    codecs.assert_sturdy(Root.decode, sample_root().encode())


@given(st.binary(max_size=200))
def test_no_bytes_yield_another_exception(data: bytes) -> None:
    for magic, decode in ((b"DMPG\1\0\0\0", Page.decode), (b"DMRT\1\0\0\0", Root.decode)):
        for whole in (data, magic + data):
            codecs.yields(decode, whole)


@pytest.mark.parametrize("what", ["DMPG", "DMRT"])
def test_an_unknown_version_or_flag_is_refused(what: str) -> None:
    data = bytearray(sample_page().encode() if what == "DMPG" else sample_root().encode())
    decode = Page.decode if what == "DMPG" else Root.decode
    for at, value in ((4, 2), (5, 1), (6, 2), (7, 1)):
        changed = bytearray(data)
        changed[at] = value
        with pytest.raises(UnsupportedFormat):
            decode(bytes(changed))
    with pytest.raises(Damaged):
        decode(b"XXXX" + bytes(data[4:]))


def test_a_streams_root_is_not_taken_for_a_disks() -> None:
    """A stream's entries have lengths of their own; read as blocks of 1 MiB they would land in the wrong places."""
    data = bytearray(sample_root().encode())
    data[6] = 1
    with pytest.raises(UnsupportedFormat, match="stream"):
        Root.decode(bytes(data))


@pytest.mark.parametrize(
    ("at", "value", "error"),
    [
        (8, 2 * MIB, UnsupportedFormat),  # block size
        (12, 512, UnsupportedFormat),  # blocks in a page
        (32, 4, Damaged),  # pages
        (24, 1 << 31, Damaged),  # blocks covered
    ],
)
def test_a_root_that_does_not_add_up_is_refused(at: int, value: int, error: type[MoverError]) -> None:
    data = bytearray(sample_root().encode())
    struct.pack_into("<I", data, at, value)
    with pytest.raises(error):
        Root.decode(bytes(data))
