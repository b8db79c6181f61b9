# SPDX-License-Identifier: Apache-2.0
"""Reading chunks: a place first, forwards and pack directories when the place fails (rules I7, I8, I15).

Every chunk that comes out has the id that was asked for. Nothing here writes. Thread-safe: a FrameReader belongs to a
thread, so callers bring theirs.
"""

from __future__ import annotations

from mover.errors import Damaged, MissingObject, ObjectNotFound, PointGone, ShortObject, UnsupportedFormat
from mover.repository import pack as pack_format
from mover.repository.chunk import ChunkRef, MapEntry
from mover.repository.collector_state import CollectorState, read_state
from mover.repository.frame import FrameReader
from mover.repository.keys import Kind
from mover.repository.names import PackName
from mover.repository.pack import DirectoryEntry
from mover.store.base import Store

Unreadable = ObjectNotFound | ShortObject | Damaged | UnsupportedFormat
UNREADABLE = (ObjectNotFound, ShortObject, Damaged, UnsupportedFormat)
"""What may be wrong with a place. A flipped byte can make a frame look like one of a version that is not known yet."""


def read_chunk(store: Store, reader: FrameReader, ref: ChunkRef | MapEntry, kind: Kind) -> bytes:
    """The chunk's content. Damaged or MissingObject when neither its place nor a forward has it; PointGone when it was deleted."""
    try:
        data = store.read(ref.place.pack.object, ref.place.offset, ref.place.length)
        return reader.open(memoryview(data), ref.chunk_id, kind, ref.place)
    except UNREADABLE as error:
        return recover_chunk(store, reader, ref, kind, error)


def recover_chunk(
    store: Store,
    reader: FrameReader,
    ref: ChunkRef | MapEntry,
    kind: Kind,
    error: Unreadable,
) -> bytes:
    """Look where the collector moved the chunk; `error` says what was wrong with its place."""
    tried: set[PackName] = set()
    state = read_state(store)
    while True:
        for pack in state.forwarded(ref.place.pack):
            if pack in tried:
                continue
            tried.add(pack)
            try:
                entry = next(
                    (e for e in read_directory(store, pack) if e.chunk_id == ref.chunk_id and e.kind == kind), None
                )
                if entry is not None:
                    data = store.read(pack.object, entry.offset, entry.length)
                    return reader.open(memoryview(data), ref.chunk_id, kind, f"{pack.object} at {entry.offset}")
            except UNREADABLE:
                pass
        again = read_state(store)
        if again.write_id == state.write_id:
            raise _verdict(again, ref, error) from None
        state = again


def _verdict(state: CollectorState, ref: ChunkRef | MapEntry, error: Exception) -> Exception:
    if isinstance(error, ObjectNotFound):
        if ref.place.pack in state.gone_packs:
            return PointGone("a pack was deleted while it was read: its restore point has expired", ref.place)
        return MissingObject("a pack is missing", ref.place)
    if isinstance(error, ShortObject):
        return Damaged("a pack is shorter than its map says", ref.place)
    return error


def read_directory(store: Store, pack: PackName) -> list[DirectoryEntry]:
    """A pack's directory, from its end. ObjectNotFound, ShortObject, Damaged, UnsupportedFormat."""
    size = store.size(pack.object)
    if size < pack_format.FOOTER_SIZE:
        raise Damaged("a pack is shorter than its footer", pack.object)
    footer = store.read(pack.object, size - pack_format.FOOTER_SIZE, pack_format.FOOTER_SIZE)
    at, _, checksum = pack_format.read_footer(footer, size, pack)
    directory = store.read(pack.object, at, size - at - pack_format.FOOTER_SIZE)
    return pack_format.read_directory(directory, checksum, pack)
