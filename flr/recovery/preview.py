# SPDX-License-Identifier: Apache-2.0
"""What the beginning of a file looks like: text, a picture of a kind that is safe to show, or bytes.

Nothing is decoded here but text; a picture's bytes go to the browser as they are, and only kinds that hold no programs. Sources:
the formats' signatures (PNG, JFIF, GIF89a, RIFF/WebP).
"""

from __future__ import annotations

import base64
import codecs
from typing import Any

PREVIEW_BYTES = 64 << 10
LARGEST_IMAGE = 16 << 20
_CONTROL = frozenset(range(32)) - {7, 8, 9, 10, 12, 13, 27}
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
BYTES = "bytes"
"""In the place of an encoding: no text is wanted."""
ENCODINGS = ("utf-8", "utf-16-le", "utf-16-be", "latin-1", BYTES)


def image_type(head: bytes, size: int) -> str | None:
    """The media type of a picture that may be shown; None for anything else, and for one that is too large."""
    if size > LARGEST_IMAGE:
        return None
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "image/gif"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    return None


def kind_of_content(data: bytes, size: int, offset: int = 0, encoding: str = "") -> dict[str, Any]:
    """`kind`: text (with `text` and its `encoding`), image, empty or binary; the bytes themselves in base64 for a hexadecimal
    view of what is no text. `length` is how many bytes that is: the next part begins behind them, a letter is not cut.

    `encoding`: what the part before was, or what a person wants to see it as; empty to find out."""
    last = offset + len(data) >= size
    if not data:
        return {"kind": "empty", "length": 0}
    if encoding and encoding != BYTES:
        return _text(data, encoding, last)
    if not encoding:
        if image_type(data, size):
            return {"kind": "image", "length": len(data)}
        for mark, name in _MARKS:
            if data.startswith(mark):
                return _text(data, name, last)
        if not _CONTROL.intersection(data[:4096]):
            try:
                codecs.getincrementaldecoder("utf-8")().decode(data)  # its last letter may be cut
                return _text(data, "utf-8", last)
            except UnicodeDecodeError:
                odd = sum(byte >= 128 for byte in data[:4096])
                if odd * 4 < len(data[:4096]):
                    return _text(data, "latin-1", last)
    return {"kind": "binary", "base64": base64.b64encode(data).decode(), "length": len(data)}


def _text(data: bytes, encoding: str, last: bool) -> dict[str, Any]:
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    text = decoder.decode(data, last).removeprefix("\ufeff")
    whole = len(data) - len(decoder.getstate()[0])
    return {"kind": "text", "encoding": encoding, "text": _visible(text), "length": whole}


def _visible(text: str) -> str:
    """Control characters but line ends and tabs, and what turns the direction of writing round, as signs of their own."""
    return "".join(_sign(c) if c not in "\n\r\t" and not c.isprintable() else c for c in text)


def _sign(c: str) -> str:
    code = ord(c)
    if code < 32:
        return chr(0x2400 + code)
    return c if code == 0xA0 else "\N{REPLACEMENT CHARACTER}"
