# SPDX-License-Identifier: Apache-2.0
"""What a record may be: the limits that every store checks, so that a test on one store speaks for all.

They are Azure's, made a little narrower: metadata travels in HTTP headers, whose names are case-insensitive there and
whose values lose blanks at their ends. Not here: what the metadata means (mover.repository knows).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from mover.errors import UsageError

RECORD_LIMIT = 4 << 20  # bytes of content
METADATA_LIMIT = 8 << 10  # bytes of names and values together, Azure's limit
LEASE_SECONDS = range(15, 61)  # Azure's limits for a lease that ends

_KEY = re.compile(r"[a-z_][a-z0-9_]*\Z")
_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?\Z")


def check_record(name: str, data: bytes, metadata: Mapping[str, str]) -> dict[str, str]:
    """A copy of the metadata; UsageError when content or metadata are more than a store keeps unchanged."""
    if len(data) > RECORD_LIMIT:
        raise UsageError(f"a record of {len(data)} bytes is over the limit of {RECORD_LIMIT}", name)
    for key, value in metadata.items():
        if not _KEY.match(key) or not _VALUE.match(value):
            raise UsageError(
                "metadata that a store would not give back unchanged",
                f"{name}: {key}",
                "keys are lower-case identifiers, values printable ASCII without blanks at their ends",
            )
    if sum(len(key) + len(value) for key, value in metadata.items()) > METADATA_LIMIT:
        raise UsageError(f"metadata over the limit of {METADATA_LIMIT} bytes", name)
    return dict(metadata)


def check_lease_seconds(name: str, seconds: int) -> int:
    if seconds not in LEASE_SECONDS:
        raise UsageError(f"a lease of {seconds} seconds", name, "a lease lasts 15 to 60 seconds")
    return seconds
