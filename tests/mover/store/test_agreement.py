# SPDX-License-Identifier: Apache-2.0
"""The stores answer alike: random sequences of record and lease requests, carried out on two stores step by step.

The simulator stands on MemoryStore, so what it says must be what Azure says: the same outcome of every request, the same
records, leases and listings after it. Against Azurite time stands still (no lease lapses within the test); lapsed
leases there are conformance tests of their own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mover.errors import ConditionFailed, LeaseConflict, LeaseLost, StoreError
from mover.store.azure import AzureBlobStore
from mover.store.base import Store
from mover.store.local import LocalStore
from mover.store.memory import MemoryStore
from tests.azurite import Azurite
from tests.mover.store.clock import ManualClock
from tests.mover.store.test_azure import key_of, make_container

NAMES = ("p/a", "p/b", "p/b-c")
UNKNOWN_ETAG, UNKNOWN_LEASE = '"0x0"', "00000000-0000-4000-8000-000000000000"


@dataclass
class Player:
    """One store and what it gave out: ETags and lease ids differ between stores, their order does not."""

    store: Store
    etags: dict[str, list[str]] = field(default_factory=lambda: {name: [UNKNOWN_ETAG] for name in NAMES})
    leases: dict[str, list[str]] = field(default_factory=lambda: {name: [UNKNOWN_LEASE] for name in NAMES})

    def play(self, request: Request) -> object:
        """The outcome: a value that both stores must have, or the kind of error."""
        name, store = request.name, self.store
        etag = self.etags[name][max(request.etag, -len(self.etags[name]))]
        lease = None if request.lease is None else self.leases[name][max(request.lease, -len(self.leases[name]))]
        metadata = {"n": request.text}
        try:
            match request.operation:
                case "put":
                    store.put(name, [request.text.encode()])
                case "create":
                    self.etags[name].append(store.create_record(name, request.text.encode(), metadata).etag)
                case "replace":
                    written = store.replace_record(name, request.text.encode(), metadata, etag=etag, lease=lease)
                    self.etags[name].append(written.etag)
                case "delete":
                    store.delete(name, etag=etag if request.conditional else None, lease=lease)
                case "acquire":
                    self.leases[name].append(store.acquire_lease(name, request.seconds))
                case "renew":
                    store.renew_lease(name, lease or UNKNOWN_LEASE)
                case "release":
                    store.release_lease(name, lease or UNKNOWN_LEASE)
                case "break":
                    store.break_lease(name)
        except StoreError as error:
            return type(error)
        return None

    def state(self) -> object:
        found = []
        for entry in self.store.list("p/"):
            record = self.store.read_record(entry.name)
            etags = self.etags[entry.name]
            found.append((entry, record.data, dict(record.metadata), record.leased, etags.index(record.etag)))
        return found


@dataclass(frozen=True)
class Request:
    """`etag` and `lease` count from the newest that was given out for the name: -1, -2..."""

    operation: str
    name: str
    text: str
    etag: int
    lease: int | None
    seconds: int
    conditional: bool


def drawn(chosen: random.Random, number: int) -> Request:
    operations = [
        "create",
        "replace",
        "replace",
        "replace",
        "delete",
        "acquire",
        "acquire",
        "renew",
        "release",
        "break",
    ]
    return Request(
        operation=chosen.choice(operations),
        name=chosen.choice(NAMES),
        text=str(number),
        etag=chosen.choice([-1, -1, -1, -2]),
        lease=chosen.choice([None, None, -1, -1, -1, -2]),
        seconds=chosen.choice([15, 30, 60]),
        conditional=chosen.random() < 0.5,
    )


def agree(one: Player, other: Player, seed: int, steps: int, pass_time: Callable[[random.Random], None]) -> None:
    chosen, history = random.Random(seed), []
    for number in range(steps):
        pass_time(chosen)
        request = drawn(chosen, number)
        history.append(request)
        outcomes = {one.play(request), other.play(request)}
        # Where ETag and lease are both wrong, a store may say either.
        if not (outcomes <= {ConditionFailed, LeaseConflict, LeaseLost} and ConditionFailed in outcomes):
            assert len(outcomes) == 1, (outcomes, history[-8:])
        assert one.state() == other.state(), history[-8:]


@pytest.fixture
def local(tmp_path: Path) -> Iterator[tuple[ManualClock, LocalStore]]:
    clock = ManualClock()
    store = LocalStore(tmp_path, clock)
    yield clock, store
    store.close()


@pytest.mark.parametrize("seed", range(6))
def test_memory_and_local(local: tuple[ManualClock, LocalStore], seed: int) -> None:
    clock, store = local

    def pass_time(chosen: random.Random) -> None:
        clock.advance(chosen.choice([0, 0, 1, 10, 20, 61]))

    agree(Player(MemoryStore(clock)), Player(store), seed, 250, pass_time)


@pytest.mark.azurite
@pytest.mark.parametrize("seed", range(3))
def test_memory_and_azurite(azurite: Azurite, seed: int) -> None:
    with closing(AzureBlobStore(make_container(azurite), key_of(azurite))) as store:
        agree(Player(MemoryStore(ManualClock())), Player(store), seed, 120, lambda chosen: None)
