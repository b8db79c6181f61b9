# SPDX-License-Identifier: Apache-2.0
"""Many inodes at once: what `inode.attributes` tells of one, by columns, with all checksums, for listings of 100,000 entries.

Both tell the same; a test compares them on every image and mutant.
"""

from __future__ import annotations

import stat
from typing import Any

import numpy as np
from google_crc32c import extend
from numpy.typing import NDArray

from flr.blocks import Records
from flr.fs.base import FIRST_TIME, Flag
from flr.fs.ext import inode
from flr.fs.ext.checksum import ONES
from flr.fs.ext.superblock import LARGE_DIRECTORY, Superblock
from flr.fs.table import ALL_KNOWN, ROW, Rows

_SHORT = np.dtype(
    [
        ("mode", "<u2"), ("uid", "<u2"), ("size", "<u4"), ("accessed", "<i4"), ("changed", "<i4"), ("modified", "<i4"),
        ("deleted", "<u4"), ("gid", "<u2"), ("links", "<u2"), ("blocks", "<u4"), ("flags", "<u4"), ("os", "<u4"),
        ("old_device", "<u4"), ("new_device", "<u4"), ("block", "V52"), ("generation", "<u4"), ("acl", "<u4"),
        ("size_high", "<u4"), ("fragment", "<u4"), ("blocks_high", "<u2"), ("acl_high", "<u2"), ("uid_high", "<u2"),
        ("gid_high", "<u2"), ("checksum", "<u2"), ("reserved", "<u2"),
    ]
)  # fmt: skip
_LONG = np.dtype(
    [
        *[(name, _SHORT.fields[name][0]) for name in _SHORT.names],  # type: ignore[index, union-attr]
        ("extra", "<u2"), ("checksum_high", "<u2"), ("changed_x", "<u4"), ("modified_x", "<u4"), ("accessed_x", "<u4"),
        ("created", "<i4"), ("created_x", "<u4"),
    ]
)  # fmt: skip
_SECOND = np.uint64(10**9)
_ZERO = np.uint64(-FIRST_TIME // 10**9)
CREATED_UNKNOWN = ALL_KNOWN & ~(1 << 6)


def _table() -> NDArray[np.uint32]:
    """CRC-32C a byte at a time (polynomial 0x1EDC6F41, reflected)."""
    values = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        values = np.where(values & 1, values >> 1 ^ np.uint32(0x82F63B78), values >> 1).astype(np.uint32)
    return values


_CRC = _table()


def wrong_checksums(s: Superblock, numbers: NDArray[np.int64], raw: Records) -> NDArray[np.bool_]:
    """`raw`: a whole inode in each row."""
    if not s.checksums:
        return np.zeros(len(raw), bool)
    register = np.full(len(raw), s.seed, np.uint32)
    head = np.concatenate((numbers.astype("<u4").view(np.uint8).reshape(-1, 4), raw[:, 100:104]), axis=1)
    for k in range(8):
        register = _CRC[(register ^ head[:, k]) & 0xFF] ^ register >> 8
    stored = raw[:, 124].astype(np.uint32) | raw[:, 125].astype(np.uint32) << 8
    zeroed = raw.copy()
    zeroed[:, 124:126] = 0
    mask = np.full(len(raw), 0xFFFF, np.uint32)
    if s.inode_size > 128:
        long = raw[:, 128].astype(np.uint32) | raw[:, 129].astype(np.uint32) << 8
        both = long >= 4
        high = raw[:, 130].astype(np.uint32) | raw[:, 131].astype(np.uint32) << 8
        stored |= np.where(both, high << 16, 0).astype(np.uint32)
        zeroed[both, 130:132] = 0
        mask[both] = ONES
    data = zeroed.tobytes()
    size = s.inode_size
    seeds = (register ^ np.uint32(ONES)).tolist()
    made = np.array(
        [extend(seed, data[at : at + size]) for seed, at in zip(seeds, range(0, len(data), size), strict=True)]
    )
    wrong: NDArray[np.bool_] = ((made.astype(np.uint32) ^ np.uint32(ONES)) & mask) != stored
    return wrong


def rows(s: Superblock, numbers: NDArray[np.int64], raw: Records) -> tuple[Rows, NDArray[np.bool_]]:
    """A record of each inode, and which of them are in use."""
    long = s.inode_size > 128
    dtype = _LONG if long else _SHORT
    fields: Any = np.ascontiguousarray(raw[:, : dtype.itemsize]).view(dtype)[:, 0]
    made = np.zeros(len(raw), ROW)
    mode = fields["mode"].astype(np.uint32)
    kind = mode & 0o170000
    flags = fields["flags"]
    made["number"] = numbers
    made["generation"], made["mode"], made["links"] = fields["generation"], mode, fields["links"]
    for name, low in (("owner", "uid"), ("group", "gid")):
        made[name] = fields[low].astype(np.uint32) | fields[low + "_high"].astype(np.uint32) << 16
    is_file = kind == stat.S_IFREG
    high = is_file | (kind == stat.S_IFDIR) if s.incompat & LARGE_DIRECTORY else is_file
    made["size"] = fields["size"] | np.where(high, fields["size_high"].astype(np.uint64) << np.uint64(32), np.uint64(0))
    blocks = fields["blocks"].astype(np.uint64)
    if s.ro_compat & 8:
        blocks |= fields["blocks_high"].astype(np.uint64) << np.uint64(32)
    made["allocated"] = blocks * np.where(flags & inode.HUGE_FILE, np.uint64(s.block_size), np.uint64(512))
    extra = fields["extra"] if long else None
    for name, least in (("modified", 12), ("changed", 8), ("accessed", 16), ("created", 24)):
        if name == "created" and not long:
            continue
        seconds = fields[name].astype(np.int64)
        if extra is None:
            made[name] = (seconds.astype(np.uint64) + _ZERO) * _SECOND
            continue
        more = np.where(extra >= least, fields[name + "_x"], np.uint32(0)).astype(np.uint64)
        whole = seconds.astype(np.uint64) + _ZERO + ((more & np.uint64(3)) << np.uint64(32))
        made[name] = whole * _SECOND + (more >> np.uint64(2))
    made["known"] = np.where(extra >= 20, ALL_KNOWN, CREATED_UNKNOWN) if extra is not None else CREATED_UNKNOWN
    old, new = fields["old_device"], fields["new_device"]
    major = np.where(old, old >> 8 & 0xFF, new >> 8 & 0xFFF).astype(np.uint64)
    minor = np.where(old, old & 0xFF, new & 0xFF | new >> 12 & 0xFFF00).astype(np.uint64)
    device = (minor & np.uint64(0xFF)) | major << np.uint64(8) | (minor & np.uint64(0xFFF00)) << np.uint64(12)
    special = (kind == stat.S_IFCHR) | (kind == stat.S_IFBLK)
    made["device"] = np.where(special, device, np.uint64(0))
    shown = np.where(
        is_file & (made["size"] > np.uint64(s.blocks * s.block_size)), np.uint32(Flag.SUSPICIOUS), np.uint32(0)
    )
    for bit, ours in inode.SHOWN.items():
        shown = shown | np.where(flags & np.uint32(bit), np.uint32(ours), np.uint32(0))
    made["flags"] = shown
    used = np.isin(kind, list(inode.TYPES)) & (fields["links"] != 0)
    return made, used
