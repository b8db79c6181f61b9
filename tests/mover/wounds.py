# SPDX-License-Identifier: Apache-2.0
"""Wounds and what they are dealt to: a small real repository, a record of who reads which byte, stores that lie about an object.

Which operations a wound can touch is not guessed: `Watch` writes down every range, size and listing that an operation on the
healthy repository asked for. One that never asked for a wounded byte is the same computation as before and is not repeated.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mover.backup import Backup, BackupRequest, BackupResult, BackupSettings
from mover.clock import SYSTEM
from mover.errors import MoverError, ObjectNotFound, ShortObject
from mover.progress import Progress
from mover.repository import index_run, pack
from mover.repository.frame import HEADER_SIZE
from mover.repository.names import PackName, parse_pack
from mover.repository.pack import DirectoryEntry
from mover.repository.repository import Repository
from mover.restore import Restore, RestoreSettings
from mover.store.base import Entry, Record, Store
from mover.store.memory import MemoryStore
from mover.store.wrapper import Wrapper

MIB = 1 << 20
PASSWORD = "wound and salve"
QUICK = BackupSettings(workers=1, memory=384 * MIB)
Content = dict[int, bytes]
"""A disk as its blocks that are not zero, by number."""


# -- disks that cost what they hold


class SparseDisk:
    """A source of any size."""

    def __init__(self, name: str, size: int, blocks: Content, *, snapshot: str | None = None) -> None:
        self.name = self.identity = name
        self.size = size
        self.blocks = dict(blocks)
        self.sector_size = 512
        self.snapshot = snapshot
        self.source: str | None = None
        self.in_flight = 1
        self.reads: list[int] = []

    def extents(self) -> Iterator[tuple[int, int]]:
        for block in sorted(self.blocks):
            yield block * MIB, len(self.blocks[block])

    def read_into(self, offset: int, buffers: Sequence[bytearray | memoryview]) -> None:
        for block, buffer in enumerate(buffers, offset // MIB):
            self.reads.append(block)
            buffer[:] = self.blocks.get(block, bytes(len(buffer)))

    def read_ahead(self, offset: int, length: int) -> None:
        """It is in memory."""

    def check_unchanged(self) -> None:
        """It never changes by itself."""

    def close(self) -> None:
        """It holds nothing."""


class SparseTarget:
    """Keeps what a restore writes; like a new file, all of it reads as zeros before."""

    compare = unguarded = remote = False
    at_once, most = 1, MIB
    path = "memory"

    def __init__(self) -> None:
        self.blocks: Content = {}

    def write(self, offset: int, data: bytes) -> None:
        assert offset % MIB == 0
        self.blocks[offset // MIB] = data

    def finish(self, time: float) -> None:
        """Nothing to make durable."""


def block(seed: int, size: int = MIB) -> bytes:
    """A block that is unlike that of any other seed, and that packs into little."""
    rng = random.Random(seed)
    return (rng.randbytes(40) * (size // 40 + 1))[:size]


def noise(seed: int, size: int = MIB) -> bytes:
    return random.Random(seed).randbytes(size)


# -- the repository


def back_up(
    repository: Repository,
    job: str,
    *disks: SparseDisk,
    resource: str = "vm",
    document: bytes | None = None,
    settings: BackupSettings = QUICK,
    **request: object,
) -> BackupResult:
    made = BackupRequest(resource, job, list(disks), document=document, **request)  # type: ignore[arg-type]
    return Backup(repository, made, settings, Progress(SYSTEM), seed=1).run()


def restored(repository: Repository, name: str, disk: int) -> Content:
    target = SparseTarget()
    point = repository.read_point(name)
    Restore(repository, point, RestoreSettings(), Progress(SYSTEM)).run({disk: target})  # type: ignore[dict-item]
    return target.blocks


@dataclass(slots=True)
class Sample:
    """A repository and what its points hold. `expected[point]` are the disks, `documents[point]` the document."""

    store: MemoryStore
    repository: Repository
    password: str | None
    expected: dict[str, list[Content]] = field(default_factory=dict)
    documents: dict[str, bytes] = field(default_factory=dict)

    def add(self, result: BackupResult, *disks: SparseDisk, document: bytes = b"") -> None:
        self.expected[result.point] = [dict(disk.blocks) for disk in disks]
        if document:
            self.documents[result.point] = document


def sample(password: str | None) -> Sample:
    """Three points of two resources: two disks (one of two map pages), zero runs, equal blocks, blocks of another's packs."""
    store = MemoryStore()
    repository = Repository.create(store, password=password, hint="what heals")
    made = Sample(store, repository, password)
    system = SparseDisk(
        "system", 5 * MIB + 5_000, {0: block(1), 2: block(1), 3: noise(3), 4: block(4), 5: noise(5, 5_000)}
    )
    data = SparseDisk("data", 1_030 * MIB - 1, {5: block(1), 6: block(6), 1_029: block(7, MIB - 1)})
    made.add(back_up(repository, "monday", system, data, document=b'{"vm": 1}'), system, data, document=b'{"vm": 1}')
    system.blocks[3], data.blocks[7] = block(8), block(9)
    del data.blocks[5]
    made.add(back_up(repository, "tuesday", system, data, document=b'{"vm": 2}'), system, data, document=b'{"vm": 2}')
    other = SparseDisk("other", 4 * MIB, {0: block(9), 1: noise(3), 3: block(10)})
    made.add(back_up(repository, "first", other, resource="db"), other)
    for name, disks in made.expected.items():  # a wound proves nothing about a repository that was never right
        assert [restored(repository, name, number) for number in range(len(disks))] == disks
    return made


