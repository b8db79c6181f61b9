# SPDX-License-Identifier: Apache-2.0
"""What every way to the original machine can do. `flr.restore.through_tool` and `flr.restore.sftp` are the two; a tool for
Windows, or SMB, would be others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

from flr.errors import RecoveryError

Rule = Literal["keep", "overwrite", "skip", "newer"]
RULES: tuple[Rule, ...] = ("keep", "overwrite", "skip", "newer")


class TargetGone(RecoveryError):
    """The machine, or what reaches it, does not answer."""

    exit_code = 6
    hint_default = "what was written stays whole; see that the machine runs and is reached, then retry what failed"


class State(msgspec.Struct, frozen=True):
    """`ready` if a restore can begin. `text` is for people: what it waits for, or what it found."""

    ready: bool
    text: str
    host: str = ""
    lacks: list[str] = []


class Found(NamedTuple):
    """What stands at a path: `kind` file, folder, link, other, "" for nothing, or blocked, then with `why`."""

    kind: str
    size: int = 0
    modified: int = 0
    why: str = ""


class Order(NamedTuple):
    """Of one restoration. `suffix`: of names that are kept beside others. `privileges`: set-user-id bits and file capabilities come
    back too. `old`: earlier runs, which may have left half files."""

    run: str
    rule: Rule
    suffix: str
    privileges: bool
    old: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        return self._asdict()


class Status(NamedTuple):
    """How an entry ended: done, warning, skipped, failed; or that a folder was "made", which ends later. `name`: what it is
    called now where that is another name."""

    number: int
    state: str
    text: str = ""
    name: str = ""


class Step(NamedTuple):
    """`line` as `flr.restore.tool.Run` takes it; of "data" without its last word, and `data` beside it."""

    line: list[Any]
    data: bytes = b""


Tell = Callable[[Status], None]


def rounded(nanoseconds: int | None, resolution: int) -> int:
    """As a machine tells it that knows no finer times."""
    return (nanoseconds or 0) // resolution * resolution


class Target(Protocol):
    """TargetGone when the machine is not reached. `resolution`: nanoseconds by which it tells times."""

    name: str
    resolution: int

    def state(self) -> State: ...

    def look(self, base: str, paths: Sequence[str]) -> tuple[list[Found], int | None]:
        """What stands at each of the paths; and how many bytes may be written below `base`, None where nobody knows."""

    def run(self, order: Order, steps: Iterable[Step], tell: Tell) -> None:
        """Carries the steps out; `tell` is called as entries end. What failed of a single entry is told, not raised."""

    def close(self) -> None: ...
