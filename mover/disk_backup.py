# SPDX-License-Identifier: Apache-2.0
"""The backup of one disk within a session: which blocks are read, what is taken from the parent or a checkpoint, and the
disk's map. What a change map or a checkpoint says is believed only as far as it is bound to the same disk, size and base or
source; the rest is read and compared.

Not here: the stages of a block (`mover.pipeline`), checkpoints and the restore point (`mover.backup`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from mover.disk.blocks import Blocks, runs
from mover.disk.changes import Changes
from mover.disk.source import DiskSource
from mover.errors import Damaged, PointGone, UnsupportedFormat
from mover.pipeline import DiskLane, Run, Statistics, cut_runs
from mover.progress import Progress
from mover.repository import record
from mover.repository.keys import Kind
from mover.repository.map_store import MapBuilder, MapReader, pages_kept
from mover.repository.maps import BLOCK_SIZE, PAGE_BLOCKS, ChunkRef, MapEntry, PageSlot, Root
from mover.repository.names import PackName
from mover.repository.session import Session

SAMPLE_SHARE, SAMPLE_LEAST = 1000, 10


class DiskMap(NamedTuple):
    """A disk whose map is stored."""

    ref: ChunkRef
    root: Root

    @property
    def state(self) -> record.DiskState:
        """As a record names it."""
        return record.DiskState(record.place_to_json(self.ref), self.root.size, self.root.covered)


@dataclass(frozen=True, slots=True)
class Work:
    """What the disks of one backup share. `between` is called often and ends the work by raising."""

    session: Session
    progress: Progress
    random: random.Random
    between: Callable[[], None]
    note: Callable[[str], None]
    statistics: Statistics


class DiskBackup:
    """The backup of disk `number` of a session: `prepare`, then its `lane` read to the end, then `finish`; `prepare_again`
    instead, for a lane that replaces what was found damaged since. `left`: bytes that are to be read. Between the two ends
    `snapshot` is what there is of its map: never less than the checkpoint that the session is resumed from.

    Of the parent's map and the checkpoint's only the roots are kept; their pages are the lane's, and end with it."""

    def __init__(self, work: Work, number: int, source: DiskSource, change_map: Changes | None) -> None:
        self._work = work
        self._session = work.session
        self._number = number
        self._source = source
        self._change_map = change_map
        self._blocks = -(-source.size // BLOCK_SIZE)
        self._parent: Root | None = None
        self._lost_pages: set[int] = set()  # of the parent's map, as far as the sample met them
        self._kept: DiskMap | None = None  # what the record names, or the last snapshot
        self.left = 0

    @property
    def name(self) -> str:
        return self._source.name

    def prepare(self) -> None:
        """What is known of the disk is read, and a change map tried: nothing is stored yet."""
        parent = self._parent_map()
        resumed = self._resumed_map()
        allocated = Blocks.of_ranges(self._blocks, self._source.extents(), BLOCK_SIZE)
        changed = self._trusted_changes(parent, allocated)
        start = resumed.root.covered if resumed else 0
        wanted = allocated if changed is None else allocated & changed
        self.left = (len(wanted) - int(wanted.mask(0, start).sum())) * BLOCK_SIZE
        if start < self._blocks and wanted.any(self._blocks - 1, self._blocks):
            self.left -= self._blocks * BLOCK_SIZE - self._source.size  # the last block may be short
        self._parent = parent.root if parent else None
        builder = self._builder = MapBuilder(self._source.size, self._parent, self._store_page)
        plan = self._plan(builder, parent, resumed, allocated, changed)
        self.lane = DiskLane(runs=plan, source=self._source, builder=builder)

    def prepare_again(self) -> None:
        """After `finish`: the lane reads every quarantined place's block anew."""
        old = MapReader(self._session.store, self._session.keys, self.finish().root)
        self._parent = self._kept = None
        self.left = 0
        self._builder = MapBuilder(self._source.size, None, self._store_page)
        plan = self._plan_repair(self._builder, old)
        self.lane = DiskLane(runs=plan, source=self._source, builder=self._builder)

    def snapshot(self) -> Root:
        """The map so far, for a checkpoint: to be `stored` when the packs that it names are flushed."""
        if self._kept is not None and self._builder.covered() <= self._kept.root.covered:
            return self._kept.root
        return self._builder.snapshot()

    def stored(self, root: Root) -> DiskMap:
        """A `snapshot`, in a pack."""
        if self._kept is None or self._kept.root is not root:
            self._kept = DiskMap(self._session.add_metadata(Kind.ROOT, root.encode()), root)
        return self._kept

    def finish(self) -> DiskMap:
        """The whole map, when the lane was read to its end."""
        root = self._builder.finish()
        kept = self._kept
        if kept is None or kept.root != root or self._session.view.quarantined(kept.ref.place):
            kept = self._kept = DiskMap(self._store_root(root), root)
        return kept

    # -- what is known beforehand

    def _parent_map(self) -> MapReader | None:
        """The map of this disk in the parent point: same identity, or else same name."""
        parent = self._session.parent
        if parent is None:
            return None
        disks = list(enumerate(parent.body.disks))
        same = [k for k, disk in disks if disk.identity == self._source.identity]
        same.sort(key=lambda k: parent.body.disks[k].name != self._source.name)  # clones share an identity
        same += [k for k, disk in disks if disk.name == self._source.name]
        if not same or same[0] >= len(parent.header.disks):
            return None
        self._parent_point = parent.body
        self._parent_body = parent.body.disks[same[0]]
        self._parent_ref = record.place_from_json(parent.header.disks[same[0]].root)
        try:
            return self._reader(self._parent_ref)
        except (Damaged, UnsupportedFormat, PointGone) as error:
            self._work.note(
                f"disk {self._source.name}: the parent's map cannot be read ({error.what}): everything is read"
            )
            return None

    def _resumed_map(self) -> MapReader | None:
        """The checkpoint's map of this disk, if the source is the same to the byte (design: identity, else read again)."""
        resumed, body = self._session.resumed, self._session.resumed_body
        if resumed is None or body is None or self._number >= len(resumed.disks) or self._number >= len(body.disks):
            return None
        state, then = resumed.disks[self._number], body.disks[self._number]
        now = self._session.body.disks[self._number]
        same_source = then.source is not None and then.source == now.source
        same_snapshot = then.source is None and now.source is None and then.snapshot is not None
        same_snapshot = same_snapshot and then.snapshot == now.snapshot
        if then.identity != now.identity or state.size != now.size or not (same_source or same_snapshot):
            self._work.note(
                f"disk {self._source.name}: not known to be the same as at the checkpoint: it is read again"
            )
            return None
        try:
            ref = record.place_from_json(state.root)
            found = self._reader(ref)
            page, inside = divmod(found.root.covered, PAGE_BLOCKS)
            if inside:
                found.page(page)  # the one page of it that will be read
        except (Damaged, UnsupportedFormat, PointGone) as error:
            self._work.note(f"disk {self._source.name}: its checkpoint cannot be read ({error.what}): it is read again")
            return None
        self._kept = DiskMap(ref, found.root)
        return found

    def _reader(self, ref: ChunkRef) -> MapReader:
        session = self._session
        return MapReader.open(session.store, session.keys, ref, pages_kept(len(session.body.disks)))

    def _trusted_changes(self, parent: MapReader | None, allocated: Blocks) -> Blocks | None:
        """The blocks that a change map calls changed, or None: read everything and compare."""
        change_map = self._change_map
        if change_map is None or change_map.base is None:
            return None
        why = None
        if parent is None:
            why = "there is no parent point of this disk"
        elif change_map.size != self._source.size or parent.root.size != self._source.size:
            why = f"the disk was resized from {parent.root.size} to {self._source.size} bytes"
        elif self._parent_body.identity != change_map.disk:
            why = f"the parent point is of disk {self._parent_body.identity!r}"
        elif not all(_is_one(point, change_map.disk) for point in (self._parent_point, self._session.body)):
            why = f"more than one disk is called {change_map.disk!r}"
        elif self._parent_body.snapshot != change_map.base:
            why = f"its base is {change_map.base!r}, the parent point's is {self._parent_body.snapshot!r}"
        if why is None and parent is not None:
            changed = change_map.blocks()
            wrong = self._sample(parent, allocated, changed)
            if wrong is None:
                return changed
            why = f"block {wrong} changed and the map says that it did not"
        self._work.note(
            f"disk {self._source.name}: the change map is not used ({why}): everything is read and compared"
        )
        return None

    def _sample(self, parent: MapReader, allocated: Blocks, changed: Blocks) -> int | None:
        """A block of a random sample of the "unchanged" ones that is not as in the parent; None when all are."""
        pages = (page for page, slot in enumerate(parent.root.pages) if slot is not None)
        stored = Blocks.of_ranges(self._blocks, ((page * PAGE_BLOCKS, PAGE_BLOCKS) for page in pages), 1)
        candidates = (stored | allocated) - changed
        count = min(len(candidates), max(SAMPLE_LEAST, len(candidates) // SAMPLE_SHARE))
        chosen = list(candidates.nth(sorted(self._work.random.sample(range(len(candidates)), count))))
        self._work.progress.stage(f"sample {self._source.name}", count * BLOCK_SIZE)
        for done, block in enumerate(chosen, 1):
            self._work.between()
            if block // PAGE_BLOCKS in self._lost_pages:
                continue
            try:
                entry = parent.entry(block)
            except (Damaged, UnsupportedFormat, PointGone):
                self._lost_pages.add(block // PAGE_BLOCKS)  # all of it will be read
                continue
            buffer = bytearray(min(BLOCK_SIZE, self._source.size - block * BLOCK_SIZE))
            self._source.read_into(block * BLOCK_SIZE, [buffer])
            self._work.statistics.read += len(buffer)
            if entry is None:
                self._work.statistics.zero += len(buffer)
                same = not buffer.strip(b"\0")
            else:
                self._work.statistics.hashed += len(buffer)
                self._work.statistics.unchanged += len(buffer)
                same = self._session.keys.chunk_id(Kind.DATA, buffer) == entry.chunk_id
            if not same:
                return block
            self._work.progress.update(done * BLOCK_SIZE)
        return None

    # -- the plan: pages in order, and what of them is read

    def _plan(
        self,
        builder: MapBuilder,
        parent: MapReader | None,
        resumed: MapReader | None,
        allocated: Blocks,
        changed: Blocks | None,
    ) -> Iterator[Run | None]:
        covered = resumed.root.covered if resumed else 0
        for page in range(len(builder.root.pages)):
            yield None  # to fetch the parent's page takes its time, and there may be nothing to read in many
            low = page * PAGE_BLOCKS
            high = low + builder.root.page_blocks(page)
            if resumed and high <= covered:
                builder.take_over(page, resumed.root.pages[page])
                continue
            slot = parent.root.pages[page] if parent and page < len(parent.root.pages) else None
            dirty = page in self._lost_pages or _slot_uses(slot, self._session.view.quarantine)
            base = None
            touched = changed is None or changed.any(low, high)
            if changed is not None and parent is not None and not touched and not dirty and low >= covered:
                builder.take_over(page, slot)
                self._work.statistics.skipped += self._bytes(low, high)
                continue
            if slot is not None and parent is not None:
                base = self._base_page(parent, page)
            believed = changed if slot is None or base is not None else None  # a page that is lost is read whole
            entries: list[MapEntry | None] = [None] * (high - low)
            read = allocated.mask(low, high)
            if believed is not None:
                if base is not None:
                    entries = list(base)
                claimed = believed.mask(low, high)
                for start, end in runs(claimed & ~read, 0):
                    entries[start:end] = [None] * (end - start)
                read &= claimed
                if dirty:
                    read[self._quarantined(entries)] = True
            left_out = self._bytes(low, high) - sum(self._bytes(*part) for part in runs(read, low))
            if believed is not None:
                self._work.statistics.skipped += left_out
            else:
                self._work.statistics.unallocated += left_out
            if resumed and low < covered:
                known = resumed.page(page)
                entries[: covered - low] = known.entries[: covered - low] if known else [None] * (covered - low)
                read[: covered - low] = False
            builder.open_page(page, entries, base, read.nonzero()[0].tolist())
            for start, end in runs(read, low):
                yield from cut_runs(start, end)

    def _plan_repair(self, builder: MapBuilder, old: MapReader) -> Iterator[Run | None]:
        quarantine = self._session.view.quarantine
        for page, slot in enumerate(old.root.pages):
            yield None
            if slot is None or not _slot_uses(slot, quarantine):
                builder.take_over(page, slot)
                continue
            known = None if self._session.view.quarantined(slot.ref.place) else old.page(page)
            blocks = old.root.page_blocks(page)
            entries: list[MapEntry | None] = list(known.entries) if known else [None] * blocks
            again = self._quarantined(entries) if known else list(range(blocks))
            if not again:
                builder.take_over(page, slot)
                continue
            low = page * PAGE_BLOCKS
            builder.open_page(page, entries, None, again)
            for k in again:
                yield Run(low + k, 1)

    def _base_page(self, parent: MapReader, page: int) -> list[MapEntry | None] | None:
        slot = parent.root.pages[page]
        if slot is None or self._session.view.quarantined(slot.ref.place):
            return None
        try:
            found = parent.page(page)
            return found.entries if found else None
        except (Damaged, UnsupportedFormat, PointGone) as error:
            note = f"a page of the parent's map cannot be read ({error.what}): its blocks are read"
            self._work.note(f"disk {self._source.name}: {note}")
            return None

    def _quarantined(self, entries: list[MapEntry | None]) -> list[int]:
        view = self._session.view
        return [k for k, entry in enumerate(entries) if entry is not None and view.quarantined(entry.place)]

    def _bytes(self, start: int, end: int) -> int:
        return min(end * BLOCK_SIZE, self._source.size) - start * BLOCK_SIZE

    # -- storing

    def _store_page(self, raw: bytes) -> ChunkRef:
        return self._session.add_metadata(Kind.PAGE, raw)

    def _store_root(self, root: Root) -> ChunkRef:
        parent = self._parent
        if parent is not None and root.size == parent.size and root.pages == parent.pages:
            return self._parent_ref
        return self._session.add_metadata(Kind.ROOT, root.encode())


def _slot_uses(slot: PageSlot | None, quarantine: frozenset[tuple[PackName, int]]) -> bool:
    """Whether a page, or a pack that it names, has a quarantined place."""
    if slot is None or not quarantine:
        return False
    packs = {pack for pack, _ in quarantine}
    return slot.ref.place.pack in packs or not packs.isdisjoint(slot.live)


def uses(root: Root, quarantine: frozenset[tuple[PackName, int]]) -> bool:
    """Whether a map names a pack with a quarantined place, in a page or as the pack of one."""
    return any(_slot_uses(slot, quarantine) for slot in root.pages)


def _is_one(point: record.Body, identity: str) -> bool:
    """Whether a single disk of the point has the identity: cloned images have the original's, and a map may mean either."""
    return sum(disk.identity == identity for disk in point.disks) == 1
