# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import struct
from typing import Any

import msgspec
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from mover.errors import Damaged, MoverError, UnsupportedFormat
from mover.repository import record
from mover.repository.keys import KeyRing
from mover.repository.maps import ChunkRef
from mover.repository.names import METADATA_BIT, PackName
from mover.repository.pack import Place
from mover.repository.record import Body, DiskBody, DiskState, Header, Uses
from mover.store.record_rules import check_record
from tests.mover.repository import codecs

CLEAR, SEALED = KeyRing(b"i" * 32, {}, 0), KeyRing(b"i" * 32, {1: b"1" * 32, 2: b"2" * 32}, 2)
RINGS = pytest.mark.parametrize("ring", [CLEAR, SEALED], ids=["clear", "sealed"])
NAME = f"points/{'a1' * 16}/{'b2' * 16}"

place_json = codecs.refs.map(record.place_to_json)
texts = st.text(max_size=20)
hexes = st.binary(min_size=16, max_size=16).map(bytes.hex)
headers = st.builds(
    Header,
    kind=st.just("point"),
    name=st.just(NAME),
    state=st.sampled_from([record.OPEN, record.COMMITTED, record.ABORTED]),
    resource=hexes,
    incarnation=hexes,
    write_id=hexes,
    time=st.floats(0, 1e12),
    sequence=st.integers(0, 1 << 40),
    flags=st.sampled_from(["", "D", "DW", "DWMY"]),
    parent=st.none() | texts,
    generation=st.integers(0, 1 << 40),
    runs=st.lists(st.tuples(hexes, st.integers(0, 1000)), max_size=10).map(tuple),
    uses=st.builds(
        Uses, st.lists(codecs.packs.map(str), max_size=5).map(tuple), st.lists(place_json, max_size=3).map(tuple)
    ),
    disks=st.lists(st.builds(DiskState, place_json, st.integers(0, 1 << 60), st.integers(0, 1 << 40)), max_size=3).map(
        tuple
    ),
    documents=st.dictionaries(texts, place_json, max_size=2),
    summary=st.none() | place_json,
    statistics=st.dictionaries(texts, st.floats(allow_nan=False, allow_infinity=False), max_size=3),
)
bodies = st.builds(
    Body,
    resource_name=texts,
    job=texts,
    disks=st.lists(
        st.builds(
            DiskBody,
            name=texts,
            identity=texts,
            size=st.integers(0, 1 << 60),
            snapshot=st.none() | texts,
            source=st.none() | texts,
        ),
        max_size=3,
    ).map(tuple),
    created_by=texts,
)


def sample(ring: KeyRing) -> tuple[Header, Body, bytes]:
    ref = ChunkRef(b"i" * 32, Place(PackName(b"w" * 48, METADATA_BIT), 5, 100))
    header = Header(
        kind="point",
        name=NAME,
        state=record.COMMITTED,
        resource="a1" * 16,
        incarnation="c3" * 16,
        write_id="d4" * 16,
        time=1.5,
        key_epoch=ring.epoch,
        disks=(DiskState(record.place_to_json(ref), 1 << 20, 1),),
    )
    body = Body(resource_name="vm \u00fc", job="job", disks=(DiskBody(name="d", identity="i", size=1 << 20),))
    return header, body, record.encode(header, body, ring)


@given(st.sampled_from([CLEAR, SEALED]), headers, bodies)
def test_a_record_is_read_back(ring: KeyRing, header: Header, body: Body) -> None:
    header = msgspec.structs.replace(header, key_epoch=ring.epoch)
    data = record.encode(header, body, ring)
    assert record.decode(data, NAME, ring) == (header, body)
    assert record.decode_header(data, NAME) == header
    metadata = record.metadata_of(header)
    check_record(NAME, data, metadata)
    runs = record.runs_of(metadata)
    assert runs == (None if len(header.runs) > record.MAX_LISTED_RUNS else list(header.runs))


@given(codecs.refs)
def test_a_place_is_read_back(ref: ChunkRef) -> None:
    assert record.place_from_json(record.place_to_json(ref)) == ref


@pytest.mark.parametrize(
    ("at", "value"), [(0, "x"), (1, -1), (1, 1 << 32), (2, -1), (2, 1 << 32), (3, "00"), (3, "g" * 64)]
)
def test_a_place_that_cannot_be_is_damage(at: int, value: Any) -> None:
    place: list[Any] = list(record.place_to_json(ChunkRef(bytes(32), Place(PackName(bytes(48), 0), 0, 64))))
    place[at] = value
    with pytest.raises(Damaged):
        record.place_from_json((place[0], place[1], place[2], place[3]))


