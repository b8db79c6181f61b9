# SPDX-License-Identifier: Apache-2.0
"""libfsntfs behind our interface: content that NTFS compresses, and security descriptors. Nothing else is asked of it.

It is opened when it is first needed. Each answer is checked for its length; whatever it raises, and whatever its reads of the
volume raised, leaves here as a RecoveryError without its long texts. It must be given no record whose streams do not hold
together (`Ntfs._shown_to_library`): for those it frees memory twice, in libfsntfs_cluster_block_stream_initialize. One handle, one
thread. It is C code that reads hostile bytes: the process around it is sandboxed, and may be killed.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import pyfsntfs

from flr.blocks import Volume
from flr.errors import Corrupt, RecoveryError, TooMuch

BLOCK = 64 << 10
BLOCKS_KEPT = 64
SHORT = 120
"""Characters of a library's message that are passed on."""


class VolumeFile:
    """A file object over a volume, as libyal wants one. Small reads are served from a few kept blocks; `reads` counts the
    requests to the volume, `error` is the last that one raised."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._at = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self.reads = 0
        self.error: RecoveryError | None = None

    def get_size(self) -> int:
        return self._volume.size

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._volume.size)[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        left = max(self._volume.size - self._at, 0)
        size = left if size < 0 else min(size, left)
        if size <= 0:
            return b""
        at, self._at = self._at, self._at + size
        try:
            if size >= BLOCK:
                self.reads += 1
                return self._volume.pread(at, size)
            first, last = at // BLOCK, (at + size - 1) // BLOCK
            data = b"".join(self._block(number) for number in range(first, last + 1))
            return data[at - first * BLOCK :][:size]
        except RecoveryError as error:
            self.error = error
            raise OSError(error.what) from error

    def _block(self, number: int) -> bytes:
        kept = self._blocks.get(number)
        if kept is not None:
            self._blocks.move_to_end(number)
            return kept
        self.reads += 1
        at = number * BLOCK
        data = self._blocks[number] = self._volume.pread(at, min(BLOCK, self._volume.size - at))
        if len(self._blocks) > BLOCKS_KEPT:
            self._blocks.popitem(last=False)
        return data


class Library:
    """Over a volume whose first sector is a sound boot sector."""

    def __init__(self, volume: Volume) -> None:
        self.file = VolumeFile(volume)
        self._handle: pyfsntfs.volume | None = None
        self._entry: tuple[int, pyfsntfs.file_entry] | None = None

    @contextmanager
    def _translated(self, what: str, value: str) -> Iterator[None]:
        self.file.error = None
        try:
            yield
        except RecoveryError:
            raise
        except MemoryError:
            self._entry = None
            raise TooMuch(what, f"{value}: it asks for more memory than there is") from None
        except Exception as error:  # whatever a C extension finds to raise
            self._entry = None
            if self.file.error is not None:
                raise self.file.error from None
            said = str(error).split(".")[0].split(":")[-1].strip()
            said = "".join(c if c.isprintable() else "?" for c in said[:SHORT])
            raise Corrupt(what, f"{value}: {said or type(error).__name__}") from None

    def _of(self, number: int) -> pyfsntfs.file_entry:
        if self._handle is None:
            handle = pyfsntfs.volume()
            handle.open_file_object(self.file)
            self._handle = handle
        if self._entry is None or self._entry[0] != number:
            self._entry = number, self._handle.get_file_entry(number)
        return self._entry[1]

    def read(self, number: int, stream: str, offset: int, length: int) -> bytes:
        """So many bytes of a stream ("": the content), decompressed. Corrupt."""
        what, value = "compressed content cannot be read", f"record {number}, {length} bytes at {offset}"
        with self._translated(what, value):
            source = self._of(number)
            if stream:
                found = [
                    each
                    for i in range(source.number_of_alternate_data_streams)
                    if (each := source.get_alternate_data_stream(i)).name == stream
                ]
                if not found:
                    raise Corrupt(what, f"{value}: its stream is not found")
                source = found[0]
            source.seek_offset(offset)
            made: list[bytes] = []
            left = length
            while left:
                data = source.read_buffer(left)
                if not data:
                    raise Corrupt(what, f"{value}: it ends {left} bytes early")
                made.append(data)
                left -= len(data)
            return b"".join(made)

    def security(self, number: int) -> bytes:
        """Empty when there is none. Corrupt."""
        with self._translated("a security descriptor cannot be read", f"record {number}"):
            return bytes(self._of(number).get_security_descriptor_data() or b"")
