# SPDX-License-Identifier: Apache-2.0
"""Small files that a command leaves on the worker: they appear whole or not at all, and never in place of another."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import BinaryIO

from mover.disk.target import rename_new
from mover.errors import StoreFull, TargetError


def is_free(path: str, ours: Callable[[BinaryIO], bool], what: str) -> bool:
    """Whether nothing has the name. False: a file is there that an earlier run of the same command left, by what `ours` says of
    it. TargetError: one that it did not leave."""
    if not os.path.lexists(path):
        return True
    try:
        if os.path.isfile(path):  # a pipe would be waited for
            with open(path, "rb") as file:
                if ours(file):
                    return False
    except OSError as error:
        raise _failed(what, path, error) from None
    raise TargetError(f"the file for {what} exists", path, "name a file that does not exist")


def write_new(path: str, data: bytes, what: str) -> None:
    """Durable, under its name, when this returns."""
    partial = path + ".partial"
    try:
        with open(partial, "wb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o600)) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        rename_new(partial, path)
    except OSError as error:
        raise _failed(what, path, error) from None


def _failed(what: str, path: str, error: OSError) -> StoreFull | TargetError:
    kind = StoreFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else TargetError
    return kind(f"{what} cannot be written", f"{path}: {error.strerror}")
