# SPDX-License-Identifier: Apache-2.0
"""What every reader of a file system promises (`flr.fs.base`), checked on whatever is in it."""

from __future__ import annotations

import random
import stat

import pytest

from flr.blocks import Extent, Hole, MemoryDisk, read_segments
from flr.errors import NodeNotFound, RecoveryError, WrongKind
from flr.fs.base import Attributes, FileSystem, Node
from flr.fs.table import pack, unpack
from tests.flr.corpus import truth


def everything(fs: FileSystem) -> list[Attributes]:
    """Every node that can be reached."""
    found: dict[int, Attributes] = {}
    todo = [fs.root()]
    found[fs.root().number] = fs.attributes(fs.root())
    while todo:
        cursor: int | None = 0
        node = todo.pop()
        while cursor is not None:
            listing = fs.entries(node, cursor)
            cursor = listing.cursor
            for entry in listing.entries:
                if entry.attributes and entry.number not in found:
                    found[entry.number] = entry.attributes
                    if entry.attributes.is_directory:
                        todo.append(entry.attributes.node)
    return list(found.values())


def check(fs: FileSystem, disk: MemoryDisk, seed: int = 1) -> None:
    nodes = everything(fs)
    chance = random.Random(seed)
    for one in nodes:
        assert fs.attributes(one.node) == one, "a listing and a node's own attributes tell the same"
    _folders(fs, [one for one in nodes if one.is_directory], chance)
    _files(fs, disk, [one for one in nodes if stat.S_ISREG(one.mode)], chance)
    _refusals(fs, nodes)


def _folders(fs: FileSystem, folders: list[Attributes], chance: random.Random) -> None:
    for folder in folders:
        whole = fs.entries(folder.node)
        if whole.cursor is not None:
            continue
        assert unpack(pack(whole)) == whole, "a table holds what a listing says"
        count = chance.choice([1, 2, 3, 7, 50])
        parts, cursor, rounds = [], 0, 0
        while cursor is not None:
            part = fs.entries(folder.node, cursor, count)
            assert len(part.entries) <= count
            parts += part.entries
            assert part.cursor is None or part.cursor > cursor
            cursor, rounds = part.cursor, rounds + 1
            assert rounds <= len(whole.entries) + 2, "a listing gets on"
            if rounds > 200:
                break
        assert parts == whole.entries[: len(parts)]
        assert cursor is not None or len(parts) == len(whole.entries)


def _files(fs: FileSystem, disk: MemoryDisk, files: list[Attributes], chance: random.Random) -> None:
    for one in files:
        if one.size > 64 << 20:
            assert any(isinstance(run, Hole) for run in fs.runs(one.node, 0, one.size)), "holes are visible"
            continue
        content = b"".join(truth.pieces(fs, one.node, one.size))
        assert len(content) == one.size
        for _ in range(3):
            offset = chance.randrange(one.size + 1)
            length = chance.choice([1, 10, 5000, 100_000, one.size])
            runs = fs.runs(one.node, offset, length)
            told = sum(run.length for run in runs)
            assert told <= max(0, min(length, one.size - offset))
            assert told or offset == one.size
            assert all(run.length > 0 for run in runs)
            expected = content[offset : offset + told]
            assert read_segments([fs.volume], runs) == expected
            assert fs.read(one.node, offset, length)[:told] == expected
            located = fs.map(one.node, offset, length)
            assert read_segments([disk], located) == content[offset : offset + sum(part.length for part in located)]
            assert all(part.disk == 0 for part in located if isinstance(part, Extent))
        assert fs.runs(one.node, one.size, 10) == []
        assert fs.runs(one.node, one.size + 1000, 10) == []


def _refusals(fs: FileSystem, nodes: list[Attributes]) -> None:
    root = fs.root()
    with pytest.raises(WrongKind):
        fs.runs(root, 0, 10)
    with pytest.raises(WrongKind):
        fs.link(root)
    file = next(one for one in nodes if stat.S_ISREG(one.mode))
    with pytest.raises(WrongKind):
        fs.entries(file.node)
    with pytest.raises(NodeNotFound):
        fs.attributes(Node(file.number, file.generation ^ 1))
    with pytest.raises(NodeNotFound):
        fs.runs(file.node, 0, 10, b"no-such-stream")
    for number in (0, 1 << 31, (1 << 63) - 1, (1 << 64) - 1):
        with pytest.raises(RecoveryError):
            fs.attributes(Node(number, 0))


def check_pages(fs: FileSystem, node: Node) -> None:
    """Parts of any length, put together, are the folder."""
    whole = [entry.name for entry in fs.entries(node).entries]
    for count in (1, 7, 100):
        cursor: int | None = 0
        names = []
        while cursor is not None:
            listing = fs.entries(node, cursor, count)
            assert len(listing.entries) <= count
            names += [entry.name for entry in listing.entries]
            cursor = listing.cursor
        assert names == whole
