# SPDX-License-Identifier: Apache-2.0
"""`files get`: one file beside its place and then renamed, or a tar of folders and files, with progress.

What exists is never written over. A file of a guest is only data here: it is not executed, and keeps no set-user-id.
"""

from __future__ import annotations

import argparse
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO

from agent.figures import format_size
from agent.files import new_file
from agent.protocol import ProgressEvent
from agent.verbs import Surroundings
from agent.verbs.entries import Problems, shown
from mover.errors import Cancelled, UsageError
from mover.progress import Progress, Snapshot

if TYPE_CHECKING:
    from flr.archive import Archive
    from flr.fs.base import Attributes
    from flr.session import Session

Opening = Callable[[argparse.Namespace, Surroundings], AbstractContextManager["Session"]]


def take(
    arguments: argparse.Namespace,
    around: Surroundings,
    open_session: Opening,
    open_volume: Callable[[Session, argparse.Namespace, Surroundings], str],
) -> int:
    if arguments.to != "-" and os.path.lexists(arguments.to):
        raise UsageError("there is something already", arguments.to, "give another name; nothing is written over")
    if arguments.to == "-" and arguments.json:
        raise UsageError("content and a JSON document on the same output", "--json", "leave one of them away")
    problems = Problems(around)
    with open_session(arguments, around) as session:
        volume = open_volume(session, arguments, around)
        wanted = []
        for text in arguments.paths:
            path = os.fsencode(text)
            wanted.append((path, session.find(volume, path, follow=path.endswith(b"/"))))
        taking = _Taking(session, volume, around, problems)
        single = len(wanted) == 1 and stat.S_ISREG(wanted[0][1].mode) and not arguments.tar
        if not single and not arguments.tar and len(wanted) == 1 and not wanted[0][1].is_directory:
            raise UsageError("neither a file nor a folder", arguments.paths[0], "--tar puts it into an archive")
        with _target(arguments.to) as out:
            if single:
                taking.file(wanted[0][1], out)
            else:
                taking.tar(wanted, out)
            problems.odd(session.news(volume))
    if arguments.to != "-":
        to = shown(os.fsencode(arguments.to))
        if around.console.json:
            around.console.document({"to": to, "size": taking.handled, "entries": taking.entries, **problems.told()})
        else:
            around.console.line(f"{taking.entries} entries, {format_size(taking.handled)} into {to}")
    return problems.exit_code()


@contextmanager
def _target(name: str) -> Iterator[BinaryIO]:
    """Standard output, or a new file that has its name when all is in it. TargetError, StoreFull."""
    if name != "-":
        with new_file(os.path.abspath(name), "what was taken out") as file:
            yield file
        return
    yield sys.stdout.buffer
    sys.stdout.buffer.flush()


class _Taking:
    def __init__(self, session: Session, volume: str, around: Surroundings, problems: Problems) -> None:
        self._session = session
        self._volume = volume
        self._around = around
        self._problems = problems
        self._progress = Progress(around.clock, self._report)
        self.handled = 0
        self.entries = 0

    def _report(self, snapshot: Snapshot) -> None:
        self._around.console.event(
            ProgressEvent(
                command="files",
                job="files",
                time=datetime.fromtimestamp(self._around.clock.wall(), UTC),
                stage=snapshot.stage,
                done=snapshot.done,
                total=snapshot.total,
                rate=snapshot.rate,
                eta=snapshot.eta,
            )
        )

    def _count(self, size: int) -> None:
        self.handled += size
        self._progress.update(self.handled)
        if self._around.cancel.is_set():
            raise Cancelled("interrupted", hint="nothing was left behind; issue it again")

    def file(self, attributes: Attributes, out: BinaryIO) -> None:
        """Holes stay holes where the target can have some."""
        from flr.blocks import Hole

        self.entries = 1
        self._progress.stage("get", attributes.size)
        seekable = out.seekable() and out is not sys.stdout.buffer
        for piece in self._session.content(self._volume, attributes.node, attributes.size):
            if isinstance(piece, Hole) and seekable:
                out.seek(piece.length, os.SEEK_CUR)
                size = piece.length
            else:
                data = bytes(piece.length) if isinstance(piece, Hole) else piece
                out.write(data)
                size = len(data)
            self._count(size)
        if seekable:
            out.truncate(attributes.size)
            out.flush()
            os.fchmod(out.fileno(), stat.S_IMODE(attributes.mode) & 0o777)
            if attributes.modified is not None:
                os.utime(out.fileno(), ns=(attributes.modified, attributes.modified))

    def tar(self, wanted: list[tuple[bytes, Attributes]], out: BinaryIO) -> None:
        from flr.archive import Archive
        from flr.fs.table import unpack
        from flr.walk import walk

        said: dict[bytes, bytes] = {}
        total = 0
        self._progress.stage("count", 0)
        for path, found in wanted:
            if not found.is_directory:
                total += found.size
                continue
            for part in walk(self._session, self._volume, found, path, lambda where, error: None):
                rows = part.table.columns()
                total += int(rows["size"][(rows["mode"] & 0o170000) == 0o100000].sum())
                self._count(0)
        self._progress.stage("get", total)
        archive = Archive(self._session, self._volume, out, self._problems.add, self._count)
        for path, found in wanted:
            base = path.rstrip(b"/").rpartition(b"/")[2]
            if base in (b"", b".", b".."):
                base = b"."
            if base in said:
                self._problems.add(path, f"left out: {shown(said[base])} has the same name in the archive")
                continue
            said[base] = path
            if not found.is_directory:
                self._add(archive, base, found)
                continue
            for part in walk(
                self._session, self._volume, found, base, lambda where, e: self._problems.add(where, str(e))
            ):
                if (
                    part.first
                ):  # a folder's times are its own again when everything is in it: it comes right before that
                    self._add(archive, part.path.rstrip(b"/"), part.folder)
                for entry in unpack(part.table).entries:
                    where = part.path + entry.name
                    if entry.attributes is None:
                        self._problems.add(where, entry.problem)
                    elif not entry.attributes.is_directory:
                        self._add(archive, where, entry.attributes)
        archive.finish()

    def _add(self, archive: Archive, path: bytes, attributes: Attributes) -> None:
        archive.add(path, attributes)
        self.entries += 1
        self._count(0)
