# SPDX-License-Identifier: Apache-2.0
"""A machine that lost files: a restore point of its data disk, which it has at /srv/data, and what stands there now."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from flr.recovery.points import DiskPoints, PointInfo, Points
from flr.virtual.disk import VirtualDisk
from flr.virtual.open import open_sources
from mover.disk.source import FileSource
from tests.flr.corpus.mounted import mounted, run

BIG = 24 << 20
OLD, NEW = 1_700_000_000, 1_780_000_000
"""When files were changed, in seconds since 1970."""


def content(name: str, size: int) -> bytes:
    return random.Random(name).randbytes(size)


def fill(place: Path) -> None:
    (place / "etc").mkdir()
    (place / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nanna:x:1000:1000::/home/anna:/bin/sh\n")
    (place / "etc/fstab").write_text("LABEL=data /srv/data ext4 defaults 0 1\n")
    shop = place / "shop"
    (shop / "orders/2026").mkdir(parents=True)
    for k in range(1, 41):
        (shop / f"orders/2026/order {k:03}.xml").write_bytes(content(f"order {k}", 2000 + 37 * k))
    (shop / "catalogue.db").write_bytes(content("catalogue", BIG))
    with open(shop / "disk.img", "wb") as sparse:
        sparse.truncate(64 << 20)
        sparse.seek(40 << 20)
        sparse.write(content("sparse", 70_000))
    (shop / "settings.toml").write_text("[shop]\ncurrency = 'EUR'\n")
    (shop / "current").symlink_to("orders/2026")
    (shop / "first").write_text("of two names\n")
    os.link(shop / "first", shop / "second")
    os.mkfifo(shop / "pipe")
    (shop / "tool").write_text("#!/bin/sh\n")
    os.setxattr(shop / "settings.toml", "user.note", b"as it was")
    for path in [shop, *shop.rglob("*")]:
        os.lchown(path, 1000, 1000)
    (shop / "tool").chmod(0o4755)
    (shop / "settings.toml").chmod(0o640)
    for path in [*reversed(list(shop.rglob("*"))), shop]:
        os.utime(path, (OLD, OLD), follow_symlinks=False)


def image_of(folder: Path) -> Path:
    image = folder / "data.img"
    with open(image, "wb") as file:
        file.truncate(160 << 20)
    run("mkfs.ext4", "-q", "-L", "data", image)
    with mounted(image) as place:
        fill(place)
    return image


def points(image: Path) -> DiskPoints:
    return DiskPoints("shop-vm", None, lambda: [FileSource(str(image), name="data")])


class _Several:
    """One image after the other, as restore points of one machine."""

    resource = "shop-vm"

    def __init__(self, images: Sequence[Path]) -> None:
        self._images = {f"point {k}": image for k, image in enumerate(images)}

    def all(self) -> list[PointInfo]:
        return [PointInfo(name, None, "disks", ["data"], image.stat().st_size) for name, image in self._images.items()]

    def open(self, identifier: str) -> AbstractContextManager[list[VirtualDisk]]:
        return open_sources([FileSource(str(self._images[identifier]), name="data")])


def several(images: Sequence[Path]) -> Points:
    """Their ids are "point 0", "point 1" and so on."""
    return _Several(images)


def now_there(machine: Path) -> Path:
    """The machine's data disk as it is today: half of the orders are gone, settings were changed since, the catalogue is older."""
    shop = machine / "data/shop"
    (shop / "orders/2026").mkdir(parents=True)
    for k in range(1, 21):
        (shop / f"orders/2026/order {k:03}.xml").write_bytes(content(f"order {k}", 2000 + 37 * k))
    (shop / "settings.toml").write_text("[shop]\ncurrency = 'USD'\n")
    (shop / "catalogue.db").write_bytes(b"it is damaged")
    for path in shop.rglob("*"):
        when = NEW if path.name == "settings.toml" else OLD - 1000 if path.name == "catalogue.db" else OLD
        os.utime(path, (when, when))
    return shop


def taken(shop: Path) -> dict[str, tuple[str, bytes]]:
    """Everything that stands there: its kind and content."""
    found = {}
    for path in shop.rglob("*"):
        kind = "link" if path.is_symlink() else "folder" if path.is_dir() else "file" if path.is_file() else "other"
        data = os.fsencode(os.readlink(path)) if kind == "link" else path.read_bytes() if kind == "file" else b""
        found[str(path.relative_to(shop))] = kind, data
    return found


@contextmanager
def machine_in(folder: Path) -> Iterator[Path]:
    """A folder that is a machine's /srv."""
    machine = folder / "machine"
    machine.mkdir()
    now_there(machine)
    yield machine
