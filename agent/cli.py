# SPDX-License-Identifier: Apache-2.0
"""`data-mover`, the operator's command line: which verb, how an error is shown, which exit code.

Every verb imports what it needs when it runs: `data-mover --help` and `points` start without the pipeline, and nothing of
Azure is loaded for a repository in a directory. An exception that is no MoverError is a defect: a short message, exit code
70, and its trace with DATA_MOVER_DEBUG=1 only, since nobody has looked at what stands in it.
"""

from __future__ import annotations

import gc
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from agent.errors import EXIT_UNEXPECTED
from agent.parser import Parser
from mover.errors import Cancelled, MoverError

DEBUG_VARIABLE = "DATA_MOVER_DEBUG"


def build_parser() -> Parser:
    from agent.verbs import cloud_init, demo, files, flr, jobs, queue, repository, support

    parser = Parser(
        prog="data-mover",
        description="Back up disks into repositories and restore them, byte for byte.",
        epilog="Permissions, change maps, environment variables and exit codes: docs/operations.md.",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for group in (repository, jobs, files, flr, queue, cloud_init, support, demo):
        group.add(verbs)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    from agent.console import Console
    from agent.protocol import ErrorBody
    from agent.verbs import Surroundings, check_text

    words = sys.argv[1:] if argv is None else list(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that this terminal cannot show is no reason to fail
    console = Console(json="--json" in words)
    cancel = threading.Event()
    try:
        if words[:1] != ["files"]:  # a guest's names are bytes
            for word in words:
                check_text(word)
        arguments = build_parser().parse_args(words)
        console.json = arguments.json
        with _interruptible(cancel):
            code: int = arguments.run(arguments, Surroundings(console, cancel=cancel))
            return code
    except MoverError as error:
        console.error(ErrorBody.of(error))
        return error.exit_code
    except KeyboardInterrupt:
        console.error(ErrorBody.of(Cancelled("interrupted")))
        return Cancelled.exit_code
    except BrokenPipeError:
        _no_more_output()  # whoever read it has enough (`data-mover points | head`)
        return 1
    except OSError as error:
        try:
            sys.stdout.flush()
        except OSError:
            _no_more_output()
        hint = "is the disk full, or what reads the output gone? nothing of it is half done under its name"
        console.error(
            ErrorBody.of(MoverError("the system refused an operation", error.strerror or type(error).__name__, hint))
        )
        return MoverError.exit_code
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE) == "1":
            import traceback

            traceback.print_exc()
        body = ErrorBody(
            what="a defect in data-mover",
            value=type(error).__name__,
            hint=f"run it again with {DEBUG_VARIABLE}=1 and report what it prints",
            exit_code=EXIT_UNEXPECTED,
            type=type(error).__name__,
        )
        console.error(body)
        return EXIT_UNEXPECTED


def _no_more_output() -> None:
    """What could not be written is forgotten: Python would try again at its end, complain once more and change the exit code."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _interruptible(cancel: threading.Event) -> Iterator[None]:
    """Ctrl-C and SIGTERM ask for an orderly end; the second one does not ask."""

    def handle(number: int, frame: FrameType | None) -> None:
        if cancel.is_set():
            raise KeyboardInterrupt
        cancel.set()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def program() -> int:
    """`main` in a process of its own, which is short and makes few cycles: Python looks for them seldom, and not at its end."""
    gc.set_threshold(100_000, 20, 100)
    try:
        return main()
    finally:
        gc.freeze()


if __name__ == "__main__":
    sys.exit(program())
