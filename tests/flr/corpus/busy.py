# SPDX-License-Identifier: Apache-2.0
"""Images of a file system at moments while it is written to, each with what the kernel makes of it after its own replay.

A copy of a file that changes is no point in time. So the busy image lies on an XFS of its own, where FICLONE shares all of a
file's blocks at once, with the file locked against writes: what a snapshot of a disk is. The writer is a process whose steps
follow from its seed; the moment is some number of its steps later, and it goes on working while the snapshot is taken.
"""

from __future__ import annotations

import ctypes
import fcntl
import itertools
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from flr.fs.base import FileSystem
from tests.flr.corpus import truth
from tests.flr.corpus.image import opened
from tests.flr.corpus.mounted import mounted, run
from tests.flr.corpus.truth import Facts

FICLONE = 0x40049409
PUNCH_HOLE = 0x3  # and keep the size
STORE = 8 << 30
MOST_STEPS = 80
"""Of the writer between two moments."""


def clone(source: Path, target: Path) -> None:
    with open(source, "rb") as one, open(target, "wb") as two:
        fcntl.ioctl(two, FICLONE, one.fileno())


def moments(
    folder: Path,
    mkfs: Sequence[str],
    count: int,
    seed: int,
    *,
    size: int = 320 << 20,
    options: str = "",
    replay: str = "noatime",
) -> Iterator[tuple[Path, Facts]]:
    """`count` times a snapshot, and the truth about it.

    `mkfs` without the image's name, `options` of the busy mount, `replay` those of the mount that replays (XFS: `noatime,nouuid`):
    not `ro`, which makes the loop device read-only too. A snapshot exists until the next is asked for. Needs three loop devices.
    """
    chance = random.Random(seed)
    store = folder / "store"
    with open(store, "wb") as file:
        file.truncate(STORE)
    run("mkfs.xfs", "-q", "-m", "reflink=1", store)
    try:
        with mounted(store) as place:
            image = place / "busy"
            with open(image, "wb") as file:
                file.truncate(size)
            run(*mkfs, image)
            with mounted(image, options) as target:
                command = [sys.executable, __file__, str(target), str(seed)]
                with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0) as writer:
                    assert writer.stdout is not None
                    assert writer.stderr is not None
                    try:
                        for number in range(count):
                            steps = chance.randrange(1, MOST_STEPS)
                            while steps:
                                done = len(writer.stdout.read(steps) or b"")
                                if not done:
                                    raise RuntimeError(f"the writer ended: {writer.stderr.read()!r}")
                                steps -= done
                            snapshot, replayed = place / f"snapshot-{number}", place / f"replayed-{number}"
                            clone(image, snapshot)
                            clone(snapshot, replayed)
                            with mounted(replayed, replay) as kernel:
                                facts = truth.kernel(kernel)
                            replayed.unlink()
                            yield snapshot, facts
                            snapshot.unlink()
                    finally:
                        writer.kill()
    finally:
        store.unlink()


def compared(images: Iterable[tuple[Path, Facts]], open_it: Callable[..., FileSystem]) -> int:
    """Each image is told as the truth beside it tells, without a warning; of how many that took the journal."""
    needed = 0
    for number, (image, facts) in enumerate(images):
        with opened(image) as disk:
            fs = open_it(disk)
            assert truth.differences(facts, truth.told(fs)) == [], f"moment {number}, {fs.about.journal}"
            assert fs.warnings == []
            without = truth.told(open_it(disk, replay=False), content=False)
            needed += bool(truth.differences(facts, without, frozenset({"content"})))
    return needed


# -- the writer, a program of its own


