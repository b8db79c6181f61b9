#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Fails when an import points the wrong way: agent -> flr -> mover; nothing that we ship imports tests, or the readers of file
systems that tests alone may use.

It reads every import statement wherever it stands (inside functions and under TYPE_CHECKING too), and calls of
import_module and __import__ with a literal name. A name that is computed escapes it.

Usage: imports.py [ROOT]
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

# Readers of file systems that tests compare with ours; dissect is AGPL, and whatever imported it would have to be, too.
ORACLES = {"dissect", "pytsk3", "pyfsext", "pyfsfat", "pyfsxfs", "pyvslvm"}
# What a folder must not import, and why that is so.
FORBIDDEN = {
    "mover": {"agent", "flr", "tests", "benchmarks"} | ORACLES,  # the data plane knows neither commands nor browsers
    "flr": {"agent", "tests", "benchmarks"} | ORACLES,  # the browser is run by the agent, not the other way round
    "agent": {"tests", "benchmarks"} | ORACLES,
    # The rescue reader proves that docs/format.md is true, so it shares no code with what wrote the repository.
    "packaging/rescue": {"agent", "flr", "mover", "tests", "benchmarks"},
}


def imported(tree: ast.Module, package: list[str]) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of everything that the module imports; `package` resolves relative imports."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                for name in names:
                    yield node.lineno, name.name
            case ast.ImportFrom(module=module, level=level):
                base = package[: len(package) - level + 1] if level else []
                yield node.lineno, ".".join([*base, *([module] if module else [])])
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield node.lineno, name


def violations(root: Path) -> Iterator[str]:
    for folder, forbidden in FORBIDDEN.items():
        for path in sorted((root / folder).rglob("*.py")):
            relative = path.relative_to(root)
            tree = ast.parse(path.read_bytes(), str(relative))
            for line, name in imported(tree, list(relative.parent.parts)):
                if name.split(".")[0] in forbidden:
                    yield f"{relative}:{line}: {folder} must not import {name}"


def main() -> int:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[2]
    found = list(violations(root))
    for line in found:
        print(line, file=sys.stderr)
    if found:
        print("hint: imports point one way, agent -> flr -> mover; pass what is needed as an argument", file=sys.stderr)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
