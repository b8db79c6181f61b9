# SPDX-License-Identifier: Apache-2.0
"""What may happen next in a world: the moves that the Hypothesis machine and the random walks choose from."""

from __future__ import annotations

import random
from collections.abc import Sequence

from tests.world.baton import Actor
from tests.world.collector import Plan
from tests.world.wire import Fate
from tests.world.world import World

RESOURCES = ("vm1", "vm2")
BLOCKS = 7  # of a disk to begin with: four pages, the last one short
VALUES = 40  # different blocks; what disks have in common, they copy from each other
RATES = (1.0, 1.0, 1.0, 0.0, 3.0)  # workers' clocks: right, standing still, fast
FAULTS = (Fate.FAIL, Fate.LOSE, Fate.LATE, Fate.SHORT)
PACES = (1, 1, 2, 3, 5, 8, 13, 30)
SECONDS = (5.0, 20.0, 61.0, 61.0, 700.0)


class Moves:
    """The moves, by number where one of several is meant; a number counts round. Moves that cannot be made are none."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.jobs: list[tuple[str, str, int]] = []

    # -- who comes

    def write(self, resource: str, content: Sequence[int], checkpoints: Sequence[int], rate: float) -> None:
        """A new state of the disk, backed up under a new job."""
        version = self.world.change(resource, content)
        self.jobs.append((resource, f"job{len(self.jobs)}", version))
        self._writer(self.jobs[-1], checkpoints, rate)

    def write_again(self, number: int, checkpoints: Sequence[int], rate: float) -> None:
        """A job that was issued before, the youngest first: adopted, finished, busy or made once more."""
        if self.jobs:
            self._writer(self.jobs[-1 - number % len(self.jobs)], checkpoints, rate)

    def _writer(self, job: tuple[str, str, int], checkpoints: Sequence[int], rate: float) -> None:
        resource, name, version = job
        clock = self.world.clock(rate, offset=-1e9 if rate != 1.0 else 0.0)
        self.world.writer(resource, name, version=version, checkpoints=checkpoints, clock=clock)

    def read(self, number: int, rate: float) -> None:
        points = [name for name, point in self.world.points.items() if not point.expired]
        if points:
            self.world.reader(points[number % len(points)], self.world.clock(rate))

    def collect(self, expire: Sequence[int], condemn_all: bool, grace_over: bool) -> None:
        points = [name for name, point in self.world.points.items() if not point.expired]
        chosen = frozenset(points[k % len(points)] for k in expire) if points else frozenset()
        self.world.collector(Plan(chosen, condemn_all=condemn_all, grace_over=grace_over))

    # -- what happens to them

    def go(self, number: int, paces: int, fate: Fate = Fate.OK) -> None:
        """So many requests of one actor, the last one with this fate; an actor that waits has its turn behind it."""
        actor = self._actor(number)
        for k in range(paces):
            if actor is None or actor.done:
                return
            self.world.step(actor, fate if k == paces - 1 else Fate.OK)
            if actor.at.what == "wait":
                return

    def crash(self, number: int) -> None:
        actor = self._actor(number)
        if actor is not None:
            self.world.crash(actor)

    def deliver(self, number: int) -> None:
        if self.world.late:
            self.world.deliver(self.world.late[number % len(self.world.late)])

    def is_writer(self, number: int) -> bool:
        actor = self._actor(number)
        return actor is not None and actor.name.startswith("W") and "/" not in actor.name

    def _actor(self, number: int) -> Actor | None:
        living = self.world.living()
        return living[number % len(living)] if living else None

    def drain(self) -> None:
        """Everybody comes to an end: late requests arrive, workers go on in turn, nobody fails any more."""
        while self.world.late:
            self.deliver(0)
        for _ in range(3000):
            living = self.world.living()
            if not living:
                return
            for actor in living:
                if not actor.done:
                    self.world.step(actor)


def walk(seed: int, moves: int = 150) -> World:
    """One random walk, decided by its seed; the world is closed when it comes back. A failure tells the story.

    Of four walks one reads the index piecemeal, and in one the threads of a worker take turns at every lock.
    """
    rng = random.Random(seed)
    with World(seed, remote_index=seed % 4 == 3, fine=seed % 4 == 1) as made:
        try:
            _walk(Moves(made), rng, moves)
        except Exception as error:
            error.add_note(f"walk({seed}, {moves})\n{made.story()}")
            raise
    return made


def _walk(m: Moves, rng: random.Random, moves: int) -> None:
    contents = {name: [rng.randrange(VALUES) for _ in range(BLOCKS)] for name in RESOURCES}
    for _ in range(moves):
        working = sum("/" not in actor.name for actor in m.world.living())
        kind = rng.random()
        if working < 4 or (working < 8 and kind < 0.06):
            _newcomer(m, rng, contents)
        elif kind < 0.15:
            m.world.advance(rng.choice(SECONDS))
        elif kind < 0.17:
            m.crash(rng.randrange(99))
        elif kind < 0.20:
            m.deliver(rng.randrange(99))
        else:
            fate = rng.choice(FAULTS) if rng.random() < 0.15 else Fate.OK
            number = rng.randrange(99)
            m.go(number, rng.choice(PACES if m.is_writer(number) else (*PACES, 80, 80, 80)), fate)
    m.drain()


def _newcomer(m: Moves, rng: random.Random, contents: dict[str, list[int]]) -> None:
    kind, rate = rng.random(), rng.choice(RATES)
    checkpoints = [k for k in range(1, BLOCKS + 1) if rng.random() < 0.3]
    if kind < 0.35:
        resource = rng.choice(RESOURCES)
        contents[resource] = _changed(m, rng, contents[resource])
        m.write(resource, contents[resource], checkpoints, rate)
    elif kind < 0.50:
        m.write_again(rng.choice((0, 0, 0, 1, 1, 2, 3, 5)), checkpoints, rate)
    elif kind < 0.65:
        m.read(rng.randrange(99), rate)
    else:
        expire = [rng.randrange(99) for _ in range(rng.choice((0, 1, 1, 2, 3)))]
        m.collect(expire, rng.random() < 0.4, rng.random() < 0.3)


def _changed(m: Moves, rng: random.Random, content: list[int]) -> list[int]:
    """Blocks stay, are copied from any disk's state of any time, or are new; now and then the disk is resized."""
    states = [state for versions in m.world.versions.values() for state in versions] or [(1,)]
    changed = []
    for value in content:
        kind = rng.random()
        if kind < 0.35:
            value = rng.choice(rng.choice(states))
        elif kind < 0.5:
            value = rng.randrange(VALUES)
        changed.append(value)
    if rng.random() < 0.1:
        changed = changed[:-1] if len(changed) > 3 and rng.random() < 0.5 else [*changed, rng.randrange(VALUES)]
    return changed
