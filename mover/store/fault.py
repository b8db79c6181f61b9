# SPDX-License-Identifier: Apache-2.0
"""A store that fails on cue, for tests: requests that fail, answers that are lost, listings that break or are short,
bytes that flip, and a hook before every request (to delay it, to stop a thread there, to record the order).

Faults are scripted, not random; a seeded test draws them itself. Not for production: nothing there imports it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

from mover.errors import StoreError, StoreUnavailable
from mover.store.base import Buffer, Entry, Store
from mover.store.wrapper import T, Wrapper


@dataclass
class Fault:
    """What happens to the `nth` matching call (counted from 1) and the `times - 1` after it.

    fail: not carried out, `error` is raised. lose: carried out, then `error` is raised. flip: bit number `bit` (modulo
    the length) of what is read or put is changed. Listings: break raises `error` after `entries` entries, short ends
    there as if it were whole.
    """

    operation: str
    kind: Literal["fail", "lose", "flip", "break", "short"]
    nth: int = 1
    times: int = 1
    name: Callable[[str], bool] = field(default=lambda name: True)
    error: Callable[[str], StoreError] = field(default=lambda name: StoreUnavailable("scripted fault", name))
    entries: int = 0
    bit: int = 0
    seen: int = 0

    def strikes(self, operation: str, name: str) -> bool:
        if operation != self.operation or not self.name(name):
            return False
        self.seen += 1
        return self.nth <= self.seen < self.nth + self.times


class FaultStore(Wrapper):
    """`faults` may be changed between calls. `before(operation, name)` runs first, in the caller's thread, unlocked."""

    def __init__(
        self,
        inner: Store,
        faults: Sequence[Fault] = (),
        before: Callable[[str, str], None] = lambda operation, name: None,
    ) -> None:
        super().__init__(inner)
        self.faults = [*faults]
        self.before = before
        self._lock = threading.Lock()

    def _struck(self, operation: str, name: str) -> Fault | None:
        """The first fault for this call; every fault counts it."""
        self.before(operation, name)
        with self._lock:
            struck = [fault for fault in self.faults if fault.strikes(operation, name)]
        return struck[0] if struck else None

    def _do(self, operation: str, name: str, size: int, call: Callable[[], T]) -> T:
        return _carry_out(self._struck(operation, name), name, call)

    def put(self, name: str, parts: Sequence[Buffer]) -> None:
        fault = self._struck("put", name)
        if fault is not None and fault.kind == "flip":
            parts = [_flipped(bytearray(b"".join(parts)), fault.bit)]
        _carry_out(fault, name, lambda: self._inner.put(name, parts))

    def read_into(self, name: str, offset: int, target: memoryview) -> None:
        fault = self._struck("read_into", name)
        _carry_out(fault, name, lambda: self._inner.read_into(name, offset, target))
        if fault is not None and fault.kind == "flip":
            _flipped(target, fault.bit)

    def list(self, prefix: str) -> Iterator[Entry]:
        fault = self._struck("list", prefix)
        if fault is None:
            yield from self._inner.list(prefix)
            return
        if fault.kind == "fail":
            raise fault.error(prefix)
        yield from islice(self._inner.list(prefix), fault.entries)
        if fault.kind == "break":
            raise fault.error(prefix)


def _carry_out(fault: Fault | None, name: str, call: Callable[[], T]) -> T:
    if fault is not None and fault.kind == "fail":
        raise fault.error(name)
    if fault is not None and fault.kind == "lose":
        try:
            call()
        except StoreError:
            pass  # that answer is lost too
        raise fault.error(name)
    return call()


def _flipped(data: bytearray | memoryview, bit: int) -> bytearray | memoryview:
    if len(data):
        data[bit // 8 % len(data)] ^= 1 << bit % 8
    return data
