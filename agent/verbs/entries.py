# SPDX-License-Identifier: Apache-2.0
"""What `files` shows of entries: a line for a person, a document for a program; and problems, which are told and stop nothing."""

from __future__ import annotations

import base64
import stat
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from agent.verbs import Surroundings
from flr.printable import shown

if TYPE_CHECKING:
    from flr.fs.base import Attributes, Entry, Stream
    from flr.session import Session

T = TypeVar("T")
EXIT_PROBLEMS = 5
MOST_SAID = 100
"""Problems that are said one by one."""
NO_XATTRS: dict[bytes, bytes] = {}
NO_STREAMS: list[Stream] = []
LONGEST_SHOWN = 200
"""Letters of a link's target, in a line."""
_KINDS = {
    stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device", stat.S_IFBLK: "device",
}  # fmt: skip
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

__all__ = ["Problems", "document_of", "entry_line", "name_document", "shown", "since_1970"]


class Problems:
    """Of single entries. Thread-safe."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._lock = threading.Lock()
        self.count = 0
        self.documents: list[dict[str, Any]] = []

    def add(self, path: bytes, what: str) -> None:
        with self._lock:
            self.count += 1
            if self.count <= MOST_SAID:
                self.documents.append({**name_document(path), "problem": what})
                self._around.console.say(f"{shown(path)}: {what}")

    def odd(self, texts: list[str]) -> None:
        """What a reader found odd while it was used: damage that it could read around, so something may be missing."""
        for text in texts:
            with self._lock:
                self.count += 1
                if self.count <= MOST_SAID:
                    self.documents.append({"problem": text})
                    self._around.console.say(text)

    def told(self) -> dict[str, Any]:
        """For a document: the first ones, and how many there were."""
        return {"problems": self.documents, "problem_count": self.count}

    def exit_code(self) -> int:
        """0 when there were none; says how many there were."""
        if not self.count:
            return 0
        if self.count > MOST_SAID:
            self._around.console.say(f"{self.count - MOST_SAID} more problems were not told one by one")
        were = "there was 1 problem" if self.count == 1 else f"there were {self.count} problems"
        self._around.console.say(f"{were}; what is not named above is not touched by them")
        return EXIT_PROBLEMS


def name_document(name: bytes) -> dict[str, Any]:
    """A name for a program: as text, and as it is when it is no UTF-8."""
    try:
        return {"path": name.decode()}
    except UnicodeDecodeError:
        return {"path": shown(name), "path_base64": base64.b64encode(name).decode()}


def since_1970(when: datetime) -> int:
    """In nanoseconds."""
    return (when - _EPOCH) // timedelta(microseconds=1) * 1000


def moment_of(nanoseconds: int | None) -> str:
    """To the minute, with seconds and more left to --json; what no calendar has is shown as its number."""
    if nanoseconds is None:
        return "-"
    try:
        return (_EPOCH + timedelta(microseconds=nanoseconds // 1000)).strftime("%Y-%m-%d %H:%M")
    except (OverflowError, ValueError):
        return str(nanoseconds)


def entry_line(session: Session, volume: str, entry: Entry, details: bool, problems: Problems) -> list[str]:
    """As `ls -l` has it; with details, more lines below. What of it cannot be read is a problem."""
    a = entry.attributes
    if a is None:
        return [f"{'?' * 10} {'-':>8} {'-':>8} {'-':>14} {'-':16} {shown(entry.name)}"]
    owner = "-" if a.owner is None else str(a.owner)
    group = "-" if a.group is None else str(a.group)
    size = f"{_major(a.device)}, {_minor(a.device)}" if stat.S_ISCHR(a.mode) or stat.S_ISBLK(a.mode) else str(a.size)
    name = shown(entry.name)
    if stat.S_ISLNK(a.mode):
        target = _or_problem(lambda: shown(session.link(volume, a.node)), "?", entry.name, problems)
        name += f" -> {target}" if len(target) <= LONGEST_SHOWN else f" -> {target[:LONGEST_SHOWN]}..."
    line = f"{stat.filemode(a.mode)} {owner:>8} {group:>8} {size:>14} {moment_of(a.modified)} {name}{_flags(a)}"
    if not details:
        return [line]
    times = ("changed", a.changed), ("accessed", a.accessed), ("created", a.created)
    more = [f"node {a.number}, generation {a.generation}, {a.links} links, {a.allocated} bytes allocated"]
    more.append(", ".join(f"{word} {moment_of(value)}" for word, value in times if value is not None))
    for name_of, value in _or_problem(lambda: session.xattrs(volume, a.node), NO_XATTRS, entry.name, problems).items():
        more.append(f"{shown(name_of)} = {value[:60].hex()}{'...' if len(value) > 60 else ''}")
    streams = _or_problem(lambda: session.streams(volume, a.node), NO_STREAMS, entry.name, problems)
    more += [f"stream {shown(stream.name)}: {stream.size} bytes" for stream in streams]
    return [line, *("    " + text for text in more if text)]


def _or_problem(ask: Callable[[], T], instead: T, name: bytes, problems: Problems) -> T:
    from flr.errors import RecoveryError

    try:
        return ask()
    except RecoveryError as error:
        problems.add(name, str(error))
        return instead


def _major(device: int) -> int:
    return device >> 8 & 0xFFF


def _minor(device: int) -> int:
    return device & 0xFF | device >> 12 & 0xFFF00


def _flags(a: Attributes) -> str:
    from flr.fs.base import Flag

    names = [flag.name.lower().replace("_", " ") for flag in Flag if a.flags & flag & ~Flag.ARCHIVE and flag.name]
    return f"  [{', '.join(names)}]" if names else ""


def document_of(session: Session, volume: str, entry: Entry, details: bool, problems: Problems) -> dict[str, Any]:
    a = entry.attributes
    made: dict[str, Any] = {**name_document(entry.name), "type": _KINDS.get(stat.S_IFMT(entry.kind), "unknown")}
    if a is None:
        return {**made, "problem": entry.problem}
    from flr.fs.base import Flag

    made.update(
        type=_KINDS.get(stat.S_IFMT(a.mode), "unknown"),
        mode=stat.S_IMODE(a.mode),
        owner=a.owner,
        group=a.group,
        size=a.size,
        links=a.links,
        modified_ns=a.modified,
        changed_ns=a.changed,
        accessed_ns=a.accessed,
        created_ns=a.created,
        node=a.node,
        flags=[flag.name.lower() for flag in Flag if a.flags & flag and flag.name],
    )
    if stat.S_ISLNK(a.mode):
        target = name_document(_or_problem(lambda: session.link(volume, a.node), b"", entry.name, problems))
        made["target"] = {"text": target["path"], **({"base64": target["path_base64"]} if len(target) > 1 else {})}
    if details:
        xattrs = _or_problem(lambda: session.xattrs(volume, a.node), NO_XATTRS, entry.name, problems)
        streams = _or_problem(lambda: session.streams(volume, a.node), NO_STREAMS, entry.name, problems)
        security = _or_problem(lambda: session.security(volume, a.node), b"", entry.name, problems)
        made["xattrs"] = {shown(k): base64.b64encode(v).decode() for k, v in xattrs.items()}
        made["streams"] = [{**name_document(s.name), "size": s.size} for s in streams]
        made["security"] = base64.b64encode(security).decode()
    return made
