# SPDX-License-Identifier: Apache-2.0
"""Transactions put together from the log's records, each with its items, in the order in which they were committed.

From "XFS Algorithms & Data Structures", chapter "Journaling Log": operations, regions that continue in the next record, items of
as many regions as their first one says. What was not committed when the machine stopped never comes out of here, and neither
does what began before the log's tail. Not here: what an item means (`replay`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

import msgspec

from flr.errors import Corrupt, TooMuch
from flr.fs.xfs.log import Log, Record

_OPERATION = struct.Struct(">IIBBxx")
_TRANSACTION, _LOG = 0x69, 0xAA
_START, _COMMIT, _CONTINUE, _WAS_CONTINUED, _END, _UNMOUNT = (1 << bit for bit in range(6))
_HEAD = b"NART"
_LONGEST_REGION = 1 << 20
"""Bytes; the largest thing that is logged in one piece is an attribute's value or a buffer, of 64 KiB."""
_MOST_OPEN = 256 << 20
"""Bytes of transactions that are not committed yet."""

_LONGEST_HEAD = 64
_REGION_COSTS = 64  # bytes of memory beside its own

Item = list[bytes]
"""Regions; the first is the item's own description, which begins with its type and the number of regions."""


class Transaction(msgspec.Struct):
    """`lsn` is that of the record in which it began: what its changes are known by on the disk."""

    lsn: int
    head: bytes
    regions: list[bytes]
    size: int = 0
    continued: bytearray | None = None
    """The last region, while more of it comes in further records."""

    def add(self, data: bytes) -> None:
        self.join()
        self.regions.append(data)

    def go_on(self, data: bytes) -> None:
        if self.continued is None:
            self.continued = bytearray(self.regions[-1])
        self.continued += data
        if len(self.continued) > _LONGEST_REGION:
            raise Corrupt("a region of the log is longer than anything that is logged")

    def join(self) -> None:
        if self.continued is not None:
            self.regions[-1] = bytes(self.continued)
            self.continued = None

    def items(self) -> Iterator[Item]:
        if self.head[:4] != _HEAD:
            raise Corrupt("a transaction of the log has no head", repr(self.head[:4]))
        self.join()
        regions = self.regions
        at, end = 0, len(regions)
        while at < end:
            count = int.from_bytes(regions[at][2:4], "little")
            if not 0 < count <= end - at:
                raise Corrupt("an item of the log is not complete", f"{count} regions")
            yield regions[at : at + count]
            at += count


def committed(log: Log, records: Iterable[Record]) -> Iterator[Transaction]:
    """Corrupt where the operations contradict one another, TooMuch where they need more memory than is given."""
    under_way: dict[int, Transaction] = {}
    size = 0
    for record in records:
        for number, flags, data in _operations(record):
            if flags & _UNMOUNT:
                continue
            if flags & _START:
                if number in under_way:
                    raise Corrupt("a transaction of the log begins twice", f"{number:#x}")
                under_way[number] = Transaction(log.lsn(record.position), b"", [])
                continue
            transaction = under_way.get(number)
            if transaction is None:  # it began before the tail
                continue
            if flags & _COMMIT:
                del under_way[number]
                size -= transaction.size
                yield transaction
                continue
            transaction.size += len(data) + _REGION_COSTS
            size += len(data) + _REGION_COSTS
            if size > _MOST_OPEN:
                raise TooMuch("the log's transactions are larger than what is kept in memory")
            if not transaction.regions and (not transaction.head or flags & _WAS_CONTINUED):
                transaction.head += data
                if len(transaction.head) > _LONGEST_HEAD:
                    raise Corrupt("a transaction's head in the log is too long")
            elif flags & _WAS_CONTINUED:
                transaction.go_on(data)
            else:
                transaction.add(data)


def _operations(record: Record) -> Iterator[tuple[int, int, bytes]]:
    """Transaction, flags, data."""
    data = record.data
    at = 0
    for _ in range(record.operations):
        if at + _OPERATION.size > len(data):
            raise Corrupt("a record of the log has fewer operations than it says", str(record.operations))
        number, length, client, flags = _OPERATION.unpack_from(data, at)
        at += _OPERATION.size
        if at + length > len(data) or client not in (_TRANSACTION, _LOG):
            raise Corrupt("an operation of the log contradicts itself", f"{length} bytes, client {client:#x}")
        yield number, flags, data[at : at + length]
        at += length
