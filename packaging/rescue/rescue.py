#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Restores from a data-mover repository when there is no data-mover.

    rescue.py REPOSITORY_DIR points [--json]                     what can be restored
    rescue.py REPOSITORY_DIR restore POINT --disk N --to FILE    one disk of a point; disks count from 0
    rescue.py REPOSITORY_DIR document POINT --to FILE            the configuration document of a point
    rescue.py REPOSITORY_DIR unlock-check                        does this password open this repository?

REPOSITORY_DIR is a local repository, or a folder with its blobs under their own names, as azcopy downloads
them. POINT is a name that `points` shows, or the beginning of its last part. The password of an encrypted
repository is read from --password-file F, or asked for. Nothing in REPOSITORY_DIR is ever written.

Needs Python 3.11 or newer and `pip install zstandard cryptography blake3`. It shares no code with the product
and is written from docs/format.md alone; "section" below means a section of that page. No byte is restored
unless the keyed id of its chunk was computed again and found right; XXH3 checksums, which prove less, are not
looked at. A disk grows in FILE.partial and is renamed when it is whole. Ranges that cannot be read are told,
and stay zero in FILE.partial; all others are restored.

Exit code: 0 done; 1 something is damaged, missing or locked; 2 the command asks for what cannot be.
"""

from __future__ import annotations

import argparse
import getpass
import hashlib
import io
import json
import os
import re
import struct
import sys
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

try:
    import zstandard
    from blake3 import blake3
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
except ImportError as missing:
    sys.exit(f"rescue: {missing}\n  hint: pip install zstandard cryptography blake3")

BLOCK, PAGE_BLOCKS = 1 << 20, 1024  # bytes in a block, blocks in a page (sections 2 and 5)
MAX_RAW, MAX_DOCUMENT = 1 << 28, 1 << 26  # bytes of content in a frame, in a document (sections 3 and 5)
MAX_RECORD = 1 << 26  # bytes of a record; this bound and the next are ours, so that memory is bounded
MAX_ENTRIES = 1 << 22  # of a pack's directory

DATA, PAGE, ROOT, DOCUMENT = 1, 2, 3, 5  # the kinds of frames that a restore reads (section 3)
ID_KEYS = {DATA: "chunk id data", PAGE: "chunk id page", ROOT: "chunk id root", DOCUMENT: "chunk id document"}
HEADER = struct.Struct("<4sBBBBIIII32s8x")  # of a frame (section 3)
FOOTER = struct.Struct("<4sHBBQQII16x")  # of a pack (section 4)

PACK_NAME = re.compile(r"[0-9a-f]{32}-[0-9a-f]{32}/[0-9a-f]{32}-m?(0|[1-9][0-9]{0,9})")  # section 1
POINT_NAME = re.compile(r"points/[0-9a-f]{32}/[0-9a-f]{32}")
LIST_NAME = re.compile(r"gc/[0-9a-f]{32}-[A-Za-z0-9._-]+")
T = TypeVar("T")


class Problem(Exception):
    """Ends the command: what happened, with which value, and a hint."""

    def __init__(self, what: str, hint: str, code: int = 1) -> None:
        super().__init__(what)
        self.hint, self.code = hint, code


class Damage(Problem):
    """Something in the repository is missing, or is not what the format says it is."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"{where}: {what}", "look for another copy of this object, or restore another point")


def check(holds: object, where: str, what: str) -> None:
    if not holds:
        raise Damage(where, what)


def shown(value: object) -> str:
    """A value from the repository, short and harmless on a terminal."""
    text = value if isinstance(value, str) else ascii(value)
    return "".join(c if c.isprintable() else "?" for c in text[:80])


# --- Files (section 9) ---


