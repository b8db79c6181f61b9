# SPDX-License-Identifier: Apache-2.0
"""NTFS as ntfs-3g tells it: every entry, attribute, stream and byte, on volumes of several sizes of everything."""

from __future__ import annotations

import hashlib
import random
import stat
import struct

import pyfsntfs
import pytest

from flr.blocks import Extent, Hole, Literal
from flr.errors import NodeNotFound, Unsupported, WrongKind
from flr.fs.base import Attributes, Flag, Node, Stream
from flr.fs.ntfs import log
from flr.fs.ntfs.library import VolumeFile
from flr.fs.ntfs.reader import Ntfs
from tests.flr.corpus import catalogue, truth, windows
from tests.flr.corpus.asking import everything
from tests.flr.corpus.catalogue import GEOMETRIES, Streams
from tests.flr.corpus.image import Image
from tests.flr.corpus.mounted import Made
from tests.flr.fs import conformance


def opened(made: Made, kind: type[Ntfs] = Ntfs) -> Ntfs:
    return kind(Image(made.image))


def find(fs: Ntfs, path: str) -> Attributes:
    node = fs.root()
    found = fs.attributes(node)
    for name in path.encode("utf-8", "surrogatepass").split(b"/"):
        cursor: int | None = 0
        entries = []
        while cursor is not None:
            listing = fs.entries(node, cursor)
            entries += listing.entries
            cursor = listing.cursor
        (found,) = [e.attributes for e in entries if e.name == name and e.attributes]
        node = found.node
    return found


def content(fs: Ntfs, node: Node, size: int, stream: bytes = b"") -> bytes:
    return b"".join(truth.pieces(fs, node, size, stream))


def expected_flags(attrib: int) -> int:
    pairs = ((1, Flag.READ_ONLY), (2, Flag.HIDDEN), (4, Flag.SYSTEM), (0x20, Flag.ARCHIVE), (0x800, Flag.COMPRESSED))
    return sum(flag for bit, flag in pairs if attrib & bit)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_everything_is_as_ntfs_3g_tells_it(name: str) -> None:
    mkfs, many, links = GEOMETRIES[name]
    made = windows.ntfs_whole(name, mkfs, many, links)
    own = {
        path: {name: value for name, value in fact.xattrs.items() if name.startswith(b"system.")}
        for path, fact in made.truth.items()
    }
    sample = catalogue.ntfs(made)
    assert len([path for path in own if b"system.ntfs_reparse_data" in own[path]]) == len(windows.POINTS)
    told = sample.known(sample.truth)
    own = {path: told_own for path, told_own in own.items() if path in told}
    fs = opened(made, Streams)
    ours = truth.told(fs)
    assert ours.keys() == sample.truth.keys()
    assert not truth.differences(told, sample.known(ours), catalogue.NTFS_UNTOLD)
    for path, fact in told.items():
        assert stat.S_IFMT(fact.mode) == stat.S_IFMT(ours[path].mode), path
    assert {fact.owner for fact in ours.values()} == {None}
    assert not fs.warnings
    check_own(fs, own)


def check_own(fs: Ntfs, own: dict[bytes, dict[bytes, bytes]]) -> None:
    """Flags of every entry, and security descriptors of those that have one of their own and a few others."""
    todo, securities = [(b"", fs.root())], 0
    while todo:
        above, node = todo.pop()
        for entry in fs.entries(node).entries:
            path, a = above + b"/" + entry.name, entry.attributes
            assert a is not None
            if a.is_directory and a.number != node.number:
                todo.append((path, a.node))
            if path not in own:
                continue
            attrib = struct.unpack("<I", own[path][b"system.ntfs_attrib"])[0]
            shown = Flag.READ_ONLY | Flag.HIDDEN | Flag.SYSTEM | Flag.ARCHIVE | Flag.COMPRESSED
            assert a.flags & shown == expected_flags(attrib), path
            assert bool(a.flags & Flag.STREAMS) == bool(fs.streams(a.node)), path
            if b"special" in path:
                securities += 1
                assert fs.security(a.node) == own[path][b"system.ntfs_acl"], path
    assert securities > 30


def test_an_mft_in_many_pieces_is_whole() -> None:
    made = windows.ntfs_in_pieces()
    fs = opened(made, Streams)
    first = fs.mft._parsed(0)
    assert fs.mft._continuations(first)
    assert len(fs.mft._table.spans) > 100
    told = truth.told(fs)
    for fact in made.truth.values():
        fact.xattrs = {}
    assert not truth.differences(made.truth, told, frozenset({"owner", "group", "mode"}))
    assert len(told) > 3000
    assert not fs.warnings


def test_a_compressed_stream_beside_the_content() -> None:
    made = windows.ntfs_plain()
    fs = opened(made)
    a = find(fs, "packed/with-a-packed-stream")
    (stream,) = fs.streams(a.node)
    runs = fs.runs(a.node, 0, stream.size, b"packed")
    assert Literal in {type(run) for run in runs}
    assert content(fs, a.node, stream.size, b"packed") == b"stream of text, " * 4000


