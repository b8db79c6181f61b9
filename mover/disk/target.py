# SPDX-License-Identifier: Apache-2.0
"""Places to write a disk to: a new sparse file, a fixed VHD, an existing file or block device in place.

A new file grows under `PATH.partial` and gets its name when it is whole, so a half restore is never taken for a disk; a
`.partial` that is found is gone on with, block by block, since a restore compares before it writes. A file that has the name
already is only compared: it is the one that an earlier run of the same restore left, or it is refused as it is.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import fcntl
import os
import stat
import uuid
from collections.abc import Iterator
from typing import Protocol

from mover.disk import vhd
from mover.errors import SourceError, StoreFull, TargetError
from mover.repository.chunk import BLOCK_SIZE

PARTIAL = ".partial"
_KEEP_SIZE, _PUNCH_HOLE = 1, 2
_AT_FDCWD, _RENAME_NOREPLACE = -100, 1
_LIBC = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
_ZERO = bytes(1 << 20)
CUT_HINT = "give --format vhd to restore into it, or name another target"
FOR_ONE = "wait until it has ended, or name another target"


class DiskTarget(Protocol):
    """What a restore asks of a target of `size` bytes. `read_into`, `write`, `zero` and `data_within` MUST be safe for threads.

    `compare`: what is there may be right already, so the restore reads before it writes; otherwise all of it reads as zeros.
    `existed`: it was there before and is only looked at: whoever wants to change a byte of it gets TargetError.
    `unguarded`: nothing keeps another restore from writing it at the same time, so what was written is always verified.
    `remote`: it has limits of its own, and is written beside other disks'. `at_once`: fetches and writes worth having on their way
    at a time. `most`: bytes of one write, neighbouring blocks together.
    """

    path: str
    size: int
    compare: bool
    existed: bool
    unguarded: bool
    remote: bool
    at_once: int
    most: int

    def read_into(self, offset: int, target: bytearray | memoryview) -> None:
        """What stands there now."""

    def write(self, offset: int, data: bytes) -> None: ...

    def zero(self, offset: int, length: int) -> None:
        """Make a range read as zeros."""

    def data_within(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Ranges (start, end) between the two that may hold something else than zeros."""

    def sync(self) -> None:
        """Durable; and what is read next comes from where it is stored."""

    def finish(self, time: float) -> None:
        """The restore is whole, at `time` (Unix seconds): durable, and no longer told from a disk."""

    def close(self) -> None: ...