def read(folder: Path, name: str, offset: int, size: int) -> bytes:
    """At most `size` bytes of an object; a negative offset counts from its end."""
    try:
        with open(folder / name, "rb") as file:
            file.seek(offset, os.SEEK_SET if offset >= 0 else os.SEEK_END)
            return file.read(size)
    except FileNotFoundError:
        raise Damage(name, "is missing") from None
    except OSError as error:
        raise Damage(f"{name} at offset {offset}", f"cannot be read: {error.strerror}") from None


def read_exactly(folder: Path, name: str, offset: int, size: int) -> bytes:
    data = read(folder, name, offset, size)
    check(len(data) == size, f"{name} at offset {offset}", f"{len(data)} bytes are there, not {size}")
    return data


def read_record(folder: Path, name: str) -> bytes:
    """All of a record. A local repository's has a first line, the store's own; a downloaded blob has none."""
    data = read(folder, name, 0, MAX_RECORD)
    check(len(data) < MAX_RECORD, name, f"is longer than {MAX_RECORD} bytes")
    return data.partition(b"\n")[2] if data.startswith(b"DMREC1 ") else data


# --- JSON, every type checked ---


def parse(data: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Damage(where, f"is not JSON: {error}") from None
    check(isinstance(value, dict), where, "is not a JSON object")
    return dict(value)


def member(parent: Any, key: str, kind: type[T], where: str) -> T:
    value = parent.get(key) if isinstance(parent, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise Damage(where, f"member {key!r} is {shown(value)}, expected {kind.__name__}")
    return value


def hex_member(parent: Any, key: str, where: str, size: int | None = None) -> bytes:
    """A member that is bytes in hex; `size` None is any size."""
    text = member(parent, key, str, where)
    right = re.fullmatch("([0-9a-f]{2})*", text) and size in (None, len(text) // 2)
    check(right, where, f"member {key!r} is not {size or ''} bytes in hex")
    return bytes.fromhex(text)


def parse_checked(data: bytes, form: str, where: str) -> dict[str, Any]:
    """A JSON object that names its format and bears its own checksum (section 2)."""
    value = parse(data, where)
    for key, known in {"format": form, "version": 1, "features": 0}.items():
        found = member(value, key, type(known), where)
        check(found == known, where, f"{key} is {shown(found)}, this reader knows {known}")
    checksum = hex_member(value, "checksum", where, 32)
    content = {key: value[key] for key in value if key != "checksum"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    check(blake3(text.encode("ascii")).digest() == checksum, where, "its checksum is wrong")
    return value


# --- Keys (sections 1 to 3) ---


class Keys(NamedTuple):
    id_key: bytes
    epochs: dict[int, bytes]  # none when the repository is not encrypted

    def epoch(self, number: int, where: str) -> bytes:
        check(number in self.epochs, where, f"the repository has no key of epoch {number}")
        return self.epochs[number]


def derived(material: bytes, use: str) -> bytes:
    """K(use) of the id key, E(use) of an epoch's key."""
    return blake3(material, derive_key_context="data-mover v1 " + use).digest()


def keyed(data: bytes, key: bytes) -> bytes:
    return blake3(data, key=key).digest()


def unseal(key: bytes, sealed: bytes, associated: bytes, where: str) -> bytes:
    """AES-256-GCM: nonce 12, cipher text, tag 16."""
    check(len(sealed) >= 28, where, f"{len(sealed)} sealed bytes are too few")
    try:
        return AESGCM(key).decrypt(sealed[:12], sealed[12:], associated)
    except InvalidTag:
        raise Damage(where, "does not open with its key: sealed bytes or header have changed") from None


def read_password(file: str | None) -> str:
    """From the file, without the end of its line; or typed in."""
    if file is None and not sys.stdin.isatty():
        raise Problem("the repository is encrypted", "give --password-file F", 2)
    try:
        text = Path(file).read_text("utf-8") if file else getpass.getpass("Password: ", sys.stderr)
    except (OSError, ValueError, EOFError) as error:
        raise Problem(f"no password: {error}", "is --password-file a text in UTF-8?", 2) from None
    return unicodedata.normalize("NFC", text.removesuffix("\n"))


def unlock(repository: dict[str, Any], password_file: str | None, where: str) -> Keys:
    """The keys, from the first slot that the password opens (section 2)."""
    encryption = member(repository, "encryption", dict, where)
    method = member(encryption, "method", str, where)
    if method == "none":
        return Keys(hex_member(repository, "id_key", where, 32), {})
    check(method == "password", where, f"this reader does not know the encryption {shown(method)}")
    password = read_password(password_file).encode("utf-8", "surrogateescape")
    label = "data-mover key slot " + hex_member(repository, "id", where, 16).hex()
    for slot in member(encryption, "slots", list, where):
        if (member(slot, "kind", str, where), slot.get("kdf")) != ("password", "scrypt"):
            continue
        n, r, p = (member(slot, cost, int, where) for cost in "nrp")
        right = n > 1 and n & (n - 1) == 0 and r > 0 and p > 0 and n * r <= 1 << 23 and r * p <= 1 << 10
        check(right, where, f"scrypt with n={n}, r={r}, p={p} is impossible, or takes more than 1 GiB")
        salt, nonce = hex_member(slot, "salt", where), hex_member(slot, "nonce", where, 12)
        key = hashlib.scrypt(password, salt=salt, n=n, r=r, p=p, maxmem=(1 << 31) - 1, dklen=32)
        try:
            plain = unseal(key, nonce + hex_member(slot, "wrapped", where), label.encode("ascii"), where)
        except Damage:
            continue  # the slot of another password
        secrets = parse(plain, f"{where}, in the key slot")
        epochs = member(secrets, "epochs", dict, where)
        check(epochs and all(re.fullmatch("[0-9]{1,9}", epoch) for epoch in epochs), where, "odd key epochs")
        keys = {int(epoch): hex_member(epochs, epoch, where, 32) for epoch in epochs}
        return Keys(hex_member(secrets, "id_key", where, 32), keys)
    raise Problem("the password does not open this repository", f"it says: {shown(encryption.get('hint'))}")


# --- Chunks, and where the collector moved them (sections 3, 4 and 8) ---


class Place(NamedTuple):
    pack: str  # its name without "packs/"
    offset: int
    length: int
    id: bytes

    def __str__(self) -> str:
        return f"packs/{self.pack} at offset {self.offset}"


def place_in(parent: Any, key: str, where: str) -> Place:
    """A place in JSON: [pack, offset, length, chunk id] (section 6)."""
    value = member(parent, key, list, where)
    right = [type(part) for part in value] == [str, int, int, str] and 0 <= value[1] < 1 << 32
    right = right and PACK_NAME.fullmatch(value[0]) and re.fullmatch("[0-9a-f]{64}", value[3])
    check(right, where, f"member {key!r} is {shown(value)}, expected a place")
    return Place(value[0], value[1], value[2], bytes.fromhex(value[3]))


class Chunks:
    """Reads chunks and proves each. Holds one frame at a time and, once they are needed, the forwards."""

    def __init__(self, folder: Path, keys: Keys) -> None:
        self.folder, self.keys = folder, keys
        self.id_keys = {kind: derived(keys.id_key, use) for kind, use in ID_KEYS.items()}
        self.zstd = zstandard.ZstdDecompressor()
        self.collector: bytes | None = None  # gc/state as last read, and what it forwards
        self.forwards: dict[str, Any] = {}

    def read(self, place: Place, kind: int, most: int = MAX_RAW) -> bytes:
        """A chunk of at most `most` bytes, from its place or from where the collector moved it."""
        try:
            return self.frame(place, kind, most)
        except Damage as damage:
            tried, packs = str(damage), list[str]()
        try:
            packs = self.forwarded(place.pack)
        except Damage as damage:
            tried += f"; {damage}"
        for pack in packs:
            try:
                return self.frame(self.find(pack, place.id), kind, most)
            except Damage as damage:
                tried += f"; {damage}"
        raise Damage(f"chunk {place.id.hex()}", tried)

    def frame(self, place: Place, kind: int, most: int) -> bytes:
        """The content of the frame at a place (section 3)."""
        where, head = str(place), HEADER.size
        check(head <= place.length <= head + 28 + most, where, f"a frame of {place.length} bytes cannot be")
        data = read_exactly(self.folder, "packs/" + place.pack, place.offset, place.length)
        magic, version, flags, its_kind, zero, epoch, raw, stored, zeros, its_id = HEADER.unpack_from(data)
        right = magic == b"DMFR" and version == 1 and flags < 4 and zero == zeros == 0
        check(right, where, "no frame of version 1 begins here")
        check(its_kind == kind, where, f"the frame is of kind {its_kind}, not {kind}")
        check(its_id == place.id, where, f"the frame holds chunk {its_id.hex()}, not {place.id.hex()}")
        check(head + stored == place.length, where, f"{head} + {stored} bytes of frame, not {place.length}")
        check(raw <= most, where, f"the content has {raw} bytes, it can have {most}")
        compressed, sealed = flags & 1, flags & 2
        right = bool(sealed) == bool(self.keys.epochs) and (sealed or epoch == 0)
        check(right, where, f"flags {flags} and epoch {epoch} contradict the encryption of the repository")
        content = data[head:]
        if sealed:
            key = keyed(place.id, derived(self.keys.epoch(epoch, where), "seal"))
            content = unseal(key, content, data[:56], where)
        if compressed:
            try:
                size = zstandard.get_frame_parameters(content).content_size
                check(size == raw, where, f"the content has {raw} bytes, zstd says {size}")
                content = self.zstd.decompress(content, allow_extra_data=False)
            except zstandard.ZstdError as error:
                raise Damage(where, f"cannot be decompressed: {error}") from None
        check(len(content) == raw, where, f"the content has {len(content)} bytes, the header says {raw}")
        check(keyed(content, self.id_keys[kind]) == place.id, where, "the content does not have its chunk id")
        return content

    def forwarded(self, pack: str) -> list[str]:
        """The packs that a pack was forwarded to. gc/state is read anew each time, parsed when it changed."""
        where = "gc/state"
        collector = read_record(self.folder, where)
        if collector != self.collector:
            state = parse_checked(collector, "data-mover collector", where)
            self.forwards, self.collector = self.listed(state, "forwards", dict, where), collector
        reached = [pack]
        for source in reached:  # grows as we go: what was forwarded may be forwarded again
            for target in self.listed(self.forwards, source, list, where) if source in self.forwards else []:
                right = isinstance(target, str) and PACK_NAME.fullmatch(target)
                check(right, where, f"forwards to {shown(target)}, which is no pack")
                if target not in reached:
                    reached.append(target)
        return reached[1:]

    def listed(self, parent: dict[str, Any], key: str, kind: type[T], where: str) -> T:
        """A list or map of gc/state: itself, or the object that holds it (section 8)."""
        value = parent.get(key)
        if not isinstance(value, dict) or value.keys() != {"object"}:
            return member(parent, key, kind, where)
        name = member(value, "object", str, where)
        check(LIST_NAME.fullmatch(name), where, f"names {shown(name)}, which is no list")
        holder = parse_checked(read_record(self.folder, name), "data-mover list", name)
        return member(holder, "value", kind, name)

    def find(self, pack: str, chunk: bytes) -> Place:
        """Where a pack's directory has a chunk (section 4). The frame there has still to prove itself."""
        name, size = "packs/" + pack, FOOTER.size
        footer = FOOTER.unpack(read_exactly(self.folder, name, -size, size))
        magic, version, kind, zero, features, start, entries, zeros = footer
        right = magic == b"DMPK" and version == 1 and kind in (1, 2) and zero == zeros == features == 0
        check(right, f"{name} at offset {-size}", "no footer of version 1 is here")
        right = start < 1 << 32 and entries <= MAX_ENTRIES
        check(right, f"{name} at offset {-size}", f"a directory of {entries} entries at offset {start}")
        directory = read_exactly(self.folder, name, start, 48 * entries)
        at = directory.find(chunk)
        while at % 48 and at >= 0:
            at = directory.find(chunk, at + 1)
        check(at >= 0, name, f"the directory does not have chunk {chunk.hex()}")
        check(not any(directory[at + 41 : at + 48]), f"{name} at offset {start + at}", "the entry is damaged")
        offset, length = struct.unpack_from("<II", directory, at + 32)
        return Place(pack, offset, length, chunk)


# --- Maps (section 5) ---


def fields_of(data: bytes, magic: bytes, form: str, where: str) -> list[int]:
    """The fields of a map after its magic, version and flags."""
    size = struct.calcsize("<4sHH" + form)
    check(len(data) >= size, where, f"{len(data)} bytes are too few for a map")
    found, version, flags, *fields = struct.unpack_from("<4sHH" + form, data)
    check(found == magic and version == 1, where, f"the content is no {magic.decode()} of version 1")
    check(flags == 0, where, f"the map has the flags {flags}; this reader knows disks, not streams")
    return fields


def columns_of(data: bytes, where: str, head: int, *sizes: int) -> list[bytes]:
    """What follows the `head` bytes of a map, cut into columns. No byte may be left over."""
    size = head + sum(sizes)
    check(size == len(data), where, f"the counts make a map of {size} bytes, it has {len(data)}")
    return [data[first:end] for first, end in pairwise(accumulate(sizes, initial=head))]


def place_at(row: int, where: str, tables: list[bytes], columns: list[bytes]) -> Place:
    """A place in a map. Tables: writers, packs. Columns: pack index, offset, length, chunk id."""
    writers, packs = tables
    pack, offset, length = (struct.unpack_from("<I", column, 4 * row)[0] for column in columns[:3])
    check(8 * pack < len(packs), where, f"the map has no pack {pack}")
    writer, number = struct.unpack_from("<II", packs, 8 * pack)
    check(48 * writer < len(writers), where, f"the map has no writer {writer}")
    who, kind = writers[48 * writer :][:48].hex(), "m" if number >> 31 else ""
    name = f"{who[:32]}-{who[32:64]}/{who[64:]}-{kind}{number & 0x7FFFFFFF}"
    return Place(name, offset, length, columns[3][32 * row :][:32])


def stored_pages(data: bytes, size: int, where: str) -> Iterator[tuple[int, Place]]:
    """From a root, the pages that are stored: index, place. All others are zero. `size` is the disk's."""
    block, page, its_size, covered, g, w, p, q = fields_of(data, b"DMRT", "IIQQIIII", where)
    blocks = -(-size // BLOCK)
    check((block, page) == (BLOCK, PAGE_BLOCKS), where, f"{block} bytes in a block, {page} blocks in a page")
    check(its_size == size, where, f"the disk has {its_size} bytes, the point says {size}")
    right = covered == blocks and g == -(-blocks // PAGE_BLOCKS)
    check(right, where, f"{g} pages, {covered} blocks covered: the disk has {blocks} blocks")
    parts = columns_of(data, where, 48, 48 * w, 8 * p, g, 4 * g, 4 * g, 4 * g, 32 * g, 4 * g, 8 * q)
    tables, states, columns = parts[:2], parts[2], parts[3:7]  # the rest is for the collector
    check(set(states) <= {0, 1}, where, "a page is neither zero nor stored")
    return ((index, place_at(index, where, tables, columns)) for index in range(g) if states[index])


def stored_blocks(data: bytes, blocks: int, where: str) -> list[tuple[int, Place]]:
    """From a page of so many blocks, those that are stored: index, place. All others are zero."""
    b, r, w, p, e = fields_of(data, b"DMPG", "IIIII", where)
    check(b == blocks, where, f"the page has {b} blocks, expected {blocks}")
    parts = columns_of(data, where, 28, 48 * w, 8 * p, 4 * r, 32 * e, 4 * e, 4 * e, 4 * e)
    tables, runs, columns = parts[:2], parts[2], [*parts[4:], parts[3]]
    stored: list[int] = []
    at = 0
    for count, state in struct.iter_unpack("<HH", runs):
        check(state < 2 and at + count <= b, where, f"a run of {count} blocks of state {state} at block {at}")
        stored += range(at, at + count) if state else []
        at += count
    check(at == b and len(stored) == e, where, f"runs of {at} blocks, {len(stored)} stored; not {b}, {e}")
    return [(block, place_at(row, where, tables, columns)) for row, block in enumerate(stored)]


# --- Points (section 6) ---


class Point(NamedTuple):
    name: str
    header: dict[str, Any]
    body: dict[str, Any] | None  # None: locked, so the MAC is not checked either

    @property
    def committed(self) -> bool:
        return member(self.header, "state", str, self.name) == "committed"


def point_names(folder: Path) -> list[str]:
    found = (path.relative_to(folder).as_posix() for path in folder.glob("points/*/*"))
    return sorted(name for name in found if POINT_NAME.fullmatch(name))


def read_point(folder: Path, name: str, keys: Keys | None) -> Point:
    """A point's record. Without keys: what an encrypted repository shows without its password."""
    data = read_record(folder, name)
    check(len(data) >= 88, name, f"{len(data)} bytes are too few for a point")
    magic, version, zero, features, h, b = struct.unpack_from("<4sHHQII", data)
    right = magic == b"DMPT" and version == 1 and zero == features == 0
    check(right, f"{name} at offset 0", "no point of version 1 begins here")
    check(len(data) == 88 + h + b, f"{name} at offset 16", f"says {88 + h + b} bytes, not {len(data)}")
    header, body, signed, mac = data[: 24 + h], data[24 + h : -64], data[:-32], data[-32:]
    right = blake3(data[:-64]).digest() == signed[-32:]
    check(right, f"{name} at offset {len(data) - 64}", "is not the checksum of the bytes before it")
    values = parse(header[24:], f"{name} at offset 24")
    for member_name, known in {"kind": "point", "name": name}.items():
        found = member(values, member_name, str, name)
        check(found == known, name, f"its {member_name} is {shown(found)}")
    if keys is None:
        return Point(name, values, None)
    if keys.epochs:
        epoch = keys.epoch(member(values, "key_epoch", int, name), name)
        right = keyed(signed, derived(epoch, "point mac")) == mac
        check(right, f"{name} at offset {len(signed)}", "is not the MAC of the bytes before it")
        key = keyed(name.encode("ascii"), derived(epoch, "point body"))
        body = unseal(key, body, header, f"{name} at offset {24 + h}")
    else:
        check(not any(mac), f"{name} at offset {len(signed)}", "a MAC, but the repository is not encrypted")
    return Point(name, values, parse(body, f"{name} at offset {24 + h}"))


def choose(folder: Path, keys: Keys, wanted: str) -> Point:
    """The one committed point that a person means."""
    names = [name for name in point_names(folder) if wanted and name.split("/")[2].startswith(wanted)]
    names = [wanted] if POINT_NAME.fullmatch(wanted) else names
    if len(names) != 1:
        raise Problem(f"{len(names)} points are called {wanted!r}", "`points` lists their names", 2)
    point = read_point(folder, names[0], keys)
    if not point.committed:
        raise Problem(f"{point.name} was never finished", "`points` lists those that were", 2)
    return point


# --- Commands ---


@contextmanager
def new_file(target: Path) -> Iterator[BinaryIO]:
    """A file that gets its name when it is whole. Until then, and after an error, it is FILE.partial."""
    partial = Path(f"{target}.partial")
    for path in (target, partial):
        if os.path.lexists(path):
            raise Problem(f"{path} exists", "nothing is overwritten: remove it, or choose another --to", 2)
    try:
        with open(partial, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.rename(target)
    except OSError as error:
        raise Problem(f"{partial} cannot be written: {error.strerror}", "choose another --to") from None


def stored_bytes(
    chunks: Chunks, pages: Iterator[tuple[int, Place]], size: int
) -> Iterator[tuple[int, int, bytes | Damage]]:
    """The stored bytes of a disk of `size` bytes: start, length, and the bytes or why they cannot be read."""
    for index, place in pages:
        base = index * PAGE_BLOCKS * BLOCK
        length = min(PAGE_BLOCKS * BLOCK, size - base)
        try:
            blocks = stored_blocks(chunks.read(place, PAGE), -(-length // BLOCK), str(place))
        except Damage as damage:
            yield base, length, damage
            continue
        for block, where in blocks:
            start = base + block * BLOCK
            length = min(BLOCK, size - start)
            try:
                data = chunks.read(where, DATA, length)
                check(len(data) == length, str(where), f"a block of {len(data)} bytes, not {length}")
                yield start, length, data
            except Damage as damage:
                yield start, length, damage


def restore(chunks: Chunks, point: Point, number: int, target: Path) -> None:
    """Writes one disk. What cannot be read is told and passed over."""
    disks = member(point.header, "disks", list, point.name)
    if not 0 <= number < len(disks):
        raise Problem(f"{point.name} has no disk {number}", f"it has {len(disks)}, counted from 0", 2)
    size, top = member(disks[number], "size", int, point.name), place_in(disks[number], "root", point.name)
    pages = stored_pages(chunks.read(top, ROOT), size, str(top))
    written, lost, told = 0, 0, time.monotonic()
    with new_file(target) as file:
        file.truncate(size)  # one hole, which reads as zero; only what is stored is written into it
        for start, length, data in stored_bytes(chunks, pages, size):
            if isinstance(data, Damage):
                print(f"rescue: bytes {start} to {start + length - 1} are lost: {data}", file=sys.stderr)
                lost += length
                continue
            file.seek(start)
            file.write(data)
            written += length
            if time.monotonic() > told + 5:
                told = time.monotonic()
                print(f"rescue: at byte {start} of {size}, {written} bytes written", file=sys.stderr)
        if lost:
            what = f"{lost} bytes of disk {number} of {point.name} are lost"
            raise Problem(what, f"they are zero in {target}.partial, all else in it is right")
    print(f"rescue: {target} has {size} bytes, {written} of them written", file=sys.stderr)


def restore_document(chunks: Chunks, point: Point, target: Path) -> None:
    documents = member(point.header, "documents", dict, point.name)
    if "configuration" not in documents:
        raise Problem(f"{point.name} has no configuration document", "its disks can be restored", 2)
    data = chunks.read(place_in(documents, "configuration", point.name), DOCUMENT, MAX_DOCUMENT)
    with new_file(target) as file:
        file.write(data)
    print(f"rescue: {target} has {len(data)} bytes", file=sys.stderr)


def describe(point: Point) -> dict[str, Any]:
    """What a person chooses by. Names are null while the repository is locked."""
    name, header, body = point
    seconds = header.get("time")
    if not isinstance(seconds, int | float) or not 0 <= seconds < 1 << 37:
        raise Damage(name, f"member 'time' is {shown(seconds)}, expected seconds")
    sizes = [member(disk, "size", int, name) for disk in member(header, "disks", list, name)]
    named = [] if body is None else member(body, "disks", list, name)
    names = [None for _ in sizes] if body is None else [member(disk, "name", str, name) for disk in named]
    check(len(names) == len(sizes), name, f"{len(sizes)} disks in the header, {len(names)} in the body")
    return {
        "point": name,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds)),
        "resource_name": None if body is None else member(body, "resource_name", str, name),
        "disks": [{"name": disk, "size": size} for disk, size in zip(names, sizes, strict=True)],
        "documents": sorted(member(header, "documents", dict, name)),
    }


def list_points(folder: Path, keys: Keys | None, as_json: bool) -> int:
    """Lists the committed points. A damaged one is told, and the list goes on."""
    listed, unfinished, damaged = list[dict[str, Any]](), 0, 0
    for name in point_names(folder):
        try:
            point = read_point(folder, name, keys)
            if point.committed:
                listed.append(describe(point))
            else:
                unfinished += 1
        except Damage as damage:
            tell(damage)
            damaged += 1
    listed.sort(key=lambda row: (row["point"].split("/")[1], row["time"], row["point"]))
    if as_json:
        print(json.dumps(listed, indent=1))
    for row in [] if as_json else listed:
        print(row["point"], row["time"], shown(row["resource_name"] or "(locked)"))
        for number, disk in enumerate(row["disks"]):
            print(f"    disk {number}: {disk['size']} bytes, {shown(disk['name'] or '(locked)')}")
        for title in row["documents"]:
            print(f"    document: {shown(title)}")
    locked = "" if keys else "; without --password-file names are hidden and MACs not checked"
    counts = f"{len(listed)} points, {unfinished} unfinished, {damaged} damaged"
    print(f"rescue: {counts}{locked}", file=sys.stderr)
    return 1 if damaged else 0


def run(arguments: argparse.Namespace) -> int:
    folder, where = arguments.repository, "repository.json"
    if not folder.is_dir():
        raise Problem(f"{folder} is no folder", f"give the folder that has {where} in it", 2)
    repository = parse_checked(read_record(folder, where), "data-mover repository", where)
    block_size = member(repository, "block_size", int, where)
    check(block_size == BLOCK, where, f"block_size is {block_size}, this reader knows {BLOCK}")
    encrypted = member(repository, "encryption", dict, where).get("method") != "none"
    if arguments.verb == "points" and encrypted and arguments.password_file is None:
        return list_points(folder, None, arguments.json)
    keys = unlock(repository, arguments.password_file, where)
    if arguments.verb == "points":
        return list_points(folder, keys, arguments.json)
    if arguments.verb == "unlock-check":
        print(f"the password is right; key epochs: {sorted(keys.epochs)}" if encrypted else "not encrypted")
        return 0
    chunks, point = Chunks(folder, keys), choose(folder, keys, arguments.point)
    if arguments.verb == "restore":
        restore(chunks, point, arguments.disk, arguments.to)
    else:
        restore_document(chunks, point, arguments.to)
    return 0


def tell(problem: Problem) -> None:
    print(f"rescue: {problem}\n  hint: {problem.hint}", file=sys.stderr)


def main(argv: list[str] | None = None) -> int:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="rescue.py", description=__doc__, formatter_class=style)
    parser.add_argument("repository", metavar="REPOSITORY_DIR", type=Path)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("points", "restore", "document", "unlock-check"):
        command = verbs.add_parser(verb)
        command.add_argument("--password-file", metavar="F")
        if verb == "points":
            command.add_argument("--json", action="store_true")
        if verb in ("restore", "document"):
            command.add_argument("point", metavar="POINT")
            command.add_argument("--to", metavar="FILE", type=Path, required=True)
        if verb == "restore":
            command.add_argument("--disk", metavar="N", type=int, required=True)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for names that it cannot show
    try:
        return run(parser.parse_args(argv))
    except Problem as problem:
        tell(problem)
        return problem.code
    except (OSError, MemoryError, RecursionError, KeyboardInterrupt) as stop:
        what = f"stopped: {stop}" if isinstance(stop, OSError) else f"stopped: {type(stop).__name__}"
        tell(Problem(what, "what was restored until then is in FILE.partial"))
        return 1


if __name__ == "__main__":
    sys.exit(main())
