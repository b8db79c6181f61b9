# SPDX-License-Identifier: Apache-2.0
"""Every MUST of mover/store/base.py as a test, for whatever store a `Place` opens.

A store's own test module subclasses `Conformance` and `LapsedLeases` and gives them a fixture `place`, once a class:
tests share it and take names of their own. Time passes through the place: simulated where the store takes a clock,
polled where it is the service's own. What belongs to one store only (crashes, proxies) is not here.
"""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from mover.errors import (
    ConditionFailed,
    LeaseConflict,
    LeaseLost,
    ObjectExists,
    ObjectNotFound,
    ShortObject,
    UsageError,
)
from mover.store.base import Entry, Store

LEASE = 15  # seconds, the shortest there is
LEASE_OF_NOBODY = "00000000-0000-4000-8000-000000000000"
ALL_CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789-_/-.-_/0..--__"


@dataclass
class Place:
    """Where a store's tests run. `open` gives another Store on the same place, as another process would have."""

    open: Callable[[], Store]
    pass_time: Callable[[float, Callable[[], bool]], None]
    """Let so many seconds of the store's time pass, until the condition holds; fail if it does not."""
    many: int = 5_001
    """Entries of the long listing: more than two of the store's pages."""
    big: int = 9 << 20
    """Bytes of the big object."""
    rounds: int = 40
    """Listings made while others write."""
    store: Store = field(init=False)
    _number: Iterator[int] = field(default_factory=itertools.count, init=False)

    def __post_init__(self) -> None:
        self.store = self.open()

    def name(self) -> str:
        """A folder that no other test uses."""
        return f"t/{next(self._number):04d}"


def read(store: Store, name: str) -> bytes:
    return bytes(store.read_all(name))


def names(store: Store, prefix: str) -> list[str]:
    return [entry.name for entry in store.list(prefix)]


def in_threads(count: int, work: Callable[[int], object]) -> list[object]:
    """What each thread returned or raised, all having started together."""
    gate = threading.Barrier(count)

    def run(number: int) -> object:
        gate.wait()
        try:
            return work(number)
        except Exception as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


