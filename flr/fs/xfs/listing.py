# SPDX-License-Identifier: Apache-2.0
"""Attributes of many inodes at once, in few reads: inodes are sorted and read in runs, all announced to the volume before.

A folder's inodes mostly stand beside each other, so reading a little between two of them is cheaper than a read for each.
"""

from __future__ import annotations

from collections.abc import Iterable

import google_crc32c

from flr.errors import RecoveryError
from flr.fs.base import Attributes
from flr.fs.xfs import inode
from flr.fs.xfs.blocks import Blocks

_GAP = 32 << 10
"""Bytes between two inodes that are rather read than jumped over; mkfs makes inodes in chunks of 64, of 512 bytes."""
_LONGEST = 1 << 20
"""Bytes of one read."""


def attributes_of(blocks: Blocks, numbers: Iterable[int]) -> dict[int, Attributes | str]:
    """By number; a sentence that says why instead of the attributes of an inode that cannot be read."""
    sb = blocks.superblock
    told: dict[int, Attributes | str] = {}
    places: list[tuple[int, int]] = []
    place_of = sb.inode_offset
    for number in set(numbers):
        offset = place_of(number)
        if offset is None:
            told[number] = f"there is no inode {number}"
        else:
            places.append((offset, number))
    places.sort()
    runs: list[list[tuple[int, int]]] = []
    last = -_GAP
    for place in places:
        offset = place[0]
        if offset - last < _GAP and offset - runs[-1][0][0] < _LONGEST:
            runs[-1].append(place)
        else:
            runs.append([place])
        last = offset
    size = sb.inode_size
    blocks.volume.prefetch([(run[0][0], run[-1][0] + size - run[0][0]) for run in runs])
    for run in runs:
        start = run[0][0]
        try:
            data = blocks.volume.pread(start, run[-1][0] + size - start)
        except RecoveryError as error:
            told.update((number, f"{error.what}: {error.value}") for _, number in run)
        else:
            _decode(blocks, data, start, run, told)
    return told


def _decode(
    blocks: Blocks, data: bytes, start: int, run: list[tuple[int, int]], told: dict[int, Attributes | str]
) -> None:
    sb = blocks.superblock
    size = sb.inode_size
    if blocks.v5:
        cleared = bytearray(data)  # the checksums' places of all of them, at once
        for byte in range(inode.CHECKSUM, inode.CHECKSUM + 4):
            cleared[byte::size] = bytes(len(data) // size)
        zeroed = bytes(cleared)
    crc32c = google_crc32c.value
    attributes = inode.attributes
    for offset, number in run:
        at = offset - start
        try:
            told[number] = attributes(sb, number, data, at)
        except RecoveryError as error:
            told[number] = f"{error.what}: {error.value}"
            continue
        if blocks.v5 and crc32c(zeroed[at : at + size]) != int.from_bytes(data[at + 100 : at + 104], "little"):
            blocks.verify(data[at : at + size], inode.CHECKSUM, offset, f"inode {number}")
