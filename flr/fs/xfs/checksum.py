# SPDX-License-Identifier: Apache-2.0
"""CRC32C as XFS keeps it: over a whole structure with four zeros in the checksum's place, stored in little endian."""

from __future__ import annotations

import google_crc32c

_NOTHING = bytes(4)


def crc32c(*parts: bytes) -> int:
    """Of the parts one after another."""
    value = 0
    for part in parts:
        value = google_crc32c.extend(value, part)
    return value


def sound(data: bytes, at: int) -> bool:
    """Whether `data` has its right checksum at `at`."""
    return crc32c(data[:at], _NOTHING, data[at + 4 :]).to_bytes(4, "little") == data[at : at + 4]
