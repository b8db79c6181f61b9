# SPDX-License-Identifier: Apache-2.0
"""Makes the golden repositories: `python -m tests.golden.make_golden FOLDER` writes <name>.tar.gz for each of REPOSITORIES.

The ones beside this file were made once and are kept: every later release must read them as `test_golden.py` says. Run this
only to add one (a later format version gets archives of its own). Keys, ids and nonces are seeded and the clock stands still:
two runs differ only where two threads raced for a place in a pack.
"""

from __future__ import annotations

import dataclasses
import io
import json
import random
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from gzip import GzipFile
from pathlib import Path
from unittest import mock

from blake3 import blake3

from mover.backup import Backup, BackupRequest, BackupResult, BackupSettings
from mover.errors import Cancelled
from mover.progress import Progress
from mover.repository import index_run, pack, record
from mover.repository.collector_state import read_state
from mover.repository.names import COLLECTOR_STATE, DESCRIPTOR, METADATA_BIT, PackName, parse_pack
from mover.repository.pack import Place
from mover.repository.repository import Repository
from mover.store.local_envelope import first_line
from mover.store.memory import MemoryStore
from tests.mover.wounds import MIB, Content, SparseDisk, Wound, Wounded, block

PASSWORD = "golden days are kept"
"""Of the repositories that have one; `hint` in their descriptor says where it stands."""
DOCUMENT = b'{"vm": "golden"}'
NOW = 1_760_000_000.0
RECORDS = ("points/", "gc/state", "repository.json")
SYSTEM, DATA = 4 * MIB + 100, 1_026 * MIB
"""Sizes of the disks "system" and "data" of the resource "vm"."""


class StoppedClock:
    """It is always NOW."""

    def monotonic(self) -> float:
        return 1_000.0

    def wall(self) -> float:
        return NOW

    def wait(self, event: threading.Event, seconds: float) -> bool:
        return event.wait(seconds)


@contextmanager
def seeded(seed: str) -> Iterator[None]:
    """Keys, nonces and ids from a seed."""
    rng = random.Random(seed)
    with (
        mock.patch("os.urandom", rng.randbytes),
        mock.patch("secrets.token_hex", lambda size: rng.randbytes(size).hex()),
    ):
        yield


def back_up(
    repository: Repository, job: str, disks: Mapping[str, tuple[int, Content]], resource: str = "vm", **options: object
) -> BackupResult:
    sources = [SparseDisk(name, size, blocks) for name, (size, blocks) in disks.items()]
    cancelled = options.pop("cancelled", lambda: False)
    request = BackupRequest(resource, job, sources, **options)  # type: ignore[arg-type]
    settings = BackupSettings(workers=1, memory=384 * MIB, checkpoint_seconds=0.0 if job == "orphan" else 30.0)
    return Backup(repository, request, settings, Progress(repository.clock), cancelled, seed=1).run()  # type: ignore[arg-type]


def first() -> dict[str, tuple[int, Content]]:
    system = {0: block(1), 1: block(2), 3: block(1), 4: block(3, 100)}
    return {"system": (SYSTEM, system), "data": (DATA, {7: block(4), 1_025: block(5)})}


def second() -> dict[str, tuple[int, Content]]:
    disks = first()
    disks["system"][1][1] = block(6)
    del disks["system"][1][3]
    return disks


def made(password: str | None = None) -> Repository:
    """The repository that all others are wounded copies of: two points of "vm"."""
    repository = Repository.create(
        MemoryStore(StoppedClock()), password=password, hint="make_golden.py", clock=StoppedClock()
    )
    back_up(repository, "one", first(), document=DOCUMENT)
    back_up(repository, "two", second(), document=DOCUMENT)
    return repository


def session_of(repository: Repository, job: str) -> str:
    return f"{repository.keys.resource_id('vm')}-{repository.keys.point_id(job)}"


def packs_of(repository: Repository, job: str, *, metadata: bool = False) -> list[PackName]:
    """A job's packs of one kind."""
    listed = repository.store.list(f"packs/{session_of(repository, job)}/")
    packs = [parse_pack(entry.name.removeprefix("packs/")) for entry in listed]
    return [name for name in packs if name.is_metadata == metadata]


def rewrite(repository: Repository, name: str, data: bytes) -> None:
    found = repository.store.read_record(name)
    repository.store.replace_record(name, data, found.metadata, etag=found.etag, lease=None)


# -- one function a repository


def healthy_clear() -> Repository:
    return made()


def healthy_password() -> Repository:
    return made(PASSWORD)


def missing_pack() -> Repository:
    """The data pack of the second point: its disk "system" needs it."""
    repository = made(PASSWORD)
    (name,) = packs_of(repository, "two")
    repository.store.delete(name.object)
    return repository


def truncated_pack() -> Repository:
    """The first data pack ends after its first frame: blocks 0 and 3 of "system" are left."""
    repository = made(PASSWORD)
    (name,) = packs_of(repository, "one")
    data = bytes(repository.store.read_all(name.object))
    at, _, _ = pack.read_footer(data[-pack.FOOTER_SIZE :], len(data), name)
    _, _, length, _ = pack.ENTRY.unpack_from(data, at)
    repository.store.delete(name.object)
    repository.store.put(name.object, [data[: length + 10]])
    return repository


