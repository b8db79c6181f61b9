# SPDX-License-Identifier: Apache-2.0
"""A worker's configuration: TOML, strict. Nothing is opened or contacted here.

`agent.options` has every option; the commented file that `--print-config` prints and docs/configuration.md are made of it.
An error names the file and the option, what is wrong with it and what is allowed.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from typing import Any

from agent.errors import ConfigurationError
from agent.options import LEAST_MEMORY, OPTIONS
from mover.store.azure_location import redact

_BY_KEY = {option.key: option for option in OPTIONS}


class Config:
    """The values, by section and name: `config["queue.name"]`."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self._values = dict(values)
        self.where = where

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Config) and self._values == other._values

    def __hash__(self) -> int:
        return hash(self.where)

    @property
    def is_azure(self) -> bool:
        return "://" in self["queue.service"].removeprefix("sqlite://")

    @property
    def asks_azure(self) -> bool:
        """Whether the instance metadata service is asked what is announced."""
        wanted = self["worker.announcements"]
        return bool(wanted == "yes" or (wanted == "auto" and self.is_azure))

    @property
    def allows_clear_secrets(self) -> bool:
        if self["trust.clear_secrets"] == "auto":
            return not self.is_azure and not self["trust.appliance_keys"]
        return bool(self["trust.clear_secrets"] == "yes")

    def shown(self) -> dict[str, dict[str, Any]]:
        """For a support bundle: no option holds a secret."""
        found: dict[str, dict[str, Any]] = {}
        for option in OPTIONS:
            found.setdefault(option.section, {})[option.name] = self._values[option.key]
        return found

    def reloaded(self, new: Config) -> tuple[Config, list[str], list[str]]:
        """(this one with what may change while it runs, the options that changed, those that need a restart)."""
        changed = [key for key in self._values if self._values[key] != new._values[key]]
        applied = [key for key in changed if _BY_KEY[key].live]
        return (
            Config(self._values | {key: new._values[key] for key in applied}, new.where),
            applied,
            [key for key in changed if not _BY_KEY[key].live],
        )


def load(path: str | None, environ: Mapping[str, str], overrides: Mapping[str, Any] | None = None) -> Config:
    """From a file, or the defaults; `overrides` by key ("queue.service"). ConfigurationError says what is wrong."""
    where = path or "the defaults"
    data: dict[str, Any] = {}
    if path is not None:
        try:
            with open(path, "rb") as file:
                data = tomllib.load(file)
        except OSError as error:
            raise ConfigurationError(
                "the configuration cannot be read", f"{path}: {os.strerror(error.errno or 0)}"
            ) from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigurationError("the configuration is not TOML", f"{path}: {error}") from None
    given = _flat(data, where) | dict(overrides or {})
    values = {}
    for option in OPTIONS:
        value = given.get(option.key, option.default)
        try:
            values[option.key] = option.kind(value)
        except ValueError as error:
            raise ConfigurationError(f"{option.key} is not as it must be", f"{where}: {value!r}", str(error)) from None
    values["queue.service"] = values["queue.service"] or environ.get("DATA_MOVER_QUEUE", "")
    values["worker.name"] = (
        values["worker.name"] or environ.get("DATA_MOVER_WORKER", "") or f"{os.uname().nodename}-{os.getpid()}"
    )
    for name, azure, local in (("queue.poll_shortest", 1.0, 0.2), ("queue.poll_longest", 30.0, 0.5)):
        if values[name] is None:
            values[name] = azure if Config(values, where).is_azure else local
    config = Config(values, where)
    _check(config)
    return config


def _flat(data: Mapping[str, Any], where: str) -> dict[str, Any]:
    found = {}
    for section, options in data.items():
        if not isinstance(options, dict):
            raise _unknown(section, where)
        for name, value in options.items():
            key = f"{section}.{name}"
            if key not in _BY_KEY:
                raise _unknown(key, where)
            found[key] = value
    return found


def _unknown(key: str, where: str) -> ConfigurationError:
    near = difflib.get_close_matches(key, [*_BY_KEY, *{option.section for option in OPTIONS}], 1, 0.5)
    hint = f"did you mean {near[0]}?" if near else "`data-mover-agent --print-config` shows every option"
    return ConfigurationError("an option that is not known", f"{where}: {key}", hint)


def _check(config: Config) -> None:
    """What options mean together."""
    if not config["queue.service"]:
        raise ConfigurationError(
            "no queue was named", config.where, "give queue.service, --queue WHERE, or set DATA_MOVER_QUEUE"
        )
    if "://" in config["queue.service"] and "?" in config["queue.service"]:
        hint = "a configuration holds no secrets: give the SAS in DATA_MOVER_QUEUE_SAS or DATA_MOVER_QUEUE_SAS_FILE"
        raise ConfigurationError("queue.service with a query", redact(config["queue.service"]), hint)
    if len(config["queue.name"]) > 63 - len("-control"):
        raise ConfigurationError(
            "queue.name is too long", config["queue.name"], "55 characters, so that -control fits behind it"
        )
    if config.is_azure and not config["state.url"]:
        raise ConfigurationError("a queue in Azure needs state.url", config.where, "name a container and a folder")
    if config["queue.poll_longest"] < config["queue.poll_shortest"]:
        value = f"{config['queue.poll_longest']:g} s, queue.poll_shortest is {config['queue.poll_shortest']:g} s"
        raise ConfigurationError("queue.poll_longest is too short", value)
    share = config["worker.memory"] // config["worker.jobs"]
    if share < LEAST_MEMORY:
        raise ConfigurationError(
            "worker.memory is too little for worker.jobs",
            f"{share} bytes a job",
            f"at least {LEAST_MEMORY} bytes a job",
        )


def default_text() -> str:
    """A configuration file with every option, explained and at its default."""
    lines = ["# Configuration of data-mover-agent. What is commented out is the default."]
    section = ""
    for option in OPTIONS:
        if option.section != section:
            section = option.section
            lines += ["", f"[{section}]"]
        lines += [""] + [f"# {line}" for line in _wrapped(option.text, 100)]
        lines.append(f"#{option.name} = {toml(option.default)}")
    return "\n".join(lines) + "\n"


def _wrapped(text: str, width: int) -> list[str]:
    import textwrap

    return textwrap.wrap(text, width)


def toml(value: object) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}" if value < 1e6 else str(int(value))
    if isinstance(value, list):
        return "[" + ", ".join(toml(one) for one in value) + "]"
    return str(value) if isinstance(value, int) else '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def page() -> str:
    """docs/configuration.md."""
    rows = [
        "# Configuration",
        "",
        "*Made by `packaging/configuration_page.py` of `agent/options.py`.*",
        "",
        "`data-mover-agent --config FILE` reads TOML. `--print-config` prints a file with all of this, `--check` looks at one.",
        "",
        "Times are seconds, or texts like `30s`, `5min`, `12h`, `7d`; sizes are bytes, or texts like `512MiB`. What is marked with",
        "\\* is taken over on SIGHUP; the rest needs a restart.",
    ]
    section = ""
    for option in OPTIONS:
        if option.section != section:
            section = option.section
            rows += ["", f"## [{section}]", "", "| option | default | what it is |", "| --- | --- | --- |"]
        star = " \\*" if option.live else ""
        rows.append(f"| `{option.name}`{star} | `{toml(option.default)}` | {option.text} |")
    return "\n".join(rows) + "\n"
