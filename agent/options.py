# SPDX-License-Identifier: Apache-2.0
"""Every option of a worker's configuration: its name, its default, what is allowed, what it is for. An option a line."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agent.figures import parse_size
from agent.queue.base import check_queue_name
from mover.errors import UsageError

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?) *(s|min|h|d)?\Z")
_UNITS = {None: 1.0, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
LEAST_MEMORY = 384 * 1024 * 1024
"""Of one backup: `mover.backup.LEAST_MEMORY`, which costs an import of the whole pipeline."""


@dataclass(frozen=True)
class Option:
    """`kind` reads a TOML value and raises ValueError with what is allowed. `live`: a reload takes it over."""

    section: str
    name: str
    default: object
    kind: Callable[[Any], Any]
    text: str
    live: bool = False

    @property
    def key(self) -> str:
        return f"{self.section}.{self.name}"


def _text(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError("a text")
    return value


def _queue_name(value: Any) -> str:
    try:
        return check_queue_name(_text(value)) if value else ""
    except UsageError as error:
        raise ValueError(error.hint) from None


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _choice(*allowed: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in allowed:
            raise ValueError(f"one of {', '.join(allowed)}")
        return str(value)

    return read


def _whole(least: int, most: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(f"a whole number from {least} to {most}")
        return value

    return read


def _duration(least: float, most: float) -> Callable[[Any], float]:
    def read(value: Any) -> float:
        allowed = f"{least:g} to {most:g} seconds: a number, or 30s, 5min, 12h, 7d"
        match = _DURATION.match(value.strip()) if isinstance(value, str) else None
        if match:
            value = float(match[1]) * _UNITS[match[2]]
        if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(allowed)
        return float(value)

    return read


def _auto(read: Callable[[Any], float]) -> Callable[[Any], float | None]:
    return lambda value: None if value == "auto" else read(value)


def _size(least: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        try:
            size = value if isinstance(value, int) and not isinstance(value, bool) else parse_size(_text(value))
        except UsageError:
            size = -1
        if size < least:
            raise ValueError(f"a size of at least {least} bytes: 512MiB, 1GiB")
        return size

    return read


def _bandwidth(value: Any) -> int | None:
    return None if value == "" else _size(1)(value)


def _keys(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) and one for one in value):
        raise ValueError('a list of texts: ["/etc/data-mover/appliance.pem"]')
    return tuple(value)


WEEK = 7 * 86400.0
OPTIONS = (
    Option("queue", "service", "", _text, "Where the queues are: a SQLite file of this host, or https://ACCOUNT.queue.core.windows.net. Else the environment's DATA_MOVER_QUEUE."),
    Option("queue", "name", "workers", _queue_name, "The queue that commands come from. NAME-control, NAME-poison and NAME-events go with it: cancels, commands that end their workers, and events."),
    Option("queue", "events", "", _queue_name, "Where events go of commands that name no reply queue, and those of the worker itself. Empty: NAME-events."),
    Option("queue", "visibility", 60.0, _duration(3, WEEK), "After so long without a sign of life of its worker a command shows again to others."),
    Option("queue", "poll_shortest", "auto", _auto(_duration(0.05, 3600)), "The first look at the queue after a command comes so soon. Each look is billed. auto: 1 s in Azure, 0.2 s in a SQLite file.", live=True),
    Option("queue", "poll_longest", "auto", _auto(_duration(0.05, 3600)), "An idle worker's looks at a queue grow apart to this. auto: 30 s in Azure, 120 looks an hour at each of two queues; 0.5 s in a SQLite file.", live=True),
    Option("queue", "control_poll", 1.0, _duration(0.1, 3600), "How often a worker looks for cancels while a job runs.", live=True),
    Option("queue", "deliveries", 5, _whole(1, 1000), "A command that was begun so often and never ended goes to the poison queue.", live=True),
    Option("queue", "events_ttl", WEEK, _duration(60, 30 * 86400), "Events that nobody takes are gone after so long."),
    Option("queue", "patience", 300.0, _duration(0, 86400), "For so long a service that does not answer is asked again before a job gives up."),
    Option("state", "url", "", _text, "Where job records, cancels and large commands are: a container's URL and a folder, or file:///path. Empty: beside the SQLite file. Needed for a queue in Azure."),
    Option("state", "heartbeat", 60.0, _duration(1, 3600), "Between two words that the worker lives, while nothing changes.", live=True),
    Option("state", "records_kept", 30 * 86400.0, _duration(8 * 86400, 3650 * 86400), "Records of jobs that ended are kept so long. A command cannot be replayed while its record is there: at least 8d, a day longer than a signed command is good for."),
    Option("trust", "appliance_keys", [], _keys, "Ed25519 public keys, as paths of PEM files or in Base64. With a key here only commands that one of them has signed are obeyed; with none, whoever can write to the queue is."),
    Option("trust", "clear_secrets", "auto", _choice("auto", "yes", "no"), "Whether secrets may stand in commands in the clear. auto: yes for a SQLite queue without appliance_keys, no otherwise."),
    Option("trust", "seal_key", "", _text, "The file of the key that secrets are sealed to, made when it is not there. Empty: a new key at every start."),
    Option("worker", "name", "", _text, "How the worker is called in events and records. Empty: DATA_MOVER_WORKER, else the host's name and the process's number."),
    Option("worker", "jobs", 1, _whole(1, 16), "So many commands are carried out at a time."),
    Option("worker", "checkpoint", 30.0, _duration(1, WEEK), "The shortest time between two checkpoints of a backup.", live=True),
    Option("worker", "memory", 1 << 30, _size(LEAST_MEMORY), "The most memory that all jobs together may take. A backup that asks for more than its share is refused.", live=True),
    Option("worker", "bandwidth", "", _bandwidth, "Bytes a second to and from repositories, each: 40MiB. Empty: no limit.", live=True),
    Option("worker", "idle_exit", 0.0, _duration(0, WEEK), "After so long without a command the worker ends. 0: never.", live=True),
    Option("worker", "announcements", "auto", _choice("auto", "yes", "no"), "Whether Azure is asked what it has in mind for this VM (Scheduled Events): before it is taken away or restarted, commands are handed back. auto: with a queue in Azure."),
    Option("worker", "stop", 75.0, _duration(1, 3600), "How long the end of the process may take after SIGTERM; then it ends as it stands, and another worker goes on. Shorter than the unit's TimeoutStopSec.", live=True),
    Option("log", "level", "info", _choice("debug", "info", "warning", "error"), "The least that is logged."),
    Option("log", "format", "auto", _choice("auto", "journal", "console", "json"), "journal: structured entries of the systemd journal. console: for people. json: a line each. auto: the journal under systemd, people on a terminal, JSON elsewhere."),
)  # fmt: skip
