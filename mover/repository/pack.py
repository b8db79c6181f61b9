# SPDX-License-Identifier: Apache-2.0
"""Packs as bytes: frames, directory, footer (docs/format.md section 4). Pure; `packer` fills and stores them."""

from __future__ import annotations

import struct
from typing import NamedTuple

from xxhash import xxh3_64_intdigest

from mover.errors import Damaged, UnsupportedFormat
from mover.repository.frame import HEADER_SIZE
from mover.repository.keys import Kind
from mover.repository.names import PackName

TARGET_SIZE = 64 * 1024 * 1024 + 64 * 1024
"""Bytes of frames at which a pack is closed: 64 incompressible blocks of 1 MiB fit with their headers."""

ENTRY = struct.Struct("<32sIIB7x")
_ENTRY_ZEROS = 41
FOOTER = struct.Struct("<4sHBxQQIxxxxQQ")
FOOTER_SIZE = FOOTER.size  # 48
MAGIC, VERSION = b"DMPK", 1
DATA, METADATA = 1, 2


class Place(NamedTuple):
    """Where a chunk's frame stands: `length` is header and payload, in bytes."""

    pack: PackName
    offset: int
    length: int

    def __str__(self) -> str:
        return f"{self.pack.object} at {self.offset}, {self.length} bytes"


class DirectoryEntry(NamedTuple):
    chunk_id: bytes
    offset: int
    length: int
    kind: int


def write_tail(entries: list[DirectoryEntry], frames_length: int, *, metadata: bool) -> bytes:
    """Directory and footer of a pack whose frames are `frames_length` bytes."""
    directory = b"".join(ENTRY.pack(*entry) for entry in entries)
    checksum = xxh3_64_intdigest(directory)
    kind = METADATA if metadata else DATA
    footer = FOOTER.pack(MAGIC, VERSION, kind, 0, frames_length, len(entries), checksum, 0)[:-8]
    return directory + footer + xxh3_64_intdigest(footer).to_bytes(8, "little")


def read_footer(footer: bytes | bytearray, size: int, pack: PackName) -> tuple[int, int, int]:
    """(offset of the directory, entries, checksum of the directory) of a pack of `size` bytes."""
    magic, version, kind, features, at, count, directory_checksum, checksum = FOOTER.unpack(footer)
    if magic != MAGIC or xxh3_64_intdigest(bytes(footer[:-8])) != checksum:
        raise Damaged("a pack's footer is damaged", pack.object)
    if version != VERSION or features:
        raise UnsupportedFormat(
            "a pack of an unknown version or with unknown features", f"{pack.object}: {version}, {features}"
        )
    if any(footer[7:8]) or any(footer[28:32]):
        raise Damaged("a pack's footer is not zero where it must be", pack.object)
    if at + count * ENTRY.size + FOOTER_SIZE != size or kind != (METADATA if pack.is_metadata else DATA):
        raise Damaged("a pack's footer does not fit the pack", pack.object)
    return at, count, directory_checksum


def read_directory(data: bytes | bytearray, checksum: int, pack: PackName) -> list[DirectoryEntry]:
    if xxh3_64_intdigest(bytes(data)) != checksum:
        raise Damaged("a pack's directory is damaged", pack.object)
    if any(bytes(data[column :: ENTRY.size]).strip(b"\0") for column in range(_ENTRY_ZEROS, ENTRY.size)):
        raise Damaged("a pack's directory is not zero where it must be", pack.object)
    entries = [DirectoryEntry(*fields) for fields in ENTRY.iter_unpack(data)]
    at = 0
    for entry in entries:
        if entry.offset != at or entry.length < HEADER_SIZE or entry.kind not in Kind.__members__.values():
            raise Damaged("a pack's directory is inconsistent", pack.object)
        at += entry.length
    return entries
