# SPDX-License-Identifier: Apache-2.0
"""A disk that is not there: any bytes of it on demand, its blocks fetched side by side and kept for a while.

Many threads may read one disk, and the disks of a session share one cache and one crew (`Fetcher`). Zeros are neither fetched nor
kept. Not here: what the bytes mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from flr.errors import Unreadable
from flr.virtual.blocks import Blocks, Request
from flr.virtual.cache import BlockCache, Data
from mover.errors import Damaged, SourceError
from mover.repository.maps import BLOCK_SIZE

AT_ONCE = 8
"""Requests on their way."""
_ZEROS = bytes(BLOCK_SIZE)


class Fetcher:
    """The cache and the threads that the disks of a session share. A context manager."""

    def __init__(self, cache: BlockCache | None = None, at_once: int = AT_ONCE) -> None:
        self.cache = cache or BlockCache()
        self.crew = ThreadPoolExecutor(at_once, "flr-fetch")
        self.at_once = at_once

    def __enter__(self) -> Fetcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.crew.shutdown(cancel_futures=True)


class VirtualDisk:
    """Disk `number` of a session. `size` and `sector_size` in bytes. Methods that read raise Unreadable for bytes that are
    damaged, and what else `Blocks` raises: of a store that does not answer, of a point that is gone."""

    def __init__(self, number: int, blocks: Blocks, fetcher: Fetcher, name: str = "") -> None:
        self.number = number
        self.name = name
        self.size = blocks.size
        self.sector_size = blocks.sector_size
        self._blocks = blocks
        self._fetcher = fetcher
        self.cache = fetcher.cache

    def pread(self, offset: int, length: int, *, metadata: bool = False) -> bytes:
        """Exactly so many bytes; SourceError outside of the disk."""
        return self.read_many([(offset, length)], metadata=metadata)[0]

    def read_many(self, ranges: Sequence[tuple[int, int]], *, metadata: bool = False) -> list[bytes]:
        """As `pread` of each, with everything that must be fetched on its way at once."""
        got = self._got(ranges, metadata)
        return [b"".join(_cut(got, offset, length)) for offset, length in ranges]

    def parts(self, ranges: Sequence[tuple[int, int]], *, metadata: bool = False) -> list[memoryview]:
        """The bytes of all ranges, one after the other, as parts of the blocks that are kept: nothing is copied."""
        got = self._got(ranges, metadata)
        return [part for offset, length in ranges for part in _cut(got, offset, length)]

    def _got(self, ranges: Sequence[tuple[int, int]], metadata: bool) -> dict[int, Data]:
        for offset, length in ranges:
            if offset < 0 or length < 0 or offset + length > self.size:
                raise SourceError("a range outside of the disk", f"{length} bytes at {offset}, of {self.size}")
        return self._get(_blocks_of(ranges), metadata)

    def prefetch(self, ranges: Iterable[tuple[int, int]], *, metadata: bool = False) -> None:
        """These will be read soon. Errors are left to the read; what lies outside of the disk is passed over."""
        inside = [(o, n) for o, n in ranges if o >= 0 and n > 0 and o + n <= self.size]
        numbers = sorted(_blocks_of(inside))
        most = self.cache.limits[metadata] // BLOCK_SIZE // 2
        try:
            self._send(numbers[:most], metadata, wait=False)
        except Exception:  # noqa: S110 - a hint; the read that needs the bytes says what is wrong
            pass

    def _get(self, numbers: Iterable[int], metadata: bool) -> dict[int, Data]:
        try:
            got, coming = self._send(sorted(set(numbers)), metadata, wait=True)
            for number, future in coming.items():
                try:
                    got[number] = future.result()
                except (Damaged, SourceError):  # perhaps of another block that the same request was to bring
                    got[number] = self._alone(number)
        except (Damaged, SourceError) as error:
            raise Unreadable(error.what, error.value, error.hint) from None
        return got

    def _alone(self, number: int) -> Data:
        requests, _ = self._blocks.plan([number])
        return next(
            (data for request, _ in requests for at, data in self._blocks.fetch(request) if at == number), _ZEROS
        )

    def _send(self, numbers: list[int], metadata: bool, wait: bool) -> tuple[dict[int, Data], dict[int, Future[Data]]]:
        """Blocks that are here, and those on their way: whatever was neither is sent for. Who will `wait` for them carries out
        one of the requests itself: another thread would only have to be woken for it, and wake this one."""
        here, coming, mine = self.cache.claim((self.number, number) for number in numbers)
        if mine:
            wanted = [number for _, number in mine]
            try:
                requests, zeros = self._blocks.plan(wanted)
                for number in zeros:
                    self.cache.arrived((self.number, number), _ZEROS, metadata, keep=False)
                for request, brings in requests[wait:]:
                    self._fetcher.crew.submit(self._fetch, request, brings, metadata)
                for request, brings in requests[:wait]:
                    self._fetch(request, brings, metadata)
            except BaseException as error:
                self.cache.failed(mine, error)
                raise
        return {number: data for (_, number), data in here.items()}, {n: future for (_, n), future in coming.items()}

    def _fetch(self, request: Request, brings: list[int], metadata: bool) -> None:
        missing = set(brings)
        try:
            for number, data in self._blocks.fetch(request):
                missing.discard(number)
                self.cache.arrived((self.number, number), data, metadata)
            if missing:
                raise SourceError("a request brought less than was asked for", f"blocks {sorted(missing)}")
        except BaseException as error:
            self.cache.failed([(self.number, number) for number in missing], error)


def _blocks_of(ranges: Iterable[tuple[int, int]]) -> set[int]:
    return {
        number
        for offset, length in ranges
        if length
        for number in range(offset // BLOCK_SIZE, (offset + length - 1) // BLOCK_SIZE + 1)
    }


def _cut(got: dict[int, Data], offset: int, length: int) -> Iterator[memoryview]:
    first, within = divmod(offset, BLOCK_SIZE)
    while length:
        part = memoryview(got[first])[within : within + length]
        yield part
        length -= len(part)
        first, within = first + 1, 0
