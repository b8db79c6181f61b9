# SPDX-License-Identifier: Apache-2.0
"""The dedupe view against a plain dict: what it hands out is in a counting run and counts; what counts is found."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mover.repository import record
from mover.repository.collector_state import CollectorState
from mover.repository.index import DedupeView, counting_runs
from mover.repository.index_run import BLOCK_RECORDS, RECORD_SIZE, encode_run
from mover.repository.keys import KeyRing
from mover.repository.names import PackName
from mover.repository.pack import Place
from mover.store.memory import MemoryStore

SESSION, OWN = f"{'a1' * 16}-{'b2' * 16}", f"{'a1' * 16}-{'c3' * 16}"
WRITERS = [bytes.fromhex(session.replace("-", "")) + bytes([k]) * 16 for session in (SESSION, OWN) for k in (0, 255)]
PACKS = [PackName(writer, number) for writer in WRITERS for number in (0, 1)]
IDS = [
    bytes(32),
    b"\xff" * 32,
    b"\1" + bytes(31),
    b"\1\1" + bytes(30),
    bytes(31) + b"\1",
    b"\xff" * 31 + b"\0",
    *(bytes([k]) * 32 for k in (2, 127, 128)),
]
STATE = CollectorState(1, "", 0.0, 1)
Run = list[tuple[bytes, Place]]

places = st.builds(Place, st.sampled_from(PACKS), st.sampled_from([0, 70, 4_000_000_000]), st.just(70))
runs = st.lists(st.tuples(st.sampled_from(IDS), places), min_size=0, max_size=15)
shapes = st.sampled_from([(1 << 20, 1 << 20), (0, 1 << 20), (1 << 20, 0), (1 << 20, 1_500)])
"""(small_run, resident_bytes): all in memory, all by blocks, all by blocks, as many as fit."""


def stored(store: MemoryStore, number: int, run: Run) -> str:
    name = f"index/{SESSION}/{'d4' * 16}-{number}"
    store.put(name, [encode_run([(chunk_id, place, 1) for chunk_id, place in run])])
    return name


def view_of(
    store: MemoryStore, names: list[str], shape: tuple[int, int] = (1 << 20, 1 << 20), threads: int = 1
) -> DedupeView:
    return DedupeView(store, OWN, lambda: names, small_run=shape[0], resident_bytes=shape[1], threads=threads)


@dataclass
class Model:
    """What a view should know."""

    places: dict[bytes, set[Place]] = field(default_factory=dict)
    absent: set[PackName] = field(default_factory=set)
    quarantine: frozenset[tuple[PackName, int]] = frozenset()
    handed: set[PackName] = field(default_factory=set)

    def take(self, run: Run) -> None:
        for chunk_id, place in run:
            self.places.setdefault(chunk_id, set()).add(place)

    def counting(self, chunk_id: bytes) -> set[Place]:
        return {
            place
            for place in self.places.get(chunk_id, ())
            if place.pack not in self.absent and (place.pack, place.offset) not in self.quarantine
        }

    def check(self, view: DedupeView, ids: list[bytes]) -> None:
        for chunk_id, place in zip(ids, view.find(ids), strict=True):
            counting = self.counting(chunk_id)
            assert (place in counting) if counting else (place is None)
            if place is not None:
                self.handed.add(place.pack)
        assert view.used() == sorted(pack for pack in self.handed if pack.session != OWN)


@given(st.lists(runs, max_size=5), shapes, st.data())
def test_it_finds_what_a_dict_finds(given_runs: list[Run], shape: tuple[int, int], data: st.DataObject) -> None:
    """Several places for an id, condemned and gone packs, quarantined places; lookups in any order, before and after."""
    store, model = MemoryStore(), Model()
    names = [stored(store, number, run) for number, run in enumerate(given_runs)]
    for run in given_runs:
        model.take(run)
    view = view_of(store, names, shape)
    asked = st.lists(st.sampled_from(IDS), max_size=12)
    for _ in range(data.draw(st.integers(1, 3))):
        step = data.draw(st.sampled_from(["look", "exclude", "publish"]))
        if step == "exclude":
            condemned, gone = (frozenset(data.draw(st.lists(st.sampled_from(PACKS), max_size=2))) for _ in range(2))
            quarantine = frozenset((place.pack, place.offset) for place in data.draw(st.lists(places, max_size=2)))
            view.exclude(replace(STATE, condemned_packs=condemned, gone_packs=gone, quarantine=quarantine))
            model.absent |= condemned | gone  # what left never comes back
            model.quarantine = quarantine
        elif step == "publish":
            view.find([IDS[0]])  # a session looks up before it stores
            model.check(view, [IDS[0]])
            fresh = data.draw(runs)
            for chunk_id, place in fresh:
                view.add(chunk_id, place)
            model.take(fresh)
            entries = [(chunk_id, place, 1) for chunk_id, place in fresh]
            name = stored(store, 100 + len(list(store.list("index/"))), fresh)
            view.publish(entries, name, encode_run(entries))
        model.check(view, data.draw(asked))
    model.check(view, IDS)


@given(st.lists(runs, min_size=1, max_size=4), shapes, st.data())
def test_a_run_that_is_lost_is_passed_over(given_runs: list[Run], shape: tuple[int, int], data: st.DataObject) -> None:
    """Missing, cut or flipped: what the other runs have is found, nothing that is in none of them."""
    store, whole, left = MemoryStore(), Model(), Model()
    lost = data.draw(st.integers(0, len(given_runs) - 1))
    names = []
    for number, run in enumerate(given_runs):
        name = f"index/{SESSION}/{'d4' * 16}-{number}"
        names.append(name)
        content = bytearray(encode_run([(chunk_id, place, 1) for chunk_id, place in run]))
        whole.take(run)
        if number != lost:
            left.take(run)
        else:
            wound = data.draw(st.sampled_from(["missing", "cut", "flipped"]))
            if wound == "missing":
                continue
            at = data.draw(st.integers(0, len(content) - 1))
            if wound == "cut":
                del content[at:]
            else:
                content[at] ^= data.draw(st.integers(1, 255))
        store.put(name, [content])
    view = view_of(store, names, shape)
    for chunk_id, place in zip(IDS, view.find(IDS), strict=True):
        assert place is None or place in whole.counting(chunk_id)
        assert place is not None or not left.counting(chunk_id)
    assert view.passed_over <= 1


def test_a_lost_run_is_counted() -> None:
    store = MemoryStore()
    view = view_of(store, ["index/none", stored(store, 0, [(IDS[0], Place(PACKS[0], 0, 70))])])
    assert view.find([IDS[0]]) != [None]
    assert view.passed_over == 1


def test_nothing_is_read_before_the_first_lookup() -> None:
    def runs() -> list[str]:
        raise AssertionError("an incremental that stores nothing never reads the index")

    view = DedupeView(MemoryStore(), OWN, runs)
    view.exclude(STATE)
    view.remember_used([PACKS[0]])
    assert view.used() == [PACKS[0]]


@pytest.mark.parametrize("threads", [1, 4])
def test_many_runs_are_fetched_by_threads(threads: int) -> None:
    store, model = MemoryStore(), Model()
    names = []
    for number in range(20):
        run = [(bytes([number]) * 32, Place(PACKS[number % 8], number, 70))]
        model.take(run)
        names.append(stored(store, number, run))
    model.check(view_of(store, names, threads=threads), [bytes([number]) * 32 for number in range(21)])


# -- which runs count


def test_runs_in_the_store_share_what_is_kept_of_them() -> None:
    """However many there are and whatever is looked up, they do not all come to be in memory."""
    store, blocks, runs = MemoryStore(), 3, 20
    writer = random.Random(1)
    ids = [[writer.randbytes(32) for _ in range(blocks * BLOCK_RECORDS)] for _ in range(runs)]
    names = [stored(store, k, [(one, Place(PACKS[0], 0, 70)) for one in some]) for k, some in enumerate(ids)]
    view = view_of(store, names, (0, 4 * 30 * BLOCK_RECORDS * RECORD_SIZE))
    for some in ids:
        assert all(view.find(some[::100]))
    assert [len(run._blocks) for run in view._remote] == [1] * runs, "30 blocks in all: one each"


def record_with(store: MemoryStore, name: str, runs: tuple[tuple[str, int], ...], state: str = record.OPEN) -> None:
    ring = KeyRing(bytes(32), {}, 0)
    header = record.Header(
        kind="point", name=name, state=state, resource="a1" * 16, incarnation="", write_id="", time=0.0, runs=runs
    )
    store.create_record(name, record.encode(header, record.Body(), ring), record.metadata_of(header))


def counted(fill: Callable[[MemoryStore], None], state: CollectorState = STATE) -> list[str]:
    store = MemoryStore()
    fill(store)
    return counting_runs(store, state)


ONE, TWO = (f"points/{'a1' * 16}/{digit * 32}" for digit in "12")
SESSION_ONE, SESSION_TWO = (f"{'a1' * 16}-{digit * 32}" for digit in "12")


class GatedStore(MemoryStore):
    """Ranges of index runs are answered once `gate` is open; `asked` tells that one is wanted."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.asked = threading.Event(), threading.Event()
        self.gate.set()

    def read(self, name: str, offset: int, length: int) -> bytearray:
        self.asked.set()
        assert self.gate.wait(60)
        return super().read(name, offset, length)


