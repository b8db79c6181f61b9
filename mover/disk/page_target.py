# SPDX-License-Identifier: Apache-2.0
"""A disk written to a page blob: one that is made here, one that is there already, or a managed disk's upload.

A blob that is made carries a mark until it is whole, so a half restore is never taken for a disk, and one with the mark is gone on
with. A managed disk that waits for its upload is there before the restore begins: it takes pages and nothing else, and its
last 512 bytes are a VHD's footer, written last. What is zero is not written; the service checks every page that is.
"""

from __future__ import annotations

import secrets
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TypeVar

import numpy as np

from mover.disk import vhd
from mover.disk.blocks import Blocks, Mask, runs
from mover.disk.page_blob import MARK, PageBlob
from mover.disk.target import CUT_HINT, FOR_ONE
from mover.errors import (
    AccessDenied,
    ConditionFailed,
    LeaseConflict,
    LeaseLost,
    ObjectExists,
    ObjectNotFound,
    ShortObject,
    SourceError,
    StoreError,
    StoreUnavailable,
    TargetError,
    VerifyFailed,
)
from mover.repository.chunk import BLOCK_SIZE
from mover.store.azure_pages import MOST, PAGE
from mover.store.azure_transport import Headers

BYTES_A_SECOND, CALLS_A_SECOND = 60 << 20, 500
"""What Azure takes for one standard page blob, and the least for a managed disk's upload. Source: Microsoft's "Scalability and
performance targets for Blob storage", and of uploads "Upload a VHD to Azure"."""
HOLE = 128 << 10
"""Zeros inside a block that are worth another request: at Azure's two limits a request costs as much as so many bytes."""
LARGEST = 8 << 40
"""Bytes of a page blob."""
T = TypeVar("T")
_TAKEN_HINT = "name a blob that does not exist, or write over it with --in-place"
_LEASE_SECONDS = 60
_RENEW_SECONDS = 15.0