@RINGS
def test_no_wound_is_harmless(ring: KeyRing) -> None:
    _, _, data = sample(ring)
    assert codecs.assert_guarded(lambda wound: record.decode(wound, NAME, ring), data) == 0


def forged(data: bytes, change: bytes, by: bytes) -> bytes:
    """Changed by somebody who has no key: the checksum fits again."""
    front = data[: -record.CHECKSUM_SIZE - record.MAC_SIZE].replace(change, by)
    return front + blake3(front).digest() + data[-record.MAC_SIZE :]


def test_a_sealed_record_cannot_be_forged() -> None:
    _, _, data = sample(SEALED)
    for change, by in (
        (b"committed", b"com-itted"),
        (b'"sequence":0', b'"sequence":9'),
        (b'"key_epoch":2', b'"key_epoch":1'),
    ):
        with pytest.raises(Damaged, match=NAME):
            record.decode(forged(data, change, by), NAME, SEALED)
    _, _, clear = sample(CLEAR)
    with pytest.raises(Damaged, match="sealed where it must not be"):
        record.decode(clear, NAME, SEALED)
    with pytest.raises(Damaged, match="sealed where it must not be"):
        record.decode(data, NAME, CLEAR)


@RINGS
def test_a_record_under_another_name_is_refused(ring: KeyRing) -> None:
    _, _, data = sample(ring)
    with pytest.raises(Damaged, match="another record"):
        record.decode(data, NAME.replace("b2", "b3"), ring)


@RINGS
@pytest.mark.parametrize(
    ("at", "error"), [(4, UnsupportedFormat), (8, UnsupportedFormat), (15, UnsupportedFormat), (6, Damaged)]
)
def test_an_unknown_version_or_feature_is_refused(ring: KeyRing, at: int, error: type[MoverError]) -> None:
    _, _, data = sample(ring)
    front = bytearray(data[: -record.CHECKSUM_SIZE - record.MAC_SIZE])
    front[at] ^= 2
    with pytest.raises(error, match=NAME):
        record.decode(bytes(front) + blake3(front).digest() + data[-record.MAC_SIZE :], NAME, ring)


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_what_stands_in_header_and_body_is_checked(head: bytes, body: bytes) -> None:
    """A clear repository's records can be made by anybody: whatever they hold, nothing but a MoverError comes of it."""
    front = record.FIXED.pack(record.MAGIC, 1, 0, 0, len(head), len(body)) + head + body
    with pytest.raises(MoverError):
        record.decode(front + blake3(front).digest() + bytes(32), NAME, CLEAR)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("time", "now"),
        ("disks", [1]),
        ("runs", [["x"]]),
        ("uses", []),
        ("summary", [1, 2, 3, 4]),
        ("sequence", 1.5),
        ("name", 1),
    ],
)
def test_a_member_of_another_type_is_damage(member: str, value: object) -> None:
    header, _, data = sample(CLEAR)
    changed = json.dumps(json.loads(msgspec.json.encode(header)) | {member: value}).encode()
    _, _, _, _, head, body = struct.unpack_from("<4sHHQII", data)
    front = record.FIXED.pack(record.MAGIC, 1, 0, 0, len(changed), body) + changed + data[24 + head : 24 + head + body]
    with pytest.raises(Damaged, match=NAME):
        record.decode(front + blake3(front).digest() + bytes(32), NAME, CLEAR)


def test_bytes_that_are_no_text_are_damage() -> None:
    for head, body in ((b'{"kind":"\xff"}', b"{}"), (msgspec.json.encode(sample(CLEAR)[0]), b'{"job":"\xff"}')):
        front = record.FIXED.pack(record.MAGIC, 1, 0, 0, len(head), len(body)) + head + body
        with pytest.raises(Damaged, match=NAME):
            record.decode(front + blake3(front).digest() + bytes(32), NAME, CLEAR)


def test_a_record_stays_under_its_limit() -> None:
    header, body, _ = sample(CLEAR)
    with pytest.raises(MoverError, match="too large"):
        record.encode(header, msgspec.structs.replace(body, created_by="x" * (1 << 16)), CLEAR)


@pytest.mark.parametrize("text", ["x", "x:", ":", "x:1y", "x:-1", "x:1:", "x:" + "9" * 5000, "x:\u0661"])
def test_damaged_metadata_sends_one_to_the_record(text: str) -> None:
    assert record.runs_of({"runs": text}) is None


def test_metadata_that_says_nothing_known_hides_no_point() -> None:
    states = {None: True, "": True, "committed": True, "bommitted": True, "open": False, "aborted": False}
    assert {state: record.may_be_committed({"state": state} if state is not None else {}) for state in states} == states
