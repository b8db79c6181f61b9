# SPDX-License-Identifier: Apache-2.0
"""What a guest named something, in a form that may be printed: what a terminal or a page acts upon, or cannot show, is escaped."""

from __future__ import annotations

LONGEST = 128


def shown(name: bytes) -> str:
    """A name of a file; bytes that are no UTF-8 are written as `\\xff`."""
    return "".join(c if c.isprintable() else _escaped(c) for c in name.decode("utf-8", "surrogateescape"))


def printable(text: object, most: int = LONGEST) -> str:
    """At most `most` characters of a label or an identifier."""
    cut = str(text)[: most + 1]
    made = "".join(c if c.isprintable() else _escaped(c) for c in cut[:most])
    return made + ("..." if len(cut) > most else "")


def _escaped(c: str) -> str:
    code = ord(c)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
