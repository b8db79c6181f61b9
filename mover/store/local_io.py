# SPDX-License-Identifier: Apache-2.0
"""What the local store does to files: durable writing from parts, folders that last, errors with a name.

Durable means: the content is forced out before the file gets its name, and the folder after. Nothing here locks, and
nothing here knows what a record is.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mover.errors import AccessDenied, ObjectNotFound, StoreError, StoreFull

_MOST_PARTS = 512  # of one writev; the kernel's limit (IOV_MAX) is 1,024
_FORGOTTEN = 60.0  # seconds after which a temporary file that nobody has locked is a dead process's


def translated(error: OSError, name: str) -> StoreError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull("no space left in the local store", name)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return AccessDenied(
            f"the local store may not be used so ({error.strerror})", name, "check owner and mode of the store's folder"
        )
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR):
        return ObjectNotFound("no such object", name)
    if error.errno == errno.EEXIST:
        return folder_in_the_way(name)
    code = errno.errorcode.get(error.errno or 0, str(error.errno))
    return StoreError(
        f"the local store failed with {code} ({error.strerror})", name, "check the disk and its file system"
    )


def folder_in_the_way(name: str) -> StoreError:
    return StoreError("an object and a folder would share a name", name, "a local store keeps names as paths")


@contextmanager
def errors_named(name: str) -> Iterator[None]:
    """Every OSError inside becomes a StoreError that names the object."""
    try:
        yield
    except OSError as error:
        raise translated(error, name) from error


@contextmanager
def durable_file(folder: Path, parts: Sequence[memoryview]) -> Iterator[Path]:
    """A new file in `folder` with the parts, forced to the disk, for the caller to rename; removed if that fails.

    Its lock is held meanwhile: whoever can take it (see `remove_forgotten`) knows that the writer is dead.
    """
    path = folder / os.urandom(16).hex()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            _write_all(descriptor, parts)
            os.fsync(descriptor)
            yield path
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, parts: Sequence[memoryview]) -> None:
    for first in range(0, len(parts), _MOST_PARTS):
        some = [part for part in parts[first : first + _MOST_PARTS] if part.nbytes]
        while some:
            done = os.writev(descriptor, some)
            while some and done >= some[0].nbytes:
                done -= some.pop(0).nbytes
            if some and done:
                some[0] = some[0][done:]


@contextmanager
def durable_folder(path: Path) -> Iterator[None]:
    """What is done inside to the folder's entries is on the disk afterwards, even if the folder goes meanwhile."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folders(root: Path, folder: Path) -> None:
    """Every folder from below `root` to `folder`, each durable in the one above it."""
    if folder == root:
        return
    make_folders(root, folder.parent)
    # Forced also when it is there already: the process that made it may not have come so far yet.
    with durable_folder(folder.parent):
        while not folder.is_dir():
            try:
                folder.mkdir()
            except FileExistsError:
                if os.path.lexists(folder) and not folder.is_dir():
                    raise
                # It was there, and a deletion beside us has just taken it away: once more.


def remove_forgotten(folder: Path, now: float) -> None:
    """Delete temporary files of processes that died while they wrote; `now` in Unix seconds."""
    for path in folder.iterdir():
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            # The age covers the moment between a living writer's creat() and its flock().
            if now - os.fstat(descriptor).st_mtime > _FORGOTTEN:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
        except BlockingIOError:
            pass  # it is being written
        finally:
            os.close(descriptor)
