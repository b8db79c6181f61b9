# SPDX-License-Identifier: Apache-2.0
"""How the local store keeps a record in one file: a first line with ETag and metadata, then the content.

    DMREC1 {"etag": "...", "metadata": {"state": "open"}}\n<content>

One rename changes all three, so no crash separates them. The ETag is drawn anew for every write, because whatever a
file system offers (inode, times) comes again, and so does the content. An object is its plain content; only one that
begins like a record (none of ours does) gets a line too, `DMREC1 {"object": true}`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

from mover.errors import StoreError

MAGIC = b"DMREC1 {"
LARGEST = 8 << 20  # no file with a first line is larger: listings need not look into what is
OBJECT_LINE = b'DMREC1 {"object": true}\n'
_FIRST_READ = 4096  # bytes: nearly always the whole line
_LONGEST_LINE = 64 << 10  # bytes: 8 KiB of metadata, every character escaped


@dataclass(frozen=True, slots=True)
class Envelope:
    """`start` is the content's offset in the file; `etag` is empty for an object."""

    start: int
    etag: str
    metadata: Mapping[str, str]


PLAIN = Envelope(0, "", {})


def first_line(etag: str, metadata: Mapping[str, str]) -> bytes:
    return b"DMREC1 " + json.dumps({"etag": etag, "metadata": dict(metadata)}).encode("ascii") + b"\n"


def read_envelope(descriptor: int, name: str) -> Envelope:
    """What the open file begins with."""
    head = os.pread(descriptor, _FIRST_READ, 0)
    if not head.startswith(MAGIC):
        return PLAIN
    if b"\n" not in head:
        head = os.pread(descriptor, _LONGEST_LINE, 0)
    end = head.find(b"\n")
    try:
        if end < 0:
            raise ValueError
        fields = json.loads(head[len(b"DMREC1 ") : end])
        if "object" in fields:
            return Envelope(end + 1, "", {})
        return Envelope(end + 1, str(fields["etag"]), {str(k): str(v) for k, v in fields["metadata"].items()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError("the first line of a record cannot be read", name, "its file is damaged") from error
