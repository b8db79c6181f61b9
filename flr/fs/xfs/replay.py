# SPDX-License-Identifier: Apache-2.0
"""The log's replay, in memory: what a mount would write to the disk first is laid over the volume.

From "XFS Algorithms & Data Structures", chapter "Journaling Log". Buffers that were given up later are not replayed (the first
pass collects these cancels); a block or inode that already has a later change on the disk is left alone. When the log
contradicts itself, all of it is left out, and the file system is shown as it stands on the disk, with a warning: half a replay
would be worse than none. Steps that a mount finishes afterwards (intents) do not change what a reader sees, but for mappings,
attributes and exchanges of a file's blocks: such files are named in a warning.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import msgspec

from flr.blocks import Volume
from flr.errors import Corrupt, RecoveryError, TooMuch
from flr.fs.overlay import Overlay
from flr.fs.xfs import log_items, superblock
from flr.fs.xfs.log import SECTOR, Log
from flr.fs.xfs.superblock import Superblock
from flr.fs.xfs.transactions import Item, Transaction, committed

_LOGGED_ATTRIBUTES = 0x1  # the one known feature of a log
_NEVER = (0, (1 << 64) - 1)
_HALF = 0x7FFF
_MOST_ANNOUNCED = 1 << 14
_MOST_REMEMBERED = 1 << 20
_KEPT = 32 << 20
"""Bytes of transactions that are kept from the first pass for the second; of a longer log all are read again."""

_STAMPS = {  # where a block of version 5 has the LSN of its last change and the file system's id, by its first word
    **dict.fromkeys((b"AB3B", b"AB3C", b"IAB3", b"FIB3", b"RMB3", b"R3FC"), (24, 32)),
    **dict.fromkeys((b"XDB3", b"XDD3", b"XDF3"), (16, 24)),
    **dict.fromkeys((b"XSLM", b"XARM"), (48, 16)),
    b"BMA3": (32, 40),
    b"XAGF": (208, 64),
    b"XAGI": (320, 296),
    b"XAFL": (24, 8),
    b"XFSB": (240, 32),
}
_STAMPED = frozenset(
    (b"\x3d\xf1", b"\x3d\xff", b"\x3e\xbe", b"\x3b\xee")
)  # nodes and leaves say what they are at byte 8


class Replayed(msgspec.Struct, frozen=True):
    """The volume to read from, its superblock, and what a person is told of the log."""

    volume: Volume
    superblock: Superblock
    journal: str


def replay(volume: Volume, sb: Superblock, warn: Callable[[str], None]) -> Replayed:
    """Never fails: a log that cannot be replayed is said to be so, and the volume is answered as it is."""
    reason = ""
    if not sb.log_start:
        reason = "the log is on another device"
    elif sb.log_incompatible & ~_LOGGED_ATTRIBUTES:
        reason = f"the log has features that are not known ({sb.log_incompatible:#x})"
    else:
        try:
            log = Log(volume, sb)
            if log.torn is not None:
                warn(
                    f"the log's last record was not written whole (at sector {log.torn}), what it changed is missing: after a "
                    "power cut that is no fault"
                )
            if log.tail == log.head:
                return Replayed(volume, sb, "clean")
            run = _Replay(volume, sb, log)
            run.collect()
            run.apply()
            replaced = superblock.parse(run.overlay.pread(0, SECTOR))
        except RecoveryError as error:
            reason = f"{error.what}, {error.value}" if error.value else error.what
        else:
            for text in run.unfinished():
                warn(text)
            return Replayed(run.overlay, replaced, f"replayed: {run.transactions} transactions")
    warn(f"the log is not replayed, what changed last may be missing or half changed: {reason}")
    return Replayed(volume, sb, f"not replayed: {reason}")


class _Replay:
    def __init__(self, volume: Volume, sb: Superblock, log: Log) -> None:
        self.overlay = Overlay(volume, SECTOR)
        self.transactions = 0
        self._volume = volume
        self._sb = sb
        self._log = log
        self._v5 = sb.version == 5
        self._kept: list[Transaction] = []
        self._cancels: Counter[tuple[int, int]] = Counter()
        self._cancelled_at: Counter[int] = Counter()
        self._intents: dict[tuple[int, int], tuple[int, ...]] = {}

    def collect(self) -> None:
        """First pass: every record is checked, cancelled buffers are counted, what will be read is announced."""
        ranges: set[tuple[int, int]] = set()
        size = 0
        for transaction in committed(self._log, self._log.records()):
            size += transaction.size
            if size <= _KEPT:
                self._kept.append(transaction)
            else:
                self._kept.clear()
            for item in transaction.items():
                kind = _kind(item)
                if kind == log_items.BUFFER:
                    flags, offset, length = log_items.place(item)
                    if flags & log_items.CANCEL:
                        self._cancels[offset, length] += 1
                        self._cancelled_at[offset] += 1
                    ranges.add((offset, length))
                elif kind == log_items.INODE:
                    ranges.add(log_items.cluster(item))
                if len(ranges) > _MOST_ANNOUNCED:
                    ranges.clear()
                if len(self._cancels) > _MOST_REMEMBERED:
                    raise TooMuch("the log gives up more buffers than are remembered")
        self._volume.prefetch(sorted((at, length) for at, length in ranges if at > 0 and length > 0))

    def apply(self) -> None:
        """Second pass. Within a transaction, buffers and new inodes come first, then inodes, then cancels."""
        for transaction in self._kept or committed(self._log, self._log.records(check=False)):
            self.transactions += 1
            early: list[Item] = []
            inodes: list[Item] = []
            cancels: list[tuple[int, int]] = []
            for item in transaction.items():
                kind = _kind(item)
                if kind == log_items.BUFFER:
                    flags, offset, length = log_items.place(item)
                    if flags & log_items.CANCEL:
                        cancels.append((offset, length))
                    elif not flags & (log_items.INODE_LINKS | log_items.QUOTA) and self._cancels[offset, length] <= 0:
                        early.append(item)
                elif kind == log_items.CREATED:
                    early.append(item)
                elif kind == log_items.INODE:
                    inodes.append(item)
                elif kind in _INTENTS:
                    self._intent(kind, item[0])
            for item in early:
                if _kind(item) == log_items.BUFFER:
                    self._buffer(log_items.buffer(item), transaction)
                else:
                    self._created(log_items.created(self._sb, item))
            for item in inodes:
                self._inode(log_items.inode(item), transaction)
            for key in cancels:
                self._cancels[key] -= 1
                self._cancelled_at[key[0]] -= 1

    def _buffer(self, buffer: log_items.Buffer, transaction: Transaction) -> None:
        if self._v5 and self._later(buffer, transaction.lsn):
            return
        self._volume.check(buffer.offset, buffer.length)
        for at, data in buffer.parts:
            self.overlay.put(buffer.offset + at, data)

    def _later(self, buffer: log_items.Buffer, lsn: int) -> bool:
        """Whether the block on the disk has this change, or a later one. Another file system's block says nothing."""
        head = self.overlay.pread(buffer.offset, min(buffer.length, SECTOR))
        places = _STAMPS.get(head[:4]) or ((24, 32) if head[8:10] in _STAMPED else None)
        if places is None:
            return False
        stamp, uuid = places
        if head[uuid : uuid + 16] not in (self._sb.metadata_uuid, self._sb.uuid):
            return False
        found = int.from_bytes(head[stamp : stamp + 8], "big")
        return found not in _NEVER and found >= lsn

    def _created(self, created: log_items.Created) -> None:
        start, length = created.block << self._sb.block_log, created.blocks << self._sb.block_log
        if any(self._cancelled_at[at] > 0 for at in range(start, start + length, SECTOR)):
            return
        self.overlay.put(start, log_items.fresh(self._sb, created))

    def _inode(self, logged: log_items.LoggedInode, transaction: Transaction) -> None:
        if self._cancels[logged.buffer] > 0:
            return
        if self._sb.inode_offset(logged.number) not in (logged.offset, None):
            raise Corrupt("an inode of the log contradicts itself", f"inode {logged.number}: its place")
        current = self.overlay.pread(logged.offset, self._sb.inode_size)
        if current[:2] != b"IN":
            raise Corrupt("an inode of the log stands where none is", f"inode {logged.number}")
        if current[4] == 3:
            lsn = int.from_bytes(current[112:120], "big")
            if lsn not in _NEVER and lsn > transaction.lsn:
                return
        elif _flushed_later(int.from_bytes(current[30:32], "big"), int.from_bytes(logged.core[30:32], "little")):
            return
        self.overlay.put(logged.offset, log_items.on_disk(self._sb, logged, current, transaction.lsn))

    # -- what a mount would finish

    def _intent(self, kind: int, data: bytes) -> None:
        """Remembers what is begun until it is done."""
        begins, inodes = _INTENTS[kind]
        key = (begins, int.from_bytes(data[8:16], "little"))
        if begins == kind:
            if len(self._intents) > _MOST_REMEMBERED:
                raise TooMuch("the log has more steps under way than are remembered")
            self._intents[key] = tuple(int.from_bytes(data[at : at + 8], "little") for at in inodes)
        else:
            self._intents.pop(key, None)

    def unfinished(self) -> list[str]:
        return [
            f"a change of inode {number} was under way when the machine stopped, and a mount would finish it"
            for inodes in self._intents.values()
            for number in inodes
        ]


_INTENTS: dict[int, tuple[int, tuple[int, ...]]] = {  # which kind it begins or ends, and where it names inodes
    log_items.MAP: (log_items.MAP, (16,)),
    log_items.MAP_DONE: (log_items.MAP, ()),
    log_items.ATTRIBUTE: (log_items.ATTRIBUTE, (16,)),
    log_items.ATTRIBUTE_DONE: (log_items.ATTRIBUTE, ()),
    log_items.EXCHANGE: (log_items.EXCHANGE, (16, 24)),
    log_items.EXCHANGE_DONE: (log_items.EXCHANGE, ()),
}


def _kind(item: Item) -> int:
    kind = int.from_bytes(item[0][:2], "little")
    if not log_items.FIRST_KNOWN <= kind <= log_items.LAST_KNOWN:
        raise Corrupt("the log has an item of a kind that is not known", f"{kind:#x}")
    return kind


def _flushed_later(disk: int, logged: int) -> bool:
    """Of version 4: inodes count how often they were written, in 16 bits that begin anew."""
    return logged < disk and not (disk == 0xFFFF and logged < _HALF)
