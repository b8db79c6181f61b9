# SPDX-License-Identifier: Apache-2.0
"""`data-mover-agent`, the worker as a process: arguments, signals, the log on stderr. The work is `agent.worker`'s."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType

import structlog

from agent.figures import parse_size
from agent.opening import CHECKPOINT_SECONDS, Settings
from agent.parser import Parser
from agent.queue_sqlite import SqliteQueue
from agent.worker import VISIBILITY_SECONDS, VISIBILITY_SHORTEST, Worker
from mover.clock import SYSTEM
from mover.errors import MoverError, UsageError

CHECKPOINT_SHORTEST = 1.0


def build_parser() -> Parser:
    parser = Parser(prog="data-mover-agent", description="Carries out the commands of a queue until it is stopped.")
    parser.add_argument("--queue", metavar="FILE", help="the SQLite queue; else DATA_MOVER_QUEUE")
    parser.add_argument(
        "--once", action="store_true", help="end when one command is done; its exit code is the worker's"
    )
    parser.add_argument(
        "--visibility",
        metavar="SECONDS",
        default=str(VISIBILITY_SECONDS),
        help=f"for which a command of a dead worker stays invisible (default {VISIBILITY_SECONDS:g}, at least "
        f"{VISIBILITY_SHORTEST:g})",
    )
    parser.add_argument(
        "--checkpoint-seconds",
        metavar="SECONDS",
        default=str(CHECKPOINT_SECONDS),
        help=f"between two checkpoints of a backup at first (default {CHECKPOINT_SECONDS:g}, at least {CHECKPOINT_SHORTEST:g})",
    )
    parser.add_argument("--bandwidth", metavar="SIZE", help="a second, to and from the repository each: 40MiB")
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


def _run(argv: Sequence[str]) -> int:
    arguments = build_parser().parse_args(argv)
    path = arguments.queue or os.environ.get("DATA_MOVER_QUEUE", "")
    if not path:
        raise UsageError("no queue was named", "", "give --queue FILE, or set DATA_MOVER_QUEUE")
    visibility = _seconds("--visibility", arguments.visibility, VISIBILITY_SHORTEST)
    checkpoint_seconds = _seconds("--checkpoint-seconds", arguments.checkpoint_seconds, CHECKPOINT_SHORTEST)
    bandwidth = parse_size(arguments.bandwidth) if arguments.bandwidth is not None else None
    if bandwidth == 0:
        raise UsageError("a bandwidth of nothing", arguments.bandwidth, "leave --bandwidth away for no limit")
    stop = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)
    settings = Settings(
        worker=f"{os.uname().nodename}-{os.getpid()}",
        checkpoint_seconds=checkpoint_seconds,
        bandwidth=bandwidth,
        cancel=stop,
    )
    queue = SqliteQueue(path)
    try:
        return Worker(queue, settings, _log(), visibility=visibility).run(once=arguments.once)
    finally:
        queue.close()


def _seconds(option: str, text: str, least: float) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = float("nan")
    if not least <= seconds <= 7 * 24 * 3600:
        raise UsageError(f"not a time for {option}", text, f"a number of seconds, at least {least:g}")
    return seconds


def _log() -> structlog.typing.FilteringBoundLogger:
    """Lines for people on a terminal, JSON elsewhere; on stderr."""

    def stamp(logger: object, name: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        from datetime import UTC, datetime

        return {"time": datetime.fromtimestamp(SYSTEM.wall(), UTC).isoformat(timespec="milliseconds"), **event}

    renderer = structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.stdlib.add_log_level,
            stamp,
            *([] if sys.stderr.isatty() else [structlog.processors.format_exc_info]),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(20),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    log: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return log


if __name__ == "__main__":
    sys.exit(main())
