# SPDX-License-Identifier: Apache-2.0
"""Every image of a file system that the tests make, by name: what it holds, how it is made, its truth and who tells that.

One list for all who go over the corpus: readers and sessions, mutants, oracles, the table of docs/file-systems.md. An image is
made when it is asked for, and kept (`cache`). The truth is in the form in which `truth.told(telling(reader))` can be laid beside
it: what a teller does not know is named in `untold`, and what it is known to tell wrongly is put right here, each with its reason.
Disks with groups and arrays are not here: see `arrays`.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from flr.blocks import Volume
from flr.fs.base import FileSystem, Node
from flr.fs.ntfs.reader import Ntfs
from flr.fs.open import open_file_system
from tests.flr.corpus import truth, uml, windows
from tests.flr.corpus.mounted import Made, need
from tests.flr.corpus.populate import MIB
from tests.flr.corpus.truth import Fact, Facts
from tests.flr.fs.ext import images as ext
from tests.flr.fs.xfs import images as xfs


class Sample(NamedTuple):
    """An image and its truth. Of the entries `named` the teller knows no more than that they are there."""

    image: Path
    truth: Facts
    named: frozenset[bytes] = frozenset()

    def known(self, facts: Facts) -> Facts:
        """Without the entries of which there is nothing to compare."""
        return {path: fact for path, fact in facts.items() if path not in self.named}


class Listed(NamedTuple):
    """`holds` is the word of `flr.volumes.signatures`, `made` and `teller` are for people. `untold`: fields of Fact that the teller
    does not know; without the mode it still knows the type. `busy`: it holds a moment that no second making brings back.
    `differs`: why ours is known not to be equal to the truth; docs/file-systems.md says so too."""

    holds: str
    made: str
    teller: str
    sample: Callable[[], Sample]
    untold: frozenset[str] = frozenset()
    busy: bool = False
    differs: str = ""


# -- NTFS

GEOMETRIES = {
    "whole": ((), 1000, 803),
    "512": (("-c", "512"), 300, 30),
    "64k": (("-c", "65536"), 300, 30),
    "sectors": (("-s", "4096", "-c", "4096"), 300, 803),
}
"""mkntfs's options, entries of a folder, hard links of a file."""

NTFS_UNTOLD = frozenset({"mode", "owner", "group"})
"""ntfs-3g makes owners and modes up from its mount's options."""


class Streams(Ntfs):
    """With streams in the form in which ntfs-3g tells of them."""

    def xattrs(self, node: Node) -> dict[bytes, bytes]:
        return {b"user." + s.name: b"".join(truth.pieces(self, node, s.size, s.name)) for s in self.streams(node)}


def ntfs(made: Made) -> Sample:
    """ntfs-3g says nothing of what is behind reparse points that are no links: see tests/flr/fs/test_ntfs.py. Its own attributes
    are compared there too."""
    points = {path for path, fact in made.truth.items() if b"system.ntfs_reparse_data" in fact.xattrs}
    named = frozenset(path for path in points if not stat.S_ISLNK(made.truth[path].mode))
    for fact in made.truth.values():
        fact.xattrs = {name: value for name, value in fact.xattrs.items() if name.startswith(b"user.")}
    return Sample(made.image, made.truth, named)


WOF_UNTOLD = frozenset(Fact.__struct_fields__) - {"path", "size", "content", "problem"}


def wof() -> Sample:
    """The files that went into the archives; no tool made the image from them as a whole, so nothing else is known."""
    image, contents = windows.wof()
    facts = {b"/": Fact(b"/", stat.S_IFDIR, None, None, 0, 0, None, None, None, None)}
    for name, data in contents.items():
        path, digest = b"/" + name, hashlib.sha256(data).hexdigest()
        facts[path] = Fact(path, stat.S_IFREG, None, None, len(data), 0, None, None, None, None, content=digest)
    return Sample(image, facts, frozenset({b"/"}))


# -- FAT and exFAT

FAT_UNTOLD = frozenset({"mode", "owner", "group", "links", "changed", "accessed", "created", "xattrs"})
"""What mtools and exfat-fuse make up, or do not show."""


def fat(made: Made) -> Sample:
    facts = made.truth
    # mtools shows a short name of code page 850 in upper case though its flag says lower; the name was given in lower case.
    path = "/odd/é-nfc.txt".encode()
    facts[path] = facts.pop("/odd/É-nfc.txt".encode())
    facts[path].path = path
    for fact in facts.values():
        if stat.S_ISDIR(fact.mode):
            fact.size = 0  # of the folder into which mtools copied
    return exfat(made)


def exfat(made: Made) -> Sample:
    made.truth[b"/"].modified, made.truth[b"/"].size = None, 0  # a root has no entry, so it has neither
    return Sample(made.image, made.truth)


# -- the list


def _ext(way: str) -> Listed:
    return Listed("ext", " ".join(ext.WAYS[way][1]), "the kernel", lambda: _plain(ext.image(way)))


def _xfs(name: str) -> Listed:
    return Listed("xfs", " ".join(("mkfs.xfs -q", *xfs.FORMS[name])), "the kernel", lambda: _made_by(xfs.form, name))


