# SPDX-License-Identifier: Apache-2.0
"""The journal (JBD2): what its replay would write, put over the volume in memory.

A log ends where the next commit is missing; that is no fault. A block of a committed transaction whose checksum is wrong is one,
and then nothing at all is replayed: the choice is between the guest's last moment and the moment before, never a mixture. Revoked
blocks are not written, escaped ones get their first word back, fast commits are recognised and left out, with a warning.
Format: Documentation/filesystems/ext4/journal.rst. Integers are big-endian.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

from flr.blocks import Extent, Segment, Volume
from flr.errors import Corrupt, Unsupported
from flr.fs.ext.checksum import ONES, crc32c
from flr.fs.overlay import Overlay

MAGIC = 0xC03B3998
DESCRIPTOR, COMMIT, SUPER_V1, SUPER_V2, REVOKE = 1, 2, 3, 4, 5
COMPAT_CHECKSUM = 1
HAS_REVOKES, BITS64, ASYNC, CHECKSUM_V2, CHECKSUM_V3, FAST_COMMITS = 1, 2, 4, 8, 16, 32
KNOWN = HAS_REVOKES | BITS64 | ASYNC | CHECKSUM_V2 | CHECKSUM_V3 | FAST_COMMITS
ESCAPED, SAME_UUID, LAST = 1, 2, 8
DEFAULT_FAST_BLOCKS = 256
_HEADER = struct.Struct(">III")
COMMIT_HEAD = 60
"""Bytes of a commit block that say something; the rest is zeros when it is written, and may not have come so far."""
FAST_HEAD = 9
"""The tag of a fast commit's first record; its fields are little-endian."""


@dataclass
class Log:
    """The journal's own superblock. `first` to `last` are its blocks that hold transactions; `start` is 0 where there are none."""

    block_size: int
    blocks: int
    first: int
    last: int
    sequence: int
    start: int
    features: int
    compat: int
    seed: int

    @property
    def checksums(self) -> bool:
        return bool(self.features & (CHECKSUM_V2 | CHECKSUM_V3))


@dataclass
class Transaction:
    """(block of the volume, block of the log, flags, checksum) of each block, and what was revoked, by block."""

    sequence: int
    blocks: list[tuple[int, int, int, int]] = field(default_factory=list)
    revoked: list[int] = field(default_factory=list)


