# SPDX-License-Identifier: Apache-2.0
"""`data-mover-agent`: arguments, configuration, signals. What the process does is `agent.process`'.

SIGTERM and SIGINT end it in good order, within worker.stop seconds; a second one ends it at once. SIGUSR1 ends it when what it
works on is done: an upgrade asks for that. SIGHUP reads the configuration anew. A process that is ended at once loses nothing: its
lease and its message lapse, and another worker goes on.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from agent import config as configuration
from agent.config import Config
from agent.errors import EXIT_STOPPED
from agent.figures import parse_size
from agent.parser import Parser
from agent.process import Daemon
from agent.signing import load_public
from mover.errors import MoverError, UsageError


def build_parser() -> Parser:
    parser = Parser(prog="data-mover-agent", description="Carries out the commands of a queue until it is stopped.")
    parser.add_argument("--config", metavar="FILE", help="TOML; every option is explained in docs/configuration.md")
    parser.add_argument("--check", action="store_true", help="look at the configuration and what it names, and end")
    parser.add_argument("--syntax", action="store_true", help="read the configuration, contact nothing, and end")
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


def _run(argv: Sequence[str]) -> int:
    arguments = build_parser().parse_args(argv)
    if arguments.print_config:
        print(configuration.default_text(), end="")
        return 0

    environ = with_credentials(os.environ)

    def load() -> Config:
        return configuration.load(arguments.config, environ, _overrides(arguments))

    config = load()
    if arguments.syntax:
        for text in config["trust.appliance_keys"]:
            load_public(text)
        return 0
    stop = threading.Event()
    daemon = Daemon(config, environ, stop)
    if arguments.check:
        return daemon.check()

    def end_within(seconds: float) -> None:
        stop.set()
        deadline = threading.Timer(seconds, os._exit, (EXIT_STOPPED,))
        deadline.daemon = True
        deadline.start()

    asked = threading.Event()  # `stop` is set by more than signals

    def end() -> None:
        if asked.is_set():
            os._exit(EXIT_STOPPED)
        asked.set()
        end_within(daemon.stop_seconds)

    daemon.end_within = end_within

    def reload() -> None:
        daemon.reload_with = load

    with _signals({signal.SIGTERM: end, signal.SIGINT: end, signal.SIGHUP: reload, signal.SIGUSR1: daemon.drain}):
        return daemon.run(once=arguments.once)


@contextmanager
def _signals(handlers: Mapping[int, Callable[[], None]]) -> Iterator[None]:
    """Handles signals in a thread of its own: a handler in the main thread runs within whatever lock that thread holds."""
    heard, told = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    os.set_blocking(heard, True)

    def listen() -> None:
        while numbers := os.read(heard, 1):
            handlers.get(numbers[0], lambda: None)()

    before = {number: signal.signal(number, lambda number, frame: None) for number in handlers}
    woken = signal.set_wakeup_fd(told)
    thread = threading.Thread(target=listen, name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(woken)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(told)  # the thread reads the end
        thread.join()
        os.close(heard)


def with_credentials(environ: Mapping[str, str]) -> dict[str, str]:
    """With the unit's credentials: a file whose name ends in DATA_MOVER_SAS is what DATA_MOVER_SAS_FILE names."""
    found = dict(environ)
    folder = environ.get("CREDENTIALS_DIRECTORY", "")
    for name in sorted(os.listdir(folder)) if folder and os.path.isdir(folder) else ():
        _, separator, rest = name.partition("DATA_MOVER_")
        if separator:
            found.setdefault(f"{separator}{rest}_FILE", os.path.join(folder, name))
    return found


def _overrides(arguments: argparse.Namespace) -> dict[str, Any]:
    """Options of the command line by the configuration's names."""
    found: dict[str, Any] = {}
    if arguments.queue is not None:
        found["queue.service"] = arguments.queue
    if arguments.visibility is not None:
        found["queue.visibility"] = _number("--visibility", arguments.visibility)
    if arguments.checkpoint_seconds is not None:
        found["worker.checkpoint"] = _number("--checkpoint-seconds", arguments.checkpoint_seconds)
    if arguments.bandwidth is not None:
        parse_size(arguments.bandwidth)
        found["worker.bandwidth"] = arguments.bandwidth
    return found


def _number(option: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"not a time for {option}", text, "a number of seconds") from None


if __name__ == "__main__":
    sys.exit(main())
