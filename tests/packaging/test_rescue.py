# SPDX-License-Identifier: Apache-2.0
"""rescue.py restores what docs/format.md describes, and tells damage by object and offset: no wrong byte.

The repositories here are written by a miniature writer that knows nothing but the page: neither the product's
code nor rescue.py's. Where the two agree the page said enough. Repositories that the product wrote are the
business of another test.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import importlib.util
import io
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import zstandard
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from xxhash import xxh3_64_intdigest as xxh3

RESCUE = Path(__file__).parents[2] / "packaging" / "rescue" / "rescue.py"
MIB = 1 << 20
DATA, PAGE, ROOT, DOCUMENT = 1, 2, 3, 5
USES = {DATA: "chunk id data", PAGE: "chunk id page", ROOT: "chunk id root", DOCUMENT: "chunk id document"}
RESOURCE, POINT, INCARNATION = "a1" * 16, "b2" * 16, "c3" * 16
SESSION = f"{RESOURCE}-{POINT}"
PARENT = f"{RESOURCE}-{'b0' * 16}"  # an earlier session, whose packs this point uses too
NAME = f"points/{RESOURCE}/{POINT}"
PASSWORD = "na\u00efve pass"  # typed with one code point or with two, NFC makes it one

Json = dict[str, Any]
Change = Callable[[bytes], bytes]


# --- The miniature writer ---


def derive(material: bytes, use: str) -> bytes:
    return blake3(material, derive_key_context=f"data-mover v1 {use}").digest()


def keyed(data: bytes, key: bytes) -> bytes:
    return blake3(data, key=key).digest()


def with_checksum(value: Json) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return json.dumps(value | {"checksum": blake3(text.encode("ascii")).hexdigest()}).encode("ascii")


class Place(NamedTuple):
    pack: str
    offset: int
    length: int
    id: bytes

    @property
    def json(self) -> list[Any]:
        return [self.pack, self.offset, self.length, self.id.hex()]


class Repository:
    """Sections 2 to 4, 6 and 8. With a password there are two epochs; every other frame has the old one."""

    def __init__(self, folder: Path, password: str | None, local: bool) -> None:
        self.folder, self.local = folder, local
        self.id_key = bytes(range(32))
        self.epochs = {1: b"\1" * 32, 2: b"\2" * 32} if password is not None else {}
        self.frames = 0
        repository_id = "d4" * 16
        encryption: Json = {"method": "none"}
        if password is not None:
            other = self.slot("another one", repository_id)
            slots = [{"kind": "key vault"}, other, self.slot(password, repository_id)]
            encryption = {"method": "password", "hint": "the \u00fcsual", "slots": slots}
        value: Json = {
            "format": "data-mover repository",
            "version": 1,
            "features": 0,
            "id": repository_id,
            "tier": "hot",
            "block_size": MIB,
            "created": 1_700_000_000,
            "encryption": encryption,
            "key_epoch": max(self.epochs, default=0),
            "immutability": None,
            "owner": {"id": "o", "name": "an \u00f6wner", "epoch": 1},
            "write_id": "e5" * 16,
        }
        value |= {} if self.epochs else {"id_key": self.id_key.hex()}
        self.record("repository.json", with_checksum(value))

    def slot(self, password: str, repository_id: str) -> Json:
        secret = unicodedata.normalize("NFC", password).encode("utf-8")
        key = hashlib.scrypt(secret, salt=b"salt", n=2, r=1, p=1, dklen=32)
        epochs = {str(epoch): key.hex() for epoch, key in self.epochs.items()}
        plain = json.dumps({"id_key": self.id_key.hex(), "epochs": epochs}).encode("ascii")
        label = f"data-mover key slot {repository_id}".encode("ascii")
        wrapped = AESGCM(key).encrypt(b"n" * 12, plain, label)
        cost = {"kdf": "scrypt", "n": 2, "r": 1, "p": 1, "salt": b"salt".hex()}
        return {"kind": "password", **cost, "nonce": (b"n" * 12).hex(), "wrapped": wrapped.hex()}

    def write(self, name: str, data: bytes) -> None:
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_bytes(data)

    def record(self, name: str, data: bytes) -> None:
        line = b'DMREC1 {"etag": 7, "metadata": {"state": "committed"}}\n'
        self.write(name, line + data if self.local else data)

    def frame(self, kind: int, content: bytes) -> tuple[bytes, bytes]:
        """The chunk id and the frame."""
        self.frames += 1
        chunk = keyed(content, derive(self.id_key, USES[kind]))
        epoch = 1 + self.frames % 2 if self.epochs else 0
        smaller = zstandard.ZstdCompressor().compress(content)
        zstd = len(smaller) < len(content)
        payload = smaller if zstd else content
        stored = len(payload) + (28 if epoch else 0)
        flags = zstd | (2 if epoch else 0)
        header = struct.pack("<4sBBBBI", b"DMFR", 1, flags, kind, 0, epoch)
        header += struct.pack("<III", len(content), stored, 0) + chunk
        if epoch:
            nonce = os.urandom(12)
            key = keyed(chunk, derive(self.epochs[epoch], "seal"))
            payload = nonce + AESGCM(key).encrypt(nonce, payload, header)
        return chunk, header + struct.pack("<Q", xxh3(payload)) + payload

    def pack(self, name: str, chunks: list[tuple[int, bytes]]) -> list[Place]:
        """Writes a pack of (kind, content); its kind is in its name."""
        body, places, kinds = b"", list[Place](), [kind for kind, _ in chunks]
        for kind, content in chunks:
            chunk, frame = self.frame(kind, content)
            places.append(Place(name, len(body), len(frame), chunk))
            body += frame
        entries = zip(kinds, places, strict=True)
        directory = b"".join(struct.pack("<32sIIB7x", p.id, p.offset, p.length, kind) for kind, p in entries)
        kind = 2 if name.split("-")[2].startswith("m") else 1
        footer = struct.pack("<4sHBBQQII", b"DMPK", 1, kind, 0, 0, len(body), len(places), 0)
        footer += struct.pack("<Q", xxh3(directory))
        self.write(f"packs/{name}", body + directory + footer + struct.pack("<Q", xxh3(footer)))
        return places

    def point(self, name: str, header: Json, body: Json) -> bytes:
        """The record of a point."""
        head = json.dumps(header).encode("utf-8")
        tail = json.dumps(body, ensure_ascii=False).encode("utf-8")
        stored = len(tail) + (28 if self.epochs else 0)
        before = struct.pack("<4sHHQII", b"DMPT", 1, 0, 0, len(head), stored) + head
        if not self.epochs:
            before += tail
            return before + blake3(before).digest() + bytes(32)
        epoch = self.epochs[header["key_epoch"]]
        key = keyed(name.encode("ascii"), derive(epoch, "point body"))
        before += b"N" * 12 + AESGCM(key).encrypt(b"N" * 12, tail, before)
        before += blake3(before).digest()
        return before + keyed(before, derive(epoch, "point mac"))

    def collector(self, forwards: Json) -> bytes:
        """gc/state."""
        nothing: Json = {"points": [], "packs": []}
        return with_checksum(
            {
                "format": "data-mover collector",
                "version": 1,
                "features": 0,
                "write_id": "e6" * 16,
                "generation": 2,
                "time": 1_700_000_001.5,
                "owner_epoch": 1,
                "condemned": nothing,
                "gone": nothing,
                "forwards": forwards,
                "quarantine": [],
                "catalog": {"runs": [], "folded": []},
                "points": [],
            }
        )


def tables(places: list[Place]) -> tuple[bytes, bytes, int, int, dict[str, int]]:
    """Writers, packs, how many of each, and the index of each pack."""
    packs = sorted({place.pack for place in places})
    writers = sorted({pack.rpartition("-")[0] for pack in packs})
    references = b""
    for pack in packs:
        writer, _, number = pack.rpartition("-")
        bit = 1 << 31 if number.startswith("m") else 0
        references += struct.pack("<II", writers.index(writer), bit | int(number.lstrip("m")))
    binary = b"".join(bytes.fromhex(writer.replace("-", "").replace("/", "")) for writer in writers)
    return binary, references, len(writers), len(packs), {pack: index for index, pack in enumerate(packs)}


def u32(values: list[int]) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


def page(places: list[Place | None]) -> bytes:
    """One place a block, or None where it is zero."""
    runs = list[list[int]]()
    for place in places:
        state = int(place is not None)
        if not runs or runs[-1][1] != state:
            runs.append([0, state])
        runs[-1][0] += 1
    stored = [place for place in places if place is not None]
    writers, packs, w, p, index = tables(stored)
    head = struct.pack("<4sHHIIIII", b"DMPG", 1, 0, len(places), len(runs), w, p, len(stored))
    return b"".join(
        [
            head,
            writers,
            packs,
            *(struct.pack("<HH", *run) for run in runs),
            *(place.id for place in stored),
            u32([index[place.pack] for place in stored]),
            u32([place.offset for place in stored]),
            u32([place.length for place in stored]),
        ]
    )


def root(size: int, pages: list[Place | None], named: list[list[Place]]) -> bytes:
    """One place a page, or None where all is zero; and what each page names."""
    everything = [place for place in pages if place] + [place for of_page in named for place in of_page]
    writers, packs, w, p, index = tables(everything)
    pairs = [sorted({place.pack for place in of_page}) for of_page in named]
    distinct = [{(place.pack, place.id): place.length for place in of_page} for of_page in named]
    live = [
        (pack, sum(length for (its, _), length in lengths.items() if its == pack))
        for packs_of_page, lengths in zip(pairs, distinct, strict=True)
        for pack in packs_of_page
    ]
    head = struct.pack("<4sHHIIQQ", b"DMRT", 1, 0, MIB, 1024, size, -(-size // MIB))
    head += u32([len(pages), w, p, len(live)])
    return b"".join(
        [
            head,
            writers,
            packs,
            bytes(int(place is not None) for place in pages),
            u32([index[place.pack] if place else 0 for place in pages]),
            u32([place.offset if place else 0 for place in pages]),
            u32([place.length if place else 0 for place in pages]),
            *(place.id if place else bytes(32) for place in pages),
            u32([len(of_page) for of_page in pairs]),
            *(u32([index[pack], total]) for pack, total in live),
        ]
    )


# --- A repository to restore from ---


def content(seed: int, size: int = MIB) -> bytes:
    """Bytes that zstd makes small, and no two seeds alike."""
    return (random.Random(seed).randbytes(40) * (size // 40 + 1))[:size]


NOISE = random.Random(9).randbytes(MIB)  # zstd makes it no smaller, so it is stored as it is
SHORT = random.Random(8).randbytes(100)
A, B, C = content(1), content(2, 777), content(3)
TEXT = b'{"vm": "web-1"}' * 9
DISKS: list[tuple[int, dict[int, bytes]]] = [
    (1028 * MIB + 100, {1024: A, 1025: C, 1027: NOISE, 1028: SHORT}),  # all of page 0 is zero
    (2 * MIB + 777, {0: A, 2: B}),
]
SIZE, BLOCKS = DISKS[1]  # of the disk that is damaged below


def same(data: bytes) -> bytes:
    return data


class Sample:
    """A repository with one committed point of two disks, and places to change what is written."""

    def __init__(
        self,
        folder: Path,
        password: str | None,
        local: bool = True,
        change_page: Change = same,
        change_root: Change = same,
    ) -> None:
        self.folder = folder
        self.writer = writer = Repository(folder, password, local)
        own = f"{SESSION}/{INCARNATION}"
        a, short = writer.pack(f"{own}-0", [(DATA, A), (DATA, SHORT)])
        (c,) = writer.pack(f"{own}-1", [(DATA, C)])
        (noise,) = writer.pack(f"{own}-12", [(DATA, NOISE)])
        (b,) = writer.pack(f"{PARENT}/{INCARNATION}-3", [(DATA, B)])
        first: list[Place | None] = [a, c, None, noise, short]
        second: list[Place | None] = [a, None, b]
        pages = writer.pack(f"{own}-m0", [(PAGE, page(first)), (PAGE, change_page(page(second)))])
        roots = (
            root(DISKS[0][0], [None, pages[0]], [[], [a, c, noise, short]]),
            root(SIZE, [pages[1]], [[a, b]]),
        )
        tops = writer.pack(f"{own}-m1", [(ROOT, roots[0]), (ROOT, change_root(roots[1])), (DOCUMENT, TEXT)])
        self.a, self.pages, self.tops = a, pages, tops
        self.header: Json = {
            "kind": "point",
            "name": NAME,
            "state": "committed",
            "resource": RESOURCE,
            "sequence": 2,
            "flags": "D",
            "parent": f"points/{PARENT.replace('-', '/')}",
            "generation": 1,
            "incarnation": INCARNATION,
            "owner_epoch": 1,
            "key_epoch": max(writer.epochs, default=0),
            "write_id": "e7" * 16,
            "time": 1_700_000_002,
            "runs": [[INCARNATION, 1]],
            "uses": {"packs": [], "lists": []},
            "disks": [
                {"root": top.json, "size": size, "covered": -(-size // MIB)}
                for top, (size, _) in zip(tops[:2], DISKS, strict=True)
            ],
            "documents": {"configuration": tops[2].json},
            "summary": tops[0].json,
            "statistics": {"read": 7},
        }
        self.body: Json = {
            "resource_name": "web-1 \u2603\x1b[31m",
            "job": "j",
            "created_by": "test",
            "disks": [
                {
                    "name": f"disk-{n}",
                    "identity": "i",
                    "size": size,
                    "sector_size": 512,
                    "snapshot": "s",
                    "source": "x",
                }
                for n, (size, _) in enumerate(DISKS)
            ],
        }
        self.commit(self.header, self.body)
        writer.record("gc/state", writer.collector({}))

    def commit(self, header: Json, body: Json, name: str = NAME) -> None:
        self.writer.record(name, self.writer.point(name, header, body))


# --- Running it ---


class Result(NamedTuple):
    code: int
    out: str
    err: str


def program(*arguments: object, encoding: str = "utf-8") -> Result:
    """As a person runs it."""
    command = [sys.executable, "-X", "dev", "-W", "error", str(RESCUE), *map(str, arguments)]
    settings = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, env=settings)
    out, err = done.stdout.decode("utf-8"), done.stderr.decode("utf-8")
    assert "Traceback" not in err
    return Result(done.returncode, out, err)


spec = importlib.util.spec_from_file_location("rescue", RESCUE)
assert spec is not None
assert spec.loader is not None
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)


def call(*arguments: object) -> Result:
    """The same in this process, for the thousands of runs. An exception that escapes fails the test."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            code = module.main([str(argument) for argument in arguments])
        except SystemExit as usage:
            code = usage.code
    return Result(code, out.getvalue(), err.getvalue())


