# SPDX-License-Identifier: Apache-2.0
"""From a restore list to a machine that lost files, over every real way, by every rule; stopped, retried, with what it meets told
before."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flr.recovery.audit import Audit
from flr.recovery.desk import Desk
from flr.recovery.life import Life
from flr.recovery.points import Points
from flr.restore.restoration import Restoration, Wish, document
from flr.restore.steps import Entry
from flr.restore.target import RULES, Rule, Status, Target
from mover.clock import SYSTEM
from mover.errors import UsageError
from tests.flr.restore import lost

SHOP = b"/shop"


@contextmanager
def desk_over(image: Path | Points, target: Target | None) -> Iterator[Desk]:
    audit = Audit(SYSTEM)
    points = lost.points(image) if isinstance(image, Path) else image
    with Desk(points, Life(SYSTEM), audit, target=target) as desk:
        yield desk


@pytest.fixture
def desk(image: Path, target: Target) -> Iterator[Desk]:
    with desk_over(image, target) as made:
        yield made


class Told:
    """How entries ended, by their path on the volume."""

    def __init__(self) -> None:
        self.by_path: dict[bytes, tuple[Status, str]] = {}

    def __call__(self, entry: Entry, status: Status, digest: str) -> None:
        assert entry.path not in self.by_path, "an entry ended twice"
        self.by_path[entry.path] = status, digest

    def states(self) -> dict[bytes, str]:
        return {path: status.state for path, (status, _) in self.by_path.items()}


def restored(desk: Desk, told: Told, *paths: bytes, **more: Any) -> Restoration:
    restores, _ = desk.restores()
    assert restores is not None
    desk.basket.clear()
    items = desk.basket.add([("disks", "0", path) for path in paths])
    made = restores.start(Wish(tuple(items), **more), told)
    assert made.over.wait(120)
    return made


def previewed(desk: Desk, *paths: bytes, folder: bytes = b"") -> dict[str, Any]:
    restores, _ = desk.restores()
    assert restores is not None
    items = desk.basket.look([("disks", "0", path) for path in paths])
    made = restores.look(items, folder)
    assert made.over.wait(120)
    assert made.error is None, made.error
    return made.document()


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_over_a_machine_that_lost_half(desk: Desk, machine: Path, image: Path, rule: Rule) -> None:
    shop = machine / "data/shop"
    before = lost.taken(shop)
    seen = previewed(desk, SHOP)
    told = Told()
    made = restored(desk, told, SHOP, rule=rule)
    assert made.state == "done", made.error
    after = lost.taken(shop)
    suffix = made.suffix
    # What nobody had is there; what was there is as the rule says.
    for k in range(21, 41):
        assert after[f"orders/2026/order {k:03}.xml"] == ("file", lost.content(f"order {k}", 2000 + 37 * k))
    assert after["current"] == ("link", b"orders/2026")
    assert after["disk.img"][1] == bytes(40 << 20) + lost.content("sparse", 70_000) + bytes((24 << 20) - 70_000)
    assert (shop / "disk.img").stat().st_blocks * 512 < 1 << 20
    assert after["first"] == after["second"] == ("file", b"of two names\n")
    assert (shop / "first").stat().st_nlink == 1
    assert "pipe" not in after
    assert told.states()[b"/shop/pipe"] == "skipped"
    assert stat.S_IMODE((shop / "tool").stat().st_mode) == 0o755
    assert told.states()[b"/shop/tool"] == "warning"
    whole = lost.content("catalogue", lost.BIG)
    assert after["catalogue.db"][1] == (whole if rule in ("overwrite", "newer") else b"it is damaged")
    euro = b"[shop]\ncurrency = 'EUR'\n"
    assert after["settings.toml"][1] == (euro if rule == "overwrite" else before["settings.toml"][1])
    if rule == "keep":
        assert after["catalogue.db" + suffix][1] == whole
        assert after["settings.toml" + suffix][1] == euro
        assert len([name for name in after if name.endswith(suffix)]) == 22
    else:
        assert not [name for name in after if "_RESTORED_" in name]
    place = shop / ("settings.toml" + suffix if rule == "keep" else "settings.toml")
    if rule in ("keep", "overwrite"):
        assert (place.stat().st_uid, place.stat().st_gid, stat.S_IMODE(place.stat().st_mode)) == (1000, 1000, 0o640)
        assert place.stat().st_mtime == lost.OLD
        if desk.restores()[0].target.name != "SFTP":  # type: ignore[union-attr]
            assert os.getxattr(place, "user.note") == b"as it was"
    assert (shop / "tool").stat().st_uid == 1000
    # The preview said so before anything was written.
    counts = seen["rules"][rule]
    sums = document(made)["counts"]
    assert counts["skip"] == sums["skipped"] - 1  # the pipe
    assert counts["refuse"] == sums["failed"] == 0
    assert counts["make"] + counts["beside"] + counts["replace"] + counts["merge"] == sums["done"] + sums["warning"]
    assert seen["conflict_count"] == 22
    assert seen["left_out"] == 1
    assert seen["bytes"] == document(made)["total"]
    # And every file that was written has the sum that stands in the log.
    assert not [path for path, (status, digest) in told.by_path.items() if len(digest) not in (0, 64)]
    assert told.by_path[b"/shop/first"][1]


def test_what_is_lost_whole_comes_back_as_it_was(desk: Desk, machine: Path) -> None:
    """Also the folders above it, with their owners."""
    import shutil

    shutil.rmtree(machine / "data/shop")
    told = Told()
    made = restored(desk, told, b"/shop/orders/2026/order 007.xml", b"/shop/current", rule="skip")
    assert made.state == "done"
    assert lost.taken(machine / "data/shop") == {
        "orders": ("folder", b""), "orders/2026": ("folder", b""), "current": ("link", b"orders/2026"),
        "orders/2026/order 007.xml": ("file", lost.content("order 7", 2000 + 37 * 7)),
    }  # fmt: skip
    for path in (machine / "data/shop", machine / "data/shop/orders"):
        assert path.stat().st_uid == 1000
        assert path.stat().st_mtime == lost.OLD


def test_into_another_folder(desk: Desk, machine: Path) -> None:
    told = Told()
    made = restored(desk, told, b"/shop/orders", b"/shop/first", rule="keep", folder=b"/srv/found/here")
    assert made.state == "done", made.error
    found = machine / "found/here"
    assert (found / "first").read_bytes() == b"of two names\n"
    assert len(list((found / "orders/2026").iterdir())) == 40
    made = restored(desk, Told(), b"/shop/first", b"/etc/passwd", rule="keep", folder=b"/srv/found/two")
    assert (machine / "found/two/shop/first").is_file()
    assert (machine / "found/two/etc/passwd").is_file()


@pytest.mark.parametrize("folder", ["srv", "/srv/../etc", "relative/x", "/" + "x" * 300])
def test_a_folder_that_is_none(desk: Desk, folder: str) -> None:
    with pytest.raises(UsageError):
        restored(desk, Told(), SHOP, rule="keep", folder=folder.encode())
    with pytest.raises(UsageError):
        previewed(desk, SHOP, folder=folder.encode())


def test_a_link_on_the_way_is_told_and_not_followed(desk: Desk, machine: Path) -> None:
    (machine / "elsewhere").mkdir()
    (machine / "door").symlink_to("elsewhere")
    told = Told()
    made = restored(desk, told, b"/shop/first", rule="keep", folder=b"/srv/door")
    assert set(told.states().values()) == {"failed"}
    assert "door -> elsewhere" in made.problems[0]
    seen = previewed(desk, b"/shop/first", folder=b"/srv/door")
    assert "door -> elsewhere" in seen["blocked"][0]["why"]
    assert list((machine / "elsewhere").iterdir()) == []


def test_what_failed_can_be_tried_again(desk: Desk, machine: Path) -> None:
    """A folder stands where files go; the one who sees it takes it away, and only what failed is done again."""
    shop = machine / "data/shop"
    (shop / "catalogue.db").unlink()
    (shop / "catalogue.db").mkdir()
    (shop / "orders/2026/order 030.xml").mkdir()
    told = Told()
    restores, _ = desk.restores()
    assert restores is not None
    made = restored(desk, told, SHOP, b"/etc/passwd", rule="overwrite")
    failed = {path for path, state in told.states().items() if state == "failed"}
    assert failed == {b"/shop/catalogue.db", b"/shop/orders/2026/order 030.xml"}
    assert document(made)["retry"]
    (shop / "catalogue.db").rmdir()
    (shop / "orders/2026/order 030.xml").rmdir()
    again = Told()
    second = restores.start(Wish((), "keep"), again, after=made.id)
    assert second.over.wait(120)
    assert again.states() == dict.fromkeys(failed, "done")
    assert (shop / "catalogue.db").read_bytes() == lost.content("catalogue", lost.BIG)
    assert not made.retries
    for over in (made, second):
        with pytest.raises(UsageError):
            restores.start(Wish((), "keep"), told, after=over.id)


def test_stopped_in_the_middle_it_leaves_whole_files_only(desk: Desk, machine: Path) -> None:
    shop = machine / "data/shop"
    before = lost.taken(shop)
    restores, _ = desk.restores()
    assert restores is not None
    items = desk.basket.add([("disks", "0", b"/shop"), ("disks", "0", b"/etc")])
    some = threading.Event()
    told = Told()

    def tell(entry: Entry, status: Status, digest: str) -> None:
        told(entry, status, digest)
        some.set()

    made = restores.start(Wish(tuple(items), "overwrite"), tell)
    with pytest.raises(UsageError):
        restores.start(Wish(tuple(items), "keep"), told)
    made.stop.set()
    assert made.over.wait(60)
    assert made.state == "stopped"
    after = lost.taken(shop)
    assert not [name for name in after if ".flr-" in name]
    original = lost.content("catalogue", lost.BIG)
    for name, (kind, data) in after.items():
        if name == "catalogue.db":
            assert data in (before[name][1], original)
        elif name.startswith("orders/2026/") and kind == "file":
            assert data == lost.content(f"order {int(name[-7:-4])}", len(data))
    told.by_path.clear()
    second = restores.start(Wish((), "keep"), told, after=made.id)
    assert second.over.wait(120)
    assert second.state == "done"
    assert (shop / "catalogue.db").read_bytes() == original
    assert (machine / "data/etc/passwd").is_file()
