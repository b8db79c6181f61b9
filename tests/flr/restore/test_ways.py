# SPDX-License-Identifier: Apache-2.0
"""What every way to the original machine does, on each that there is."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flr.restore.target import RULES, Order, Rule, Status, Step, Target
from flr.restore.tool import decide

SUFFIX = "_RESTORED_20261127_231500"
ROOT = os.geteuid() == 0
OLD, NEW = 10**18, 1_500_000_000 * 10**9
"""Times in ns since 1970."""


def order(rule: Rule = "keep", *, privileges: bool = False) -> Order:
    return Order(os.urandom(4).hex(), rule, SUFFIX, privileges)


def above(folder: Path) -> Iterator[Step]:
    """Steps to a folder that is there; its number is 1000 at the end."""
    parent, parts = 0, folder.parts[1:]
    for k, part in enumerate(parts):
        number = 1000 if k == len(parts) - 1 else 900 + k
        yield Step(["folder", number, parent, part, {"mode": 0o755}, True, False])
        parent = number


def attributes(mode: int = 0o640, modified: int = OLD, **more: Any) -> dict[str, Any]:
    return {"mode": mode, "uid": os.geteuid(), "gid": os.getegid(), "mtime": modified, **more}


def file(number: int, name: str, data: bytes, made: dict[str, Any] | None = None, parent: int = 1000) -> Iterator[Step]:
    yield Step(["open", number, parent, name, len(data), made or attributes()])
    for at in range(0, len(data), 1 << 20):
        part = data[at : at + (1 << 20)]
        if part.strip(b"\0"):  # zeros are holes
            yield Step(["data", number, at, len(part)], part)
    yield Step(["close", number, hashlib.sha256(data).hexdigest()])


def link(number: int, name: str, target: str, parent: int = 1000) -> Step:
    return Step(["link", number, parent, name, target, attributes(0o777)])


def folder(number: int, name: str, parent: int = 1000, made: dict[str, Any] | None = None) -> Step:
    return Step(["folder", number, parent, name, made or attributes(0o750), False, False])


def run(way: Target, where: Path, steps: Sequence[Step], wanted: Order | None = None) -> dict[int, Status]:
    told: dict[int, Status] = {}

    def tell(status: Status) -> None:
        if status.state == "made":
            return
        assert status.number not in told, "an entry ended twice"
        told[status.number] = status

    way.run(wanted or order(), [*above(where), *steps], tell)
    assert not [name for name in names(where) if ".flr-" in name], "something was left"
    return told


def names(where: Path) -> list[str]:
    return sorted(str(path.relative_to(where)) for path in where.rglob("*"))


def test_files_folders_and_links_come_as_they_were(way: Target, tmp_path: Path) -> None:
    data = os.urandom(3 << 20) + bytes(5 << 20) + b"the end"
    steps = [
        folder(1, "kept"), *file(2, "big", data, attributes(0o604, NEW), 1), *file(3, "empty", b"", None, 1),
        link(4, "link", "../big", 1), link(5, "broken", "/nowhere/\udcff", 1), *file(6, "bad\udcff\nname", b"x"),
    ]  # fmt: skip
    told = run(way, tmp_path, steps)
    assert {number: status.state for number, status in told.items()} == dict.fromkeys(range(1, 7), "done")
    big = tmp_path / "kept/big"
    assert big.read_bytes() == data
    assert stat.S_IMODE(big.stat().st_mode) == 0o604
    assert big.stat().st_mtime_ns == NEW
    assert big.stat().st_blocks * 512 < len(data) - (4 << 20), "the hole takes room"
    assert (tmp_path / "kept/empty").read_bytes() == b""
    assert os.readlink(tmp_path / "kept/link") == "../big"
    assert os.readlink(os.fsencode(tmp_path / "kept/broken")) == b"/nowhere/\xff"
    assert (tmp_path / "bad\udcff\nname").read_bytes() == b"x"
    made = (tmp_path / "kept").stat()
    assert stat.S_IMODE(made.st_mode) == 0o750
    assert made.st_mtime_ns == OLD
    assert (tmp_path / "kept/link").lstat().st_mtime_ns == OLD


def put(place: Path, kind: str) -> None:
    if kind == "file":
        place.write_bytes(b"there")
    elif kind == "link":
        place.symlink_to("elsewhere")
    elif kind == "folder":
        place.mkdir()
    elif kind == "other":
        os.mkfifo(place)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", ["file", "link", "folder"])
def test_every_rule_over_everything_that_may_stand_there(way: Target, tmp_path: Path, rule: Rule, kind: str) -> None:
    expected: dict[int, tuple[str, str]] = {}
    steps: list[Step] = []
    number = 0
    for there in ("", "file", "link", "folder", "other"):
        for modified, newer in ((NEW, True), (OLD, False)):
            number += 1
            name = f"{there or 'nothing'} {number}"
            place = tmp_path / name
            put(place, there)
            stands = OLD if newer else NEW
            if there:
                os.utime(place, ns=(stands, stands), follow_symlinks=False)
            made = attributes(0o640, modified)
            if kind == "file":
                steps += file(number, name, b"restored", made)
            elif kind == "link":
                steps.append(Step(["link", number, 1000, name, "restored", made]))
            else:
                steps.append(folder(number, name, made=made))
                steps += file(100 + number, "within", b"restored", made, number)
            expected[number] = decide(rule, kind, modified, there, stands), there
    told = run(way, tmp_path, steps, order(rule))
    for number, (choice, there) in expected.items():
        place = tmp_path / f"{there or 'nothing'} {number}"
        beside = tmp_path / (place.name + SUFFIX)
        state = {"refuse": "failed", "skip": "skipped"}.get(choice, "done")
        assert told[number].state == state, (choice, told[number])
        assert told[number].name == (beside.name if choice == "beside" else "")
        assert os.path.lexists(beside) == (choice == "beside")
        if choice == "skip" or choice == "refuse" or choice == "beside":
            same = {"file": place.is_file, "link": place.is_symlink, "folder": place.is_dir, "other": place.is_fifo}
            assert same[there](), "what stood there is not there any more"
        where = beside if choice == "beside" else place
        if kind == "file" and choice in ("make", "replace", "beside"):
            assert not where.is_symlink()
            assert where.read_bytes() == b"restored"
        if kind == "link" and choice in ("make", "replace", "beside"):
            assert os.readlink(where) == "restored"
        if kind == "folder":
            inside = {"failed": "failed", "skipped": "skipped", "done": "done"}[state]
            assert told[100 + number].state == inside
            assert (where / "within").is_file() == (state == "done")
    assert not (tmp_path / "elsewhere").exists(), "a link was followed"


def test_a_link_in_the_way_is_never_followed(way: Target, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link").symlink_to(outside)
    steps = [
        Step(["folder", 1, 1000, "link", {"mode": 0o755}, True, False]), *file(2, "through", b"x", None, 1),
        folder(3, "link"), *file(4, "through", b"x", None, 3), *file(5, "sound", b"x"),
    ]  # fmt: skip
    for rule in RULES:
        told = run(way, inside, steps, order(rule))
        assert told[1].state == "failed"
        assert "link" in told[1].text
        assert str(outside) in told[1].text
        assert told[2].state == "failed"
        assert os.listdir(outside) == []
        assert (inside / "sound").read_bytes() == b"x"
        assert os.readlink(inside / "link") == str(outside)


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "/etc", "a\0b"])
def test_a_name_that_leads_elsewhere_is_refused(way: Target, tmp_path: Path, name: str) -> None:
    steps = [
        folder(1, name),
        *file(2, "x", b"x", None, 1),
        *file(3, name, b"x"),
        link(4, name, "x"),
        *file(5, "y", b"y"),
    ]
    told = run(way, tmp_path, steps)
    assert [told[k].state for k in range(1, 6)] == ["failed"] * 4 + ["done"]
    assert names(tmp_path) == ["y"]


def test_what_is_not_what_was_sent_never_gets_its_name(way: Target, tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"as it was")
    wrong = [step if step.line[0] != "data" else step._replace(data=b"XXX") for step in file(1, "there", b"abc")]
    short = [*file(2, "short", b"abcdef")]
    short[1] = Step(["data", 2, 0, 6], b"abc")
    late = [
        Step(["open", 3, 1000, "late", 4, attributes()]),
        Step(["data", 3, 2, 2], b"ab"),
        Step(["data", 3, 0, 2], b"ab"),
    ]
    long = [Step(["open", 4, 1000, "long", 1, attributes()]), Step(["data", 4, 0, 2], b"ab")]
    never = [Step(["open", 5, 1000, "never", 1, attributes()])]
    told = run(way, tmp_path, [*wrong, *short, *late, *long, *never, *file(6, "good", b"good")], order("overwrite"))
    assert {number: status.state for number, status in told.items()} == {
        **dict.fromkeys(range(1, 6), "failed"),
        6: "done",
    }
    assert "SHA-256" in told[1].text
    assert names(tmp_path) == ["good", "there"]
    assert (tmp_path / "there").read_bytes() == b"as it was"


def test_rights_come_back_only_if_asked_for(way: Target, tmp_path: Path) -> None:
    for privileges, mode in ((False, 0o755), (True, 0o6755)):
        told = run(
            way, tmp_path, [*file(1, "tool", b"x", attributes(0o6755))], order("overwrite", privileges=privileges)
        )
        assert stat.S_IMODE((tmp_path / "tool").stat().st_mode) == mode
        assert told[1].state == ("done" if privileges else "warning")


def test_attributes_and_owners(way: Target, tmp_path: Path) -> None:
    value = base64.b64encode(b"value").decode()
    made = attributes(xattrs={"user.colour": value})
    if ROOT:
        made |= {"uid": 12345, "gid": 54321}
    told = run(way, tmp_path, [*file(1, "file", b"x", made), folder(2, "folder", made={**made, "mode": 0o700})])
    found = (tmp_path / "file").stat()
    assert (found.st_uid, found.st_gid) == (made["uid"], made["gid"])
    if way.name == "SFTP":
        assert told[1].state == "warning"
        assert "user.colour" in told[1].text
        assert any("attributes" in text for text in way.state().lacks)
    else:
        assert told[1].state == told[2].state == "done"
        assert os.getxattr(tmp_path / "file", "user.colour") == b"value"
        assert os.getxattr(tmp_path / "folder", "user.colour") == b"value"


def test_a_restored_name_that_is_taken_gets_a_number(way: Target, tmp_path: Path) -> None:
    for _ in range(3):
        run(way, tmp_path, [*file(1, "a", b"x"), *file(2, "é" * 127, b"x")])
    assert [name for name in names(tmp_path) if name[0] == "a"] == ["a", f"a{SUFFIX}", f"a{SUFFIX}_2"]
    assert all(len(name.encode()) <= 255 for name in names(tmp_path))
    assert len(names(tmp_path)) == 6


def test_what_stands_there_is_told(way: Target, tmp_path: Path) -> None:
    for kind in ("file", "link", "folder", "other"):
        put(tmp_path / kind, kind)
    os.utime(tmp_path / "file", ns=(OLD, OLD))
    paths = [
        str(tmp_path / name)
        for name in ("file", "link", "folder", "other", "none", "link/x", "none/x", "file/x", "file")
    ]
    found, free = way.look(str(tmp_path), paths)
    assert [one.kind for one in found] == ["file", "link", "folder", "other", "", "blocked", "", "blocked", "file"]
    assert (found[0].size, found[0].modified) == (5, OLD)
    assert "link" in found[5].why
    assert "not a folder" in found[7].why
    room = os.statvfs(tmp_path)
    assert free is not None
    assert abs(free - room.f_bavail * room.f_frsize) < 1 << 30
    assert way.look("/", ["/"])[0][0].kind == "folder"


def test_a_full_disk_fails_its_file_and_leaves_nothing(way: Target, tmp_path: Path) -> None:
    if not ROOT:
        pytest.skip("needs root: a small file system is mounted")
    small = tmp_path / "small"
    small.mkdir()
    assert os.system(f"mount -t tmpfs -o size=2m none {small}") == 0
    try:
        told = run(way, small, [*file(1, "big", os.urandom(8 << 20)), *file(2, "little", b"x")])
        assert told[1].state == "failed"
        assert told[1].text
        assert told[2].state == "done"
        assert names(small) == ["little"]
    finally:
        assert os.system(f"umount {small}") == 0


def test_what_is_no_file_is_not_written_through(way: Target, tmp_path: Path) -> None:
    """A socket under the name of the file that is written beside another one's place would be a trap."""
    with socket.socket(socket.AF_UNIX) as trap:
        trap.bind(str(tmp_path / "place"))
        told = run(way, tmp_path, [*file(1, "place", b"x")], order("overwrite"))
    assert told[1].state == "failed"
    assert stat.S_ISSOCK((tmp_path / "place").lstat().st_mode)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tree=st.recursive(
        st.binary(max_size=2000),
        lambda inner: st.dictionaries(
            st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=40).filter(
                lambda name: name not in (".", "..") and len(name.encode()) < 200
            ),
            inner,
            max_size=5,
        ),
        max_leaves=20,
    )
)
def test_any_tree_comes_back(way: Target, tmp_path: Path, tree: Any) -> None:
    place = tmp_path / os.urandom(8).hex()
    place.mkdir()
    steps: list[Step] = []
    expected: dict[str, bytes | None] = {}

    def walk(inner: Any, name: str, path: str, parent: int) -> None:
        number = len(steps) + 1
        if isinstance(inner, bytes):
            steps.extend(file(number, name, inner, None, parent))
            expected[path] = inner
        else:
            steps.append(folder(number, name, parent))
            expected[path] = None
            for key, value in inner.items():
                walk(value, key, f"{path}/{key}", number)

    walk(tree, "top", "top", 1000)
    told = run(way, place, steps)
    assert {status.state for status in told.values()} == {"done"}
    assert len(told) == len(expected)
    assert {name: None if (place / name).is_dir() else (place / name).read_bytes() for name in names(place)} == expected
