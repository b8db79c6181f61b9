# SPDX-License-Identifier: Apache-2.0
"""Names of a repository's objects (docs/format.md section 1), as text and in binary.

A pack is known by its text name without "packs/" (`<session>/<incarnation>-<n>`), interned here as `PackName`; in tables it is a
48-byte writer and a number whose top bit says "metadata". No name is ever made twice: it holds its writer's incarnation (I12).
"""

from __future__ import annotations

import re
import secrets
from typing import NamedTuple

METADATA_BIT = 1 << 31
_SESSION = re.compile(r"([0-9a-f]{32})-([0-9a-f]{32})\Z")
_PACK = re.compile(r"([0-9a-f]{32})-([0-9a-f]{32})/([0-9a-f]{32})-(m?)(0|[1-9][0-9]{0,9})\Z")
_POINT = re.compile(r"points/([0-9a-f]{32})/([0-9a-f]{32})\Z")

DESCRIPTOR = "repository.json"
COLLECTOR_STATE = "gc/state"


class PackName(NamedTuple):
    """A pack: `writer` is 48 bytes, `number` has METADATA_BIT set for a metadata pack."""

    writer: bytes
    number: int

    @property
    def is_metadata(self) -> bool:
        return bool(self.number & METADATA_BIT)

    @property
    def session(self) -> str:
        return f"{self.writer[:16].hex()}-{self.writer[16:32].hex()}"

    def __str__(self) -> str:
        kind = "m" if self.is_metadata else ""
        return f"{self.session}/{self.writer[32:].hex()}-{kind}{self.number & ~METADATA_BIT}"

    @property
    def object(self) -> str:
        """The object's name in the store."""
        return f"packs/{self}"


def parse_pack(text: str) -> PackName:
    """The pack that `text` (without "packs/") names; ValueError when it names none."""
    match = _PACK.match(text)
    if not match or int(match[5]) >= METADATA_BIT:
        raise ValueError(f"not a pack's name: {text!r}")
    writer = bytes.fromhex(match[1] + match[2] + match[3])
    return PackName(writer, int(match[5]) | (METADATA_BIT if match[4] else 0))


def random_id() -> str:
    """128 random bits as 32 hex digits: an incarnation, a hold, a write id, a repository."""
    return secrets.token_hex(16)


def point_record(resource: str, point: str) -> str:
    return f"points/{resource}/{point}"


def parse_point(name: str) -> tuple[str, str]:
    """(resource, point) of a point record's name; ValueError when it is none."""
    match = _POINT.match(name)
    if not match:
        raise ValueError(f"not a point's name: {name!r}")
    return match[1], match[2]


def session_of(point_name: str) -> str:
    """The session (prefix of its packs and runs) of a point record's name."""
    return "-".join(parse_point(point_name))


def point_of(session: str) -> str:
    """The point record's name of a session; ValueError when it is none."""
    match = _SESSION.match(session)
    if not match:
        raise ValueError(f"not a session: {session!r}")
    return point_record(match[1], match[2])


def hold_record(hold: str) -> str:
    return f"holds/{hold}"


def index_run(session: str, incarnation: str, number: int) -> str:
    return f"index/{session}/{incarnation}-{number}"


def writer_bytes(session: str, incarnation: str) -> bytes:
    match = _SESSION.match(session)
    if not match:
        raise ValueError(f"not a session: {session!r}")
    return bytes.fromhex(match[1] + match[2] + incarnation)


def request_class(name: str) -> str:
    """The line on which a request for this object is counted and reported."""
    top = name.split("/", 1)[0]
    if top == "packs":
        return "metadata-pack" if "-m" in name.rsplit("/", 1)[-1] else "data-pack"
    return {"index": "index-run", "points": "session", "holds": "session", "gc": "collector-state"}.get(
        top, "descriptor"
    )
