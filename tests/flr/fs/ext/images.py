# SPDX-License-Identifier: Apache-2.0
"""Ways to make an ext file system that change how it is read."""

from __future__ import annotations

import inspect
from pathlib import Path

from flr.fs.ext.open import open_ext
from tests.flr.corpus import busy, cache, truth
from tests.flr.corpus.image import opened
from tests.flr.corpus.mounted import Made, need, populated, run

MIB = 1 << 20
WAYS: dict[str, tuple[int, list[str]]] = {
    "ext4": (256 * MIB, ["mkfs.ext4", "-q", "-b", "4096"]),
    "ext4-1k": (256 * MIB, ["mkfs.ext4", "-q", "-b", "1024"]),
    "ext4-inline": (128 * MIB, ["mkfs.ext4", "-q", "-b", "4096", "-O", "inline_data,ea_inode,metadata_csum_seed", "-I", "512"]),
    "ext4-inline-small": (128 * MIB, ["mkfs.ext4", "-q", "-b", "1024", "-O", "inline_data,^metadata_csum", "-I", "256"]),
    "ext4-meta-groups": (256 * MIB, ["mkfs.ext4", "-q", "-b", "1024", "-O", "meta_bg,^resize_inode,64bit,ea_inode"]),
    "ext4-bigalloc": (256 * MIB, ["mkfs.ext4", "-q", "-b", "4096", "-O", "bigalloc"]),
    "ext4-bigalloc-1k": (128 * MIB, ["mkfs.ext4", "-q", "-b", "1024", "-O", "bigalloc,^metadata_csum", "-C", "8192"]),
    "ext4-bigalloc-large": (256 * MIB, ["mkfs.ext4", "-q", "-b", "1024", "-O", "bigalloc", "-C", "65536"]),
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


def busy_one() -> Made:
    """Of several moments of a busy file system the one with most of its entries in the journal alone."""

    def make(folder: Path) -> None:
        most = -1
        for snapshot, facts in busy.moments(folder, ["mkfs.ext4", "-q"], 12, 5, size=96 * MIB):
            needed = differing(snapshot, facts, replay=False)
            if needed > most:
                most = needed
                keep(snapshot, facts, folder)

    sources = cache.source(truth.__file__, busy.__file__)
    return Made(cache.made("ext4-busy", (sources, inspect.getsource(busy_one)), make))


def fast_commits() -> Made:
    """A moment with changes that are in fast commits alone. Some that the kernel writes, it does not replay itself and refuses to
    mount: such a run is given up."""

    def make(folder: Path) -> None:
        for seed in range(13, 33):
            try:
                moments = busy.moments(folder, ["mkfs.ext4", "-q", "-O", "fast_commit"], 8, seed, size=96 * MIB)
                for snapshot, facts in moments:
                    if differing(snapshot, facts, replay=True):
                        keep(snapshot, facts, folder)
                        moments.close()
                        return
            except RuntimeError:
                continue
        raise RuntimeError("no moment of any run had changes in fast commits")

    sources = cache.source(truth.__file__, busy.__file__)
    return Made(cache.made("ext4-fast-commits", (sources, inspect.getsource(fast_commits)), make))


def differing(snapshot: Path, facts: truth.Facts, replay: bool) -> int:
    """In how much ours, with or without the journal, is not the kernel's telling; contents aside."""
    with opened(snapshot) as disk:
        ours = truth.told(open_ext(disk, replay=replay), content=False)
    return len(truth.differences(facts, ours, frozenset({"content"})))


def keep(snapshot: Path, facts: truth.Facts, folder: Path) -> None:
    (folder / "image").unlink(missing_ok=True)
    run("cp", "--sparse=always", snapshot, folder / "image")
    truth.save(facts, folder / "truth")
