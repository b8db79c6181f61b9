# SPDX-License-Identifier: Apache-2.0
"""A store in this process's memory: for tests and for the simulator, with Azure's rules for records and leases.

Deterministic: ETags come from a counter, lease ids from a factory, time from the clock that is given. Nothing of it
outlives the process, and it is no cache. One lock makes every call one step; a listing is the state of its first step.
"""

from __future__ import annotations

import bisect
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from mover.clock import SYSTEM
from mover.errors import ConditionFailed, LeaseLost, ObjectExists, ObjectNotFound, ShortObject
from mover.store import lease as leases
from mover.store.base import NO_METADATA, Buffer, Entry, Record, Store, Written, check_name, check_prefix
from mover.store.record_rules import check_lease_seconds, check_record


class StoreTime(Protocol):
    """The store's own clock: leases lapse by `monotonic`, answers carry `wall`. Every mover.clock.Clock is one."""

    def monotonic(self) -> float: ...

    def wall(self) -> float: ...


@dataclass(slots=True)
class _Item:
    data: bytes
    etag: str
    metadata: Mapping[str, str]
    lease: leases.Lease | None = None


class MemoryStore(Store):
    """`new_lease_id` returns a fresh id at every call; the default counts."""

    def __init__(self, clock: StoreTime = SYSTEM, new_lease_id: Callable[[], str] | None = None) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._items: dict[str, _Item] = {}
        self._names: list[str] = []  # the keys of _items, ascending
        self._etags = itertools.count(1)
        counter = itertools.count(1)
        self._new_lease_id = new_lease_id or (lambda: f"lease-{next(counter)}")

    # -- objects

    def put(self, name: str, parts: Sequence[Buffer]) -> None:
        check_name(name)
        data = b"".join(parts)
        with self._lock:
            self._add(name, data, NO_METADATA)

    def read_into(self, name: str, offset: int, target: memoryview) -> None:
        check_name(name)
        with self._lock:
            data = self._item(name).data
        if offset < 0 or offset + target.nbytes > len(data):
            raise ShortObject(f"the object has {len(data)} bytes, {offset}+{target.nbytes} were asked for", name)
        target[:] = memoryview(data)[offset : offset + target.nbytes]

    def size(self, name: str) -> int:
        check_name(name)
        with self._lock:
            return len(self._item(name).data)

    # -- records

    def create_record(self, name: str, data: bytes, metadata: Mapping[str, str]) -> Written:
        check_name(name)
        kept = MappingProxyType(check_record(name, data, metadata))
        with self._lock:
            return Written(self._add(name, bytes(data), kept).etag, self._clock.wall())

    def replace_record(
        self, name: str, data: bytes, metadata: Mapping[str, str], *, etag: str, lease: str | None
    ) -> Written:
        check_name(name)
        kept = MappingProxyType(check_record(name, data, metadata))
        with self._lock:
            item = self._item(name)
            left = self._admit(name, item, etag, lease)
            new = _Item(bytes(data), self._new_etag(), kept, left)
            self._items[name] = new
            return Written(new.etag, self._clock.wall())

    def read_record(self, name: str) -> Record:
        check_name(name)
        with self._lock:
            item = self._item(name)
            leased = leases.is_active(item.lease, self._clock.monotonic())
            return Record(item.data, item.etag, item.metadata, leased, self._clock.wall())

    # -- both

    def list(self, prefix: str) -> Iterator[Entry]:
        return self._list(check_prefix(prefix))

    def _list(self, prefix: str) -> Iterator[Entry]:
        with self._lock:
            entries = []
            for name in itertools.islice(self._names, bisect.bisect_left(self._names, prefix), None):
                if not name.startswith(prefix):
                    break
                item = self._items[name]
                entries.append(Entry(name, len(item.data), item.metadata))
        yield from entries

    def delete(self, name: str, *, etag: str | None = None, lease: str | None = None) -> None:
        check_name(name)
        with self._lock:
            self._admit(name, self._item(name), etag, lease)
            del self._items[name]
            del self._names[bisect.bisect_left(self._names, name)]

    # -- leases

    def acquire_lease(self, name: str, seconds: int) -> str:
        check_name(name)
        check_lease_seconds(name, seconds)
        with self._lock:
            item = self._item(name)
            item.lease = leases.acquired(name, item.lease, self._new_lease_id(), seconds, self._clock.monotonic())
            return item.lease.id

    def renew_lease(self, name: str, lease: str) -> None:
        check_name(name)
        with self._lock:
            item = self._leased_item(name)
            item.lease = leases.renewed(name, item.lease, lease, self._clock.monotonic())

    def release_lease(self, name: str, lease: str) -> None:
        check_name(name)
        with self._lock:
            item = self._leased_item(name)
            leases.own(name, item.lease, lease)
            item.lease = None

    def break_lease(self, name: str) -> None:
        check_name(name)
        with self._lock:
            item = self._item(name)
            item.lease = leases.broken(item.lease)

    # -- inside, all under the lock

    def _item(self, name: str) -> _Item:
        try:
            return self._items[name]
        except KeyError:
            raise ObjectNotFound("no such object", name) from None

    def _leased_item(self, name: str) -> _Item:
        try:
            return self._items[name]
        except KeyError:
            raise LeaseLost("the record is gone, and its lease with it", name) from None

    def _add(self, name: str, data: bytes, metadata: Mapping[str, str]) -> _Item:
        if name in self._items:
            raise ObjectExists("the name is taken", name)
        item = self._items[name] = _Item(data, self._new_etag(), metadata)
        bisect.insort(self._names, name)
        return item

    def _admit(self, name: str, item: _Item, etag: str | None, lease: str | None) -> leases.Lease | None:
        left = leases.after_write(name, item.lease, lease, self._clock.monotonic())
        if etag is not None and etag != item.etag:
            raise ConditionFailed("the record was written since its ETag was read", name)
        return left

    def _new_etag(self) -> str:
        return f'"{next(self._etags):x}"'
