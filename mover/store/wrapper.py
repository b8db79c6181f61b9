# SPDX-License-Identifier: Apache-2.0
"""A store over a store that changes nothing: what the wrappers build on. Each of them is one file and one behaviour.

Every call passes through `_do` with its operation's name, except listings, which are lazy and which each wrapper treats
itself. Wrappers nest in any order; the order says what is counted or repeated (a meter under `retry` counts attempts).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from mover.store.base import Buffer, Entry, Record, Store, Written

T = TypeVar("T")

LEASE_OPERATIONS = frozenset({"acquire_lease", "renew_lease", "release_lease", "break_lease"})


class Wrapper(Store):
    def __init__(self, inner: Store) -> None:
        self._inner = inner

    def _do(self, operation: str, name: str, size: int, call: Callable[[], T]) -> T:
        """Carry out one call. `size` is the number of content bytes that it writes, or that it asks for."""
        return call()

    def put(self, name: str, parts: Sequence[Buffer]) -> None:
        return self._do("put", name, total(parts), lambda: self._inner.put(name, parts))

    def read_into(self, name: str, offset: int, target: memoryview) -> None:
        return self._do("read_into", name, target.nbytes, lambda: self._inner.read_into(name, offset, target))

    def size(self, name: str) -> int:
        return self._do("size", name, 0, lambda: self._inner.size(name))

    def create_record(self, name: str, data: bytes, metadata: Mapping[str, str]) -> Written:
        return self._do("create_record", name, len(data), lambda: self._inner.create_record(name, data, metadata))

    def replace_record(
        self, name: str, data: bytes, metadata: Mapping[str, str], *, etag: str, lease: str | None
    ) -> Written:
        def call() -> Written:
            return self._inner.replace_record(name, data, metadata, etag=etag, lease=lease)

        return self._do("replace_record", name, len(data), call)

    def read_record(self, name: str) -> Record:
        return self._do("read_record", name, 0, lambda: self._inner.read_record(name))

    def list(self, prefix: str) -> Iterator[Entry]:
        return self._inner.list(prefix)

    def delete(self, name: str, *, etag: str | None = None, lease: str | None = None) -> None:
        return self._do("delete", name, 0, lambda: self._inner.delete(name, etag=etag, lease=lease))

    def acquire_lease(self, name: str, seconds: int) -> str:
        return self._do("acquire_lease", name, 0, lambda: self._inner.acquire_lease(name, seconds))

    def renew_lease(self, name: str, lease: str) -> None:
        return self._do("renew_lease", name, 0, lambda: self._inner.renew_lease(name, lease))

    def release_lease(self, name: str, lease: str) -> None:
        return self._do("release_lease", name, 0, lambda: self._inner.release_lease(name, lease))

    def break_lease(self, name: str) -> None:
        return self._do("break_lease", name, 0, lambda: self._inner.break_lease(name))

    def close(self) -> None:
        self._inner.close()


def total(parts: Sequence[Buffer]) -> int:
    """Bytes of all parts."""
    return sum(part.nbytes if isinstance(part, memoryview) else len(part) for part in parts)
