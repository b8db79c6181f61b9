# SPDX-License-Identifier: Apache-2.0
"""The model on the command line: what its package says about it."""

from __future__ import annotations

import argparse
import sys

from tests.world.model.explore import Model, explore
from tests.world.model.rules import SWITCHES, Rules
from tests.world.model.scenarios import SCENARIOS, SCENARIOS_OF_OURS


def main(argv: list[str] | None = None) -> int:
    """1 where a loss was found: with every rule in force that is news."""
    scenarios = {**SCENARIOS, **SCENARIOS_OF_OURS}
    parser = argparse.ArgumentParser(prog="python -m tests.world.model", description=__doc__)
    parser.add_argument(
        "scenario", nargs="*", metavar="SCENARIO", help=f"one of {', '.join(scenarios)}; all, if none is named"
    )
    parser.add_argument(
        "--without", action="append", default=[], choices=SWITCHES, metavar="RULE", help=", ".join(SWITCHES)
    )
    parser.add_argument("--limit", type=int, default=10_000_000, metavar="STATES", help="stop after so many states")
    arguments = parser.parse_args(argv)
    rules = Rules().without(*arguments.without)
    lost = False
    for name in arguments.scenario or scenarios:
        found = explore(Model(scenarios[name], rules), arguments.limit)
        verdict = "no loss" if found.complete else "no loss so far"
        if found.loss:
            lost = True
            verdict = f"LOSS: {' '.join(found.loss)}".rstrip()
        rate = found.states / found.cpu if found.cpu else 0
        counted = f"{found.states:9,} states, depth {found.depth}, {found.cpu:.1f} s CPU ({rate:,.0f} states/s)"
        print(f"{name:9} {counted}: {verdict}", flush=True)
        for step, told in enumerate(found.trace, 1):
            print(f"{step:5} {told}")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
