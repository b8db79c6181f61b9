# SPDX-License-Identifier: Apache-2.0
"""`submit` and `watch`: commands into a worker's queue, and what the workers say of them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from agent.errors import JobNotFound
from agent.verbs import QUEUE_VARIABLE, Surroundings, add_json
from agent.verbs.jobs import read_command
from mover.errors import Cancelled, UsageError

if TYPE_CHECKING:
    from agent.protocol import Result
    from agent.queue_sqlite import SqliteQueue

LOOK_SECONDS = 0.2


def add(verbs: argparse._SubParsersAction[Any]) -> None:
    submit = verbs.add_parser("submit", help="put commands into a worker's queue")
    submit.add_argument("commands", metavar="COMMAND.json", nargs="+", help="'-' reads it from standard input")
    _add_queue(submit)
    submit.set_defaults(run=run_submit)

    watch = verbs.add_parser("watch", help="follow jobs to their end; the exit code is the first failure's")
    watch.add_argument("jobs", metavar="JOB", nargs="+")
    _add_queue(watch)
    watch.set_defaults(run=run_watch)


def _add_queue(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--queue", metavar="FILE", help=f"the worker's SQLite queue; else {QUEUE_VARIABLE}")
    add_json(parser)


def named_queue(argument: str | None, environ: Mapping[str, str]) -> str:
    path = argument if argument is not None else environ.get(QUEUE_VARIABLE, "")
    if not path:
        raise UsageError("no queue was named", "", f"give --queue FILE, or set {QUEUE_VARIABLE}")
    return path


def run_submit(arguments: argparse.Namespace, around: Surroundings) -> int:
    """All of them or, when one is refused, none."""
    from agent.protocol import decode_command
    from agent.queue_sqlite import SqliteQueue

    path = named_queue(arguments.queue, around.environ)
    bodies = [read_command(name) for name in arguments.commands]
    commands = [decode_command(body) for body in bodies]
    queue = SqliteQueue(path, around.clock)
    try:
        for body, command in zip(bodies, commands, strict=True):
            queue.put(body, command=command.id, job=command.job)
    finally:
        queue.close()
    if around.console.json:
        submitted = [{"job": command.job, "id": command.id, "kind": command.kind} for command in commands]
        around.console.document({"submitted": submitted})
    else:
        for command in commands:
            around.console.line(command.job)
    return 0


def run_watch(arguments: argparse.Namespace, around: Surroundings) -> int:
    from agent.queue_sqlite import SqliteQueue

    queue = SqliteQueue(named_queue(arguments.queue, around.environ), around.clock, create=False)
    try:
        results = follow(queue, list(dict.fromkeys(arguments.jobs)), around)
    finally:
        queue.close()
    if around.console.json:
        around.console.document({"results": results})
    else:
        for result in results:
            around.console.line(f"job {result.job}: {result.status}")
            around.console.result(result)
    return next((result.exit_code for result in results if result.exit_code), 0)


def follow(
    queue: SqliteQueue, jobs: list[str], around: Surroundings, look: Callable[[], None] = lambda: None
) -> list[Result]:
    """The jobs' results, in the order of `jobs`. JobNotFound for one that the queue has never seen.

    `look` is called between two looks at the queue; what it raises ends the following.
    """
    from agent.protocol import Result

    for job in jobs:
        if not queue.waiting(job) and not queue.events(job):
            raise JobNotFound("the queue knows no such job", job[:128])
        if not queue.events(job):
            around.console.say(f"job {job} waits for a worker")
    seen = dict.fromkeys(jobs, 0)
    results: dict[str, Result] = {}
    ended: set[str] = set()
    while True:
        for job in jobs:
            if job in ended:
                continue
            waiting = queue.waiting(job)  # before its events: what ends in between is seen next time
            for number, event in queue.events(job, seen[job]):
                seen[job] = number
                if isinstance(event, Result):
                    results[job] = event
                else:
                    around.console.event(event)
            if not waiting and job not in results:
                raise JobNotFound("the queue no longer knows how the job ended", job)
            if not waiting:
                ended.add(job)
        if len(ended) == len(jobs):
            break
        look()
        if around.clock.wait(around.cancel, LOOK_SECONDS):
            value = ", ".join(job for job in jobs if job not in ended)
            raise Cancelled("no longer watching", value, "the jobs go on; watch them again at any time")
    return [results[job] for job in jobs]
