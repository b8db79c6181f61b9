# SPDX-License-Identifier: Apache-2.0
"""A zip whose every byte has its place before the first one is sent: so it has a length, and any part of it can be fetched again.

Files are deflate streams of stored blocks, framed here: as many bytes as they have and five for every 65,535, and readable from the
front, which stored entries with a checksum behind them are not. What a file's checksum is stands behind it and in the directory at
the end; it is remembered, so that a download that goes on does not read again what it has. Sources: PKWARE's APPNOTE 6.3.10, RFC
1951 section 3.2.4, Info-ZIP's extra field "UT". Not here: what a selection holds, and safe names (`flr.recovery.zipball`).
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterator

BLOCK = 65535
FRAME = 5
_NAME = 0x0800  # names are UTF-8
_BEHIND = 0x0008  # sizes and checksum stand behind the content
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END = struct.Struct("<4sHHHHIIH")
_END64 = struct.Struct("<4sQHHIIQQQQ")
_LOCATOR = struct.Struct("<4sIQI")
_TIME = struct.Struct("<2sHBi")
_UNIX = 3 << 8
_BIG = 0xFFFFFFFF
_MANY = 0xFFFF
_DAY = 1 << 5 | 1
"""1980-01-01 in DOS's form; the true time stands in the extra field."""


def deflated(size: int) -> int:
    """Bytes of a deflate stream of stored blocks."""
    return size + FRAME * max(1, -(-size // BLOCK))


class Layout:
    """Entries in their order, compact: about 150 bytes each with their names."""

    def __init__(self) -> None:
        self.names: list[bytes] = []
        self.sizes = array("Q")
        self.crcs = array("q")  # -1: not known yet
        self._modes = array("I")
        self._times = array("q")
        self._offsets = array("Q", [0])  # of each entry, and of what comes next
        self._central = array("Q", [0])  # the same, in the directory

    def __len__(self) -> int:
        return len(self.names)

    def add(self, name: str, size: int, mode: int, modified: int, folder: bool) -> None:
        """`modified` in seconds since 1970; `size` is 0 for a folder."""
        encoded = name.encode("utf-8", "replace") + (b"/" if folder else b"")
        if len(encoded) > _MANY:
            raise ValueError("a path that is too long for a zip")
        at = self._offsets[-1]
        self.names.append(encoded)
        self.sizes.append(size)
        self.crcs.append(0 if folder or size == 0 else -1)
        self._modes.append(mode)
        self._times.append(min(max(modified, -(1 << 31)), (1 << 31) - 1))
        behind = 0 if folder else self.descriptor_size(len(self.names) - 1)
        content = 0 if folder else deflated(size)
        self._offsets.append(at + _LOCAL.size + len(encoded) + _TIME.size + self._local_big(size) + content + behind)
        big = self._central_big(size, at)
        self._central.append(self._central[-1] + _CENTRAL.size + len(encoded) + _TIME.size + big)

    @staticmethod
    def _local_big(size: int) -> int:
        return 20 if deflated(size) >= _BIG else 0

    @staticmethod
    def _central_big(size: int, offset: int) -> int:
        fields = 2 * (deflated(size) >= _BIG) + (offset >= _BIG)
        return 4 + 8 * fields if fields else 0

    def is_folder(self, index: int) -> bool:
        return self.names[index].endswith(b"/")

    def descriptor_size(self, index: int) -> int:
        return 24 if deflated(self.sizes[index]) >= _BIG else 16

    # -- where things are

    @property
    def directory(self) -> int:
        """Where the directory begins."""
        return self._offsets[-1]

    @property
    def end(self) -> int:
        """Where the directory ends and the last records begin."""
        return self.directory + self._central[-1]

    @property
    def size(self) -> int:
        return self.end + len(self.last())

    def entry_at(self, offset: int) -> int:
        """The entry that a byte before the directory belongs to."""
        return bisect_right(self._offsets, offset) - 1

    def central_at(self, offset: int) -> int:
        """The same, of a byte within the directory."""
        return bisect_right(self._central, offset - self.directory) - 1

    def begins(self, index: int) -> int:
        return self._offsets[index]

    def central_begins(self, index: int) -> int:
        return self.directory + self._central[index]

    # -- what they are

    def local(self, index: int) -> bytes:
        size, name = self.sizes[index], self.names[index]
        time = _TIME.pack(b"UT", 5, 1, self._times[index])
        big = self._local_big(size)
        if self.is_folder(index):
            head = _LOCAL.pack(b"PK\3\4", 20, _NAME, 0, 0, _DAY, 0, 0, 0, len(name), len(time))
            return head + name + time
        told = _BIG if big else 0
        extra = time + (struct.pack("<HHQQ", 1, 16, 0, 0) if big else b"")
        version = 45 if big else 20
        head = _LOCAL.pack(b"PK\3\4", version, _NAME | _BEHIND, 8, 0, _DAY, 0, told, told, len(name), len(extra))
        return head + name + extra

    def descriptor(self, index: int) -> bytes:
        """Behind the content of an entry whose checksum is known."""
        size = self.sizes[index]
        form = "<4sIQQ" if self.descriptor_size(index) == 24 else "<4sIII"
        return struct.pack(form, b"PK\7\x08", self.crcs[index], deflated(size), size)

    def central(self, index: int) -> bytes:
        size, name, offset = self.sizes[index], self.names[index], self._offsets[index]
        folder = self.is_folder(index)
        packed = 0 if folder else deflated(size)
        extra = _TIME.pack(b"UT", 5, 1, self._times[index])
        big = b""
        shown, held, where = size, packed, offset
        if packed >= _BIG:
            big += struct.pack("<QQ", size, packed)
            shown = held = _BIG
        if offset >= _BIG:
            big += struct.pack("<Q", offset)
            where = _BIG
        if big:
            extra += struct.pack("<HH", 1, len(big)) + big
        attributes = self._modes[index] << 16 | (0x10 if folder else 0)
        flags, method = (_NAME, 0) if folder else (_NAME | _BEHIND, 8)
        return (
            _CENTRAL.pack(
                b"PK\1\2", _UNIX | 63, 45 if big else 20, flags, method, 0, _DAY, self.crcs[index], held, shown, len(name),
                len(extra), 0, 0, 0, attributes & _BIG, where,
            )
            + name
            + extra
        )  # fmt: skip

    def last(self) -> bytes:
        count, size, at = len(self), self._central[-1], self.directory
        made = b""
        if count >= _MANY or size >= _BIG or at >= _BIG:
            made = _END64.pack(b"PK\6\6", _END64.size - 12, _UNIX | 63, 45, 0, 0, count, count, size, at)
            made += _LOCATOR.pack(b"PK\6\7", 0, at + size, 1)
        few = min(count, _MANY)
        return made + _END.pack(b"PK\5\6", 0, 0, few, few, min(size, _BIG), min(at, _BIG), 0)


def framed(pieces: Iterator[bytes], size: int, start: int) -> Iterator[bytes]:
    """The deflate stream of content of `size` bytes, from the block on that begins with byte `start` of it; `pieces` are the
    content from there on, whole."""
    if size == 0:
        yield b"\1\0\0\xff\xff"
        return
    left = size - start
    room = 0
    for piece in pieces:
        view = memoryview(piece)
        made: list[bytes | memoryview] = []
        while len(view):
            if room == 0:
                room = min(BLOCK, left)
                made.append(struct.pack("<BHH", room == left, room, room ^ 0xFFFF))
            some = view[:room]
            made.append(some)
            view = view[len(some) :]
            room -= len(some)
            left -= len(some)
        yield b"".join(made)
