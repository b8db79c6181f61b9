# SPDX-License-Identifier: Apache-2.0
"""All wrappers together change no contract; and what limit, meter, fault and discard do, each alone."""

from __future__ import annotations

import threading
from collections import defaultdict

import pytest

from mover.errors import Cancelled, ObjectExists, ObjectNotFound, StoreError, StoreUnavailable
from mover.store.base import Entry, Store
from mover.store.discard import DiscardStore
from mover.store.fault import Fault, FaultStore
from mover.store.limit import LimitStore
from mover.store.memory import MemoryStore
from mover.store.meter import MeterStore
from mover.store.retry import RetryStore
from mover.store.wrapper import Wrapper
from tests.mover.store.clock import ManualClock
from tests.mover.store.conformance import Conformance, LapsedLeases, Place


@pytest.fixture(scope="class")
def place() -> Place:
    clock = ManualClock()
    memory = MemoryStore(clock)

    def open_store() -> Store:
        metered = MeterStore(FaultStore(Wrapper(memory)), lambda name: "all", clock)
        return LimitStore(RetryStore(metered, clock), 1e12, clock)

    return Place(open_store, clock.pass_until)


class TestAllWrappers(Conformance):
    pass


class TestAllWrappersLapsedLeases(LapsedLeases):
    pass


# -- limit


def test_the_limit_holds_on_average_in_each_direction() -> None:
    clock = ManualClock()
    store = LimitStore(MemoryStore(clock), 1_000_000, clock)
    began = clock.monotonic()
    for number in range(20):
        store.put(str(number), [bytes(500_000), bytes(500_000)])
    assert 18 <= clock.monotonic() - began <= 20
    began = clock.monotonic()
    for number in range(20):
        store.read(str(number), 0, 1_000_000)
    assert 18 <= clock.monotonic() - began <= 20


def test_idle_time_is_not_saved_up() -> None:
    clock = ManualClock()
    store = LimitStore(MemoryStore(clock), 1_000_000, clock)
    clock.advance(3600)
    began = clock.monotonic()
    for number in range(10):
        store.put(str(number), [bytes(1_000_000)])
    assert clock.monotonic() - began >= 8


def test_requests_without_content_do_not_wait() -> None:
    clock = ManualClock()
    store = LimitStore(MemoryStore(clock), 1, clock)
    store.put("a", [bytes(1000)])
    store.size("a")
    list(store.list(""))
    store.delete("a")
    assert clock.waits == []


def test_records_that_were_read_are_paid_for_by_the_next() -> None:
    clock = ManualClock()
    store = LimitStore(MemoryStore(clock), 1_000, clock)
    store.create_record("a", bytes(5_000), {})
    store.read_record("a")
    store.read_record("a")
    assert sum(clock.waits) >= 4


def test_cancel_ends_a_wait_for_bandwidth() -> None:
    clock, cancel = ManualClock(), threading.Event()
    store = LimitStore(MemoryStore(clock), 1_000, clock, cancel=cancel)
    store.put("a", [bytes(100_000)])
    cancel.set()
    with pytest.raises(Cancelled):
        store.put("b", [b"x"])


# -- meter


def classify(name: str) -> str:
    return name.partition("/")[0]


def test_calls_bytes_seconds_and_errors_are_counted_by_operation_and_class() -> None:
    clock = ManualClock()
    slow = FaultStore(
        MemoryStore(clock), [Fault("put", "fail", nth=3)], before=lambda operation, name: clock.advance(2)
    )
    store = MeterStore(slow, classify, clock)
    store.put("packs/1", [b"12345", b"678"])
    store.put("packs/2", [b"1"])
    with pytest.raises(StoreUnavailable):
        store.put("packs/3", [b"1"])
    store.read("packs/1", 2, 4)
    etag = store.create_record("points/1", b"123", {}).etag
    lease = store.acquire_lease("points/1", 15)
    store.renew_lease("points/1", lease)
    store.replace_record("points/1", b"1234", {}, etag=etag, lease=lease)
    store.release_lease("points/1", lease)
    store.read_record("points/1")
    store.size("packs/1")
    assert len(list(store.list("packs/"))) == 2
    with pytest.raises(ObjectNotFound):
        store.delete("packs/9")

    def line(calls: int, size: int = 0, seconds: float = 2, errors: int = 0) -> dict[str, float]:
        return {"calls": calls, "bytes": size, "seconds": seconds, "errors": errors}

    assert store.snapshot() == {
        "create_record": {"points": line(1, 3)},
        "delete": {"packs": line(1, errors=1)},
        "lease": {"points": line(3, seconds=6)},
        "list": {"packs": line(1)},
        "put": {"packs": line(3, 9, 6, errors=1)},
        "read_into": {"packs": line(1, 4)},
        "read_record": {"points": line(1, 4)},
        "replace_record": {"points": line(1, 4)},
        "size": {"packs": line(1)},
    }


