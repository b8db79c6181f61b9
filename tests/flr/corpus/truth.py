# SPDX-License-Identifier: Apache-2.0
"""What is in a file system, told twice in the same form: by the kernel that mounted it, and by one of our readers.

`differences` names each entry and attribute in which two tellings are not equal.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from flr.blocks import Hole
from flr.errors import RecoveryError
from flr.fs.base import FileSystem, Node

PIECE = 1 << 20


class Fact(msgspec.Struct):
    """One entry. Times in ns; `content` is the SHA-256 of a regular file; `problem` what stopped the teller."""

    path: bytes
    mode: int
    owner: int | None
    group: int | None
    size: int
    links: int
    modified: int | None
    changed: int | None
    accessed: int | None
    created: int | None
    device: int = 0
    link: bytes = b""
    content: str = ""
    xattrs: dict[bytes, bytes] = {}
    problem: str = ""


Facts = dict[bytes, Fact]


def save(facts: Facts, path: Path) -> None:
    path.write_bytes(msgspec.msgpack.encode(list(facts.values())))


def load(path: Path) -> Facts:
    return {fact.path: fact for fact in msgspec.msgpack.decode(path.read_bytes(), type=list[Fact])}


# -- the kernel


class _Statx(ctypes.Structure):
    _fields_ = (
        ("head", ctypes.c_uint32 * 20),
        ("btime_s", ctypes.c_int64),
        ("btime_ns", ctypes.c_uint32),
        ("rest", ctypes.c_uint8 * 256),
    )


_BTIME = 0x800
_NOFOLLOW = 0x100


def _created(path: bytes) -> int | None:
    """statx(2): stx_mask is the first word, stx_btime stands at byte 80."""
    found = _Statx()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.statx(-100, path, _NOFOLLOW, _BTIME, ctypes.byref(found)) != 0 or not found.head[0] & _BTIME:
        return None
    return int(found.btime_s) * 10**9 + int(found.btime_ns)


def kernel(root: Path) -> Facts:
    """Everything below a mounted directory, and itself as `/`. What only the mounter makes is left out: nothing is."""
    top = os.fsencode(root)
    facts = {b"/": _kernel_fact(top, b"/")}
    for folder, folders, files in os.walk(top):
        for name in folders + files:
            path = os.path.join(folder, name)
            facts[path[len(top) :]] = _kernel_fact(path, path[len(top) :])
    return facts


def _kernel_fact(path: bytes, name: bytes) -> Fact:
    found = os.lstat(path)
    special = stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode)
    fact = Fact(
        name,
        found.st_mode,
        found.st_uid,
        found.st_gid,
        found.st_size,
        found.st_nlink,
        found.st_mtime_ns,
        found.st_ctime_ns,
        found.st_atime_ns,
        _created(path),
        found.st_rdev if special else 0,
    )
    try:
        try:
            names = os.listxattr(path, follow_symlinks=False)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            names = []
        fact.xattrs = {os.fsencode(n): os.getxattr(path, n, follow_symlinks=False) for n in names}
        if stat.S_ISLNK(found.st_mode):
            fact.link = os.readlink(path)
        elif stat.S_ISREG(found.st_mode):
            with open(path, "rb", buffering=0) as file:
                fact.content = _digest(iter(lambda: file.read(PIECE), b""))
    except OSError as error:
        fact.problem = error.strerror
    return fact


def _digest(pieces: Iterator[bytes]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


# -- a reader of ours


def told(fs: FileSystem, *, content: bool = True, within: Callable[[bytes], bool] = lambda path: True) -> Facts:
    """Everything that a reader lists, folder by folder. A directory is entered once, however often it is linked."""
    facts: Facts = {b"/": _told_fact(fs, b"/", fs.attributes(fs.root()), content)}
    seen = {fs.root().number}
    todo: list[tuple[bytes, Node]] = [(b"", fs.root())]
    while todo:
        above, node = todo.pop()
        cursor: int | None = 0
        while cursor is not None:
            try:
                listing = fs.entries(node, cursor)
            except RecoveryError as error:
                facts[above or b"/"].problem = str(error)
                break
            cursor = listing.cursor
            for entry in listing.entries:
                path = above + b"/" + entry.name
                if entry.attributes is None:
                    facts[path] = Fact(path, entry.kind, 0, 0, 0, 0, 0, 0, 0, 0, problem=entry.problem)
                    continue
                facts[path] = _told_fact(fs, path, entry.attributes, content and within(path))
                if entry.attributes.is_directory and entry.attributes.number not in seen:
                    seen.add(entry.attributes.number)
                    todo.append((path, entry.attributes.node))
    return facts


def _told_fact(fs: FileSystem, path: bytes, a: Any, content: bool) -> Fact:
    fact = Fact(path, a.mode, a.owner, a.group, a.size, a.links, a.modified, a.changed, a.accessed, a.created, a.device)
    try:
        fact.xattrs = fs.xattrs(a.node)
        if stat.S_ISLNK(a.mode):
            fact.link = fs.link(a.node)
        elif stat.S_ISREG(a.mode) and content:
            fact.content = _digest(pieces(fs, a.node, a.size))
    except RecoveryError as error:
        fact.problem = str(error)
    return fact


ZEROS = bytes(PIECE)


def pieces(fs: FileSystem, node: Node, size: int, stream: bytes = b"") -> Iterator[bytes]:
    """A file's bytes by its runs; holes are not read."""
    at = 0
    while at < size:
        runs = fs.runs(node, at, min(size - at, 64 * PIECE), stream)
        if not runs:
            raise AssertionError(f"nothing at {at} of {size}")
        for run in runs:
            at += run.length
            left = run.length
            if isinstance(run, Hole):
                while left:
                    yield ZEROS[: min(left, PIECE)]
                    left -= min(left, PIECE)
            else:
                yield fs.volume.pread(run.offset, run.length) if not hasattr(run, "data") else run.data


# -- beside each other


def differences(truth: Facts, ours: Facts, ignore: frozenset[str] = frozenset()) -> list[str]:
    """Sentences; empty when the two tell the same."""
    found = [f"{path!r} is missing" for path in truth.keys() - ours.keys()]
    found += [f"{path!r} does not exist" for path in ours.keys() - truth.keys()]
    for path in sorted(truth.keys() & ours.keys()):
        one, two = truth[path], ours[path]
        for name in Fact.__struct_fields__:
            left, right = getattr(one, name), getattr(two, name)
            if left != right and name not in ignore:
                found.append(f"{path!r}: {name} is {_short(left)}, told was {_short(right)}")
    return found


def _short(value: object) -> str:
    text = oct(value) if isinstance(value, int) and 0 < value < 1 << 17 else repr(value)
    return text if len(text) < 120 else text[:120] + "..."
