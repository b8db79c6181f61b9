# SPDX-License-Identifier: Apache-2.0
"""Names that a sound file system cannot have, made ones that can be shown and asked for but lead nowhere else."""

from __future__ import annotations


def fit(name: bytes) -> bytes | None:
    """`name` itself nearly always. A slash or a zero byte within becomes %2F or %00; None for a name that is none: empty, `.`
    or `..`, which lead out of the folder."""
    if b"/" in name or b"\0" in name:
        name = name.replace(b"/", b"%2F").replace(b"\0", b"%00")
    return None if name in (b"", b".", b"..") else name
