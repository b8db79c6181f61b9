# SPDX-License-Identifier: Apache-2.0
"""XFS images of the forms that its structures can take, beyond what `populate` makes: trees of extents below folders, files
and attributes, gaps, shared blocks."""

from __future__ import annotations

import fcntl
import mmap
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flr.blocks import MemoryDisk
from tests.flr.corpus import mounted, populate
from tests.flr.corpus.mounted import Made

MIB = 1 << 20
FICLONE = 0x40049409


@contextmanager
def opened(image: Path) -> Iterator[MemoryDisk]:
    """The image as a disk; nothing holds the file afterwards."""
    with open(image, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
        yield MemoryDisk(data)  # type: ignore[arg-type]  # sliced as bytes are


FORMS: dict[str, tuple[str, ...]] = {
    "default": (),
    "large": ("-m", "bigtime=1,reflink=1", "-i", "nrext64=1,size=1024", "-n", "size=8192"),
    "small-blocks": ("-b", "size=1024", "-n", "size=4096"),
    "large-sectors": ("-s", "size=4096"),
    "rmap": ("-m", "rmapbt=1"),
    "few-features": ("-m", "finobt=0,reflink=0,bigtime=0,inobtcount=0", "-i", "sparse=0"),
}


def churned(place: Path, seed: int, reflink: bool = True, entries: int = 3000) -> None:
    """Folders of every form that grew side by side and lost entries; files and attributes in many extents; shared blocks."""
    made = random.Random(seed)
    folders = [place / f"churn{i}" for i in range(3)]
    for folder in folders:
        folder.mkdir()
    beside = os.open(place / "beside", os.O_CREAT | os.O_WRONLY)
    for i in range(entries):
        for folder in folders:
            (folder / f"{i:05d}-{'n' * made.randrange(150)}").touch()
        if i % 8 == 0:
            os.pwrite(beside, b"%d" % i * 300, i * 8192)
            os.fsync(beside) if i % 64 == 0 else None
    os.close(beside)
    for folder in folders:
        names = sorted(os.listdir(folder))
        for name in made.sample(names, len(names) // 3) + names[100:400]:
            (folder / name).unlink(missing_ok=True)
    for count in (1, 5, 30, 200):  # short form, one block, a leaf
        (place / f"folder-of-{count}").mkdir()
        for i in range(count):
            (place / f"folder-of-{count}" / f"{i}-{'m' * made.randrange(60)}").symlink_to("t" * made.randrange(1, 800))
    rows = [place / f"attributes{i}" for i in range(2)]
    for row in rows:
        row.touch()
    for i in range(400):
        for row in rows:
            os.setxattr(row, f"user.{i:04d}-{'a' * made.randrange(100)}", made.randbytes(made.randrange(400)))
            if i % 20 == 0:
                os.setxattr(row, f"trusted.far-{i}", made.randbytes(made.randrange(2000, 65536)))
    for i in made.sample(range(0, 400, 20), 7):
        os.removexattr(rows[0], f"trusted.far-{i}")
    if reflink:
        shared(place, made)
    os.sync()


def shared(place: Path, made: random.Random) -> None:
    (place / "original").write_bytes(made.randbytes(3 * MIB))
    for i in range(3):
        with open(place / "original", "rb") as source, open(place / f"shared{i}", "wb+") as copy:
            fcntl.ioctl(copy, FICLONE, source.fileno())
            for _ in range(40 * i):
                os.pwrite(copy.fileno(), made.randbytes(1000), made.randrange(3 * MIB))
            os.fsync(copy.fileno())


def form(name: str) -> Made:
    """With the whole set and `churned`."""
    mkfs = ("mkfs.xfs", "-q", *FORMS[name])

    def fill(place: Path) -> None:
        populate.Populate(place, 1, many=1000, big=2 << 20).all()
        churned(place, 2, reflink=name != "few-features")

    return mounted.made(f"xfs-{name}", 320 << 20, mkfs, fill, Path(__file__).read_text())
