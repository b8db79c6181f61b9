# SPDX-License-Identifier: Apache-2.0
"""Finds what stands on a restore point's disks: partitions, arrays, groups, volumes, and what each holds.

Layers nest (partition, md, LVM, a guest's disk inside of a volume): each found volume is looked into in its turn, arrays and groups
are put together when nothing else is left to look into. All that is found is listed; what cannot be opened has its reason. How deep
and how many is bounded here, whatever the disks say. Not here: file systems (`flr.fs`); no more is read of one than its signature.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence

import msgspec

from flr.blocks import Volume, Window
from flr.errors import NodeNotFound, NotRecognised, RecoveryError, TooMuch, Unsupported
from flr.volumes import lvm, lvm_group, md, partitions
from flr.volumes.signatures import BY_TYPE, ENCRYPTED, HEAD, NO_FILES, OPENED, Signature, signatures

MOST_LAYERS = 8
MOST_ENTRIES = 4096
MOST_WARNINGS = 20
"""Of one entry."""

ARRAY_NAME = re.compile(r"[A-Za-z0-9_.+@][A-Za-z0-9_.:+@-]*")
HINTS = {
    ENCRYPTED: "restore the whole disk; who has the key can unlock it there",
    NO_FILES: "nothing is lost: a restore of the whole disk brings it back",
}


class Entry(msgspec.Struct, kw_only=True):
    """Something found. Its `id` is the same at every restore point as long as disks keep their order, groups and arrays their
    names: `0` a disk, `0p1` its partition, `md:NAME` an array, `vg:NAME` a group, `NAME/lv` its volume, `ID/p1` a partition of
    anything else.

    `kind`: disk, partition, array, group or volume. `size` in bytes. `type`: what the partition, array or volume is said to be.
    `uuid` and `name` are its own, `content_uuid` and `label` those of what it holds. `on`: ids of what it stands on, `disks`:
    numbers of disks; `start`: a partition's first byte on what it stands on. `holds`: the word for what begins there, `words`:
    the same for a person. `part_of`: the array or group that it is a member of. `why_not` with `hint`: why it cannot be opened;
    empty when it can, or when it is there for others' sake.
    """

    id: str
    kind: str
    size: int
    type: str = ""
    name: str = ""
    uuid: str = ""
    label: str = ""
    content_uuid: str = ""
    on: list[str] = []
    disks: list[int] = []
    start: int = 0
    holds: str = ""
    words: str = ""
    part_of: str = ""
    why_not: str = ""
    hint: str = ""
    warnings: list[str] = []

    @property
    def opens(self) -> bool:
        """Whether it holds a file system that can be looked into."""
        return self.holds in OPENED and not self.why_not


class Found:
    """What was found, in order: disks with their partitions, arrays, groups with their volumes."""

    def __init__(
        self, entries: list[Entry], volumes: dict[str, Volume], reasons: dict[str, RecoveryError], warnings: list[str]
    ) -> None:
        self.entries = entries
        self.warnings = warnings
        self._by_id = {entry.id: entry for entry in entries}
        self._volumes = volumes
        self._reasons = reasons

    def entry(self, id: str) -> Entry:  # noqa: A002 - it is what everyone calls it
        """NodeNotFound when there is none."""
        found = self._by_id.get(id)
        if found is None:
            raise NodeNotFound(
                "no such volume", id[:200], "`data-mover files volumes` lists what was found on the disks"
            )
        return found

    def open(self, id: str) -> Volume:  # noqa: A002
        """Its bytes, for whoever reads what it holds. The reason why not, as an error, when it has one; NodeNotFound as `entry`."""
        self.entry(id)
        if id in self._reasons:
            raise self._reasons[id]
        return self.raw(id)

    def raw(self, id: str) -> Volume:  # noqa: A002
        """Its bytes, whatever they are: an encrypted volume's too. The reason, as an error, when they are not here."""
        self.entry(id)
        if id not in self._volumes:
            raise self._reasons.get(id) or Unsupported("this has no bytes of its own", id, "open one of its volumes")
        return self._volumes[id]


def find(disks: Sequence[Volume]) -> Found:
    """Looks into the disks. What a guest wrote never makes it fail; a disk that cannot be read is listed with that reason."""
    return _Search(disks).run()


