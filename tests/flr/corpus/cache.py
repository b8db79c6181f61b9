# SPDX-License-Identifier: Apache-2.0
"""Where made images are kept: outside the tree, under a name that changes with whatever makes them.

`DATA_MOVER_CORPUS` names the folder; by default it is the user's cache. An image is made beside its place and renamed, so a
broken run leaves nothing that is taken for whole. Images are sparse and never written after they were made.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

KEPT = 2
"""Versions of an image that stay: this tree's and the one before."""


def folder() -> Path:
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "data-mover" / "corpus"
    return Path(os.environ.get("DATA_MOVER_CORPUS") or default)


def made(name: str, recipe: object, make: Callable[[Path], None]) -> Path:
    """The folder `name`, made by `make(empty folder)` unless there is one of the same recipe.

    `recipe` is whatever the content depends on, by its repr; sources of the makers belong into it (`source`).
    """
    version = hashlib.sha256(repr(recipe).encode()).hexdigest()[:16]
    home = folder() / name
    home.mkdir(parents=True, exist_ok=True)
    place = home / version
    with open(home / ".lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if place.is_dir():
            os.utime(place)
            return place
        work = home / f".making-{version}"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        make(work)
        work.rename(place)
        others = sorted((d for d in home.iterdir() if d.is_dir()), key=lambda d: d.stat().st_mtime, reverse=True)
        for old in others[KEPT:]:
            shutil.rmtree(old)
    return place


def source(*files: str) -> str:
    """A digest of files, for a recipe."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(Path(file).read_bytes())
    return digest.hexdigest()
