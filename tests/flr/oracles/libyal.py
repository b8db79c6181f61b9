# SPDX-License-Identifier: Apache-2.0
"""libyal: libfsext, libfsxfs, libfsntfs and libfsfat by their Python modules."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Any

import pyfsext
import pyfsfat
import pyfsntfs
import pyfsxfs

from tests.flr.corpus.truth import PIECE, Fact
from tests.flr.oracles.oracle import EPOCH_1601, Oracle, nanoseconds, raw


class _Libyal(Oracle):
    module: Any

    def __init__(self, image: str) -> None:
        self.volume = self.module.volume()
        self.volume.open(image)

    def root(self) -> Any:
        return self.volume.get_root_directory()

    def children(self, node: Any) -> Iterator[tuple[bytes, Any]]:
        """One by one, so that an entry that cannot be read is not the end of its folder."""
        failed = None
        for index in range(node.number_of_sub_file_entries):
            try:
                child = node.get_sub_file_entry(index)
                name = child.name
                if name is None:
                    raise ValueError("an entry without a name")
            except Exception as error:  # whatever it is, the next may be whole
                failed = failed or error
                continue
            yield raw(name), child
        if failed is not None:
            raise failed

    def content(self, node: Any) -> Iterator[bytes]:
        node.seek_offset(0, os.SEEK_SET)
        while data := node.read_buffer(PIECE):
            yield data


class _Unix(_Libyal):
    def number(self, node: Any) -> int:
        return int(node.inode_number)

    def fact(self, path: bytes, node: Any) -> Fact:
        device = node.device_number if stat.S_ISCHR(node.file_mode) or stat.S_ISBLK(node.file_mode) else None
        return Fact(
            path, node.file_mode, node.owner_identifier, node.group_identifier, node.size, node.number_of_links,
            node.get_modification_time_as_integer(), node.get_inode_change_time_as_integer(),
            node.get_access_time_as_integer(), node.get_creation_time_as_integer(), os.makedev(*device) if device else 0,
        )  # fmt: skip

    def link(self, node: Any) -> bytes:
        return raw(node.symbolic_link_target)

    def xattrs(self, node: Any) -> dict[bytes, bytes]:
        found = {}
        for attribute in node.extended_attributes:
            attribute.seek_offset(0, os.SEEK_SET)
            found[raw(attribute.name)] = b"".join(iter(lambda a=attribute: a.read_buffer(PIECE), b""))  # type: ignore[misc]
        return found


class Ext(_Unix):
    module = pyfsext


class Xfs(_Unix):
    module = pyfsxfs


class Ntfs(_Libyal):
    module = pyfsntfs
    untold = frozenset({"mode", "owner", "group", "links", "device"})

    def number(self, node: Any) -> int:
        return int(node.file_reference) & (1 << 48) - 1

    def children(self, node: Any) -> Iterator[tuple[bytes, Any]]:
        for name, child in super().children(node):
            if self.number(child) >= 16:
                yield name, child

    def fact(self, path: bytes, node: Any) -> Fact:
        kind, size = stat.S_IFREG, 0
        if node.symbolic_link_target is not None:
            kind, size = stat.S_IFLNK, len(self.link(node))
        elif node.has_directory_entries_index():
            kind = stat.S_IFDIR
        elif node.has_default_data_stream():
            size = node.size
        return Fact(
            path, kind, None, None, size, 0, *((time - EPOCH_1601) * 100 for time in (
                node.get_modification_time_as_integer(), node.get_entry_modification_time_as_integer(),
                node.get_access_time_as_integer(), node.get_creation_time_as_integer(),
            )),
        )  # fmt: skip

    def link(self, node: Any) -> bytes:
        return raw(node.symbolic_link_target)

    def xattrs(self, node: Any) -> dict[bytes, bytes]:
        found = {}
        for stream in node.alternate_data_streams:
            stream.seek_offset(0, os.SEEK_SET)
            found[b"user." + raw(stream.name)] = b"".join(iter(lambda s=stream: s.read_buffer(PIECE), b""))  # type: ignore[misc]
        return found

    def content(self, node: Any) -> Iterator[bytes]:
        return super().content(node) if node.has_default_data_stream() else iter(())


class Fat(_Libyal):
    module = pyfsfat
    untold = frozenset(
        {"mode", "owner", "group", "links", "changed", "accessed", "created", "device", "link", "xattrs"}
    )

    def number(self, node: Any) -> int:
        return int(node.identifier)

    def fact(self, path: bytes, node: Any) -> Fact:
        folder = path == b"/" or bool(node.file_attribute_flags & 0x10)
        kind = stat.S_IFDIR if folder else stat.S_IFREG
        modified = None
        if path != b"/":
            modified = nanoseconds(node.get_modification_time())
        return Fact(path, kind, None, None, 0 if folder else node.size, 0, modified, None, None, None)


ORACLES: dict[str, type[_Libyal]] = {"ext": Ext, "xfs": Xfs, "ntfs": Ntfs, "fat": Fat, "exfat": Fat}
