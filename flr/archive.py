# SPDX-License-Identifier: Apache-2.0
"""Files and folders as a tar stream that keeps what a guest had: owners, modes, times, extended attributes, links of both kinds,
devices, holes.

PAX format; holes as GNU tar's sparse format 1.0, extended attributes as `SCHILY.xattr.*`, access control lists as `SCHILY.acl.*`:
the words of GNU tar and bsdtar. What a tar cannot hold, or what cannot be read, is told and left out; a file that breaks off in
the middle is filled with zeros and told. Nothing is written but to `out`; names within are relative and have no `..`.
Sources: POSIX.1-2017 pax, GNU tar's manual ("Storing Sparse Files").
"""

from __future__ import annotations

import stat
import struct
import tarfile
from collections.abc import Callable
from typing import Protocol

from flr.blocks import Extent, Hole
from flr.errors import RecoveryError
from flr.fs.base import Attributes, Flag, Node
from flr.printable import shown
from flr.session import Session

BLOCK = 512
RECORD = 20 * BLOCK
SMALLEST_HOLE = 64 << 10
"""A shorter one is written as zeros: its entry in the list would hardly be shorter."""
MOST_PARTS = 100_000
"""Of a file's list of data; a file of more is written with its holes as zeros."""
PLAIN_NAME, MOST_ID, MOST_SIZE = 100, 0o7777777, 0o77777777777
"""What the plain header has room for."""
Records = dict[bytes, bytes]
_TYPES = {
    stat.S_IFREG: tarfile.REGTYPE, stat.S_IFDIR: tarfile.DIRTYPE, stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE, stat.S_IFCHR: tarfile.CHRTYPE, stat.S_IFBLK: tarfile.BLKTYPE,
}  # fmt: skip
_ACLS = {b"system.posix_acl_access": b"SCHILY.acl.access", b"system.posix_acl_default": b"SCHILY.acl.default"}
_TAGS = {1: "user", 2: "user", 4: "group", 8: "group", 16: "mask", 32: "other"}
_ZEROS = bytes(1 << 20)


class Sink(Protocol):
    def write(self, data: bytes, /) -> object: ...


