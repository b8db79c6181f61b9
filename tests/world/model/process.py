# SPDX-License-Identifier: Apache-2.0
"""What writers, collectors and readers have in common: a place in the state, and moves.

A move is the state after it, a sentence, and what the sentence speaks of. The sentence is formatted only when somebody
reads it: a search makes millions of moves and shows a dozen.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, TypeAlias

from tests.world.model.rules import Rules
from tests.world.model.scenarios import Scenario
from tests.world.model.state import BLOBS, CHUNKS, MEMBERS, NUMBERS, PACKS, State, World

Move: TypeAlias = tuple[State, str, tuple[Any, ...]]
Step: TypeAlias = Callable[[State, World, Any], Iterable[Move]]


class Process:
    """One process of a scenario. It has no state of its own: its record is `state[self.slot]`."""

    record: ClassVar[Any]  # the type of its record, whose defaults are the record to begin with

    def __init__(self, name: str, slot: int, scenario: Scenario, rules: Rules) -> None:
        self.name = name
        self.slot = slot
        self.scenario = scenario
        self.rules = rules
        self.steps: dict[str, Step] = {}  # by phase; a phase without a step is an end

    def moves(self, state: State) -> Iterable[Move]:
        """All moves that this process can make in `state`."""
        mine = state[self.slot]
        step = self.steps.get(mine.phase)
        return step(state, state[0], mine) if step else ()

    def local(self, state: State, mine: Any) -> State:
        """`state` after this process remembered something; the world has not changed."""
        return (*state[: self.slot], mine, *state[self.slot + 1 :])

    def wrote(self, state: State, mine: Any, world: World) -> State:
        """`state` after this process changed the world."""
        return (world, *state[1 : self.slot], mine, *state[self.slot + 1 :])


class Sentence(string.Formatter):
    """Formats a move's sentence: {:packs}, {:points} and {:chunks} are sets, {:pack} and {:blob} are one of them."""

    def format_field(self, value: Any, format_spec: str) -> str:
        match format_spec:
            case "packs":
                return "{" + ",".join(PACKS[pack] for pack in MEMBERS[value]) + "}"
            case "pack":
                return PACKS[value] if value else "-"
            case "points":
                return "{" + ",".join(BLOBS[number] for number in NUMBERS[value]) + "}"
            case "blob":
                return BLOBS[value]
            case "chunks":
                return "".join(name for bit, name in CHUNKS.items() if value & bit)
            case "map":
                return " ".join(
                    f"{name}->{self.format_field(pack, 'pack')}" for name, pack in zip("AB", value, strict=True)
                )
        return format(value, format_spec)


def sentence(name: str, what: str, details: tuple[Any, ...]) -> str:
    """The sentence for a person, with the name of the process that moved."""
    return f"{name} {Sentence().format(what, *details)}"
