# SPDX-License-Identifier: Apache-2.0
"""Reparse points: which are links, which say that the content is elsewhere, and what a link leads to.

Format: [MS-FSCC] 2.1.2, "Reparse Point Data Structures", and its table of tags.
"""

from __future__ import annotations

import struct

from flr.errors import Corrupt
from flr.fs.base import LONGEST_LINK

MOUNT_POINT, SYMLINK = 0xA0000003, 0xA000000C
LINKS = (MOUNT_POINT, SYMLINK)
WOF = 0x80000017
DEDUP = 0x80000013
ELSEWHERE = {
    0xC0000004: "moved to slower storage",
    0x80000006: "moved to slower storage",
    0x80000007: "kept once for several files (single instance storage)",
    DEDUP: "deduplicated by Windows Server",
    0x9000001C: "projected by a program",
}
SOMETIMES_ELSEWHERE = {0x8000001E: "tiered by Azure File Sync"}
_CLOUD, _CLOUD_MASK = 0x9000001A, 0xFFFF0FFF
_HEAD = struct.Struct("<IHH")
_NAMES = struct.Struct("<HHHH")
_WOF = struct.Struct("<IIII")
MOST = 16 << 10
"""Bytes of a reparse point ([MS-FSCC]: MAXIMUM_REPARSE_DATA_BUFFER_SIZE)."""


def text(units: bytes) -> bytes:
    """UTF-16 as UTF-8; an unpaired surrogate keeps its place in three bytes, half a unit at the end is dropped."""
    return units[: len(units) & ~1].decode("utf-16-le", "surrogatepass").encode("utf-8", "surrogatepass")


def tag(data: bytes) -> int:
    """0 when there is none."""
    return int.from_bytes(data[:4], "little") if len(data) >= 8 else 0


def target(data: bytes, what: str) -> bytes:
    r"""Where a symbolic link or a junction leads to: the substitute name, which is what Windows follows, as it is stored
    (`\??\C:\Users`, or relative with backslashes); the print name when there is no other. Corrupt."""
    head = 20 if tag(data) == SYMLINK else 16
    if len(data) < head:
        raise Corrupt("a link's reparse point is cut", what)
    places = _NAMES.unpack_from(data, 8)
    for at, length in (places[:2], places[2:]):
        if length & 1 or head + at + length > len(data):
            raise Corrupt("a link's target lies outside of its reparse point", f"{what}: {length} bytes at {at}")
        if length:
            return text(data[head + at : head + at + length])[:LONGEST_LINK]
    raise Corrupt("a link has no target", what)


def elsewhere(found: int) -> tuple[str, bool]:
    """Why a file of this tag has no content here, and whether that is always so; ("", False) when it has."""
    if found in ELSEWHERE:
        return ELSEWHERE[found], True
    if found & _CLOUD_MASK == _CLOUD:
        return "a placeholder of a file in the cloud", False
    return SOMETIMES_ELSEWHERE.get(found, ""), False


def compressed_by_wof(data: bytes) -> bool:
    """Compressed by the system (CompactOS, `compact /exe`) in a stream beside. Another provider's content is in a WIM file."""
    return len(data) >= 24 and _WOF.unpack_from(data, 8)[:3] == (1, 2, 1)