def _v4(name: str) -> Listed:
    return Listed("xfs", " ".join(("mkfs.xfs -q", *xfs.V4[name])), UML, lambda: _inside(lambda: xfs.v4(name)))


def _ntfs(name: str, make: Callable[[], Made], *mkfs: str) -> Listed:
    return Listed("ntfs", " ".join(("mkntfs", *mkfs)), "ntfs-3g", lambda: ntfs(make()), NTFS_UNTOLD)


def _fat(make: Callable[[], Made], *mkfs: str) -> Listed:
    return Listed("fat", " ".join(("mkfs.fat", *mkfs)), "mtools", lambda: fat(make()), FAT_UNTOLD)


def _exfat(make: Callable[[], Made], *mkfs: str) -> Listed:
    return Listed("exfat", " ".join(("mkfs.exfat", *mkfs)), "exfat-fuse", lambda: exfat(make()), FAT_UNTOLD)


def _plain(made: Made | xfs.Image) -> Sample:
    return Sample(made.image, made.truth)


def _made_by(make: Callable[[str], Made], name: str) -> Sample:
    need("mkfs.xfs")
    return _plain(make(name))


def _inside(make: Callable[[], xfs.Image]) -> Sample:
    uml.need("mkfs.xfs")
    return _plain(make())


def _busy(make: Callable[[], Made | xfs.Image]) -> Sample:
    need("mkfs.ext4", "mkfs.xfs")
    return _plain(make())


UML = "another kernel (6.1)"
REPLAYED = "the kernel, after its replay"

CATALOGUE: dict[str, Listed] = {
    **{way: _ext(way) for way in ext.WAYS},
    "ext4-busy": Listed("ext", "mkfs.ext4, and written to", REPLAYED, lambda: _busy(ext.busy_one), busy=True),
    "ext4-fast-commits": Listed(
        "ext", "mkfs.ext4 -O fast_commit, and written to", REPLAYED, lambda: _busy(ext.fast_commits), busy=True,
        differs="fast commits are not replayed",
    ),
    **{f"xfs-{name}": _xfs(name) for name in xfs.FORMS},
    "xfs-small": Listed("xfs", "mkfs.xfs -b size=1024 -n size=4096", "the kernel", lambda: _busy(xfs.small)),
    "xfs-busy": Listed("xfs", "mkfs.xfs -l size=8m, and written to", REPLAYED, lambda: _busy(xfs.dirty), busy=True),
    **{f"xfs-{name}": _v4(name) for name in xfs.V4},
    "xfs-v4-busy": Listed(
        "xfs", "mkfs.xfs -m crc=0, and written to", f"{UML}, after its replay", lambda: _inside(lambda: xfs.v4_busy()[5]), busy=True
    ),
    "xfs-v4-busy-log-1": Listed(
        "xfs", "mkfs.xfs -m crc=0 -l version=1, and written to", f"{UML}, after its replay",
        lambda: _inside(lambda: xfs.v4_busy()[6]), busy=True,
    ),
    "ntfs": _ntfs("whole", lambda: windows.ntfs_whole("whole")),
    **{f"ntfs-{n}": _ntfs(n, lambda n=n, w=w: windows.ntfs_whole(n, *w), *w[0]) for n, w in GEOMETRIES.items() if n != "whole"},  # type: ignore[misc]
    "ntfs-plain": _ntfs("plain", windows.ntfs_plain),
    "ntfs-pieces": _ntfs("pieces", windows.ntfs_in_pieces),
    "ntfs-many": _ntfs("many", lambda: windows.ntfs_of_many(10_000)),
    "ntfs-wof": Listed("ntfs", "mkntfs; streams from WIM archives", "what was packed", wof, WOF_UNTOLD),
    "fat12": _fat(lambda: windows.fat("12", 24 * MIB, ("-F", "12", "-s", "16"), 100), "-F", "12", "-s", "16"),
    "fat12-few": _fat(lambda: windows.fat("12-few", 8 * MIB, ("-F", "12", "-s", "8"), 60, 100_000), "-F", "12", "-s", "8"),
    "fat16": _fat(lambda: windows.fat("16", 64 * MIB, ("-F", "16", "-s", "4")), "-F", "16", "-s", "4"),
    "fat32": _fat(lambda: windows.fat("32", 96 * MIB, ("-F", "32", "-s", "2")), "-F", "32", "-s", "2"),
    "fat32-4k": _fat(lambda: windows.fat("32-4k", 320 * MIB, ("-F", "32", "-s", "1", "-S", "4096")), "-F", "32", "-S", "4096"),
    "exfat": _exfat(lambda: windows.exfat("4k", 64 * MIB, ("-c", "4K")), "-c", "4K"),
    "exfat-512": _exfat(lambda: windows.exfat("512", 48 * MIB, ("-c", "512")), "-c", "512"),
    "exfat-128k": _exfat(lambda: windows.exfat("128k", 256 * MIB, ("-c", "128K")), "-c", "128K"),
}  # fmt: skip


def sample(name: str) -> Sample:
    """Made if it was not; skips the test where it cannot be."""
    return CATALOGUE[name].sample()


def telling(volume: Volume, holds: str) -> FileSystem:
    """Our reader, telling of streams as the tellers do."""
    return Streams(volume) if holds == "ntfs" else open_file_system(volume, holds)
