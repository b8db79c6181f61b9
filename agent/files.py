# SPDX-License-Identifier: Apache-2.0
"""Small files that a command leaves on the worker: they appear whole or not at all, and never in place of another."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

from mover.disk.target import rename_new, sync_folder
from mover.errors import StoreFull, TargetError

NAME_MAX = 255
"""Bytes, on every file system that we write to."""


def is_free(path: str, ours: Callable[[BinaryIO], bool], what: str) -> bool:
    """Whether nothing has the name. False: a file is there that an earlier run of the same command left, by what `ours` says of
    it. TargetError: one that it did not leave, or no file can have the name."""
    try:
        if not os.path.lexists(path):
            os.stat(os.path.dirname(path) or ".")
            if len(os.fsencode(os.path.basename(path))) > NAME_MAX:
                raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
            return True
        if os.path.isfile(path):  # a pipe would be waited for
            with open(path, "rb") as file:
                if ours(file):
                    return False
    except OSError as error:
        raise _failed(what, path, error) from None
    raise TargetError(f"the file for {what} exists", path, "name a file that does not exist")


@contextmanager
def new_file(path: str, what: str) -> Iterator[BinaryIO]:
    """To be written within; durable, under its name, when that ends well, and gone when it does not. TargetError when something has
    the name by now, StoreFull."""
    folder = os.path.dirname(path) or "."
    partial = os.path.join(folder, f".data-mover-{secrets.token_hex(8)}.partial")
    try:
        with open(partial, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                rename_new(partial, path)
            except BaseException:
                os.unlink(partial)
                raise
        sync_folder(folder)
    except OSError as error:
        raise _failed(what, path, error) from None


def write_new(path: str, data: bytes, what: str) -> None:
    """As `new_file`, with all of its bytes."""
    with new_file(path, what) as file:
        file.write(data)


def _failed(what: str, path: str, error: OSError) -> StoreFull | TargetError:
    kind = StoreFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else TargetError
    return kind(f"{what} cannot be written", f"{path}: {error.strerror}")
