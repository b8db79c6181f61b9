# SPDX-License-Identifier: Apache-2.0
"""JSON objects that carry their format, version, features and checksum (docs/format.md sections 2 and 8)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from blake3 import blake3

from mover.errors import Damaged, UnsupportedFormat

VERSION = 1


def _canonical(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii")


def dump(format_name: str, value: dict[str, Any], *, indent: int | None = None) -> bytes:
    whole = {"format": format_name, "version": VERSION, "features": 0, **value}
    whole["checksum"] = blake3(_canonical(whole)).hexdigest()
    return json.dumps(whole, indent=indent).encode() + b"\n"


def member(parent: Mapping[str, Any], name: str, *kinds: type) -> Any:
    """A member of one of these types; KeyError or TypeError otherwise."""
    value = parent[name]
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise TypeError(f"{name} is {type(value).__name__}")
    return value


def load(format_name: str, data: bytes | bytearray, name: str) -> dict[str, Any]:
    try:
        whole = json.loads(bytes(data))
        checksum = whole.pop("checksum")
        matches = blake3(_canonical(whole)).hexdigest() == checksum
    except (ValueError, KeyError, AttributeError, RecursionError, TypeError):
        raise Damaged("not the JSON object that should stand here", name) from None
    if not matches:
        raise Damaged("an object's checksum does not match", name)
    if whole.get("format") != format_name:
        raise Damaged("another object stands where this one should", f"{name} holds {whole.get('format')!r}")
    if whole.get("version") != VERSION or whole.get("features") != 0:
        value = f"{name}: version {whole.get('version')}, features {whole.get('features')}"
        raise UnsupportedFormat("an object of an unknown version or with unknown features", value)
    return dict(whole)
