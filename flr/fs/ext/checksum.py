# SPDX-License-Identifier: Apache-2.0
"""CRC-32C as ext and its journal chain it: a register that starts with all ones and is not inverted at the end."""

from __future__ import annotations

from google_crc32c import extend

ONES = 0xFFFFFFFF


def crc32c(register: int, data: bytes) -> int:
    return int(extend(register ^ ONES, data)) ^ ONES
