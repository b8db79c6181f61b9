# SPDX-License-Identifier: Apache-2.0
"""Extended attributes, and POSIX ACLs in the form that the kernel answers with.

From "XFS Algorithms & Data Structures", chapter "Extended Attributes". All of a file's attributes are read, so hashes are not
looked at; a tree is descended on its left side, and its leaves are followed from one to the next. Attributes that were being
changed when the machine stopped (incomplete) and parent pointers are not the guest's own and are not shown.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from flr.errors import Corrupt, TooMuch
from flr.fs.base import MOST_XATTRS
from flr.fs.xfs.blocks import Blocks
from flr.fs.xfs.extents import mappings
from flr.fs.xfs.inode import EXTENTS, LOCAL, Fork

LONGEST_VALUE = 1 << 16

_IS_LOCAL, _ROOT, _SECURE, _PARENT, _INCOMPLETE = 0x01, 0x02, 0x04, 0x08, 0x80
_LEAF, _NODE = 0xFBEE, 0xFEBE
_LEAF_V5, _NODE_V5 = 0x3BEE, 0x3EBE
_LINKS = struct.Struct(">IIH")
_ENTRY = struct.Struct(">4xHBx")
_REMOTE = struct.Struct(">4sIIi16xQ")
_REMOTE_HEADER = 56
_MOST_BLOCKS = 1 << 16
"""Of one file's tree and leaves, without remote values: 256 MiB of the usual size."""
_ACLS = {b"trusted.SGI_ACL_FILE": b"system.posix_acl_access", b"trusted.SGI_ACL_DEFAULT": b"system.posix_acl_default"}
_ACL_ENTRY = struct.Struct(">IIH2x")
_ACL_NAMED = (2, 8)  # a user, a group; the others have no id


def extended(blocks: Blocks, number: int, fork: Fork | None) -> dict[bytes, bytes]:
    """By full name. Corrupt where they cannot be read, TooMuch beyond MOST_XATTRS."""
    made: dict[bytes, bytes] = {}
    if fork is None or (fork.format == EXTENTS and not fork.extents):
        return made
    total = 0
    for flags, name, value in _short_form(fork.data) if fork.format == LOCAL else _leaves(blocks, number, fork):
        if flags & (_INCOMPLETE | _PARENT):
            continue
        space = b"trusted." if flags & _ROOT else b"security." if flags & _SECURE else b"user."
        made[space + name] = value
        total += len(name) + len(value)
        if total > MOST_XATTRS:
            raise TooMuch("a file has more extended attributes than are shown", f"inode {number}")
    for raw, shown in _ACLS.items():
        if raw in made:
            acl = _acl(made[raw])
            if acl is None:
                blocks.warn(f"an access control list of inode {number} is not in its form and is shown raw only")
            else:
                made[shown] = acl
    return made


def _acl(raw: bytes) -> bytes | None:
    """From XFS's form into that of `system.posix_acl_*`: version 2, then tag, permissions, id of each entry."""
    if len(raw) < 4 or len(raw) != 4 + 12 * int.from_bytes(raw[:4], "big"):
        return None
    return struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", tag & 0xFFFF, permissions, who if tag in _ACL_NAMED else 0xFFFFFFFF)
        for tag, who, permissions in _ACL_ENTRY.iter_unpack(raw[4:])
    )