def test_a_slow_store_delays_no_acknowledgement() -> None:
    """I14: a pack that is condemned while a lookup waits for the store leaves the view at once, and is not handed out."""
    store = GatedStore()
    place, other = Place(PACKS[0], 0, 70), Place(PACKS[1], 0, 70)
    view = view_of(store, [stored(store, 0, [(IDS[6], place), (IDS[7], other)])], (0, 1 << 20))
    assert view.find([IDS[8]]) == [None]  # it is open
    store.gate.clear()
    store.asked.clear()
    with ThreadPoolExecutor(1) as pool:
        lookup = pool.submit(view.find, [IDS[6], IDS[7]])
        try:
            assert store.asked.wait(60)
            view.exclude(replace(STATE, gone_packs=frozenset({PACKS[0]})))
            assert not lookup.done()
        finally:
            store.gate.set()
        assert lookup.result() == [None, other]
    assert view.used() == [PACKS[1]]


def test_runs_of_all_sessions_that_are_not_folded_count() -> None:
    """I2: open, committed and aborted ones alike, and the catalog's."""

    def fill(store: MemoryStore) -> None:
        record_with(store, ONE, (("e" * 32, 2), ("f" * 32, 1)), record.ABORTED)
        record_with(store, TWO, (("e" * 32, 1),), record.COMMITTED)

    own = [
        f"index/{SESSION_ONE}/{'e' * 32}-0",
        f"index/{SESSION_ONE}/{'e' * 32}-1",
        f"index/{SESSION_ONE}/{'f' * 32}-0",
    ]
    other = [f"index/{SESSION_TWO}/{'e' * 32}-0"]
    assert counted(fill) == [*own, *other]
    folded = replace(STATE, folded=frozenset({SESSION_ONE}), catalog_runs=("index/catalog",))
    assert counted(fill, folded) == ["index/catalog", *other]


def test_many_incarnations_are_read_from_the_record() -> None:
    runs = tuple((f"{k:032x}", 1) for k in range(record.MAX_LISTED_RUNS + 1))
    assert len(counted(lambda store: record_with(store, ONE, runs))) == len(runs)


def test_a_damaged_record_costs_its_own_runs_only() -> None:
    def fill(store: MemoryStore) -> None:
        store.create_record(ONE, b"damaged", {"state": "open"})

    assert counted(fill) == []
