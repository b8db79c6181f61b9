# SPDX-License-Identifier: Apache-2.0
"""From what a person chose to where it goes, entry by entry, and to the steps that put it there (`flr.restore.tool.Run`).

An item goes to where it was: the volume's mount point on the machine, then its path; or below another folder, as an archive would
hold it (`flr.recovery.selection`). Folders above it that are gone are made again as they were.
"""

from __future__ import annotations

import base64
import hashlib
import stat
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple

from flr.blocks import Hole
from flr.errors import RecoveryError
from flr.fs.base import Attributes, Flag
from flr.printable import shown
from flr.recovery.basket import Item
from flr.recovery.content import zeros
from flr.recovery.recovery import OpenPoint, Recovery
from flr.recovery.selection import Path, Source, members, sources
from flr.restore.target import Step
from mover.errors import MoverError, UsageError

PIECE = 1 << 20
WORDS = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}
NOT_RESTORED = "devices, pipes and sockets are not restored"


class Entry(NamedTuple):
    """`place`: the parts of its path on the machine. `above`: how many of them stand for no folder of the volume."""

    item: Item
    place: Path
    above: int
    path: bytes
    found: Attributes

    @property
    def kind(self) -> str:
        return WORDS.get(stat.S_IFMT(self.found.mode), "other")

    @property
    def target(self) -> bytes:
        return b"/" + b"/".join(self.place)


def text_of(name: bytes) -> str:
    """A name or a path as it travels."""
    return name.decode("utf-8", "surrogateescape")


def folder_parts(path: bytes) -> Path:
    """Of a folder of the machine that somebody named. UsageError."""
    parts = tuple(part for part in path.split(b"/") if part not in (b"", b"."))
    if not path.startswith(b"/") or b".." in parts or b"\0" in path or any(len(part) > 255 for part in parts):
        raise UsageError("not a folder of the machine", shown(path[:500]), "name it from / on, without ..")
    return parts


class Places:
    """Where items go. `folder`: None for where they were."""

    def __init__(self, recovery: Recovery, folder: Path | None) -> None:
        self._recovery = recovery
        self.folder = folder

    def check(self, items: Sequence[Item]) -> None:
        """UsageError for an item of which nobody knows where it was."""
        if self.folder is not None:
            return
        for point, volume in dict.fromkeys((item.point, item.volume) for item in items):
            with self._recovery.using(point) as opened:
                self._mount(opened, volume)

    def _mount(self, opened: OpenPoint, volume: str) -> Path:
        mounted = opened.guest().mounts.get(volume, "")
        if not mounted.startswith("/"):
            hint = "restore into another folder of the machine instead"
            raise UsageError("nobody knows where the machine has this volume", volume, hint)
        return tuple(part for part in mounted.encode("utf-8", "surrogateescape").split(b"/") if part)

    def entries(
        self, items: Sequence[Item], problem: Callable[[Item, bytes, str], None], begun: Callable[[Item], None]
    ) -> Generator[tuple[OpenPoint, Entry], None, None]:
        """All that is in the items, folders before what is in them. `problem` is told what cannot be read, with its path on its
        volume; `begun` each item when its entries begin."""
        for source in sources(items):
            with self._recovery.using(source.point) as opened:
                mount = self._mount(opened, source.volume) if self.folder is None else ()
                for place, item in source.items:
                    begun(item)

                    def odd(where: Path, text: str, item: Item = item) -> None:
                        problem(item, b"/".join(where), text)

                    for member in members(opened, Source(source.point, source.volume, [(place, item)]), odd):
                        parts = tuple(part for part in member.path.split(b"/") if part)
                        if self.folder is None:
                            yield opened, Entry(item, mount + parts, len(mount), member.path, member.found)
                        else:
                            whole = self.folder + member.place
                            above = len(whole) - _common_end(member.place, parts)
                            yield opened, Entry(item, whole, above, member.path, member.found)


def _common_end(one: Path, other: Path) -> int:
    """How many parts are the same, from the end."""
    count = 0
    for left, right in zip(reversed(one), reversed(other), strict=False):
        if left != right:
            break
        count += 1
    return count


