# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from mover.errors import Damaged, UnsupportedFormat
from mover.repository import index_run
from mover.repository.index_run import (
    BLOCK_RECORDS,
    FOOTER_SIZE,
    RECORD_SIZE,
    RemoteRun,
    ResidentRun,
    build_filter,
    decode_run,
    encode_run,
    may_hold,
    read_footer,
    read_tail,
)
from mover.repository.names import PackName
from mover.repository.pack import Place
from tests.mover.repository import codecs

RUN = "index/s/i-0"
Entries = list[tuple[bytes, Place, int]]
rows = st.lists(st.tuples(codecs.ids, codecs.places, st.integers(0, 6)), max_size=40)


def model_of(entries: Entries) -> dict[bytes, list[Place]]:
    model: dict[bytes, list[Place]] = {}
    for chunk_id, place, _ in entries:
        model.setdefault(chunk_id, []).append(place)
    return model


def remote(data: bytes, cache: int = 64) -> RemoteRun:
    shape = read_footer(data[-FOOTER_SIZE:], len(data), RUN)
    tail = read_tail(data[shape.records * RECORD_SIZE : -FOOTER_SIZE], shape, RUN)
    return RemoteRun(RUN, shape, tail, lambda at, size: data[at : at + size], cache)


def both(entries: Entries) -> list[ResidentRun | RemoteRun]:
    data = encode_run(entries)
    return [ResidentRun(*decode_run(data, RUN)), remote(data)]


def assert_finds(run: ResidentRun | RemoteRun, entries: Entries, others: list[bytes]) -> None:
    model = model_of(entries)
    asked = [*model, *(chunk_id for chunk_id in others if chunk_id not in model)]
    for chunk_id, places in zip(asked, run.find(asked), strict=True):
        assert sorted(places) == sorted(model.get(chunk_id, []))


@given(rows, st.lists(codecs.ids, max_size=5))
def test_every_place_is_found_and_nothing_else(entries: Entries, others: list[bytes]) -> None:
    """Ids of zeros, of ones, with zero bytes at their end, twice; in memory and by blocks."""
    for run in both(entries):
        assert_finds(run, entries, others)


def test_ids_that_end_in_zeros_are_not_confused() -> None:
    pack = PackName(b"w" * 48, 0)
    ids = [b"\1" * k + bytes(32 - k) for k in range(33)]
    entries: Entries = [(chunk_id, Place(pack, k, 70), 1) for k, chunk_id in enumerate(ids)]
    for run in both(entries):
        assert [places[0].offset for places in run.find(ids)] == list(range(33))
        assert run.find([b"\2" + bytes(31)]) == [[]]


def large(seed: int = 1) -> Entries:
    """Three blocks and a bit; one id has more places than a block has records."""
    rng = random.Random(seed)
    pack = PackName(b"w" * 48, 0)
    entries = [(rng.randbytes(32), Place(pack, k, 70), 1) for k in range(2 * BLOCK_RECORDS)]
    entries += [(b"\x80" * 32, Place(pack, k, 71), 1) for k in range(BLOCK_RECORDS + 100)]
    rng.shuffle(entries)
    return entries


@pytest.mark.parametrize("cache", [1, 64])
def test_a_run_of_many_blocks(cache: int) -> None:
    entries = large()
    data = encode_run(entries)
    assert_finds(ResidentRun(*decode_run(data, RUN)), entries, [bytes(32), b"\xff" * 32])
    assert_finds(remote(data, cache), entries, [bytes(32), b"\xff" * 32])


def test_a_lookup_that_misses_reads_hardly_any_block() -> None:
    data = encode_run(large())
    read: list[int] = []
    shape = read_footer(data[-FOOTER_SIZE:], len(data), RUN)
    tail = read_tail(data[shape.records * RECORD_SIZE : -FOOTER_SIZE], shape, RUN)
    run = RemoteRun(RUN, shape, tail, lambda at, size: read.append(at) or data[at : at + size])  # type: ignore[func-returns-value]
    rng = random.Random(2)
    assert not any(run.find([rng.randbytes(32) for _ in range(200)]))
    assert len(read) < 20


@given(rows, rows)
def test_runs_are_merged(one: Entries, two: Entries) -> None:
    merged = ResidentRun.merge([ResidentRun(*decode_run(encode_run(part), RUN)) for part in (one, two)])
    assert_finds(merged, one + two, [])
    assert merged.memory >= RECORD_SIZE * len(one + two)


@given(st.lists(codecs.ids, min_size=1, max_size=50))
def test_the_filter_misses_nothing(ids: list[bytes]) -> None:
    filter_log, bits = build_filter(ids)
    assert may_hold(filter_log, bits, ids).all()


def test_the_format_is_the_pages() -> None:
    """Sizes of docs/format.md section 7."""
    entries = large()
    data = encode_run(entries)
    shape = read_footer(data[-FOOTER_SIZE:], len(data), RUN)
    assert (RECORD_SIZE, FOOTER_SIZE, BLOCK_RECORDS) == (48, 56, 1365)
    assert (shape.records, shape.blocks) == (len(entries), -(-len(entries) // 1365))
    assert len(data) == 48 * shape.records + 48 + 8 + 40 * shape.blocks + (1 << shape.filter_log) // 8 + 56
    assert data[:48] == min(entries)[0] + data[32:48]


def test_no_wound_yields_another_run() -> None:
    pack = PackName(b"w" * 48, 0)
    data = encode_run([(bytes([k]) * 32, Place(pack, k, 70), 1) for k in range(4)])

    def decode(wound: bytes) -> object:
        records, packs = decode_run(wound, RUN)
        return records.tobytes(), packs

    assert codecs.assert_guarded(decode, data) == 0


def with_footer(data: bytes, at: int, value: int) -> bytes:
    footer = bytearray(data[-FOOTER_SIZE:])
    footer[at] = value
    footer[-8:] = xxh3_64_intdigest(bytes(footer[:-8])).to_bytes(8, "little")
    return data[:-FOOTER_SIZE] + bytes(footer)


@pytest.mark.parametrize("at", [4, 8, 15])
def test_an_unknown_version_or_feature_is_refused(at: int) -> None:
    with pytest.raises(UnsupportedFormat, match=RUN):
        decode_run(with_footer(encode_run([]), at, 2), RUN)


@pytest.mark.parametrize(
    ("at", "value"), [(6, 1), (7, 1), (16, 1), (23, 255), (24, 1), (28, 9), (32, 1), (36, 8), (36, 41), (36, 255)]
)
def test_counts_that_do_not_fit_are_damage(at: int, value: int) -> None:
    with pytest.raises(Damaged, match=RUN):
        decode_run(with_footer(encode_run([]), at, value), RUN)


def test_a_record_of_no_pack_is_damage() -> None:
    pack = PackName(b"w" * 48, 0)
    data = bytearray(encode_run([(bytes(32), Place(pack, 0, 70), 1)]))
    data[32] = 1
    with pytest.raises(Damaged, match="pack that it does not list"):
        index_run.read_block(bytes(data[:48]), xxh3_64_intdigest(bytes(data[:48])), 1, RUN)
