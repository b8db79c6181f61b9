# SPDX-License-Identifier: Apache-2.0
"""Images that this machine's own kernel mounts (ext, XFS): made, filled, and told about by it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import which

import pytest

from tests.flr.corpus import cache, populate, truth
from tests.flr.corpus.truth import Facts


def run(*command: str | Path, give: bytes | None = None) -> str:
    """Its output; what it says on a failure is in the error."""
    done = subprocess.run([str(part) for part in command], input=give, capture_output=True)
    if done.returncode:
        raise RuntimeError(f"{command} ended with {done.returncode}: {done.stderr.decode()} {done.stdout.decode()}")
    return done.stdout.decode()


def need(*programs: str) -> None:
    """Skips the test unless root can mount here and the programs are there."""
    missing = [program for program in programs if which(program) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)} (packages e2fsprogs, xfsprogs)")
    if os.geteuid() != 0 or not os.path.exists("/dev/loop-control"):
        pytest.skip("needs root and loop devices: the kernel's own reading is the truth here")


@contextmanager
def mounted(image: Path, options: str = "") -> Iterator[Path]:
    """The image mounted through a loop device."""
    place = image.with_name(image.name + ".mnt")
    place.mkdir(exist_ok=True)
    run("mount", "-o", "loop" + ("," + options if options else ""), image, place)
    try:
        yield place
    finally:
        try:
            run("umount", place)
        except RuntimeError:
            run("umount", "--lazy", place)  # somebody holds a file of it: nothing of ours shall stay mounted
            raise
        place.rmdir()


class Made:
    """An image, and the truth about it."""

    def __init__(self, folder: Path) -> None:
        self.image = folder / "image"
        self.truth: Facts = truth.load(folder / "truth")


def made(
    name: str, size: int, mkfs: Sequence[str], fill: Callable[[Path], object], recipe: object = "", options: str = ""
) -> Made:
    """`mkfs` without the image's name. `fill` gets the mounted file system; the truth is read from a read-only mount."""

    def make(folder: Path) -> None:
        image = folder / "image"
        with open(image, "wb") as file:
            file.truncate(size)
        run(*mkfs, image)
        with mounted(image, options) as place:
            fill(place)
        with mounted(image, "ro" + ("," + options if options else "")) as place:
            truth.save(truth.kernel(place), folder / "truth")

    sources = cache.source(populate.__file__, truth.__file__, __file__)
    return Made(cache.made(name, (sources, size, mkfs, recipe, options), make))


def populated(
    name: str, size: int, mkfs: Sequence[str], seed: int = 1, many: int = 1000, big: int = 8 << 20, options: str = ""
) -> Made:
    """With `populate`'s whole set."""

    def fill(place: Path) -> None:
        populate.Populate(place, seed, many=many, big=big).all()

    return made(name, size, mkfs, fill, (seed, many, big), options)
