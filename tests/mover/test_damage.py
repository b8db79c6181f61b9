# SPDX-License-Identifier: Apache-2.0
"""Damage to every object of a real repository: a typed error that names object and place, or the right bytes, nothing else.

After each wound every operation that can notice it runs again; `tests/mover/wounds.py` says how that is known. The share for CI
flips every metadata byte once, by a mask that the seed draws; the slow share flips each bit of it, and 10,000 places in packs.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from mover.errors import MoverError
from mover.repository import keys
from mover.repository.collector_state import CollectorState
from mover.repository.index import DedupeView
from mover.repository.keys import Kind
from mover.repository.names import DESCRIPTOR
from mover.repository.opening import latest_point
from mover.repository.repository import Repository
from mover.store.local import LocalStore
from tests.mover import wounds
from tests.mover.wounds import MIB, PASSWORD, SparseDisk, Ward, Wound, Wounded

BITS = [1 << bit for bit in range(8)]


@pytest.fixture(scope="module", params=[None, PASSWORD], ids=["clear", "sealed"])
def ward(request: pytest.FixtureRequest) -> Ward:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            keys, "SCRYPT_N", 2
        )  # a slot says its own figures: opening costs what it must not cost 10,000 times
        return Ward(wounds.sample(request.param))


def masks(seed: object, share: str) -> Iterator[list[int]]:
    """For one byte after the other the masks that it is flipped by."""
    rng = random.Random(repr(seed))
    while True:
        yield BITS if share == "all" else [rng.randrange(1, 256)]


def flips(ward: Ward, name: str, share: str) -> Iterator[Wound]:
    data = ward.contents[name]
    for at, chosen in zip(range(len(data)), masks(name[-1], share), strict=False):
        yield from (wounds.flip(name, data, at, mask) for mask in chosen)


SHARES = pytest.mark.parametrize("share", ["one", pytest.param("all", marks=pytest.mark.slow)])


# -- flips


@SHARES
@pytest.mark.parametrize("top", ["points/", "gc/", "metadata packs"])
def test_every_metadata_byte_flipped(ward: Ward, top: str, share: str) -> None:
    names = ward.packs(metadata=True) if top == "metadata packs" else ward.names(top)
    assert names
    errors, harmless = ward.errors, ward.harmless
    for name in names:
        for k, wound in enumerate(flips(ward, name, share)):
            # Every restore reads gc/state and goes on without it: in CI they take turns.
            ward.examine(wound, only=k if (top, share) == ("gc/", "one") else None)
    if top == "gc/":  # what can be restored is, without a hold
        assert (ward.errors, ward.harmless > harmless) == (errors, True)
    else:
        assert ward.errors > errors


@SHARES
def test_every_byte_of_the_descriptor_flipped(ward: Ward, share: str) -> None:
    healthy = Repository.open(ward.sample.store, password=ward.sample.password)
    harmless = 0
    for wound in flips(ward, DESCRIPTOR, share):
        try:
            opened = Repository.open(Wounded(ward.sample.store, wound), password=ward.sample.password)
        except MoverError as error:
            assert DESCRIPTOR in str(error), f"{wound}: {error}"  # noqa: PT017 - not every wound raises
            continue
        harmless += 1
        assert opened.descriptor == healthy.descriptor, str(wound)
        assert [opened.keys.chunk_id(kind, b"") for kind in Kind] == [healthy.keys.chunk_id(kind, b"") for kind in Kind]
        if opened.keys.encrypted:
            assert opened.keys.point_mac(1, b"") == healthy.keys.point_mac(1, b"")
    assert harmless < len(ward.contents[DESCRIPTOR]) / 4  # blanks, and how a letter is escaped


@pytest.mark.parametrize("count", [400, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_places_in_data_packs_flipped(ward: Ward, count: int) -> None:
    rng = random.Random(count)
    packs = ward.packs(metadata=False)
    before = ward.errors
    for k in range(count):
        name = rng.choice(packs)
        data = ward.contents[name]
        anywhere = rng.randrange(len(data))
        beside = min(rng.choice(wounds.edges(name, data)) + rng.randrange(64), len(data) - 1)  # headers, small frames
        ward.examine(wounds.flip(name, data, beside if k % 2 else anywhere, rng.randrange(1, 256)))
    assert ward.errors > before


def lookups(ward: Ward, small_run: int, dealt: Iterable[Wound]) -> int:
    """No restore asks for the index. A lookup yields a place that has the chunk, or nothing; how often nothing is returned."""
    places: dict[bytes, set[tuple[str, int, int]]] = {}
    for name in ward.packs(metadata=False):
        for entry in wounds.directory(name, ward.contents[name]):
            places.setdefault(entry.chunk_id, set()).add((name, entry.offset, entry.length))
    lost = 0
    for wound in dealt:
        assert not any(seen.touched(wound) for seen in ward.seen.values())
        view = DedupeView(
            Wounded(ward.sample.store, wound), "none", lambda: ward.names("index/"), small_run=small_run, threads=1
        )
        found = view.find(list(places))
        for chunk_id, place in zip(places, found, strict=True):
            assert place is None or (place.pack.object, place.offset, place.length) in places[chunk_id], str(wound)
        lost += found.count(None)
    return lost


@SHARES
@pytest.mark.parametrize("small_run", [1 << 20, 0], ids=["resident", "remote"])
def test_every_byte_of_every_index_run_flipped(ward: Ward, small_run: int, share: str) -> None:
    assert lookups(ward, small_run, (wound for name in ward.names("index/") for wound in flips(ward, name, share)))


@pytest.mark.parametrize("small_run", [1 << 20, 0], ids=["resident", "remote"])
def test_every_index_run_cut_at_every_edge(ward: Ward, small_run: int) -> None:
    runs = {name: ward.contents[name] for name in ward.names("index/")}
    cuts = (wounds.truncate(name, data, edge) for name, data in runs.items() for edge in wounds.edges(name, data))
    assert lookups(ward, small_run, cuts)
    assert lookups(ward, small_run, map(wounds.remove, runs))


# -- cut, swapped, removed


@pytest.mark.parametrize("top", ["points/", "gc/", "packs/", DESCRIPTOR])
def test_every_object_cut_at_every_edge(ward: Ward, top: str) -> None:
    for name in ward.names(top):
        for length in wounds.edges(name, ward.contents[name]):
            wound = wounds.truncate(name, ward.contents[name], length)
            if top != DESCRIPTOR:
                ward.examine(wound)
                continue
            if wound.contents[name] == ward.contents[name].rstrip():
                continue  # without the line's end it is the same JSON
            with pytest.raises(MoverError, match=DESCRIPTOR):
                Repository.open(Wounded(ward.sample.store, wound), password=ward.sample.password)


def test_every_pair_of_a_kind_swapped(ward: Ward) -> None:
    before = ward.errors
    for names in (
        ward.names("points/"),
        ward.names("index/"),
        ward.packs(metadata=True),
        ward.packs(metadata=False),
    ):
        assert len(names) > 1
        for one, two in itertools.combinations(names, 2):
            ward.examine(wounds.swap(one, two, ward.contents))
    assert ward.errors > before


def test_objects_of_different_kinds_swapped(ward: Ward) -> None:
    samples = [ward.names("points/")[0], "gc/state", ward.packs(metadata=True)[0], ward.packs(metadata=False)[0]]
    for one, two in itertools.combinations(samples, 2):
        ward.examine(wounds.swap(one, two, ward.contents))


def test_every_object_removed(ward: Ward) -> None:
    for name in ward.contents:
        if name != DESCRIPTOR:
            ward.examine(wounds.remove(name))
    with pytest.raises(MoverError, match=DESCRIPTOR):
        Repository.open(Wounded(ward.sample.store, wounds.remove(DESCRIPTOR)), password=ward.sample.password)


# -- the next backup


@pytest.mark.parametrize("share", [12, pytest.param(400, marks=pytest.mark.slow)])
def test_a_backup_over_a_damaged_index_is_right(ward: Ward, share: int) -> None:
    """Only space is lost: equal blocks may be stored again."""
    rng = random.Random(share)
    disk = SparseDisk(
        "fresh", 5 * MIB, {0: wounds.block(1), 1: wounds.block(9), 2: wounds.block(10), 4: wounds.block(77)}
    )
    for k in range(share):
        name = rng.choice(ward.names("index/"))
        data = ward.contents[name]
        cut, flipped = rng.choice(wounds.edges(name, data)), rng.randrange(len(data))
        wound = [
            wounds.flip(name, data, flipped, rng.randrange(1, 256)),
            wounds.truncate(name, data, cut),
            wounds.remove(name),
        ][k % 3]
        repository = Repository(
            Wounded(ward.sample.store, wound), ward.sample.repository.descriptor, ward.sample.repository.keys
        )
        result = wounds.back_up(repository, f"{share}-{k}", disk, resource=f"fresh-{share}-{k}")
        assert wounds.restored(ward.sample.repository, result.point, 0) == disk.blocks, str(wound)


def test_a_swapped_index_run_is_still_true(ward: Ward) -> None:
    """A run's entries name packs in full, so a run under another run's name says nothing wrong."""
    one, two = ward.names("index/")[:2]
    store = Wounded(ward.sample.store, wounds.swap(one, two, ward.contents))
    healthy = DedupeView(ward.sample.store, "none", lambda: [one, two], threads=1)
    swapped = DedupeView(store, "none", lambda: [one, two], threads=1)
    ids = [
        entry.chunk_id for name in ward.packs(metadata=False) for entry in wounds.directory(name, ward.contents[name])
    ]
    for view in (healthy, swapped):
        view.exclude(CollectorState(1, "", 0.0, 1))
    assert [place is None for place in swapped.find(ids)] == [place is None for place in healthy.find(ids)]


# -- the first line of a local record, which is the store's own


def test_every_byte_of_a_local_records_first_line_flipped(tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    repository = Repository.create(LocalStore(folder))
    disk = SparseDisk("disk", MIB, {0: wounds.block(1)})
    names = [wounds.back_up(repository, job, disk).point for job in ("one", "two")]
    for name in [names[-1], "gc/state", DESCRIPTOR]:
        whole = (folder / name).read_bytes()
        rng = random.Random(len(whole))
        for at in range(whole.index(b"\n") + 1):
            damaged = bytearray(whole)
            damaged[at] ^= rng.randrange(1, 256)
            (folder / name).write_bytes(damaged)
            store = LocalStore(folder)
            try:
                opened = Repository.open(store)
                assert [point.name for point in opened.points()] == names, bytes(damaged[: at + 1])
                assert wounds.restored(opened, names[-1], 0) == disk.blocks
                assert latest_point(store, names[0].split("/")[1])[0] in names
            except MoverError as error:
                assert name in str(error), f"{bytes(damaged[: at + 1])!r}: {error}"  # noqa: PT017
            store.close()
            (folder / name).write_bytes(whole)
