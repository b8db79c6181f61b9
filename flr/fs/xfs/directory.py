# SPDX-License-Identifier: Apache-2.0
"""Names in a folder and the inodes that they stand for.

From "XFS Algorithms & Data Structures", chapter "Directories". Only a folder's data is read, in its order: a short form within
the inode, or data blocks in the first 32 GiB of its fork; hashes and free lists behind them serve look-ups and are not needed.
A position in that data is the listing's cursor. A folder that is damaged in its middle is told as far as it can be.
"""

from __future__ import annotations

import stat
import struct

import msgspec

from flr.errors import Corrupt, RecoveryError
from flr.fs.xfs.blocks import Blocks
from flr.fs.xfs.checksum import sound
from flr.fs.xfs.extents import mappings
from flr.fs.xfs.inode import Fork

KINDS = (0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFLNK)
_KINDS = bytes(range(8)) + bytes(248)  # a type that is not known is none
_DOTS = (b".", b"..")
_DATA_END = 32 << 30
_ENTRY = struct.Struct(">QB")
_LEAST_GAP = b"\xff\xff\0\x08"  # and its own place behind it, in 8 bytes
_TAIL = struct.Struct(">II")
_OWNER = struct.Struct(">Q")
_WHOLE = (b"XD2B", b"XDB3")  # a folder of one block, with its hashes at the end of it
_PART = (b"XD2D", b"XDD3")
_ABOUT_A_NAME = 64
"""Bytes that an entry takes, for how much of a folder is read at once."""


Name = tuple[int, bytes, int, int]
"""The entry's position in the folder's data, its name, its inode's number, and which of `KINDS` it says that this is."""


class Names(msgspec.Struct):
    """A part of a folder. `following` is the position behind it, None at the end; `problems` say what could not be read."""

    names: list[Name]
    following: int | None
    problems: list[str]


def short_form(data: bytes, file_types: bool, position: int) -> Names:
    """The whole folder from `position` on, from the inode's fork."""
    names: list[Name] = []
    if len(data) < 6:
        raise Corrupt("a folder within its inode contradicts itself", f"{len(data)} bytes")
    count, wide = data[0] or data[1], 8 if data[1] else 4
    at = 2 + wide
    for _ in range(count):
        length = data[at] if at < len(data) else 0
        kind_at = at + 3 + length
        end = kind_at + file_types + wide
        if not length or end > len(data):
            return Names(names, None, [f"its entry at byte {at} is none"])
        if at >= position:
            kind = KINDS[_KINDS[data[kind_at]]] if file_types else 0
            names.append((at, data[at + 3 : kind_at], int.from_bytes(data[end - wide : end], "big"), kind))
        at = end
    return Names(names, None, [])


def data_blocks(blocks: Blocks, number: int, fork: Fork, file_types: bool, position: int, count: int) -> Names:
    """About `count` names from `position` on, at least those of one block. Corrupt when nothing at all can be read."""
    size = blocks.superblock.directory_block_size
    found = Names([], None, [])
    first = position // size
    parts = _pieces(blocks, number, fork, first, max(size, count * _ABOUT_A_NAME), found)
    blocks.volume.prefetch([(offset, length) for _, offset, length in parts])
    whole: dict[int, list[tuple[int, bytes]]] = {}
    for at, offset, length in parts:
        data = blocks.volume.pread(offset, length)
        done = 0
        while done < length:
            block, within = divmod(at + done, size)
            end = min(done + size - within, length)
            whole.setdefault(block, []).append((offset + done, data[done:end]))
            done = end
    for block, pieces in whole.items():
        if found.following is not None and block * size >= found.following:
            break
        data = pieces[0][1] if len(pieces) == 1 else b"".join(piece for _, piece in pieces)
        if len(data) != size:
            found.problems.append(f"parts of its block {block} are missing")
            continue
        if blocks.v5:
            if not sound(data, 4) and not any(blocks.replaced(at, len(piece)) for at, piece in pieces):
                found.problems.append(f"the checksum of its block {block} is wrong")
            if _OWNER.unpack_from(data, 40)[0] != number:
                found.problems.append(f"its block {block} is another folder's")
                continue
        problem = _names(data, blocks.v5, file_types, block * size, position, found.names)
        if problem:
            found.problems.append(f"its block {block} {problem}")
    return found


def _pieces(blocks: Blocks, number: int, fork: Fork, first: int, most: int, found: Names) -> list[tuple[int, int, int]]:
    """Where about `most` bytes of the folder's data stand: position in the folder, offset on the volume, length.

    A sound folder was never longer than its file system, so nothing behind that is looked at: it bounds what is listed.
    """
    sb = blocks.superblock
    log, step = sb.block_log, sb.directory_log
    end = min(_DATA_END >> log, -(-sb.blocks >> step) << step)
    left = -(-most // sb.directory_block_size) << step
    pieces: list[tuple[int, int, int]] = []
    at = first << step
    try:
        for mapping in mappings(blocks, number, fork, at):
            if mapping.start >= end:
                break
            start = max(mapping.start, at)
            whole = min(mapping.end, end) - start
            taken = min(whole, left)
            if mapping.unwritten:
                found.problems.append(f"its block {start >> step} was never written")
            else:
                offset = blocks.offset(mapping.block + start - mapping.start, taken)
                pieces.append((start << log, offset, taken << log))
            left -= taken
            if not left:
                found.following = (start + taken >> step) << step << log
                break
    except RecoveryError as error:
        if not first and not pieces:
            raise
        found.problems.append(f"it cannot be read further: {error.what}, {error.value}")
    return pieces


def _names(data: bytes, v5: bool, file_types: bool, base: int, position: int, names: list[Name]) -> str:
    """Adds a block's names from `position` on; answers what is wrong with it."""
    magic = data[:4]
    at, end = 64 if v5 else 16, len(data)
    if magic == _WHOLE[v5]:
        end -= 8 + 8 * _TAIL.unpack_from(data, end - 8)[0]
    elif magic != _PART[v5]:
        return "is no block of a folder"
    extra = 18 + file_types
    while at + 16 <= end:
        number, length = _ENTRY.unpack_from(data, at)
        if number >> 48 == 0xFFFF:  # free, for so many bytes
            taken = number >> 32 & 0xFFFF
            if taken & 7 or not taken:
                return f"has a gap of {taken} bytes"
            at += taken
            continue
        stop = at + 9 + length
        after = at + (length + extra & ~7)
        if not length or after > end:
            return f"has a name of {length} bytes at its end" if length else "has a name without bytes"
        name = data[at + 9 : stop]
        if base + at >= position and (length > 2 or name not in _DOTS):
            names.append((base + at, name, number, KINDS[_KINDS[data[stop]]] if file_types else 0))
        at = after
    if at + 8 == end and data[at : at + 4] == _LEAST_GAP:
        return ""
    return "" if at == end else f"ends at byte {at} of {end}"
