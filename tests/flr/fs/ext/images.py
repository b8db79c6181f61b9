# SPDX-License-Identifier: Apache-2.0
"""Ways to make an ext file system that change how it is read."""

from __future__ import annotations

from pathlib import Path

from tests.flr.corpus import busy, cache, mounted
from tests.flr.corpus.mounted import Made, need, populated, run

MIB = 1 << 20
WAYS: dict[str, tuple[int, list[str]]] = {
    "ext4": (256 * MIB, ["mkfs.ext4", "-q", "-b", "4096"]),
    "ext4-1k": (256 * MIB, ["mkfs.ext4", "-q", "-b", "1024"]),
    "ext4-inline": (128 * MIB, ["mkfs.ext4", "-q", "-b", "4096", "-O", "inline_data,ea_inode,metadata_csum_seed", "-I", "512"]),
    "ext4-inline-small": (128 * MIB, ["mkfs.ext4", "-q", "-b", "1024", "-O", "inline_data,^metadata_csum", "-I", "256"]),
    "ext4-meta-groups": (256 * MIB, ["mkfs.ext4", "-q", "-b", "1024", "-O", "meta_bg,^resize_inode,64bit,ea_inode"]),
    "ext4-bigalloc": (256 * MIB, ["mkfs.ext4", "-q", "-b", "4096", "-O", "bigalloc"]),
    "ext4-no-checksums": (256 * MIB, ["mkfs.ext4", "-q", "-b", "4096", "-O", "^metadata_csum,uninit_bg,^64bit"]),
    "ext4-sparse-super2": (256 * MIB, ["mkfs.ext4", "-q", "-b", "2048", "-O", "sparse_super2,large_dir"]),
    "ext4-no-extents": (128 * MIB, ["mkfs.ext4", "-q", "-b", "1024", "-O", "^extents,^64bit"]),
    "ext3": (128 * MIB, ["mkfs.ext3", "-q", "-b", "4096"]),
    "ext3-1k": (128 * MIB, ["mkfs.ext3", "-q", "-b", "1024"]),
    "ext2-no-types": (128 * MIB, ["mkfs.ext2", "-q", "-b", "1024", "-O", "^filetype"]),
    "ext2-old-inodes": (128 * MIB, ["mkfs.ext2", "-q", "-b", "2048", "-I", "128"]),
}  # fmt: skip


def image(way: str) -> Made:
    need("mkfs.ext4", "mount")
    size, mkfs = WAYS[way]
    return populated(way, size, mkfs)


def dirty() -> Path:
    """A small file system, copied while it is busy: much of it is in its journal only."""
    need("mkfs.ext4", "mkfs.xfs")

    def make(folder: Path) -> None:
        for snapshot, _ in busy.moments(folder, ["mkfs.ext4", "-q", "-J", "size=4"], 3, seed=5, size=48 * MIB):
            run("cp", "--sparse=always", snapshot, folder / "image")

    sources = cache.source(busy.__file__, mounted.__file__, __file__)
    return cache.made("ext4-dirty", sources, make) / "image"
