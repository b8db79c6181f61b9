# SPDX-License-Identifier: Apache-2.0
"""pytsk3: The Sleuth Kit."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from typing import Any

import pytsk3

from tests.flr.corpus.truth import PIECE, Fact
from tests.flr.oracles.oracle import Oracle, raw

KINDS = {
    pytsk3.TSK_FS_META_TYPE_REG: stat.S_IFREG,
    pytsk3.TSK_FS_META_TYPE_DIR: stat.S_IFDIR,
    pytsk3.TSK_FS_META_TYPE_LNK: stat.S_IFLNK,
    pytsk3.TSK_FS_META_TYPE_FIFO: stat.S_IFIFO,
    pytsk3.TSK_FS_META_TYPE_CHR: stat.S_IFCHR,
    pytsk3.TSK_FS_META_TYPE_BLK: stat.S_IFBLK,
    pytsk3.TSK_FS_META_TYPE_SOCK: stat.S_IFSOCK,
}
OWN = (b".", b"..", b"$OrphanFiles", b"$ALLOC_BITMAP", b"$UPCASE_TABLE")
LABEL = b" (Volume Label Entry)"


class _SleuthKit(Oracle):
    untold = frozenset({"device", "xattrs"})

    def __init__(self, image: str) -> None:
        self.image = pytsk3.Img_Info(image)
        self.fs = pytsk3.FS_Info(self.image)

    def root(self) -> Any:
        return self.fs.open_meta(inode=self.fs.info.root_inum)

    def number(self, node: Any) -> int:
        return int(node.info.meta.addr)

    def children(self, node: Any) -> Iterator[tuple[bytes, Any]]:
        for child in node.as_directory():
            name = child.info.name
            deleted = int(name.flags) & int(pytsk3.TSK_FS_NAME_FLAG_UNALLOC)
            own = name.name in OWN or name.name.endswith(LABEL) or child.info.meta is None or self.hidden(child)
            if not deleted and not own:
                yield raw(name.name), child

    def hidden(self, node: Any) -> bool:
        return int(node.info.meta.type) == int(pytsk3.TSK_FS_META_TYPE_VIRT)

    def fact(self, path: bytes, node: Any) -> Fact:
        meta = node.info.meta
        return Fact(
            path, KINDS.get(meta.type, 0) | int(meta.mode), meta.uid, meta.gid, meta.size, meta.nlink,
            meta.mtime * 10**9 + meta.mtime_nano, meta.ctime * 10**9 + meta.ctime_nano,
            meta.atime * 10**9 + meta.atime_nano, meta.crtime * 10**9 + meta.crtime_nano or None,
        )  # fmt: skip

    def link(self, node: Any) -> bytes:
        """A long one is the link's content."""
        link = node.info.meta.link
        return b"".join(self.content(node)) if link is None else raw(link)

    def content(self, node: Any) -> Iterator[bytes]:
        at, size = 0, node.info.meta.size
        while at < size and (data := node.read_random(at, min(PIECE, size - at))):
            yield data
            at += len(data)


class Ntfs(_SleuthKit):
    untold = frozenset({"mode", "owner", "group", "links", "device", "link"})

    def hidden(self, node: Any) -> bool:
        return self.number(node) < 16 or super().hidden(node)

    def xattrs(self, node: Any) -> dict[bytes, bytes]:
        """Named $DATA attributes."""
        found = {}
        for attribute in node:
            info = attribute.info
            if info.type == pytsk3.TSK_FS_ATTR_TYPE_NTFS_DATA and info.name:
                data = node.read_random(0, info.size, info.type, info.id) if info.size else b""
                found[b"user." + raw(info.name)] = data
        return found


class Fat(_SleuthKit):
    untold = frozenset(
        {"mode", "owner", "group", "links", "changed", "accessed", "created", "device", "link", "xattrs"}
    )

    def fact(self, path: bytes, node: Any) -> Fact:
        fact = super().fact(path, node)
        if path == b"/":
            fact.modified = None
        return fact


ORACLES: dict[str, type[_SleuthKit]] = {"ext": _SleuthKit, "xfs": _SleuthKit, "ntfs": Ntfs, "fat": Fat, "exfat": Fat}
