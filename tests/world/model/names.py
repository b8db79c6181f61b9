# SPDX-License-Identifier: Apache-2.0
"""Why a pack's name holds its writer's incarnation (I12).

A zombie and the adopter of its session each upload a pack. Both would call it number 0 of the session; a request may
arrive late, twice (sent again after a lost response) or never, and an object that is there already answers 409. Whoever
gets a 409 asks whose object that is, by the id that its creator wrote into it, and goes on to the next number if it is
another's. What must hold: whoever believes to have stored a pack has stored its own bytes under that name.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Literal, NamedTuple, TypeAlias

# One Put Blob, or two Put Blocks and a Put Block List, the blocks' ids being their offsets, as the SDK makes them.
Transport: TypeAlias = Literal["whole", "blocks"]
# What a name, and the id written into an object, tell apart.
Named: TypeAlias = Literal["session", "incarnation"]
Identified: TypeAlias = Literal["session", "object"]

ZOMBIE: Final = 1
ADOPTER: Final = 3
WORKERS: Final = (ZOMBIE, ADOPTER)
NUMBERS: Final = (0, 1)  # a worker that found both taken gives up

SEND: Final = "send"  # the blob, or its first block
SEND_SECOND: Final = "send the second block"
SEND_LIST: Final = "send the block list"
STORED: Final = "believes to have stored its pack"

Content: TypeAlias = tuple[int, int]  # who wrote each half of the bytes; 0: nobody


class Upload(NamedTuple):
    """What one worker has in memory."""

    phase: str = SEND
    number: int = 0
    resent: bool = False


class Committed(NamedTuple):
    """An object as the store shows it."""

    content: Content
    created_by: Any


class Race(NamedTuple):
    """A state: the objects, the blocks that no list names yet, and the two workers."""

    committed: tuple[tuple[Any, Committed], ...] = ()
    staged: tuple[tuple[Any, Content], ...] = ()
    workers: tuple[Upload, ...] = (Upload(), Upload())


class Names(NamedTuple):
    """One way to name packs and to send them."""

    transport: Transport
    named: Named
    identified: Identified

    def name(self, worker: int, number: int) -> Any:
        return number if self.named == "session" else (worker, number)

    def identity(self, worker: int, number: int) -> Any:
        return "session" if self.identified == "session" else (worker, number)

    def moves(self, race: Race) -> Iterator[Race]:
        """All states that one request leads to."""
        for index, worker in enumerate(WORKERS):
            upload = race.workers[index]
            if upload.phase == STORED or upload.number not in NUMBERS:
                continue
            for committed, staged, after in self.request(race, worker, upload):
                workers = (after, race.workers[1]) if index == 0 else (race.workers[0], after)
                yield Race(tuple(sorted(committed.items())), tuple(sorted(staged.items())), workers)

    def request(
        self, race: Race, worker: int, upload: Upload
    ) -> Iterator[tuple[dict[Any, Committed], dict[Any, Content], Upload]]:
        committed, staged = dict(race.committed), dict(race.staged)
        name = self.name(worker, upload.number)
        if self.transport == "blocks" and upload.phase != SEND_LIST:
            first, second = staged.get(name, (0, 0))
            staged[name] = (worker, second) if upload.phase == SEND else (first, worker)
            yield committed, staged, upload._replace(phase=SEND_SECOND if upload.phase == SEND else SEND_LIST)
            return
        identity = self.identity(worker, upload.number)
        if name in committed:  # 409
            if committed[name].created_by == identity:
                yield committed, staged, upload._replace(phase=STORED)
            else:
                yield committed, staged, Upload(number=upload.number + 1)
            return
        content = (worker, worker)
        if self.transport == "blocks":
            content = staged.get(name, (0, 0))
            if 0 in content:  # 400 InvalidBlockList: somebody's list took the blocks away
                yield committed, staged, upload._replace(phase=SEND)
                return
            del staged[name]
        committed[name] = Committed(content, identity)
        yield committed, staged, upload._replace(phase=STORED)
        if not upload.resent:  # it is there, but the response was lost
            yield committed, staged, upload._replace(resent=True)

    def misled(self, race: Race) -> bool:
        """Whether a worker believes to have stored what is not there."""
        committed = dict(race.committed)
        for worker, upload in zip(WORKERS, race.workers, strict=True):
            if upload.phase == STORED and committed[self.name(worker, upload.number)].content != (worker, worker):
                return True
        return False

    def explore(self) -> tuple[int, int | None]:
        """How many states there are, and after how many requests somebody is misled: None if nobody ever is."""
        reached = {Race()}
        frontier = [Race()]
        requests = 0
        while frontier:
            requests += 1
            following = []
            for race in frontier:
                for after in self.moves(race):
                    if after not in reached:
                        reached.add(after)
                        following.append(after)
            if any(self.misled(race) for race in following):
                return len(reached), requests
            frontier = following
        return len(reached), None
