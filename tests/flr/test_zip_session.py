# SPDX-License-Identifier: Apache-2.0
"""A whole file system as a zip: every file's bytes as the reader of its file system has them, under names that do no harm."""

from __future__ import annotations

import hashlib
import stat
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from flr.blocks import Hole
from flr.errors import Unsupported
from flr.fs.base import Node
from flr.fs.table import unpack
from flr.safe_names import SafeNames
from flr.session import Session
from flr.virtual.open import open_sources
from flr.walk import walk
from flr.zip import Layout, Member
from flr.zip_report import NAME, Report
from mover.disk.source import FileSource
from tests.flr.corpus.catalogue import sample

SMALL = 64 << 20
_NODE = struct.Struct("<QI")


def members(session: Session, report: Report) -> Iterator[Member]:
    names = SafeNames(report.renamed, [NAME])
    root = session.attributes("0", session.open("0").root)
    for part in walk(session, "0", root, b"/", lambda path, error: report.left_out(path, error.what)):
        above = [name for name in part.path.split(b"/") if name]
        if above and part.first:
            yield Member(names.path(above, folder=True), "folder", 0, part.folder.mode, part.folder.modified, b"")
        for entry in unpack(part.table).entries:
            found = entry.attributes
            if found is not None and stat.S_ISREG(found.mode) and found.size < SMALL:
                path = names.path([*above, entry.name], folder=False)
                source = _NODE.pack(found.number, found.generation)
                yield Member(path, "file", found.size, found.mode, found.modified, source)
            elif found is None or not found.is_directory:
                report.left_out(part.path + entry.name, "no file, or too large for a test")


@pytest.mark.parametrize("name", ["ext4-inline", "xfs-small", "ntfs-plain", "fat12-few"])
def test_a_file_system_as_a_zip(name: str, tmp_path: Path) -> None:
    problems: list[tuple[str, str]] = []
    unreadable: list[str] = []
    with open_sources([FileSource(str(sample(name).image))]) as disks, Session(disks) as session:

        def content(member: Member, at: int) -> Iterator[bytes | Hole]:
            return session.content("0", Node(*_NODE.unpack(member.source)), member.size, at)

        layout = Layout(members(session, report := Report(name)), report)
        assert layout.files > 5
        cut = layout.size // 3
        with (tmp_path / "x.zip").open("wb") as file:
            for start, end in ((0, cut), (cut, layout.size)):
                for piece in layout.read(start, end, content, lambda path, why: problems.append((path, why))):
                    file.write(piece)
        with zipfile.ZipFile(tmp_path / "x.zip") as archive:
            for member in members(session, Report(name)):
                if member.kind == "folder":
                    assert archive.getinfo(member.path + "/").is_dir()
                    continue
                made = hashlib.sha256()
                try:
                    for piece in content(member, 0):
                        made.update(bytes(piece.length) if isinstance(piece, Hole) else piece)
                except Unsupported:  # the content is not on this disk
                    unreadable.append(member.path)
                    made = hashlib.sha256(bytes(member.size))
                assert hashlib.sha256(archive.read(member.path)).digest() == made.digest()
            assert len(archive.namelist()) == layout.files + layout.folders + 1
            text = archive.read(NAME).decode()
        assert [path for path, _ in problems] == unreadable
        assert all(f"{path}: " in text for path in unreadable)
        assert ("Every file could be read to its end." in text) == (not unreadable)
        assert session.parser.deaths == 0
