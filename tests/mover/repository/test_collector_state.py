# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mover.errors import Damaged, MissingObject, UnsupportedFormat
from mover.repository import signed_json
from mover.repository.collector_state import FORMAT, LIST_FORMAT, CollectorState, read_state
from mover.repository.names import COLLECTOR_STATE, PackName
from mover.store.memory import MemoryStore
from tests.mover.repository import codecs


def by_name(packs: list[PackName]) -> tuple[PackName, ...]:
    return tuple(sorted(packs, key=str))


point_names = st.sampled_from([f"points/{'a1' * 16}/{digit * 32}" for digit in "0123"])
some_points = st.frozensets(point_names, max_size=3)
some_packs = st.frozensets(codecs.packs, max_size=3)
states = st.builds(
    CollectorState,
    generation=st.integers(1, 1 << 60),
    write_id=st.just("ab" * 16),
    time=st.floats(0, 1e12),
    owner_epoch=st.integers(1, 9),
    condemned_points=some_points,
    condemned_packs=some_packs,
    gone_points=some_points,
    gone_packs=some_packs,
    forwards=st.dictionaries(codecs.packs, st.lists(codecs.packs, unique=True, max_size=3).map(by_name), max_size=3),
    quarantine=st.frozensets(st.tuples(codecs.packs, st.integers(0, codecs.WORD)), max_size=3),
    catalog_runs=st.lists(st.just("index/x"), max_size=2).map(tuple),
    folded=st.frozensets(st.just("session"), max_size=1),
    points=some_points,
)
STATE = CollectorState(
    4, "ab" * 16, 1.5, 1, gone_packs=frozenset({PackName(b"w" * 48, 3)}), points=frozenset({"points/x"})
)


def read(data: bytes, **objects: bytes) -> CollectorState:
    store = MemoryStore()
    store.create_record(COLLECTOR_STATE, data, {})
    for name, content in objects.items():
        store.put(f"gc/{name}", [content])
    return read_state(store)


@given(states)
def test_a_state_is_read_back(state: CollectorState) -> None:
    assert read(state.encode()) == state


def test_a_harmless_wound_is_a_blank() -> None:
    data = STATE.encode()
    assert codecs.assert_guarded(read, data) <= data.count(b" ") + 2


def crafted(**members: Any) -> bytes:
    value = json.loads(STATE.encode())
    del value["checksum"], value["format"], value["version"], value["features"]
    return signed_json.dump(FORMAT, value | members)


def listed(value: object) -> bytes:
    return signed_json.dump(LIST_FORMAT, {"value": value})


def test_a_list_may_stand_in_an_object_of_its_own() -> None:
    pack = str(PackName(b"w" * 48, 7))
    state = read(
        crafted(
            forwards={"object": "gc/forwards"},
            gone={"points": [], "packs": {"object": "gc/packs"}},
            catalog={"object": "gc/catalog"},
        ),
        forwards=listed({pack: [pack]}),
        packs=listed([pack]),
        catalog=listed({"runs": ["index/x"], "folded": {"object": "gc/folded"}}),
        folded=listed(["s"]),
    )
    assert [str(name) for name in state.gone_packs] == [pack]
    assert {str(key): [str(name) for name in value] for key, value in state.forwards.items()} == {pack: [pack]}
    assert (state.catalog_runs, state.folded) == (("index/x",), frozenset({"s"}))


def test_a_list_that_is_missing_damaged_or_newer_is_told() -> None:
    data = crafted(points={"object": "gc/points"})
    with pytest.raises(MissingObject, match="gc/points"):
        read(data)
    with pytest.raises(Damaged, match="gc/points"):
        read(data, points=listed([])[:-9])
    with pytest.raises(UnsupportedFormat, match="gc/points"):
        read(data, points=signed_json.dump(LIST_FORMAT, {"value": [], "version": 2}))


def test_a_missing_state_is_damage_and_never_a_fresh_start() -> None:
    with pytest.raises(MissingObject, match=COLLECTOR_STATE):
        read_state(MemoryStore())


@pytest.mark.parametrize(
    "members",
    [
        {"condemned": None},
        {"gone": {"points": []}},
        {"gone": {"points": [], "packs": ["x"]}},
        {"gone": {"points": 7, "packs": []}},
        {"forwards": []},
        {"forwards": {"x": []}},
        {"quarantine": [["x", 0]]},
        {"quarantine": [[]]},
        {"quarantine": [[str(PackName(b"w" * 48, 7)), "x"]]},
        {"catalog": []},
        {"points": [[]]},
        {"points": {"object": 7}},
        {"generation": "4"},
        {"owner_epoch": None},
        {"time": "x"},
    ],
)
def test_a_member_that_cannot_be_is_damage(members: dict[str, Any]) -> None:
    with pytest.raises(Damaged, match=COLLECTOR_STATE):
        read(crafted(**members))


def test_forwards_are_followed_to_their_ends_once() -> None:
    a, b, c, d = (PackName(b"w" * 48, number) for number in range(4))
    state = CollectorState(1, "", 0.0, 1, forwards={a: (b, c), b: (d,), d: (a, b)})
    assert state.forwarded(a) == [b, c, d]
    assert state.forwarded(c) == []
    assert state.forwarded(d) == [a, b, c]