class Journal:
    """Read from `runs`, the journal's content on `volume`. `warn` is told what is odd."""

    def __init__(self, volume: Volume, runs: list[Segment], block_size: int, warn: Callable[[str], None]) -> None:
        self._volume = volume
        self._runs: list[tuple[int, int, int]] = []  # (offset in the journal, offset in the volume, length)
        at = 0
        for run in runs:
            if not isinstance(run, Extent):
                raise Corrupt("the journal's file has holes", f"at {at}")
            self._runs.append((at, run.offset, run.length))
            at += run.length
        self._size = at
        self._warn = warn
        self._run = 0
        self.log = self._superblock(block_size)

    def _read(self, block: int) -> bytes:
        """A block of the log. Blocks are asked for in order, so the run last used is tried first."""
        size = self.log.block_size
        at = block * size
        for k in (self._run, self._run + 1, *range(len(self._runs))):
            if k < len(self._runs):
                start, place, length = self._runs[k]
                if start <= at and at + size <= start + length:
                    self._run = k
                    return self._volume.pread(place + at - start, size)
        raise Corrupt("the journal is shorter than it says", f"block {block}")

    def _superblock(self, block_size: int) -> Log:
        _, place, length = self._runs[0] if self._runs else (0, 0, 0)
        raw = self._volume.pread(place, min(length, 1024))
        if len(raw) < 1024:
            raise Corrupt("the journal is too short", f"{self._size} bytes")
        magic, kind, _, size, blocks, first, sequence, begin = struct.unpack_from(">8I", raw)
        if magic != MAGIC or kind not in (SUPER_V1, SUPER_V2):
            raise Corrupt("the journal does not begin as one")
        compat, features = struct.unpack_from(">II", raw, 0x24) if kind == SUPER_V2 else (0, 0)
        if features & ~KNOWN:
            raise Unsupported("the journal uses features that are not known here", f"{features & ~KNOWN:#x}")
        if size != block_size or not 0 < first < blocks or blocks * size > self._size or begin >= blocks:
            raise Corrupt("the journal's superblock contradicts itself", f"{blocks} blocks of {size}, log from {begin}")
        seed = 0
        if features & (CHECKSUM_V2 | CHECKSUM_V3):
            register = crc32c(ONES, raw[:0xFC] + b"\0\0\0\0" + raw[0x100:])
            if raw[0x50] != 4 or register != struct.unpack_from(">I", raw, 0xFC)[0]:
                raise Corrupt("the journal's superblock has a wrong checksum")
            seed = crc32c(ONES, raw[0x30:0x40])
        last = blocks
        if features & FAST_COMMITS:
            last -= struct.unpack_from(">I", raw, 0x54)[0] or DEFAULT_FAST_BLOCKS
            if last <= first:
                raise Corrupt(
                    "the journal's superblock contradicts itself", f"{blocks} blocks, none but for fast commits"
                )
        return Log(size, blocks, first, last, sequence, begin, features, compat, seed)

    # -- reading the log

    def transactions(self) -> list[Transaction]:
        """Those that were committed, in order. Corrupt where the log cannot be trusted."""
        log = self.log
        found: list[Transaction] = []
        current = Transaction(log.sequence)
        block, visited = log.start, 0
        doubt = ""
        committed_at = 0
        sums = ONES
        while log.start and visited <= log.blocks:
            raw = self._read(block)
            magic, kind, sequence = _HEADER.unpack_from(raw)
            if magic != MAGIC or sequence != current.sequence:
                break
            visited += 1
            if kind == DESCRIPTOR:
                if not self._tail_right(raw):  # damage, or left from an earlier round of the log: its commit tells
                    doubt = f"block {block} of the log"
                tags = self._tags(raw)
                visited += len(tags)
                for place, flags, checksum in tags:
                    block = self._next(block)
                    current.blocks.append((place, block, flags, checksum))
                if log.compat & COMPAT_CHECKSUM:
                    sums = self._summed(sums, raw, current.blocks[len(current.blocks) - len(tags) :])
            elif kind == REVOKE:
                if self._tail_right(raw):
                    current.revoked += self._revoked(raw)
                else:
                    doubt = f"block {block} of the log"
            elif kind == COMMIT:
                if not self._commit_right(raw, sums):
                    self._warn(
                        f"the journal's transaction {sequence} has a wrong checksum: it is left out, and what follows it"
                    )
                    break
                if doubt:
                    if self._committed_at(raw) < committed_at:
                        break
                    raise Corrupt(
                        "a block of a committed transaction has a wrong checksum", f"{doubt}, transaction {sequence}"
                    )
                committed_at = self._committed_at(raw)
                found.append(current)
                current = Transaction((sequence + 1) & ONES)
                sums = ONES
            else:
                break
            block = self._next(block)
        if log.features & FAST_COMMITS and self._has_fast_commits(current.sequence):
            self._warn(
                "the journal has fast commits, which are not replayed: changes of the last seconds may be missing"
            )
        return found

    def _next(self, block: int) -> int:
        return block + 1 if block + 1 < self.log.last else self.log.first

    def _tags(self, raw: bytes) -> list[tuple[int, int, int]]:
        """(block, flags, checksum) of a descriptor."""
        log = self.log
        wide = log.features & BITS64
        if log.features & CHECKSUM_V3:
            size = 16
        else:
            size = (12 if wide else 8) + (2 if log.features & CHECKSUM_V2 else 0)
        end = len(raw) - (4 if log.checksums else 0)
        found = []
        at = 12
        while at + size <= end:
            if log.features & CHECKSUM_V3:
                low, flags, high, checksum = struct.unpack_from(">IIII", raw, at)
            else:
                low, checksum, flags = struct.unpack_from(">IHH", raw, at)
                high = struct.unpack_from(">I", raw, at + 8)[0] if wide else 0
            at += size + (0 if flags & SAME_UUID else 16)
            found.append((low | high << 32 if wide else low, flags, checksum))
            if flags & LAST:
                break
        return found

    def _revoked(self, raw: bytes) -> list[int]:
        used = struct.unpack_from(">I", raw, 12)[0]
        width = 8 if self.log.features & BITS64 else 4
        if used < 16 or used > len(raw) - (4 if self.log.checksums else 0):
            raise Corrupt("the journal revokes more than a block of it holds", f"{used} bytes")
        return [int.from_bytes(raw[at : at + width], "big") for at in range(16, used - width + 1, width)]

    def _tail_right(self, raw: bytes) -> bool:
        if not self.log.checksums:
            return True
        return crc32c(self.log.seed, raw[:-4] + b"\0\0\0\0") == int.from_bytes(raw[-4:], "big")

    def _summed(self, sums: int, descriptor: bytes, blocks: list[tuple[int, int, int, int]]) -> int:
        """The older checksum: of a whole transaction's blocks, CRC-32 as `_big_endian_crc` computes it."""
        sums = _big_endian_crc(sums, descriptor)
        for _, block, _, _ in blocks:
            sums = _big_endian_crc(sums, self._read(block))
        return sums

    def _committed_at(self, raw: bytes) -> int:
        """In ns since 1970, by the guest's clock."""
        seconds, nanoseconds = struct.unpack_from(">QI", raw, 0x30)
        return int(seconds) * 10**9 + int(nanoseconds)

    def _commit_right(self, raw: bytes, sums: int) -> bool:
        if self.log.checksums:
            stored = int.from_bytes(raw[16:20], "big")
            head = raw[:16] + b"\0\0\0\0" + raw[20:COMMIT_HEAD]
            written = head + raw[COMMIT_HEAD:], head + bytes(len(raw) - COMMIT_HEAD)
            return stored in (crc32c(self.log.seed, whole) for whole in written)  # the rest of the block may be torn
        if self.log.compat & COMPAT_CHECKSUM and raw[12:20] != bytes(8):  # all zero: its writer made none
            return raw[12:14] == b"\1\4" and int.from_bytes(raw[16:20], "big") == sums
        return True

    def _has_fast_commits(self, sequence: int) -> bool:
        """Whether the area behind the log begins with some that belong behind the last commit. A block between the two is not
        used, as images show."""
        begins = self.log.last + 1
        if begins >= self.log.blocks:
            return False
        tag, _, _, of = struct.unpack_from("<HHII", self._read(begins))
        return bool(tag == FAST_HEAD and of == sequence)

    # -- replaying

    def replay(self, overlay: Overlay) -> int:
        """Puts what was committed over the volume and returns how many transactions that were. Corrupt, TooMuch."""
        log = self.log
        done = self.transactions()
        revoked: dict[int, int] = {}
        for number, transaction in enumerate(done):
            revoked.update(dict.fromkeys(transaction.revoked, number))
        last: dict[int, tuple[int, int, int, int]] = {}
        for number, transaction in enumerate(done):
            for place, block, flags, checksum in transaction.blocks:
                if revoked.get(place, -1) < number:
                    last[place] = (block, flags, checksum, transaction.sequence)
        for place, (block, flags, checksum, sequence) in sorted(last.items()):
            raw = self._read(block)
            if log.checksums:
                register = crc32c(crc32c(log.seed, sequence.to_bytes(4, "big")), raw)
                if checksum != (register if log.features & CHECKSUM_V3 else register & 0xFFFF):
                    raise Corrupt(
                        "a block of the journal has a wrong checksum", f"transaction {sequence}, for block {place}"
                    )
            if flags & ESCAPED:
                raw = MAGIC.to_bytes(4, "big") + raw[4:]
            overlay.put(place * log.block_size, raw)
        return len(done)


def _big_endian_crc(register: int, data: bytes) -> int:
    """CRC-32 with its bits from the top, without inversions: what the oldest journal checksums are made of."""
    flipped = int(f"{register:032b}"[::-1], 2)
    made = zlib.crc32(data.translate(_REVERSED), flipped ^ ONES) ^ ONES
    return int(f"{made:032b}"[::-1], 2)


_REVERSED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))