class Steps:
    """Numbers entries and makes the steps of each. `ours`: folders that an earlier run made. `failed` says of a number whether it
    failed already: then no more of it is sent."""

    def __init__(self, failed: Callable[[int], bool], renamed: dict[Path, bytes], ours: set[Path]) -> None:
        self._failed = failed
        self._renamed = renamed
        self._ours = ours
        self._folders: dict[Path, int] = {(): 0}
        self._next = 1
        self.digest = ""
        """Of the file whose last step was made."""

    def number(self) -> int:
        self._next += 1
        return self._next - 1

    def of(
        self, opened: OpenPoint, entry: Entry, number: int, stop: Callable[[], bool], sent: Callable[[int], None]
    ) -> Iterator[Step]:
        """Of one entry, and before them those of folders that it stands in and that no step made yet. `sent` is told how far its
        content is. RecoveryError when it cannot be read, before anything was sent or behind a "drop"."""
        session, volume, found = opened.session, entry.item.volume, entry.found
        kind = entry.kind
        if not entry.place:
            return
        if kind == "other":
            raise RecoveryError(NOT_RESTORED, shown(entry.path), " ")
        attributes = self._attributes(opened, entry)
        if kind == "folder":
            yield from self._above(opened, entry)
            self._folders[entry.place] = number
            yield self._folder(number, entry.place, attributes, above=False)
            return
        target = text_of(session.link(volume, found.node)) if kind == "link" else ""
        if found.flags & Flag.SUSPICIOUS and kind == "file":
            raise RecoveryError(
                "it says that it is larger than its volume", f"{found.size} bytes", "the file system is damaged"
            )
        if found.flags & Flag.ENCRYPTED:
            raise RecoveryError(
                "its content is encrypted by the machine", shown(entry.path), "it needs the machine's own key"
            )
        yield from self._above(opened, entry)
        parent, name = self._folders[entry.place[:-1]], self._name(entry.place)
        if kind == "link":
            yield Step(["link", number, parent, name, target, attributes])
            return
        yield Step(["open", number, parent, name, found.size, attributes])
        digest, at = hashlib.sha256(), 0
        try:
            for piece in session.content(volume, found.node, found.size):
                if stop():
                    yield Step(["drop", number, "it was stopped"])
                    return
                if self._failed(number):
                    return
                if isinstance(piece, Hole):
                    for nothing in zeros(piece.length):
                        digest.update(nothing)
                    at += piece.length
                else:
                    digest.update(piece)
                    for start in range(0, len(piece), PIECE):
                        part = piece[start : start + PIECE]
                        yield Step(["data", number, at, len(part)], bytes(part))
                        at += len(part)
                sent(at)
        except MoverError as error:
            yield Step(["drop", number, f"it cannot be read: {error.what}"])
            raise
        self.digest = digest.hexdigest()
        yield Step(["close", number, self.digest])

    def _folder(self, number: int, place: Path, attributes: dict[str, Any], *, above: bool) -> Step:
        ours = place in self._ours
        return Step(["folder", number, self._folders[place[:-1]], self._name(place), attributes, above, ours])

    def _name(self, place: Path) -> str:
        return text_of(self._renamed.get(place, place[-1]))

    def _above(self, opened: OpenPoint, entry: Entry) -> Iterator[Step]:
        """Folders that the entry stands in and that no step made yet."""
        if entry.place[:-1] in self._folders:
            return  # and so are those above
        for depth in range(1, len(entry.place)):
            place = entry.place[:depth]
            if place in self._folders:
                continue
            attributes: dict[str, Any] = {"mode": 0o755}
            if depth > entry.above:
                path = b"/" + b"/".join(entry.path.strip(b"/").split(b"/")[: depth - len(entry.place)])
                try:
                    found = opened.session.find(entry.item.volume, path)
                    if found.is_directory:
                        extended = opened.session.xattrs(entry.item.volume, found.node)
                        attributes = attributes_of(found, extended)
                except RecoveryError:
                    pass
            number = self._folders[place] = self.number()
            yield self._folder(number, place, attributes, above=True)

    def _attributes(self, opened: OpenPoint, entry: Entry) -> dict[str, Any]:
        return attributes_of(entry.found, opened.session.xattrs(entry.item.volume, entry.found.node))


def attributes_of(found: Attributes, extended: dict[bytes, bytes]) -> dict[str, Any]:
    made: dict[str, Any] = {"mode": stat.S_IMODE(found.mode)}
    if found.owner is not None:
        made["uid"], made["gid"] = found.owner, found.group or 0
    if found.modified is not None:
        made["mtime"] = found.modified
    if found.accessed is not None and found.modified is not None:
        made["atime"] = found.accessed
    if extended:
        made["xattrs"] = {text_of(name): base64.b64encode(value).decode() for name, value in extended.items()}
    return made
