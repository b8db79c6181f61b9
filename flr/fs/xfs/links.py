# SPDX-License-Identifier: Apache-2.0
"""Where symbolic links lead to: within the inode, or in blocks of their own.

From "XFS Algorithms & Data Structures", chapter "Symbolic Links". In version 5 what stands in blocks begins with a header,
one for each run of blocks, whose part may be longer than a block (seen on images with blocks of 1 KiB).
"""

from __future__ import annotations

import struct

from flr.errors import Corrupt
from flr.fs.xfs.blocks import Blocks
from flr.fs.xfs.extents import mappings
from flr.fs.xfs.inode import LOCAL, Inode

LONGEST = 1024
_HEADER = struct.Struct(">4sIIi16xQ16x")


def target(blocks: Blocks, inode: Inode) -> bytes:
    """Corrupt where it cannot be read whole."""
    number, size = inode.attributes.number, inode.attributes.size
    if not 0 < size <= LONGEST or (inode.data.format == LOCAL and size > len(inode.data.data)):
        raise Corrupt("a link contradicts itself", f"inode {number}: {size} bytes")
    if inode.data.format == LOCAL:
        return inode.data.data[:size]
    made = b""
    expected = 0
    for mapping in mappings(blocks, number, inode.data):
        if mapping.start != expected or mapping.unwritten:
            break
        expected = mapping.end
        count = min(mapping.count, -(-(size + _HEADER.size) // blocks.superblock.block_size))
        data = blocks.read(mapping.block, count)
        if blocks.v5:
            magic, begins, length, _, owner = _HEADER.unpack_from(data)
            if magic != b"XSLM" or begins != len(made) or owner != number or length > len(data) - _HEADER.size:
                raise Corrupt("a link contradicts itself", f"inode {number}, from byte {len(made)} on")
            blocks.verify(data, 12, blocks.offset(mapping.block, count), f"the link of inode {number}")
            made += data[_HEADER.size : _HEADER.size + length]
        else:
            made += data
        if len(made) >= size:
            return made[:size]
    raise Corrupt("a link contradicts itself", f"inode {number}: {len(made)} of {size} bytes")
