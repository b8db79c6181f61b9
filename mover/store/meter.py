# SPDX-License-Identifier: Apache-2.0
"""Counts calls, content bytes and seconds, by operation and by class of name; lease calls have a line of their own.

What a class is (data pack, metadata pack, index run, point...) the repository says through `classify`. Under `retry` it
counts attempts, which is what a store bills. It knows no prices.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from mover.clock import SYSTEM, Clock
from mover.errors import StoreError
from mover.store.base import Entry, Record, Store
from mover.store.wrapper import LEASE_OPERATIONS, T, Wrapper

PAGE = 5_000  # names in one call of a listing, Azure's most


@dataclass(slots=True)
class Count:
    """`bytes` of content that were written, or read without an error; `errors` are calls too."""

    calls: int = 0
    bytes: int = 0
    seconds: float = 0.0
    errors: int = 0


class MeterStore(Wrapper):
    """`classify` takes a name (for listings the prefix), `heard` an operation that was answered; many threads call them."""

    def __init__(
        self,
        inner: Store,
        classify: Callable[[str], str],
        clock: Clock = SYSTEM,
        heard: Callable[[str], None] = lambda operation: None,
    ) -> None:
        super().__init__(inner)
        self._classify = classify
        self._clock = clock
        self._heard = heard
        self._lock = threading.Lock()
        self._counts: defaultdict[tuple[str, str], Count] = defaultdict(Count)

    def snapshot(self) -> dict[str, dict[str, dict[str, float]]]:
        """operation -> class -> {calls, bytes, seconds, errors}; all lease calls are the operation `lease`."""
        found: dict[str, dict[str, dict[str, float]]] = {}
        with self._lock:
            for (operation, kind), count in sorted(self._counts.items()):
                found.setdefault(operation, {})[kind] = asdict(count)
        return found

    def _do(self, operation: str, name: str, size: int, call: Callable[[], T]) -> T:
        began = self._clock.monotonic()
        try:
            result = call()
        except StoreError:
            self._add(operation, name, began, 0, errors=1)
            raise
        self._add(operation, name, began, len(result.data) if isinstance(result, Record) else size)
        return result

    def list(self, prefix: str) -> Iterator[Entry]:
        """Counted as pages, one call for every `PAGE` names; the seconds include what the caller does between names."""
        began, names, errors = self._clock.monotonic(), 0, 0
        try:
            for entry in self._inner.list(prefix):
                names += 1
                yield entry
        except StoreError:
            errors = 1
            raise
        finally:
            self._add("list", prefix, began, 0, calls=max(1, -(-names // PAGE)), errors=errors)

    def _add(self, operation: str, name: str, began: float, size: int, *, calls: int = 1, errors: int = 0) -> None:
        seconds = self._clock.monotonic() - began
        key = ("lease" if operation in LEASE_OPERATIONS else operation, self._classify(name))
        with self._lock:
            count = self._counts[key]
            count.calls += calls
            count.bytes += size
            count.seconds += seconds
            count.errors += errors
        if not errors:
            self._heard(key[0])
