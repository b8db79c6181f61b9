# SPDX-License-Identifier: Apache-2.0
"""What the demo found out, as a table for people or a document for programs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from agent.console import Console
from agent.figures import format_duration, format_size


@dataclass
class Step:
    """A line of the table; sizes in bytes, None: does not apply."""

    what: str
    read: int | None = None
    unchanged: int | None = None
    stored: int | None = None
    saved: float | None = None
    api_calls: int | None = None
    seconds: float = 0.0
    verdict: str = ""


@dataclass
class Check:
    what: str
    passed: bool


@dataclass
class Report:
    """`used`: bytes in use in the disk at each backup. `stored`: bytes of the repository at the end, dead packs included."""

    steps: list[Step] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    used: list[int] = field(default_factory=list)
    stored: int = 0

    @property
    def passed(self) -> bool:
        return bool(self.checks) and all(check.passed for check in self.checks)

    def show(self, console: Console) -> None:
        if console.json:
            console.document({"ok": self.passed, **asdict(self)})
            return
        columns = ("Step", "Read", "Unchanged", "Stored", "Saved", "API calls", "Time", "Verdict")
        console.table(columns, map(_cells, self.steps), right=columns[1:-1])
        used = sum(self.used)
        taken = (
            f"{len(self.used)} backups of {format_size(used)} in use take {format_size(self.stored)} in the repository"
        )
        console.line(f"{taken}: {100 * (1 - self.stored / used):.1f} % saved")
        failed = [check.what for check in self.checks if not check.passed]
        for what in failed:
            console.line(f"FAILED: {what}")
        console.line(f"{len(self.checks) - len(failed)} of {len(self.checks)} checks passed")


def _cells(step: Step) -> list[str]:
    def size(value: int | None) -> str:
        return "" if value is None else format_size(value)

    saved = "" if step.saved is None else f"{100 * step.saved:.1f} %"
    api_calls = "" if step.api_calls is None else str(step.api_calls)
    figures = [size(step.read), size(step.unchanged), size(step.stored), saved, api_calls]
    return [step.what, *figures, format_duration(step.seconds), step.verdict]
