# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from mover.errors import CodecFailed, Damaged, MoverError, UnsupportedFormat
from mover.repository.frame import CHECKSUM_AT, FLAG_SEALED, FLAG_ZSTD, HEADER_SIZE, FrameReader, FrameWriter
from mover.repository.keys import SEALED_KINDS, KeyRing, Kind
from tests.mover.repository import codecs

CLEAR, SEALED = KeyRing(b"i" * 32, {}, 0), KeyRing(b"i" * 32, {1: b"1" * 32, 2: b"2" * 32}, 2)
RINGS = pytest.mark.parametrize("ring", [CLEAR, SEALED], ids=["clear", "sealed"])
PLACE = "packs/p at 7"


def framed(ring: KeyRing, raw: bytes, kind: Kind = Kind.DATA) -> tuple[bytes, bytes]:
    """(chunk id, the frame's bytes)"""
    frame = FrameWriter(ring).write(kind, raw)
    assert frame.length == len(frame.head) + len(frame.body)
    assert (frame.kind, frame.raw_length) == (kind, len(raw))
    return frame.chunk_id, frame.head + bytes(frame.body)


def opener(ring: KeyRing, chunk_id: bytes, kind: Kind = Kind.DATA) -> Callable[[bytes], bytes]:
    return lambda data: FrameReader(ring).open(memoryview(data), chunk_id, kind, PLACE)


def with_checksum(data: bytearray) -> bytes:
    data[CHECKSUM_AT:HEADER_SIZE] = xxh3_64_intdigest(data[HEADER_SIZE:]).to_bytes(8, "little")
    return bytes(data)


@given(st.sampled_from([CLEAR, SEALED]), st.sampled_from(Kind), st.binary(max_size=300), st.integers(1, 50))
def test_what_is_framed_comes_out(ring: KeyRing, kind: Kind, raw: bytes, times: int) -> None:
    raw *= times
    chunk_id, data = framed(ring, raw, kind)
    assert chunk_id == ring.chunk_id(kind, raw)
    assert opener(ring, chunk_id, kind)(data) == raw
    assert bool(data[5] & FLAG_SEALED) == (ring.encrypted and kind in SEALED_KINDS)
    stored = len(data) - HEADER_SIZE - (28 if data[5] & FLAG_SEALED else 0)
    assert stored < len(raw) if data[5] & FLAG_ZSTD else stored == len(raw)


@RINGS
@pytest.mark.parametrize("raw", [b"", b"x", b"abc" * 100, bytes(range(256))], ids=["empty", "one", "zstd", "plain"])
@pytest.mark.parametrize("kind", [Kind.DATA, Kind.SUMMARY])
def test_no_wound_is_harmless(ring: KeyRing, raw: bytes, kind: Kind) -> None:
    """Every byte of a frame is checked: no flip, even with a checksum made to fit, and no cut yields anything."""
    chunk_id, data = framed(ring, raw, kind)
    decode = opener(ring, chunk_id, kind)
    assert codecs.assert_guarded(decode, data) == 0
    for wound in codecs.wounded(data, seed=2):
        if len(wound) == len(data) and wound[CHECKSUM_AT:HEADER_SIZE] == data[CHECKSUM_AT:HEADER_SIZE]:
            with pytest.raises(MoverError, match=PLACE):
                decode(with_checksum(bytearray(wound)))


@RINGS
def test_an_unknown_version_or_flag_is_refused(ring: KeyRing) -> None:
    chunk_id, data = framed(ring, b"abc" * 100)
    for at, value in ((4, 2), (4, 0), (5, data[5] | 4), (5, data[5] | 128)):
        changed = bytearray(data)
        changed[at] = value
        with pytest.raises(UnsupportedFormat, match=PLACE):
            opener(ring, chunk_id)(bytes(changed))


def test_a_frame_is_taken_for_no_other() -> None:
    chunk_id, data = framed(SEALED, b"abc")
    other, _ = framed(SEALED, b"abd")
    for asked, kind in ((other, Kind.DATA), (chunk_id, Kind.PAGE)):
        with pytest.raises(Damaged, match="another frame"):
            opener(SEALED, asked, kind)(data)


def test_a_sealed_repository_takes_no_clear_frame_and_the_other_way_round() -> None:
    chunk_id, clear = framed(CLEAR, b"abc")
    _, sealed = framed(SEALED, b"abc")
    with pytest.raises(Damaged, match="sealed"):
        opener(SEALED, chunk_id)(clear)
    with pytest.raises(Damaged, match="sealed"):
        opener(CLEAR, chunk_id)(sealed)


def test_frames_of_older_epochs_are_read_and_of_unknown_ones_told() -> None:
    chunk_id, data = framed(KeyRing(b"i" * 32, {1: b"1" * 32}, 1), b"abc")
    assert opener(SEALED, chunk_id)(data) == b"abc"
    with pytest.raises(Damaged, match=r"epoch 1, packs/p at 7"):
        opener(KeyRing(b"i" * 32, {2: b"2" * 32}, 2), chunk_id)(data)


def test_the_same_chunk_is_sealed_differently_each_time() -> None:
    assert framed(SEALED, b"abc")[1] != framed(SEALED, b"abc")[1]


def test_a_length_that_lies_takes_no_memory() -> None:
    """256 MiB of zeros in a few bytes, in a frame that says so or not."""
    bomb = zstandard.ZstdCompressor().compress(bytes(1 << 20))
    chunk_id = CLEAR.chunk_id(Kind.DATA, b"abc")
    for raw_length in (3, 1 << 28, (1 << 28) + 1, (1 << 32) - 1):
        head = struct.pack("<4sBBBxIIIxxxx32sQ", b"DMFR", 1, FLAG_ZSTD, 1, 0, raw_length, len(bomb), chunk_id, 0)
        with pytest.raises(Damaged, match=PLACE):
            opener(CLEAR, chunk_id)(with_checksum(bytearray(head + bomb)))


def test_what_does_not_decode_is_never_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    writer = FrameWriter(CLEAR)

    class Liar:
        def compress(self, raw: bytes) -> bytes:
            return zstandard.ZstdCompressor(write_content_size=True).compress(b"b" + bytes(raw)[1:])

    monkeypatch.setattr(writer, "_compressor", Liar())
    with pytest.raises(CodecFailed):
        writer.write(Kind.DATA, b"a" * 1000)
    with pytest.raises(CodecFailed):
        FrameWriter(CLEAR).write(Kind.DATA, b"a" * 1000, bytes(32))


def test_a_frame_does_not_change_with_the_callers_buffer() -> None:
    for ring in (CLEAR, SEALED):
        buffer = bytearray(range(256))
        frame = FrameWriter(ring, check=False).write(Kind.DATA, buffer)
        buffer[:] = bytes(256)
        assert opener(ring, frame.chunk_id)(frame.head + bytes(frame.body)) == bytes(range(256))


@RINGS
def test_a_frame_holds_no_more_memory_than_its_bytes(ring: KeyRing) -> None:
    """A pack has room for 100,000 frames of blocks that compress to nothing; each once kept half a block in memory."""
    writer, before = FrameWriter(ring), resident()
    kept = [writer.write(Kind.DATA, number.to_bytes(8, "little") * (1 << 17)) for number in range(400)]
    assert sum(frame.length for frame in kept) < 16 << 20
    assert resident() - before < 64 << 20


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
