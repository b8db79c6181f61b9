# SPDX-License-Identifier: Apache-2.0
"""A world for the real code: one store on a simulated clock, workers that take turns at every request, and the invariant.

Writers are `mover.backup.Backup`, readers `mover.restore.Restore`, collectors `tests.world.collector`; their keepers are the
real ones, actors of their own. After every step `check` looks at the raw store:

- every committed, unexpired point reads back byte for byte, and its summary names every pack that it needs;
- nothing is committed but by the process that held the session last, and then only the whole of what it was given;
- no session record is written by a process after another has taken it over;
- whoever ended, ended well or by an error that says the truth.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any

from mover.backup import Backup, BackupRequest, BackupResult, BackupSettings
from mover.disk.changes import ChangeMap
from mover.disk_restore import Task
from mover.errors import (
    MoverError,
    OwnershipChanged,
    PointGone,
    PointNotFound,
    SessionBusy,
    SessionEnded,
    SessionLost,
    StoreUnavailable,
)
from mover.lanes import Lane
from mover.progress import Progress
from mover.repository import packlist, record
from mover.repository.collector_state import CollectorState, read_state
from mover.repository.descriptor import Descriptor
from mover.repository.frame import HEADER_SIZE, FrameReader
from mover.repository.keys import KeyRing, Kind
from mover.repository.map_store import MapReader, live_of
from mover.repository.names import COLLECTOR_STATE, DESCRIPTOR, PackName, random_id
from mover.repository.reader import read_chunk
from mover.repository.repository import Repository
from mover.restore import Restore, RestoreSettings
from mover.store.base import Store
from mover.store.memory import MemoryStore
from mover.store.retry import RetryStore
from tests.world.baton import Actor, Baton, Pause, Process
from tests.world.collector import Alarm, Collector, CollectorLost, Plan
from tests.world.miniature import BLOCK, PlannedPacing, miniature
from tests.world.wire import Fate, Late, Wire

Content = tuple[int, ...]
"""A disk: for each block a number, 0 for zeros; equal numbers are equal blocks, on all disks."""


class Violation(AssertionError):
    """The world saw what must never happen."""


class WorldTime:
    """The store's clock; nothing else moves it."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now


class WorkerClock:
    """A worker's own clock: `rate` 0 stands still, `offset` is how wrong its wall clock is. Waiting is a pause and no more."""

    def __init__(self, baton: Baton, time: WorldTime, rate: float = 1.0, offset: float = 0.0) -> None:
        self._baton = baton
        self._time = time
        self._rate = rate
        self._offset = offset

    def monotonic(self) -> float:
        return self._time.now * self._rate

    def wall(self) -> float:
        return self._time.now + self._offset

    def wait(self, event: Any, seconds: float) -> bool:
        if not event.is_set():
            self._baton.pause(Pause("wait"))
        return event.is_set()


def block(number: int) -> bytes:
    return random.Random(number).randbytes(BLOCK) if number else bytes(BLOCK)


def bytes_of(content: Content) -> bytes:
    return b"".join(map(block, content))


