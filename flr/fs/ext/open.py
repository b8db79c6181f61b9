# SPDX-License-Identifier: Apache-2.0
"""Opening an ext file system as its guest would see it after its next start: with the journal over it.

When the journal cannot be trusted, the file system is opened without it and says so: some of the last changes are then missing,
or half there.
"""

from __future__ import annotations

from flr.blocks import Segment, Volume
from flr.errors import Corrupt, RecoveryError
from flr.fs.base import Node
from flr.fs.ext.journal import Journal
from flr.fs.ext.reader import Ext
from flr.fs.ext.superblock import COMPAT_JOURNAL, RECOVER
from flr.fs.overlay import Overlay

LARGEST_JOURNAL = 16 << 30
"""Bytes; 16 times what mkfs makes for a large disk."""
UNMOUNTED = 1
"""The bit of a superblock's state that is not there while it is in use."""


def open_ext(volume: Volume, *, replay: bool = True) -> Ext:
    """NotRecognised, Corrupt, Unsupported, OutOfBounds."""
    plain = Ext(volume)
    s = plain.super
    if not s.compat & COMPAT_JOURNAL:
        if not s.state & UNMOUNTED:
            plain.warn(
                "it was in use at the time of the snapshot and has no journal: its last changes may be half there"
            )
        return plain
    if not s.incompat & RECOVER and not s.is_copy:
        plain.about.journal = "clean"
        return plain
    if not replay:
        plain.about.journal = "not replayed, as was asked for"
        return plain
    overlay = Overlay(volume, s.block_size)
    said: list[str] = []
    try:
        if not s.journal_inode:
            raise Corrupt("the journal is on another device", f"{s.journal_device:#x}")
        journal = Journal(volume, _content(plain), s.block_size, said.append)
        if s.is_copy and not journal.log.start:
            plain.about.journal = "clean"
            return plain
        count = journal.replay(overlay)
        replayed = Ext(overlay)
    except RecoveryError as error:
        plain.about.journal = f"not replayed: {error.what}" + (f": {error.value}" if error.value else "")
        plain.warn(
            "the journal cannot be trusted and is left out: changes of the guest's last seconds may be missing or half there "
            f"({error.what})"
        )
        return plain
    for text in said:
        replayed.warn(text)
    replayed.about.journal = f"replayed: {count} transactions" if count != 1 else "replayed: 1 transaction"
    return replayed


def _content(fs: Ext) -> list[Segment]:
    inode = fs.inode(fs.super.journal_inode)
    node = Node(inode.number, inode.generation)
    size = fs.attributes(node).size
    if size > min(fs.about.size, LARGEST_JOURNAL):
        raise Corrupt("the journal has an impossible size", f"{size} bytes")
    runs: list[Segment] = []
    at = 0
    while at < size:
        for run in fs.runs(node, at, size - at):
            runs.append(run)
            at += run.length
    return runs
