# SPDX-License-Identifier: Apache-2.0
"""What a verb's words name: the repository, the disks, the change maps; the same words as fields of a command."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from agent.verbs import REPOSITORY_VARIABLE, Surroundings
from mover.clock import Clock
from mover.errors import UsageError

if TYPE_CHECKING:
    from agent.opening import Settings
    from agent.protocol import Command, Payload


def named_repository(argument: str | None, environ: Mapping[str, str]) -> tuple[str, Mapping[str, str]]:
    """(URL, environment). A SAS in DATA_MOVER_REPOSITORY's URL goes to DATA_MOVER_SAS: commands carry no secrets."""
    if argument is not None:
        if "?" in argument:
            hint = f"everybody on this machine sees arguments: put it into DATA_MOVER_SAS, or the URL into {REPOSITORY_VARIABLE}"
            raise UsageError("a repository's URL with a query", argument.partition("?")[0], hint)
        url, query = argument, ""
    else:
        url, _, query = environ.get(REPOSITORY_VARIABLE, "").partition("?")
    if not url:
        raise UsageError("no repository was named", "", f"give its URL, or set {REPOSITORY_VARIABLE}")
    if "#" in url:
        raise UsageError("a repository's URL with a fragment", url.partition("#")[0], "write %23 for a # in a name")
    return url, {**environ, "DATA_MOVER_SAS": query} if query else environ


def settings_for(around: Surroundings, environ: Mapping[str, str]) -> Settings:
    from agent.opening import VERB_PATIENCE_SECONDS, Settings

    return Settings(
        worker="data-mover",
        environ=environ,
        clock=around.clock,
        opening_patience=VERB_PATIENCE_SECONDS,
        cancel=around.cancel,
    )


def parse_disk(text: str) -> tuple[str, str]:
    """(name, absolute path) of `[NAME=]PATH`. A path with '=' in its first part is written ./a=b."""
    name, separator, path = text.partition("=")
    if not separator or "/" in name:
        name, path = "", text
    if not path:
        raise UsageError("a disk without a path", text, "--disk PATH or --disk NAME=PATH")
    return name, os.path.abspath(path)


def parse_flags(text: str) -> str:
    """ "D,W" -> "DW", each once, in the order D W M Y."""
    given = {part.strip().upper() for part in text.split(",") if part.strip()}
    if not given <= {"D", "W", "M", "Y"}:
        raise UsageError("not a list of flags", text, "letters of D, W, M and Y with commas between them: D,W")
    return "".join(flag for flag in "DWMY" if flag in given)


def fresh_job() -> str:
    return f"job-{secrets.token_hex(8)}"


def make_command(kind: str, job: str, payload: Payload, clock: Clock) -> Command:
    """As an appliance would issue it now; it does not expire. UsageError when the job's name cannot be one."""
    import msgspec

    from agent.protocol import SCHEMA, Command, Identifier

    try:
        msgspec.convert(job, Identifier)
    except msgspec.ValidationError:
        raise UsageError("not a job id", job[:128], "letters, digits and . _ : -, at most 128") from None
    issued = datetime.fromtimestamp(round(clock.wall(), 3), UTC)
    return Command(schema=SCHEMA, id=secrets.token_hex(16), job=job, kind=kind, issued=issued, payload=payload)
