# SPDX-License-Identifier: Apache-2.0
"""The record of a session: a restore point (open, committed, aborted) or a reader's hold (docs/format.md section 6).

Bytes only; who may write one and when is `session`'s and `hold`'s business (rule I1: one function writes sessions).
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Mapping

import msgspec
from blake3 import blake3
from cryptography.exceptions import InvalidTag

from mover.errors import Damaged, MoverError, UnsupportedFormat
from mover.repository.chunk import ChunkRef
from mover.repository.keys import KeyRing
from mover.repository.names import parse_pack
from mover.repository.pack import Place

FIXED = struct.Struct("<4sHHQII")
MAGIC, VERSION = b"DMPT", 1
CHECKSUM_SIZE, MAC_SIZE, NONCE_SIZE = 32, 32, 12
MAX_SIZE = 64 * 1024
MAX_LISTED_RUNS = 8
NO_RUNS = "-"
RUN_COUNT = re.compile(r"[0-9]{1,9}\Z")

OPEN, COMMITTED, ABORTED, ENDED = "open", "committed", "aborted", "ended"

PlaceJson = tuple[str, int, int, str]
"""[pack name without "packs/", offset, length, hex chunk id]"""


def place_to_json(ref: ChunkRef) -> PlaceJson:
    return str(ref.place.pack), ref.place.offset, ref.place.length, ref.chunk_id.hex()


def place_from_json(value: PlaceJson) -> ChunkRef:
    try:
        pack, offset, length, chunk_id = value
        if not (0 <= offset < 1 << 32 and 0 <= length < 1 << 32 and len(chunk_id) == 64):
            raise ValueError
        return ChunkRef(bytes.fromhex(chunk_id), Place(parse_pack(pack), offset, length))
    except ValueError:
        raise Damaged("a record names a place that cannot be", value) from None


class DiskState(msgspec.Struct, frozen=True):
    """A disk's map as the record names it. `covered` counts blocks from the start."""

    root: PlaceJson
    size: int
    covered: int


class Uses(msgspec.Struct, frozen=True):
    """Packs of other sessions that this one took from the index (I13): named here, or in pack lists once they are many."""

    packs: tuple[str, ...] = ()
    lists: tuple[PlaceJson, ...] = ()


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The clear part; docs/format.md says what each member means."""

    kind: str
    name: str
    state: str
    resource: str
    incarnation: str
    write_id: str
    time: float
    sequence: int = 0
    flags: str = ""
    parent: str | None = None
    generation: int = 0
    owner_epoch: int = 1
    key_epoch: int = 0
    runs: tuple[tuple[str, int], ...] = ()
    uses: Uses = Uses()
    disks: tuple[DiskState, ...] = ()
    documents: dict[str, PlaceJson] = {}
    summary: PlaceJson | None = None
    statistics: dict[str, float] = {}


class DiskBody(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a disk; `identity`, `snapshot` and `source` decide what an incremental and an adopter may trust."""

    name: str
    identity: str
    size: int
    sector_size: int = 512
    snapshot: str | None = None
    source: str | None = None


class Body(msgspec.Struct, frozen=True, kw_only=True):
    """The sealed part."""

    resource_name: str = ""
    job: str = ""
    disks: tuple[DiskBody, ...] = ()
    created_by: str = ""


def metadata_of(header: Header) -> dict[str, str]:
    """What listings show; written by the same request as the record."""
    metadata = {
        "state": header.state,
        "resource": header.resource,
        "sequence": str(header.sequence),
        "flags": header.flags,
    }
    if len(header.runs) <= MAX_LISTED_RUNS:
        metadata["runs"] = ",".join(f"{incarnation}:{count}" for incarnation, count in header.runs) or NO_RUNS
    return {key: value for key, value in metadata.items() if value}


