# SPDX-License-Identifier: Apache-2.0
"""A disk read from a page blob: its pages that hold data are listed, not guessed.

What changed since an earlier snapshot is asked of the service and handed on as a change map, which a backup distrusts as any
other. Every read is for the state that was there when the disk was opened (its ETag).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence

from mover.disk import vhd
from mover.disk.blocks import Blocks
from mover.disk.changes import ChangedBlocks
from mover.disk.page_blob import MARK, PageBlob, parts
from mover.disk.page_map import PageMap
from mover.errors import ConditionFailed, ObjectNotFound, SourceChanged, SourceError, UsageError
from mover.repository.chunk import BLOCK_SIZE
from mover.store.azure_location import redact

IN_FLIGHT = 6
"""Reads of 8 MiB at a time: what hides a request's delay on a line of a few Gbit/s, within the buffers of the memory promise."""
MOST_RANGES = 1 << 20
"""16 MiB, for all disks of a backup together."""
_VHDX = b"vhdxfile"


class PageBlobSource:
    """See `DiskSource`. `blob` is closed with the source. `name`, `identity` and `snapshot` are the issuer's words for which disk
    and which state of it this is; by default the blob's URL and its snapshot's time. An export's URL tells neither. So that a
    read asks for no more than data, up to `most_ranges` of 16 bytes are kept; of a disk with more, whole blocks are read."""

    def __init__(
        self, blob: PageBlob, *, name: str = "", identity: str = "", snapshot: str = "", most_ranges: int = MOST_RANGES
    ) -> None:
        self.blob = blob
        self._most_ranges = most_ranges
        self.where = self.blob.where
        self._map: PageMap | None = None
        self.source: str | None = None
        try:
            self._open()
        except BaseException:
            self.blob.close()
            raise
        self.name = name or self.blob.name.rpartition("/")[2]
        self.identity = identity or (self.name if self.blob.is_export else self.where)
        self.snapshot: str | None = snapshot or self.blob.version.get("snapshot")
        if self.blob.is_export and snapshot:
            self.source = (
                None  # another export of the state may have another ETag: the issuer's name for the state tells
            )
        self.sector_size = 512
        self.in_flight = IN_FLIGHT

    def _open(self) -> None:
        hint = "give a page blob's URL, or the SAS of a disk's or snapshot's export"
        found = self.blob.open(SourceError, "a disk that is no page blob", hint)
        if found is None:
            hint = "check its URL; an export ends when its access is revoked"
            raise SourceError("there is no such page blob", self.where, hint)
        length, headers = found
        if MARK in headers:
            hint = "issue the restore that writes it again; what it holds now is no disk"
            raise SourceError("a page blob that a restore has not finished", self.where, hint)
        etag = headers.get("etag", "")
        if not etag:
            raise SourceError("the store does not tell the blob's state", self.where, "is a proxy in between?")
        self.blob.pages.condition = {"If-Match": etag}
        self._length = length
        empty = SourceError("a disk is empty", self.where, "name a disk that has a size")
        if length == 0:
            raise empty
        self.source = f"page-blob:{etag}:{length}"
        start = bytearray(min(length, len(_VHDX)))
        self.read_into(0, [start])
        if start == _VHDX:
            hint = "export it as a VHD: disks of 4096-byte sectors are not read yet"
            raise SourceError("a VHDX cannot be read", self.where, hint)
        end = bytearray(min(length, vhd.FOOTER_SIZE))
        self.read_into(length - len(end), [end])
        footer = vhd.read_footer(bytes(end), length, self.where)
        self.is_vhd = footer is not None
        self.size = footer.size if footer is not None else length
        if self.size == 0:
            raise empty

    # -- what it holds

    def extents(self) -> Iterator[tuple[int, int]]:
        """Once all are told, `read_into` leaves out what lies between them."""
        kept = array("q")
        for offset, length in self._listed():
            if len(kept) <= 2 * self._most_ranges:
                kept.extend((offset, length))
            if offset < self.size:
                yield offset, min(length, self.size - offset)
        if len(kept) <= 2 * self._most_ranges:
            self._map = PageMap(kept)

    def changes_since(self, previous: str, base: str = "") -> ChangedBlocks:
        """What changed since the snapshot whose URL, with its SAS, is `previous`; `base` is the issuer's word for that.

        StoreError when the service cannot tell (a resize across 4 TiB, a snapshot that is gone); UsageError when nobody says which
        states these are."""
        location, name, version, _ = parts(previous)
        base = base or version.get("snapshot", "")
        if not base or not self.snapshot:
            hint = "an exported snapshot's URL does not tell: name both snapshots"
            raise UsageError("changes between states without names", redact(previous), hint)
        fields: dict[str, str] = {}
        headers: dict[str, str] = {}
        if location.object_url(name) == self.where and "snapshot" in version:
            fields["prevsnapshot"] = version["snapshot"]
        else:
            headers["x-ms-previous-snapshot-url"] = f"{location.object_url(name)}?{location.query}"
        count = -(-self.size // BLOCK_SIZE)
        touched = Blocks.of_ranges(count, self._listed(fields, headers), BLOCK_SIZE)
        return ChangedBlocks(self.identity, self.size, self.snapshot, base, touched)

    def _listed(
        self, fields: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> Iterator[tuple[int, int]]:
        try:
            yield from self.blob.ranges(self._length, fields, headers)
        except ConditionFailed:
            raise SourceChanged("a page blob was changed while it was read", self.where) from None

    # -- its bytes

    def read_into(self, offset: int, buffers: Sequence[bytearray | memoryview]) -> None:
        views = [memoryview(buffer) for buffer in buffers]
        end = offset + sum(len(view) for view in views)
        if self._map is None:
            self._read(offset, views)
            return
        at = offset
        for low, high in self._map.within(offset, end):
            for view in _part(views, at - offset, low - offset):
                view[:] = bytes(len(view))
            self._read(low, list(_part(views, low - offset, high - offset)))
            at = high
        for view in _part(views, at - offset, end - offset):
            view[:] = bytes(len(view))

    def _read(self, offset: int, views: Sequence[memoryview]) -> None:
        try:
            self.blob.ask(lambda: self.blob.pages.read_into(self.blob.name, offset, *views))
        except ConditionFailed:
            raise SourceChanged("a page blob was changed while it was read", self.where) from None
        except ObjectNotFound:
            raise SourceError("a page blob was deleted while it was read", self.where) from None

    def read_ahead(self, offset: int, length: int) -> None:
        """There are requests in flight instead."""

    def check_unchanged(self) -> None:
        try:
            self.blob.ask(lambda: self.blob.pages.properties(self.blob.name))
        except ConditionFailed:
            raise SourceChanged("a page blob was changed while it was read", self.where) from None

    def close(self) -> None:
        self.blob.close()


def _part(views: Sequence[memoryview], start: int, end: int) -> Iterator[memoryview]:
    """Bytes [start, end) of views that follow each other."""
    at = 0
    for view in views:
        low, high = max(start - at, 0), min(end - at, len(view))
        if low < high:
            yield view[low:high]
        at += len(view)
