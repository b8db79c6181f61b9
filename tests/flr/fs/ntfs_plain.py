# SPDX-License-Identifier: Apache-2.0
"""The plain NTFS image, opened to be changed, and where its structures stand in it."""

from __future__ import annotations

import struct

from flr.fs.base import Attributes, Entry, Node
from flr.fs.ntfs.reader import Ntfs
from tests.flr.corpus import windows
from tests.flr.corpus.image import Changed, Image

CLUSTER = 4096


def plain() -> Changed:
    return Changed(Image(windows.ntfs_plain().image))


def listed(fs: Ntfs, node: Node) -> dict[bytes, Entry]:
    cursor: int | None = 0
    found = {}
    while cursor is not None:
        listing = fs.entries(node, cursor)
        found.update({entry.name: entry for entry in listing.entries})
        cursor = listing.cursor
    return found


def find(fs: Ntfs, path: str) -> Attributes:
    a = fs.attributes(fs.root())
    for name in path.encode().split(b"/"):
        found = listed(fs, a.node)[name].attributes
        assert found is not None
        a = found
    return a


def place(fs: Ntfs, number: int) -> int:
    """The byte of the volume where a record begins."""
    return fs.mft._places([number])[0][0]


def attribute(fs: Ntfs, number: int, kind: int) -> int:
    """The byte of the volume where a record's first attribute of a kind begins."""
    begins = place(fs, number)
    raw = fs.volume.pread(begins, fs.geometry.record)
    at = int.from_bytes(raw[20:22], "little")
    while struct.unpack_from("<I", raw, at)[0] != kind:
        at += int.from_bytes(raw[at + 4 : at + 8], "little")
    return begins + at
