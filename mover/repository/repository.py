# SPDX-License-Identifier: Apache-2.0
"""A repository as its users open it: create, open, list points, begin a backup, hold a point to read it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mover.clock import SYSTEM, Clock
from mover.errors import (
    ObjectExists,
    ObjectNotFound,
    PointNotFound,
    RepositoryExists,
    RepositoryNotFound,
    UsageError,
)
from mover.repository import record
from mover.repository.collector_state import CollectorState
from mover.repository.descriptor import TIERS, Descriptor
from mover.repository.frame import FrameReader
from mover.repository.hold import Hold, Unheld, open_hold
from mover.repository.keys import KeyRing, Kind
from mover.repository.names import COLLECTOR_STATE, DESCRIPTOR, random_id
from mover.repository.reader import read_chunk
from mover.store.base import Entry, Store

if TYPE_CHECKING:
    from mover.repository.opening import Finished
    from mover.repository.session import Session, SessionSettings


@dataclass(frozen=True, slots=True)
class Point:
    """A restore point that is committed."""

    name: str
    header: record.Header
    body: record.Body

    @property
    def id(self) -> str:
        """What people give to `--point`: the last part of the record's name."""
        return self.name.rsplit("/", 1)[-1]


class Repository:
    """An open repository: a store and the keys to it. Thread-safe; it holds no connection of its own."""

    def __init__(self, store: Store, descriptor: Descriptor, keys: KeyRing, clock: Clock = SYSTEM) -> None:
        self.store = store
        self.descriptor = descriptor
        self.keys = keys
        self.clock = clock

    @classmethod
    def create(
        cls,
        store: Store,
        *,
        password: str | None = None,
        hint: str = "",
        tier: str = "hot",
        owner: str = "local",
        clock: Clock = SYSTEM,
    ) -> Repository:
        """Make a repository in an empty place; encrypted when a password is given. RepositoryExists when one is there."""
        if tier not in TIERS:
            raise UsageError("not a tier", tier, f"one of {', '.join(TIERS)}")
        keys = KeyRing.generate(encrypted=password is not None)
        identity = random_id()
        descriptor = Descriptor(
            id=identity,
            created=clock.wall(),
            method="none" if password is None else "password",
            key_epoch=keys.epoch,
            owner_id=owner,
            owner_name=owner,
            owner_epoch=1,
            write_id=random_id(),
            tier=tier,
            hint=hint,
            slots=[] if password is None else [keys.wrap(password, identity)],
            clear_key="" if password is not None else keys.clear()["id_key"],
        )
        state = CollectorState(generation=1, write_id=random_id(), time=descriptor.created, owner_epoch=1)
        # The collector's state first: a repository that has a descriptor has one. A lone state of a creation that
        # stopped between the two is taken over, since nothing can refer to it.
        try:
            store.read_record(DESCRIPTOR)
            raise RepositoryExists("there is a repository already", DESCRIPTOR)
        except ObjectNotFound:
            pass
        try:
            store.create_record(COLLECTOR_STATE, state.encode(), {})
        except ObjectExists:
            if next(iter(store.list("points/")), None) is not None:
                hint = "its repository.json is missing: put its copy back"
                raise RepositoryExists("there is a repository without its descriptor", "points/", hint) from None
        try:
            store.create_record(DESCRIPTOR, descriptor.encode(), {})
        except ObjectExists:
            if Descriptor.decode(store.read_record(DESCRIPTOR).data).write_id != descriptor.write_id:
                raise RepositoryExists("there is a repository already", DESCRIPTOR) from None
        return cls(store, descriptor, keys, clock)

    @classmethod
    def open(cls, store: Store, *, password: str | None = None, clock: Clock = SYSTEM) -> Repository:
        """RepositoryNotFound, WrongPassword (also when one is needed and none given), Damaged, UnsupportedFormat."""
        try:
            data = store.read_record(DESCRIPTOR).data
        except ObjectNotFound:
            raise RepositoryNotFound("there is no repository", DESCRIPTOR) from None
        descriptor = Descriptor.decode(data)
        if descriptor.encrypted and not password:
            hint = f"give its password by --password-file or DATA_MOVER_PASSWORD_FILE; its hint is {descriptor.hint!r}"
            raise UsageError("the repository is encrypted and no password was given", descriptor.id, hint)
        return cls(store, descriptor, descriptor.unlock(password), clock)

    # -- points

    def point_entries(self, resource_name: str | None = None) -> Iterator[Entry]:
        """Lines of the listing (with metadata) of the points of a resource, or of all: open and aborted ones too."""
        prefix = "points/"
        if resource_name is not None:
            prefix += self.keys.resource_id(resource_name) + "/"
        return self.store.list(prefix)

    def points(self, resource_name: str | None = None) -> Iterator[Point]:
        """Committed points, oldest first within a resource. A damaged record raises Damaged with its name."""
        found = []
        for entry in list(self.point_entries(resource_name)):
            if record.may_be_committed(entry.metadata):
                try:
                    found.append(self.read_point(entry.name))
                except PointNotFound:
                    pass  # deleted since, or open: the record decides, the listing only saves reading it
        yield from sorted(found, key=lambda point: (point.body.resource_name, point.header.sequence, point.name))

    def read_point(self, name: str) -> Point:
        try:
            data = self.store.read_record(name).data
        except ObjectNotFound:
            raise PointNotFound("no such restore point", name) from None
        header, body = record.decode(data, name, self.keys)
        if header.state != record.COMMITTED:
            raise PointNotFound("that restore point is not complete", f"{name} is {header.state}")
        return Point(name, header, body)

    def find_point(self, identifier: str) -> Point:
        """The point whose id begins with `identifier` (at least 4 characters), or that a whole record name names."""
        if identifier.startswith("points/"):
            return self.read_point(identifier)
        if len(identifier) < 4:
            raise UsageError("too short to name a restore point", identifier, "give at least 4 characters of its id")
        names = [
            entry.name
            for entry in self.store.list("points/")
            if entry.name.rsplit("/", 1)[-1].startswith(identifier) and record.may_be_committed(entry.metadata)
        ]
        if not names:
            raise PointNotFound("no such restore point", identifier)
        if len(names) > 1:
            raise UsageError("more than one restore point begins so", identifier, "give more of its id")
        return self.read_point(names[0])

    def read_document(self, point: Point, name: str) -> bytes:
        """A document of the point ("configuration"); PointNotFound when it has none of that name."""
        if name not in point.header.documents:
            raise PointNotFound("the restore point has no such document", f"{point.id}: {name}")
        ref = record.place_from_json(point.header.documents[name])
        return read_chunk(self.store, FrameReader(self.keys), ref, Kind.DOCUMENT)

    # -- sessions

    def begin(
        self,
        *,
        resource_name: str,
        job: str,
        body: record.Body,
        flags: str = "",
        settings: SessionSettings | None = None,
    ) -> Session | Finished:
        """See `open_session`."""
        from mover.repository.opening import (
            open_session,
        )  # with its index and numpy: who only lists points needs neither

        if not resource_name or not job:
            raise UsageError("a backup needs a resource and a job id", f"{resource_name!r}, {job!r}")
        return open_session(
            self.store,
            self.keys,
            self.clock,
            self.descriptor,
            resource=self.keys.resource_id(resource_name),
            job=job,
            body=body,
            flags=flags,
            settings=settings,
        )

    def hold(self, point: Point) -> Hold | Unheld:
        """See `open_hold`."""
        return open_hold(self.store, self.keys, self.clock, point.name, self.descriptor.owner_epoch)