class Writer:
    """Random steps in a small tree."""

    def __init__(self, root: str, seed: int) -> None:
        self.random = random.Random(seed)
        self.root = root
        self.folders = [root]
        self.files: list[str] = []
        self.made = 0
        self.steps: list[tuple[int, Callable[[], object]]] = [
            (12, self.create),
            (8, self.write),
            (6, self.rename),
            (8, self.remove),
            (4, self.truncate),
            (6, self.sync_one),
            (3, self.folder),
            (1, self.remove_folder),
            (3, self.link),
            (4, self.attribute),
            (2, self.fallocate),
            (2, self.punch),
            (2, self.mode),
            (1, self.share),
            (1, self.burst),
        ]

    def run(self, count: int | None) -> None:
        """So many steps, or until it is killed; a point is printed after each."""
        weights = [weight for weight, _ in self.steps]
        for _ in itertools.count() if count is None else range(count):
            if self.random.randrange(400) == 0:
                os.sync()
            step = self.remove if len(self.files) > 250 else self.random.choices(self.steps, weights)[0][1]
            try:
                step()
            except OSError:
                pass  # a full disk, a folder that is not empty: as well a step
            os.write(1, b".")

    def new(self) -> str:
        self.made += 1
        return os.path.join(self.random.choice(self.folders), f"{self.made}-{'n' * self.random.randrange(60)}")

    def any(self) -> str:
        return self.random.choice(self.files) if self.files else self.create()

    def create(self) -> str:
        path = self.new()
        with open(path, "xb") as file:
            file.write(self.random.randbytes(self.random.choice((0, 10, 3000, 20000, 100000))))
        self.files.append(path)
        return path

    def write(self) -> None:
        fd = os.open(self.any(), os.O_WRONLY | os.O_NOFOLLOW)
        try:
            os.pwrite(fd, self.random.randbytes(self.random.randrange(1, 30000)), self.random.randrange(1 << 20))
        finally:
            os.close(fd)

    def rename(self) -> None:
        path = self.any()
        target = self.new() if self.random.randrange(3) else self.any()
        os.rename(path, target)
        self.files.remove(path)
        if target not in self.files:
            self.files.append(target)

    def remove(self) -> None:
        path = self.any()
        os.unlink(path)
        self.files.remove(path)

    def truncate(self) -> None:
        path = self.any()
        if not os.path.islink(path):
            os.truncate(path, self.random.randrange(200000))

    def sync_one(self) -> None:
        fd = os.open(self.any(), os.O_RDONLY | os.O_NOFOLLOW)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def folder(self) -> None:
        if len(self.folders) < 30:
            path = self.new()
            os.mkdir(path)
            self.folders.append(path)

    def remove_folder(self) -> None:
        """Even a full one, with all below it."""
        path = self.random.choice(self.folders[1:] or [self.new()])
        shutil.rmtree(path)
        below = path + os.sep
        self.folders = [f for f in self.folders if f != path and not f.startswith(below)]
        self.files = [f for f in self.files if not f.startswith(below)]

    def link(self) -> None:
        path = self.new()
        if self.random.randrange(2):
            os.symlink("t" * self.random.choice((5, 50, 400, 1000)), path)
        else:
            os.link(self.any(), path, follow_symlinks=False)
        self.files.append(path)

    def attribute(self) -> None:
        path = self.any()
        name = f"user.{self.random.randrange(20)}"
        if self.random.randrange(3):
            size = self.random.choice((0, 30, 700, 3000))
            os.setxattr(path, name, self.random.randbytes(size), follow_symlinks=False)
        else:
            os.removexattr(path, name, follow_symlinks=False)

    def fallocate(self) -> None:
        fd = os.open(self.any(), os.O_WRONLY | os.O_NOFOLLOW)
        try:
            os.posix_fallocate(fd, self.random.randrange(100000), self.random.randrange(1, 200000))
        finally:
            os.close(fd)

    def punch(self) -> None:
        at, length = self.random.randrange(100000), self.random.randrange(1, 100000)
        fd = os.open(self.any(), os.O_WRONLY | os.O_NOFOLLOW)
        try:
            ctypes.CDLL(None).fallocate(fd, PUNCH_HOLE, ctypes.c_int64(at), ctypes.c_int64(length))
        finally:
            os.close(fd)

    def mode(self) -> None:
        path = self.any()
        os.chown(path, self.random.randrange(70000), self.random.randrange(70000), follow_symlinks=False)
        os.utime(path, ns=(1, self.random.randrange(1 << 62)), follow_symlinks=False)

    def share(self) -> None:
        """Blocks of one file in another; a file system without FICLONE refuses."""
        source, target = self.any(), self.create()
        with open(source, "rb") as one, open(target, "r+b") as two:
            fcntl.ioctl(two, FICLONE, one.fileno())

    def burst(self) -> None:
        """Many entries in one folder at once, most of them gone again."""
        folder = self.new()
        os.mkdir(folder)
        self.folders.append(folder)
        paths = [os.path.join(folder, f"{i}-{'b' * self.random.randrange(100)}") for i in range(80)]
        for path in paths:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
        for path in self.random.sample(paths, 60):
            os.unlink(path)
            paths.remove(path)
        self.files += paths


if __name__ == "__main__":
    Writer(sys.argv[1], int(sys.argv[2])).run(int(sys.argv[3]) if len(sys.argv) > 3 else None)
