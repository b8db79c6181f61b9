# SPDX-License-Identifier: Apache-2.0
"""Carries out one command: the command line's verbs, `data-mover run` and the worker all come through here.

What happens on the way is sent as events; the end is returned, not sent, because whoever called knows whether this was the
end (a worker that is being stopped gives the command back). Whether a command may be obeyed was decided before. Errors of
`mover` become a Result; any other exception is a defect and passes through. What a kind does is in `agent.kinds`.
"""

from __future__ import annotations

from collections.abc import Callable

from agent.kinds.work import Work
from agent.opening import Opened, Settings
from agent.protocol import (
    BackupPayload,
    CollectLogsPayload,
    Command,
    FlrStartPayload,
    RestorePayload,
    Result,
    TestConnectionPayload,
)
from agent.reporter import Reporter, Send
from mover.errors import Cancelled, MoverError, UsageError


def execute(
    command: Command,
    settings: Settings,
    send: Send,
    cancelled: Callable[[], bool] = lambda: False,
    *,
    delivery: int = 1,
    opened: Opened | None = None,
    wished: Callable[[], bool] = lambda: False,
) -> Result:
    """Until the command is done, refused, failed or cancelled. `opened`: its repository, when the caller has it open; it
    is closed here in any case. `wished`: somebody wishes that it ends; else `cancelled` is the worker's end."""
    clock = settings.clock
    reporter = Reporter(command, clock, send)
    work = Work(command, settings, reporter, cancelled, opened, wished=wished)
    began = clock.monotonic()
    error: MoverError | None = None
    try:
        if settings.reveal is not None:
            from agent.seal import secrets_of  # a worker has it; a verb need not load its cryptography

            for secret in secrets_of(command):
                if secret.sealed is not None:
                    settings.reveal(secret)  # whoever cannot open it has not accepted the command
        reporter.accepted(settings.worker, delivery)
        _run(work)
    except MoverError as raised:
        error = raised
    finally:
        work.close()
    reporter.stage_ended("success" if error is None else "warning" if isinstance(error, Cancelled) else "error")
    api_calls = work.opened.meter.snapshot() if work.opened is not None else {}
    return reporter.result(work.outcome, error, api_calls, clock.monotonic() - began)


def _run(work: Work) -> None:
    payload = work.command.payload
    if isinstance(payload, BackupPayload):
        from agent.kinds import backup

        backup.run(work, payload)
    elif isinstance(payload, RestorePayload):
        from agent.kinds import restore

        restore.run(work, payload)
    elif isinstance(payload, FlrStartPayload):
        from agent.kinds import recovery

        recovery.run(work, payload)
    elif isinstance(payload, TestConnectionPayload):
        from agent.kinds import connection

        connection.run(work, payload)
    elif isinstance(payload, CollectLogsPayload):
        if work.settings.collect_logs is None:
            raise UsageError(
                "there is no worker whose logs could be collected", work.command.kind, "submit it to a worker"
            )
        work.settings.collect_logs(work, payload)
    else:
        hint = "data-mover cancel JOB --queue QUEUE, or submit it to a queue"
        raise UsageError(f"a {work.command.kind} is for a queue", payload.target, hint)
