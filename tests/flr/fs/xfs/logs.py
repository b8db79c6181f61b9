# SPDX-License-Identifier: Apache-2.0
"""Logs written by us: transactions put behind a clean file system's log, as a machine that stopped would have left them.

What kernels seldom leave behind can be tried so: items of 32-bit machines, regions that continue in the next record, cancels,
steps that were not finished. `Writer.volume` is the file system with that log.
"""

from __future__ import annotations

import struct

from flr.blocks import Volume
from flr.fs.xfs import superblock
from flr.fs.xfs.checksum import crc32c
from flr.fs.xfs.log import SECTOR, Log
from tests.flr.corpus.image import Changed

START, COMMIT, CONTINUE, WAS_CONTINUED, END = 1, 2, 4, 8, 16
Operation = tuple[int, int, bytes]
"""Transaction, flags, data."""
HEAD = b"NART" + struct.pack("<III", 42, 1, 1)


class Writer:
    def __init__(self, volume: Volume) -> None:
        self.sb, _ = superblock.find(volume)
        log = Log(volume, self.sb)
        self.volume = Changed(volume)
        self.size = (self.sb.log_blocks << self.sb.block_log) // SECTOR
        self.start = self.sb.offset(self.sb.log_start)
        self.first = self.at = log.head
        self.lsn = log.lsn
        for ahead in range(64):  # old rounds must not look like ours
            self.put(self.at + ahead, bytes(SECTOR))

    def put(self, position: int, data: bytes) -> None:
        for i in range(0, len(data), SECTOR):
            self.volume.put(self.start + (position + i // SECTOR) % self.size * SECTOR, data[i : i + SECTOR])

    def transaction(self, *items: list[bytes], number: int = 7) -> None:
        """Committed, in a record of its own."""
        regions = [HEAD, *[region for item in items for region in item]]
        self.record(
            [(number, START, b""), *[(number, 0, region) for region in regions], (number, COMMIT, b"")],
        )

    def record(
        self, operations: list[Operation], *, version: int = 2, form: int = 1, uuid: bytes | None = None, client: int = 0x69,
        count: int | None = None, tail: int | None = None, length: int | None = None,
    ) -> None:  # fmt: skip
        data = b"".join(struct.pack(">IIBBxx", n, len(d), client, flags) + d for n, flags, d in operations)
        data += bytes(-len(data) % SECTOR)
        assert len(data) <= 32768
        now = self.at // self.size
        header = bytearray(SECTOR)
        struct.pack_into(
            ">4sIIIQQ4sII", header, 0, b"\xfe\xed\xba\xbe", now, version, len(data) if length is None else length,
            self.lsn(self.at), self.lsn(self.first) if tail is None else tail, bytes(4), 0,
            len(operations) if count is None else count,
        )  # fmt: skip
        struct.pack_into(">I16sI", header, 300, form, self.sb.uuid if uuid is None else uuid, 32768)
        made = bytearray(data)
        for sector in range(len(data) // SECTOR):
            place = sector * SECTOR
            header[44 + 4 * sector : 48 + 4 * sector] = made[place : place + 4]
            made[place : place + 4] = now.to_bytes(4, "big")
        header[32:36] = crc32c(bytes(header[:328]), bytes(made[:length])).to_bytes(4, "little")
        self.put(self.at, bytes(header) + bytes(made))
        self.at += 1 + len(data) // SECTOR


def buffer(
    offset: int, length: int, data: bytes = b"", flags: int = 0, at: int = 0, words: int | None = None
) -> list[bytes]:
    """`data`, a multiple of 128 bytes, at `at` within the block."""
    bits = ((1 << len(data) // 128) - 1) << at // 128
    count = -(-length // 128 // 32) if words is None else words
    first = struct.pack("<HHHHqI", 0x123C, 2 if data else 1, flags, length // 512, offset // 512, count)
    return [first + bits.to_bytes(count * 4, "little"), *([data] if data else [])]


def inode(
    number: int,
    offset: int,
    core: bytes,
    fields: int = 1,
    forks: tuple[bytes, ...] = (),
    cluster: int = 16384,
    bits: int = 64,
) -> list[bytes]:
    start = offset // cluster * cluster
    place = struct.pack("<qii", start // 512, cluster // 512, offset - start)
    head = struct.pack("<HHIHH", 0x123B, 2 + len(forks), fields, 0, 0)
    gap = bytes(4) if bits == 64 else b""
    return [head + gap + struct.pack("<Q", number) + bytes(16) + place, core, *forks]


def core_of(disk: bytes) -> bytearray:
    """The logged form of an inode of version 3 on the disk, without large counts."""
    big, little = ">HHBB2sIIIHHQQQQQQIIHBBIHHIIIQQQI12sQQ16s", "<HHBB2sIIIHHQQQQQQIIHBBIHHIIIQQQI12sQQ16s"
    return bytearray(struct.pack(little, *struct.unpack_from(big, disk)))
