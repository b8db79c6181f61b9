# SPDX-License-Identifier: Apache-2.0
"""The file system of a volume, by what its first bytes say."""

from __future__ import annotations

from flr.blocks import Volume
from flr.errors import NotRecognised
from flr.fs.base import FileSystem
from flr.fs.ext.open import open_ext
from flr.fs.fat.reader import Fat
from flr.fs.ntfs.reader import Ntfs
from flr.fs.xfs import open_xfs


def open_file_system(volume: Volume, holds: str, *, replay: bool = True) -> FileSystem:
    """`holds`: the signature found (`flr.volumes.signatures`). `replay`: with what is only in its journal, if that can be replayed.
    NotRecognised, Unsupported, Corrupt, OutOfBounds."""
    if holds == "ext":
        return open_ext(volume, replay=replay)
    if holds == "xfs":
        return open_xfs(volume, replay=replay)
    if holds == "ntfs":
        return Ntfs(volume)
    if holds in ("fat", "exfat"):
        return Fat(volume)
    raise NotRecognised("this holds no file system that can be read here", holds or "nothing that is known")
