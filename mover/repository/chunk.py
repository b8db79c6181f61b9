# SPDX-License-Identifier: Apache-2.0
"""What a block and a chunk are, for modules that read records only and shall not wait for numpy (a listing of points)."""

from __future__ import annotations

from typing import NamedTuple

from mover.repository.pack import Place

BLOCK_SIZE = 1 << 20


class MapEntry(NamedTuple):
    """A block's chunk."""

    chunk_id: bytes
    place: Place


class ChunkRef(NamedTuple):
    """A metadata chunk: its id and where its frame stands."""

    chunk_id: bytes
    place: Place
