# SPDX-License-Identifier: Apache-2.0
"""What a verb shows: results on stdout, everything on the way on stderr; for people, or JSON for programs (--json).

With --json stdout gets exactly one document and stderr one JSON object a line (the events of docs/operations.md). For people
progress is one live line on a terminal, and a line now and then elsewhere.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TextIO

import msgspec

from agent.figures import format_duration, format_size, printable
from agent.protocol import Accepted, ErrorBody, Event, LogItem, ProgressEvent, Result, encode
from mover.clock import SYSTEM, Clock

QUIET_SECONDS = 10.0
"""Between two lines of progress where there is no terminal."""
WIDE = 200


class Console:
    """One verb's output. Not thread-safe: events come from one thread."""

    def __init__(
        self,
        *,
        json: bool = False,
        out: TextIO | None = None,
        err: TextIO | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        self.json = json
        self._out = out or sys.stdout
        self._err = err or sys.stderr
        self._clock = clock
        self._live = not json and self._err.isatty()
        self._line_open = False
        self._said_at = float("-inf")
        self._said: set[str] = set()

    # -- results

    def document(self, value: Any) -> None:
        """The one JSON document of this verb."""
        self._out.write(msgspec.json.encode(value).decode() + "\n")
        self._out.flush()

    def line(self, text: str = "") -> None:
        """A line of the result, for people."""
        self._close_line()
        self._out.write(printable(text) + "\n")
        self._out.flush()

    def table(
        self,
        columns: Sequence[str],
        rows: Iterable[Sequence[str]],
        *,
        right: Sequence[str] = (),
        whole: Sequence[str] = (),
    ) -> None:
        """`right` names the columns of figures, `whole` those that a narrow terminal shall not break."""
        from rich import box
        from rich.console import Console as RichConsole
        from rich.table import Table
        from rich.text import Text

        self._close_line()
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        for column in columns:
            justify: Literal["left", "right"] = "right" if column in right else "left"
            table.add_column(column, justify=justify, overflow="fold", no_wrap=column in whole)
        for row in rows:
            table.add_row(*(Text(printable(cell)) for cell in row))
        RichConsole(file=self._out, width=None if self._out.isatty() else WIDE, highlight=False).print(table)

    # -- on the way

    def say(self, text: str) -> None:
        """A remark on stderr, for people; programs get it as a `remark`."""
        if self.json:
            self._err.write(msgspec.json.encode({"event": "remark", "message": text}).decode() + "\n")
        else:
            self._close_line()
            self._err.write(printable(text) + "\n")
        self._err.flush()

    def _say_once(self, text: str) -> None:
        """What was said already is not repeated: a command that waits for a lease comes back every few seconds."""
        if text not in self._said:
            self._said.add(text)
            self.say(text)

    def event(self, event: Event) -> None:
        if self.json:
            self._err.write(encode(event).decode() + "\n")
            self._err.flush()
        elif isinstance(event, ProgressEvent):
            self._progress(event)
        elif isinstance(event, LogItem) and event.status != "success":
            self._say_once(event.message if event.status == "running" else f"{event.status}: {event.message}")
        elif isinstance(event, Accepted) and event.delivery > 1:
            self._say_once(f"worker {event.worker} has the command now")

    def _progress(self, event: ProgressEvent) -> None:
        text = progress_line(event)
        if self._live:
            width = shutil.get_terminal_size().columns
            self._err.write(f"\r{printable(text)[: width - 1]}\x1b[K")
            self._err.flush()
            self._line_open = True
            return
        now = self._clock.monotonic()
        if event.total and now - self._said_at >= QUIET_SECONDS:
            self._said_at = now
            self._err.write(printable(text) + "\n")
            self._err.flush()

    def _close_line(self) -> None:
        if self._line_open:
            self._err.write("\r\x1b[K")
            self._err.flush()
            self._line_open = False

    # -- the end

    def error(self, error: ErrorBody) -> None:
        """What happened, what it was about, what to do: three short lines; with --json a document."""
        self._close_line()
        if self.json:
            self.document({"error": error})
            return
        self._err.write(f"data-mover: {printable(error.what)}\n")
        if error.value:
            self._err.write(f"  value: {printable(error.value)}\n")
        if error.hint:
            self._err.write(f"  hint:  {printable(error.hint)}\n")
        self._err.flush()

    def result(self, result: Result, resume: str = "") -> int:
        """Show how a command ended; its exit code. `resume`: how the very same thing is gone on with."""
        self._close_line()
        if self.json:
            self.document(result)
        elif result.error is not None:
            self.error(result.error)
            if resume and result.status == "cancelled":
                self._err.write(f"  go on: {resume}\n")
                self._err.flush()
        else:
            for text in summary(result):
                self.line(text)
        return result.exit_code


def progress_line(event: ProgressEvent) -> str:
    if not event.total:
        return event.stage
    share = min(100, 100 * event.done // event.total)
    text = f"{event.stage}: {share} %, {format_size(event.done)} of {format_size(event.total)}"
    if event.rate > 0:
        text += f", {format_size(event.rate)}/s"
    if event.eta is not None and event.done < event.total:
        text += f", {format_duration(event.eta)} left"
    return text


def calls(result: Result) -> int:
    """API calls of all operations and classes."""
    return int(sum(figures["calls"] for classes in result.api_calls.values() for figures in classes.values()))


def summary(result: Result) -> list[str]:
    """A result without an error, in lines."""
    figures = {name: int(value) for name, value in result.statistics.items()}
    took = f"{format_duration(result.seconds)}, {calls(result)} API calls"
    for whose in ("source", "target"):
        if f"{whose}_requests" in figures:
            took += f", {figures[f'{whose}_requests']} requests to the {whose}"
    if result.kind == "restore" and "write_calls" in figures:
        return _plan(result, figures)
    if result.kind == "restore":
        verified = f", {format_size(figures['verified'])} read back and right" if figures.get("verified") else ""
        figures_line = (
            f"written {format_size(figures['written'])}, already there {format_size(figures['equal'])}, "
            f"zero {format_size(figures['zero'])}, fetched {format_size(figures['fetched'])}{verified}"
        )
        disks = [f"{name}: {printable(path)}" for name, path in result.details.items()]
        return [f"restored {format_size(figures['size'])} of point {result.point}", *disks, figures_line, took]
    if result.kind != "backup":
        return [*(f"{name}: {printable(text)}" for name, text in result.details.items()), took]
    if result.already:
        return [f"restore point {result.point} of {result.resource} was there already: nothing was read"]
    how = f"since {result.parent}" if result.parent else "the first of its resource"
    read = (
        f"size {format_size(figures['size'])}: skipped {format_size(figures['skipped'] + figures['unallocated'])}, "
        f"read {format_size(figures['read'])} (zero {format_size(figures['zero'])}, "
        f"unchanged {format_size(figures['unchanged'])}, deduplicated {format_size(figures['deduplicated'])}, "
        f"new {format_size(figures['new'])})"
    )
    point = f"restore point {result.point} of {result.resource}, {how}{', resumed' if result.resumed else ''}"
    return [point, read, f"stored {format_size(figures['stored'])}, {took}"]


def _plan(result: Result, figures: Mapping[str, int]) -> list[str]:
    limit = ", the rest is what Azure takes for a page blob" if figures["seconds"] > figures["fetch_seconds"] else ""
    fetching = format_duration(figures["fetch_seconds"])
    return [
        f"nothing was written: a plan of restoring {format_size(figures['size'])} of point {result.point}",
        f"writes {format_size(figures['write'])} in {figures['write_calls']} requests, leaves {format_size(figures['zero'])} zero",
        f"fetches {format_size(figures['fetch'])} in {figures['fetch_calls']} requests",
        f"takes {format_duration(figures['seconds'])} or more (fetching, by a sample: {fetching}{limit})",
    ]
