# SPDX-License-Identifier: Apache-2.0
"""A file's bytes from anywhere in it, as they are sent: holes as zeros, in pieces."""

from __future__ import annotations

from collections.abc import Iterator

from flr.blocks import Hole
from flr.fs.base import Node
from flr.session import Session

_ZEROS = bytes(1 << 20)


def file_bytes(session: Session, volume: str, node: Node, size: int, start: int, end: int) -> Iterator[bytes]:
    """Those from `start` to `end`, which is at most `size`. RecoveryError where they cannot be read."""
    for piece in session.content(volume, node, min(end, size), start):
        if isinstance(piece, Hole):
            yield from zeros(piece.length)
        else:
            yield piece


def zeros(length: int) -> Iterator[bytes]:
    while length > 0:
        some = min(length, len(_ZEROS))
        yield _ZEROS[:some]
        length -= some