def runs_of(metadata: Mapping[str, str]) -> list[tuple[str, int]] | None:
    """The runs as a listing shows them; None when the record itself must be read."""
    text = metadata.get("runs")
    if text is None:
        return None
    if text == NO_RUNS:
        return []
    pairs = [part.rpartition(":") for part in text.split(",") if part]
    if not all(RUN_COUNT.match(count) for _, _, count in pairs):
        return None  # metadata that was damaged: the record says it too
    return [(incarnation, int(count)) for incarnation, _, count in pairs]


def may_be_committed(metadata: Mapping[str, str]) -> bool:
    """Whether a listing leaves it open that the record is a restore point. Metadata that says nothing known hides none."""
    return metadata.get("state") not in (OPEN, ABORTED)


def encode(header: Header, body: Body, keys: KeyRing) -> bytes:
    """The record's bytes; a MoverError when it would pass 64 KiB (writers move lists into chunks before that)."""
    head = msgspec.json.encode(header)
    plain = msgspec.json.encode(body)
    length = len(plain) + (NONCE_SIZE + 16 if header.key_epoch else 0)
    front = FIXED.pack(MAGIC, VERSION, 0, 0, len(head), length) + head
    if header.key_epoch:
        nonce = os.urandom(NONCE_SIZE)
        front += nonce + keys.body_cipher(header.key_epoch, header.name).encrypt(nonce, plain, front)
    else:
        front += plain
    front += blake3(front).digest()
    data = front + (keys.point_mac(header.key_epoch, front) if header.key_epoch else bytes(MAC_SIZE))
    if len(data) > MAX_SIZE:
        raise MoverError(
            "a restore point's record would be too large", f"{len(data)} bytes", "use fewer disks in one point"
        )
    return data


def decode_header(data: bytes, name: str) -> Header:
    """The clear part, without keys: checksum and form are checked, the MAC is not."""
    return _split(data, name)[0]


def decode(data: bytes, name: str, keys: KeyRing) -> tuple[Header, Body]:
    """Both parts; in an encrypted repository the MAC is checked, and a record that claims not to be sealed is refused."""
    header, body, front = _split(data, name)
    if keys.encrypted != bool(header.key_epoch):
        raise Damaged("a record is sealed where it must not be, or not sealed where it must be", name)
    if header.key_epoch:
        if keys.point_mac(header.key_epoch, data[:-MAC_SIZE]) != data[-MAC_SIZE:]:
            raise Damaged("a record's seal is broken", name)
        try:
            cipher = keys.body_cipher(header.key_epoch, name)
            body = cipher.decrypt(body[:NONCE_SIZE], body[NONCE_SIZE:], front)
        except (InvalidTag, ValueError):
            raise Damaged("a record's seal is broken", name) from None
    try:
        return header, msgspec.json.decode(body, type=Body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Damaged("a record's body is malformed", f"{name}: {error}") from None


def _split(data: bytes, name: str) -> tuple[Header, bytes, bytes]:
    """(header, body as stored, the bytes before the body)."""
    if len(data) < FIXED.size + CHECKSUM_SIZE + MAC_SIZE:
        raise Damaged("a record is too short", f"{name}: {len(data)} bytes")
    checked = len(data) - CHECKSUM_SIZE - MAC_SIZE
    if blake3(data[:checked]).digest() != data[checked:-MAC_SIZE]:
        raise Damaged("a record's checksum does not match", name)
    magic, version, zero, features, head_size, body_size = FIXED.unpack_from(data)
    if magic != MAGIC or zero or FIXED.size + head_size + body_size != checked:
        raise Damaged("a record is malformed", name)
    if version != VERSION or features:
        raise UnsupportedFormat(
            "a record of an unknown version or with unknown features", f"{name}: {version}, {features}"
        )
    body_at = FIXED.size + head_size
    try:
        header = msgspec.json.decode(data[FIXED.size : body_at], type=Header)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Damaged("a record's header is malformed", f"{name}: {error}") from None
    if header.name != name:
        raise Damaged("another record stands where this one should", f"{name} holds {header.name}")
    if not header.key_epoch and any(data[-MAC_SIZE:]):
        raise Damaged("a record is malformed", name)
    return header, data[body_at:checked], data[:body_at]
