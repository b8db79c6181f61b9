# SPDX-License-Identifier: Apache-2.0
"""Random walks: for a cast too large to be searched whole. Slow and quick processes are drawn anew for each walk."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

from tests.world.model.explore import Loss, Model
from tests.world.model.process import sentence


class Walk(NamedTuple):
    """One walk from the initial state until nobody can move, a loss, or the given length."""

    made: frozenset[str]  # every kind of move that was made: its sentence before formatting
    loss: Loss | None
    trace: tuple[str, ...]  # every move, in a sentence


def walk(model: Model, generator: random.Random, length: int = 200) -> Walk:
    """Walk once. A process is chosen by its weight, then one of its moves, all alike."""
    state = model.initial()
    weight = {process: generator.random() ** 2 + 0.02 for process in model.processes}
    told: list[str] = []
    made: set[str] = set()
    loss = None
    while len(told) < length and loss is None:
        possible = {process: moves for process in model.processes if (moves := list(process.moves(state)))}
        if not possible:
            break
        process = generator.choices(list(possible), [weight[process] for process in possible])[0]
        state, what, details = generator.choice(possible[process])
        told.append(sentence(process.name, what, details))
        made.add(what)
        loss = model.loss(state)
    return Walk(frozenset(made), loss, tuple(told))


def walks(model: Model, seed: int) -> Iterator[Walk]:
    """Walks without end; the same seed makes the same ones."""
    generator = random.Random(seed)
    while True:
        yield walk(model, generator)
