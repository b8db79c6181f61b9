# SPDX-License-Identifier: Apache-2.0
"""Where a worker's log goes: the systemd journal with its fields, a terminal, or JSON lines. Everything passes one redaction.

Libraries' own logging (Azure's SDK) comes the same way from WARNING on, so that none of them shows a URL with a SAS.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, MutableMapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

import structlog

from agent.errors import ConfigurationError
from mover.clock import SYSTEM, Clock

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

Processor = Callable[[Any, str, MutableMapping[str, Any]], Any]
IDENTIFIER = "data-mover-agent"
_PRIORITY = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}


def set_up(
    level: str,
    form: str,
    redact: Processor,
    *,
    out: TextIO | None = None,
    clock: Clock = SYSTEM,
    journal: Callable[..., None] | None = None,
) -> FilteringBoundLogger:
    """`journal`: what sends an entry (tests give their own)."""
    stream = out or sys.stderr
    chosen = form if form != "auto" else _found(stream)
    if chosen == "journal" and journal is None:
        journal = _journal()

    def stamp(logger: object, name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        moment = datetime.fromtimestamp(clock.wall(), UTC)
        return {"time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"), **event}

    processors: list[Any] = [structlog.stdlib.add_log_level, stamp, structlog.processors.format_exc_info, redact]
    factory: Any = structlog.PrintLoggerFactory(stream)
    if chosen == "journal":
        processors.append(_JournalRenderer())
        factory = _JournalFactory(journal or _journal())
    elif chosen == "console":
        processors.append(structlog.dev.ConsoleRenderer(colors=stream.isatty()))
    else:
        processors.append(structlog.processors.JSONRenderer())
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=factory,
        cache_logger_on_first_use=False,
    )
    log: FilteringBoundLogger = structlog.get_logger()
    _take_libraries(log)
    return log


def _found(stream: TextIO) -> str:
    """Under systemd, JOURNAL_STREAM names the device and inode of what the journal reads."""
    try:
        status = os.fstat(stream.fileno())
        if os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}":
            return "journal"
    except (OSError, ValueError):
        pass
    return "console" if stream.isatty() else "json"


def _journal() -> Callable[..., None]:
    try:
        from systemd import journal
    except ImportError:
        hint = "install the extra `systemd`, or set log.format to json"
        raise ConfigurationError("the journal needs systemd-python", "log.format = journal", hint) from None
    send: Callable[..., None] = journal.send
    return send


class _JournalRenderer:
    """The event as keyword arguments of the journal's `send`."""

    def __call__(
        self, logger: Any, name: str, event: MutableMapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        level = str(event.pop("level", "info"))
        event.pop("time", None)  # the journal has its own
        message = str(event.pop("event", ""))
        fields = {f"DATA_MOVER_{key.upper()}": str(value) for key, value in event.items() if key.isidentifier()}
        shown = " ".join(f"{key}={value}" for key, value in event.items() if key != "exception")
        fields |= {"PRIORITY": str(_PRIORITY.get(level, 6)), "SYSLOG_IDENTIFIER": IDENTIFIER}
        return (f"{message} {shown}".rstrip(),), fields


class _JournalFactory:
    def __init__(self, send: Callable[..., None]) -> None:
        self._send = send

    def __call__(self, *_: Any) -> Any:
        send = self._send

        class Logger:
            def msg(self, message: str, **fields: str) -> None:
                send(message, **fields)

            debug = info = warning = error = critical = msg

        return Logger()


class _Bridge(logging.Handler):
    """A library's record as one of our events."""

    def __init__(self, log: FilteringBoundLogger) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        try:
            say = self._log.error if record.levelno >= logging.ERROR else self._log.warning
            say(record.getMessage(), library=record.name)
        except Exception:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """A log line that cannot be made is lost; the work is not."""


def _take_libraries(log: FilteringBoundLogger) -> None:
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, _Bridge):
            root.removeHandler(handler)
    root.addHandler(_Bridge(log))
    root.setLevel(logging.WARNING)
