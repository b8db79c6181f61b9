# SPDX-License-Identifier: Apache-2.0
"""`submit`, `watch`, `jobs`, `cancel` and `poison`: the appliance's side of a queue, for one person at a terminal.

A job is watched through its record, which nobody uses up; events go to the reply queue, for the appliance alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from agent.errors import JobNotFound
from agent.verbs import QUEUE_VARIABLE, Surroundings, add_json
from agent.verbs.jobs import read_command
from mover.errors import Cancelled, UsageError

if TYPE_CHECKING:
    from agent.appliance import Appliance
    from agent.protocol import Result
    from agent.records import JobRecord

LOOK_SECONDS = 0.5
STATE_VARIABLE, NAME_VARIABLE = "DATA_MOVER_STATE", "DATA_MOVER_QUEUE_NAME"
KEY_VARIABLE = "DATA_MOVER_SIGNING_KEY_FILE"


def add(verbs: argparse._SubParsersAction[Any]) -> None:
    submit = verbs.add_parser("submit", help="put commands into the workers' queue")
    submit.add_argument("commands", metavar="COMMAND.json", nargs="+", help="'-' reads it from standard input")
    _add_queue(submit, run_submit)

    watch = verbs.add_parser("watch", help="follow jobs to their end; the exit code is the first failure's")
    watch.add_argument("jobs", metavar="JOB", nargs="+")
    _add_queue(watch, run_watch)

    jobs = verbs.add_parser("jobs", help="list jobs and workers")
    jobs.add_argument("--all", action="store_true", help="also those that ended more than a day ago")
    _add_queue(jobs, run_jobs)

    cancel = verbs.add_parser("cancel", help="end jobs, begun or not")
    cancel.add_argument("jobs", metavar="JOB", nargs="+")
    cancel.add_argument("--wait", action="store_true", help="return when they have ended")
    _add_queue(cancel, run_cancel)

    poison = verbs.add_parser("poison", help="commands that ended their workers: list, show, send again")
    poison.add_argument("action", choices=("list", "show", "send"), nargs="?", default="list")
    poison.add_argument("message", metavar="MESSAGE", nargs="?", help="its id, as `poison list` shows it")
    _add_queue(poison, run_poison)


def _add_queue(parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace, Surroundings], int]) -> None:
    parser.add_argument(
        "--queue",
        metavar="WHERE",
        help=f"a SQLite file, or https://ACCOUNT.queue.core.windows.net; else {QUEUE_VARIABLE}",
    )
    parser.add_argument("--name", metavar="NAME", help=f"of the workers' queue (workers); else {NAME_VARIABLE}")
    parser.add_argument(
        "--state", metavar="URL", help=f"the workers' state store; else {STATE_VARIABLE}, or beside a SQLite file"
    )
    add_json(parser)
    parser.set_defaults(run=run)


def named_queue(argument: str | None, environ: Mapping[str, str]) -> str:
    where = argument if argument is not None else environ.get(QUEUE_VARIABLE, "")
    if not where:
        raise UsageError("no queue was named", "", f"give --queue WHERE, or set {QUEUE_VARIABLE}")
    return where


@contextmanager
def appliance_for(
    where: str, around: Surroundings, *, name: str | None = None, state: str | None = None, create: bool = False
) -> Iterator[Appliance]:
    """The appliance's side of the queue at `where`. `create`: a SQLite queue that is not there is made."""
    from agent.appliance import Appliance, QueueNames
    from agent.opening import VERB_PATIENCE_SECONDS, Settings, open_metered, state_url
    from agent.queue.open import open_service
    from agent.queue.patient import PatientService
    from agent.signing import Signer

    environ = around.environ
    url = state or environ.get(STATE_VARIABLE, "") or state_url(where)
    key = environ.get(KEY_VARIABLE, "")
    signer = Signer.load(key) if key else None
    settings = Settings(environ=environ, clock=around.clock, cancel=around.cancel)
    names = QueueNames.of(name or environ.get(NAME_VARIABLE, "") or "workers")
    service = PatientService(
        open_service(where, environ, around.clock, create=create),
        around.clock,
        patience=VERB_PATIENCE_SECONDS,
        cancel=around.cancel,
    )
    try:
        store, _ = open_metered(url, settings, VERB_PATIENCE_SECONDS)
        try:
            if create:
                for queue in (names.commands, names.control):
                    service.queue(queue).ensure()
            yield Appliance(service, store, around.clock, names=names, signer=signer)
        finally:
            store.close()
    finally:
        service.close()


def _appliance(arguments: argparse.Namespace, around: Surroundings, *, create: bool = False) -> Any:
    where = named_queue(arguments.queue, around.environ)
    return appliance_for(where, around, name=arguments.name, state=arguments.state, create=create)


def run_submit(arguments: argparse.Namespace, around: Surroundings) -> int:
    """All of them or, when one is refused, none."""
    from agent.protocol import decode_command

    named_queue(arguments.queue, around.environ)
    bodies = [read_command(name) for name in arguments.commands]
    commands = [decode_command(body) for body in bodies]
    with _appliance(arguments, around, create=True) as appliance:
        for body in bodies:
            appliance.submit(body)
    if around.console.json:
        submitted = [{"job": command.job, "id": command.id, "kind": command.kind} for command in commands]
        around.console.document({"submitted": submitted})
    else:
        for command in commands:
            around.console.line(command.job)
    return 0


def run_watch(arguments: argparse.Namespace, around: Surroundings) -> int:
    with _appliance(arguments, around) as appliance:
        results = follow(appliance, list(dict.fromkeys(arguments.jobs)), around)
    if around.console.json:
        around.console.document({"results": results})
    else:
        for result in results:
            around.console.line(f"job {result.job}: {result.status}")
            around.console.result(result)
    return next((result.exit_code for result in results if result.exit_code), 0)


