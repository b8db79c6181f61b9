# SPDX-License-Identifier: Apache-2.0
"""What brings back what damage took: the next incremental reads again what is lost or quarantined (I8), readers follow
forwards (I15's half of them), and an index that lies costs an error, never a wrong byte.

The collector here is scripted: it writes gc/state and copies frames as rules I8 and I15 say.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable

import pytest

from mover.disk.changes import ChangeMap
from mover.errors import Damaged, MissingObject, PointGone, UnsupportedFormat
from mover.repository import keys, pack
from mover.repository.collector_state import CollectorState, read_state
from mover.repository.index_run import decode_run, encode_run
from mover.repository.map_store import MapReader
from mover.repository.maps import MapEntry
from mover.repository.names import COLLECTOR_STATE, METADATA_BIT, PackName
from mover.repository.pack import Place
from mover.repository.record import place_from_json
from mover.repository.repository import Repository
from mover.store.memory import MemoryStore
from tests.mover import wounds
from tests.mover.wounds import MIB, PASSWORD, SparseDisk, Wound, Wounded

SIZE = 1_030 * MIB


@pytest.fixture(params=[None, PASSWORD], ids=["clear", "sealed"])
def repository(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Repository:
    monkeypatch.setattr(keys, "SCRYPT_N", 2)
    return Repository.create(MemoryStore(), password=request.param)


def disk() -> SparseDisk:
    blocks = {k: wounds.block(k) for k in (0, 1, 5, 1_026)}
    return SparseDisk("disk", SIZE, blocks)


def wounded(repository: Repository, wound: Wound) -> Repository:
    return Repository(Wounded(repository.store, wound), repository.descriptor, repository.keys)


def map_of(repository: Repository, point: str) -> MapReader:
    root = repository.read_point(point).header.disks[0].root
    return MapReader.open(repository.store, repository.keys, place_from_json(root))


def entry_of(repository: Repository, point: str, block: int) -> MapEntry:
    entry = map_of(repository, point).entry(block)
    assert entry is not None
    return entry


def flip_at(repository: Repository, place: Place) -> Wound:
    name = place.pack.object
    return wounds.flip(name, bytes(repository.store.read_all(name)), place.offset + place.length - 1, 4)


def publish(repository: Repository, **changes: object) -> CollectorState:
    """The collector's write."""
    state = dataclasses.replace(read_state(repository.store), write_id=random.Random().randbytes(16).hex(), **changes)  # type: ignore[arg-type]
    etag = repository.store.read_record(COLLECTOR_STATE).etag
    repository.store.replace_record(COLLECTOR_STATE, state.encode(), {}, etag=etag, lease=None)
    return state


def copied(
    repository: Repository, source: PackName, number: int, keep: Callable[[bytes], bool] = lambda _: True
) -> PackName:
    """A pack with the frames of `source` that are kept, copied without any key."""
    data = bytes(repository.store.read_all(source.object))
    target = PackName(b"\xee" * 48, number | (source.number & METADATA_BIT))
    frames, entries, at = [], [], 0
    for entry in wounds.directory(source.object, data):
        if keep(entry.chunk_id):
            frames.append(data[entry.offset : entry.offset + entry.length])
            entries.append(entry._replace(offset=at))
            at += entry.length
    tail = pack.write_tail(entries, at, metadata=source.is_metadata)
    repository.store.put(target.object, [*frames, tail])
    return target


def changed_map(base: str | None, snapshot: str, *blocks: int) -> dict[str, ChangeMap]:
    ranges = tuple((block * MIB, 1) for block in blocks)
    return {"disk": ChangeMap(disk="disk", size=SIZE, snapshot=snapshot, base=base, ranges=ranges)}


# -- an index that lies


def test_an_index_that_lies_costs_an_error_and_no_byte(repository: Repository) -> None:
    """Two chunk ids at one place: the block of the second must not get the bytes of the first."""
    first = wounds.back_up(repository, "one", disk())
    (run,) = [entry.name for entry in repository.store.list("index/")]
    records, packs = decode_run(repository.store.read_all(run), run)
    true = [
        (row[0].ljust(32, b"\0"), Place(packs[row[1]], row[2], row[3]), row[4]) for row in (r.item() for r in records)
    ]
    assert len(true) == 4
    lie = encode_run([(chunk_id, true[0][1], kind) for chunk_id, _, kind in true])
    liar = wounded(repository, Wound(run, "lies", {run: lie}))
    victim = SparseDisk("victim", SIZE, disk().blocks)
    second = wounds.back_up(liar, "two", victim, resource="victim")
    with pytest.raises(Damaged, match=str(true[0][1])):
        wounds.restored(repository, second.point, 0)
    assert wounds.restored(repository, first.point, 0) == victim.blocks