def stored_blocks(path: Path) -> dict[int, bytes]:
    """The blocks of a sparse file that are not zero."""
    blocks, at, size = {}, 0, path.stat().st_size
    with open(path, "rb") as file:
        while at < size:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA) // MIB * MIB
            except OSError:
                break
            file.seek(at)
            data = file.read(MIB)
            if any(data):
                blocks[at // MIB] = data
            at += MIB
    return blocks


class Bench:
    """Restores disk 1 again and again, and judges what came out."""

    def __init__(self, sample: Sample, target: Path, password_file: Path) -> None:
        self.folder, self.target = sample.folder, target
        self.password = ["--password-file", password_file] if sample.writer.epochs else []

    def restore(self) -> Result:
        """Code 0 is the right bytes under the right name; else no FILE, and no wrong byte in FILE.partial."""
        unfinished = self.target.with_name(self.target.name + ".partial")
        for path in (self.target, unfinished):
            path.unlink(missing_ok=True)
        result = call(self.folder, "restore", NAME, "--disk", 1, "--to", self.target, *self.password)
        assert (result.code == 0) == self.target.exists()
        assert not (self.target.exists() and unfinished.exists())
        if result.code == 0:
            assert self.target.stat().st_size == SIZE
            assert stored_blocks(self.target) == BLOCKS
        else:
            assert result.code in (1, 2)
            assert "hint:" in result.err
        if unfinished.exists():
            assert unfinished.stat().st_size == SIZE
            assert stored_blocks(unfinished).items() <= BLOCKS.items()
        return result

    @contextlib.contextmanager
    def changed(self, name: str, change: Change) -> Iterator[None]:
        data = (self.folder / name).read_bytes()
        (self.folder / name).write_bytes(change(data))
        yield
        (self.folder / name).write_bytes(data)

    def flip(self, name: str, offsets: range | None = None) -> list[int]:
        """Flips a bit of each byte in turn. Returns the offsets where it did no harm."""
        harmless = []
        for offset in range((self.folder / name).stat().st_size) if offsets is None else offsets:
            with self.changed(name, partial(flipped, offset=offset)):
                result = self.restore()
            if result.code == 0:
                harmless.append(offset)
            else:
                assert name in result.err, offset
        return harmless


def flipped(data: bytes, offset: int) -> bytes:
    return data[:offset] + bytes([data[offset] ^ 1 << offset % 8]) + data[offset + 1 :]


def cut(data: bytes, end: int) -> bytes:
    return data[:end]


@pytest.fixture(params=["none", "password"])
def password(request: pytest.FixtureRequest) -> str | None:
    return PASSWORD if request.param == "password" else None


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text(unicodedata.normalize("NFD", PASSWORD) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def sample(tmp_path: Path, password: str | None) -> Sample:
    return Sample(tmp_path / "repository", password)


@pytest.fixture
def bench(sample: Sample, tmp_path: Path, password_file: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    return Bench(sample, tmp_path / "disk", password_file)


# --- It restores ---


@pytest.mark.parametrize("local", [True, False], ids=["local", "downloaded"])
def test_points_disks_and_documents_come_back(
    tmp_path: Path, password: str | None, password_file: Path, local: bool
) -> None:
    folder = Sample(tmp_path / "repository", password, local).folder
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for number, (size, blocks) in enumerate(DISKS):
        target = tmp_path / f"disk-{number}"
        wanted = [POINT[:5], "--disk", number, "--to", target]
        done = program(folder, "restore", *wanted, "--password-file", password_file)
        assert done.code == 0, done.err
        assert target.stat().st_size == size
        assert stored_blocks(target) == blocks
        assert target.stat().st_blocks * 512 < len(blocks) * MIB + 65536  # zeros are holes
    done = program(folder, "document", NAME, "--to", tmp_path / "document", "--password-file", password_file)
    assert done.code == 0, done.err
    assert (tmp_path / "document").read_bytes() == TEXT
    assert program(folder, "unlock-check", "--password-file", password_file).code == 0
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_points_tells_what_can_be_restored(sample: Sample, password_file: Path) -> None:
    sample.commit(sample.header | {"name": NAME[:-1] + "0", "state": "open"}, sample.body, NAME[:-1] + "0")
    (sample.folder / "points" / RESOURCE / ".lock").mkdir()
    told = program(sample.folder, "points", "--json", "--password-file", password_file)
    assert json.loads(told.out) == [
        {
            "point": NAME,
            "time": "2023-11-14T22:13:22Z",
            "resource_name": sample.body["resource_name"],
            "disks": [{"name": f"disk-{number}", "size": size} for number, (size, _) in enumerate(DISKS)],
            "documents": ["configuration"],
        }
    ]
    assert (told.code, "1 points, 1 unfinished, 0 damaged" in told.err) == (0, True)
    lines = program(sample.folder, "points", "--password-file", password_file).out.splitlines()
    assert lines[0] == f"{NAME} 2023-11-14T22:13:22Z web-1 \u2603?[31m"  # a name cannot speak to the terminal
    assert lines[1] == f"    disk 0: {DISKS[0][0]} bytes, disk-0"
    told = program(sample.folder, "points", "--password-file", password_file, encoding="ascii")
    assert told.out.splitlines()[0].endswith("web-1 \\u2603?[31m")


def test_a_locked_repository_still_lists_its_points(tmp_path: Path) -> None:
    folder = Sample(tmp_path / "repository", PASSWORD).folder
    told = program(folder, "points", "--json")
    assert told.code == 0
    assert "MACs not checked" in told.err
    assert f"disk 1: {SIZE} bytes, (locked)" in program(folder, "points").out
    (point,) = json.loads(told.out)
    assert (point["resource_name"], point["disks"][1]) == (None, {"name": None, "size": SIZE})


def test_a_disk_of_no_bytes(sample: Sample, tmp_path: Path, password_file: Path) -> None:
    (top,) = sample.writer.pack(f"{SESSION}/{INCARNATION}-m7", [(ROOT, root(0, [], []))])
    disk = {"root": top.json, "size": 0, "covered": 0}
    sample.commit(sample.header | {"disks": [disk]}, sample.body)
    target = tmp_path / "empty"
    wanted = [NAME, "--disk", 0, "--to", target]
    done = program(sample.folder, "restore", *wanted, "--password-file", password_file)
    assert (done.code, target.stat().st_size) == (0, 0)


# --- The collector moved something (section 8) ---

MOVED = [f"{SESSION}/{INCARNATION}-{n}" for n in ("0", "40", "41", "42", "m43")]


@pytest.mark.parametrize("where", ["inline", "objects"])
@pytest.mark.parametrize("missing", [True, False], ids=["missing", "damaged"])
def test_forwards_are_followed_on_and_on(bench: Bench, sample: Sample, where: str, missing: bool) -> None:
    """0 is gone: to 40, which is gone too: to 41, which has other chunks, and 42, which has A at its end."""
    writer, path = sample.writer, sample.folder / "packs" / MOVED[0]
    writer.pack(MOVED[2], [(DATA, NOISE)])
    writer.pack(MOVED[3], [(DATA, content(77)), (DATA, A)])
    if missing:
        path.unlink()
    else:
        path.write_bytes(flipped(path.read_bytes(), sample.a.offset + 70))
    assert MOVED[0] in bench.restore().err
    forwards: Json = {MOVED[0]: [MOVED[1]], MOVED[1]: [MOVED[2], MOVED[3]], MOVED[3]: [MOVED[0]]}  # and round
    if where == "objects":
        lists = {"gc/" + "f0" * 16 + "-1": forwards[MOVED[1]]}
        lists["gc/" + "f0" * 16 + "-2"] = forwards | {MOVED[1]: {"object": "gc/" + "f0" * 16 + "-1"}}
        for name, value in lists.items():
            head = {"format": "data-mover list", "version": 1, "features": 0}
            writer.write(name, with_checksum(head | {"value": value}))
        forwards = {"object": "gc/" + "f0" * 16 + "-2"}
    writer.record("gc/state", writer.collector(forwards))
    assert bench.restore().code == 0


def test_maps_are_forwarded_too(bench: Bench, sample: Sample) -> None:
    first = (sample.folder / "packs" / sample.pages[0].pack).read_bytes()
    moved = f"{SESSION}/{INCARNATION}-m50"
    sample.writer.write(f"packs/{moved}", first)
    (sample.folder / "packs" / sample.pages[0].pack).unlink()
    sample.writer.record("gc/state", sample.writer.collector({sample.pages[0].pack: [moved]}))
    assert bench.restore().code == 0


@pytest.mark.parametrize(
    "forwards",
    [
        [], 7, {MOVED[0]: 7}, {MOVED[0]: [7]}, {MOVED[0]: ["../../etc/passwd"]}, {MOVED[0]: [MOVED[1]]},
        {"object": "gc/../repository.json"}, {"object": "gc/" + "0" * 32 + "-1"}, {MOVED[0]: [MOVED[0]]},
    ],
)  # fmt: skip
def test_forwards_that_lead_nowhere(bench: Bench, sample: Sample, forwards: Any) -> None:
    (sample.folder / "packs" / MOVED[0]).unlink()
    sample.writer.record("gc/state", sample.writer.collector(forwards))
    assert bench.restore().code == 1


def test_a_damaged_collector_or_directory_moves_nothing(bench: Bench, sample: Sample) -> None:
    """With a forward that is needed."""
    (sample.folder / "packs" / MOVED[0]).unlink()
    (moved,) = sample.writer.pack(MOVED[3], [(DATA, A)])
    sample.writer.record("gc/state", sample.writer.collector({MOVED[0]: [MOVED[3]]}))
    assert bench.restore().code == 0
    data = (sample.folder / "gc/state").read_bytes()
    assert bench.flip("gc/state", range(data.index(b"\n"), len(data), 3)) == []
    entry, footer = moved.length, moved.length + 48
    unread = {
        56,
        63,
        entry + 40,
        footer + 32,
        footer + 47,
    }  # XXH3 checksums, and the entry's copy of the kind
    read = {0, 55, entry, entry + 39, entry + 41, entry + 47, footer, footer + 31}
    harmless = set(bench.flip(f"packs/{MOVED[3]}"))
    assert unread <= harmless
    assert not read & harmless
    (sample.folder / "gc/state").unlink()
    assert "gc/state: is missing" in bench.restore().err


def unsized(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_content_size=False).compress(data)


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


ZSTD_SAYS_4_EIB = b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 1 << 62) + b"\1\0\0"


LIES: dict[str, tuple[int, int, bytes, str | None]] = {  # flags, raw length, payload, complaint
    "nothing": (1, MIB, zstd(A), None),
    "nothing, though zstd would make it smaller": (0, MIB, A, None),
    "zstd without a size": (1, MIB, unsized(A), "zstd says"),
    "zstd of a size beyond all bounds": (1, MIB, ZSTD_SAYS_4_EIB, "zstd says 4611686018427387904"),
    "no zstd": (1, MIB, b"", "cannot be decompressed"),
    "zstd of less": (1, MIB, zstd(A[:-1]), "zstd says"),
    "a byte behind zstd": (1, MIB, zstd(A) + b"\0", "cannot be decompressed"),
    "a second zstd frame": (1, MIB, zstd(A) + zstd(b""), "cannot be decompressed"),
    "another chunk": (1, MIB, zstd(C), "does not have its chunk id"),
    "less than it says": (0, MIB, A[:-1], "the header says"),
    "more than a block": (1, MIB + 1, zstd(A + b"\0"), "it can have"),
    "more than a frame": (1, (1 << 32) - 1, zstd(A), "it can have"),
    "sealed without keys": (3, MIB, bytes(28) + zstd(A), "contradict the encryption"),
    "a flag of tomorrow": (5, MIB, zstd(A), "no frame of version 1"),
}


@pytest.mark.parametrize("password", [None])
@pytest.mark.parametrize("lie", LIES)
def test_frames_that_lie(bench: Bench, sample: Sample, lie: str) -> None:
    flags, raw, payload, complaint = LIES[lie]
    (sample.folder / "packs" / MOVED[0]).unlink()
    sample.writer.record("gc/state", sample.writer.collector({MOVED[0]: [MOVED[3]]}))
    head = struct.pack("<4sBBBBIIII32sQ", b"DMFR", 1, flags, DATA, 0, 0, raw, len(payload), 0, sample.a.id, 0)
    frame = head + payload
    directory = struct.pack("<32sIIB7x", sample.a.id, 0, len(frame), DATA)
    footer = struct.pack("<4sHBBQQII16x", b"DMPK", 1, 1, 0, 0, len(frame), 1, 0)
    sample.writer.write(f"packs/{MOVED[3]}", frame + directory + footer)
    result = bench.restore()
    assert (result.code == 0) == (complaint is None)
    assert complaint is None or f"packs/{MOVED[3]} at offset 0: " in result.err
    assert complaint is None or complaint in result.err


@pytest.mark.parametrize("password", [PASSWORD])
def test_an_open_frame_in_a_sealed_repository(bench: Bench, sample: Sample) -> None:
    sample.writer.epochs.clear()  # the writer forgets to seal
    sample.writer.pack(MOVED[0], [(DATA, A), (DATA, SHORT)])
    sample.writer.pack(MOVED[3], [(DATA, A)])
    sample.writer.record("gc/state", sample.writer.collector({MOVED[0]: [MOVED[3]]}))
    bench.password = ["--password-file", bench.target.with_name("password")]
    assert "contradict the encryption" in bench.restore().err


# --- Damage ---


def test_every_byte_of_a_point_is_guarded(bench: Bench, sample: Sample) -> None:
    data = (sample.folder / NAME).read_bytes()
    harmless = bench.flip(NAME)
    assert harmless == list(range(7, data.index(b"\n")))  # the store's line before the record
    for end in range(0, len(data), 19):
        with bench.changed(NAME, partial(cut, end=end)):
            assert NAME in bench.restore().err
    with bench.changed(NAME, lambda data: data + b"\0"):
        assert NAME in bench.restore().err


def test_every_byte_of_a_point_is_guarded_in_the_list(bench: Bench, sample: Sample) -> None:
    data = (sample.folder / NAME).read_bytes()
    start = data.index(b"\n") + 1
    for offset in [*range(start, len(data) - 70, 5), *range(len(data) - 70, len(data))]:
        with bench.changed(NAME, partial(flipped, offset=offset)):
            listed = call(bench.folder, "points", *bench.password)
            locked = call(bench.folder, "points")
        assert (listed.code, listed.out, NAME in listed.err) == (1, "", True)
        # Without the password nobody can check the MAC.
        assert locked.code == (0 if sample.writer.epochs and offset >= len(data) - 32 else 1)


def test_every_byte_of_the_descriptor_is_guarded(bench: Bench) -> None:
    data = (bench.folder / "repository.json").read_bytes()
    start = data.index(b"\n") + 1
    for offset in bench.flip("repository.json"):
        flip = flipped(data, offset)
        assert offset < start - 1 or json.loads(flip[start:]) == json.loads(data[start:])  # \u00fc or \u00fC


def test_every_byte_of_the_frames_is_guarded(bench: Bench, sample: Sample) -> None:
    """Of a root, a page and a block: all but their XXH3 sums, and bits of zstd that mean nothing.

    In a sealed frame no bit means nothing. Beside the frame, this restore reads nothing.
    """
    for place in (sample.tops[1], sample.pages[1], sample.a):
        start, end, name = place.offset, place.offset + place.length, f"packs/{place.pack}"
        harmless = set(bench.flip(name, range(start, end))) - set(range(start + 56, start + 64))
        assert len(harmless) < (1 if sample.writer.epochs else 5)
        assert harmless.isdisjoint(range(start, start + 56))
        beside = range(end, (sample.folder / name).stat().st_size, 9)
        assert bench.flip(name, beside) == list(beside)


def test_a_pack_that_ends_early(bench: Bench, sample: Sample) -> None:
    for name in (sample.a.pack, sample.pages[0].pack, sample.tops[0].pack):
        size = (sample.folder / "packs" / name).stat().st_size
        codes = set()
        for end in range(0, size, 7):
            with bench.changed(f"packs/{name}", partial(cut, end=end)):
                result = bench.restore()
            codes.add(result.code)
            assert result.code == 0 or f"packs/{name}" in result.err
        assert codes == {0, 1}


def test_a_lost_pack_loses_its_blocks_and_no_others(bench: Bench, sample: Sample, tmp_path: Path) -> None:
    pack = f"{PARENT}/{INCARNATION}-3"
    (sample.folder / "packs" / pack).unlink()
    result = bench.restore()
    assert f"rescue: bytes {2 * MIB} to {SIZE - 1} are lost: chunk " in result.err
    assert f"packs/{pack}: is missing" in result.err
    assert f"777 bytes of disk 1 of {NAME} are lost" in result.err
    assert stored_blocks(tmp_path / "disk.partial") == {0: A}


def test_records_and_frames_that_were_swapped(bench: Bench, sample: Sample) -> None:
    other = NAME[:-1] + "0"
    shutil.copy(sample.folder / NAME, sample.folder / other)
    result = call(bench.folder, "restore", other, "--disk", 1, "--to", bench.target, *bench.password)
    assert (result.code, "its name is points/" in result.err) == (1, True)
    packs = sample.folder / "packs" / SESSION
    shutil.copy(packs / f"{INCARNATION}-12", packs / f"{INCARNATION}-0")
    assert "holds chunk" in bench.restore().err


# --- Hostile repositories: everything is signed as it should be, and wrong ---


def put(offset: int, form: str, value: int) -> Change:
    return lambda data: data[:offset] + struct.pack(form, value) + data[offset + struct.calcsize(form) :]


ALL = (1 << 32) - 1
BOTH = [
    put(0, "<I", 0), put(4, "<H", 2), put(6, "<H", 1), put(6, "<H", 2), lambda data: data + b"\0",
    lambda data: data[:-1], lambda data: b"", lambda data: data[:20],
]  # fmt: skip
# Two writers, two packs, three runs (data, zero, data), two entries: tables begin at 28, the runs at 140, the
# columns at 152 (id), 216 (pack), 224 (offset) and 232 (length).
PAGES = [
    *BOTH, put(8, "<I", 4), put(8, "<I", 2), put(12, "<I", 2), put(12, "<I", ALL), put(16, "<I", 9),
    put(20, "<I", ALL), put(24, "<I", 3), put(24, "<I", 0), put(24, "<I", ALL), put(124, "<I", 2),
    put(124, "<I", ALL), put(140, "<H", 2), put(140, "<H", 0), put(140, "<H", 65535), put(142, "<H", 2),
    put(142, "<H", 0), put(144, "<H", 0), put(146, "<H", 1), put(152, "<I", 0), put(216, "<I", 2),
    put(216, "<I", ALL), put(224, "<I", ALL), put(224, "<I", 1), put(232, "<I", ALL), put(232, "<I", 0),
    put(232, "<I", 63),
]  # fmt: skip
# Two writers, three packs, one page: state at 168, pack at 169, offset at 173, length at 177, id at 181.
ROOTS = [
    *BOTH, put(8, "<I", 512), put(12, "<I", 1), put(16, "<Q", SIZE + 1), put(16, "<Q", (1 << 64) - 1),
    put(16, "<Q", 0), put(24, "<Q", 2), put(32, "<I", 0), put(32, "<I", 2), put(32, "<I", ALL),
    put(36, "<I", ALL), put(44, "<I", ALL), put(160, "<I", 2), put(168, "<B", 2), put(169, "<I", 3),
    put(173, "<I", 5), put(177, "<I", 1 << 31), put(181, "<B", 0),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(PAGES)))
def test_a_page_that_contradicts_itself(tmp_path: Path, password_file: Path, number: int) -> None:
    sample = Sample(tmp_path / "repository", None, change_page=PAGES[number])
    assert "packs/" in Bench(sample, tmp_path / "disk", password_file).restore().err


@pytest.mark.parametrize("number", range(len(ROOTS)))
def test_a_root_that_contradicts_itself(tmp_path: Path, password_file: Path, number: int) -> None:
    sample = Sample(tmp_path / "repository", None, change_root=ROOTS[number])
    bench = Bench(sample, tmp_path / "disk", password_file)
    result = bench.restore()
    assert result.code == 1
    assert "packs/" in result.err


VALUES: list[Any] = [
    None, True, -1, 0, 1 << 31, 1 << 70, 1.5, float("inf"), float("nan"), "", "x", "\ud800", [], {}, [[]],
    ["x"], {"x": 1},
]  # fmt: skip


def places_of(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of everything inside a JSON value."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places_of(inner, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], by: Any) -> Any:
    result = copy.deepcopy(value)
    parent = result
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = by
    return result


@pytest.mark.parametrize("password", [None])
def test_json_of_any_shape(bench: Bench, sample: Sample) -> None:
    """Each member of header and body becomes a third of these things: an error or the right bytes."""
    failed = set()
    for part in (sample.header, sample.body):
        for number, path in enumerate(places_of(part)):
            for value in VALUES[number % 3 :: 3]:
                changed = replaced(part, path, value)
                header, body = (changed, sample.body) if part is sample.header else (sample.header, changed)
                if value == "\ud800" and part is sample.body:
                    continue  # the body is written as UTF-8, which cannot say this
                sample.commit(header, body)
                if bench.restore().code:
                    failed.add(path)
                assert call(bench.folder, "points", *bench.password).code in (0, 1)
                target = bench.target.with_name("document")
                target.unlink(missing_ok=True)
                done = call(bench.folder, "document", NAME, "--to", target, *bench.password)
                assert (done.code == 0) == target.exists()
    assert {("kind",), ("name",), ("disks",), ("disks", 1, "root", 0), ("disks", 1, "size")} <= failed


# --- Passwords and arguments ---


@pytest.mark.parametrize("words", ["wrong", "", PASSWORD + "\n\n", PASSWORD.upper()])
def test_a_wrong_password_opens_nothing(tmp_path: Path, words: str) -> None:
    folder = Sample(tmp_path / "repository", PASSWORD).folder
    (tmp_path / "password").write_text(words, encoding="utf-8")
    password = ["--password-file", tmp_path / "password"]
    for verb in (["unlock-check"], ["points"], ["restore", NAME, "--disk", 0, "--to", tmp_path / "disk"]):
        result = program(folder, *verb, *password)
        assert (result.code, result.out) == (1, "")
        assert "the password does not open this repository\n  hint: it says: the \u00fcsual" in result.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["password", "repository"]


def test_scrypt_is_bounded(bench: Bench, sample: Sample) -> None:
    """A repository cannot ask for more memory than there is."""
    if not sample.writer.epochs:
        return
    value = json.loads((sample.folder / "repository.json").read_bytes().partition(b"\n")[2])
    del value["checksum"]
    for cost in ("n", "r", "p"):
        for number in (0, -1, 3 if cost == "n" else 1 << 40, 1 << 62, 1.5, None):
            encryption = copy.deepcopy(value["encryption"])
            encryption["slots"][1][cost] = number
            sample.writer.record("repository.json", with_checksum(value | {"encryption": encryption}))
            assert "repository.json: " in bench.restore().err


def test_what_cannot_be_is_refused_with_a_hint(sample: Sample, tmp_path: Path, password_file: Path) -> None:
    target, password = tmp_path / "disk", ["--password-file", password_file]
    (tmp_path / "there").write_bytes(b"mine")
    unfinished = NAME[:-1] + "0"
    sample.commit(sample.header | {"name": unfinished, "state": "open"}, sample.body, unfinished)
    cases: list[tuple[str, list[object]]] = [
        ("no folder", [tmp_path / "nowhere", "points"]),
        ("0 points are called", [sample.folder, "restore", "ffff", "--disk", 0, "--to", target, *password]),
        ("0 points are called", [sample.folder, "restore", "", "--disk", 0, "--to", target, *password]),
        (
            "2 points are called",
            [sample.folder, "restore", POINT[:9], "--disk", 0, "--to", target, *password],
        ),
        ("never finished", [sample.folder, "restore", unfinished, "--disk", 0, "--to", target, *password]),
        ("has no disk 2", [sample.folder, "restore", NAME, "--disk", 2, "--to", target, *password]),
        ("has no disk -1", [sample.folder, "restore", NAME, "--disk", -1, "--to", target, *password]),
        (
            "there exists",
            [sample.folder, "restore", NAME, "--disk", 0, "--to", tmp_path / "there", *password],
        ),
        ("there exists", [sample.folder, "document", NAME, "--to", tmp_path / "there", *password]),
        ("usage:", [sample.folder, "restore", NAME, "--to", target]),
        ("usage:", [sample.folder]),
    ]
    if sample.writer.epochs:
        cases.append(("the repository is encrypted", [sample.folder, "unlock-check"]))
        nowhere = ["--password-file", tmp_path / "nowhere"]
        cases.append(("no password", [sample.folder, "unlock-check", *nowhere]))
    for what, arguments in cases:
        result = program(*arguments)
        assert (result.code, what in result.err, result.out) == (2, True, ""), arguments
        assert "hint:" in result.err or "usage:" in result.err
    assert (tmp_path / "there").read_bytes() == b"mine"
    assert not target.exists()
    assert program(tmp_path, "points").code == 1  # a folder, but repository.json is missing


def test_a_target_that_cannot_be_written(sample: Sample, tmp_path: Path, password_file: Path) -> None:
    target = tmp_path / "nowhere" / "disk"
    wanted = [NAME, "--disk", 1, "--to", target]
    result = call(sample.folder, "restore", *wanted, "--password-file", password_file)
    assert (result.code, f"{target}.partial cannot be written" in result.err) == (1, True)
