# SPDX-License-Identifier: Apache-2.0
"""`cloud-init render`: user-data for VMs that become workers."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from agent.verbs import Surroundings, add_json
from mover.errors import TargetError, UsageError


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
        "--environment", metavar="NAME=VALUE", action="append", default=[], help="HTTPS_PROXY and such; repeatable"
    )
    render.add_argument(
        "--identity", metavar="ID", default="", help="client id of the managed identity that reports a failure"
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
            secrets=dict(_secret(one, around) for one in arguments.secret),
            environment=dict(_pairs(arguments.environment)),
            identity=arguments.identity,
            time_limit=int(arguments.time_limit),
            unattended_upgrades=not arguments.no_unattended_upgrades,
        )
    )
    if arguments.output is None:
        sys.stdout.write(text)
        return 0
    try:
        with open(os.open(arguments.output, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
            file.write(text)
    except OSError as error:
        raise TargetError("the user-data cannot be written", f"{arguments.output}: {error.strerror}") from None
    return 0


def _secret(text: str, around: Surroundings) -> tuple[str, str]:
    name, _, place = text.partition("=")
    if not place.startswith(("@", "env:")):
        raise UsageError(
            "a secret as an argument", name, "everybody on this machine sees arguments: NAME=@FILE or NAME=env:VARIABLE"
        )
    return name, _value(place, around)


def _pairs(texts: Sequence[str]) -> list[tuple[str, str]]:
    for text in texts:
        if "=" not in text:
            raise UsageError("not a variable of the environment", text, "NAME=VALUE")
    return [(text.partition("=")[0], text.partition("=")[2]) for text in texts]


def _value(text: str, around: Surroundings) -> str:
    """The text itself, what a file says (@FILE), or a variable (env:NAME)."""
    if text.startswith("@"):
        return _read(text[1:]).strip()
    if text.startswith("env:"):
        value = around.environ.get(text[4:], "").strip()
        if not value:
            raise UsageError("a variable that is not set", text[4:])
        return value
    return text


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, ValueError) as error:
        raise UsageError("a file cannot be read", f"{path}: {getattr(error, 'strerror', None) or 'no text'}") from None
