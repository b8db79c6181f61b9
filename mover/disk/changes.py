# SPDX-License-Identifier: Apache-2.0
"""Change maps from anywhere: which ranges of a disk changed since a base. Believed only as far as they can be checked.

A map is a claim. It counts when it names the base that the parent point was made from, the same disk and the same size, and
even then a sample of what it calls unchanged is read again (`mover.backup`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import msgspec

from mover.errors import UsageError

if TYPE_CHECKING:
    from mover.disk.blocks import Blocks


class Changes(Protocol):
    """What a backup asks of a change map, see `ChangeMap`."""

    @property
    def disk(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def snapshot(self) -> str: ...
    @property
    def base(self) -> str | None: ...

    def blocks(self) -> Blocks:
        """Every block that may have changed."""


@dataclass(frozen=True, slots=True)
class ChangedBlocks:
    """See `Changes`. A bit a block, however fragmented the disk."""

    disk: str
    size: int
    snapshot: str
    base: str
    touched: Blocks

    def blocks(self) -> Blocks:
        return self.touched


class ChangeMap(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`ranges`: (offset, length) in bytes. `base`: the snapshot that they are relative to (None: there is none, the map only
    names this state). `snapshot`: the state that is backed up now, the base of the next map."""

    disk: str
    size: int
    snapshot: str
    base: str | None = None
    ranges: tuple[tuple[int, int], ...] = ()

    def blocks(self) -> Blocks:
        from mover.disk.blocks import Blocks  # a command is read without numpy and the codecs
        from mover.repository.chunk import BLOCK_SIZE

        return Blocks.of_ranges(-(-self.size // BLOCK_SIZE), self.ranges, BLOCK_SIZE)


def read_changes(path: str) -> Mapping[str, ChangeMap]:
    """Maps by disk identity from a JSON file: one map, or a list of them. UsageError says what is wrong with it."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise UsageError("a change map cannot be read", f"{path}: {os.strerror(error.errno or 0)}") from None
    except ValueError as error:  # a path with a zero byte in it
        raise UsageError("a change map cannot be read", f"{path!r}: {error}") from None
    try:
        found = msgspec.json.decode(data, type=ChangeMap | list[ChangeMap])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        hint = 'a map is {"disk", "size", "snapshot", "base", "ranges": [[offset, length], ...]}; docs/operations.md shows one'
        raise UsageError("a change map is malformed", f"{path}: {error}", hint) from None
    maps = found if isinstance(found, list) else [found]
    for one in maps:
        check(one, path)
    if len({one.disk for one in maps}) != len(maps):
        raise UsageError("a change map names a disk twice", path)
    return {one.disk: one for one in maps}


def check(one: ChangeMap, where: str) -> None:
    """UsageError when a range does not lie within the disk."""
    if not one.disk or not one.snapshot or one.base == "":
        hint = "name the disk and its states, or leave the base away"
        raise UsageError(
            "a change map has an empty name", f"{where}: {one.disk!r}, {one.snapshot!r}, {one.base!r}", hint
        )
    if one.base == one.snapshot and one.ranges:
        raise UsageError("a change map has changes between a state and itself", f"{where}: {one.snapshot!r}")
    for offset, length in one.ranges:
        if offset < 0 or length < 0 or offset + length > one.size:
            value = f"{where}: [{offset}, {length}] in a disk of {one.size} bytes"
            raise UsageError("a change map has a range outside its disk", value)
