# SPDX-License-Identifier: Apache-2.0
"""The fixed VHD: a disk's bytes followed by a 512-byte footer (Microsoft's Virtual Hard Disk Image Format Specification 1.0).

Only the footer is here. Dynamic and differencing disks are recognised by their footer and refused by name.
"""

from __future__ import annotations

import struct
import uuid
from typing import NamedTuple

from mover.errors import SourceError

FOOTER_SIZE = 512
_FOOTER = struct.Struct(">8sIIQI4sI4sQQIII16sB427x")
COOKIE = b"conectix"
FIXED = 2
CREATOR = b"win "
"""Who made the file: Windows. By this field readers (qemu's) choose whether the size or the geometry, which rounds it down to
whole cylinders, tells where the disk ends; of a name that they do not know they take the geometry, and cut the disk."""
_TYPES = {3: "dynamic", 4: "differencing"}
_EPOCH = 946_684_800
"""2000-01-01 00:00:00 UTC in Unix seconds: where a VHD's time begins."""


class Footer(NamedTuple):
    """What a fixed VHD's footer tells: the disk's size in bytes and its id."""

    size: int
    unique_id: uuid.UUID


def _checksum(footer: bytes) -> int:
    return ~(sum(footer) - sum(footer[64:68])) & 0xFFFFFFFF


def is_footer(footer: bytes) -> bool:
    """Whether these bytes are a VHD's footer; a raw disk may end in anything, and what is no valid footer is data."""
    if len(footer) != FOOTER_SIZE or not footer.startswith(COOKIE):
        return False
    return bool(_FOOTER.unpack(footer)[12] == _checksum(footer))


def read_footer(footer: bytes, file_size: int, path: str) -> Footer | None:
    """The footer if these last 512 bytes of a file are one; None for a raw disk; SourceError for one that we cannot read."""
    if not is_footer(footer):
        return None
    fields = _FOOTER.unpack(footer)
    size, kind, unique = fields[9], fields[11], fields[13]
    if kind != FIXED:
        hint = "convert it first: qemu-img convert -O vpc -o subformat=fixed,force_size IN OUT"
        raise SourceError(f"a {_TYPES.get(kind, f'type {kind}')} VHD cannot be read", path, hint)
    if size != file_size - FOOTER_SIZE:
        what = f"{path}: footer says {size}, the file holds {file_size - FOOTER_SIZE}"
        raise SourceError(
            "a fixed VHD's footer does not fit its file", what, "the file is cut or was grown: make it anew"
        )
    return Footer(size, uuid.UUID(bytes=unique))


def geometry(size: int) -> tuple[int, int, int]:
    """(cylinders, heads, sectors a track) of a disk of `size` bytes, by the specification's appendix."""
    sectors = min(size // 512, 65535 * 16 * 255)
    if sectors >= 65535 * 16 * 63:
        per_track, heads = 255, 16
        cylinders_heads = sectors // per_track
    else:
        per_track = 17
        cylinders_heads = sectors // per_track
        heads = max((cylinders_heads + 1023) // 1024, 4)
        if cylinders_heads >= heads * 1024 or heads > 16:
            per_track, heads = 31, 16
            cylinders_heads = sectors // per_track
        if cylinders_heads >= heads * 1024:
            per_track, heads = 63, 16
            cylinders_heads = sectors // per_track
    return cylinders_heads // heads, heads, per_track


def make_footer(size: int, unique_id: uuid.UUID, time: float) -> bytes:
    """A fixed VHD's footer for a disk of `size` bytes; `time` in Unix seconds."""
    cylinders, heads, per_track = geometry(size)
    shape = cylinders << 16 | heads << 8 | per_track
    fields = (
        COOKIE,
        2,
        0x00010000,
        2**64 - 1,
        max(0, int(time) - _EPOCH),
        CREATOR,
        0x00010000,
        b"Wi2k",
        size,
        size,
        shape,
        FIXED,
    )
    draft = _FOOTER.pack(*fields, 0, unique_id.bytes, 0)
    return _FOOTER.pack(*fields, _checksum(draft), unique_id.bytes, 0)
