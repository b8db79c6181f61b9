# SPDX-License-Identifier: Apache-2.0
"""Reads a zip from the front, once, as a program does that gets it through a pipe: it sees a file's end only in the deflate stream,
and does not look at the directory but to see that it begins. Written from APPNOTE.TXT 4.3, not from our writer."""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO


def streamed(file: BinaryIO) -> dict[str, bytes]:
    """Contents by name, checked against the sizes and checksums behind them."""
    found: dict[str, bytes] = {}
    rest = b""

    def take(count: int) -> bytes:
        nonlocal rest
        while len(rest) < count:
            more = file.read(1 << 16)
            assert more, "the zip ends too early"
            rest += more
        taken, rest = rest[:count], rest[count:]
        return taken

    while (mark := take(4)) == b"PK\3\4":
        version, flags, method, _, _, crc, packed, size, name, extra = struct.unpack("<HHHHHIIIHH", take(26))
        path = take(name).decode("utf-8" if flags & 1 << 11 else "cp437")
        fields = _fields(take(extra))
        assert path not in found
        if not flags & 1 << 3:
            assert method == 0
            found[path] = take(size)
            assert (zlib.crc32(found[path]), packed) == (crc, size)
            continue
        assert method == 8
        assert crc == 0
        big = 1 in fields
        assert (packed, size) == ((0xFFFFFFFF, 0xFFFFFFFF) if big else (0, 0))
        assert version == (45 if big else 20)
        assert fields.get(1, bytes(16)) == bytes(16)
        inflating = zlib.decompressobj(-15)
        made = bytearray()
        count = 0
        while not inflating.eof:
            data = take(1) + rest
            rest = b""
            made += inflating.decompress(data)
            count += len(data)
        rest = inflating.unused_data
        count -= len(rest)
        described = struct.unpack("<4sIQQ", take(24)) if big else struct.unpack("<4sIII", take(16))
        assert described == (b"PK\7\x08", zlib.crc32(made), count, len(made))
        found[path] = bytes(made)
    assert mark in (b"PK\1\2", b"PK\5\6")
    return found


def _fields(extra: bytes) -> dict[int, bytes]:
    found = {}
    while extra:
        kind, size = struct.unpack_from("<HH", extra)
        found[kind] = extra[4 : 4 + size]
        assert len(found[kind]) == size
        extra = extra[4 + size :]
    return found