# -- damage that the next incremental meets itself


@pytest.mark.parametrize("with_map", [False, True], ids=["read all", "change map"])
@pytest.mark.parametrize("what", ["flipped", "looks newer", "missing"])
def test_a_lost_page_of_the_parent_is_read_again(repository: Repository, with_map: bool, what: str) -> None:
    """With a change map the sample of what it calls unchanged meets the lost page, and it is read whole all the same."""
    source = disk()
    first = wounds.back_up(repository, "one", source, changes=changed_map(None, "s1") if with_map else {})
    slot = map_of(repository, first.point).root.pages[0]
    assert slot is not None
    name = slot.ref.place.pack.object
    data = bytes(repository.store.read_all(name))
    wound = {
        "flipped": wounds.flip(name, data, slot.ref.place.offset + slot.ref.place.length - 1, 1),
        "looks newer": wounds.flip(name, data, slot.ref.place.offset + 4, 2),  # the frame's version
        "missing": wounds.remove(name),
    }[what]
    hurt = wounded(repository, wound)
    source.blocks[0] = wounds.block(99)
    second = wounds.back_up(hurt, "two", source, changes=changed_map("s1", "s2", 0) if with_map else {})
    assert any("cannot be read" in note for note in second.notes)
    assert wounds.restored(hurt, second.point, 0) == source.blocks
    with pytest.raises((Damaged, UnsupportedFormat), match=name):
        wounds.restored(hurt, first.point, 0)


@pytest.mark.parametrize("what", ["flipped", "removed"])
def test_a_lost_parent_costs_a_full_read(repository: Repository, what: str) -> None:
    source = disk()
    first = wounds.back_up(repository, "one", source)
    data = repository.store.read_record(first.point).data
    wound = wounds.flip(first.point, data, 40, 1) if what == "flipped" else wounds.remove(first.point)
    hurt = wounded(repository, wound)
    source.blocks[0] = wounds.block(99)
    second = wounds.back_up(hurt, "two", source)
    assert second.parent is None
    assert any(first.point in note for note in second.notes) == (what == "flipped")
    assert wounds.restored(hurt, second.point, 0) == source.blocks


# -- damage that the collector has found


@pytest.mark.parametrize("with_map", [False, True], ids=["read all", "change map"])
def test_a_quarantined_block_is_read_and_stored_again(repository: Repository, with_map: bool) -> None:
    source = disk()
    first = wounds.back_up(repository, "one", source, changes=changed_map(None, "s1") if with_map else {})
    place = entry_of(repository, first.point, 5).place
    hurt = wounded(repository, flip_at(repository, place))
    with pytest.raises(Damaged, match=str(place)):
        wounds.restored(hurt, first.point, 0)
    publish(hurt, quarantine=frozenset({(place.pack, place.offset)}))
    source.reads.clear()
    second = wounds.back_up(hurt, "two", source, changes=changed_map("s1", "s2") if with_map else {})
    assert 5 in source.reads
    assert second.statistics.new == MIB
    assert entry_of(hurt, second.point, 5).place != place
    assert wounds.restored(hurt, second.point, 0) == source.blocks


def test_a_quarantined_block_is_not_referred_to_by_others(repository: Repository) -> None:
    first = wounds.back_up(repository, "one", disk())
    place = entry_of(repository, first.point, 5).place
    hurt = wounded(repository, flip_at(repository, place))
    publish(hurt, quarantine=frozenset({(place.pack, place.offset)}))
    other = SparseDisk("other", SIZE, disk().blocks)
    second = wounds.back_up(hurt, "two", other, resource="other")
    assert (second.statistics.new, second.statistics.deduplicated) == (MIB, 3 * MIB)
    assert wounds.restored(hurt, second.point, 0) == other.blocks


def test_a_quarantined_page_is_made_anew(repository: Repository) -> None:
    source = disk()
    first = wounds.back_up(repository, "one", source, changes=changed_map(None, "s1"))
    slot = map_of(repository, first.point).root.pages[1]
    assert slot is not None
    place = slot.ref.place
    hurt = wounded(repository, flip_at(repository, place))
    publish(hurt, quarantine=frozenset({(place.pack, place.offset)}))
    second = wounds.back_up(hurt, "two", source, changes=changed_map("s1", "s2"))
    assert wounds.restored(hurt, second.point, 0) == source.blocks