def test_a_long_listing_counts_as_its_pages() -> None:
    memory = MemoryStore(ManualClock())
    for number in range(5_001):
        memory.put(f"a/{number}", [])
    store = MeterStore(memory, classify)
    list(store.list("b/"))
    list(store.list("a/"))
    assert {kind: line["calls"] for kind, line in store.snapshot()["list"].items()} == {"a": 2, "b": 1}


def test_the_meter_loses_no_count_between_threads() -> None:
    store = MeterStore(MemoryStore(), classify)
    store.put("a/1", [b"x"])

    def read_often() -> None:
        for _ in range(500):
            store.read("a/1", 0, 1)

    threads = [threading.Thread(target=read_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.snapshot()["read_into"]["a"]["calls"] == 2000


def test_under_retry_the_meter_counts_attempts() -> None:
    clock = ManualClock()
    metered = MeterStore(FaultStore(MemoryStore(clock), [Fault("put", "lose", times=2)]), classify, clock)
    RetryStore(metered, clock).put("a", [b"x"])
    assert metered.snapshot()["put"]["a"] | {"seconds": 0} == {"calls": 3, "bytes": 0, "seconds": 0, "errors": 3}
    assert metered.snapshot()["size"]["a"]["calls"] == 1


# -- fault


def test_the_nth_matching_call_fails_and_is_not_carried_out() -> None:
    store = FaultStore(MemoryStore(), [Fault("put", "fail", nth=2, times=2, name=lambda name: name.startswith("a"))])
    results: dict[str, list[str]] = defaultdict(list)
    for name in ("a1", "b1", "a2", "b2", "a3", "a4"):
        try:
            store.put(name, [b""])
            results["done"].append(name)
        except StoreUnavailable:
            results["failed"].append(name)
    assert results == {"done": ["a1", "b1", "b2", "a4"], "failed": ["a2", "a3"]}
    assert [entry.name for entry in store.list("")] == ["a1", "a4", "b1", "b2"]


def test_a_lost_answer_is_carried_out() -> None:
    operations = ("put", "create_record", "replace_record", "acquire_lease", "renew_lease", "break_lease", "delete")
    memory = MemoryStore()
    store = FaultStore(memory, [Fault(operation, "lose") for operation in operations])
    for call in (
        lambda: store.put("a", [b"x"]),
        lambda: store.create_record("b", b"1", {}),
        lambda: store.replace_record("b", b"2", {}, etag=memory.read_record("b").etag, lease=None),
        lambda: store.acquire_lease("b", 15),
        lambda: store.break_lease("b"),
        lambda: store.delete("b"),
    ):
        with pytest.raises(StoreUnavailable):
            call()
    assert list(memory.list("")) == [Entry("a", 1)]


def test_a_flipped_bit_is_the_one_that_was_named() -> None:
    store = FaultStore(MemoryStore(), [Fault("put", "flip", bit=9), Fault("read_into", "flip", nth=2, bit=0)])
    store.put("a", [b"\x00", b"\x00\x00"])
    assert store.read_all("a") == b"\x00\x02\x00"
    assert store.read_all("a") == b"\x01\x02\x00"
    assert store.read_all("a") == b"\x00\x02\x00"


def test_listings_break_or_are_short() -> None:
    memory = MemoryStore()
    for name in "abc":
        memory.put(name, [b""])
    store = FaultStore(memory, [Fault("list", "short", entries=2), Fault("list", "break", nth=2, entries=1)])
    assert [entry.name for entry in store.list("")] == ["a", "b"]
    listing = store.list("")
    assert next(listing).name == "a"
    with pytest.raises(StoreUnavailable):
        next(listing)
    assert len(list(store.list(""))) == 3


def test_the_hook_sees_every_request_first() -> None:
    seen: list[tuple[str, str]] = []
    store = FaultStore(MemoryStore(), before=lambda operation, name: seen.append((operation, name)))
    store.put("a", [b""])
    store.read_all("a")
    list(store.list("x"))
    assert seen == [("put", "a"), ("size", "a"), ("read_into", "a"), ("list", "x")]


# -- discard


def test_data_packs_are_forgotten_and_all_else_is_kept() -> None:
    memory = MemoryStore()
    store = DiscardStore(memory)
    kept = ["gc/1-x", "index/s/1-1", "packs/s/1-m0", "repository.json"]
    for name in [*kept, "packs/s/1-0", "packs/s/1-1"]:
        store.put(name, [b"content", b"!"])
    store.create_record("points/r/p", b"point", {"a": "b"})
    assert [entry.name for entry in memory.list("")] == sorted([*kept, "points/r/p"])
    assert list(store.list("packs/")) == [Entry(f"packs/s/1-{part}", 8) for part in ("0", "1", "m0")]
    assert store.size("packs/s/1-0") == 8
    assert store.read_all("packs/s/1-m0") == b"content!"
    with pytest.raises(ObjectExists):
        store.put("packs/s/1-0", [b""])
    with pytest.raises(StoreError, match="discarded"):
        store.read("packs/s/1-0", 0, 1)
    store.delete("packs/s/1-0")
    with pytest.raises(ObjectNotFound):
        store.size("packs/s/1-0")
