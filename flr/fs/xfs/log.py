# SPDX-License-Identifier: Apache-2.0
"""The log as it lies on the disk: where it begins and ends, and its records, each checked.

From "XFS Algorithms & Data Structures", chapter "Journaling Log". The log is a ring of sectors, and each sector's first word
says in which round it was written, so its head is found by bisection; what the machine still had under way when it stopped may
be missing in the last few records, and there the log ends. Anywhere else a wrong checksum or round means that it is not to be
trusted, and that is an error. Positions are counted on through the rounds: `round * size + sector`, in sectors of 512 bytes.
Not here: what the records hold (`transactions`, `replay`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import msgspec

from flr.blocks import Volume
from flr.errors import Corrupt
from flr.fs.xfs.checksum import crc32c
from flr.fs.xfs.superblock import Superblock

SECTOR = 512
_HEADER = struct.Struct(">4sIIIQQ4sII256xI16sI")
_MAGIC = b"\xfe\xed\xba\xbe"
_ROUND = struct.Struct(">4sI")
_CHECKED = (328, 324)
"""Bytes of a header that its checksum covers, as machines of 64 and of 32 bits write it."""
_CHECKED_MORE = 260  # of each further header
_COVERED = 64  # sectors whose first words one header keeps
_LITTLE_ENDIAN = 1
_IN_FLIGHT = 8
"""Records that may be on their way to the disk at the same time."""
_LONGEST = 256 << 10
_WINDOW = _IN_FLIGHT * (_LONGEST // SECTOR + _LONGEST // SECTOR // _COVERED)
_UNMOUNT = 0x20
_NO_CHECKSUM = bytes(4)  # as mkfs writes its one record, and old kernels theirs
_NO_UUID = bytes(16)


class Record(msgspec.Struct, frozen=True):
    """`position` is its first header's; `headers` and `sectors` count what it takes; `data` is as it was before it was written."""

    position: int
    headers: int
    sectors: int
    operations: int
    tail: int
    data: bytes

    @property
    def end(self) -> int:
        return self.position + self.headers + self.sectors