def test_what_is_quarantined_meanwhile_is_replaced_before_commit(repository: Repository) -> None:
    source = disk()
    first = wounds.back_up(repository, "one", source)
    place = entry_of(repository, first.point, 5).place
    hurt = wounded(repository, flip_at(repository, place))

    class Meanwhile(SparseDisk):
        """Its last block is read when the first ones have been compared."""

        def check_unchanged(self) -> None:
            assert self.reads.count(5) == 2

        def read_into(self, offset: int, buffers: object) -> None:
            if offset // MIB == 1_026 and not read_state(repository.store).quarantine:
                publish(hurt, quarantine=frozenset({(place.pack, place.offset)}))
            super().read_into(offset, buffers)  # type: ignore[arg-type]

    again = Meanwhile("disk", SIZE, source.blocks)
    second = wounds.back_up(hurt, "two", again)
    assert any("found damaged" in note for note in second.notes)
    assert wounds.restored(hurt, second.point, 0) == source.blocks


# -- forwards


def test_readers_follow_forwards_through_every_pack(repository: Repository) -> None:
    """Data and metadata packs copied twice, the second time in two parts; what they were is gone."""
    source = disk()
    first = wounds.back_up(repository, "one", source)
    entries = [entry.name for entry in repository.store.list("packs/")]
    one_id = entry_of(repository, first.point, 5).chunk_id
    forwards: dict[PackName, tuple[PackName, ...]] = {}
    for number, name in enumerate(entries):
        old = wounds.pack_of(name)
        middle = copied(repository, old, 10 * number)
        parts = (
            copied(repository, middle, 10 * number + 1, lambda chunk_id: chunk_id != one_id),
            copied(repository, middle, 10 * number + 2, lambda chunk_id: chunk_id == one_id),
        )
        forwards |= {old: (middle,), middle: parts}
        repository.store.delete(old.object)
        repository.store.delete(middle.object)
    with pytest.raises(MissingObject, match="packs/"):
        wounds.restored(repository, first.point, 0)
    publish(repository, forwards=forwards, gone_packs=frozenset(forwards))
    assert wounds.restored(repository, first.point, 0) == source.blocks
    source.blocks[0] = wounds.block(99)
    second = wounds.back_up(repository, "two", source)
    assert second.statistics.unchanged == 3 * MIB
    assert wounds.restored(repository, second.point, 0) == source.blocks


@pytest.mark.parametrize("at", ["payload", "version", "checksum"])
def test_a_damaged_place_is_forwarded_too(repository: Repository, at: str) -> None:
    source = disk()
    first = wounds.back_up(repository, "one", source)
    place = entry_of(repository, first.point, 5).place
    name, data = place.pack.object, bytes(repository.store.read_all(place.pack.object))
    copy = copied(repository, place.pack, 0)
    publish(repository, forwards={place.pack: (copy,)}, quarantine=frozenset({(place.pack, place.offset)}))
    offset = {"payload": place.length - 1, "version": 4, "checksum": 60}[at]
    hurt = wounded(repository, wounds.flip(name, data, place.offset + offset, 2))
    assert wounds.restored(hurt, first.point, 0) == source.blocks


def test_a_damaged_copy_is_passed_over_for_the_next(repository: Repository) -> None:
    source = disk()
    first = wounds.back_up(repository, "one", source)
    old = entry_of(repository, first.point, 5).place.pack
    copies = tuple(copied(repository, old, number) for number in range(3))
    repository.store.delete(old.object)
    publish(repository, forwards={old: copies}, gone_packs=frozenset({old}))
    data = bytes(repository.store.read_all(copies[0].object))
    hurt = wounded(
        repository,
        Wound("copies", "one cut, one lost", {copies[0].object: data[: len(data) // 2], copies[1].object: None}),
    )
    assert wounds.restored(hurt, first.point, 0) == source.blocks


def test_forwards_that_turn_in_a_circle_end(repository: Repository) -> None:
    first = wounds.back_up(repository, "one", disk())
    old = entry_of(repository, first.point, 5).place.pack
    other = PackName(b"\xee" * 48, 7)
    repository.store.delete(old.object)
    publish(repository, forwards={old: (other,), other: (old, other)})
    with pytest.raises(MissingObject, match=old.object):
        wounds.restored(repository, first.point, 0)


def test_a_pack_that_is_gone_is_told_as_that(repository: Repository) -> None:
    first = wounds.back_up(repository, "one", disk())
    old = entry_of(repository, first.point, 5).place.pack
    repository.store.delete(old.object)
    publish(repository, gone_packs=frozenset({old}))
    with pytest.raises(PointGone, match=old.object):
        wounds.restored(repository, first.point, 0)