class FileTarget:
    """See `DiskTarget`: a file or a block device of at least `size` bytes."""

    at_once, most = 4, BLOCK_SIZE
    unguarded = remote = False

    def __init__(self, path: str, size: int, *, in_place: bool = False, as_vhd: bool = False) -> None:
        self.path = path
        self.size = size
        self._as_vhd = as_vhd
        self._final: str | None = None
        try:
            self._open(in_place)
        except OSError as error:
            raise _target_error("a target cannot be opened", path, error) from None
        except ValueError as error:  # a path with a zero byte in it
            raise TargetError("a target cannot be opened", f"{path!r}: {error}") from None

    def _open(self, in_place: bool) -> None:
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            status = None
        self._is_device = status is not None and stat.S_ISBLK(status.st_mode)
        if status is not None and not self._is_device and not stat.S_ISREG(status.st_mode):
            raise TargetError("a target is neither a file nor a block device", self.path)
        self.existed = status is not None and not self._is_device and not in_place
        if status is None and in_place:
            raise TargetError(
                "there is nothing to restore in place", self.path, "leave --in-place away to make a new file"
            )
        path = self.path
        if status is None:
            self._final = self.path
            path = self.path + PARTIAL
        # O_EXCL on a device: refused while it is mounted, part of a volume, or the target of another restore
        how = os.O_CREAT if status is None else os.O_EXCL if self._is_device else 0
        access = os.O_RDONLY if self.existed else os.O_RDWR
        self._fd = os.open(path, access | os.O_CLOEXEC | how, 0o600)
        try:
            self._take(path)
            self.compare = status is not None or os.fstat(self._fd).st_size > 0
            if self._is_device:
                if self._as_vhd:
                    raise TargetError(
                        "a VHD is a file; a device takes the disk itself", self.path, "leave --format vhd away"
                    )
                capacity = os.lseek(self._fd, 0, os.SEEK_END)
                if capacity < self.size:
                    raise TargetError(
                        "the device is smaller than the disk", f"{self.path}: {capacity} of {self.size} bytes"
                    )
            elif self.existed:
                self._check_length()
            else:
                self._refuse_to_cut_a_vhd()
                os.ftruncate(self._fd, self.size)
        except BaseException:
            os.close(self._fd)
            raise

    def _check_length(self) -> None:
        """Whether a file that is there can be this disk at all."""
        size = os.fstat(self._fd).st_size
        if size != self.size + (vhd.FOOTER_SIZE if self._as_vhd else 0):
            raise self._exists(f"{size} bytes")
        if self._as_vhd:
            try:
                footer = vhd.read_footer(os.pread(self._fd, vhd.FOOTER_SIZE, self.size), size, self.path)
            except SourceError:
                footer = None
            if footer is None:
                raise self._exists("it does not end as a fixed VHD of this size")

    def _exists(self, how: str) -> TargetError:
        hint = "name a file that does not exist, or write over it with --in-place"
        return TargetError("the target exists and is not this disk", f"{self.path}: {how}", hint)

    def _refuse_to_cut_a_vhd(self) -> None:
        """A VHD without its footer is a file that its users no longer open."""
        size = os.fstat(self._fd).st_size
        if self._as_vhd or self._final is not None or size < vhd.FOOTER_SIZE:
            return
        end = os.pread(self._fd, vhd.FOOTER_SIZE, size - vhd.FOOTER_SIZE)
        if vhd.is_footer(end):
            raise TargetError("the target is a VHD and would be none afterwards", self.path, CUT_HINT)

    def _take(self, path: str) -> None:
        """One restore at a time: of two that write one file, each would find it whole, and one of them be wrong."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = os.path.samestat(os.fstat(self._fd), os.stat(path))
        except (BlockingIOError, FileNotFoundError):
            ours = False
        except OSError:
            return  # a file system without locks
        if not ours:  # not the file of that name any more: another restore has given it its own
            raise TargetError("another restore writes the target", self.path, FOR_ONE)

    def read_into(self, offset: int, target: bytearray | memoryview) -> None:
        view = memoryview(target)
        try:
            while len(view):
                count = os.preadv(self._fd, [view], offset)
                if count == 0:
                    raise TargetError("the target ends too early", f"{self.path} at {offset}")
                view, offset = view[count:], offset + count
        except OSError as error:
            raise _target_error("a target cannot be read", f"{self.path} at {offset}", error) from None

    def write(self, offset: int, data: bytes) -> None:
        if self.existed:
            raise self._exists(f"it differs at {offset}")
        view = memoryview(data)
        try:
            while len(view):
                count = os.pwrite(self._fd, view, offset)
                view, offset = view[count:], offset + count
        except OSError as error:
            raise _target_error("a target cannot be written", f"{self.path} at {offset}", error) from None

    def data_within(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        if self._is_device:
            yield start, end
            return
        fd = os.open(f"/proc/self/fd/{self._fd}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            while start < end:
                low = os.lseek(fd, start, os.SEEK_DATA)
                if low >= end:
                    return
                high = min(end, os.lseek(fd, low, os.SEEK_HOLE))
                yield low, high
                start = high
        except OSError as error:
            if error.errno != errno.ENXIO:  # that is: no data from here to the end
                raise _target_error("a target's allocation cannot be read", self.path, error) from None
        finally:
            os.close(fd)

    def zero(self, offset: int, length: int) -> None:
        """A hole where the file system can, zeros otherwise."""
        if self.existed:
            raise self._exists(f"it differs at {offset}")
        punched = _LIBC.fallocate(
            self._fd, _PUNCH_HOLE | _KEEP_SIZE, ctypes.c_longlong(offset), ctypes.c_longlong(length)
        )
        while punched != 0 and length:
            part = min(length, len(_ZERO))
            self.write(offset, _ZERO[:part])
            offset, length = offset + part, length - part

    def sync(self) -> None:
        """Durable, and out of the page cache."""
        try:
            os.fsync(self._fd)
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError as error:
            raise _target_error("a target cannot be made durable", self.path, error) from None

    def finish(self, time: float) -> None:
        """Footer, fsync, final name."""
        if self._as_vhd and not self.existed:
            self.write(self.size, vhd.make_footer(self.size, uuid.uuid4(), time))
        self.sync()
        if self._final is None:
            return
        try:
            rename_new(self.path + PARTIAL, self._final)
            sync_folder(os.path.dirname(os.path.abspath(self._final)))
        except OSError as error:
            raise _target_error("the restored file cannot be given its name", self._final, error) from None

    def close(self) -> None:
        os.close(self._fd)


def sync_folder(path: str) -> None:
    """Make a folder's entries durable."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def rename_new(old: str, new: str) -> None:
    """Give a file its name unless the name is taken (FileExistsError); by a hard link where the kernel cannot do it in one."""
    if _LIBC.renameat2(_AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new), _RENAME_NOREPLACE) == 0:
        return
    error = ctypes.get_errno()
    if error not in (errno.EINVAL, errno.ENOSYS):
        raise OSError(error, os.strerror(error), old, None, new)
    os.link(old, new)
    os.unlink(old)


def _target_error(what: str, value: str, error: OSError) -> TargetError | StoreFull:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull(
            what, f"{value}: {error.strerror}", "free space, then issue the same restore again: it goes on"
        )
    return TargetError(what, f"{value}: {error.strerror}", "check the path, its file system and your rights to it")