def test_about_a_volume() -> None:
    made = windows.ntfs_whole("whole")
    fs = opened(made)
    boot = fs.volume.pread(0, 512)
    assert fs.about.kind == "ntfs"
    assert fs.about.label == "DATEN ü"
    assert fs.about.uuid == boot[0x48:0x50][::-1].hex().upper()
    assert fs.about.version == "3.1"
    assert fs.about.block_size == 4096
    assert fs.about.size == (400 << 20) - 4096  # the last sector is the copy of the first, so the last cluster is cut
    assert fs.about.journal == log.CLEAN
    info = windows.tool_output("ntfsinfo", "-m", "-f", made.image).decode()
    free = next(int(line.split()[2]) for line in info.splitlines() if line.strip().startswith("Free Clusters"))
    assert fs.about.used == fs.about.size - free * 4096


def test_reparse_points() -> None:
    fs = opened(windows.ntfs_whole("whole"))
    for name, (_, written) in windows.POINTS.items():
        a = find(fs, f"special/point-{name}")
        if "link" in name or "junction" in name or "mount" in name:
            assert stat.S_ISLNK(a.mode)
            continue
        with pytest.raises(WrongKind, match="not a symbolic link"):
            fs.link(a.node)
        assert stat.S_ISREG(a.mode)
        assert written is not None
        assert a.size == len(written)
        if name in ("onedrive-away", "file-sync-away", "dedup", "wim"):
            assert a.flags & Flag.OFFLINE, name
            with pytest.raises(Unsupported) as raised:
                fs.runs(a.node, 0, 1)
            assert "content is" in raised.value.what
            assert f"record {a.number}" in raised.value.value
            assert "restore the whole disk" in raised.value.hint
        else:
            assert not a.flags & Flag.OFFLINE, name
            assert a.flags & Flag.REPARSE, name
            assert content(fs, a.node, a.size) == written
    with pytest.raises(WrongKind, match="not a folder"):
        fs.entries(find(fs, "special/point-junction").node)
    with pytest.raises(WrongKind, match="not a file"):
        fs.runs(find(fs, "special/point-junction").node, 0, 1)


def test_a_link_tells_its_substitute_name_or_else_its_print_name() -> None:
    fs = opened(windows.ntfs_whole("whole"))
    assert fs.link(find(fs, "special/point-symlink-up").node) == rb"..\..\..\x"
    assert fs.link(find(fs, "special/point-junction").node) == rb"\??\C:\Users"
    from flr.fs.ntfs import reparse

    assert reparse.target(windows.symlink("", "shown", 0), "") == b"shown"


def test_names_that_differ_in_case_are_two_files_and_a_short_name_is_none() -> None:
    fs = opened(windows.ntfs_whole("whole"))
    assert content(fs, find(fs, "special/case.txt").node, 5) == b"lower"
    assert content(fs, find(fs, "special/CASE.TXT").node, 5) == b"upper"
    names = [entry.name for entry in fs.entries(find(fs, "special").node).entries]
    assert b"Long name with a short one.txt" in names
    assert b"LONGNA~1.TXT" not in names


def test_streams_of_files_and_folders() -> None:
    fs = opened(windows.ntfs_whole("whole"))
    node = find(fs, "special/ads").node
    assert set(fs.streams(node)) == {
        Stream(b"Zone.Identifier", 26),
        Stream(b"big", 60000),
        Stream("ünïcødé".encode(), 1),
    }
    assert fs.read(node, 0, 100) == b"main"
    assert fs.read(node, 16, 100, b"Zone.Identifier") == b"ZoneId=3\r\n"
    folder = find(fs, "special/ads-folder")
    assert folder.flags & Flag.STREAMS
    assert fs.read(folder.node, 0, 100, b"on a folder") == b"on a folder"
    for wrong in (b"no such", b"\xff"):
        with pytest.raises(NodeNotFound, match="no such stream"):
            fs.runs(node, 0, 1, wrong)


def test_runs_tell_where_bytes_stand() -> None:
    fs = opened(windows.ntfs_whole("whole"))
    kinds = {}
    for name in ("big.bin", "special/sparse", "special/size_1", "packed/prose", "packed/noise", "packed/sparse"):
        a = find(fs, name)
        runs = fs.runs(a.node, 0, a.size)
        kinds[name] = {type(run) for run in runs}
        for run in runs:
            assert run.length <= 1 << 20 or not isinstance(run, Literal)
        assert content(fs, a.node, a.size) == b"".join(
            fs.read(a.node, at, min(99_991, a.size - at)) for at in range(0, a.size, 99_991)
        )
        assert fs.runs(a.node, a.size, 1) == []
        assert fs.runs(a.node, 0, 0) == []
    assert kinds == {
        "big.bin": {Extent},
        "special/sparse": {Extent, Hole},
        "special/size_1": {Literal},
        "packed/prose": {Literal},
        "packed/noise": {Extent, Literal},
        "packed/sparse": {Literal, Hole, Extent},
    }


