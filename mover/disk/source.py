# SPDX-License-Identifier: Apache-2.0
"""Disks to read: a raw image file, a fixed VHD, a block device.

A source says what it is (identity), what can be trusted across a crash (`source`), which ranges are allocated, and fills
buffers. It is read as it is: consistency is the snapshot's business, but a file that changed while it was read is noticed.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from typing import Protocol

from mover.disk import vhd
from mover.errors import SourceChanged, SourceError

ADVICE = 16
"""Hints of `read_ahead` that are passed to the kernel after a read that the page cache could not answer. On what is cached a
hint costs a walk over its pages and gains nothing (docs/decisions/0004)."""


class DiskSource(Protocol):
    """What a backup asks of a disk. `read_into`, `read_ahead` and `extents` MUST be safe for many threads.

    `in_flight`: requests worth having on their way at a time; 0 when reading is a copy from the page cache, best done by the
    thread that will hash the bytes, while they are in its processor's cache.

    `identity`: which disk this is, whatever snapshot of it. `snapshot`: which state of it, if known: the base that the next
    change map must name. `source`: equal only if the bytes are the same ones as when it was noted; None when nothing tells.
    """

    name: str
    identity: str
    size: int
    sector_size: int
    snapshot: str | None
    source: str | None
    in_flight: int

    def extents(self) -> Iterator[tuple[int, int]]:
        """Allocated ranges (offset, length) in bytes, ascending; what lies between reads as zeros."""

    def read_into(self, offset: int, buffers: Sequence[bytearray | memoryview]) -> None:
        """Fill the buffers, one after the other, from `offset` on. SourceError when the disk has not so much."""

    def read_ahead(self, offset: int, length: int) -> None:
        """This range will be read soon: a hint."""

    def check_unchanged(self) -> None:
        """SourceChanged when the source is known to have changed since it was opened."""

    def close(self) -> None: ...


class FileSource:
    """A raw image, a fixed VHD (its footer is no part of the disk) or a block device."""

    def __init__(self, path: str, *, name: str = "", identity: str = "") -> None:
        self.path = path
        hint = "check the path and your rights to it"
        try:  # non-blocking: a pipe is to be refused, not waited for
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise SourceError("a disk cannot be opened", f"{path}: {error.strerror}", hint) from None
        except ValueError as error:  # a path with a zero byte in it
            raise SourceError("a disk cannot be opened", f"{path!r}: {error}", hint) from None
        try:
            self._open(path, name, identity)
        except BaseException:
            os.close(self._fd)
            raise

    def _open(self, path: str, name: str, identity: str) -> None:
        status = os.fstat(self._fd)
        self._is_device = stat.S_ISBLK(status.st_mode)
        if not self._is_device and not stat.S_ISREG(status.st_mode):
            raise SourceError("not a disk image and not a block device", path)
        file_size = os.lseek(self._fd, 0, os.SEEK_END)
        self.name = name or os.path.basename(path)
        self.identity = identity or self.name
        self.size = file_size
        self.sector_size = 512
        self.snapshot: str | None = None
        self.source = None if self._is_device else self._stamp()
        self.in_flight = 0
        self._advice = 0  # hints still worth their price; threads race for it, and no count depends on it
        self.is_vhd = False
        if not self._is_device and file_size >= vhd.FOOTER_SIZE:
            footer = vhd.read_footer(os.pread(self._fd, vhd.FOOTER_SIZE, file_size - vhd.FOOTER_SIZE), file_size, path)
            if footer:
                self.is_vhd = True
                self.size = footer.size
                self.identity = identity or f"vhd:{footer.unique_id}"
        if self.size == 0:
            raise SourceError("a disk is empty", path, "name an image or a device that has a size")

    def _stamp(self) -> str:
        status = os.fstat(self._fd)
        return f"file:{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"

    def extents(self) -> Iterator[tuple[int, int]]:
        if self._is_device:
            yield 0, self.size
            return
        fd = os.open(f"/proc/self/fd/{self._fd}", os.O_RDONLY | os.O_CLOEXEC)  # a file position of our own
        try:
            at = 0
            while at < self.size:
                try:
                    start = os.lseek(fd, at, os.SEEK_DATA)
                    end = min(os.lseek(fd, start, os.SEEK_HOLE), self.size)
                except OSError as error:
                    if error.errno == errno.ENXIO:  # no data from here to the end
                        return
                    raise SourceError("a disk's allocation cannot be read", f"{self.path}: {error.strerror}") from None
                if start < end:
                    yield start, end - start
                at = max(end, start + 1)
        finally:
            os.close(fd)

    def read_into(self, offset: int, buffers: Sequence[bytearray | memoryview]) -> None:
        wanted = sum(len(buffer) for buffer in buffers)
        try:
            got = self._read_cached(offset, buffers)
            if got < wanted:
                self._advice = ADVICE
                self._read_rest(offset, buffers, got)
        except OSError as error:
            what = f"{self.path} at {offset}: {error.strerror}"
            raise SourceError(
                "a disk cannot be read", what, "check the disk; the backup resumes where it stopped"
            ) from None

    def _read_cached(self, offset: int, buffers: Sequence[bytearray | memoryview]) -> int:
        """As many bytes as the page cache has at once; a fault is left to the read that may wait."""
        try:
            return os.preadv(self._fd, buffers, offset, os.RWF_NOWAIT)
        except OSError:  # nothing cached, or a file system that does not tell
            return 0

    def _read_rest(self, offset: int, buffers: Sequence[bytearray | memoryview], got: int) -> None:
        at = 0
        for buffer in buffers:
            view = memoryview(buffer)
            done = min(max(got - at, 0), len(view))
            while done < len(view):
                count = os.preadv(self._fd, [view[done:]], offset + at + done)
                if count == 0:
                    what = f"{self.path}: ends at {offset + at + done}, was {self.size}"
                    raise SourceChanged("a disk became shorter while it was read", what)
                done += count
            at += len(view)

    def read_ahead(self, offset: int, length: int) -> None:
        if self._advice > 0:
            self._advice -= 1
            os.posix_fadvise(self._fd, offset, length, os.POSIX_FADV_WILLNEED)

    def check_unchanged(self) -> None:
        if self.source is not None and self._stamp() != self.source:
            raise SourceChanged("a disk image was changed while it was read", self.path)

    def close(self) -> None:
        os.close(self._fd)
