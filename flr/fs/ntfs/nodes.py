# SPDX-License-Identifier: Apache-2.0
"""What a record of the MFT says of its file: times, flags, sizes, names, what kind of thing it is.

A listing asks this 100,000 times, so it is one pass over a record's attributes. NTFS has no POSIX owner and mode: folders are 0755,
files 0644 or, when they are read-only, 0444 (of a folder that bit says something else). Format: libyal's NTFS documentation,
"$STANDARD_INFORMATION", "$FILE_NAME"; flags: [MS-FSCC] 2.6.
"""

from __future__ import annotations

import stat
import struct

import msgspec

from flr.errors import Corrupt
from flr.fs.base import END_OF_TIME, FIRST_TIME, Attributes, Flag
from flr.fs.ntfs import reparse
from flr.fs.ntfs.content import NOWHERE, decode
from flr.fs.ntfs.record import (
    COMPRESSED,
    DATA,
    DIRECTORY,
    ENCRYPTED,
    INDEX,
    NAME,
    NUMBER,
    SPARSE,
    STANDARD,
    Attribute,
    Record,
)

EPOCH = 116444736000000000
"""1970 in units of 100 ns since 1601."""
# created, modified, record changed, accessed; flags
_STANDARD = struct.Struct("<QQQQI")
_NAME_SPACE = struct.Struct("<Q56xBB")
NAME_HEAD = 66
WIN32, DOS = 1, 2
A_READ_ONLY, A_REPARSE, A_COMPRESSED, A_OFFLINE, A_ENCRYPTED, A_RECALL_OPEN, A_RECALL_DATA = (
    0x1, 0x400, 0x800, 0x1000, 0x4000, 0x40000, 0x400000,
)  # fmt: skip
AWAY = A_OFFLINE | A_RECALL_OPEN | A_RECALL_DATA
_SHOWN = ((0x1, Flag.READ_ONLY), (0x2, Flag.HIDDEN), (0x4, Flag.SYSTEM), (0x20, Flag.ARCHIVE), (0x800, Flag.COMPRESSED))
SHOWN = tuple(sum(int(flag) for bit, flag in _SHOWN if value & bit) for value in range(0x1000))
"""By the low twelve bits of NTFS's own flags."""
F_STREAMS, F_COMPRESSED, F_ENCRYPTED, F_SUSPICIOUS, F_OFFLINE, F_REPARSE = (
    int(flag) for flag in (Flag.STREAMS, Flag.COMPRESSED, Flag.ENCRYPTED, Flag.SUSPICIOUS, Flag.OFFLINE, Flag.REPARSE)
)
"""As plain integers: a listing is one third faster."""
WOF_STREAM = "WofCompressedData".encode("utf-16-le")


class Name(msgspec.Struct, frozen=True, array_like=True):
    """One of a file's names, in UTF-16, and the folder that it stands in."""

    parent: int
    parent_sequence: int
    space: int
    name: bytes


def names(record: Record) -> list[Name]:
    """Of a whole record, short names too."""
    found: list[Name] = []
    for attribute in record.attributes:
        value = attribute.value
        if attribute.kind == NAME and attribute.resident and len(value) >= NAME_HEAD:
            parent, characters, space = _NAME_SPACE.unpack_from(value)
            found.append(Name(parent & NUMBER, parent >> 48, space, value[NAME_HEAD : NAME_HEAD + 2 * characters]))
    return found


def time(value: int) -> int | None:
    """Nanoseconds since 1970 of a FILETIME; None when it is unset or beyond what a FILETIME can be."""
    found = (value - EPOCH) * 100
    return found if value and FIRST_TIME <= found < END_OF_TIME else None


def nothing_here(data: Attribute | None, clusters: int) -> bool:
    """Whether a stream is empty or has holes: how a placeholder looks while its content is elsewhere."""
    if data is None or data.size == 0:
        return True
    if data.resident:
        return False
    try:
        return any(span.at == NOWHERE for span in decode(data.value, data.first, clusters, "")) or not data.initialized
    except Corrupt:
        return True


def attributes(record: Record, point: bytes, volume_size: int, clusters: int) -> Attributes:
    """Of a whole record; `point` is its reparse point, empty when it has none."""
    created = modified = changed = accessed = None
    own = links = short = 0
    flags = size = allocated = 0
    data: Attribute | None = None
    folder = bool(record.flags & DIRECTORY)
    for attribute in record.attributes:
        kind = attribute.kind
        if kind == NAME:
            links += 1
            if len(attribute.value) >= NAME_HEAD and attribute.value[65] == DOS:
                short += 1
        elif kind == DATA:
            if attribute.name:
                if attribute.name != WOF_STREAM or reparse.tag(point) != reparse.WOF:
                    flags |= F_STREAMS
            elif data is None or (attribute.first == 0 and not attribute.resident):
                data = attribute
        elif kind == STANDARD and len(attribute.value) >= 36:
            created, modified, changed, accessed, own = _STANDARD.unpack_from(attribute.value)
        elif kind == INDEX and folder and not attribute.first:
            size, allocated = attribute.size, attribute.allocated
    flags |= SHOWN[own & 0xFFF]
    if folder:
        mode = stat.S_IFDIR | 0o755
    else:
        mode = stat.S_IFREG | (0o444 if own & A_READ_ONLY else 0o644)
        if data is not None:
            size, allocated = data.size, 0 if data.resident else data.allocated
            odd = data.flags & (COMPRESSED | SPARSE | ENCRYPTED)
            if odd & COMPRESSED:
                flags |= F_COMPRESSED
            if odd & ENCRYPTED or own & A_ENCRYPTED:
                flags |= F_ENCRYPTED
            if size > volume_size and not odd & (COMPRESSED | SPARSE):
                flags |= F_SUSPICIOUS
        elif own & A_ENCRYPTED:
            flags |= F_ENCRYPTED
    tag = reparse.tag(point)
    if tag:
        if tag in reparse.LINKS:
            mode, size = stat.S_IFLNK | 0o777, 0
            try:
                size = len(reparse.target(point, ""))
            except Corrupt:
                flags |= F_SUSPICIOUS
        elif tag == reparse.WOF:
            flags |= F_COMPRESSED if reparse.compressed_by_wof(point) else F_OFFLINE
        elif not folder:
            flags |= F_REPARSE
            why, always = reparse.elsewhere(tag)
            if why and (always or own & AWAY or nothing_here(data, clusters)):
                flags |= F_OFFLINE
        else:
            flags |= F_REPARSE
    elif own & AWAY and not folder and nothing_here(data, clusters):
        flags |= F_OFFLINE
    return Attributes(
        record.number,
        record.sequence,
        mode,
        max(links - min(short, 1), 1),
        None,
        None,
        size,
        allocated,
        time(modified) if modified else None,
        time(changed) if changed else None,
        time(accessed) if accessed else None,
        time(created) if created else None,
        0,
        flags,
    )
