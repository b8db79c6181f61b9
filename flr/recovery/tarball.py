# SPDX-License-Identifier: Apache-2.0
"""A selection as a tar stream. It has no length beforehand, and keeps what a zip cannot: owners, modes, extended attributes, links,
holes (`flr.archive`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from flr.archive import Archive
from flr.printable import shown
from flr.recovery.basket import Item
from flr.recovery.pipe import Pipe, piped
from flr.recovery.recovery import Recovery
from flr.recovery.selection import Path, members, sources


def tar(recovery: Recovery, items: Sequence[Item], problem: Callable[[str, str], None]) -> Iterator[bytes]:
    """`problem` is told the path and what is wrong with it; it stops nothing."""

    def odd(path: Path, text: str) -> None:
        problem(shown(b"/".join(path)), text)

    def make(pipe: Pipe) -> None:
        archive: Archive | None = None
        for source in sources(items):
            with recovery.using(source.point) as opened:
                archive = Archive(opened.session, source.volume, pipe, lambda path, text: problem(shown(path), text))
                for member in members(opened, source, odd):
                    archive.add(b"/".join(member.place), member.found)
        if archive is not None:
            archive.finish()

    return piped(make)
