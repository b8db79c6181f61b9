# SPDX-License-Identifier: Apache-2.0
"""Where the named fields of an ext file system are, for whoever changes them: (byte of the volume, bytes) of each."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from flr.errors import RecoveryError
from flr.fs.ext.inode import HAS_EXTENTS, INLINE
from flr.fs.ext.mapping import Span
from flr.fs.ext.reader import Ext
from flr.fs.ext.superblock import AT
from tests.flr.fs.conformance import everything

SUPERBLOCK = (
    (0, 4), (4, 4), (20, 4), (24, 4), (32, 4), (40, 4), (56, 2), (58, 2), (72, 4), (76, 4), (84, 4), (88, 2), (92, 4), (96, 4),
    (100, 4), (104, 16), (224, 4), (228, 4), (254, 2), (260, 4), (0x150, 4), (0x24C, 4), (0x270, 4), (0x3FC, 4),
)  # fmt: skip
INODE = (
    (0, 2), (2, 2), (4, 4), (8, 4), (16, 4), (24, 2), (26, 2), (28, 4), (32, 4), (40, 4), (44, 4), (52, 4), (56, 4), (60, 4),
    (100, 4), (104, 4), (108, 4), (116, 2), (118, 2), (124, 2), (128, 2), (130, 2), (132, 4), (136, 4), (144, 4), (148, 4),
)  # fmt: skip
TREE = ((0, 2), (2, 2), (4, 2), (6, 2), (8, 4))
JOURNAL = (
    (0, 4),
    (4, 4),
    (8, 4),
    (12, 4),
    (16, 4),
    (20, 4),
    (24, 4),
    (28, 4),
    (0x24, 4),
    (0x28, 4),
    (0x50, 1),
    (0x54, 4),
    (0xFC, 4),
)


def fields(fs: Ext) -> Iterator[tuple[int, int]]:
    """Of what a walk through a sound file system reads."""
    s = fs.super
    yield from ((AT + at, size) for at, size in SUPERBLOCK)
    table = (s.first_block + 1) * s.block_size
    for group in range(min(s.groups, 8)):
        yield from ((table + group * s.descriptor_size + at, size) for at, size in ((8, 4), (30, 2)))
    for one in everything(fs):
        place = fs._place(one.number)
        yield from ((place + at, size) for at, size in INODE if at + size <= s.inode_size)
        inode = fs.inode(one.number)
        if inode.flags & HAS_EXTENTS and not inode.flags & INLINE:
            yield from _tree(fs, inode.block, place + 40)
        elif not inode.flags & INLINE:
            yield from ((place + 40 + 4 * k, 4) for k in range(15))
        at = 128 + inode.extra
        if inode.extra and at + 4 < s.inode_size:
            yield from _attributes(inode.raw, at + 4, place)
        if inode.acl:
            base = inode.acl * s.block_size
            yield from ((base + at, 4) for at in (0, 4, 8, 16))
            yield from _attributes(fs.volume.pread(base, s.block_size), 32, base)
        if one.is_directory and not inode.flags & INLINE:
            for span in fs._mapping.spans(inode, 0, one.size // s.block_size):
                if isinstance(span, Span):
                    yield from _folder(fs, span)
    if s.journal_inode:
        inode = fs.inode(s.journal_inode)
        for span in fs._mapping.spans(inode, 0, 64):
            if isinstance(span, Span):
                for block in range(span.physical, span.physical + min(span.blocks, 64)):
                    yield from ((block * s.block_size + at, size) for at, size in JOURNAL)


def _tree(fs: Ext, node: bytes, place: int) -> Iterator[tuple[int, int]]:
    todo = [(node, place)]
    for _ in range(100):
        if not todo:
            return
        node, place = todo.pop()
        yield from ((place + at, size) for at, size in TREE)
        _, count, _, height = struct.unpack_from("<HHHH", node)
        for k in range(min(count, 4)):
            at = 12 + 12 * k
            yield from ((place + at + offset, size) for offset, size in ((0, 4), (4, 2), (6, 2), (8, 4)))
            if height:
                block = struct.unpack_from("<I", node, at + 4)[0]
                todo.append(
                    (fs.volume.pread(block * fs.super.block_size, fs.super.block_size), block * fs.super.block_size)
                )


def _attributes(raw: bytes, at: int, base: int) -> Iterator[tuple[int, int]]:
    while at + 16 <= len(raw) and raw[at : at + 4] != bytes(4):
        yield from ((base + at + offset, size) for offset, size in ((0, 1), (1, 1), (2, 2), (4, 4), (8, 4), (12, 4)))
        at += 16 + (raw[at] + 3 & ~3)


def _folder(fs: Ext, span: Span) -> Iterator[tuple[int, int]]:
    size = fs.super.block_size
    for block in range(span.physical, span.physical + min(span.blocks, 4)):
        try:
            raw = fs.volume.pread(block * size, size)
        except RecoveryError:
            return
        at = 0
        while at + 8 <= size:
            yield from (
                (block * size + at + offset, width) for offset, width in ((0, 4), (4, 2), (6, 1), (7, 1), (8, 1))
            )
            at += max(8, struct.unpack_from("<H", raw, at + 4)[0])
