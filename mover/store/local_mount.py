# SPDX-License-Identifier: Apache-2.0
"""Refuses to keep a local store where several hosts could reach it.

Locks, boot ids and CLOCK_BOOTTIME are those of one host: seen from another, every lease would look lapsed. The check is
by the type of the mounted file system, so a disk that two hosts attach with an ordinary one is not noticed.
"""

from __future__ import annotations

import re
from pathlib import Path

from mover.errors import UsageError

# Types as /proc/self/mountinfo names them.
_SHARED = frozenset({
    "9p", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "fhgfs", "gfs", "gfs2", "glusterfs", "gpfs", "lustre",
    "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "panfs", "prl_fs", "pvfs2", "smb2", "smb3", "smbfs", "vboxsf",
    "virtiofs", "vmhgfs", "fuse.afs", "fuse.blobfuse", "fuse.blobfuse2", "fuse.ceph", "fuse.cephfs", "fuse.davfs",
    "fuse.gcsfuse", "fuse.glusterfs", "fuse.goofys", "fuse.juicefs", "fuse.moosefs", "fuse.mfs", "fuse.rclone",
    "fuse.s3fs", "fuse.smbnetfs", "fuse.sshfs", "fuse.vmhgfs-fuse",
})  # fmt: skip


def refuse_network(root: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> None:
    """UsageError when `root` (absolute, links resolved; it need not exist) is on a file system that hosts share."""
    kind = _kind(root, mountinfo.read_text(encoding="utf-8", errors="surrogateescape"))
    if kind in _SHARED:
        raise UsageError(
            f"a local store cannot be on a file system of type {kind}",
            str(root),
            "use a disk of this host, or a repository in Azure Blob Storage: its leases work between hosts",
        )


def _kind(root: Path, mountinfo: str) -> str:
    """The type of the mount that `root` is on: the one with the longest mount point, of equals the last mounted."""
    best, kind = -1, ""
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        point = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), left.split(" ")[4]))
        if root.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), right.split(" ")[0]
    return kind
