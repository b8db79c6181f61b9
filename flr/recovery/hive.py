# SPDX-License-Identifier: Apache-2.0
"""As much of a Windows registry hive as tells which volume had which drive letter: keys by name, their values.

A hive is a guest's file: whatever it claims, no more than MOST_CELLS cells of at most LARGEST_CELL bytes are read, and what makes
no sense is Corrupt. Its transaction logs are not looked at: what Windows had not written to it yet is missing. Sources: M.
Suhanov, "Windows registry file format specification"; Microsoft, "Supporting Mount Manager Requests" (what a value of
MountedDevices is).
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable, Iterator

from flr.errors import Corrupt

FIRST_BIN = 4096
LARGEST_CELL = 1 << 20
MOST_CELLS = 5000
MOST_VALUES = 1024
LONGEST_VALUE = 512
_LETTER = "\\DosDevices\\"
Read = Callable[[int, int], bytes]
"""(offset, length) to so many bytes, fewer at the end of the file."""


class Hive:
    """`read` reads the file."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._cells = 0
        head = read(0, 512)
        if len(head) < 512 or head[:4] != b"regf":
            raise Corrupt("not a registry hive", head[:4].hex())
        self._root = int.from_bytes(head[36:40], "little")

    def _cell(self, offset: int) -> bytes:
        self._cells += 1
        if self._cells > MOST_CELLS or offset >= 0x80000000:
            raise Corrupt("a registry hive is damaged", f"cell {self._cells} at {offset}")
        size = int.from_bytes(self._read(FIRST_BIN + offset, 4), "little", signed=True)
        length = -size - 4
        if not 0 < length <= LARGEST_CELL:
            raise Corrupt("a registry hive is damaged", f"a cell of {size} bytes at {offset}")
        data = self._read(FIRST_BIN + offset + 4, length)
        if len(data) != length:
            raise Corrupt("a registry hive is cut", f"at {offset}")
        return data

    def values(self, key: str) -> Iterator[tuple[str, bytes]]:
        """Name and data of each value of a key below the root. Nothing for a key that is not there."""
        node = self._node(self._root)
        for offset in self._subkeys(int.from_bytes(node[28:32], "little"), int.from_bytes(node[20:24], "little")):
            found = self._node(offset)
            if _name(found, 76, 72, wide=not found[2] & 0x20).lower() == key.lower():
                yield from self._of(found)
                return

    def _node(self, offset: int) -> bytes:
        node = self._cell(offset)
        if node[:2] != b"nk" or len(node) < 76:
            raise Corrupt("a registry hive is damaged", f"no key at {offset}")
        return node

    def _subkeys(self, offset: int, count: int, depth: int = 0) -> Iterator[int]:
        """Where the keys of a list, or of a list of lists, are."""
        if not count:
            return
        data = self._cell(offset)
        kind, number = data[:2], int.from_bytes(data[2:4], "little")
        step = {b"lf": 8, b"lh": 8, b"li": 4, b"ri": 4}.get(kind, 0)
        if not step or 4 + number * step > len(data) or depth > 1:
            raise Corrupt("a registry hive is damaged", f"no list of keys at {offset}")
        for k in range(number):
            place = int.from_bytes(data[4 + k * step : 8 + k * step], "little")
            if kind == b"ri":
                yield from self._subkeys(place, 1, depth + 1)
            else:
                yield place

    def _of(self, node: bytes) -> Iterator[tuple[str, bytes]]:
        count, place = struct.unpack_from("<II", node, 36)
        if not count:
            return
        table = self._cell(place)
        for k in range(min(count, MOST_VALUES, len(table) // 4)):
            value = self._cell(int.from_bytes(table[4 * k : 4 * k + 4], "little"))
            if value[:2] != b"vk" or len(value) < 20:
                raise Corrupt("a registry hive is damaged", "no value where one should be")
            size, data = struct.unpack_from("<II", value, 4)
            name = _name(value, 20, 2, wide=not value[16] & 1)
            if size & 0x80000000:
                yield name, value[8 : 8 + min(4, size & 0x7FFFFFFF)]
            elif size <= LONGEST_VALUE:
                yield name, self._cell(data)[:size]


def _name(cell: bytes, at: int, length_at: int, *, wide: bool) -> str:
    raw = cell[at : at + int.from_bytes(cell[length_at : length_at + 2], "little")]
    return raw.decode("utf-16-le" if wide else "latin-1", "replace")


def letters(read: Read) -> dict[str, bytes]:
    """What stands for each drive letter ("C:") in a hive `SYSTEM`. Corrupt."""
    found = {}
    for name, data in Hive(read).values("MountedDevices"):
        letter = name[len(_LETTER) :]
        if name.lower().startswith(_LETTER.lower()) and len(letter) == 2 and letter[0].isalpha() and letter[1] == ":":
            found[letter.upper()] = data
    return found


def partition_of(data: bytes) -> tuple[str, int | None] | None:
    """(uuid, None) of a GPT partition; (an MBR disk's signature, the partition's first byte); None for what is neither."""
    if data[:8] == b"DMIO:ID:" and len(data) == 24:
        return str(uuid.UUID(bytes_le=data[8:])), None
    if len(data) == 12:
        return f"{int.from_bytes(data[:4], 'little'):08x}", int.from_bytes(data[4:], "little")
    return None