class Log:
    """Corrupt when the log cannot be trusted; `tail` and `head` are what is to be replayed, equal when it is clean. `torn` is the
    sector of a record behind them that is there and not whole, None as a rule."""

    def __init__(self, volume: Volume, sb: Superblock) -> None:
        if not sb.holds(sb.log_start, sb.log_blocks) or not sb.log_blocks:
            raise Corrupt("the log's place contradicts itself", f"{sb.log_blocks} blocks at {sb.log_start:#x}")
        self._volume = volume
        self._start = sb.offset(sb.log_start)
        self._size = (sb.log_blocks << sb.block_log) // SECTOR
        self._uuid = sb.uuid
        self._v2 = sb.log_v2
        self._checksums = sb.version == 5
        volume.check(self._start, self._size * SECTOR)
        self.torn: int | None = None
        self.tail, self.head = self._ends()

    def records(self, *, check: bool = True) -> Iterator[Record]:
        """From the tail to the head. Corrupt where one is not whole: they were checked on their end already."""
        self._announce()
        at = self.tail
        while at < self.head:
            record = self._record(at, check)
            if record is None or record.end > self.head:
                raise Corrupt("the log has a damaged record", f"at sector {at % self._size}")
            yield record
            at = record.end

    def lsn(self, position: int) -> int:
        """A position as the file system's structures keep it."""
        return position // self._size << 32 | position % self._size

    def _position(self, lsn: int) -> int | None:
        sector = lsn & 0xFFFFFFFF
        return (lsn >> 32) * self._size + sector if sector < self._size else None

    def _announce(self) -> None:
        first, last = self.tail % self._size, self.head % self._size
        parts = [(first, last)] if first <= last and self.head > self.tail else [(first, self._size), (0, last)]
        self._volume.prefetch([(self._start + a * SECTOR, (b - a) * SECTOR) for a, b in parts])

    def _read(self, position: int, count: int) -> bytes:
        at = position % self._size
        first = min(count, self._size - at)
        data = self._volume.pread(self._start + at * SECTOR, first * SECTOR)
        return data if first == count else data + self._volume.pread(self._start, (count - first) * SECTOR)

    # -- the ends

    def _round(self, sector: int) -> int:
        word, after = _ROUND.unpack(self._volume.pread(self._start + sector * SECTOR, 8))
        return int(after) if word == _MAGIC else int.from_bytes(word, "big")

    def _ends(self) -> tuple[int, int]:
        now = self._round(0)
        if now == 0:
            return 0, 0  # never used
        low, high = 0, self._size  # sector `low` is of this round, `high` is not, or is the end
        if self._round(self._size - 1) != now:
            high -= 1
            while high - low > 1:
                middle = (low + high) // 2
                if self._round(middle) == now:
                    low = middle
                else:
                    high = middle
        head = now * self._size + high
        first = max(head - min(_WINDOW, self._size), self._size)
        found: list[int] = []
        window = self._read(first, head - first)
        for at in range(first, head):
            word, after = _ROUND.unpack_from(window, (at - first) * SECTOR)
            if word == _MAGIC:
                found.append(at)
                word = after.to_bytes(4, "big")
            if int.from_bytes(word, "big") != at // self._size:
                head = at  # something under way was not written
                break
        return self._whole([at for at in found if at < head])

    def _whole(self, found: list[int]) -> tuple[int, int]:
        """The ends by the last record that is whole; a damaged one among the last few ends the log."""
        last: Record | None = None
        for index, at in enumerate(found):
            if index < len(found) - _IN_FLIGHT - 1:
                continue
            record = self._record(at, check=True)
            if record is None or (last is not None and last.end != at):
                self.torn = at % self._size
                break
            last = record
        if last is None:
            raise Corrupt("the log has no whole record at its end")
        if self._unmounted(last):
            return last.end, last.end
        tail = self._position(last.tail)
        if tail is None or not last.end - self._size <= tail <= last.position:
            raise Corrupt("the log's end names no beginning of it", f"{last.tail:#x}")
        return tail, last.end

    @staticmethod
    def _unmounted(record: Record) -> bool:
        return record.operations == 1 and bool(int.from_bytes(record.data[9:10], "big") & _UNMOUNT)

    # -- a record

    def _record(self, at: int, check: bool) -> Record | None:
        """The record at a position; None where none is whole."""
        header = self._read(at, 1)
        (
            magic, now, version, length, lsn, tail, checksum, _previous, operations, form, uuid, size,
        ) = _HEADER.unpack_from(header)  # fmt: skip
        if magic != _MAGIC or now != at // self._size or self._position(lsn) != at:
            return None
        if form != _LITTLE_ENDIAN:
            raise Corrupt("the log was written by a machine of another byte order", f"form {form}")
        if uuid not in (self._uuid, _NO_UUID):
            raise Corrupt("the log is another file system's")
        headers = max(1, -(-size // (_COVERED * SECTOR))) if self._v2 and version & 2 else 1
        sectors = -(-length // SECTOR)  # of a log of version 1 the length is not a whole number of them
        if not 0 < length <= _LONGEST or headers > _LONGEST // SECTOR // _COVERED:
            return None
        if headers + sectors > self._size or (sectors > headers * _COVERED and operations != 1):
            return None
        if headers > 1:
            header += self._read(at + 1, headers - 1)
        written = self._read(at + headers, sectors)
        if check and not (
            self._sound(header, written[:length], checksum) or (operations == 1 and checksum == _NO_CHECKSUM)
        ):
            return None
        data = self._restored(header, written, at + headers)
        return None if data is None else Record(at, headers, sectors, operations, tail, data[:length])

    def _sound(self, header: bytes, written: bytes, checksum: bytes) -> bool:
        """Of the further headers, those that this record needs are checked, as it is found on images."""
        if checksum == _NO_CHECKSUM and not self._checksums:
            return True
        more = [
            header[i * SECTOR : i * SECTOR + _CHECKED_MORE] for i in range(1, -(-len(written) // (_COVERED * SECTOR)))
        ]
        return any(
            crc32c(header[:32], bytes(4), header[36:covered], *more, written).to_bytes(4, "little") == checksum
            for covered in _CHECKED
        )

    def _restored(self, header: bytes, written: bytes, at: int) -> bytes | None:
        """With the sectors' first words, which the round's number took the place of; None when that is of another round."""
        data = bytearray(written)
        for sector in range(len(written) // SECTOR):
            begin = sector * SECTOR
            if int.from_bytes(written[begin : begin + 4], "big") != (at + sector) // self._size:
                return None
            which, word = divmod(sector, _COVERED)
            place = which * SECTOR + (4 if which else 44) + word * 4
            if place < len(header):
                data[begin : begin + 4] = header[place : place + 4]
        return bytes(data)
