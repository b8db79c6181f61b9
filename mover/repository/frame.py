# SPDX-License-Identifier: Apache-2.0
"""Frames: one chunk, compressed, sealed and self-describing (docs/format.md section 3).

A frame that is written is opened again before anything is uploaded and its chunk id computed from what came out, so that a
codec, a cipher or a memory that lies is found while the source still has the bytes. A frame that is read yields the bytes
whose id was asked for or an error; which of the two checks finds the damage is told, and nothing else comes out.
"""

from __future__ import annotations

import os
import struct
from typing import NamedTuple

import zstandard
from cryptography.exceptions import InvalidTag
from xxhash import xxh3_64, xxh3_64_intdigest

from mover.errors import CodecFailed, Damaged, UnsupportedFormat, UsageError
from mover.repository.keys import SEALED_KINDS, KeyRing, Kind
from mover.store.base import Buffer

HEADER = struct.Struct("<4sBBBxIIIxxxx32sQ")
HEADER_SIZE = HEADER.size  # 64
CHECKSUM_AT = HEADER_SIZE - 8
MAGIC, VERSION = b"DMFR", 1
FLAG_ZSTD, FLAG_SEALED = 1, 2
NONCE_SIZE, TAG_SIZE = 12, 16
MAX_RAW = 1 << 28


class Frame(NamedTuple):
    """A frame ready to be stored: `head` is header and nonce, `body` the rest; `length` counts both, in bytes."""

    chunk_id: bytes
    kind: Kind
    head: bytes
    body: Buffer
    raw_length: int

    @property
    def length(self) -> int:
        return len(self.head) + len(self.body)


class FrameWriter:
    """Makes frames. Holds codec contexts: one object belongs to one thread."""

    def __init__(self, keys: KeyRing, *, level: int = 1, check: bool = True) -> None:
        self._keys = keys
        self._check = check
        self._compressor = zstandard.ZstdCompressor(level=level, write_checksum=False, write_content_size=True)
        self._reader = FrameReader(keys)

    def write(self, kind: Kind, raw: Buffer, chunk_id: bytes | None = None) -> Frame:
        """The frame of `raw`, whose id the caller may have computed; CodecFailed when it does not decode to that id."""
        if len(raw) > MAX_RAW:
            raise UsageError("a chunk is larger than the format allows", f"{kind.name.lower()}, {len(raw)} bytes")
        if chunk_id is None:
            chunk_id = self._keys.chunk_id(kind, raw)
        body: Buffer = self._compressor.compress(raw)
        flags = FLAG_ZSTD
        if len(body) >= len(raw):
            body, flags = raw, 0
        if self._keys.encrypted and kind in SEALED_KINDS:
            flags |= FLAG_SEALED
            stored = NONCE_SIZE + len(body) + TAG_SIZE
            epoch = self._keys.epoch
            bound = HEADER.pack(MAGIC, VERSION, flags, kind, epoch, len(raw), stored, chunk_id, 0)[:CHECKSUM_AT]
            nonce = os.urandom(NONCE_SIZE)
            body = self._keys.frame_cipher(epoch, chunk_id).encrypt(nonce, body, bound)
        else:
            stored = len(body)
            bound = HEADER.pack(MAGIC, VERSION, flags, kind, 0, len(raw), stored, chunk_id, 0)[:CHECKSUM_AT]
            nonce = b""
            # a copy: the caller's buffer is reused while the frame waits for its pack, and the codec's is as large as the
            # chunk, of which a frame of some bytes would keep half in memory (a pack has room for 100,000 such frames)
            body = bytes(memoryview(body))
        digest = xxh3_64(nonce)
        digest.update(body)
        head = bound + digest.intdigest().to_bytes(8, "little") + nonce
        frame = Frame(chunk_id, kind, head, body, len(raw))
        if self._check:
            try:
                self._reader.open_parts(head, body, chunk_id, kind, "before upload")
            except (Damaged, UnsupportedFormat) as error:
                raise CodecFailed("a frame did not decode to what it was made from", error.what) from error
        return frame


class FrameReader:
    """Opens frames. Holds codec contexts: one object belongs to one thread."""

    def __init__(self, keys: KeyRing) -> None:
        self._keys = keys
        self._decompressor = zstandard.ZstdDecompressor()

    def open(self, data: memoryview, chunk_id: bytes, kind: Kind, place: object) -> bytes:
        """The raw bytes of the frame that fills `data`. Damaged (naming `place`) unless they have that id and kind."""
        if len(data) < HEADER_SIZE:
            raise Damaged("a frame is shorter than its header", place)
        header = HEADER.unpack_from(data)
        body = data[HEADER_SIZE:]
        if xxh3_64_intdigest(body) != header[8]:
            raise Damaged("a frame's checksum does not match", place)
        nonce = NONCE_SIZE if header[2] & FLAG_SEALED else 0
        return self.open_parts(data[: HEADER_SIZE + nonce], body[nonce:], chunk_id, kind, place)

    def open_parts(self, head: Buffer, body: Buffer, chunk_id: bytes, kind: Kind, place: object) -> bytes:
        """As `open`, of a frame in two parts as `Frame` has them, without the checksum."""
        magic, version, flags, kind_found, epoch, raw_length, stored, found_id, _ = HEADER.unpack_from(head)
        if magic != MAGIC:
            raise Damaged("no frame begins here", place)
        if version != VERSION or flags & ~(FLAG_ZSTD | FLAG_SEALED):
            raise UnsupportedFormat(
                "a frame of an unknown version or with unknown flags", f"{place}: {version}, {flags}"
            )
        if kind_found != kind or found_id != chunk_id:
            raise Damaged("another frame stands where this one should", place)
        if stored != len(head) - HEADER_SIZE + len(body) or raw_length > MAX_RAW or any(head[7:8]) or any(head[20:24]):
            raise Damaged("a frame's header is damaged", place)
        if self._keys.encrypted != bool(flags & FLAG_SEALED) and kind in SEALED_KINDS:
            raise Damaged("a frame is sealed where it must not be, or not sealed where it must be", place)
        content: Buffer = body
        if flags & FLAG_SEALED:
            nonce = bytes(head[HEADER_SIZE:])
            try:
                content = self._keys.frame_cipher(epoch, chunk_id).decrypt(nonce, body, head[:CHECKSUM_AT])
            except Damaged as error:  # no such key
                raise Damaged(error.what, f"epoch {error.value}, {place}") from None
            except (InvalidTag, ValueError):
                raise Damaged("a frame's seal is broken", place) from None
        elif epoch:
            raise Damaged("a frame's header is damaged", place)
        if flags & FLAG_ZSTD:
            content = self._decompress(content, raw_length, place)
        if len(content) != raw_length or self._keys.chunk_id(kind, content) != chunk_id:
            raise Damaged("a frame's content does not have its chunk id", place)
        return content if isinstance(content, bytes) else bytes(content)

    def _decompress(self, content: Buffer, raw_length: int, place: object) -> bytes:
        try:
            if zstandard.get_frame_parameters(content).content_size != raw_length:  # before any memory is taken
                raise Damaged("a frame's compressed content has another length", place)
            return self._decompressor.decompress(content, max_output_size=raw_length, allow_extra_data=False)
        except zstandard.ZstdError:
            raise Damaged("a frame's compressed content is damaged", place) from None
