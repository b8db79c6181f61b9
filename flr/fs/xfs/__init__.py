# SPDX-License-Identifier: Apache-2.0
"""XFS: `open_xfs` reads one volume; `reader` says what it is made of."""

from flr.blocks import Volume
from flr.fs.base import FileSystem
from flr.fs.xfs.reader import Xfs


def open_xfs(volume: Volume, *, replay: bool = True) -> FileSystem:
    """NotRecognised unless an XFS begins there; Unsupported and Corrupt when it cannot be read as a whole."""
    return Xfs(volume, replay=replay)