# -- who reads what


@dataclass(slots=True)
class Seen:
    """What one operation asked a store for."""

    ranges: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    whole: set[str] = field(default_factory=set)
    sizes: set[str] = field(default_factory=set)
    prefixes: set[str] = field(default_factory=set)

    def touched(self, wound: Wound) -> bool:
        """Whether the operation can notice the wound."""
        name = wound.name
        listed = any(name.startswith(prefix) for prefix in self.prefixes)
        if wound.at is None:
            return listed or name in self.whole or name in self.sizes or name in self.ranges
        return name in self.whole or any(low <= wound.at < high for low, high in self.ranges.get(name, ()))


class Watch(Wrapper):
    """Writes down what is asked for."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.seen = Seen()

    def read_into(self, name: str, offset: int, target: memoryview) -> None:
        self.seen.ranges.setdefault(name, []).append((offset, offset + target.nbytes))
        super().read_into(name, offset, target)

    def size(self, name: str) -> int:
        self.seen.sizes.add(name)
        return super().size(name)

    def read_record(self, name: str) -> Record:
        self.seen.whole.add(name)
        return super().read_record(name)

    def list(self, prefix: str) -> Iterator[Entry]:
        self.seen.prefixes.add(prefix)
        return super().list(prefix)


# -- wounds


@dataclass(frozen=True, slots=True)
class Wound:
    """`contents`: what stands under each name now, None = nothing. `at`: the one byte of `name` that differs, if it is one."""

    name: str
    what: str
    contents: Mapping[str, bytes | None]
    at: int | None = None

    def __str__(self) -> str:
        return f"{self.name}: {self.what}"


def flip(name: str, data: bytes, at: int, mask: int) -> Wound:
    changed = bytearray(data)
    changed[at] ^= mask
    return Wound(name, f"byte {at} ^ {mask:#04x}", {name: bytes(changed)}, at)


def truncate(name: str, data: bytes, length: int) -> Wound:
    return Wound(name, f"cut to {length} of {len(data)} bytes", {name: data[:length]})


def remove(name: str) -> Wound:
    return Wound(name, "removed", {name: None})


def swap(one: str, two: str, contents: Mapping[str, bytes]) -> Wound:
    return Wound(one, f"swapped with {two}", {one: contents[two], two: contents[one]})


class Wounded(Wrapper):
    """A store under which some objects are not what was stored. Names that are not wounded are the inner store's."""

    def __init__(self, inner: Store, wound: Wound) -> None:
        super().__init__(inner)
        self._contents = wound.contents

    def _wounded(self, name: str) -> bytes | None:
        """Only for a wounded name."""
        data = self._contents[name]
        if data is None:
            raise ObjectNotFound("no such object", name)
        return data

    def read_into(self, name: str, offset: int, target: memoryview) -> None:
        if name not in self._contents:
            super().read_into(name, offset, target)
            return
        data = self._wounded(name)
        if offset + target.nbytes > len(data):
            raise ShortObject(f"the object has {len(data)} bytes, {offset}+{target.nbytes} were asked for", name)
        target[:] = data[offset : offset + target.nbytes]

    def size(self, name: str) -> int:
        return len(self._wounded(name)) if name in self._contents else super().size(name)

    def read_record(self, name: str) -> Record:
        if name in self._contents:
            return replace(super().read_record(name), data=self._wounded(name))
        return super().read_record(name)

    def list(self, prefix: str) -> Iterator[Entry]:
        for entry in super().list(prefix):
            data = self._contents.get(entry.name, b"")
            if data is not None:
                yield replace(entry, size=len(data)) if entry.name in self._contents else entry


def contents(store: Store) -> dict[str, bytes]:
    """Every object and record but holds, which readers leave behind."""
    found = {}
    for top in ("gc/", "index/", "packs/", "points/", "repository.json"):
        for entry in store.list(top):
            is_record = top in ("points/", "repository.json") or entry.name == "gc/state"
            found[entry.name] = bytes(store.read_record(entry.name).data if is_record else store.read_all(entry.name))
    return found


def pack_of(name: str) -> PackName:
    return parse_pack(name.removeprefix("packs/"))


