# SPDX-License-Identifier: Apache-2.0
"""The verbs of the operator's command line, a module for each group: `add` puts them into the parser, a function runs each.

A verb's function takes the parsed arguments and the surroundings and returns an exit code. What a verb needs of the data
plane it imports when it runs, so that every verb starts quickly.
"""

from __future__ import annotations

import argparse
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from agent.console import Console
from mover.clock import SYSTEM, Clock
from mover.errors import UsageError

REPOSITORY_VARIABLE, QUEUE_VARIABLE = "DATA_MOVER_REPOSITORY", "DATA_MOVER_QUEUE"


@dataclass
class Surroundings:
    """`cancel` is set by Ctrl-C."""

    console: Console
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    clock: Clock = SYSTEM
    cancel: threading.Event = field(default_factory=threading.Event)


Verb = Callable[[argparse.Namespace, Surroundings], int]


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json", action="store_true", help="one JSON document on stdout, events as JSON lines on stderr"
    )


def add_password(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--password-file", metavar="FILE", help="a file that holds the repository's password")
    parser.add_argument("--password-fd", metavar="N", help="an open descriptor to read it from")


def add_repository(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--repository", metavar="URL", help=f"file:///path or a container's https URL; else {REPOSITORY_VARIABLE}"
    )
    add_password(parser)


def check_text(word: str) -> None:
    """Commands and records are JSON, which has no place for bytes that are no text."""
    try:
        word.encode()
    except UnicodeEncodeError:
        raise UsageError(
            "an argument that is not UTF-8", ascii(word), "rename the file, or name it by a link"
        ) from None
