# SPDX-License-Identifier: Apache-2.0
"""Repeats what failed in passing (`patience`).

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
from mover.errors import LeaseLost, ObjectExists, ObjectNotFound, StoreUnavailable
from mover.store.base import Buffer, Entry, Store
from mover.store.patience import Patience
from mover.store.wrapper import T, Wrapper, total


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
        self._patience = Patience(clock, seconds=patience, cancel=cancel, chosen=chosen)

    def _do(self, operation: str, name: str, size: int, call: Callable[[], T]) -> T:
        return self._patience.ask(name, call)

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
        pause = self._patience.pauses(prefix)
        while True:
            try:
                for entry in self._inner.list(prefix):
                    if entry.name > last:
                        yield entry
                        last = entry.name
                        pause = self._patience.pauses(prefix)
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