class _Search:
    def __init__(self, disks: Sequence[Volume]) -> None:
        self._disks = disks
        self._queue: deque[tuple[Entry, Volume, int]] = deque()
        self._entries: dict[str, Entry] = {}
        self._below: dict[str, list[str]] = {"": []}
        self._volumes: dict[str, Volume] = {}
        self._reasons: dict[str, RecoveryError] = {}
        self._warnings: list[str] = []
        self._layers: dict[str, int] = {}
        self._told: dict[str, Signature] = {}  # what a partition holds by its type alone
        self._reader = lvm.Reader()
        self._members: dict[str, list[tuple[str, Volume, md.Superblock]]] = {}
        self._arrays: dict[str, str] = {}  # id by uuid, of those put together
        self._present: dict[str, tuple[str, Volume]] = {}  # physical volumes, by uuid
        self._copies: list[lvm.Copy] = []
        self._groups: dict[str, str] = {}  # id by uuid

    def run(self) -> Found:
        for number, disk in enumerate(self._disks):
            disk.prefetch([(0, HEAD), (disk.size - HEAD, HEAD)])
            self._add("", Entry(id=str(number), kind="disk", size=disk.size, disks=[number]), disk, 0)
        while self._queue or self._some_arrays() or self._some_groups():
            while self._queue:
                self._look(*self._queue.popleft())
        self._lonely()
        for entry in self._entries.values():
            if len(entry.warnings) > MOST_WARNINGS:
                entry.warnings[MOST_WARNINGS:] = [f"and {len(entry.warnings) - MOST_WARNINGS} more"]
        return Found(list(self._ordered()), self._volumes, self._reasons, self._warnings)

    def _ordered(self) -> Iterator[Entry]:
        """Each before what lies under it; arrays and groups by name, for the order of finding means nothing to anyone."""
        kinds = ("disk", "array", "group")
        top = sorted((self._entries[one] for one in self._below[""]), key=lambda one: (kinds.index(one.kind), one.name))
        self._below[""] = [one.id for one in top]
        stack = [""]
        while stack:
            above = stack.pop()
            if above:
                yield self._entries[above]
            stack += reversed(self._below.get(above, []))

    # -- the list --

    def _add(self, above: str, entry: Entry, volume: Volume | None, layer: int) -> bool:
        """Lists it under `above`, and has it looked into if it has bytes."""
        if len(self._entries) >= MOST_ENTRIES or entry.id in self._entries:
            told = f"there are more than {MOST_ENTRIES} volumes; the others are left out"
            if entry.id in self._entries:
                told = f"there are two of the name {entry.id}; the second is left out"
            if told not in self._warnings and len(self._warnings) < MOST_WARNINGS:
                self._warnings.append(told)
            return False
        self._entries[entry.id] = entry
        self._below.setdefault(above, []).append(entry.id)
        self._layers[entry.id] = layer
        if volume is not None:
            self._volumes[entry.id] = volume
            self._queue.append((entry, volume, layer))
        return True

    def _refuse(self, entry: Entry, why: RecoveryError) -> None:
        entry.why_not = f"{why.what}: {why.value}" if why.value else why.what
        entry.hint = why.hint
        self._reasons[entry.id] = why

    def _stands_on(self, members: Sequence[str]) -> tuple[list[int], int]:
        """Numbers of disks below, and the layer of what stands on these."""
        known = [member for member in members if member in self._entries]
        disks = sorted({disk for member in known for disk in self._entries[member].disks})
        return disks, 1 + max((self._layers[member] for member in known), default=0)

    # -- looking into one --

    def _look(self, entry: Entry, volume: Volume, layer: int) -> None:
        try:
            if layer > MOST_LAYERS:
                raise TooMuch("volumes lie deeper in others than is looked", f"{MOST_LAYERS} layers")
            self._recognise(entry, volume, layer)
        except RecoveryError as error:
            self._refuse(entry, error)

    def _recognise(self, entry: Entry, volume: Volume, layer: int) -> None:
        table = partitions.table(volume)
        superblock = md.superblock(volume)
        if superblock is not None and not self._of_a_partition(superblock, table):
            entry.holds, entry.words = "md", f"member of an array (md, metadata {superblock.version})"
            if superblock.version in ("1.1", "1.2") and table is not None:
                entry.warnings.append("a table of partitions also stands here; what it describes is not shown")
            self._member(entry, volume, superblock)
            return
        if entry.id in self._told:
            self._holds(entry, volume, [self._told[entry.id]])
            return
        if table is not None and not self._is_boot_code(entry, volume, table):
            self._partitions(entry, volume, table, layer)
            return
        physical = self._reader.physical_volume(entry.id, volume)
        if physical is not None:
            self._physical(entry, volume, physical)
            return
        told_by = signatures(volume)
        if told_by:
            self._holds(entry, volume, told_by)
            return
        table = partitions.only_backup(volume)
        if table is not None:
            self._partitions(entry, volume, table, layer)
            return
        head = volume.pread(0, min(HEAD, volume.size))
        value = f"its first {len(head)} bytes are zeros" if not any(head) else f"it begins with {head[:16].hex(' ')}"
        raise NotRecognised(
            "nothing known begins here",
            value,
            "it may be empty, encrypted or of an unknown kind; restore the whole disk to look",
        )

    def _of_a_partition(self, superblock: md.Superblock, table: partitions.Table | None) -> bool:
        """0.90 does not say where it stands: at the end of a disk it may be that of the disk's last partition."""
        return (
            superblock.version == "0.90"
            and table is not None
            and any(
                part.start <= superblock.at < part.start + part.size and not part.extended for part in table.partitions
            )
        )

    def _is_boot_code(self, entry: Entry, volume: Volume, table: partitions.Table) -> bool:
        """A boot loader may leave a copy of a disk's first sector in front of a file system that is no disk's."""
        return (
            table.kind == "MBR"
            and entry.kind != "disk"
            and any(told.holds in OPENED and told.size <= volume.size for told in signatures(volume))
        )

    def _holds(self, entry: Entry, volume: Volume, told_by: list[Signature]) -> None:
        told = told_by[0]
        entry.holds, entry.words, entry.label, entry.content_uuid = told.holds, told.words, told.label, told.uuid
        others = list(dict.fromkeys(other.words for other in told_by[1:] if other.words != told.words))
        if others:
            entry.warnings.append(f"signatures of something else stand here too: {', '.join(others)}")
        if told.why_not:
            raise Unsupported(told.why_not, told.words, HINTS.get(told.why_not, ""))
        if told.size > volume.size:
            entry.warnings.append(
                f"the image is cut: the file system has {told.size} bytes, its volume {volume.size}; "
                "files in the missing part cannot be read"
            )

    def _partitions(self, entry: Entry, volume: Volume, table: partitions.Table, layer: int) -> None:
        entry.holds, entry.words = (
            "partitions",
            f"{table.kind} table of partitions, sectors of {table.sector_size} bytes",
        )
        entry.uuid = entry.uuid or table.uuid
        entry.warnings += table.warnings
        if table.why is not None:
            self._refuse(entry, table.why)
        volume.prefetch([(part.start, HEAD) for part in table.partitions if part.why is None])
        for part in table.partitions:
            one = Entry(
                id=f"{entry.id}p{part.number}" if entry.kind == "disk" else f"{entry.id}/p{part.number}", kind="partition",
                size=part.size, type=part.words, name=part.name, uuid=part.uuid, on=[entry.id], disks=entry.disks,
                start=part.start,
            )  # fmt: skip
            inside: Volume | None = None
            if part.why is None and not part.extended:
                inside = Window(volume, part.start, part.size)
                inside.sector_size = table.sector_size
            if not self._add(entry.id, one, inside, layer + 1):
                continue
            if part.type in BY_TYPE:
                self._told[one.id] = BY_TYPE[part.type]
            if part.extended:
                one.holds, one.words = "extended", "extended partition, in which the logical ones lie"
            if part.why is not None:
                self._refuse(one, part.why)

    # -- arrays --

    def _member(self, entry: Entry, volume: Volume, superblock: md.Superblock) -> None:
        known = self._arrays.get(superblock.uuid)
        if known is not None:
            entry.part_of = known
            entry.warnings.append(
                "it was found inside of another volume, after its array was put together; it is not used"
            )
            return
        self._members.setdefault(superblock.uuid, []).append((entry.id, volume, superblock))

    def _some_arrays(self) -> bool:
        """Puts together the arrays of which all members are here; if there are none such, those that lack some."""
        whole = [
            uuid for uuid, found in self._members.items() if len(found) >= max(sb.members for _, _, sb in found)
        ] or list(self._members)
        for uuid in whole:
            self._array(self._members.pop(uuid)[: md.MOST_MEMBERS])
        return bool(whole)

    def _array(self, found: list[tuple[str, Volume, md.Superblock]]) -> None:
        array = md.assemble(found)
        members = [member for member, _, _ in found]
        disks, layer = self._stands_on(members)
        entry = Entry(
            id=f"md:{array.name}", kind="array", size=array.size, name=array.name, uuid=array.uuid, on=members, disks=disks,
            type=f"{array.words}, {array.present} of {array.members} members", warnings=array.warnings,
        )  # fmt: skip
        if not ARRAY_NAME.fullmatch(array.name) or entry.id in self._entries:
            entry.id = f"md:{array.uuid}"
        self._arrays[array.uuid] = entry.id
        for member in members:
            self._entries[member].part_of = entry.id
        if self._add("", entry, array.volume, layer) and array.why is not None:
            self._refuse(entry, array.why)

    # -- groups --

    def _physical(self, entry: Entry, volume: Volume, physical: lvm.PhysicalVolume) -> None:
        entry.holds, entry.words, entry.content_uuid = "lvm", "physical volume of a volume group (LVM)", physical.uuid
        entry.warnings += physical.warnings
        if physical.size > volume.size:
            entry.warnings.append(
                f"the image is cut: the physical volume has {physical.size} bytes, the image {volume.size}"
            )
        known = self._present.get(physical.uuid)
        if known is not None:
            entry.warnings.append(f"it is a copy of {known[0]}, which is used instead")
            return
        self._present[physical.uuid] = entry.id, volume
        self._copies += physical.copies

    def _some_groups(self) -> bool:
        copies, self._copies = self._copies, []
        for metadata in lvm.newest(copies):
            self._group(metadata)
        return bool(copies)

    def _group(self, metadata: lvm.Metadata) -> None:
        known = self._groups.get(metadata.uuid)
        if known is not None:
            self._entries[known].warnings.append(
                "more metadata of this group was found inside of another volume; it is not used"
            )
            return
        group = lvm_group.group(metadata, self._present)
        members = group.members or metadata.members
        disks, layer = self._stands_on(members)
        name = group.name
        if not name or f"vg:{name}" in self._entries:
            name = group.uuid if lvm_group.NAME.fullmatch(group.uuid) else f"of-{metadata.members[0]}"
        entry = Entry(
            id=f"vg:{name}", kind="group", size=group.size, type="LVM volume group", name=group.name, uuid=group.uuid, on=members,
            disks=disks, holds="volumes", words=f"{len(group.volumes)} logical volumes", warnings=group.warnings,
        )  # fmt: skip
        if not self._add("", entry, None, layer):
            return
        if metadata.uuid:
            self._groups[metadata.uuid] = entry.id
        entry.warnings += [f"a disk of this group is missing: {told}" for told in group.missing]
        if group.why is not None:
            self._refuse(entry, group.why)
        for member in members:
            self._entries[member].part_of = entry.id
        for one in group.volumes:
            disks, layer = self._stands_on(one.on)
            volume = Entry(
                id=f"{name}/{one.name}", kind="volume", size=one.size, type=one.words, name=one.name, uuid=one.uuid, on=one.on,
                disks=disks, warnings=one.warnings,
            )  # fmt: skip
            if self._add(entry.id, volume, one.volume, layer) and one.why is not None:
                self._refuse(volume, one.why)

    def _lonely(self) -> None:
        """Physical volumes that no group claimed."""
        for member, _ in self._present.values():
            entry = self._entries[member]
            if not entry.part_of:
                why = Unsupported(
                    "this physical volume is in no group that is known here", entry.content_uuid,
                    "the group's metadata may stand on a disk that this restore point lacks; else it is not in use",
                )  # fmt: skip
                self._refuse(entry, why)