class WorldDisk:
    """A disk to back up. `version` is the snapshot that it is."""

    def __init__(self, resource: str, content: Content, version: int) -> None:
        self.name = "disk"
        self.identity = resource
        self.size = len(content) * BLOCK
        self.sector_size = 512
        self.snapshot: str | None = f"{resource}@{version}"
        self.source: str | None = None
        self.in_flight = 0
        self._content = content

    def extents(self) -> Iterator[tuple[int, int]]:
        for k, number in enumerate(self._content):
            if number:
                yield k * BLOCK, BLOCK

    def read_ahead(self, offset: int, length: int) -> None:
        pass

    def read_into(self, offset: int, buffers: Sequence[bytearray | memoryview]) -> None:
        for k, buffer in enumerate(buffers, offset // BLOCK):
            buffer[:] = block(self._content[k])

    def check_unchanged(self) -> None:
        pass

    def close(self) -> None:
        pass


class WorldTarget:
    """A disk to restore to."""

    compare = unguarded = remote = False
    at_once, most = 1, BLOCK
    path = "memory"

    def __init__(self, size: int) -> None:
        self.data = bytearray(size)

    def write(self, offset: int, data: bytes) -> None:
        self.data[offset : offset + len(data)] = data

    def finish(self, wall: float) -> None:
        pass


class WorldProgress(Progress):
    """Notes the stage in the process, so that a scenario can stop there."""

    def __init__(self, clock: WorkerClock, process: Process) -> None:
        super().__init__(clock)
        self._process = process

    def stage(self, name: str, total: int) -> None:
        self._process.stage = name
        super().stage(name, total)


class InlineRestore(Restore):
    """`Restore` without its pool."""

    def _carry_out(self, lanes: list[Lane[Task]], at_once: int) -> None:
        for lane in lanes:
            for task in filter(None, lane.runs):
                task()
                self.check(self._work.handled)


assert hasattr(Restore, "_carry_out"), "what it overrides has another name: a restore would be on threads of its own"


@dataclass
class Committed:
    """A point that the store says is committed: when it appeared, whose it is."""

    etag: str
    content: Content
    process: Process
    expired: bool = False
    verified: int = -1


@dataclass
class _Reading:
    """What a reader was told to read, and what may excuse it."""

    point: str
    target: list[WorldTarget] = field(default_factory=list)


class World:
    """A context manager: patches are undone and threads ended at its end. `trace` is what happened, in order."""

    def __init__(
        self, seed: int = 0, *, remote_index: bool = False, watch_fences: bool = True, fine: bool = False
    ) -> None:
        self.baton = Baton(fine=fine)
        self.time = WorldTime()
        self.raw = MemoryStore(self.time)
        self.late: list[Late] = []
        self.trace: list[str] = []
        self.steps = 0
        self.ended: Counter[str] = Counter()
        self.versions: dict[str, list[Content]] = {}
        self.points: dict[str, Committed] = {}
        self.ever_condemned: set[str] = set()
        self.owner_epoch = 1
        self._watch_fences = watch_fences  # else only what is lost counts, not how
        self._holder: dict[str, Process] = {}
        self._states: dict[str, str] = {}
        self._violation: Violation | None = None
        self._dirty = False
        self._losses = 0  # what might make a readable point unreadable
        self._judged: set[Actor] = set()
        self._stack = ExitStack()
        self._seed = seed
        self._remote_index = remote_index
        self._numbers: Counter[str] = Counter()

    def __enter__(self) -> World:
        self._stack.enter_context(miniature(self.baton, self._seed, remote_index=self._remote_index))
        PlannedPacing.wanted = self._checkpoint_wanted
        self.keys = KeyRing(b"k" * 32, {}, 0)
        self.descriptor = Descriptor(
            id=random_id(),
            created=self.time.now,
            method="none",
            key_epoch=0,
            owner_id="world",
            owner_name="world",
            owner_epoch=1,
            write_id=random_id(),
            clear_key=self.keys.clear()["id_key"],
        )
        state = CollectorState(generation=1, write_id=random_id(), time=self.time.now, owner_epoch=1)
        self.raw.create_record(COLLECTOR_STATE, state.encode(), {})
        self.raw.create_record(DESCRIPTOR, self.descriptor.encode(), {})
        self._state = state
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.baton.close()
        self._stack.close()

    # -- actors

    def process(self, name: str) -> Process:
        self._numbers[name] += 1
        return Process(f"{name}{self._numbers[name]}")

    def store_of(self, process: Process, clock: WorkerClock) -> Store:
        return RetryStore(Wire(self, process, self.raw), clock, patience=60.0, chosen=random.Random(0))

    def repository_of(self, process: Process, clock: WorkerClock) -> Repository:
        return Repository(self.store_of(process, clock), self.descriptor, self.keys, clock)

    def clock(self, rate: float = 1.0, offset: float = 0.0) -> WorkerClock:
        return WorkerClock(self.baton, self.time, rate, offset)

    def change(self, resource: str, content: Sequence[int]) -> int:
        """The resource's disk is `content` from now on; returns the version's number."""
        versions = self.versions.setdefault(resource, [])
        versions.append(tuple(content))
        return len(versions) - 1

    def writer(
        self,
        resource: str,
        job: str,
        *,
        version: int = -1,
        checkpoints: Sequence[int] = (),
        clock: WorkerClock | None = None,
        poll_seconds: float = 0.0,
        change_map: bool = True,
    ) -> Actor:
        """A worker that backs the resource up, `checkpoints` after so many blocks. The same job again: the same point."""
        clock = clock or self.clock()
        versions = self.versions[resource]
        version %= len(versions)
        disk = WorldDisk(resource, versions[version], version)
        changes = {}
        if change_map and version and len(versions[version]) == len(versions[version - 1]):
            ranges = tuple(
                (k * BLOCK, BLOCK)
                for k, (a, b) in enumerate(zip(versions[version], versions[version - 1], strict=True))
                if a != b
            )
            base = f"{resource}@{version - 1}"
            changes[resource] = ChangeMap(resource, disk.size, disk.snapshot or "", base, ranges)
        process = self.process("W")
        process.content = versions[version]
        process.checkpoints = set(checkpoints)  # type: ignore[attr-defined]
        process.asked = 0  # type: ignore[attr-defined]
        repository = self.repository_of(process, clock)
        settings = BackupSettings(memory=384 << 20, uploads=0, workers=1, poll_seconds=poll_seconds)
        request = BackupRequest(resource, job, [disk], changes)

        def work() -> BackupResult:
            return Backup(repository, request, settings, WorldProgress(clock, process), seed=self._seed).run()

        process.point = f"points/{self.keys.resource_id(resource)}/{self.keys.point_id(job)}"
        return self.baton.spawn(process, process.name, work)

    def _checkpoint_wanted(self) -> bool:
        actor = self.baton.current
        assert actor is not None
        process: Any = actor.process
        process.asked += 1
        return process.asked in process.checkpoints

    def reader(self, point: str, clock: WorkerClock | None = None) -> Actor:
        """A worker that restores the point, holding it."""
        clock = clock or self.clock()
        process = self.process("R")
        process.content = _Reading(point)
        repository = self.repository_of(process, clock)

        def work() -> bytearray:
            restore = InlineRestore(
                repository, repository.read_point(point), RestoreSettings(), WorldProgress(clock, process)
            )
            target = WorldTarget(restore.disk(0).size)
            restore.run({0: target})  # type: ignore[dict-item]
            return target.data

        return self.baton.spawn(process, process.name, work)

    def collector(self, plan: Plan, clock: WorkerClock | None = None) -> Actor:
        clock = clock or self.clock()
        process = self.process("C")
        process.trusts_listings = True
        store = self.store_of(process, clock)
        return self.baton.spawn(process, process.name, Collector(store, self.keys, clock, plan).run)

    # -- time and turns

    def advance(self, seconds: float) -> None:
        self.note(f"{seconds:g} seconds pass")
        self.time.now += seconds

    def step(self, actor: Actor, fate: Fate = Fate.OK) -> None:
        """One request (or wait) of the actor, then the invariant."""
        self.steps += 1
        self.baton.step(actor, fate)
        self.check()

    def run(self, actor: Actor, until: Callable[[Actor], bool] = lambda actor: False, limit: int = 5000) -> Actor:
        """Step the actor until it ends or stands where `until` wants it."""
        for _ in range(limit):
            if actor.done or until(actor):
                return actor
            self.step(actor)
        raise AssertionError(f"{actor} does not end: {actor.at}\n{self.story()}")

    def tick(self, actor: Actor, until: Callable[[Actor], bool] = lambda actor: False) -> Actor:
        """One round of the actor's keeper, or as far as `until`."""
        keeper = next(a for a in actor.process.actors if a.name == f"{actor.name}/keeper")
        if keeper.at.what == "start":
            self.step(keeper)
        while not keeper.done:
            self.step(keeper)
            if keeper.at.what == "wait" or until(keeper):
                break
        return keeper

    def decree(self, **changes: Any) -> None:
        """What a collector would write into gc/state, by the test's own hand."""
        found = self.raw.read_record(COLLECTOR_STATE)
        state = replace(read_state(self.raw), write_id=random_id(), **changes)
        self.raw.replace_record(COLLECTOR_STATE, state.encode(), {}, etag=found.etag, lease=None)
        self._see_verdict()

    def state(self) -> CollectorState:
        return read_state(self.raw)

    def corrupt(self, pack: PackName, offset: int) -> None:
        """A bit of the frame there rots. The points that exist now are not held to it any more."""
        item = self.raw._items[pack.object]
        at = offset + HEADER_SIZE
        item.data = item.data[:at] + bytes([item.data[at] ^ 1]) + item.data[at + 1 :]
        for point in self.points.values():
            point.expired = True

    def verify_again(self) -> None:
        """Read every point now, whatever has been read before."""
        self._losses += 1
        self._dirty = True
        self.check()

    def crash(self, actor: Actor) -> None:
        self.note(f"{actor.process} crashes")
        self.baton.crash(actor.process)

    def deliver(self, late: Late) -> None:
        """A late request arrives."""
        self.note(f"arrives: {late}")
        self.late.remove(late)
        late.carry_out()
        self.check()

    def living(self) -> list[Actor]:
        return [actor for actor in self.baton.actors if not actor.done and not actor.process.crashed]

    def note(self, text: str) -> None:
        self.trace.append(text)

    def story(self) -> str:
        """The trace, with a short name for each id."""
        short: dict[str, str] = {}
        return re.sub("[0-9a-f]{32}", lambda found: short.setdefault(found[0], f"#{len(short)}"), "\n".join(self.trace))

    # -- what was carried out (called by wires)

    def done(self, process: Process, operation: str, name: str) -> None:
        if operation == "acquire_lease":
            self._holder[name] = process
            if name.startswith("holds/") and isinstance(process.content, _Reading):
                process.hold = name
        elif operation == "replace_record":
            if self._states.get(name, record.OPEN) != record.OPEN:
                self._violation = self._violation or Violation(
                    f"{process} wrote {name}, which was {self._states[name]}"
                )
            if name.startswith(("points/", "holds/")) and self._holder.get(name) is not process:
                self._violation = self._violation or Violation(
                    f"{process} wrote {name}, which {self._holder.get(name)} had taken over"
                )
            self._dirty = True
            if name == process.hold and not process.held:
                point = self.points.get(process.content.point)
                gone = process.content.point in self._state.gone_points
                process.held = point is not None and (gone or not point.expired)
            if name == COLLECTOR_STATE:
                self._see_verdict()
            elif name.startswith(("points/", "holds/")):
                self._see_point(process, name)
        elif operation == "delete":
            self._dirty = True
            self._losses += 1
            self._states.pop(name, None)
        elif operation in ("put", "create_record"):
            self._dirty = True

    def _see_verdict(self) -> None:
        before, now = self._state, read_state(self.raw)
        self._state = now
        self.ever_condemned |= now.condemned_points
        for name in now.gone_points - before.gone_points:
            if name in self.points:
                self.points[name].expired = True
        self._losses += now.forwards != before.forwards

    def _see_point(self, process: Process, name: str) -> None:
        found = self.raw.read_record(name)
        self._states[name] = found.metadata["state"]
        if self._states[name] == record.COMMITTED:
            self.points[name] = Committed(found.etag, process.content, process)

    # -- the invariant

    def check(self) -> None:
        if self._violation is not None and self._watch_fences:
            raise self._violation
        for actor in self.baton.actors:
            if actor.done and actor not in self._judged:
                self._judged.add(actor)
                self._judge(actor)
        if self._dirty:
            self._dirty = False
            self._check_points()

    def _check_points(self) -> None:
        listed = {
            entry.name: entry for entry in self.raw.list("points/") if entry.metadata["state"] == record.COMMITTED
        }
        for name in listed:
            if name not in self.points:
                raise Violation(f"{name} is committed, and nobody did it")
        for name, point in self.points.items():
            if point.expired:
                continue
            if name not in listed:
                raise Violation(f"{name} has vanished, and no verdict says that it is gone")
            if point.verified == self._losses:
                continue
            if self.raw.read_record(name).etag != point.etag:
                raise Violation(f"{name} was written after it was committed")
            try:
                self._read_back(name, point.content)
            except MoverError as error:
                raise Violation(f"{name} of {point.process} does not read back: {error!r}") from error
            point.verified = self._losses

    def _read_back(self, name: str, content: Content) -> None:
        repository = Repository(self.raw, self.descriptor, self.keys, self.time)  # type: ignore[arg-type]
        point = repository.read_point(name)
        if len(point.header.disks) != 1 or point.header.summary is None:
            raise Violation(f"{name} is half a point")
        reader = FrameReader(self.keys)
        ref = record.place_from_json(point.header.disks[0].root)
        maps = MapReader.open(self.raw, self.keys, ref)
        if maps.root.covered != maps.root.blocks or maps.root.size != len(content) * BLOCK:
            raise Violation(f"{name} is half a disk")
        for number, wanted in enumerate(content):
            entry = maps.entry(number)
            got = read_chunk(self.raw, reader, entry, Kind.DATA) if entry else bytes(BLOCK)
            if got != block(wanted):
                raise Violation(f"{name}: block {number} is not what was backed up")
        summary = record.place_from_json(point.header.summary)
        named: set[PackName] = set()
        for part, _, _ in packlist.decode_summary(read_chunk(self.raw, reader, summary, Kind.SUMMARY)):
            named.update(pack for pack, _ in packlist.decode_list(read_chunk(self.raw, reader, part, Kind.PACKS)))
        needed = set(live_of([(ref, maps.root)])) | {summary.place.pack}
        if not needed <= named:
            raise Violation(f"{name}: its summary lacks {needed - named}")

    def _judge(self, actor: Actor) -> None:
        """Whether an actor ended as it may."""
        error, goal = actor.error, actor.process.content
        self.ended[f"{actor.process.name[0]} {type(error).__name__ if error else 'well'}"] += 1
        if error is not None and not isinstance(error, MoverError | Alarm):
            raise error  # a mistake in code or test, not a loss
        if actor.process.crashed or "/" in actor.name:
            return
        if isinstance(goal, _Reading):
            self._judge_reader(actor, goal)
        elif goal is None:
            if error is not None and not isinstance(error, CollectorLost | StoreUnavailable):
                raise Violation(f"{actor} ended by {error!r}") from error
        elif error is None:
            if actor.process.point not in self.points:
                raise Violation(f"{actor} says that it is done, and there is no point")
        elif isinstance(error, OwnershipChanged) and self.owner_epoch > 1:
            pass
        elif not isinstance(error, SessionBusy | SessionLost | SessionEnded | StoreUnavailable):
            raise Violation(f"{actor} ended by {error!r}") from error
        elif isinstance(error, SessionLost) and self._is_committed_by(actor.process):
            raise Violation(f"{actor} says {error!r}, and its point is committed") from error

    def _is_committed_by(self, process: Process) -> bool:
        point = self.points.get(process.point)
        return point is not None and point.process is process and not point.expired

    def _judge_reader(self, actor: Actor, goal: _Reading) -> None:
        point, error, process = self.points.get(goal.point), actor.error, actor.process
        taken = process.hold != "" and self._holder[process.hold] is not process
        if error is None:
            assert point is not None
            if actor.result != bytes_of(point.content):
                raise Violation(f"{actor} restored other bytes than were backed up")
        elif process.stage == "restore":
            # a hold on a point that was gone, deleted and forgotten before it is no use, and the reader says so
            if process.held and not taken and not isinstance(error, StoreUnavailable):
                raise Violation(f"{actor} held the point and could not read it: {error!r}") from error
        elif isinstance(error, PointGone | PointNotFound):
            if goal.point not in self.ever_condemned:
                raise Violation(f"{actor} says {error!r}, and nobody condemned the point") from error
        elif not isinstance(error, SessionBusy | SessionLost | StoreUnavailable):
            raise Violation(f"{actor} ended by {error!r}") from error