def directory(name: str, data: bytes) -> list[DirectoryEntry]:
    at, _, checksum = pack.read_footer(data[-pack.FOOTER_SIZE :], len(data), pack_of(name))
    return pack.read_directory(data[at : -pack.FOOTER_SIZE], checksum, pack_of(name))


def edges(name: str, data: bytes) -> list[int]:
    """Where a part of the object begins or ends, and the bytes beside it: lengths to cut it to, all shorter than it is."""
    found = {0, len(data)}
    if name.startswith("packs/"):
        for entry in directory(name, data):
            found |= {entry.offset, entry.offset + HEADER_SIZE, entry.offset + entry.length}
        end = len(data) - pack.FOOTER_SIZE
        found |= set(range(end, 0, -pack.ENTRY.size)[: len(directory(name, data)) + 1])
    elif name.startswith("index/"):
        shape = index_run.read_footer(data[-index_run.FOOTER_SIZE :], len(data), name)
        found |= {k * index_run.RECORD_SIZE for k in range(shape.records + 1)} | {len(data) - index_run.FOOTER_SIZE}
    elif name.startswith("points/"):
        found |= {24, len(data) - 64, len(data) - 32, len(data) // 2}
    else:
        found |= {len(data) // 4, len(data) // 2}
    return sorted({edge + k for edge in found for k in (-1, 0, 1) if 0 <= edge + k < len(data)})


# -- operations, and what may come of them


def operations(made: Sample) -> dict[str, Callable[[Repository], object]]:
    """What people do with a repository, and what each must yield when it yields anything: see `healthy`."""

    def listed(repository: Repository) -> object:
        return [(point.name, point.header.state, point.body) for point in repository.points()]

    def one_restore(name: str, disk: int) -> Callable[[Repository], object]:
        return lambda repository: restored(repository, name, disk)

    def one_document(name: str) -> Callable[[Repository], object]:
        return lambda repository: repository.read_document(repository.read_point(name), "configuration")

    found: dict[str, Callable[[Repository], object]] = {"list": listed}
    for name, disks in made.expected.items():
        found |= {f"restore {name} {number}": one_restore(name, number) for number in range(len(disks))}
    found |= {f"document {name}": one_document(name) for name in made.documents}
    return found


PLACE = re.compile(r"(packs/\S+) at (\d+)(?:, (\d+) bytes)?")


class Ward:
    """Deals wounds to a sample and looks at what its readers make of them."""

    def __init__(self, made: Sample) -> None:
        self.sample = made
        self.contents = contents(made.store)
        self.operations = operations(made)
        self.healthy: dict[str, object] = {}
        self.seen: dict[str, Seen] = {}
        self.errors = self.harmless = self.untouched = 0
        for name, operation in self.operations.items():
            watch = Watch(made.store)
            self.healthy[name] = operation(self._repository(watch))
            self.seen[name] = watch.seen
        for point, disks in made.expected.items():
            assert [self.healthy[f"restore {point} {number}"] for number in range(len(disks))] == disks

    def _repository(self, store: Store) -> Repository:
        return Repository(store, self.sample.repository.descriptor, self.sample.repository.keys)

    def names(self, top: str) -> list[str]:
        return [name for name in self.contents if name.startswith(top)]

    def packs(self, *, metadata: bool) -> list[str]:
        return [name for name in self.names("packs/") if pack_of(name).is_metadata == metadata]

    def examine(self, wound: Wound, only: int | None = None) -> None:
        """Every operation that asks for what is wounded yields what it always did, or an error that says where it hurts.

        `only`: one of these operations, by a number that the caller counts up, where all of them would take too long.
        """
        touched = [name for name, seen in self.seen.items() if seen.touched(wound)]
        if only is not None and touched:
            touched = [touched[only % len(touched)]]
        self.untouched += not touched
        repository = self._repository(Wounded(self.sample.store, wound))
        for name in touched:
            try:
                result = self.operations[name](repository)
            except MoverError as error:
                self.errors += 1
                assert located(str(error), wound), f"{name} after {wound}: no place: {error}"  # noqa: PT017
            except Exception as error:
                raise AssertionError(f"{name} after {wound}: {error!r}") from error
            else:
                self.harmless += 1
                assert harmless(name, result, self.healthy[name], wound), f"{name} after {wound}: another result"


def harmless(operation: str, result: object, healthy: object, wound: Wound) -> bool:
    """The same; only a removed point (its name is not listed any more) may be missing from a listing."""
    if operation == "list" and wound.contents[wound.name] is None and isinstance(healthy, list):
        healthy = [row for row in healthy if row[0] != wound.name]
    return result == healthy


def located(text: str, wound: Wound) -> bool:
    """Whether an error names a wounded object; for a pack also the place, which has the wounded byte in it."""
    named = [name for name in wound.contents if name in text]
    if not named or not named[0].startswith("packs/"):
        return bool(named)
    place = PLACE.search(text)
    if place is None or place[1] not in wound.contents:
        return False
    low, length = int(place[2]), int(place[3] or 0)
    return wound.at is None or not length or low <= wound.at < low + length
