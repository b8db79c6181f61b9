# SPDX-License-Identifier: Apache-2.0
"""`support-bundle`: what an appliance gets by the command `collect-logs`, for somebody who sits at the worker's machine."""

from __future__ import annotations

import argparse
import io
import os
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from agent.verbs import Surroundings, add_json
from mover.errors import MoverError

CONFIGURATION, SECRETS = "/etc/data-mover/agent.toml", "/etc/data-mover/secrets"
PROPERTIES = "ActiveState,SubState,Result,NRestarts,ExecMainStatus,ActiveEnterTimestamp,MemoryCurrent,StatusText"
EVENTS = 32
"""As many as a queue shows without giving them out."""


def add(verbs: argparse._SubParsersAction[Any]) -> None:
    parser = verbs.add_parser(
        "support-bundle", help="logs, configuration, versions and events of the worker on this machine, without secrets"
    )
    parser.add_argument("--config", metavar="FILE", help=f"the worker's; else {CONFIGURATION}")
    parser.add_argument("--output", metavar="FILE", help="a new file; else data-mover-support-TIME.tar.gz here")
    add_json(parser)
    parser.set_defaults(run=run_support_bundle)


def run_support_bundle(arguments: argparse.Namespace, around: Surroundings) -> int:
    """What cannot be had is named in the bundle, and is no reason to make none."""
    from agent import bundle
    from agent.config import load
    from agent.daemon import with_credentials
    from agent.files import write_new
    from agent.redaction import Redactor

    now = around.clock.wall()
    path = arguments.output or f"data-mover-support-{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}.tar.gz"
    environ = with_credentials({"CREDENTIALS_DIRECTORY": SECRETS, **around.environ})
    redactor = Redactor()
    redactor.learn_environment(environ)
    configuration: dict[str, Any] = {}
    state: dict[str, Any] = {"unit": _unit()}
    events: list[str] = []
    try:
        found = arguments.config or (CONFIGURATION if os.path.exists(CONFIGURATION) else None)
        config = load(found, environ)
        configuration = config.shown()
        events = _events(config["queue.service"], config["queue.events"], config["queue.name"], environ, around)
    except MoverError as error:
        state["missing"] = {"what": error.what, "value": error.value, "hint": error.hint}
    out = io.BytesIO()
    members = bundle.write(
        out,
        configuration=configuration,
        state=state,
        command="",
        events=events,
        redact=redactor.data,
        now=int(now),
    )
    write_new(path, out.getvalue(), "the support bundle")
    if around.console.json:
        around.console.document({"file": path, "members": members})
    else:
        around.console.line(path)
        around.console.say(f"{', '.join(members)}; look into it before you send it on: it has no secrets, but names")
    return 0


def _unit() -> dict[str, str]:
    """What systemd says of the worker; nothing where there is none."""
    words = ["systemctl", "show", f"--property={PROPERTIES}", "data-mover-agent.service"]
    try:
        said = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return dict(line.split("=", 1) for line in said.splitlines() if "=" in line)


def _events(where: str, events: str, name: str, environ: Mapping[str, str], around: Surroundings) -> list[str]:
    """Those that the appliance has not taken yet; they stay where they are."""
    from agent.appliance import QueueNames
    from agent.queue.open import open_service

    service = open_service(where, environ, around.clock, create=False)
    try:
        queue = service.queue(events or QueueNames.of(name).events)
        return [waiting.body.decode(errors="replace") for waiting in queue.peek(EVENTS)]
    finally:
        service.close()
