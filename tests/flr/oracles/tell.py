# SPDX-License-Identifier: Apache-2.0
"""A process that lets one oracle tell one image, within limits: `python -m tests.flr.oracles.tell ORACLE HOLDS IMAGE OUT`.

It runs in the oracles' own environment. Some libraries walk for ever, some ask for all memory, some end their process: so the walk
counts its entries and bytes, memory and processor time have limits, and whoever started it waits no longer than it likes.
"""

from __future__ import annotations

import hashlib
import importlib
import resource
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from tests.flr.corpus.truth import Fact
from tests.flr.oracles.oracle import Oracle

MODULES = {"libyal": "libyal", "pytsk3": "sleuthkit", "dissect": "dissected"}
MEMORY = 3 << 30
SECONDS = 240
"""Of processor time; the slowest needs a tenth of it."""
MOST_ENTRIES = 40_000
"""An image of the corpus has 10,000 at most."""
DEEPEST = 200
MOST_BYTES = 1 << 30
"""Of one file; the largest has 300 MiB."""


class Telling(msgspec.Struct):
    """`untold`: fields of Fact for which there was no way to ask. `why_not`: why it does not open. `stopped`: why the walk did not
    come to its end."""

    facts: list[Fact] = []
    untold: list[str] = []
    why_not: str = ""
    stopped: str = ""


def problem(error: BaseException) -> str:
    """In one line, without the places within a library that follow the first sentence."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:300]


def tell(oracle: Oracle) -> Telling:
    telling = Telling(untold=sorted(oracle.untold))
    root = oracle.root()
    top = fact(oracle, b"/", root)
    telling.facts.append(top)
    seen = {oracle.number(root)} - {None}
    todo: list[tuple[bytes, Any, Fact]] = [(b"", root, top)]
    while todo:
        above, folder, of_folder = todo.pop()
        try:
            for name, node in oracle.children(folder):
                path = above + b"/" + name
                one = fact(oracle, path, node)
                telling.facts.append(one)
                if len(telling.facts) >= MOST_ENTRIES:
                    telling.stopped = f"stopped at {MOST_ENTRIES} entries"
                    return telling
                number = oracle.number(node) if stat.S_ISDIR(one.mode) else None
                if stat.S_ISDIR(one.mode) and number not in seen and path.count(b"/") < DEEPEST:
                    seen |= {number} - {None}
                    todo.append((path, node, one))
        except Exception as error:  # any library's; the rest of the tree is asked for all the same
            of_folder.problem = problem(error)
    return telling


def fact(oracle: Oracle, path: bytes, node: Any) -> Fact:
    """Whatever the library raises costs the answer to that question alone."""
    try:
        one = oracle.fact(path, node)
    except Exception as error:
        return Fact(path, 0, None, None, 0, 0, None, None, None, None, problem=problem(error))
    asked: dict[str, Callable[[Any], object]] = {"xattrs": oracle.xattrs}
    if stat.S_ISLNK(one.mode):
        asked["link"] = oracle.link
    elif stat.S_ISREG(one.mode):
        asked["content"] = lambda node: digest(oracle, node)
    for name, ask in asked.items():
        try:
            setattr(one, name, ask(node))
        except Exception as error:
            one.problem = problem(error)
    return one


def digest(oracle: Oracle, node: Any) -> str:
    made, length = hashlib.sha256(), 0
    for data in oracle.content(node):
        made.update(data)
        length += len(data)
        if length > MOST_BYTES:
            raise OverflowError(f"more than {MOST_BYTES} bytes")
    return made.hexdigest()


def main() -> None:
    name, holds, image, out = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    kind = importlib.import_module(f"tests.flr.oracles.{MODULES[name]}").ORACLES[holds]
    try:
        telling = tell(kind(image))
    except Exception as error:
        telling = Telling(untold=sorted(kind.untold), why_not=problem(error))
    Path(out).write_bytes(msgspec.msgpack.encode(telling, enc_hook=int))  # cstruct has ints of its own


if __name__ == "__main__":
    main()