class Conformance:
    @pytest.fixture
    def store(self, place: Place) -> Store:
        return place.store

    @pytest.fixture
    def name(self, place: Place) -> str:
        return place.name() + "/x"

    # -- objects

    def test_an_object_reads_back_as_the_concatenation_of_its_parts(self, store: Store, name: str) -> None:
        data = random.Random(1).randbytes(100_000)
        view = memoryview(data)
        store.put(name, [data[:1], bytearray(data[1:500]), b"", view[500:70_000], memoryview(bytearray(view[70_000:]))])
        assert read(store, name) == data
        assert store.size(name) == len(data)

    def test_an_object_of_very_many_parts(self, store: Store, name: str) -> None:
        data = random.Random(2).randbytes(50_000)
        store.put(name, [memoryview(data)[at : at + 10] for at in range(0, len(data), 10)])
        assert read(store, name) == data

    def test_the_parts_may_change_after_put(self, store: Store, name: str) -> None:
        part = bytearray(b"before")
        store.put(name, [part])
        part[:] = b"after!"
        assert read(store, name) == b"before"

    @pytest.mark.parametrize("parts", [[], [b""], [b"", memoryview(b"")]])
    def test_an_empty_object(self, place: Place, name: str, parts: Sequence[bytes]) -> None:
        place.store.put(name, parts)
        assert read(place.store, name) == b""
        assert place.store.size(name) == 0
        assert list(place.store.list(name)) == [Entry(name, 0)]
        with pytest.raises(ShortObject):
            place.store.read(name, 0, 1)

    def test_a_big_object(self, place: Place, name: str) -> None:
        part = random.Random(3).randbytes(1 << 20)
        count = place.big >> 20
        place.store.put(name, [part] * count)
        assert place.store.size(name) == place.big
        target = bytearray(3 << 20)
        place.store.read_into(name, place.big - len(target) - 5, memoryview(target))
        assert target == (part * 4)[(1 << 20) - 5 :][: len(target)]

    def test_a_taken_name_is_refused_and_what_is_there_stays(self, place: Place, name: str) -> None:
        place.store.put(name, [b"first"])
        for store in (place.store, place.open()):
            with pytest.raises(ObjectExists) as refused:
                store.put(name, [b"second"])
            assert refused.value.value == name
        assert read(place.store, name) == b"first"

    def test_of_many_puts_under_one_name_one_succeeds(self, place: Place, name: str) -> None:
        bodies = [bytes([number]) * 50_000 for number in range(8)]
        results = in_threads(8, lambda number: place.store.put(name, [bodies[number]]))
        assert [type(result) for result in results if result is not None] == [ObjectExists] * 7
        assert read(place.store, name) == bodies[results.index(None)]

    def test_a_range_anywhere_inside(self, store: Store, name: str) -> None:
        data = random.Random(4).randbytes(10_000)
        store.put(name, [data])
        for offset, length in [(0, 1), (0, 10_000), (1, 9_999), (9_999, 1), (4_096, 4_096), (10_000, 0), (77, 0)]:
            assert store.read(name, offset, length) == data[offset : offset + length], (offset, length)

    def test_a_range_past_the_end_is_short_and_says_which_object(self, store: Store, name: str) -> None:
        store.put(name, [b"0123456789"])
        for offset, length in [(0, 11), (9, 2), (10, 1), (11, 1), (1_000_000, 1)]:
            with pytest.raises(ShortObject) as short:
                store.read(name, offset, length)
            assert short.value.value == name

    def test_the_target_is_a_slice_of_a_larger_buffer(self, store: Store, name: str) -> None:
        store.put(name, [b"0123456789"])
        buffer = bytearray(b"-" * 8)
        store.read_into(name, 3, memoryview(buffer)[2:6])
        assert buffer == b"--3456--"

    def test_a_free_name_is_not_found(self, store: Store, name: str) -> None:
        for call in (
            lambda: store.read(name, 0, 1),
            lambda: store.read_all(name),
            lambda: store.size(name),
            lambda: store.read_record(name),
            lambda: store.delete(name),
            lambda: store.delete(name, etag='"0x1"'),
            lambda: store.delete(name, lease=LEASE_OF_NOBODY),
            lambda: store.replace_record(name, b"", {}, etag='"0x1"', lease=None),
            lambda: store.replace_record(name, b"", {}, etag='"0x1"', lease=LEASE_OF_NOBODY),
            lambda: store.acquire_lease(name, LEASE),
        ):
            with pytest.raises(ObjectNotFound) as absent:
                call()
            assert absent.value.value == name

    def test_many_threads_read_one_object(self, store: Store, name: str) -> None:
        data = random.Random(5).randbytes(200_000)
        store.put(name, [data])

        def some(number: int) -> bool:
            chosen = random.Random(number)
            for _ in range(25):
                offset = chosen.randrange(len(data))
                length = chosen.randrange(len(data) - offset)
                if store.read(name, offset, length) != data[offset : offset + length]:
                    return False
            return True

        assert in_threads(6, some) == [True] * 6

    def test_a_deleted_object_is_gone_for_those_who_read_it_before(self, place: Place, name: str) -> None:
        other = place.open()
        place.store.put(name, [b"data"])
        assert read(other, name) == read(place.store, name) == b"data"
        place.store.delete(name)
        for store in (place.store, other):
            with pytest.raises(ObjectNotFound):
                store.read(name, 0, 1)
        assert names(other, name) == []

    # -- names

    def test_names_with_every_character_that_is_allowed(self, place: Place) -> None:
        name = place.name() + "/" + ALL_CHARACTERS
        place.store.put(name, [b"data"])
        assert read(place.store, name) == b"data"
        assert names(place.store, name) == [name]

    def test_a_long_name(self, place: Place) -> None:
        name = place.name() + ("/" + "part" * 30) * 7
        name += "/" + "x" * (899 - len(name))
        assert len(name) == 900
        place.store.put(name, [b"data"])
        assert read(place.store, name) == b"data"
        assert names(place.store, name[:-1]) == [name]

    @pytest.mark.parametrize(
        "bad", ["", "/", "a//b", "/a", "a/", ".", "..", "a/../b", ".a", "a/.b", "A", "a b", "ä", "a\n", "a?b", "a%20b"]
    )
    def test_other_names_are_a_callers_mistake(self, store: Store, bad: str) -> None:
        for call in (
            lambda: store.put(bad, [b""]),
            lambda: store.read(bad, 0, 0),
            lambda: store.size(bad),
            lambda: store.create_record(bad, b"", {}),
            lambda: store.replace_record(bad, b"", {}, etag="", lease=None),
            lambda: store.read_record(bad),
            lambda: store.delete(bad),
            lambda: store.acquire_lease(bad, LEASE),
            lambda: store.renew_lease(bad, ""),
            lambda: store.release_lease(bad, ""),
            lambda: store.break_lease(bad),
        ):
            with pytest.raises(UsageError):
                call()

    # -- records

    def test_a_record_reads_back(self, place: Place, name: str) -> None:
        written = place.store.create_record(name, b"\x00content\n", {"state": "open", "n_1": "a=b; c,d/e"})
        for store in (place.store, place.open()):
            found = store.read_record(name)
            assert (found.data, found.etag, found.leased) == (b"\x00content\n", written.etag, False)
            assert dict(found.metadata) == {"state": "open", "n_1": "a=b; c,d/e"}
        assert read(place.store, name) == b"\x00content\n"
        assert place.store.size(name) == 9

    def test_an_empty_record(self, store: Store, name: str) -> None:
        store.create_record(name, b"", {})
        found = store.read_record(name)
        assert (found.data, dict(found.metadata)) == (b"", {})

    def test_a_record_of_the_largest_size(self, store: Store, name: str) -> None:
        data = random.Random(6).randbytes(4 << 20)
        etag = store.create_record(name, data, {}).etag
        store.replace_record(name, data[::-1], {}, etag=etag, lease=None)
        assert store.read_record(name).data == data[::-1]
        with pytest.raises(UsageError):
            store.create_record(name + "-more", data + b"x", {})

    def test_much_metadata(self, store: Store, name: str) -> None:
        metadata = {f"key{number}": '"\\' * 100 for number in range(35)}
        store.create_record(name, b"content", metadata)
        assert dict(store.read_record(name).metadata) == metadata
        assert [dict(entry.metadata) for entry in store.list(name)] == [metadata]

    @pytest.mark.parametrize("key", ["a-b", "A", "", "1a", "ä"])
    def test_a_metadata_key_that_would_not_come_back_unchanged_is_refused(
        self, store: Store, name: str, key: str
    ) -> None:
        with pytest.raises(UsageError):
            store.create_record(name, b"", {key: "x"})

    @pytest.mark.parametrize("value", [" x", "x ", "", "ä", "x\n", "x\ny", "x" * 8192])
    def test_a_metadata_value_that_would_not_come_back_unchanged_is_refused(
        self, store: Store, name: str, value: str
    ) -> None:
        with pytest.raises(UsageError):
            store.create_record(name, b"", {"a": value})
        etag = store.create_record(name, b"", {}).etag
        with pytest.raises(UsageError):
            store.replace_record(name, b"", {"a": value}, etag=etag, lease=None)

    def test_a_replacement_replaces_content_and_metadata(self, place: Place, name: str) -> None:
        first = place.store.create_record(name, b"first", {"state": "open", "only": "first"})
        second = place.store.replace_record(name, b"2nd", {"state": "committed"}, etag=first.etag, lease=None)
        assert second.etag != first.etag
        for store in (place.store, place.open()):
            found = store.read_record(name)
            assert (found.data, found.etag) == (b"2nd", second.etag)
            assert dict(found.metadata) == {"state": "committed"}
        assert list(place.store.list(name)) == [Entry(name, 3, {"state": "committed"})]

    def test_the_same_content_gets_another_etag(self, store: Store, name: str) -> None:
        etags = [store.create_record(name, b"same", {"a": "b"}).etag]
        for _ in range(5):
            etags.append(store.replace_record(name, b"same", {"a": "b"}, etag=etags[-1], lease=None).etag)
        store.delete(name)
        etags.append(store.create_record(name, b"same", {"a": "b"}).etag)
        assert len(set(etags)) == len(etags)

    def test_a_stale_etag_is_refused(self, store: Store, name: str) -> None:
        old = store.create_record(name, b"1", {}).etag
        new = store.replace_record(name, b"2", {}, etag=old, lease=None).etag
        for call in (
            lambda: store.replace_record(name, b"3", {}, etag=old, lease=None),
            lambda: store.delete(name, etag=old),
        ):
            with pytest.raises(ConditionFailed) as refused:
                call()
            assert refused.value.value == name
        assert store.read_record(name).etag == new
        store.delete(name, etag=new)

    def test_a_record_made_again_does_not_take_its_old_etag(self, store: Store, name: str) -> None:
        old = store.create_record(name, b"1", {}).etag
        store.delete(name)
        store.create_record(name, b"1", {})
        with pytest.raises(ConditionFailed):
            store.replace_record(name, b"2", {}, etag=old, lease=None)

    def test_of_many_creators_one_succeeds(self, place: Place, name: str) -> None:
        stores = [place.store, place.open()]
        results = in_threads(8, lambda number: stores[number % 2].create_record(name, b"%d" % number, {}))
        won = [number for number, result in enumerate(results) if not isinstance(result, Exception)]
        assert len(won) == 1
        assert [type(result) for result in results if isinstance(result, Exception)] == [ObjectExists] * 7
        assert place.store.read_record(name).data == b"%d" % won[0]

    def test_of_many_replacements_of_one_etag_one_succeeds(self, place: Place, name: str) -> None:
        stores = [place.store, place.open()]
        etag = place.store.create_record(name, b"", {}).etag
        results = in_threads(
            8, lambda number: stores[number % 2].replace_record(name, b"%d" % number, {}, etag=etag, lease=None)
        )
        won = [number for number, result in enumerate(results) if not isinstance(result, Exception)]
        assert len(won) == 1
        assert [type(result) for result in results if isinstance(result, Exception)] == [ConditionFailed] * 7
        assert place.store.read_record(name).data == b"%d" % won[0]

    def test_a_record_under_a_taken_name_is_refused(self, store: Store, name: str) -> None:
        store.create_record(name, b"first", {"a": "b"})
        store.acquire_lease(name, LEASE)
        with pytest.raises(ObjectExists):
            store.create_record(name, b"second", {})
        with pytest.raises(ObjectExists):
            store.put(name, [b"third"])
        assert store.read_record(name).data == b"first"

    def test_a_reader_sees_content_etag_and_metadata_of_one_moment(self, place: Place, name: str) -> None:
        written = {place.store.create_record(name, b"0", {"n": "0"}).etag: "0"}
        stop = threading.Event()

        def write(_: int) -> None:
            etag = next(iter(written))
            for number in range(1, place.rounds):
                text = str(number)
                etag = place.store.replace_record(name, text.encode(), {"n": text}, etag=etag, lease=None).etag
                written[etag] = text
            stop.set()

        def watch(_: int) -> list[tuple[str, bytes, str]]:
            seen, other = [], place.open()
            while True:
                last = stop.is_set()
                found = other.read_record(name)
                seen.append((found.etag, found.data, found.metadata["n"]))
                if last:
                    return seen

        with ThreadPoolExecutor(2) as pool:
            writing, watching = pool.submit(write, 0), pool.submit(watch, 0)
            try:
                writing.result()
            finally:
                stop.set()
            seen = watching.result()
        for etag, data, metadata in seen:
            assert written[etag] == data.decode() == metadata

    def test_answers_carry_the_stores_time(self, place: Place, name: str) -> None:
        first = place.store.create_record(name, b"", {})
        second = place.store.replace_record(name, b"", {}, etag=first.etag, lease=None)
        found = place.open().read_record(name)
        assert 0 < first.time <= second.time <= found.time

    # -- listings

    def test_a_listing_of_nothing_is_empty(self, place: Place) -> None:
        assert list(place.store.list(place.name() + "/")) == []

    def test_a_listing_ascends_by_whole_names(self, place: Place) -> None:
        base = place.name()
        made = [
            f"{base}/{name}"
            for name in ("b", "a-b", "a/b", "a.b", "a0", "a_b", "a/b-c", "a/a/z", "ab/c", "a-/x", "0", "a/c/d/e", "a-.")
        ]
        for name in made:
            place.store.put(name, [b"x"])
        assert names(place.store, base + "/") == sorted(made)
        assert names(place.store, base) == sorted(made)
        for prefix in ("a", "a/", "a-", "a/b", "a/a", "ab", "c", "a/c/d/", "a.b", "a.bc"):
            assert names(place.store, f"{base}/{prefix}") == sorted(
                name for name in made if name.startswith(f"{base}/{prefix}")
            ), prefix

    def test_a_listing_shows_sizes_and_the_metadata_of_records(self, place: Place) -> None:
        base = place.name()
        place.store.put(f"{base}/a", [b"12345"])
        place.store.create_record(f"{base}/b", b"123", {"state": "open", "seq": "1"})
        place.store.create_record(f"{base}/c", b"", {})
        assert list(place.open().list(base + "/")) == [
            Entry(f"{base}/a", 5),
            Entry(f"{base}/b", 3, {"state": "open", "seq": "1"}),
            Entry(f"{base}/c", 0),
        ]

    def test_a_listing_shows_what_was_acknowledged_before_and_not_what_was_deleted(self, place: Place) -> None:
        base, other = place.name(), place.open()
        for number in range(10):
            place.store.put(f"{base}/{number}", [b""])
            assert len(names(other, base + "/")) == number + 1
        for number in range(10):
            other.delete(f"{base}/{number}")
            assert len(names(place.store, base + "/")) == 9 - number

    def test_a_long_listing_is_complete(self, place: Place) -> None:
        base = place.name()
        made = [f"{base}/{number % 7}/{number:06d}" for number in range(place.many)]

        def fill(some: Sequence[str]) -> None:
            for name in some:
                place.store.put(name, [b"x"])

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(fill, [made[start::8] for start in range(8)]))
        assert names(place.store, base + "/") == sorted(made)
        assert names(place.store, base + "/3/") == sorted(name for name in made if name.startswith(base + "/3/"))

    def test_a_listing_while_others_write_lacks_no_older_name(self, place: Place) -> None:
        base, stop = place.name(), threading.Event()
        old = [f"{base}/{number:03d}" for number in range(0, 60, 2)]
        etags = {name: place.store.create_record(name, b"", {"a": "b"}).etag for name in old}

        def churn(_: int) -> None:
            for turn in itertools.count():
                name = f"{base}/{(turn * 14 + 1) % 60:03d}"
                place.store.put(name, [b"new"])
                for record in old:
                    etags[record] = place.store.replace_record(
                        record, b"", {"a": "b"}, etag=etags[record], lease=None
                    ).etag
                    if stop.is_set():
                        return
                place.store.delete(name)

        other = place.open()
        with ThreadPoolExecutor(1) as pool:
            churning = pool.submit(churn, 0)
            try:
                for _ in range(place.rounds):
                    found = names(other, base + "/")
                    assert found == sorted(set(found))
                    assert set(old) <= set(found)
                    assert len(found) <= len(old) + 2
            finally:
                stop.set()
            churning.result()

    @pytest.mark.parametrize("bad", ["/", "a//", "../", "a/../b", ".", "A", "a b"])
    def test_a_prefix_that_no_name_has_is_a_callers_mistake(self, store: Store, bad: str) -> None:
        with pytest.raises(UsageError):
            list(store.list(bad))

    # -- leases

    def test_a_lease_admits_its_holder_only(self, place: Place, name: str) -> None:
        store, other = place.store, place.open()
        etag = store.create_record(name, b"0", {}).etag
        lease = store.acquire_lease(name, 60)
        assert other.read_record(name).leased
        assert other.read_record(name).etag == etag  # leasing is no write
        for named, error in ((None, LeaseConflict), (LEASE_OF_NOBODY, LeaseLost)):
            with pytest.raises(error):
                other.replace_record(name, b"1", {}, etag=etag, lease=named)
            with pytest.raises(error):
                other.delete(name, lease=named)
        with pytest.raises(LeaseConflict) as refused:
            other.acquire_lease(name, LEASE)
        assert refused.value.value == name
        for _ in range(3):  # a write keeps the lease
            etag = store.replace_record(name, b"1", {}, etag=etag, lease=lease).etag
        store.renew_lease(name, lease)
        with pytest.raises(ConditionFailed):
            store.replace_record(name, b"2", {}, etag='"0x0"', lease=lease)
        assert store.read_record(name).data == b"1"
        store.delete(name, etag=etag, lease=lease)
        with pytest.raises(LeaseLost):
            store.renew_lease(name, lease)

    def test_of_many_that_lease_one_succeeds(self, place: Place, name: str) -> None:
        stores = [place.store, place.open()]
        place.store.create_record(name, b"", {})
        results = in_threads(8, lambda number: stores[number % 2].acquire_lease(name, LEASE))
        assert sum(isinstance(result, str) for result in results) == 1
        assert sum(isinstance(result, LeaseConflict) for result in results) == 7

    def test_a_released_lease_is_over(self, store: Store, name: str) -> None:
        etag = store.create_record(name, b"", {}).etag
        first = store.acquire_lease(name, LEASE)
        store.release_lease(name, first)
        assert not store.read_record(name).leased
        for call in (
            lambda: store.renew_lease(name, first),
            lambda: store.release_lease(name, first),
            lambda: store.replace_record(name, b"1", {}, etag=etag, lease=first),
            lambda: store.delete(name, lease=first),
        ):
            with pytest.raises(LeaseLost) as lost:
                call()
            assert lost.value.value == name
        second = store.acquire_lease(name, LEASE)
        assert second != first
        for end in (store.renew_lease, store.release_lease):
            with pytest.raises(LeaseLost):
                end(name, first)
        store.replace_record(name, b"1", {}, etag=etag, lease=second)

    def test_a_broken_lease_is_over_at_once(self, place: Place, name: str) -> None:
        store, other = place.store, place.open()
        etag = store.create_record(name, b"", {}).etag
        first = store.acquire_lease(name, 60)
        other.break_lease(name)
        assert not store.read_record(name).leased
        with pytest.raises(LeaseLost):
            store.renew_lease(name, first)
        with pytest.raises(LeaseLost):
            store.replace_record(name, b"1", {}, etag=etag, lease=first)
        second = other.acquire_lease(name, 60)
        assert second != first
        with pytest.raises(LeaseLost):
            store.renew_lease(name, first)
        other.replace_record(name, b"1", {}, etag=etag, lease=second)

    def test_breaking_no_lease_is_no_error(self, store: Store, name: str) -> None:
        store.create_record(name, b"", {})
        store.break_lease(name)
        store.release_lease(name, store.acquire_lease(name, LEASE))
        store.break_lease(name)
        store.acquire_lease(name, LEASE)
        store.break_lease(name)
        store.break_lease(name)

    def test_a_write_without_lease_after_a_break_succeeds(self, store: Store, name: str) -> None:
        etag = store.create_record(name, b"", {}).etag
        store.acquire_lease(name, 60)
        store.break_lease(name)
        store.replace_record(name, b"1", {}, etag=etag, lease=None)

    def test_a_lease_of_a_free_name_is_lost(self, store: Store, name: str) -> None:
        for call in (store.renew_lease, store.release_lease):
            with pytest.raises(LeaseLost):
                call(name, LEASE_OF_NOBODY)

    def test_a_record_made_again_is_not_leased(self, store: Store, name: str) -> None:
        store.create_record(name, b"", {})
        lease = store.acquire_lease(name, LEASE)
        store.delete(name, lease=lease)
        etag = store.create_record(name, b"", {}).etag
        assert not store.read_record(name).leased
        with pytest.raises(LeaseLost):
            store.renew_lease(name, lease)
        store.replace_record(name, b"1", {}, etag=etag, lease=None)

    @pytest.mark.parametrize("seconds", [0, 14, 61, -1])
    def test_leases_last_15_to_60_seconds(self, store: Store, name: str, seconds: int) -> None:
        store.create_record(name, b"", {})
        with pytest.raises(UsageError):
            store.acquire_lease(name, seconds)