def _short_form(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    if len(data) < 4:
        raise Corrupt("extended attributes contradict themselves", f"{len(data)} bytes within an inode")
    at = 4
    for _ in range(data[2]):
        name_length, value_length, flags = data[at : at + 3] if at + 3 <= len(data) else (0, 0, 0)
        middle = at + 3 + name_length
        end = middle + value_length
        if end > len(data):
            raise Corrupt("extended attributes contradict themselves", f"an entry ends at byte {end} of {len(data)}")
        yield flags, data[at + 3 : middle], data[middle:end]
        at = end


def _block(blocks: Blocks, number: int, fork: Fork, logical: int, count: int = 1) -> tuple[bytes, int]:
    """At least one and at most `count` blocks of the fork from there on, and where they stand."""
    mapping = next(mappings(blocks, number, fork, logical), None)
    if mapping is None or mapping.start > logical or mapping.unwritten:
        raise Corrupt("extended attributes contradict themselves", f"inode {number}: no block {logical}")
    block = mapping.block + logical - mapping.start
    count = min(count, mapping.end - logical)
    return blocks.read(block, count), blocks.offset(block, count)


def _leaves(blocks: Blocks, number: int, fork: Fork) -> Iterator[tuple[int, bytes, bytes]]:
    logical = 0
    visited: set[int] = set()
    while True:
        if logical in visited or len(visited) == _MOST_BLOCKS:
            raise Corrupt("extended attributes contradict themselves", f"inode {number}: blocks without an end")
        visited.add(logical)
        data, offset = _block(blocks, number, fork, logical)
        following, _, magic = _LINKS.unpack_from(data)
        if blocks.v5:
            blocks.verify(data, 12, offset, f"the extended attributes of inode {number}")
            if int.from_bytes(data[48:56], "big") != number:
                raise Corrupt("extended attributes are another file's", f"inode {number}, block {logical} of them")
        if magic == (_NODE_V5 if blocks.v5 else _NODE):
            logical = int.from_bytes(data[68:72] if blocks.v5 else data[20:24], "big")  # the first child
        elif magic == (_LEAF_V5 if blocks.v5 else _LEAF):
            yield from _leaf(blocks, number, fork, data)
            if not following:
                return
            logical = following
        else:
            raise Corrupt("extended attributes contradict themselves", f"inode {number}, block {logical} of them")


def _leaf(blocks: Blocks, number: int, fork: Fork, data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    at, first = (56, 80) if blocks.v5 else (12, 32)
    count = int.from_bytes(data[at : at + 2], "big")
    if first + count * 8 > len(data):
        raise Corrupt("extended attributes contradict themselves", f"inode {number}: {count} entries in a block")
    for place, flags in _ENTRY.iter_unpack(data[first : first + count * 8]):
        if flags & _INCOMPLETE:
            continue
        if flags & _IS_LOCAL:
            value_length, name_length = int.from_bytes(data[place : place + 2], "big"), data[place + 2 : place + 3]
            start = place + 3
        else:
            value_length, name_length = int.from_bytes(data[place + 4 : place + 8], "big"), data[place + 8 : place + 9]
            start = place + 9
        middle = start + (name_length[0] if name_length else 0)
        if not name_length or middle + (value_length if flags & _IS_LOCAL else 0) > len(data):
            raise Corrupt("extended attributes contradict themselves", f"inode {number}: an entry at byte {place}")
        if flags & _IS_LOCAL:
            yield flags, data[start:middle], data[middle : middle + value_length]
        elif value_length > LONGEST_VALUE:
            raise Corrupt(
                "extended attributes contradict themselves", f"inode {number}: a value of {value_length} bytes"
            )
        else:
            value_block = int.from_bytes(data[place : place + 4], "big")
            yield flags, data[start:middle], _remote(blocks, number, fork, value_block, value_length)


def _remote(blocks: Blocks, number: int, fork: Fork, logical: int, length: int) -> bytes:
    """A value in blocks of its own; in version 5 each of them has a header with its part's place and owner."""
    size = blocks.superblock.block_size
    parts: list[bytes] = []
    found = 0
    while found < length:
        room = size - _REMOTE_HEADER if blocks.v5 else size
        data, offset = _block(blocks, number, fork, logical, -(-(length - found) // room))
        for at in range(0, len(data), size):
            part = data[at : at + size]
            taken = min(room, length - found)
            if blocks.v5:
                magic, begins, has, _, owner = _REMOTE.unpack_from(part)
                if (magic, begins, has, owner) != (b"XARM", found, taken, number):
                    raise Corrupt(
                        "extended attributes contradict themselves", f"inode {number}: a value's block {logical}"
                    )
                blocks.verify(part, 12, offset + at, f"an extended attribute of inode {number}")
                parts.append(part[_REMOTE_HEADER : _REMOTE_HEADER + taken])
            else:
                parts.append(part[:taken])
            found += taken
            logical += 1
    return b"".join(parts)
