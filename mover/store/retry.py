# SPDX-License-Identifier: Apache-2.0
"""Repeats what failed in passing: exponential back-off with jitter, or as long as the store asked for.

Only StoreUnavailable is repeated. A repeated request may find that the first one had been carried out, its answer lost:
- put: a taken name with the same size is one's own success, since names are never shared (I12);
- delete, release_lease: nothing left to delete or release is success;
- create_record, replace_record: ObjectExists, ConditionFailed and LeaseLost go to the caller, who reads the record and
  knows his own write by its id (I11); here nobody can tell;
- acquire_lease: LeaseConflict goes to the caller: a lease that nobody knows lapses by itself.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence

from mover.clock import SYSTEM, Clock
from mover.errors import Cancelled, LeaseLost, ObjectExists, ObjectNotFound, StoreUnavailable
from mover.store.base import Buffer, Entry, Store
from mover.store.wrapper import T, Wrapper, total

_FIRST = 0.5  # seconds; doubles with every attempt
_LONGEST = 30.0  # seconds


class RetryLater(StoreUnavailable):
    """The store said when to come again (Retry-After)."""

    def __init__(self, what: str, value: object, after: float) -> None:
        super().__init__(what, value)
        self.after = after  # seconds


class RetryStore(Wrapper):
    """`patience`: seconds of failures in a row before the last one is raised. `cancel` ends every wait at once."""

    def __init__(
        self,
        inner: Store,
        clock: Clock = SYSTEM,
        *,
        patience: float = 300.0,
        cancel: threading.Event | None = None,
        chosen: random.Random | None = None,
    ) -> None:
        super().__init__(inner)
        self._clock = clock
        self._patience = patience
        self._cancel = cancel or threading.Event()
        self._random = chosen or random.Random()  # noqa: S311 - jitter is no secret

    def _do(self, operation: str, name: str, size: int, call: Callable[[], T]) -> T:
        pause = self._pauses(name)
        while True:
            try:
                return call()
            except StoreUnavailable as error:
                pause(error)

    def put(self, name: str, parts: Sequence[Buffer]) -> None:
        repeated = False

        def call() -> None:
            nonlocal repeated
            try:
                self._inner.put(name, parts)
            except StoreUnavailable:
                repeated = True
                raise
            except ObjectExists:
                if not repeated or self._inner.size(name) != total(parts):
                    raise

        self._do("put", name, total(parts), call)

    def delete(self, name: str, *, etag: str | None = None, lease: str | None = None) -> None:
        self._once_gone_is_done(name, lambda: self._inner.delete(name, etag=etag, lease=lease), ObjectNotFound)

    def release_lease(self, name: str, lease: str) -> None:
        self._once_gone_is_done(name, lambda: self._inner.release_lease(name, lease), LeaseLost)

    def list(self, prefix: str) -> Iterator[Entry]:
        """A listing that breaks is made again from its beginning, and goes on behind the last name that was given."""
        last = ""
        pause = self._pauses(prefix)
        while True:
            try:
                for entry in self._inner.list(prefix):
                    if entry.name > last:
                        yield entry
                        last = entry.name
                        pause = self._pauses(prefix)
                return
            except StoreUnavailable as error:
                pause(error)

    def _once_gone_is_done(self, name: str, call: Callable[[], None], gone: type[Exception]) -> None:
        repeated = False

        def attempt() -> None:
            nonlocal repeated
            try:
                call()
            except StoreUnavailable:
                repeated = True
                raise
            except gone:
                if not repeated:
                    raise

        self._do("", name, 0, attempt)

    def _pauses(self, name: str) -> Callable[[StoreUnavailable], None]:
        """A function to call at every failure of one request: it waits, or raises when patience is over."""
        began: float | None = None
        step = _FIRST

        def pause(error: StoreUnavailable) -> None:
            nonlocal began, step
            now = self._clock.monotonic()
            began = now if began is None else began
            wait = step * self._random.uniform(0.5, 1.0)
            step = min(step * 2, _LONGEST)
            if isinstance(error, RetryLater):
                wait = max(wait, error.after)
            if now + wait - began > self._patience:
                raise error
            if self._clock.wait(self._cancel, wait):
                raise Cancelled("stopped while waiting for the store", name) from error

        return pause
