# SPDX-License-Identifier: Apache-2.0
"""Linux md arrays: raid1, raid0 and linear of metadata 1.0, 1.1 and 1.2, and raid1 of 0.90; other levels by name.

A mirror is read from the copy that the newest superblock counts as whole; spares, failed ones and those that are being filled
are not, and what a copy lists as badly written is read from another. Nothing is written, so nothing is assembled in the kernel's
sense: an event count is compared and left alone.

Sources: the Linux RAID wiki's pages on superblock formats, md(4) and mdadm(8); how zones of raid0 are laid out was measured on
arrays that a kernel had made with each `--layout`.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Sequence

import msgspec

from flr.blocks import Volume, Window
from flr.errors import Corrupt, Missing, RecoveryError, Unsupported
from flr.printable import printable
from flr.volumes.combined import Concatenated, Striped

MAGIC = 0xA92B4EFC
SECTOR = 512
MOST_MEMBERS = 384
"""What metadata 1.x has room for."""
MOST_BAD = 64 << 10
"""Bytes of a list of badly written parts; 4 KiB as a rule."""

LEVELS = {-4: "multipath", -1: "linear", 0: "raid0", 1: "raid1", 4: "raid4", 5: "raid5", 6: "raid6", 10: "raid10"}
RECOVERING, RESHAPING, BAD_LIST, JOURNAL, LAYOUT = 2, 4, 8, 512, 4096  # of the feature map
KNOWN_FEATURES = 0x1FFF
SPARE, FAULTY, JOURNALS = 0xFFFF, 0xFFFE, 0xFFFD  # instead of a role
ORIGINAL, ALTERNATE = 1, 2  # layouts of raid0


class Superblock(msgspec.Struct, kw_only=True):
    """What one member says. Offsets and sizes in bytes; `role` is its place in the array, None when it is no active member.

    `roles` is what it says of all members, by their number; of 0.90 it is empty. `bad_at`, `bad_size`: where its list of badly
    written parts stands, which counts in sectors shifted by `bad_shift`.
    """

    version: str
    at: int
    uuid: str
    name: str
    level: int
    layout: int
    chunk: int
    members: int
    events: int
    features: int
    data_offset: int
    data_size: int
    used: int
    number: int
    role: int | None
    roles: list[int]
    in_sync: bool
    state: str
    bad_at: int = 0
    bad_size: int = 0
    bad_shift: int = 0


class Array(msgspec.Struct, kw_only=True):
    """An array: `volume` when it can be opened, else `why`. `present` of `members` were found."""

    uuid: str
    name: str
    words: str
    members: int
    present: int
    size: int
    volume: Volume | None
    why: RecoveryError | None
    warnings: list[str]


class _Member(msgspec.Struct):
    """`data` is what it gives to the array; `bad`: (from, to) in it, in bytes, that was badly written."""

    id: str
    data: Window
    bad: list[tuple[int, int]]


def superblock(volume: Volume) -> Superblock | None:
    """The volume's superblock, or None where none is whole. 0.90 is looked for last: it alone does not say where it stands."""
    sectors = volume.size // SECTOR
    places = [("1.1", 0), ("1.2", 8), ("1.0", (sectors - 16) // 8 * 8)]
    for version, sector in places:
        if sector >= 0 and (found := _version1(volume, version, sector * SECTOR)) is not None:
            return found
    at = volume.size // 65536 * 65536 - 65536
    return _version0(volume, at) if at >= 0 else None


def _version1(volume: Volume, version: str, at: int) -> Superblock | None:
    if at + 4096 > volume.size:
        return None
    raw = volume.pread(at, 4096)
    magic, major, features = struct.unpack_from("<III", raw)
    most = int.from_bytes(raw[220:224], "little")
    if magic != MAGIC or major != 1 or most > (4096 - 256) // 2:
        return None
    (own_place,) = struct.unpack_from("<Q", raw, 144)
    if own_place * SECTOR != at or _sum1(raw[: 256 + 2 * most]) != int.from_bytes(raw[216:220], "little"):
        return None
    level, layout, used, chunk, members = struct.unpack_from("<iIQII", raw, 72)
    data_offset, data_size = struct.unpack_from("<QQ", raw, 128)
    recovered, number = struct.unpack_from("<QI", raw, 152)
    events, resync = struct.unpack_from("<QQ", raw, 200)
    roles = list(struct.unpack_from(f"<{most}H", raw, 256))
    role = roles[number] if number < most else SPARE
    bad_shift, bad_size, bad_place = struct.unpack_from("<BHi", raw, 185)
    filling = bool(features & RECOVERING) and recovered < used
    state = {SPARE: "a spare", FAULTY: "failed", JOURNALS: "a journal"}.get(role, "being filled" if filling else "")
    return Superblock(
        version=version, at=at, uuid=str(uuid.UUID(bytes=raw[16:32])), name=_name(raw[32:64]), level=level, layout=layout,
        chunk=chunk * SECTOR, members=members, events=events, features=features, data_offset=data_offset * SECTOR,
        data_size=data_size * SECTOR, used=used * SECTOR, number=number, role=role if role < members else None, roles=roles,
        in_sync=resync == (1 << 64) - 1, state=state or ("" if role < members else "not one of its members"),
        bad_at=at + bad_place * SECTOR, bad_size=bad_size * SECTOR if features & BAD_LIST else 0, bad_shift=min(bad_shift, 63),
    )  # fmt: skip


def _sum1(raw: bytes) -> int:
    raw = raw[:216] + bytes(4) + raw[220:]
    words = len(raw) // 4
    total: int = sum(struct.unpack_from(f"<{words}I", raw)) + int.from_bytes(raw[words * 4 :], "little")
    return ((total & 0xFFFFFFFF) + (total >> 32)) & 0xFFFFFFFF


def _version0(volume: Volume, at: int) -> Superblock | None:
    raw = volume.pread(at, 4096)
    for order in "<>":
        words = struct.unpack(f"{order}1024I", raw)
        if words[0] == MAGIC and words[1] == 0 and words[2] in (90, 91):
            break
    else:
        return None
    total = sum(words) - words[38]
    if ((total & 0xFFFFFFFF) + (total >> 32)) & 0xFFFFFFFF != words[38]:
        return None
    events = words[39] | words[40] << 32 if order == "<" else words[39] << 32 | words[40]
    number, place, state = words[992], words[995], words[996]
    active = state & 0b1111 == 0b0110  # active and in sync, neither failed nor removed
    level = struct.unpack(f"{order}i", raw[28:32])[0]
    return Superblock(
        version="0.90", at=at, uuid=str(uuid.UUID(bytes=struct.pack(">4I", words[5], *words[13:16]))), name="", level=level,
        layout=words[64], chunk=words[65], members=words[10], events=events, features=RESHAPING if words[2] == 91 else 0,
        data_offset=0, data_size=at, used=words[8] * 1024, number=number,
        role=place if active and place < words[10] else None, roles=[], in_sync=bool(words[33] & 1),
        state="" if active else "failed" if state & 1 else "a spare",
    )  # fmt: skip


def _name(raw: bytes) -> str:
    return printable(raw.split(b"\0", 1)[0].decode("utf-8", "replace"))


# -- putting together -------------------------------------------------------------------------------------------------------------


def assemble(found: Sequence[tuple[str, Volume, Superblock]]) -> Array:
    """The array of these members, (id, volume, superblock) each, all of one uuid and at least one."""
    newest = max((sb for _, _, sb in found), key=lambda sb: sb.events)
    warnings: list[str] = []
    made = Array(
        uuid=newest.uuid, name=newest.name, words=f"md {LEVELS.get(newest.level, f'level {newest.level}')}",
        members=newest.members, present=len(found), size=_size(newest), volume=None, why=None, warnings=warnings,
    )  # fmt: skip
    try:
        _readable(newest)
        usable = _usable(found, newest, warnings)
        made.present = len(usable)
        made.volume = _volume(usable, newest, warnings)
        made.size = made.volume.size
    except RecoveryError as error:
        made.why = error
    return made


def _size(sb: Superblock) -> int:
    """Of an array that is not opened; 0 where the superblock alone does not tell."""
    once = {1: 1, 4: sb.members - 1, 5: sb.members - 1, 6: sb.members - 2}.get(sb.level, 0)
    if sb.level == 10:
        copies = (sb.layout & 0xFF) * (sb.layout >> 8 & 0xFF)
        return sb.used * sb.members // copies if copies else 0
    return sb.used * max(0, once)


def _readable(sb: Superblock) -> None:
    """Unsupported or Corrupt unless arrays of this kind are read."""
    level = LEVELS.get(sb.level, f"level {sb.level}")
    if sb.level not in (-1, 0, 1):
        raise Unsupported("md arrays of this level are not read by this release", level)
    if sb.version == "0.90" and sb.level != 1:
        raise Unsupported("md arrays of this level with metadata 0.90 are not read by this release", level)
    if sb.features & RESHAPING:
        raise Unsupported("the array is being reshaped; its layout changes in the middle", level)
    if sb.features & JOURNAL or sb.features & ~KNOWN_FEATURES:
        raise Unsupported("the array has features that this release does not know", f"{level}, {sb.features:#x}")
    if not 1 <= sb.members <= MOST_MEMBERS:
        raise Corrupt("an md superblock says something impossible", f"{sb.members} members")
    if sb.level == 0 and (sb.chunk < 512 or sb.chunk > 1 << 30):
        raise Corrupt("an md superblock says something impossible", f"chunks of {sb.chunk} bytes")


def _usable(
    found: Sequence[tuple[str, Volume, Superblock]], newest: Superblock, warnings: list[str]
) -> dict[int, _Member]:
    """The data of members that the newest superblock counts as whole, by role."""
    usable: dict[int, _Member] = {}
    for member, volume, sb in found:
        role = sb.role
        state = sb.state
        if newest.roles and not state:
            told = newest.roles[sb.number] if sb.number < len(newest.roles) else SPARE
            if told != role:
                state = "counted out by the others"
        if not state and sb.events < newest.events and newest.level == 1:
            state = f"older than the others (event {sb.events} of {newest.events})"
        alike = (sb.level, sb.chunk, sb.members, sb.layout) == (
            newest.level,
            newest.chunk,
            newest.members,
            newest.layout,
        )
        if not state and not alike:
            state = "of another shape than the others say"
        if state or role is None:
            warnings.append(f"{member} is not used: it is {state}")
        elif role in usable:
            warnings.append(f"{member} is not used: {usable[role].id} is the same member, a copy")
        else:
            size = sb.used if sb.level == 1 else sb.data_size
            if size <= 0 or sb.data_offset + size > volume.size:
                warnings.append(
                    f"{member} is not used: the image is cut, its data ends at byte {sb.data_offset + size} of {volume.size}"
                )
                continue
            try:
                bad = _bad(volume, sb) if sb.level == 1 else []
            except RecoveryError as error:
                warnings.append(f"{member} is not used: its list of bad blocks cannot be read ({error.what})")
                continue
            usable[role] = _Member(member, Window(volume, sb.data_offset, size), bad)
    return usable


def _volume(usable: dict[int, _Member], sb: Superblock, warnings: list[str]) -> Volume:
    missing = [role for role in range(sb.members) if role not in usable]
    if sb.level == 1:
        if not usable:
            raise Missing("no whole copy of this mirror is on the disks of this restore point", f"{sb.members} members")
        if missing:
            warnings.append(f"degraded: {len(usable)} of {sb.members} copies are here")
        if not sb.in_sync:
            warnings.append(
                "it was in use, or its copies not in step yet, at the time of the snapshot; its first whole copy is read"
            )
        return _mirror([usable[role] for role in sorted(usable)], warnings)
    if missing:
        raise Missing(
            f"members of this {LEVELS[sb.level]} are not on the disks of this restore point, and it keeps nothing twice",
            f"{', '.join(f'member {role}' for role in missing[:8])} of {sb.members} (counted from 0)",
        )
    parts = [usable[role].data for role in range(sb.members)]
    if sb.level == -1:
        return Concatenated([_cut(part, sb.chunk or SECTOR) for part in parts])
    return _zones([_cut(part, sb.chunk) for part in parts], sb)


def _bad(volume: Volume, sb: Superblock) -> list[tuple[int, int]]:
    """An entry is the first sector, counted from the member's begin, above ten bits of how many; all ones end the list."""
    size = min(sb.bad_size, MOST_BAD)
    found = []
    for (entry,) in struct.iter_unpack("<Q", volume.pread(sb.bad_at, size)):
        if entry == (1 << 64) - 1:
            break
        first, count = (entry >> 10) << sb.bad_shift, (entry & 1023) << sb.bad_shift
        low, high = max(0, first * SECTOR - sb.data_offset), min(sb.used, (first + count) * SECTOR - sb.data_offset)
        if low < high:
            found.append((low, high))
    return sorted(found)


def _mirror(copies: list[_Member], warnings: list[str]) -> Volume:
    """The first copy, and in the place of its badly written parts those of another that has them well."""
    first = copies[0]
    parts: list[Volume] = []
    at = 0
    for low, high in first.bad:
        low = max(low, at)  # entries may overlap
        if low >= high:
            continue
        well = next((one for one in copies[1:] if not any(a < high and low < b for a, b in one.bad)), None)
        if well is None:
            warnings.append(f"{high - low} bytes at {low} were badly written, and no whole copy of them is here")
            well = first
        parts += [Window(first.data, at, low - at), Window(well.data, low, high - low)]
        at = high
    if not parts:
        return first.data
    warnings.append(f"{first.id} has parts that were badly written")
    return Concatenated([*parts, Window(first.data, at, first.data.size - at)])


def _cut(part: Window, chunk: int) -> Window:
    return part if part.size % chunk == 0 else Window(part, 0, part.size // chunk * chunk)


def _zones(parts: list[Window], sb: Superblock) -> Volume:
    """raid0: stripes over all members as far as the smallest reaches, then over those that reach farther, and so on.

    Two ways of beginning a later zone are in use. Counted from the zone's begin (`alternate`), it starts with its first member;
    counted from the array's begin (`original`), with the one whose turn the chunk's number makes it.
    """
    edges = sorted({part.size for part in parts} - {0})
    if not edges:
        raise Corrupt("the members of an md array have no room for data", f"{len(parts)} members")
    layout = sb.layout if sb.features & LAYOUT else 0
    if len(edges) > 1 and layout not in (ORIGINAL, ALTERNATE):
        raise Unsupported(
            "raid0 of members of several sizes has two layouts, and this one does not say which",
            f"layout {layout}",
            "restore the disks whole; `mdadm --assemble --update=layout-original` or `layout-alternate` decides",
        )
    zones: list[Volume] = []
    low, chunks = 0, 0
    for edge in edges:
        inside = [part for part in parts if part.size > low]
        turn = chunks % len(inside) if layout == ORIGINAL else 0
        inside = inside[turn:] + inside[:turn]
        zones.append(Striped([Window(part, low, edge - low) for part in inside], sb.chunk))
        chunks += zones[-1].size // sb.chunk
        low = edge
    return Concatenated(zones) if len(zones) > 1 else zones[0]
