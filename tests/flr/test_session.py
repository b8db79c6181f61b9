# SPDX-License-Identifier: Apache-2.0
"""A session tells what the reader tells, for every kind: nothing is lost or added between the parser's process and its parent."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from flr.blocks import Extent, Hole
from flr.catalogue import Catalogue, Query
from flr.errors import RecoveryError, TooMuch
from flr.fs.base import Node
from flr.fs.open import open_file_system
from flr.session import FREE_ANSWERS, Session
from flr.virtual.open import open_sources
from flr.walk import everything
from mover.disk.source import FileSource
from tests.flr.corpus.catalogue import CATALOGUE, sample
from tests.flr.corpus.image import opened
from tests.flr.corpus.populate import MIB
from tests.flr.fs.conformance import everything as nodes_of

IMAGES = (
    "ext4", "ext4-inline", "ext3-1k", "ext4-busy", "xfs-small", "xfs-busy", "ntfs-plain", "ntfs-wof", "fat12-few", "exfat",
)  # fmt: skip


@pytest.mark.parametrize("name", IMAGES)
def test_a_session_tells_what_the_reader_tells(name: str, tmp_path: Path) -> None:
    holds, path = CATALOGUE[name].holds, sample(name).image
    with opened(path) as disk, open_sources([FileSource(str(path))]) as disks, Session(disks) as session:
        fs = open_file_system(disk, holds)
        assert session.open("0").about == fs.about
        nodes = nodes_of(fs)
        for one in nodes:
            assert session.attributes("0", one.node) == one
            for ask in ("xattrs", "streams", "security"):
                assert outcome(lambda a=ask, n=one.node: getattr(session, a)("0", n)) == outcome(  # type: ignore[misc]
                    lambda a=ask, n=one.node: getattr(fs, a)(n)  # type: ignore[misc]
                )
            if one.is_directory:
                whole = list(session.folder("0", one.node))
                assert whole == [e for part in parts(fs, one.node) for e in part]
            if stat.S_ISREG(one.mode) and one.size < 64 * MIB:
                assert outcome(lambda n=one.node, s=one.size: digest(session, n, s)) == outcome(  # type: ignore[misc]
                    lambda n=one.node, s=one.size: reader_digest(fs, n, s)  # type: ignore[misc]
                )
        _searched(session, nodes, tmp_path)
        assert session.parser.deaths == 0


def _searched(session: Session, nodes: list, tmp_path: Path) -> None:  # type: ignore[type-arg]
    """A catalogue has every node, with paths that lead to it."""
    problems: list[bytes] = []
    root = session.attributes("0", session.open("0").root)
    with Catalogue(tmp_path / "catalogue", root.number) as catalogue:
        for folders, table in everything(session, "0", root, b"/", lambda path, error: problems.append(path)):
            catalogue.add(folders, table)
        catalogue.complete = True
        found = [match for _, match in catalogue.search(Query()) if match is not None]
        assert {match.node.number for match in found} == {one.number for one in nodes} - {root.number}
        for match in found[:: max(1, len(found) // 40)]:
            assert session.find("0", match.path).node == match.node
        large = {match.path for _, match in catalogue.search(Query(least=100_000, kind="file")) if match is not None}
        assert large == {match.path for match in found if match.size >= 100_000 and stat.S_ISREG(match.mode)}


def parts(fs, node: Node):  # type: ignore[no-untyped-def]
    cursor: int | None = 0
    while cursor is not None:
        listing = fs.entries(node, cursor)
        yield listing.entries
        cursor = listing.cursor


def outcome(ask: Callable[[], object]) -> object:
    try:
        return ask()
    except RecoveryError as error:
        return error.type, error.what


def digest(session: Session, node: Node, size: int) -> str:
    made = hashlib.sha256()
    for piece in session.content("0", node, size):
        made.update(bytes(piece.length) if isinstance(piece, Hole) else piece)
    return made.hexdigest()


def reader_digest(fs, node: Node, size: int) -> str:  # type: ignore[no-untyped-def]
    made = hashlib.sha256()
    at = 0
    while at < size:
        data = fs.read(node, at, MIB)
        assert data
        made.update(data)
        at += len(data)
    return made.hexdigest()


def test_answers_about_a_file_must_get_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A parser that was taken over tells of a file byte by byte: it is not followed for ever."""
    image = tmp_path / "image"
    image.write_bytes(bytes(1 * MIB))
    asked = []

    def drip(self: Session, volume: str, node: Node, offset: int, length: int, stream: bytes = b"") -> list[Extent]:
        asked.append(offset)
        return [Extent(0, offset % MIB, 1)]

    monkeypatch.setattr(Session, "map", drip)
    with open_sources([FileSource(str(image))]) as disks, Session(disks) as session:
        with pytest.raises(TooMuch):
            digest(session, Node(1, 0), 1 << 40)
        assert len(asked) <= FREE_ANSWERS + 1