def follow(
    appliance: Appliance, jobs: list[str], around: Surroundings, look: Callable[[], None] = lambda: None
) -> list[Result]:
    """The jobs' results, in the order of `jobs`; JobNotFound for one that nobody has ever seen.

    `look` is called between two looks at the records; what it raises ends the following.
    """
    shown = {job: Shown(job, around) for job in jobs}
    results: dict[str, Result] = {}
    waits = appliance.expect(jobs)
    for job in waits:
        around.console.say(f"job {job} waits for a worker")
    while True:
        for job in jobs:
            record = appliance.job(job) if job not in results else None
            if record is None:
                continue
            shown[job].look(record)
            if record.state == "ended" and record.result is not None:
                results[job] = record.result
        if len(results) == len(jobs):
            return [results[job] for job in jobs]
        look()
        if around.clock.wait(around.cancel, LOOK_SECONDS):
            value = ", ".join(job for job in jobs if job not in results)
            raise Cancelled("no longer watching", value, "the jobs go on; watch them again at any time")


class Shown:
    """What a person has seen of one job."""

    def __init__(self, job: str, around: Surroundings) -> None:
        self._console = around.console
        self._write_id = ""
        self._worker = ""
        self._log: set[tuple[object, str]] = set()

    def look(self, record: JobRecord) -> None:
        """Show what is new."""
        if record.write_id == self._write_id:
            return
        self._write_id = record.write_id
        if record.worker != self._worker and record.state == "running":
            if self._worker:
                self._console.say(f"worker {record.worker} has job {record.job} now")
            self._worker = record.worker
        for item in record.log:
            if (item.time, item.message) not in self._log:
                self._log.add((item.time, item.message))
                self._console.event(item)
        if record.progress is not None and record.state == "running":
            self._console.event(record.progress)


def run_jobs(arguments: argparse.Namespace, around: Surroundings) -> int:
    from datetime import UTC, datetime, timedelta

    from agent.console import progress_line

    with _appliance(arguments, around) as appliance:
        lines, workers = appliance.jobs(), appliance.workers()
        since = datetime.fromtimestamp(around.clock.wall(), UTC) - timedelta(days=1)
        if not arguments.all:
            open_states = ("running", "waiting")
            lines = [line for line in lines if line.state in open_states or line.updated >= since.isoformat()]
        records = {line.job: appliance.job(line.job) for line in lines if line.state in ("running", "waiting")}
    if around.console.json:
        around.console.document(
            {
                "jobs": [
                    {
                        "job": line.job,
                        "kind": line.kind,
                        "state": line.state,
                        "updated": line.updated,
                        "progress": record.progress if (record := records.get(line.job)) else None,
                        "worker": record.worker if record else None,
                    }
                    for line in lines
                ],
                "workers": workers,
            }
        )
        return 0
    rows = []
    for line in lines:
        record = records.get(line.job)
        progress = progress_line(record.progress) if record and record.progress else ""
        changed = f"{line.updated[:16].replace('T', ' ')}Z"
        rows.append((line.job, line.kind, line.state, changed, record.worker if record else "", progress))
    around.console.table(("Job", "Kind", "State", "Changed", "Worker", "Progress"), rows, whole=("Job", "Changed"))
    for worker in workers:
        doing = f", {', '.join(worker.jobs)}" if worker.jobs else ""
        around.console.line(
            f"worker {worker.worker}: {worker.state}{doing}, last heard {worker.updated:%Y-%m-%d %H:%M:%S}Z"
        )
    return 0


def run_cancel(arguments: argparse.Namespace, around: Surroundings) -> int:
    jobs = list(dict.fromkeys(arguments.jobs))
    with _appliance(arguments, around) as appliance:
        appliance.expect(jobs)
        for job in jobs:
            appliance.cancel(job)
        if arguments.wait:
            results = follow(appliance, jobs, around)
    if around.console.json:
        around.console.document({"results": results} if arguments.wait else {"cancelling": jobs})
    else:
        for job in jobs:
            around.console.line(
                f"job {job}: it ends" if not arguments.wait else f"job {job}: {results[jobs.index(job)].status}"
            )
    return 0


def run_poison(arguments: argparse.Namespace, around: Surroundings) -> int:
    if arguments.action != "list" and not arguments.message:
        raise UsageError(
            "no message was named", f"poison {arguments.action}", "`data-mover poison list` shows their ids"
        )
    with _appliance(arguments, around) as appliance:
        if arguments.action == "send":
            command = appliance.send_again(arguments.message)
            if around.console.json:
                around.console.document({"submitted": [{"job": command.job, "id": command.id, "kind": command.kind}]})
            else:
                around.console.line(command.job)
            return 0
        found = appliance.poisoned()
    if arguments.action == "show":
        found = [one for one in found if one.id == arguments.message]
        if not found:
            raise JobNotFound(
                "the poison queue has no such message", arguments.message[:128], "`poison list` shows them"
            )
    if around.console.json or arguments.action == "show":
        around.console.document(
            {"poison": [{"id": one.id, "deliveries": one.deliveries, "entry": one.entry} for one in found]}
        )
        return 0
    rows = []
    for one in found:
        entry = one.entry
        if entry is None:
            rows.append((one.id, "", "", "", "it cannot be read"))
            continue
        error = f"{entry.error.what}: {entry.error.value}"
        rows.append((one.id, entry.job, entry.kind, f"{entry.time:%Y-%m-%d %H:%M}Z", error))
    around.console.table(("Message", "Job", "Kind", "Since", "Last error"), rows, whole=("Message",))
    return 0
