# SPDX-License-Identifier: Apache-2.0
"""`data-mover-agent`, the worker as a process: configuration, signals, systemd, threads. What they do is `agent.worker`'s.

Threads: one for each job at a time, one that looks for cancels, and this one, which tells that the worker lives, keeps
house and waits for signals. SIGTERM and SIGINT end it in good order, SIGHUP reads the configuration anew.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType

from agent import config as configuration
from agent.config import Config
from agent.figures import parse_size
from agent.parser import Parser
from mover.errors import MoverError, UsageError


def build_parser() -> Parser:
    parser = Parser(prog="data-mover-agent", description="Carries out the commands of a queue until it is stopped.")
    parser.add_argument("--config", metavar="FILE", help="TOML; every option is explained in docs/configuration.md")
    parser.add_argument("--check", action="store_true", help="look at the configuration and what it names, and end")
    parser.add_argument("--print-config", action="store_true", help="print a configuration with every option explained")
    parser.add_argument("--queue", metavar="WHERE", help="queue.service; else DATA_MOVER_QUEUE")
    parser.add_argument(
        "--once", action="store_true", help="end when one command is done; its exit code is the worker's"
    )
    parser.add_argument("--visibility", metavar="SECONDS", help="queue.visibility")
    parser.add_argument("--checkpoint-seconds", metavar="SECONDS", help="worker.checkpoint")
    parser.add_argument("--bandwidth", metavar="SIZE", help="worker.bandwidth")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    try:
        return _run(sys.argv[1:] if argv is None else argv)
    except MoverError as error:
        lines = [f"data-mover-agent: {error.what}"]
        lines += [f"  value: {error.value}"] if error.value else []
        lines += [f"  hint:  {error.hint}"] if error.hint else []
        print("\n".join(lines), file=sys.stderr)
        return error.exit_code
