# SPDX-License-Identifier: Apache-2.0
"""What a repository asks of a place that keeps objects, in contract words.

MUST = data is lost when an implementation breaks it; SHOULD = only time or money. `tests/mover/store/conformance.py`
runs every MUST on every store. Two kinds of thing are kept under one name space:

- an *object* is immutable: written once by `put`, never again under that name (rule I12), read by ranges;
- a *record* is small (at most 64 KiB by convention of its writers; stores take up to 4 MiB), mutable by conditional
  writes only, carries metadata that listings show, and can be leased (rules I1, I3, I4).

Names are relative, ASCII [a-z0-9-._/], with no empty, "." or ".." part, and no part that begins with a dot.
All methods are safe for use by many threads. Nothing is retried here (`retry` does that) and nothing is cached.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from mover.errors import UsageError

Buffer = bytes | bytearray | memoryview

NO_METADATA: Mapping[str, str] = MappingProxyType({})
NAME_PART = re.compile(r"[a-z0-9_-][a-z0-9._-]*\Z")


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a listing. `metadata` is that of a record (empty for objects); `size` is the content's, in bytes."""

    name: str
    size: int
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Record:
    """A record as read: content, its ETag, its metadata, whether a lease is active, and the store's time (Unix s)."""

    data: bytes
    etag: str
    metadata: Mapping[str, str]
    leased: bool
    time: float


@dataclass(frozen=True, slots=True)
class Written:
    """The answer to a record's write: the ETag that it has now, and the store's time (Unix seconds)."""

    etag: str
    time: float


class Store(ABC):
    """See the module's text. Errors are those of `mover.errors` below StoreError, with the object's name as value."""

    # -- objects

    @abstractmethod
    def put(self, name: str, parts: Sequence[Buffer]) -> None:
        """Store the concatenation of `parts` under a new name.

        MUST be all or nothing: a reader or a listing never sees a part. MUST be durable when it returns. MUST raise
        ObjectExists, and leave what is there, when the name is taken: by another's object, or by one's own earlier
        request whose answer was lost (I12: names are never shared, so a caller that retries may take that as success
        after comparing sizes). MUST refuse bytes that were damaged on the way where the store can tell (Azure: CRC64).
        """

    @abstractmethod
    def read_into(self, name: str, offset: int, target: memoryview) -> None:
        """Fill `target` (writable, bytes) with the content from `offset` on.

        MUST raise ObjectNotFound when the name is free and ShortObject when the object ends before the target is full;
        never a partly filled target without an error.
        """

    @abstractmethod
    def size(self, name: str) -> int:
        """The content's length in bytes. MUST raise ObjectNotFound when the name is free."""

    def read(self, name: str, offset: int, length: int) -> bytearray:
        """The range as new bytes; errors as `read_into`."""
        target = bytearray(length)
        self.read_into(name, offset, memoryview(target))
        return target

    def read_all(self, name: str) -> bytearray:
        """The whole object; errors as `read_into`."""
        return self.read(name, 0, self.size(name))

    # -- records

    @abstractmethod
    def create_record(self, name: str, data: bytes, metadata: Mapping[str, str]) -> Written:
        """Store a record under a free name. MUST raise ObjectExists when it is taken; of many callers one succeeds."""

    @abstractmethod
    def replace_record(
        self, name: str, data: bytes, metadata: Mapping[str, str], *, etag: str, lease: str | None
    ) -> Written:
        """Replace content and metadata in one step if the ETag is the record's.

        With `lease`: MUST raise LeaseLost unless that lease is active on the record now (a lapsed one counts as lost
        even when nobody took it since). Without: MUST raise LeaseConflict while any lease is active; on a lapsed lease
        the write succeeds, as Azure's does, and ends it (an old holder can no longer renew). MUST raise ConditionFailed
        when the ETag differs (both at once: either), ObjectNotFound when the name is free.
        Every successful write MUST give the record an ETag that it never had.
        """

    @abstractmethod
    def read_record(self, name: str) -> Record:
        """Content, ETag and metadata of one moment. MUST see every write that was acknowledged before the call."""

    # -- both

    @abstractmethod
    def list(self, prefix: str) -> Iterator[Entry]:
        """All names that begin with `prefix`, ascending, each once.

        MUST be complete for names that existed before the call and were not deleted until it ended, or raise: a short
        list that looks whole loses data (I6). Lazy: an error may come after some entries.
        """

    @abstractmethod
    def delete(self, name: str, *, etag: str | None = None, lease: str | None = None) -> None:
        """Remove an object or record, if its ETag is the one named (when one is named). MUST raise ObjectNotFound when
        the name is free, ConditionFailed, LeaseConflict, LeaseLost as `replace_record` does."""

    # -- leases on records

    @abstractmethod
    def acquire_lease(self, name: str, seconds: int) -> str:
        """Take a lease of 15 to 60 seconds (by the store's clock) if none is active; returns its id, a fresh one.

        MUST raise LeaseConflict while a lease is active (also one that is being broken), ObjectNotFound when free.
        """

    @abstractmethod
    def renew_lease(self, name: str, lease: str) -> None:
        """Start the lease's time again. Succeeds on a lapsed lease too, but MUST raise LeaseLost when the record was
        leased by another, broken, or written or deleted without this lease since (ObjectNotFound is LeaseLost here)."""

    @abstractmethod
    def release_lease(self, name: str, lease: str) -> None:
        """End the lease at once. MUST raise LeaseLost when it is not the record's."""

    @abstractmethod
    def break_lease(self, name: str) -> None:
        """End whatever lease there is at once, anyone may (ownership change). No error when there is none."""

    def close(self) -> None:
        """Give back connections; the store is not used afterwards."""


def check_name(name: str) -> str:
    """The name itself if it obeys the module's rule; UsageError otherwise. Every store calls it on every name."""
    if len(name) > 900 or not all(NAME_PART.match(part) for part in name.split("/")):
        raise UsageError("not a name for an object", repr(name), "names are lower-case ASCII parts joined by '/'")
    return name


def check_prefix(prefix: str) -> str:
    """The prefix itself when names can begin with it. Of anything else a listing is a mistake, not an empty list."""
    *folders, last = prefix.split("/")
    if not all(NAME_PART.match(part) for part in folders) or not (last == "" or NAME_PART.match(last)):
        raise UsageError("not the beginning of any object's name", repr(prefix))
    return prefix
