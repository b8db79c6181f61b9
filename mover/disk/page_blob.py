# SPDX-License-Identifier: Apache-2.0
"""A disk that is a page blob, read by SAS: an exported snapshot of a managed disk, a blob of a storage account, or its snapshot.

Its pages that hold data are listed, not guessed; what changed since an earlier snapshot is asked of the service and handed on as
a change map, which a backup distrusts as any other. Every read is for the state that was there when the disk was opened (its
ETag). A SAS stands in no error, no name and no `repr`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar
from urllib.parse import parse_qsl, quote, urlencode

from mover.clock import SYSTEM, Clock
from mover.disk import vhd
from mover.disk.blocks import Blocks, runs
from mover.disk.changes import ChangeMap
from mover.disk.page_ranges import page_ranges
from mover.errors import ConditionFailed, ObjectNotFound, SourceChanged, SourceError, UsageError
from mover.repository.chunk import BLOCK_SIZE
from mover.store.azure_credentials import Sas
from mover.store.azure_location import ContainerLocation, parse_blob, redact
from mover.store.azure_reads import AzureReads
from mover.store.patience import Patience

IN_FLIGHT = 6
"""Reads of 8 MiB at a time: what hides a request's delay on a line of a few Gbit/s, within the buffers of the memory promise."""
T = TypeVar("T")
_VHDX = b"vhdxfile"
_VERSION_FIELDS = ("snapshot", "versionid")


class PageBlobSource:
    """See `DiskSource`. `url`: with its SAS. `name`, `identity` and `snapshot` are the issuer's words for which disk and which
    state of it this is; by default the blob's URL and its snapshot's time. An export's URL tells neither. `heard` is called at
    each answer; `requests` counts them, those that failed too."""

    def __init__(
        self,
        url: str,
        *,
        name: str = "",
        identity: str = "",
        snapshot: str = "",
        clock: Clock = SYSTEM,
        patience: Patience | None = None,
        heard: Callable[[], None] = lambda: None,
    ) -> None:
        self._location, self._blob, self._version, sas = _parts(url)
        self.where = self._location.object_url(self._blob)
        self._patience = patience or Patience(clock)
        self._heard = heard
        self._lock = threading.Lock()
        self.requests = 0
        self._reads = AzureReads(self._location, Sas(sas), clock, version=urlencode(self._version))
        try:
            self._open()
        except BaseException:
            self._reads.close()
            raise
        is_export = self._location.account.startswith("md-")
        self.name = name or self._blob.rpartition("/")[2]
        self.identity = identity or (self.name if is_export else self.where)
        self.snapshot: str | None = snapshot or self._version.get("snapshot")
        self.sector_size = 512
        self.in_flight = IN_FLIGHT

    def _open(self) -> None:
        try:
            length, headers = self._ask(lambda: self._reads.properties(self._blob))
        except ObjectNotFound:
            hint = "check its URL; an export ends when its access is revoked"
            raise SourceError("there is no such page blob", self.where, hint) from None
        kind = headers.get("x-ms-blob-type", "")
        if kind != "PageBlob":
            hint = "give a page blob's URL, or the SAS of a disk's or snapshot's export"
            raise SourceError("a disk that is no page blob", f"{self.where}: {kind or 'no blob'}", hint)
        etag = headers.get("etag", "")
        if not etag:
            raise SourceError("the store does not tell the blob's state", self.where, "is a proxy in between?")
        self._reads.condition = {"If-Match": etag}
        self._length = length
        if length == 0:
            raise SourceError("a disk is empty", self.where, "name a disk that has a size")
        self.source: str | None = f"page-blob:{etag}:{length}"
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

    # -- what it holds

    def extents(self) -> Iterator[tuple[int, int]]:
        for offset, length in page_ranges(self._list, self.where, self._length, self._patience):
            if offset < self.size:
                yield offset, min(length, self.size - offset)

    def changes_since(self, previous: str, base: str = "") -> ChangeMap:
        """What changed since the snapshot whose URL, with its SAS, is `previous`; `base` is the issuer's word for that.

        StoreError when the service cannot tell (a resize across 4 TiB, a snapshot that is gone); UsageError when nobody says which
        states these are."""
        location, blob, version, _ = _parts(previous)
        base = base or version.get("snapshot", "")
        if not base or not self.snapshot:
            hint = "an exported snapshot's URL does not tell: name both snapshots"
            raise UsageError("changes between states without names", redact(previous), hint)
        fields: dict[str, str] = {}
        headers: dict[str, str] = {}
        if (location.container_url, blob) == (self._location.container_url, self._blob) and "snapshot" in version:
            fields["prevsnapshot"] = version["snapshot"]
        else:
            headers["x-ms-previous-snapshot-url"] = previous
        found = page_ranges(self._list, self.where, self._length, self._patience, fields, headers)
        count = -(-self.size // BLOCK_SIZE)
        touched = Blocks.of_ranges(count, found, BLOCK_SIZE)
        ranges = (
            (start * BLOCK_SIZE, min(end * BLOCK_SIZE, self.size) - start * BLOCK_SIZE)
            for start, end in runs(touched.mask(0, count), 0)
        )
        return ChangeMap(self.identity, self.size, self.snapshot, base, tuple(ranges))

    def _list(self, fields: Mapping[str, str], headers: Mapping[str, str]) -> bytes:
        query = urlencode(self._version | dict(fields), quote_via=quote)
        return self._counted(lambda: self._reads.read_url(self.where, f"{self.where}?{query}", headers))

    def _ask(self, call: Callable[[], T]) -> T:
        return self._patience.ask(self.where, lambda: self._counted(call))

    def _counted(self, call: Callable[[], T]) -> T:
        with self._lock:
            self.requests += 1
        found = call()
        self._heard()
        return found

    # -- its bytes

    def read_into(self, offset: int, buffers: Sequence[bytearray | memoryview]) -> None:
        views = [memoryview(buffer) for buffer in buffers]
        try:
            self._ask(lambda: self._reads.read_into(self._blob, offset, *views))
        except ConditionFailed:
            raise SourceChanged("a page blob was changed while it was read", self.where) from None
        except ObjectNotFound:
            raise SourceError("a page blob was deleted while it was read", self.where) from None

    def read_ahead(self, offset: int, length: int) -> None:
        """There are requests in flight instead."""

    def check_unchanged(self) -> None:
        try:
            self._ask(lambda: self._reads.properties(self._blob))
        except ConditionFailed:
            raise SourceChanged("a page blob was changed while it was read", self.where) from None

    def close(self) -> None:
        self._reads.close()


def _parts(url: str) -> tuple[ContainerLocation, str, dict[str, str], str]:
    """(container, blob, the fields that name a state of it, the SAS)."""
    location, blob = parse_blob(url)
    fields = [pair.partition("=") for pair in location.query.split("&") if pair]
    version = dict(parse_qsl("&".join(f"{n}={v}" for n, _, v in fields if n.lower() in _VERSION_FIELDS)))
    sas = "&".join(f"{n}={v}" for n, _, v in fields if n.lower() not in _VERSION_FIELDS)
    return location, blob, version, sas
