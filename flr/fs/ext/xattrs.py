# SPDX-License-Identifier: Apache-2.0
"""Extended attributes: in the inode, in a block of their own, or with a value in an inode of its own; POSIX ACLs among them.

Format: Documentation/filesystems/ext4/attributes.rst.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from flr.errors import Corrupt, TooMuch
from flr.fs.base import MOST_XATTRS

MAGIC = 0xEA020000
_ENTRY = struct.Struct("<BBHIII")
PREFIXES = {
    1: b"user.", 2: b"system.posix_acl_access", 3: b"system.posix_acl_default", 4: b"trusted.", 6: b"security.",
    8: b"system.richacl", 10: b"gnu.",
}  # fmt: skip
SYSTEM = 7
INLINE_NAME = b"data"
ACLS = (2, 3)
LONGEST_VALUE = 65536
"""What the kernel lets anybody set."""

Found = dict[tuple[int, bytes], bytes]


def parse(raw: bytes, at: int, base: int, value_of: Callable[[int, int], bytes], number: int, found: Found) -> None:
    """Puts the entries of `raw[at:]` into `found`, by index and name; offsets of values count from `base`. `value_of(inode, size)`
    reads a value that stands in an inode of its own. Corrupt."""
    while at + 4 <= len(raw) and raw[at : at + 4] != b"\0\0\0\0":
        if at + 16 > len(raw):
            raise Corrupt("an extended attribute is cut", f"inode {number}")
        name_length, index, offset, inode, size, _ = _ENTRY.unpack_from(raw, at)
        name = raw[at + 16 : at + 16 + name_length]
        if len(name) < name_length or size > LONGEST_VALUE:
            raise Corrupt("an extended attribute has an impossible length", f"inode {number}: {size} bytes")
        if inode:
            value = value_of(inode, size)
        else:
            value = raw[base + offset : base + offset + size]
            if len(value) < size:
                raise Corrupt("an extended attribute's value stands outside of its block", f"inode {number}")
        found[index, name] = value
        if sum(map(len, found.values())) > MOST_XATTRS:
            raise TooMuch("a file has more extended attributes than are read", f"inode {number}")
        at += 16 + (name_length + 3 & ~3)


def shown(found: Found, number: int) -> dict[bytes, bytes]:
    """By the names that the kernel gives them. What it keeps for itself (inline data, encryption) is not shown."""
    result: dict[bytes, bytes] = {}
    for (index, name), value in found.items():
        prefix = PREFIXES.get(index)
        if prefix is None:
            continue
        if index in ACLS:
            result[prefix] = _acl(value, number)
        else:
            result[prefix + name] = value
    return result


def _acl(raw: bytes, number: int) -> bytes:
    """From ext's form, in which only named users and groups have an id, to the one of getxattr(2)."""
    if len(raw) < 4 or raw[:4] != b"\1\0\0\0":
        raise Corrupt("an access control list has an unknown form", f"inode {number}")
    made = [b"\2\0\0\0"]
    at = 4
    while at < len(raw):
        if at + 4 > len(raw):
            raise Corrupt("an access control list is cut", f"inode {number}")
        tag = raw[at] | raw[at + 1] << 8
        if tag in (2, 8):
            entry = raw[at : at + 8]
            if len(entry) < 8:
                raise Corrupt("an access control list is cut", f"inode {number}")
            made.append(entry)
            at += 8
        else:
            made.append(raw[at : at + 4] + b"\xff\xff\xff\xff")
            at += 4
    return b"".join(made)
