# SPDX-License-Identifier: Apache-2.0
"""XFS images of the forms that its structures can take, beyond what `populate` makes: trees of extents below folders, files
and attributes, gaps, shared blocks."""

from __future__ import annotations

import fcntl
import inspect
import os
import random
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

from tests.flr.corpus import busy, cache, mounted, populate, truth, uml
from tests.flr.corpus.mounted import Made

MIB = 1 << 20
FICLONE = 0x40049409


FORMS: dict[str, tuple[str, ...]] = {
    "default": (),
    "large": ("-m", "bigtime=1,reflink=1", "-i", "nrext64=1,size=1024", "-n", "size=8192"),
    "small-blocks": ("-b", "size=1024", "-n", "size=4096"),
    "large-sectors": ("-s", "size=4096"),
    "rmap": ("-m", "rmapbt=1"),
    "few-features": ("-m", "finobt=0,reflink=0,bigtime=0,inobtcount=0", "-i", "sparse=0"),
}


V4 = {
    "v4": ("-m", "crc=0", "-n", "ftype=0"),
    "v4-types": ("-m", "crc=0", "-n", "ftype=1"),
    "v4-small-blocks": ("-m", "crc=0", "-b", "size=1024", "-n", "size=4096"),
    "v4-case-folded": ("-m", "crc=0", "-n", "version=ci", "-i", "attr=1"),
}
V4_MOMENTS = 8


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

    return mounted.made(f"xfs-{name}", 320 << 20, mkfs, fill, _churn())


def small() -> Made:
    """All structures in few entries, with trees of extents because of its small blocks."""

    def fill(place: Path) -> None:
        populate.Populate(place, 1, many=100, big=1 << 18).all()
        churned(place, 2, entries=250)

    mkfs = ("mkfs.xfs", "-q", "-b", "size=1024", "-n", "size=4096")
    return mounted.made("xfs-small", 320 << 20, mkfs, fill, _churn())


WIDE = 20_000


def wide() -> Path:
    """One folder of so many entries."""

    def fill(place: Path) -> None:
        (place / "wide").mkdir()
        for i in range(WIDE):
            (place / "wide" / f"file_{i:06d}_with_a_name.txt").touch()

    def make(folder: Path) -> None:
        disk(folder / "image", ())
        with mounted.mounted(folder / "image") as place:
            fill(place)

    return cache.made("xfs-wide", WIDE, make) / "image"


def dirty() -> Image:
    """A moment of a busy file system whose small log went round."""

    def make(folder: Path) -> None:
        mkfs = ("mkfs.xfs", "-q", "--unsupported", "-l", "size=8m")
        for snapshot, facts in busy.moments(folder, mkfs, 8, 5, replay="noatime,nouuid"):
            (folder / "image").unlink(missing_ok=True)
            mounted.run("cp", "--sparse=always", snapshot, folder / "image")
            truth.save(facts, folder / "truth")

    found = cache.made("xfs-dirty", recipe(), make)
    return Image(found / "image", truth.load(found / "truth"))


class Image(NamedTuple):
    image: Path
    truth: truth.Facts


# -- version 4, which newer kernels do not mount: another kernel makes and tells them


def v4(name: str) -> Image:
    """As `form`, but smaller: each system call costs much there."""

    def make(folder: Path) -> None:
        disk(folder / "image", V4[name])
        uml.run(f"{INSIDE}\nwork fill /dev/ubda", [folder / "image"], folder)

    found = cache.made(f"xfs-{name}", (recipe(), V4[name]), make)
    return Image(found / "image", truth.load(found / "truth-0"))


def v4_busy() -> list[Image]:
    """Some that were written to when the machine stopped; the truth is told after that kernel's replay of a copy.

    Of four, one is of version 5, and one has a log of the first version.
    """

    def make(folder: Path) -> None:
        images = [folder / f"image-{number}" for number in range(V4_MOMENTS)]
        for number, image in enumerate(images):
            log = ("-l", "version=1") if number % 4 == 2 else ()
            disk(image, ("-m", f"crc={number % 4 // 3}", *log, *(("-n", "ftype=1") if number % 2 else ())))
        disks = [f"/dev/ubd{chr(ord('a') + number)}" for number in range(V4_MOMENTS)]
        uml.run("\n".join([INSIDE, *[f"work write {disk}" for disk in disks]]), images, folder)
        copies = [Path(shutil.copy(image, folder / f"copy-{number}")) for number, image in enumerate(images)]
        uml.run("\n".join([INSIDE, *[f"work tell {disk}" for disk in disks]]), copies, folder)
        for copy in copies:
            copy.unlink()

    found = cache.made("xfs-v4-busy", (recipe(), V4_MOMENTS), make)
    return [Image(found / f"image-{number}", truth.load(found / f"truth-{number}")) for number in range(V4_MOMENTS)]


def disk(image: Path, options: tuple[str, ...]) -> None:
    with open(image, "wb") as file:
        file.truncate(320 << 20)
    mounted.run("mkfs.xfs", "-q", *options, image)


ROOT = Path(__file__).parents[4]
INSIDE = f"""
work() {{ PYTHONDONTWRITEBYTECODE=1 PYTHONPATH={ROOT} {sys.executable} -m tests.flr.fs.xfs.images "$@"; }}
"""


def _churn() -> str:
    """What the content of images depends on here."""
    return inspect.getsource(churned) + inspect.getsource(shared)


def recipe() -> tuple[str, ...]:
    sources = cache.source(*[inspect.getfile(module) for module in (truth, populate, busy)])
    return sources, _churn(), inspect.getsource(inside), inspect.getsource(v4_busy), inspect.getsource(dirty)


def inside(task: str, device: str) -> None:
    """What is done in the other kernel, in the folder of the images."""
    number = ord(device[-1]) - ord("a")
    place = Path("/run") / device[-4:]
    place.mkdir()
    mounted.run("mount", "-o", "noatime", device, place)
    if task == "write":  # and never unmounted: the machine stops
        busy.Writer(str(place), number).run(60 + 40 * number)
        return
    if task == "fill":
        populate.Populate(place, 1, many=150, big=1 << 20).all()
        churned(place, 2, reflink=False, entries=600)
        mounted.run("umount", place)
        mounted.run("mount", "-o", "ro", device, place)
    truth.save(truth.kernel(place), Path(f"truth-{number}"))
    mounted.run("umount", place)


if __name__ == "__main__":
    inside(sys.argv[1], sys.argv[2])