@dataclass
class Lapsed:
    """A record whose lease has lapsed, untouched since."""

    store: Store
    name: str
    etag: str
    lease: str


class LapsedLeases:
    """I4: lapsed is not dead, and not alive either. All records' leases lapse together: real time is spent once."""

    @pytest.fixture(scope="class")
    @classmethod
    def lapsed_records(cls, place: Place) -> Iterator[Lapsed]:
        base, made = place.name(), []
        for number in range(12):
            name = f"{base}/{number}"
            etag = place.store.create_record(name, b"", {}).etag
            made.append(Lapsed(place.store, name, etag, place.store.acquire_lease(name, LEASE)))
        place.pass_time(LEASE + 1, lambda: not any(place.store.read_record(record.name).leased for record in made))
        return iter(made)

    @pytest.fixture
    def lapsed(self, lapsed_records: Iterator[Lapsed]) -> Lapsed:
        return next(lapsed_records)

    def test_a_lapsed_lease_that_nobody_touched_can_be_renewed(self, lapsed: Lapsed) -> None:
        lapsed.store.renew_lease(lapsed.name, lapsed.lease)
        assert lapsed.store.read_record(lapsed.name).leased
        with pytest.raises(LeaseConflict):
            lapsed.store.replace_record(lapsed.name, b"1", {}, etag=lapsed.etag, lease=None)
        lapsed.store.replace_record(lapsed.name, b"1", {}, etag=lapsed.etag, lease=lapsed.lease)

    def test_a_write_with_a_lapsed_lease_is_refused(self, lapsed: Lapsed) -> None:
        with pytest.raises(LeaseLost):
            lapsed.store.replace_record(lapsed.name, b"1", {}, etag=lapsed.etag, lease=lapsed.lease)
        assert lapsed.store.read_record(lapsed.name).etag == lapsed.etag

    def test_a_deletion_with_a_lapsed_lease_is_refused(self, lapsed: Lapsed) -> None:
        with pytest.raises(LeaseLost):
            lapsed.store.delete(lapsed.name, lease=lapsed.lease)
        assert lapsed.store.read_record(lapsed.name).etag == lapsed.etag

    def test_a_refused_write_with_a_lapsed_lease_does_not_end_it(self, lapsed: Lapsed) -> None:
        with pytest.raises(LeaseLost):
            lapsed.store.replace_record(lapsed.name, b"1", {}, etag=lapsed.etag, lease=lapsed.lease)
        lapsed.store.renew_lease(lapsed.name, lapsed.lease)

    def test_a_write_without_lease_ends_a_lapsed_one(self, lapsed: Lapsed) -> None:
        etag = lapsed.store.replace_record(lapsed.name, b"1", {}, etag=lapsed.etag, lease=None).etag
        with pytest.raises(LeaseLost):
            lapsed.store.renew_lease(lapsed.name, lapsed.lease)
        with pytest.raises(LeaseLost):
            lapsed.store.replace_record(lapsed.name, b"2", {}, etag=etag, lease=lapsed.lease)

    def test_a_refused_write_without_lease_does_not_end_a_lapsed_one(self, lapsed: Lapsed) -> None:
        with pytest.raises(ConditionFailed):
            lapsed.store.replace_record(lapsed.name, b"1", {}, etag='"0x0"', lease=None)
        lapsed.store.renew_lease(lapsed.name, lapsed.lease)

    def test_a_deletion_without_lease_succeeds_on_a_lapsed_one(self, lapsed: Lapsed) -> None:
        lapsed.store.delete(lapsed.name, etag=lapsed.etag)
        with pytest.raises(LeaseLost):
            lapsed.store.renew_lease(lapsed.name, lapsed.lease)

    def test_another_can_lease_what_has_lapsed_and_the_former_holder_has_lost_it(self, lapsed: Lapsed) -> None:
        second = lapsed.store.acquire_lease(lapsed.name, LEASE)
        assert second != lapsed.lease
        for call in (
            lambda: lapsed.store.renew_lease(lapsed.name, lapsed.lease),
            lambda: lapsed.store.release_lease(lapsed.name, lapsed.lease),
            lambda: lapsed.store.replace_record(lapsed.name, b"1", {}, etag=lapsed.etag, lease=lapsed.lease),
            lambda: lapsed.store.delete(lapsed.name, lease=lapsed.lease),
        ):
            with pytest.raises(LeaseLost):
                call()
        lapsed.store.replace_record(lapsed.name, b"1", {}, etag=lapsed.etag, lease=second)

    def test_a_take_over_fences_the_former_holder_even_after_release(self, lapsed: Lapsed) -> None:
        second = lapsed.store.acquire_lease(lapsed.name, LEASE)
        lapsed.store.release_lease(lapsed.name, second)
        with pytest.raises(LeaseLost):
            lapsed.store.renew_lease(lapsed.name, lapsed.lease)

    def test_a_lapsed_lease_that_was_broken_cannot_be_renewed(self, lapsed: Lapsed) -> None:
        lapsed.store.break_lease(lapsed.name)
        with pytest.raises(LeaseLost):
            lapsed.store.renew_lease(lapsed.name, lapsed.lease)
