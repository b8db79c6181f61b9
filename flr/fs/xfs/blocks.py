# SPDX-License-Identifier: Apache-2.0
"""Blocks of an XFS by their number: checked to be inside of the file system, and their checksums looked at.

A wrong checksum is a warning and no refusal: what the block says is still tried, because a person who looks for a file is
better served with it and a warning than without it. A block that the log's replay touched is not checked: its checksum is
computed by whoever writes it back, and nobody does here. The log's records have checksums of their own.
"""

from __future__ import annotations

from collections.abc import Callable

from flr.blocks import Volume
from flr.errors import Corrupt
from flr.fs.overlay import Overlay
from flr.fs.xfs.checksum import sound
from flr.fs.xfs.superblock import Superblock


class Blocks:
    """`warn` takes a sentence for people."""

    def __init__(self, volume: Volume, superblock: Superblock, warn: Callable[[str], None]) -> None:
        self.volume = volume
        self.superblock = superblock
        self.v5 = superblock.version == 5
        self.warn = warn

    def offset(self, block: int, count: int) -> int:
        """Where these blocks begin on the volume. Corrupt unless all of them are in one allocation group."""
        if not self.superblock.holds(block, count):
            raise Corrupt("something points outside of its file system", f"{count} blocks at {block:#x}")
        return self.superblock.offset(block)

    def read(self, block: int, count: int = 1) -> bytes:
        return self.volume.pread(self.offset(block, count), count << self.superblock.block_log)

    def replaced(self, offset: int, length: int) -> bool:
        """Whether the log's replay changed something there."""
        return isinstance(self.volume, Overlay) and self.volume.replaced(offset, length)

    def verify(self, data: bytes, at: int, offset: int, what: str) -> None:
        """A warning unless `data`, read from `offset`, has its right checksum at `at`. Version 4 has no checksums."""
        if self.v5 and not sound(data, at) and not self.replaced(offset, len(data)):
            self.warn(f"the checksum of {what} is wrong (at byte {offset} of the volume)")