def lying_index() -> Repository:
    """A run says that every chunk stands where the first one does; the point of "victim" was made from it."""
    repository = made(PASSWORD)
    (run,) = [entry.name for entry in repository.store.list(f"index/{session_of(repository, 'one')}/")]
    records, packs = index_run.decode_run(repository.store.read_all(run), run)
    rows = [row.item() for row in records]
    place = Place(packs[rows[0][1]], rows[0][2], rows[0][3])
    lie = index_run.encode_run([(row[0].ljust(32, b"\0"), place, row[4]) for row in rows])
    repository.store.delete(run)
    repository.store.put(run, [lie])
    back_up(repository, "three", {"system": first()["system"]}, resource="victim")
    return repository


def duplicate_chunk() -> Repository:
    """Two workers stored the same chunks at the same time: each id stands in two packs and two runs."""
    repository = made(PASSWORD)
    runs = {entry.name: None for entry in repository.store.list("index/")}
    blind = Repository(
        Wounded(repository.store, Wound("index", "not seen", runs)),
        repository.descriptor,
        repository.keys,
        repository.clock,
    )
    back_up(blind, "three", {"system": first()["system"]}, resource="twin")
    return repository


def orphan_session() -> Repository:
    """A worker stopped between two checkpoints; nobody holds the session any more."""
    repository = made(PASSWORD)
    asked = iter(range(1_000))
    disks = {"system": (SYSTEM, {k: block(20 + k) for k in range(4)})} | {"data": first()["data"]}
    try:
        back_up(repository, "orphan", disks, cancelled=lambda: next(asked) > 6)
    except Cancelled:
        return repository
    raise AssertionError("the orphan was finished")


def quarantined_forward() -> Repository:
    """The first data pack had a damaged frame; its frames were copied on, it is condemned, quarantined and partly gone."""
    repository = made(PASSWORD)
    store = repository.store
    forwards, quarantine = {}, set()
    for number, old in enumerate([*packs_of(repository, "one"), *packs_of(repository, "one", metadata=True)]):
        new = PackName(b"\x77" * 48, number | (old.number & METADATA_BIT))
        data = bytes(store.read_all(old.object))
        store.put(new.object, [data])
        store.delete(old.object)
        if not old.is_metadata:  # what is quarantined is still there, and damaged
            damaged = bytearray(data)
            damaged[100] ^= 1
            store.put(old.object, [damaged])
            quarantine.add((old, 0))
        forwards[old] = (new,)
    state = dataclasses.replace(
        read_state(store), generation=3, write_id="ab" * 16, forwards=forwards, quarantine=frozenset(quarantine)
    )
    rewrite(repository, COLLECTOR_STATE, state.encode())
    return repository


def unknown_feature() -> Repository:
    """The descriptor names a feature of a later release."""
    repository = made(PASSWORD)
    value = json.loads(repository.store.read_record(DESCRIPTOR).data)
    value["features"] = 1
    del value["checksum"]
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    value["checksum"] = blake3(text.encode("ascii")).hexdigest()
    rewrite(repository, DESCRIPTOR, json.dumps(value).encode("ascii"))
    return repository


def unknown_feature_point() -> Repository:
    """The record of the second point does."""
    repository = made(PASSWORD)
    name = list(repository.points("vm"))[-1].name
    data = bytearray(repository.store.read_record(name).data[: -record.CHECKSUM_SIZE - record.MAC_SIZE])
    data[8] = 1
    data += blake3(data).digest()
    data += repository.keys.point_mac(repository.keys.epoch, bytes(data))
    rewrite(repository, name, bytes(data))
    return repository


REPOSITORIES: dict[str, Callable[[], Repository]] = {
    "v1-healthy-clear": healthy_clear,
    "v1-healthy-password": healthy_password,
    "v1-missing-pack": missing_pack,
    "v1-truncated-pack": truncated_pack,
    "v1-lying-index": lying_index,
    "v1-duplicate-chunk": duplicate_chunk,
    "v1-orphan-session": orphan_session,
    "v1-quarantined-forward": quarantined_forward,
    "v1-unknown-feature": unknown_feature,
    "v1-unknown-feature-point": unknown_feature_point,
}


def files_of(repository: Repository) -> Iterator[tuple[str, bytes]]:
    """Section 9 of docs/format.md: what a local directory has under each name."""
    for top in ("gc/", "index/", "packs/", "points/", "repository.json"):
        for entry in repository.store.list(top):
            if entry.name.startswith(RECORDS):
                found = repository.store.read_record(entry.name)
                yield entry.name, first_line("golden", found.metadata) + found.data
            else:
                yield entry.name, bytes(repository.store.read_all(entry.name))


def archive(repository: Repository) -> bytes:
    packed = io.BytesIO()
    with (
        GzipFile(fileobj=packed, mode="wb", filename="", mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name, data in files_of(repository):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return packed.getvalue()


def make(name: str) -> bytes:
    with seeded(name.removeprefix("v1-")):
        return archive(REPOSITORIES[name]())


if __name__ == "__main__":
    for title in REPOSITORIES:
        target = Path(sys.argv[1]) / f"{title}.tar.gz"
        if not target.exists():  # what is kept is kept
            target.write_bytes(make(title))
            print(target)
