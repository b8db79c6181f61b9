# SPDX-License-Identifier: Apache-2.0
"""The way from an actor to the store: every request is a pause, and the schedule decides its fate.

A request may be carried out, fail, lose its answer, or come late: the actor is told that the store did not answer, and the
request is carried out when the world delivers it, after a take-over say. Listings come in pages of two, each a request.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from mover.errors import StoreError, StoreUnavailable
from mover.store.base import Buffer, Entry, Store
from mover.store.wrapper import T, Wrapper
from tests.world.baton import Baton, Pause, Process

LISTED_AT_ONCE = 2
WRITES = frozenset(
    {"put", "create_record", "replace_record", "delete", "acquire_lease", "renew_lease", "release_lease"}
)


class Fate(enum.Enum):
    OK = "ok"
    FAIL = "fails"
    LOSE = "loses its answer"
    LATE = "comes late"
    SHORT = "is a short listing"


@dataclass
class Late:
    """A request still on its way."""

    process: Process
    operation: str
    name: str
    carry_out: Callable[[], None]

    def __str__(self) -> str:
        return f"late {self.operation} {self.name} of {self.process}"


class Net(Protocol):
    """What a wire needs of the world."""

    baton: Baton
    late: list[Late]

    def done(self, process: Process, operation: str, name: str) -> None:
        """A request was carried out."""

    def note(self, text: str) -> None: ...


class Wire(Wrapper):
    """One process's connection to the store."""

    def __init__(self, net: Net, process: Process, inner: Store) -> None:
        super().__init__(inner)
        self._net = net
        self._process = process

    def _pause(self, operation: str, name: str) -> Fate:
        fate = self._net.baton.pause(Pause(operation, name)) or Fate.OK
        if fate is Fate.LATE and operation not in WRITES:
            fate = Fate.FAIL
        if fate is Fate.SHORT and (operation != "list" or self._process.trusts_listings):
            fate = Fate.FAIL  # I6: a verdict is only as good as the store's listings; they break, but do not lie
        actor = self._net.baton.current
        self._net.note(f"{actor}: {operation} {name}" + (f" {fate.value}" if fate is not Fate.OK else ""))
        return fate

    def _do(self, operation: str, name: str, size: int, call: Callable[[], T]) -> T:
        def carry_out() -> T:
            answer = call()
            self._net.done(self._process, operation, name)
            return answer

        def carry_out_unheard() -> None:
            try:
                carry_out()
            except StoreError:
                pass  # that answer is lost too

        fate = self._pause(operation, name)
        if fate is Fate.OK:
            return carry_out()
        if fate is Fate.LOSE:
            carry_out_unheard()
        elif fate is Fate.LATE:
            self._net.late.append(Late(self._process, operation, name, carry_out_unheard))
        raise StoreUnavailable("the store did not answer", name)

    def put(self, name: str, parts: Sequence[Buffer]) -> None:
        super().put(name, [b"".join(parts)])  # a late request keeps its bytes

    def list(self, prefix: str) -> Iterator[Entry]:
        last = ""
        while True:
            fate = self._pause("list", prefix)
            if fate in (Fate.FAIL, Fate.LOSE):
                raise StoreUnavailable("the store did not answer", prefix)
            page = list(islice((e for e in self._inner.list(prefix) if e.name > last), LISTED_AT_ONCE))
            if fate is Fate.SHORT:
                return
            yield from page
            if len(page) < LISTED_AT_ONCE:
                return
            last = page[-1].name