class Archive:
    """One tar. `problem` is told the path and what is wrong; `handled` the bytes of content that went by, piece by piece."""

    def __init__(
        self,
        session: Session,
        volume: str,
        out: Sink,
        problem: Callable[[bytes, str], None],
        handled: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._session = session
        self._volume = volume
        self._out = out
        self._problem = problem
        self._handled = handled
        self._written = 0
        self._linked: dict[int, bytes] = {}

    def _write(self, data: bytes) -> None:
        self._out.write(data)
        self._written += len(data)

    def add(self, path: bytes, attributes: Attributes) -> None:
        """`path` within the archive, without a slash at its beginning."""
        kind = stat.S_IFMT(attributes.mode)
        if kind not in _TYPES:
            self._problem(path, "a socket is not put into an archive" if kind == stat.S_IFSOCK else "of no known type")
            return
        if attributes.links > 1 and kind != stat.S_IFDIR:
            first = self._linked.get(attributes.number)
            if first is not None:
                self._header(path, attributes, tarfile.LNKTYPE, {}, 0, first)
                return
        try:
            extra = self._extra(path, attributes)
            target = self._session.link(self._volume, attributes.node) if kind == stat.S_IFLNK else b""
        except RecoveryError as error:
            self._problem(path, str(error))
            if kind == stat.S_IFLNK:
                return
            extra, target = {}, b""
        if kind == stat.S_IFREG:
            self._file(path, attributes, extra)
        else:
            self._header(path, attributes, _TYPES[kind], extra, 0, target)

    def finish(self) -> None:
        self._write(bytes(2 * BLOCK))
        self._write(bytes(-self._written % RECORD))

    def _extra(self, path: bytes, attributes: Attributes) -> Records:
        found: Records = {}
        for name, value in self._session.xattrs(self._volume, attributes.node).items():
            acl = _ACLS.get(name)
            text = acl_text(value) if acl else None
            if acl and text is not None:
                found[acl] = text
            else:
                found[b"SCHILY.xattr." + name.replace(b"%", b"%25").replace(b"=", b"%3D")] = value
        streams = self._session.streams(self._volume, attributes.node)
        if streams:
            names = ", ".join(shown(stream.name) for stream in streams)
            self._problem(path, f"its alternate streams are not in the archive: {names}")
        return found

    def _header(
        self, path: bytes, attributes: Attributes, kind: bytes, extra: Records, size: int, target: bytes = b""
    ) -> None:
        """The plain header, and before it an extended one with what that cannot hold."""
        info = tarfile.TarInfo()
        info.type = kind
        info.mode = stat.S_IMODE(attributes.mode)
        info.devmajor, info.devminor = (
            attributes.device >> 8 & 0xFFF,
            attributes.device & 0xFF | attributes.device >> 12 & ~0xFF,
        )
        pax = dict(extra)
        if kind == tarfile.DIRTYPE:
            path += b"/"
        for key, field, text in ((b"path", "name", path), (b"linkpath", "linkname", target)):
            plain = text.decode("ascii", "replace").replace("\ufffd", "?")[:PLAIN_NAME]
            setattr(info, field, plain)
            if plain.encode() != text:
                pax[key] = text
        for key, most, value in (
            (b"uid", MOST_ID, attributes.owner or 0),
            (b"gid", MOST_ID, attributes.group or 0),
            (b"size", MOST_SIZE, size),
        ):
            setattr(info, key.decode(), value if value <= most else 0)
            if value > most:
                pax[key] = b"%d" % value
        seconds, rest = divmod(attributes.modified or 0, 10**9)
        info.mtime = min(max(seconds, 0), MOST_SIZE)
        if rest or info.mtime != seconds:
            pax[b"mtime"] = _decimal(attributes.modified or 0)
        if pax:
            self._extended(pax)
        self._write(info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict"))
        if attributes.links > 1 and kind not in (tarfile.DIRTYPE, tarfile.LNKTYPE):
            self._linked[attributes.number] = path  # what has no header of its own cannot be linked to

    def _extended(self, records: Records) -> None:
        """Names and values are bytes as they are, as GNU tar writes them; a record's length counts itself."""
        made = []
        for key, value in records.items():
            rest = len(key) + len(value) + 3
            length = rest + len(str(rest))
            length = rest + len(str(length))
            made.append(b"%d %b=%b\n" % (length, key, value))
        data = b"".join(made)
        info = tarfile.TarInfo("././@PaxHeader")
        info.type, info.size, info.mode = tarfile.XHDTYPE, len(data), 0o644
        self._write(info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict") + data + bytes(-len(data) % BLOCK))

    # -- content

    def _file(self, path: bytes, attributes: Attributes, extra: Records) -> None:
        node, size = attributes.node, attributes.size
        try:
            parts = self._parts(node, size)
        except RecoveryError as error:
            self._problem(path, str(error))
            return
        if parts == [(0, size)] and attributes.flags & Flag.SUSPICIOUS:
            self._problem(path, f"it says that it has {size} bytes, more than its volume, and is left out")
            return
        if parts == [(0, size)] or not size:
            self._header(path, attributes, tarfile.REGTYPE, extra, size)
            self._content(path, node, size, [(0, size)])
        else:
            table = f"{len(parts)}\n" + "".join(f"{start}\n{length}\n" for start, length in parts)
            head = table.encode()
            head += bytes(-len(head) % BLOCK)
            extra = {
                **extra,
                b"GNU.sparse.major": b"1",
                b"GNU.sparse.minor": b"0",
                b"GNU.sparse.name": path,
                b"GNU.sparse.realsize": b"%d" % size,
            }
            folder, _, name = path.rpartition(b"/")
            stored = (folder + b"/" if folder else b"") + b"GNUSparseFile.0/" + name
            self._header(stored, attributes, tarfile.REGTYPE, extra, len(head) + sum(length for _, length in parts))
            self._write(head)
            self._content(path, node, size, parts)

    def _parts(self, node: Node, size: int) -> list[tuple[int, int]]:
        """(offset, length) of what is no hole, ascending; an empty one at the end of a file that ends in a hole."""
        parts: list[tuple[int, int]] = []
        at = 0
        for segments in self._session.maps(self._volume, node, size):
            for segment in segments:
                if isinstance(segment, Extent) or not isinstance(segment, Hole):
                    if parts and at - (parts[-1][0] + parts[-1][1]) < SMALLEST_HOLE:
                        parts[-1] = (parts[-1][0], at + segment.length - parts[-1][0])
                    else:
                        first = 0 if at < SMALLEST_HOLE else at
                        parts.append((first, at + segment.length - first))
                at += segment.length
            if len(parts) > MOST_PARTS:
                return [(0, size)]
        end = parts[-1][0] + parts[-1][1] if parts else 0
        if parts and size - end < SMALLEST_HOLE:
            parts[-1] = (parts[-1][0], size - parts[-1][0])
        elif end < size:
            parts.append((size, 0))
        return parts

    def _content(self, path: bytes, node: Node, size: int, parts: list[tuple[int, int]]) -> None:
        """The bytes of `parts`, which ascend and leave out nothing but holes; in one go, so that what comes next is on its way."""
        at = done = 0
        waiting = iter(parts)
        start, length = next(waiting)
        try:
            for piece in self._session.content(self._volume, node, size):
                count = piece.length if isinstance(piece, Hole) else len(piece)
                end = at + count
                while True:
                    low, high = max(start, at), min(start + length, end)
                    if low < high:
                        if isinstance(piece, Hole):
                            self._zeros(high - low)
                        else:
                            self._write(piece[low - at : high - at])
                        done += high - low
                    if start + length > end:
                        break
                    following = next(waiting, None)
                    if following is None:
                        break
                    start, length = following
                at = end
                self._handled(count)
        except RecoveryError as error:
            self._problem(path, f"it breaks off after {at} bytes, the rest is zeros: {error}")
            self._zeros(sum(length for _, length in parts) - done)
            self._handled(size - at)
        self._write(bytes(-self._written % BLOCK))

    def _zeros(self, length: int) -> None:
        while length:
            some = min(length, len(_ZEROS))
            self._write(_ZEROS[:some])
            length -= some


def acl_text(value: bytes) -> bytes | None:
    """The short text of acl(5) of an access control list as getxattr(2) gives it, with numbers for names; None for one of another
    form."""
    if len(value) % 8 != 4 or value[:4] != b"\2\0\0\0":
        return None
    parts = []
    for tag, permissions, identifier in struct.iter_unpack("<HHI", value[4:]):
        word = _TAGS.get(tag)
        if word is None:
            return None
        bits = "".join(letter if permissions & bit else "-" for letter, bit in (("r", 4), ("w", 2), ("x", 1)))
        parts.append(f"{word}:{identifier if tag in (2, 8) else ''}:{bits}")
    return ",".join(parts).encode()


def _decimal(nanoseconds: int) -> bytes:
    sign = "-" if nanoseconds < 0 else ""
    seconds, rest = divmod(abs(nanoseconds), 10**9)
    return f"{sign}{seconds}.{rest:09d}".rstrip("0").rstrip(".").encode()
