# SPDX-License-Identifier: Apache-2.0
"""What a verb's words name: the repository, the disks, the change maps; the same words as fields of a command."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from agent.verbs import REPOSITORY_VARIABLE, Surroundings
from mover.clock import Clock
from mover.errors import UsageError
from mover.store.azure_location import redact

if TYPE_CHECKING:
    from agent.opening import Settings
    from agent.protocol import Command, Disk, Payload, RestoreTarget, Secret


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


def disks_of(
    disks: Sequence[str],
    previous: Sequence[str],
    identities: Sequence[str],
    snapshots: Sequence[str],
    bases: Sequence[str],
) -> tuple[Disk, ...]:
    """Disks as `--disk` names them, with what the other options say of them by their names."""
    from agent.protocol import Disk, PreviousSnapshot

    parsed = [_parse_disk(text) for text in disks]
    names = [name for name, _ in parsed]
    said = [
        _by_disk(option, values, names)
        for option, values in (
            ("--previous-snapshot", previous),
            ("--disk-identity", identities),
            ("--snapshot-id", snapshots),
            ("--previous-snapshot-id", bases),
        )
    ]
    made = []
    for name, place in parsed:
        url, identity, snapshot, base = (values.get(name) for values in said)
        if isinstance(place, str):
            if url or snapshot or base:
                hint = f"--disk {name or 'NAME'}=@FILE names a blob by a file that holds its URL"
                raise UsageError("a snapshot of a disk that is no page blob", place, hint)
            made.append(Disk(name=name, path=place, identity=identity or ""))
            continue
        if base is not None and url is None:
            raise UsageError("a previous snapshot without its URL", base, "give --previous-snapshot, too")
        earlier = None
        if url is not None:
            found = named_secret(url)
            if found is None:
                raise _not_a_place("--previous-snapshot", url)
            earlier = PreviousSnapshot(url=found, snapshot=base or "")
        made.append(Disk(name=name, url=place, identity=identity or "", snapshot=snapshot or "", previous=earlier))
    return tuple(made)


def _parse_disk(text: str) -> tuple[str, str | Secret]:
    """As `parse_disk`; `NAME=@FILE` and `NAME=env:VARIABLE` say where a page blob's URL is."""
    name, separator, place = text.partition("=")
    if "://" in text:
        raise _not_a_place("--disk", text)
    found = named_secret(place if separator else text)
    if found is None or "/" in name:
        return parse_disk(text)
    if not separator or not name:
        raise UsageError("a page blob without a name", text, f"--disk NAME={text}: a URL tells no disk's name")
    return name, found


def restore_to(values: Sequence[str], all_disks: bool) -> tuple[str | None, Secret | None, tuple[RestoreTarget, ...]]:
    """(path, a page blob's URL, the targets of several disks) of the values of `--to`; one of the three is there."""
    from agent.protocol import RestoreTarget

    for text in values:
        if "://" in text:
            hint = "everybody on this machine sees arguments: --to @FILE or env:VARIABLE says where the URL is"
            raise UsageError("a disk's URL in an argument", redact(text), hint)
    named = [text.partition("=") for text in values]
    found = [named_secret(place) if separator else None for _, separator, place in named]
    if all_disks and any(found):
        if not all(found):
            raise UsageError("page blobs and a folder at once", ", ".join(values), "--to DISK=@FILE for each disk")
        pairs = [(name, url) for (name, _, _), url in zip(named, found, strict=True) if url is not None]
        return None, None, tuple(RestoreTarget(disk=name, url=url) for name, url in pairs)
    if any(found):
        raise UsageError(
            "a page blob for one of several disks", ", ".join(values), "give --all-disks, or --disk N --to @FILE"
        )
    if len(values) != 1:
        raise UsageError("more than one place for a disk", ", ".join(values), "--to is for one, but with --all-disks")
    if not values[0]:
        raise UsageError("an empty path to restore to", "--to")
    url = named_secret(values[0])
    if url is not None and all_disks:
        raise UsageError("a page blob for no disk", values[0], f"--to DISK={values[0]}: DISK is its name or number")
    return (None if url is not None else os.path.abspath(values[0])), url, ()


def named_secret(text: str) -> Secret | None:
    """What `@FILE` or `env:VARIABLE` names; None for any other text."""
    from agent.protocol import Secret

    if text.startswith("@") and len(text) > 1:
        return Secret(file=os.path.abspath(text[1:]))
    if text.startswith("env:") and len(text) > 4:
        return Secret(environment=text[4:])
    return None


def _not_a_place(option: str, text: str) -> UsageError:
    hint = f"everybody on this machine sees arguments: {option} NAME=@FILE or NAME=env:VARIABLE says where the URL is"
    return UsageError("a disk's URL in an argument", redact(text), hint)


def _by_disk(option: str, values: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """What an option says, by disk; the name may be left away where there is one disk."""
    found: dict[str, str] = {}
    for text in values:
        if "://" in text:
            raise _not_a_place(option, text)
        name, separator, value = text.partition("=")
        if not separator and len(names) == 1:
            name, value = names[0], text
        if name not in names or not value:
            raise UsageError(f"{option} names no disk", text, f"{option} NAME=..., with a name that --disk gives")
        if name in found:
            raise UsageError(f"{option} twice for a disk", name)
        found[name] = value
    return found


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
