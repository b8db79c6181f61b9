# SPDX-License-Identifier: Apache-2.0
"""Whether the guest had done with the volume: the log's restart areas, and the hibernation file of Windows.

A log that was not closed holds changes of the last seconds that the structures do not have; they are not replayed here. What
matters is one flag and one list in the newer of two restart areas. Format: the Linux-NTFS project's documentation, "$LogFile".
"""

from __future__ import annotations

import struct

from flr.errors import Corrupt
from flr.fs.ntfs.record import STRIDE, fixed

PAGE = 4096
"""Of the log, unless its restart page says otherwise; the second restart page follows the first."""
CLEAN = "clean"
NOT_CLEAN = "not clean: changes of the last seconds may be missing; the log is not replayed"
UNKNOWN = "unknown: the log cannot be read, and is not replayed"
# magic, checked-disk LSN, system page size, log page size, restart area's offset
_PAGE = struct.Struct("<4s4xQIIH")
# current LSN, clients, free clients, clients in use, flags
_AREA = struct.Struct("<QHHHH")
NO_CLIENT = 0xFFFF
VOLUME_CLEAN = 2


def _restart(page: bytes) -> tuple[int, bool]:
    """The newest LSN that a restart page knows, and whether the volume was closed then. Corrupt."""
    data = fixed(page, b"RSTR" if page[:4] != b"CHKD" else b"CHKD", "the log's restart page")
    magic, _, _, _, at = _PAGE.unpack_from(data)
    if magic == b"CHKD":  # a check of the disk left it so, and nothing was mounted since
        return 0, True
    if at + _AREA.size > len(data):
        raise Corrupt("the log's restart area is cut", f"it begins at {at}")
    current, _, _, in_use, flags = _AREA.unpack_from(data, at)
    return current, in_use == NO_CLIENT or bool(flags & VOLUME_CLEAN)


def state(head: bytes) -> str:
    """Of the log's first 128 KiB at most: CLEAN, NOT_CLEAN or UNKNOWN."""
    if head[:PAGE].strip(b"\xff") == b"":  # emptied: nothing to be replayed
        return CLEAN
    size = PAGE
    if len(head) >= _PAGE.size and head[:4] in (b"RSTR", b"CHKD"):
        stated = _PAGE.unpack_from(head)[2]
        if STRIDE <= stated <= 64 << 10 and stated & (stated - 1) == 0:
            size = stated
    areas: list[tuple[int, bool]] = []
    for at in (0, size):
        try:
            areas.append(_restart(head[at : at + size]))
        except (Corrupt, struct.error):
            continue
    if not areas:
        return UNKNOWN
    return CLEAN if max(areas)[1] else NOT_CLEAN


def hibernated(head: bytes) -> bool:
    """Of the first bytes of hiberfil.sys: whether Windows sleeps in it (a fast start-up counts)."""
    return head[:4].lower() == b"hibr"
