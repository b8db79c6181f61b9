# SPDX-License-Identifier: Apache-2.0
"""What people see while a job runs: one live line on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import io
from datetime import UTC, datetime

from agent.console import QUIET_SECONDS, Console, progress_line
from agent.protocol import Accepted, ErrorBody, LogItem, ProgressEvent, Result
from tests.mover.store.clock import ManualClock

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)
MIB = 1 << 20


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def progress(done: int, total: int = 100 * MIB, rate: float = 10 * MIB, eta: float | None = 5.0) -> ProgressEvent:
    return ProgressEvent(command="c", job="j", time=NOW, stage="restore", done=done, total=total, rate=rate, eta=eta)


def log(status: str, message: str) -> LogItem:
    return LogItem(command="c", job="j", time=NOW, status=status, message=message, resource="r", start=NOW)  # type: ignore[arg-type]


def test_progress_tells_share_sizes_rate_and_time_left() -> None:
    assert progress_line(progress(50 * MIB)) == "restore: 50 %, 50.0 MiB of 100 MiB, 10.0 MiB/s, 5.0 s left"
    assert progress_line(progress(0, rate=0, eta=None)) == "restore: 0 %, 0 B of 100 MiB"
    assert progress_line(progress(0, total=0)) == "restore"
    assert progress_line(progress(101 * MIB)).startswith("restore: 100 %")


def test_a_terminal_has_one_live_line_that_makes_way_for_what_stays() -> None:
    out, err = io.StringIO(), Screen()
    console = Console(out=out, err=err, clock=ManualClock())
    console.event(progress(10 * MIB))
    console.event(progress(20 * MIB))
    console.event(log("warning", "something"))
    console.event(progress(30 * MIB))
    console.line("done")
    lines = err.getvalue().split("\r")
    assert [line.partition(":")[0] for line in lines] == [
        "",
        "restore",
        "restore",
        "\x1b[Kwarning",
        "restore",
        "\x1b[K",
    ]
    assert out.getvalue() == "done\n"


def test_elsewhere_there_is_a_line_now_and_then() -> None:
    err, clock = io.StringIO(), ManualClock()
    console = Console(out=io.StringIO(), err=err, clock=clock)
    for _ in range(200):
        console.event(progress(MIB))
        clock.advance(0.5)
    assert len(err.getvalue().splitlines()) == 100 / QUIET_SECONDS
    assert "\r" not in err.getvalue()


def test_what_repeats_is_said_once() -> None:
    err = io.StringIO()
    console = Console(out=io.StringIO(), err=err)
    for delivery in range(1, 6):
        console.event(Accepted(command="c", job="j", time=NOW, kind="backup", worker="w2", delivery=delivery))
        console.event(log("running", "another worker holds the session: the command waits for it"))
        console.event(log("success", "commit"))
    assert err.getvalue().splitlines() == [
        "another worker holds the session: the command waits for it",
        "worker w2 has the command now",
    ]


def test_a_cancelled_job_says_how_to_go_on() -> None:
    err = io.StringIO()
    error = ErrorBody(what="cancelled", value="p", hint="again", exit_code=8)
    result = Result(command="c", job="j", time=NOW, kind="backup", status="cancelled", error=error)
    assert Console(out=io.StringIO(), err=err).result(result, "the same command again") == 8
    assert err.getvalue().splitlines() == [
        "data-mover: cancelled",
        "  value: p",
        "  hint:  again",
        "  go on: the same command again",
    ]
