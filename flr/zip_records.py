# SPDX-License-Identifier: Apache-2.0
"""The records of a zip and the frames of a file's content in it, as bytes.

Content is a DEFLATE stream of stored blocks, framed here: five bytes for every 65,535. So its length is known beforehand, and
readers that go from the front find its end, which they could not if it were plainly stored. What has content has its checksum and
sizes behind it, in 64 bits where 32 are too few; folders and empty files have neither.
Sources: PKWARE's APPNOTE.TXT 6.3.10; RFC 1951, section 3.2.4; Info-ZIP's extra field "UT" (proginfo/extrafld.txt of zip 3.0).
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator

from flr.blocks import Hole

BLOCK, FRAME = 65535, 5
"""Bytes of content in a block, and of what stands before it."""
LONGEST_PATH = 0xFFFF
"""Bytes."""
_FRAMED = FRAME + BLOCK
_FRAME = struct.Struct("<BHH")
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END = struct.Struct("<4sHHHHIIH")
_END64 = struct.Struct("<4sQHHIIQQQQ")
_LOCATOR = struct.Struct("<4sIQI")
_TIME = struct.Struct("<2sHBi")
_BIG, _MANY = 0xFFFFFFFF, 0xFFFF
"""What stands where the true number is elsewhere, in 64 bits."""
_UTF8, _BEHIND = 1 << 11, 1 << 3
_STORED, _DEFLATED = 0, 8
_PLAIN_VERSION, _BIG_VERSION = 20, 45
_MADE_BY = 3 << 8 | 63  # on Unix, by version 6.3 of the format: so a mode is where it belongs
_FOLDER = 1 << 4
_FIRST_SECOND, _LAST_SECOND = 315_532_800, 4_354_819_198
"""Of DOS's times: 1980-01-01 to 2107-12-31."""
_ZEROS = bytes(16 * BLOCK)


def deflated(size: int) -> int:
    """Bytes that a file of `size` bytes takes."""
    return size + FRAME * -(-size // BLOCK)


def _is_big(size: int) -> bool:
    return deflated(size) >= _BIG


def _time_field(modified: int | None) -> bytes:
    seconds = 0 if modified is None else modified // 10**9
    return b"" if modified is None or not -(1 << 31) <= seconds < 1 << 31 else _TIME.pack(b"UT", 5, 1, seconds)


def _dos(modified: int | None) -> tuple[int, int]:
    """Time and date for readers that know no other; of UTC, since nobody says where they are read."""
    seconds = _FIRST_SECOND if modified is None else modified // 10**9
    at = time.gmtime(min(max(seconds, _FIRST_SECOND), _LAST_SECOND))
    return at.tm_hour << 11 | at.tm_min << 5 | at.tm_sec >> 1, at.tm_year - 1980 << 9 | at.tm_mon << 5 | at.tm_mday


def local_size(path: int, size: int, modified: int | None) -> int:
    """Bytes of what `local` makes of a path of so many bytes."""
    return _LOCAL.size + path + len(_time_field(modified)) + (20 if _is_big(size) else 0)


def local(path: bytes, size: int, modified: int | None) -> bytes:
    """What stands before the content. `modified` in ns since 1970; `path` of a folder ends with a slash."""
    big = _is_big(size)
    extra = (struct.pack("<HHQQ", 1, 16, 0, 0) if big else b"") + _time_field(modified)
    return (
        _LOCAL.pack(
            b"PK\3\4",
            _BIG_VERSION if big else _PLAIN_VERSION,
            _UTF8 | (_BEHIND if size else 0),
            _DEFLATED if size else _STORED,
            *_dos(modified),
            0,
            _BIG if big else 0,
            _BIG if big else 0,
            len(path),
            len(extra),
        )
        + path
        + extra
    )


def descriptor_size(size: int) -> int:
    return 0 if not size else 24 if _is_big(size) else 16


def descriptor(size: int, crc: int) -> bytes:
    """What stands behind the content."""
    if not size:
        return b""
    return struct.pack("<4sIQQ" if _is_big(size) else "<4sIII", b"PK\7\x08", crc, deflated(size), size)


def central_size(path: int, size: int, modified: int | None, offset: int) -> int:
    big = 16 * _is_big(size) + 8 * (offset >= _BIG)
    return _CENTRAL.size + path + len(_time_field(modified)) + (4 + big if big else 0)


def central(path: bytes, size: int, modified: int | None, offset: int, mode: int, crc: int) -> bytes:
    """An entry of the directory; `offset` is where its `local` begins, `mode` POSIX's, with the type."""
    big = struct.pack("<QQ", size, deflated(size)) if _is_big(size) else b""
    sizes = (_BIG, _BIG) if big else (deflated(size), size)
    if offset >= _BIG:
        big += struct.pack("<Q", offset)
    extra = (struct.pack("<HH", 1, len(big)) + big if big else b"") + _time_field(modified)
    return (
        _CENTRAL.pack(
            b"PK\1\2",
            _MADE_BY,
            _BIG_VERSION if big else _PLAIN_VERSION,
            _UTF8 | (_BEHIND if size else 0),
            _DEFLATED if size else _STORED,
            *_dos(modified),
            crc,
            *sizes,
            len(path),
            len(extra),
            0,
            0,
            0,
            mode << 16 | (_FOLDER if path.endswith(b"/") else 0),
            min(offset, _BIG),
        )
        + path
        + extra
    )


def end(count: int, size: int, offset: int) -> bytes:
    """What stands behind the directory, which has `count` entries and `size` bytes and begins at `offset`."""
    made = b""
    if count >= _MANY or size >= _BIG or offset >= _BIG:
        made = _END64.pack(
            b"PK\6\6", _END64.size - 12, _MADE_BY, _BIG_VERSION, 0, 0, count, count, size, offset
        ) + _LOCATOR.pack(b"PK\6\7", 0, offset + size, 1)
    few = min(count, _MANY)
    return made + _END.pack(b"PK\5\6", 0, 0, few, few, min(size, _BIG), min(offset, _BIG), 0)


# -- content


def content_place(place: int, size: int) -> int:
    """The byte of a file that comes first at, or behind, a place in its frames."""
    block, within = divmod(place, _FRAMED)
    return min(block * BLOCK + max(0, within - FRAME), size)


def framed(pieces: Iterator[bytes | memoryview | Hole], size: int, start: int, stop: int) -> Iterator[bytes]:
    """From place `start` to `stop` of a file's framed content; `pieces` are its bytes between the `content_place`s of these, no
    more and no fewer. An empty piece comes out as an empty one."""
    at = start
    for piece in pieces:
        for view in _views(piece):
            made: list[bytes | memoryview] = []
            done = 0
            while done < len(view):
                within = at % _FRAMED
                if within < FRAME:
                    made.append(_frame(at // _FRAMED, size)[within:])
                    at += FRAME - within
                    within = FRAME
                some = view[done : done + _FRAMED - within]
                made.append(some)
                done += len(some)
                at += len(some)
            yield b"".join(made)
    if at < stop:
        within = at % _FRAMED
        yield _frame(at // _FRAMED, size)[within : within + stop - at]


def _views(piece: bytes | memoryview | Hole) -> Iterator[memoryview]:
    if not isinstance(piece, Hole):
        yield memoryview(piece)
        return
    zeros = memoryview(_ZEROS)
    for at in range(0, piece.length, len(zeros)):
        yield zeros[: piece.length - at]


def _frame(block: int, size: int) -> bytes:
    length = min(BLOCK, size - block * BLOCK)
    return _FRAME.pack((block + 1) * BLOCK >= size, length, length ^ 0xFFFF)