class PageBlobTarget:
    """See `DiskTarget`. `blob` (its SAS may read and write, and create if it is to be made) is closed with the target. An upload's
    blob may be larger than the disk: what lies behind stays zero."""

    at_once, most = 8, MOST
    remote = True

    def __init__(self, blob: PageBlob, size: int, *, in_place: bool = False, as_vhd: bool = False) -> None:
        self.blob = blob
        self.path = self.blob.where
        self.size = size
        self._clock = blob.clock
        self._in_place = in_place
        self._as_vhd = as_vhd or self.blob.is_export
        self._length = size + (vhd.FOOTER_SIZE if self._as_vhd else 0)
        self._marked = False
        self._metadata: dict[str, str] = {}
        self._behind: list[tuple[int, int]] = []
        self._listed = True
        self._lock = threading.Lock()
        self._renewed = 0.0
        self.unguarded = False
        self._claim = b""
        self._held = Blocks.of_ranges(-(-size // BLOCK_SIZE), (), BLOCK_SIZE)
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    # -- opening

    def _open(self) -> None:
        found = look(self.blob, self.size, in_place=self._in_place, as_vhd=self._as_vhd)
        self.existed = False
        if found is None:
            if self._in_place:
                hint = "leave --in-place away to make a new blob"
                raise TargetError("there is nothing to restore in place", self.path, hint)
            found = self._create()
        length, headers = found
        if self.blob.is_export:
            self._length = length
            self.unguarded = not self._lease(refused=True)
        elif self._in_place:
            self._lease()
            length, headers = self._look()  # as it is now that nobody else writes it
            if not self._as_vhd and self._footer(length) is not None:
                raise TargetError("the target is a VHD and would be none afterwards", self.path, CUT_HINT)
            self._mark(headers)
            if length != self._length:
                self._ask(lambda: self.blob.pages.resize(self.blob.name, self._length))
        else:
            if MARK in headers:
                self._lease()
                length, headers = self._look()
            self._marked = MARK in headers
            if self._marked:
                self._metadata = _others(headers)
            else:
                self._open_existing(length, headers)
        self._held = self._blocks()
        self.compare = len(self._held) > 0
        if self.blob.is_export:
            self._clear_behind()

    def _mark(self, headers: Headers) -> None:
        """Written over in place, it is no disk until it is whole; what else is said of it stays."""
        self._metadata = _others(headers)
        self._ask(lambda: self.blob.pages.set_metadata(self.blob.name, self._metadata | {MARK: "unfinished"}))
        self._marked = True

    def _clear_behind(self) -> None:
        """The footer of an earlier restore, which would make a half one a disk, and what a larger disk has left."""
        if self._behind:
            self._ask(lambda: self.blob.pages.clear(self.blob.name, self.size, self._length - self.size))
        if self.unguarded:
            claim = b"data-mover restore " + secrets.token_hex(16).encode()
            self._write(self._length - vhd.FOOTER_SIZE, claim.ljust(vhd.FOOTER_SIZE, b"\0"))
            self._claim, self._renewed = claim, self._clock.monotonic()

    def _check_claim(self) -> None:
        """Where the service leases nothing, whoever came last has it: what stands where the footer belongs is theirs."""
        end = bytearray(vhd.FOOTER_SIZE)
        self.blob.once(lambda: self.blob.pages.read_into(self.blob.name, self._length - len(end), memoryview(end)))
        if not end.startswith(self._claim):
            raise TargetError("another restore writes the target", self.path, FOR_ONE)

    def _look(self) -> tuple[int, Headers]:
        found = look(self.blob, self.size, in_place=self._in_place, as_vhd=self._as_vhd)
        if found is None:
            raise TargetError("the target was deleted while it was opened", self.path)
        return found

    def _open_existing(self, length: int, headers: Headers) -> None:
        self._release()  # of a blob that was finished while we waited for it
        self.existed = True
        if length != self._length:
            raise self._exists(f"{length} bytes")
        self.blob.pages.condition = {"If-Match": headers.get("etag", "*")}  # it is compared without a lease
        if self._as_vhd and self._footer(length) is None:
            raise self._exists("it does not end as a fixed VHD of this size")

    def _create(self) -> tuple[int, Headers]:
        try:
            self.blob.ask(lambda: self.blob.pages.create(self.blob.name, self._length, {MARK: "unfinished"}))
        except ObjectExists:
            pass  # by our own request, whose answer was lost, or by another restore: the mark and the lease tell
        return self._look()

    def _footer(self, length: int) -> vhd.Footer | None:
        if length < vhd.FOOTER_SIZE:
            return None
        end = bytearray(vhd.FOOTER_SIZE)
        self._read(length - len(end), memoryview(end))
        try:
            return vhd.read_footer(bytes(end), length, self.path)
        except SourceError:
            return None

    def _exists(self, how: str) -> TargetError:
        return _exists(self.path, how)

    def _lease(self, *, refused: bool = False) -> bool:
        """One restore at a time. What a worker that died had leased is free within a minute; that is waited for. `refused`: the
        service may not lease it; then False."""
        lease = str(uuid.uuid4())
        until = self._clock.monotonic() + _LEASE_SECONDS + _RENEW_SECONDS
        while True:
            try:
                self.blob.ask(lambda: self.blob.pages.acquire_lease(self.blob.name, lease, _LEASE_SECONDS))
            except LeaseConflict:
                duration = self._look()[1].get("x-ms-lease-duration")
                if refused and duration != "fixed":
                    return False  # the service's own
                if duration == "infinite":
                    hint = "it is in use: detach it from its VM, or name another target"
                    raise TargetError("the target is leased without end", self.path, hint) from None
                if self._clock.monotonic() >= until:
                    raise TargetError("another restore writes the target", self.path, FOR_ONE) from None
                self.blob.patience.wait(self.path, 5.0)
            except StoreError:
                if not refused:
                    raise
                return False
            else:
                self._renewed = self._clock.monotonic()
                return True

    def _blocks(self) -> Blocks:
        """The blocks that have pages; all of them when the service does not tell."""
        count = -(-self.size // BLOCK_SIZE)
        try:
            found = Blocks.of_ranges(count, self._ranges(), BLOCK_SIZE)
        except StoreUnavailable:
            raise
        except StoreError as error:
            if isinstance(error, AccessDenied) and not self.blob.is_export:
                raise
            self._behind, self._listed = [(self.size, self._length)], False
            return Blocks.of_ranges(count, [(0, self.size)], BLOCK_SIZE)
        return found

    def _ranges(self) -> Iterator[tuple[int, int]]:
        """Of the disk; those behind it are noted."""
        self._behind = []
        limit = self._length - (vhd.FOOTER_SIZE if self._claim else 0)
        for offset, length in self.blob.ranges(self._length):
            low, high = max(offset, self.size), min(offset + length, limit)
            if low < high:
                self._behind.append((low, high))
            if offset < self.size:
                yield offset, min(length, self.size - offset)

    # -- bytes

    def read_into(self, offset: int, target: bytearray | memoryview) -> None:
        """Blocks without pages are not asked for."""
        view = memoryview(target)
        end = offset + len(view)
        at = offset
        for low, high in self.data_within(offset, end):
            view[at - offset : low - offset] = bytes(low - at)
            self._read(low, view[low - offset : high - offset])
            at = high
        view[at - offset :] = bytes(end - at)

    def _read(self, offset: int, view: memoryview) -> None:
        try:
            self._ask(lambda: self.blob.pages.read_into(self.blob.name, offset, view))
        except ShortObject:
            raise TargetError("the target ends too early", f"{self.path} at {offset}") from None

    def write(self, offset: int, data: bytes) -> None:
        if self.existed:
            raise self._exists(f"it differs at {offset}")
        first, end = offset // BLOCK_SIZE, -(-(offset + len(data)) // BLOCK_SIZE)
        for low, high in [(0, len(data))] if self._held.any(first, end) else filled(data):
            self._write(offset + low, data[low:high])

    def _write(self, offset: int, data: bytes) -> None:
        self._ask(lambda: self.blob.pages.write(self.blob.name, offset, data))

    def data_within(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """See `DiskTarget`."""
        first = start // BLOCK_SIZE
        for low, high in runs(self._held.mask(first, -(-end // BLOCK_SIZE)), first):
            yield max(low * BLOCK_SIZE, start), min(high * BLOCK_SIZE, end)

    def zero(self, offset: int, length: int) -> None:
        if self.existed:
            raise self._exists(f"it differs at {offset}")
        self._ask(lambda: self.blob.pages.clear(self.blob.name, offset, length))

    def sync(self) -> None:
        """What was written is durable when it is answered; what is read next is what the service says is there now."""
        self._held = self._blocks()
        if not self.blob.is_export or not self._listed:
            return
        for low, high in self._behind:  # zeros, where the host knows no clear
            for at in range(low, high, MOST):
                part = bytearray(min(MOST, high - at))
                self._read(at, memoryview(part))
                if any(part):
                    raise VerifyFailed("the target holds something behind the disk", self.path)

    def finish(self, time: float) -> None:
        """The restore is whole: footer, then the mark goes."""
        if self.existed:
            return
        if self._as_vhd:
            size = self._length - vhd.FOOTER_SIZE
            if self._claim:
                self._ask(self._check_claim)
                self._claim = b""
            self._write(size, vhd.make_footer(size, uuid.uuid4(), time))
        if self._marked:
            self._ask(lambda: self.blob.pages.set_metadata(self.blob.name, self._metadata))

    def _ask(self, call: Callable[[], T]) -> T:
        def leased() -> T:
            self._renew()
            return call()

        try:
            return self.blob.ask(leased)
        except (LeaseConflict, LeaseLost):
            raise TargetError("the target was leased by another while it was written", self.path, FOR_ONE) from None
        except ObjectNotFound:
            raise TargetError("the target was deleted while it was written", self.path) from None
        except ConditionFailed:
            raise TargetError("the target was written while it was compared", self.path, FOR_ONE) from None

    def _renew(self) -> None:
        """Before every attempt: a lease that ended in a long wait can still be renewed, unless another has taken it."""
        with self._lock:
            if self._clock.monotonic() - self._renewed < _RENEW_SECONDS:
                return
            if self.blob.pages.lease:
                self.blob.once(lambda: self.blob.pages.renew_lease(self.blob.name))
            elif self._claim:
                self._check_claim()
            self._renewed = self._clock.monotonic()

    def close(self) -> None:
        self._release()
        self.blob.close()

    def _release(self) -> None:
        if self.blob.pages.lease:
            with suppress(StoreError):  # it ends by itself
                self.blob.once(lambda: self.blob.pages.release_lease(self.blob.name))
            self.blob.pages.lease = ""


def look(blob: PageBlob, size: int, *, in_place: bool = False, as_vhd: bool = False) -> tuple[int, Headers] | None:
    """(size in bytes, headers) of what is there; None: it is to be made. TargetError when it can be no target of such a disk."""
    if blob.version:
        raise TargetError("a snapshot cannot be written", blob.where, "name the blob itself")
    if size % PAGE:
        raise TargetError("a page blob holds whole pages of 512 bytes", f"{blob.where}: {size} bytes")
    if not blob.may_write:
        raise AccessDenied("the SAS is not for writing", blob.where, "issue one with the rights r and w")
    whole = size + (vhd.FOOTER_SIZE if as_vhd else 0)
    if not blob.is_export and whole > LARGEST:
        hint = "restore it into a managed disk's upload"
        raise TargetError("the disk is larger than a page blob can be", f"{whole} of {LARGEST} bytes", hint)
    hint = "name a page blob, a blob that does not exist, or a managed disk's upload"
    found = blob.open(TargetError, "a target that is no page blob", hint)
    if found is None and blob.is_export:
        hint = "check its URL; an upload ends when its access is revoked"
        raise TargetError("there is no such upload", blob.where, hint)
    if found is not None and blob.is_export and (found[0] < size + vhd.FOOTER_SIZE or found[0] % PAGE):
        least = -(-size // BLOCK_SIZE) * BLOCK_SIZE + vhd.FOOTER_SIZE
        hint = f"make the disk for an upload of {least} bytes: whole MiB, and 512 bytes for the footer"
        value = f"{blob.where}: {found[0]} of {size + vhd.FOOTER_SIZE} bytes"
        raise TargetError("the managed disk is smaller than the disk", value, hint)
    if found is not None and not blob.is_export and not in_place and found[0] != whole:
        if MARK in found[1]:
            what = "the target is an unfinished restore of another disk"
            raise TargetError(what, f"{blob.where}: {found[0]} bytes", _TAKEN_HINT)
        raise _exists(blob.where, f"{found[0]} bytes")
    return found


def _exists(where: str, how: str) -> TargetError:
    return TargetError("the target exists and is not this disk", f"{where}: {how}", _TAKEN_HINT)


def _others(headers: Headers) -> dict[str, str]:
    """A blob's metadata but for the mark, in its owner's spelling."""
    pairs = headers.written.items()
    return {name: text for name, text in pairs if name.lower().startswith("x-ms-meta-") and name.lower() != MARK}


def filled(data: bytes) -> Iterator[tuple[int, int]]:
    """The parts [low, high) of it, in whole pages, that are not zero; with at least HOLE of zeros between them."""
    pages: Mask = np.frombuffer(data, np.uint64).reshape(-1, PAGE // 8).any(axis=1)  # type: ignore[assignment]
    low = high = 0
    for first, end in runs(pages, 0):
        if first * PAGE - high >= HOLE or low == high:
            if low < high:
                yield low, high
            low = first * PAGE
        high = end * PAGE
    if low < high:
        yield low, high