def test_nodes_are_records_with_their_sequence() -> None:
    fs = opened(windows.ntfs_whole("whole"))
    node = find(fs, "big.bin").node
    assert fs.attributes(node).size == 8 << 20
    for wrong in (Node(node.number, node.generation + 1), Node(10**9, 1), Node(-1, 1), Node(fs.mft.count - 1, 1)):
        with pytest.raises(NodeNotFound):
            fs.attributes(wrong)
    with pytest.raises(WrongKind):
        fs.entries(node)
    with pytest.raises(WrongKind):
        fs.runs(fs.root(), 0, 1)


def test_pages_of_a_folder_put_together_are_the_folder() -> None:
    fs = opened(windows.ntfs_whole("whole"))
    for folder in ("many", "odd", "special"):
        conformance.check_pages(fs, find(fs, folder).node)


def test_system_files_are_hidden_and_can_be_asked_for() -> None:
    fs = opened(windows.ntfs_whole("whole"))
    names = {entry.name for entry in fs.entries(fs.root()).entries}
    assert b"$MFT" not in names
    assert b"." not in names
    assert b"$MFTx" in {entry.name for entry in fs.entries(find(fs, "odd").node).entries}
    assert fs.attributes(Node(0, 1)).size == fs.mft.count * 1024
    assert fs.read(Node(0, 1), 0, 4) == b"FILE"


def test_a_scan_finds_what_a_walk_finds() -> None:
    made = windows.ntfs_whole("whole")
    fs = opened(made)
    names: dict[int, list[tuple[Node, bytes]]] = {}
    scanned: dict[int, Attributes] = {}
    cursor: int | None = 0
    while cursor is not None:
        scan = fs.scan(cursor, 500)
        cursor = scan.cursor
        for found in scan.found:
            names[found.attributes.number] = found.names
            scanned[found.attributes.number] = found.attributes
    paths = {b"/"}
    for number, found_names in names.items():
        for parent, name in found_names:
            path = name
            at = parent
            while at.number != fs.root().number:
                ((at, above),) = names[at.number][:1]
                path = above + b"/" + path
            paths.add(b"/" + path)
        assert scanned[number] == fs.attributes(scanned[number].node)
    assert paths == made.truth.keys()


def test_files_compressed_by_wof() -> None:
    image, contents = windows.wof()
    fs = Ntfs(Image(image))
    entries = fs.entries(fs.root()).entries
    assert {entry.name for entry in entries} == contents.keys()
    assert len(contents) == 12
    for entry in entries:
        a = entry.attributes
        assert a is not None
        assert stat.S_ISREG(a.mode)
        assert a.flags & Flag.COMPRESSED
        assert not a.flags & (Flag.REPARSE | Flag.STREAMS | Flag.OFFLINE)
        assert fs.streams(a.node) == []
        assert hashlib.sha256(content(fs, a.node, a.size)).digest() == hashlib.sha256(contents[entry.name]).digest()
        chance = random.Random(1)
        for at in (0, 1, a.size - 1, a.size - 5000, *(chance.randrange(a.size) for _ in range(20))):
            assert fs.read(a.node, at, 9000) == contents[entry.name][at : at + 9000]
        assert fs.runs(a.node, a.size, 1) == []


def test_a_sound_volume_raises_no_errors_but_for_what_is_elsewhere() -> None:
    image, _ = windows.wof()
    assert everything(Ntfs(Image(image))).errors == {}
    asked = everything(opened(windows.ntfs_whole("whole")))
    assert asked.errors == {"Unsupported": 4 * 4}  # four files whose content is elsewhere, four questions for each


def test_a_large_folder_costs_few_requests() -> None:
    """The numbers that docs/decisions/0010 gives, smaller: libfsntfs reads the record of each child by itself."""
    made = windows.ntfs_of_many(10_000)
    volume = Image(made.image)
    fs = Ntfs(volume)
    assert len(volume.chunks) <= 6
    volume.chunks.clear()
    fs.entries(fs.root())
    assert len(volume.chunks) <= 5
    many = find(fs, "many").node
    reads, hints = volume.reads, volume.hints
    cursor: int | None = 0
    count = 0
    while cursor is not None:
        listing = fs.entries(many, cursor)
        count += len(listing.entries)
        cursor = listing.cursor
    assert count == len(made.truth) - 2
    ours, ours_hints = volume.reads - reads, volume.hints - hints
    library = pyfsntfs.volume()
    file = VolumeFile(volume)
    library.open_file_object(file)
    reads = volume.reads
    folder = next(e for e in library.get_root_directory().sub_file_entries if e.name == "many")
    assert sum(1 for e in folder.sub_file_entries if e.size is not None) == count
    assert ours < 2000
    assert ours_hints < 100
