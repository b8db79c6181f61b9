# SPDX-License-Identifier: Apache-2.0
"""CRC-32 of bytes that are put together from parts, or are zeros, without going through them again.

A CRC is the remainder of a polynomial over the field of two elements, and n more bytes behind it multiply it by x to the 8 n: that
power takes as many steps as n has bits. Numbers have x^0 in their highest bit, as the CRC itself has. Sources: RFC 1952, section
8; for powers by squaring, Knuth, The Art of Computer Programming, 4.6.3.
"""

from __future__ import annotations

import zlib
from functools import lru_cache

_POLYNOMIAL = 0xEDB88320
_ONE, _ALL = 1 << 31, 0xFFFFFFFF
_ZEROS = bytes(1 << 18)
"""Of about this many, going through them is as quick."""


def _product(a: int, b: int) -> int:
    made = 0
    while a:
        if a & _ONE:
            made ^= b
        a = a << 1 & _ALL
        b = b >> 1 ^ (_POLYNOMIAL if b & 1 else 0)
    return made


def _squares() -> list[int]:
    """x to the 8, 16, 32, ...: of one byte, two, four."""
    made = [_ONE >> 8]
    while len(made) < 64:
        made.append(_product(made[-1], made[-1]))
    return made


_SQUARES = _squares()


@lru_cache(256)
def _power(length: int) -> int:
    """x to 8 `length`; at most 2^64 bytes."""
    made = _ONE
    for k in range(length.bit_length()):
        if length >> k & 1:
            made = _product(made, _SQUARES[k])
    return made


def joined(first: int, second: int, length: int) -> int:
    """Of two parts together; `length` of the second one in bytes."""
    return _product(_power(length), first) ^ second


def with_zeros(crc: int, length: int) -> int:
    """Of a part with `length` zero bytes behind it."""
    if length <= len(_ZEROS):
        return zlib.crc32(_ZEROS[:length], crc)
    return _product(_power(length), crc ^ _ALL) ^ _ALL
