# SPDX-License-Identifier: Apache-2.0
"""Writes small registry hives as Windows does, for tests that have no Windows. hivex reads them, too (`test_hive`)."""

from __future__ import annotations

import struct
from collections.abc import Mapping

BIN = 4096


class _Bin:
    def __init__(self) -> None:
        self.data = bytearray(struct.pack("<4sIII", b"hbin", 0, 0, 0) + bytes(16))

    def cell(self, body: bytes) -> int:
        at = len(self.data)
        size = -(-(len(body) + 4) // 8) * 8
        self.data += struct.pack("<i", -size) + body + bytes(size - 4 - len(body))
        return at


def _key(
    name: str, parent: int, subkeys: int, list_at: int, values: int, values_at: int, *, root: bool = False
) -> bytes:
    raw = name.encode("latin-1")
    return struct.pack(
        "<2sHQIIIIIIIIIIIIIIIHH",
        b"nk", 0x2C if root else 0x20, 0, 0, parent, subkeys, 0, list_at, 0xFFFFFFFF, values, values_at, 0xFFFFFFFF,
        0xFFFFFFFF, 0, 0, 0, 0, 0, len(raw), 0,
    ) + raw  # fmt: skip


def hive(keys: Mapping[str, Mapping[str, bytes]], *, lists: str = "lf") -> bytes:
    """Keys below the root, each with its values."""
    made = _Bin()
    root = made.cell(bytes(76 + 5))
    places = []
    for key in sorted(keys, key=str.upper):
        values = []
        for name, data in keys[key].items():
            raw = name.encode("latin-1") if name.isascii() else name.encode("utf-16-le")
            size, inline = len(data), len(data) <= 4
            at = int.from_bytes(data.ljust(4, b"\0"), "little") if inline else made.cell(data)
            flags = 1 if name.isascii() else 0
            value = (
                struct.pack("<2sHIIIHH", b"vk", len(raw), size | (0x80000000 if inline else 0), at, 3, flags, 0) + raw
            )
            values.append(made.cell(value))
        table = made.cell(struct.pack(f"<{len(values)}I", *values)) if values else 0xFFFFFFFF
        places.append(made.cell(_key(key, root, 0, 0xFFFFFFFF, len(values), table)))
    if lists == "ri":
        inner = [made.cell(struct.pack("<2sHI", b"li", 1, place)) for place in places]
        body = struct.pack(f"<2sH{len(inner)}I", b"ri", len(inner), *inner)
    elif lists == "li":
        body = struct.pack(f"<2sH{len(places)}I", b"li", len(places), *places)
    else:
        body = struct.pack("<2sH", lists.encode(), len(places))
        for place, key in zip(places, sorted(keys, key=str.upper), strict=True):
            body += struct.pack("<I4s", place, key.encode()[:4].ljust(4, b"\0"))
    top = made.cell(body)
    made.data[root + 4 : root + 4 + 81] = _key("$$$PR", 0, len(places), top, 0, 0xFFFFFFFF, root=True)
    rest = -len(made.data) % BIN
    if rest:
        made.data += struct.pack("<i", rest) + bytes(rest - 4)
    struct.pack_into("<II", made.data, 4, 0, len(made.data))
    head = bytearray(BIN)
    struct.pack_into("<4sIIQIIIIIII", head, 0, b"regf", 1, 1, 0, 1, 3, 0, 1, root, len(made.data), 1)
    total = 0
    for (word,) in struct.iter_unpack("<I", bytes(head[:508])):
        total ^= word
    struct.pack_into("<I", head, 508, total)
    return bytes(head + made.data)
