# SPDX-License-Identifier: Apache-2.0
"""dissect: dissect.extfs, .xfs, .ntfs and .fat. They are AGPL-3.0-or-later: nothing that we ship imports or contains them
(packaging/checks), and this module is imported by the oracles' own process alone."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from typing import Any

from dissect.extfs import ExtFS
from dissect.fat.exfat import ExFAT
from dissect.fat.fat import FATFS
from dissect.ntfs import NTFS
from dissect.ntfs.c_ntfs import ATTRIBUTE_TYPE_CODE
from dissect.ntfs.util import segment_reference
from dissect.util.stream import RunlistStream
from dissect.util.ts import dostimestamp
from dissect.xfs.xfs import XFS

from tests.flr.corpus.truth import PIECE, Fact
from tests.flr.oracles.oracle import Oracle, nanoseconds, raw


class _Dissect(Oracle):
    def __init__(self, image: str) -> None:
        self.file = open(image, "rb")  # noqa: SIM115 - it is read as long as the process lives

    def stream(self, node: Any) -> Any:
        return node.open()

    def content(self, node: Any) -> Iterator[bytes]:
        stream = self.stream(node)
        while data := stream.read(PIECE):
            yield data


class _Unix(_Dissect):
    def number(self, node: Any) -> int:
        return int(node.inum)

    def children(self, node: Any) -> Iterator[tuple[bytes, Any]]:
        for child in node.iterdir():
            if child.filename not in (".", ".."):
                yield raw(child.filename), child

    def link(self, node: Any) -> bytes:
        return raw(node.link)


class Ext(_Unix):
    untold = frozenset({"device"})

    def __init__(self, image: str) -> None:
        super().__init__(image)
        self.fs = ExtFS(self.file)

    def root(self) -> Any:
        return self.fs.root

    def fact(self, path: bytes, node: Any) -> Fact:
        inode = node.inode
        return Fact(
            path, inode.i_mode, inode.i_uid_high << 16 | inode.i_uid, inode.i_gid_high << 16 | inode.i_gid, node.size,
            inode.i_links_count, node.mtime_ns, node.ctime_ns, node.atime_ns, node.crtime_ns,
        )  # fmt: skip

    def xattrs(self, node: Any) -> dict[bytes, bytes]:
        return {raw(attribute.name): bytes(attribute.value) for attribute in node.xattr}


class Xfs(_Unix):
    untold = frozenset({"device", "xattrs"})

    def __init__(self, image: str) -> None:
        super().__init__(image)
        self.fs = XFS(self.file)

    def root(self) -> Any:
        return self.fs.root

    def fact(self, path: bytes, node: Any) -> Fact:
        inode = node.inode
        return Fact(
            path, inode.di_mode, inode.di_uid, inode.di_gid, node.size, inode.di_nlink or inode.di_onlink, node.mtime_ns,
            node.ctime_ns, node.atime_ns, node.crtime_ns if inode.di_version == 3 else None,
        )  # fmt: skip


class Ntfs(_Dissect):
    untold = frozenset({"mode", "owner", "group", "links", "device"})

    def __init__(self, image: str) -> None:
        super().__init__(image)
        self.fs = NTFS(self.file)

    def root(self) -> Any:
        return self.fs.mft.root

    def number(self, node: Any) -> int:
        return int(node.segment)

    def children(self, node: Any) -> Iterator[tuple[bytes, Any]]:
        """An entry that cannot be read is not the end of its folder."""
        failed = None
        for entry in node.iterdir(ignore_dos=True):
            try:
                name, number = entry.attribute.file_name, segment_reference(entry.header.FileReference)
                child = entry.dereference()
            except Exception as error:  # whatever it is, the next may be whole
                failed = failed or error
                continue
            if number >= 16:
                yield raw(name), child
        if failed is not None:
            raise failed

    def fact(self, path: bytes, node: Any) -> Fact:
        kind, size = stat.S_IFREG, 0
        if node.is_symlink() or node.is_mount_point():
            kind, size = stat.S_IFLNK, len(self.link(node))
        elif node.is_dir():
            kind = stat.S_IFDIR
        elif node.has_stream():
            size = node.size()
        info = node.attributes.STANDARD_INFORMATION[0]
        return Fact(
            path, kind, None, None, size, 0, info.last_modification_time_ns, info.last_change_time_ns, info.last_access_time_ns,
            info.creation_time_ns,
        )  # fmt: skip

    def link(self, node: Any) -> bytes:
        return raw(node.reparse_point_substitute_name)

    def xattrs(self, node: Any) -> dict[bytes, bytes]:
        names = {attribute.name for attribute in node.attributes.get(ATTRIBUTE_TYPE_CODE.DATA, []) if attribute.name}
        return {b"user." + raw(name): node.open(name).read() for name in names}

    def content(self, node: Any) -> Iterator[bytes]:
        return super().content(node) if node.has_stream() else iter(())


class Fat(_Dissect):
    untold = frozenset(
        {"mode", "owner", "group", "links", "changed", "accessed", "created", "device", "link", "xattrs"}
    )

    def __init__(self, image: str) -> None:
        super().__init__(image)
        self.fs = FATFS(self.file)

    def root(self) -> Any:
        return self.fs.root

    def children(self, node: Any) -> Iterator[tuple[bytes, Any]]:
        for child in node.iterdir():
            if child.name not in (".", "..") and not child.is_volume_id():
                yield raw(child.name), child

    def fact(self, path: bytes, node: Any) -> Fact:
        if node.is_directory():
            return Fact(
                path,
                stat.S_IFDIR,
                None,
                None,
                0,
                0,
                nanoseconds(node.mtime) if path != b"/" else None,
                None,
                None,
                None,
            )
        return Fact(path, stat.S_IFREG, None, None, node.size, 0, nanoseconds(node.mtime), None, None, None)


class ExFat(_Dissect):
    """A node is the pair that dissect keeps: the entry, and what is below it if that is a folder."""

    untold = Fat.untold

    def __init__(self, image: str) -> None:
        super().__init__(image)
        self.fs = ExFAT(self.file)

    def root(self) -> Any:
        return self.fs.files["/"]

    def children(self, node: Any) -> Iterator[tuple[bytes, Any]]:
        for name, child in (node[1] or {}).items():
            yield raw(name), child

    def fact(self, path: bytes, node: Any) -> Fact:
        metadata, stream = node[0].metadata, node[0].stream
        modified = None if path == b"/" else nanoseconds(dostimestamp(metadata.modified_time, metadata.modified_offset))
        if metadata.attributes.directory:
            return Fact(path, stat.S_IFDIR, None, None, 0, 0, modified, None, None, None)
        return Fact(path, stat.S_IFREG, None, None, stream.data_length, 0, modified, None, None, None)

    def stream(self, node: Any) -> Any:
        stream = node[0].stream
        whole = stream.flags.not_fragmented
        runs = self.fs.runlist(stream.location, whole, stream.data_length if whole else None)
        return RunlistStream(self.file, runs, stream.data_length, self.fs.sector_size)

    def content(self, node: Any) -> Iterator[bytes]:
        return super().content(node) if node[0].stream.data_length else iter(())


ORACLES: dict[str, type[_Dissect]] = {"ext": Ext, "xfs": Xfs, "ntfs": Ntfs, "fat": Fat, "exfat": ExFat}
