# SPDX-License-Identifier: Apache-2.0
"""`cloud-init render`: user-data for VMs that become workers."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from agent import passwords
from agent.verbs import Surroundings, add_json
from agent.verbs.target import named_secret
from mover.errors import UsageError


def add(verbs: argparse._SubParsersAction[Any]) -> None:
    group = verbs.add_parser("cloud-init", help="user-data that makes a worker of an empty VM")
    actions = group.add_subparsers(dest="action", metavar="ACTION", required=True)
    render = actions.add_parser("render", help="print it")
    render.add_argument(
        "--package-url", metavar="URL", required=True, help="https; @FILE or env:VARIABLE when it has a SAS"
    )
    render.add_argument("--package-sha256", metavar="HEX", required=True, help="what the package must hash to")
    render.add_argument(
        "--config", metavar="FILE", required=True, help="agent.toml: `data-mover-agent --print-config` shows one"
    )
    render.add_argument(
        "--secret", metavar="NAME=@FILE", action="append", default=[], help="DATA_MOVER_QUEUE_SAS and such; repeatable"
    )
    render.add_argument(
        "--environment",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="HTTPS_PROXY and such, also as @FILE or env:VARIABLE; repeatable",
    )
    render.add_argument(
        "--identity",
        metavar="ID",
        default="",
        help="client id of the managed identity to use, where the VM has several",
    )
    render.add_argument("--time-limit", metavar="SECONDS", default="900", help="for all of it (default 900)")
    render.add_argument(
        "--no-unattended-upgrades", action="store_true", help="the distribution's updates are not installed"
    )
    render.add_argument("--output", metavar="FILE", help="a new file of mode 0600, instead of standard output")
    add_json(render)
    render.set_defaults(run=run_render)


def run_render(arguments: argparse.Namespace, around: Surroundings) -> int:
    from agent.cloud_init import Rendering, render
    from agent.files import write_new

    if "?" in arguments.package_url:
        hint = "everybody on this machine sees arguments: --package-url @FILE or env:VARIABLE"
        raise UsageError("a package's URL with a query", arguments.package_url.partition("?")[0], hint)
    if not arguments.time_limit.isdecimal():
        raise UsageError("a time limit that is none", arguments.time_limit, "a number of seconds")
    text = render(
        Rendering(
            package_url=_value(arguments.package_url, around),
            package_sha256=arguments.package_sha256,
            configuration=_read(arguments.config),
            secrets=_secrets(arguments.secret, around),
            environment=_environment(arguments.environment, around),
            identity=arguments.identity,
            time_limit=int(arguments.time_limit),
            unattended_upgrades=not arguments.no_unattended_upgrades,
        )
    )
    if arguments.output is None:
        sys.stdout.write(text)
        return 0
    write_new(arguments.output, text.encode(), "the user-data")
    return 0


def _secrets(texts: Sequence[str], around: Surroundings) -> dict[str, str]:
    found = {}
    for text in texts:
        name, _, place = text.partition("=")
        secret = named_secret(place)
        if secret is None:
            hint = "everybody on this machine sees arguments: NAME=@FILE or NAME=env:VARIABLE"
            raise UsageError("a secret as an argument", name, hint)
        found[name] = passwords.read(secret, around.environ)
    return found


def _environment(texts: Sequence[str], around: Surroundings) -> dict[str, str]:
    for text in texts:
        if "=" not in text:
            raise UsageError("not a variable of the environment", text, "NAME=VALUE, NAME=@FILE or NAME=env:VARIABLE")
    return {name: _value(text, around) for name, _, text in (text.partition("=") for text in texts)}


def _value(text: str, around: Surroundings) -> str:
    """The text itself, or what it names."""
    secret = named_secret(text)
    return text if secret is None else passwords.read(secret, around.environ)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, ValueError) as error:
        raise UsageError("a file cannot be read", f"{path}: {getattr(error, 'strerror', None) or 'no text'}") from None
