# SPDX-License-Identifier: Apache-2.0
"""What goes wrong between worker and machine while files go back: words that are lost, tools that are two, machines that change
meanwhile. A restore always ends, says what it knows, and can be gone on with."""

from __future__ import annotations

import hashlib
import http.server
import os
import shutil
import signal
import stat
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flr.errors import Unreadable
from flr.fs.base import Attributes
from flr.recovery.desk import Desk
from flr.restore import through_tool, tool
from flr.restore.mailbox import FolderMailbox
from flr.restore.restoration import Restoration, Wish, document
from flr.restore.sftp import SftpTarget
from flr.restore.target import Order, Rule, Status, Step, Target, TargetGone
from flr.restore.through_tool import ToolTarget
from flr.walk import Part, walk
from mover.clock import SYSTEM
from mover.errors import StoreUnavailable, TargetError
from tests.agent.waiting import wait_for
from tests.flr.restore import lost
from tests.flr.restore.test_restoration import Told, desk_over
from tests.flr.restore.test_ways import NEW, OLD, above, attributes, file, folder, link, order, run
from tests.flr.restore.ways import Sshd, connected, started

SHOP = ("disks", "0", b"/shop")


class Flaky(FolderMailbox):
    """`lose(message)`: whether a reply is lost on its way; `fail`: how many sends fail, the message lost or not."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.lose: Callable[[bytes], bool] = lambda message: False
        self.lose_request: Callable[[bytes], bool] = lambda message: False
        self.fails = 0

    def take(self) -> list[bytes]:
        return [message for message in super().take() if not self.lose(message)]

    def send(self, message: bytes) -> None:
        if self.fails:
            self.fails -= 1
            raise StoreUnavailable("the queue's service does not answer", "503")
        if not self.lose_request(message):
            super().send(message)


@contextmanager
def hurried(folder: Path, machine: Path | None = None, box: FolderMailbox | None = None) -> Iterator[ToolTarget]:
    """A tool that speaks every second, and a worker that loses patience in five."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(through_tool, "SILENCE_SECONDS", 5.0)
        patch.setattr(through_tool, "GAP_SECONDS", 2.0)
        target = ToolTarget(box or FolderMailbox(folder / "box"), SYSTEM, SYSTEM.wall() + 600)
        target._source = target._source.replace(b"HERE_SECONDS = 20.0", b"HERE_SECONDS = 0.5")
        target.open()
        running = started(target, machine)
        try:
            connected(target)
            yield target
        finally:
            target.close()
            running.communicate(timeout=30)


def begun(desk: Desk, told: Told, rule: Rule = "keep", *places: tuple[str, str, bytes]) -> Restoration:
    restores, _ = desk.restores()
    assert restores is not None
    items = desk.basket.add(places or [SHOP])
    return restores.start(Wish(tuple(items), rule), told)


def again(desk: Desk, made: Restoration, told: Told) -> Restoration:
    restores, _ = desk.restores()
    assert restores is not None
    second = restores.start(Wish((), "keep"), told, after=made.id)
    assert second.over.wait(60)
    return second


def kill_in_the_middle(
    target: ToolTarget, running: subprocess.Popen[bytes], ready: Callable[[], object]
) -> threading.Event:
    """The tool dies once, while a large file is on its way and as soon as it is `ready`; the event tells of it."""
    target_run, killed = target.run, threading.Event()

    def run_and_kill(order: Order, steps: Iterator[Step], tell: Callable[[Status], None]) -> None:
        def some() -> Iterator[Step]:
            for step in steps:
                yield step
                if step.line[0] == "data" and step.line[2] >= 16 << 20 and not killed.is_set():
                    wait_for(ready)
                    running.kill()
                    running.communicate()
                    killed.set()

        target_run(order, some(), tell)

    target.run = run_and_kill  # type: ignore[method-assign, assignment]
    return killed


def test_a_lost_reply_ends_the_restore_and_the_next_one_does_the_rest(
    image: Path, tmp_path: Path, machine: Path
) -> None:
    box = Flaky(tmp_path / "box")
    count = iter(range(10**6))
    with hurried(tmp_path, machine, box) as target, desk_over(image, target) as desk:
        box.lose = lambda message: b"rows" in message and next(count) == 0
        told = Told()
        made = begun(desk, told)
        assert made.over.wait(60)
        assert made.state == "failed"
        assert made.error is not None
        assert "lost" in made.error.what
        assert any("not known" in text for text in made.problems)
        assert target.state().ready
        second = again(desk, made, Told())
        assert second.state == "done", second.error
        assert not second.retries
    whole = lost.content("catalogue", lost.BIG)
    assert any(path.read_bytes() == whole for path in (machine / "data/shop").glob("catalogue.db*"))


def test_a_lost_request_is_sent_again(tmp_path: Path) -> None:
    box = Flaky(tmp_path / "box")
    seen: set[bytes] = set()

    def first_time(message: bytes) -> bool:
        fresh = b'"welcome"' not in message and message not in seen
        seen.add(message)
        return fresh

    with hurried(tmp_path, None, box) as target:
        box.lose_request = first_time
        where = tmp_path / "out"
        where.mkdir()
        assert {status.state for status in run(target, where, list(file(1, "a", b"x"))).values()} == {"done"}
        assert (where / "a").read_bytes() == b"x"


def test_a_send_that_failed_costs_nothing(tmp_path: Path) -> None:
    """Whether it arrived or not: it is sent again, and carried out once."""
    box = Flaky(tmp_path / "box")
    with hurried(tmp_path, None, box) as target:
        where = tmp_path / "out"
        where.mkdir()
        box.fails = 2
        assert run(target, where, list(file(1, "a", b"x")))[1].state == "done"
        assert os.listdir(where) == ["a"]


def test_the_second_tool_takes_over(tmp_path: Path) -> None:
    """Somebody runs the script again: the first tool leaves what is the second one's, and ends."""
    with hurried(tmp_path) as target:
        first_word = target._greeted[-1]
        second = started(target)
        wait_for(lambda: target._greeted[-1] != first_word)
        for _ in range(20):
            assert target.look("/", ["/etc"])[0][0].kind == "folder"
        assert len(target._greeted) == 2
        target.close()
        second.communicate(timeout=30)


@pytest.mark.parametrize(
    "row", [[1, "great", "", ""], [1], ["x", "done", "", ""], 7, [1, "done", "", "", ""], [1, "done", 5, ""]]
)
def test_a_machine_that_says_what_cannot_be_ends_the_restore(tmp_path: Path, row: Any) -> None:
    """It has the key, and may be in anybody's hands."""
    with hurried(tmp_path) as target:
        where = tmp_path / "out"
        where.mkdir()
        take = target._mailbox.take

        def forged() -> list[bytes]:
            made = []
            for data in take():
                message = tool.opened(target._out, data)
                if message is not None and message[2].get("is") == "rows":
                    data = tool.sealed(target._out, message[0], message[1], {**message[2], "rows": [row]})
                made.append(data)
            return made

        target._mailbox.take = forged  # type: ignore[method-assign]
        with pytest.raises(TargetGone, match="cannot be"):
            run(target, where, list(file(1, "a", b"x")))
        target._mailbox.take = take  # type: ignore[method-assign]
        assert target.look("/", ["/etc"])[0][0].kind == "folder"


def test_a_session_ends_although_its_tool_is_frozen(image: Path, tmp_path: Path, machine: Path) -> None:
    target = ToolTarget(FolderMailbox(tmp_path / "box"), SYSTEM, SYSTEM.wall() + 600)
    target.open()
    running = started(target, machine)
    connected(target)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flr.restore.restoration.STOP_SECONDS", 0.5)
        with desk_over(image, target) as desk:
            os.kill(running.pid, 19)  # SIGSTOP
            made = begun(desk, Told())
            wait_for(lambda: target._asked)
        assert made.over.is_set()  # at the end of the block, long before anybody would call it silent
    os.kill(running.pid, 18)
    running.communicate(timeout=30)


# -- what changes meanwhile


def test_what_was_changed_since_it_was_looked_at_is_judged_again(way: Target, tmp_path: Path) -> None:
    """By every rule: the person on the machine wrote the file while the restore's was on its way."""
    later = NEW + 10**12
    for rule, there in (("newer", b"theirs"), ("skip", b"theirs"), ("overwrite", b"restored"), ("keep", b"theirs")):
        place = tmp_path / rule
        if rule == "newer":
            place.write_bytes(b"old")
            os.utime(place, ns=(OLD, OLD))

        def steps(place: Path = place) -> Iterator[Step]:
            yield from above(tmp_path)
            for step in file(1, place.name, b"restored", attributes(modified=NEW)):
                if step.line[0] == "close":
                    yield from file(2, f"before {place.name}", b"x")  # so that the first steps were carried out
                    place.write_bytes(b"theirs")
                    os.utime(place, ns=(later, later))
                yield step

        told: dict[int, Status] = {}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(through_tool, "PACK_STEPS", 1)
            way.run(order(rule), steps(), lambda status, told=told: told.setdefault(status.number, status))  # type: ignore[misc]
        assert place.read_bytes() == there, rule
        assert told[1].state == ("skipped" if rule in ("newer", "skip") else "done")
        assert (tmp_path / "keep_RESTORED_20261127_231500").exists() == (rule == "keep")
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".flr-")]


@pytest.mark.parametrize(
    ("there", "restored", "replaced"), [(1000.8, 1000.2, False), (1000.2, 1001.1, True), (-5e8, 1000.0, True)]
)
def test_newer_knows_fractions_and_years_before_1970(
    way: Target, tmp_path: Path, there: float, restored: float, replaced: bool
) -> None:
    (tmp_path / "a").write_bytes(b"there")
    os.utime(tmp_path / "a", (there, there))
    run(way, tmp_path, list(file(1, "a", b"restored", attributes(modified=int(restored * 1e9)))), order("newer"))
    assert ((tmp_path / "a").read_bytes() == b"restored") == replaced


def test_a_file_of_before_1970_comes_back_with_its_time(way: Target, tmp_path: Path) -> None:
    told = run(way, tmp_path, list(file(1, "a", b"x", attributes(modified=-(10**18)))))
    if way.name == "SFTP":
        assert "none before 1970" in told[1].text
    else:
        assert told[1].state == "done"
        assert (tmp_path / "a").stat().st_mtime == -(10**9)


@pytest.mark.parametrize("target", ["", "a\0b", "x" * 4096])
def test_a_link_that_cannot_be_takes_no_other_with_it(way: Target, tmp_path: Path, target: str) -> None:
    told = run(way, tmp_path, [link(1, "bad", target), link(2, "good", "x" * 200), *file(3, "file", b"x")])
    assert [told[k].state for k in (1, 2, 3)] == ["failed", "done", "done"]


def test_more_remarks_than_a_message_holds(way: Target, tmp_path: Path) -> None:
    many = {f"user.{k:03}" + "x" * 200: "AAAA" for k in range(300)}
    bad = {f"nobody.{k:03}" + "x" * 200: "AAAA" for k in range(300)}
    made = [*file(1, "a", b"x", attributes(xattrs=bad)), *file(2, "b", b"x", attributes(xattrs=many))]
    told = run(way, tmp_path, made)
    assert told[1].state == "warning"
    assert len(told[1].text) < 2000 or way.name == "SFTP"


def test_half_files_of_a_dead_run_go_with_the_next(way: Target, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for place in (tmp_path, tmp_path / "in"):
        (place / ".flr-deadbeef-7.tmp").write_bytes(b"half")
        (place / ".flr-01020304-1.tmp").write_bytes(b"of somebody else")
    wanted = order()._replace(old=("deadbeef",))
    told: list[Status] = []
    way.run(wanted, [*above(tmp_path), folder(1, "in"), *file(2, "a", b"x", None, 1), *file(3, "b", b"x")], told.append)
    left = sorted(path.name for path in tmp_path.rglob(".flr-*"))
    assert left == [".flr-01020304-1.tmp"] * 2


def test_a_hole_of_a_terabyte_keeps_the_tool_audible(tmp_path: Path) -> None:
    """Zeros are summed, too, and that takes its time."""
    with hurried(tmp_path) as target, pytest.MonkeyPatch.context() as patch:
        patch.setattr(through_tool, "SILENCE_SECONDS", 1.5)
        where = tmp_path / "out"
        where.mkdir()
        digest = hashlib.sha256()
        size = 3 << 30
        for _ in range(size >> 20):
            digest.update(bytes(1 << 20))
        told: list[Status] = []
        steps = [Step(["open", 1, 1000, "hole", size, attributes()]), Step(["close", 1, digest.hexdigest()])]
        target.run(order(), [*above(where), *steps], told.append)
        assert [status.state for status in told] == ["done"]
        assert (where / "hole").stat().st_blocks * 512 < 1 << 20


# -- what a restore says of its items


def test_stopped_before_their_turn_items_are_not_restored(image: Path, tmp_path: Path, machine: Path) -> None:
    """With rules that look ahead, too."""
    names = (b"/shop/catalogue.db", b"/shop/disk.img", b"/shop/first", b"/shop/second")
    (machine / "data/shop/catalogue.db").unlink()
    with hurried(tmp_path, machine) as target, desk_over(image, target) as desk:
        target_run = target.run

        def run_slowly(order: Order, steps: Iterator[Step], tell: Callable[[Status], None]) -> None:
            def some() -> Iterator[Step]:
                for step in steps:
                    if step.line[0] == "data":
                        made.stop.set()
                    yield step

            go.wait(30)
            target_run(order, some(), tell)

        go = threading.Event()
        target.run = run_slowly  # type: ignore[method-assign, assignment]
        made = begun(desk, Told(), "skip", *(("disks", "0", name) for name in names))
        go.set()
        assert made.over.wait(60)
        states = {item["name"]: item["state"] for item in document(made)["items"]}
        assert made.state == "stopped"
        assert states == {"catalogue.db": "stopped", "disk.img": "stopped", "first": "stopped", "second": "stopped"}
        assert made.retries
        target.run = target_run  # type: ignore[method-assign]
        second = again(desk, made, Told())
        assert {item["state"] for item in document(second)["items"]} == {"done"}
    assert (machine / "data/shop/second").read_bytes() == b"of two names\n"


def test_an_item_within_another_one_has_its_state(image: Path, tmp_path: Path, machine: Path) -> None:
    with hurried(tmp_path, machine) as target, desk_over(image, target) as desk:
        made = begun(desk, Told(), "keep", ("disks", "0", b"/shop/orders"), ("disks", "0", b"/shop/orders/2026"))
        assert made.over.wait(60)
        assert {item["path"]: item["state"] for item in document(made)["items"]} == {
            "/shop/orders": "done", "/shop/orders/2026": "done",
        }  # fmt: skip
        assert not made.retries


def test_after_an_error_nothing_is_restored_twice(image: Path, tmp_path: Path, machine: Path) -> None:
    """Keep would leave a copy of each."""
    box = FolderMailbox(tmp_path / "box")
    target = ToolTarget(box, SYSTEM, SYSTEM.wall() + 600)
    target.open()
    first = started(target, machine)
    connected(target)
    with desk_over(image, target) as desk:
        told = Told()
        killed = kill_in_the_middle(target, first, told.states)
        made = begun(desk, told)
        assert killed.wait(60)
        second_tool = started(target, machine)
        assert made.over.wait(60)
        assert made.state == "failed"
        well = {path for path, state in told.states().items() if state in ("done", "warning", "skipped")}
        told.by_path.clear()
        second = again(desk, made, told)
        assert second.state == "done"
        assert not well & set(told.by_path)
        target.close()
        second_tool.communicate(timeout=30)
    shop = machine / "data/shop"
    assert (shop / "catalogue.db").read_bytes() == b"it is damaged"
    assert not list(shop.rglob(".flr-*"))
    for path in (shop, shop / "orders"):
        assert path.stat().st_mode & stat.S_IXUSR
    whole = lost.content("catalogue", lost.BIG)
    assert len([path for path in shop.glob("catalogue.db_RESTORED*") if path.read_bytes() == whole]) >= 1


def test_items_of_several_points_by_rules_that_look_ahead(tmp_path: Path, machine: Path) -> None:
    """More points than stay open at once."""
    images = []
    for k in range(3):
        (tmp_path / f"image {k}").mkdir()
        images.append(lost.image_of(tmp_path / f"image {k}"))
    several = lost.several(images)
    with hurried(tmp_path, machine) as target, desk_over(several, target) as desk:
        restores, _ = desk.restores()
        assert restores is not None
        items = desk.basket.add([(f"point {k}", "0", b"/shop/orders") for k in range(3)])
        made = restores.start(Wish(tuple(items), "skip", b"/srv/found"), lambda *told: None)
        assert made.over.wait(90)
        assert made.state == "done", made.error
        assert document(made)["counts"]["failed"] == 0
    assert len(list((machine / "found").rglob("order *.xml"))) == 120


def test_a_folder_of_somebody_s_is_not_emptied(tmp_path: Path) -> None:
    (tmp_path / "accounts.db").write_bytes(b"dear")
    with pytest.raises(TargetError, match="something else"):
        FolderMailbox(tmp_path).open()
    FolderMailbox(tmp_path).close()
    assert (tmp_path / "accounts.db").read_bytes() == b"dear"


def test_the_script_imports_nothing_of_the_folder_that_it_is_run_in(tmp_path: Path) -> None:
    target = ToolTarget(FolderMailbox(tmp_path / "box"), SYSTEM, SYSTEM.wall() + 600)
    target.open()
    (tmp_path / "hashlib.py").write_text("open('/dev/stderr', 'w').write('hostile')\n")
    done = subprocess.run(
        ["sh"], input=target.command(), capture_output=True, text=True, cwd=tmp_path, timeout=30,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    target.close()
    assert "hostile" not in done.stderr
    assert done.returncode == 0


# -- what can be read only the second time, and ends that must come


@pytest.mark.parametrize("when", ["counting", "sending"])
def test_a_folder_that_could_not_be_read_once_loses_nothing(
    image: Path, tmp_path: Path, machine: Path, when: str
) -> None:
    """The walk that is done again meets other entries than the first."""
    shop = machine / "data/shop"
    (shop / "settings.toml").unlink()
    walked = []

    def walk_badly(session: Any, volume: str, start: Attributes, path: bytes, problem: Any) -> Iterator[Part]:
        walked.append(path)
        bad = len(walked) == (1 if when == "counting" else 2)
        for part in walk(session, volume, start, path, problem):
            if bad and part.path.startswith(b"/shop/orders/2026"):
                problem(part.path, Unreadable("the store does not answer", "chunk"))
                continue
            yield part

    with hurried(tmp_path, machine) as target, desk_over(image, target) as desk, pytest.MonkeyPatch.context() as patch:
        patch.setattr("flr.recovery.selection.walk", walk_badly)
        made = begun(desk, Told(), "skip")
        assert made.over.wait(60)
        assert made.state == "done"
        assert made.retries == (when == "sending")
        if made.retries:
            assert any("the store does not answer" in text for text in made.problems)
            second = again(desk, made, Told())
            assert not second.retries
    for k in range(1, 41):
        assert (shop / f"orders/2026/order {k:03}.xml").read_bytes() == lost.content(f"order {k}", 2000 + 37 * k)
    assert (shop / "settings.toml").is_file()


def test_a_session_ends_although_its_ssh_server_stalls(image: Path, tmp_path: Path, machine: Path) -> None:
    (tmp_path / "sshd").mkdir()
    server = Sshd(tmp_path / "sshd", machine)
    target = SftpTarget(server.login())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flr.restore.restoration.STOP_SECONDS", 0.2)
        with desk_over(image, target) as desk:
            target_run, frozen = target.run, threading.Event()

            def run_and_freeze(order: Order, steps: Iterator[Step], tell: Callable[[Status], None]) -> None:
                def some() -> Iterator[Step]:
                    for step in steps:
                        if step.line[0] == "data" and step.line[2] >= 4 << 20 and not frozen.is_set():
                            server.signal(signal.SIGSTOP)
                            frozen.set()
                        yield step

                target_run(order, some(), tell)

            target.run = run_and_freeze  # type: ignore[method-assign, assignment]
            made = begun(desk, Told(), "overwrite", ("disks", "0", b"/shop/catalogue.db"))
            assert frozen.wait(30)
    assert made.over.is_set()
    assert made.state in ("failed", "stopped")
    server.signal(signal.SIGCONT)
    server.close()


def test_a_log_that_cannot_be_written_stops_no_restore(image: Path, tmp_path: Path, machine: Path) -> None:
    def full(*told: object) -> None:
        raise OSError(28, "No space left on device")

    with hurried(tmp_path, machine) as target, desk_over(image, target) as desk:
        restores, _ = desk.restores()
        assert restores is not None
        for rule in ("overwrite", "skip"):
            made = restores.start(Wish(tuple(desk.basket.add([SHOP])), rule), full, full)  # type: ignore[arg-type]
            assert made.over.wait(60)
            assert made.state == "done"
            assert any("No space left" in text for text in made.problems)


def test_a_failed_restore_keeps_no_point_open(image: Path, tmp_path: Path, machine: Path) -> None:
    with hurried(tmp_path, machine) as target, desk_over(image, target) as desk:

        def run_not(order: Order, steps: Iterator[Step], tell: Callable[[Status], None]) -> None:
            next(steps)
            raise TargetGone("the machine is gone")

        target.run = run_not  # type: ignore[method-assign, assignment]
        made = begun(desk, Told(), "newer")
        assert made.over.wait(60)
        assert made.error is not None
        with desk.recovery.using("disks") as opened:
            assert opened.users == 1


def test_folders_of_a_run_that_died_are_finished_by_the_next(image: Path, tmp_path: Path, machine: Path) -> None:
    shutil.rmtree(machine / "data/shop")
    target = ToolTarget(FolderMailbox(tmp_path / "box"), SYSTEM, SYSTEM.wall() + 600)
    target.open()
    first = started(target, machine)
    connected(target)
    with desk_over(image, target) as desk:
        told = Told()
        killed = kill_in_the_middle(target, first, lambda: made.ledger.ours)
        made = begun(desk, told)
        assert killed.wait(60)
        second_tool = started(target, machine)
        assert made.over.wait(60)
        second = again(desk, made, Told())
        assert second.state == "done"
        assert not second.retries
        target.close()
        second_tool.communicate(timeout=30)
    for path in (machine / "data/shop", machine / "data/shop/orders", machine / "data/shop/orders/2026"):
        assert (path.stat().st_uid, path.stat().st_mtime) == (1000, lost.OLD), path
        assert stat.S_IMODE(path.stat().st_mode) == 0o755
    assert not list(machine.rglob("*_RESTORED_*"))


# -- the tool alone


def carried_out(steps: list[list[Any]]) -> list[tuple[Any, ...]]:
    told: list[tuple[Any, ...]] = []
    made = tool.Run(tool.Local(), order().document(), lambda *status: told.append(status))
    for step in steps:
        made.step(step, lambda where, length: b"x" * length)
    made.end()
    return told


def test_nobody_else_may_read_what_comes_back(tmp_path: Path) -> None:
    """The folder gives new files its default access list, which the file in the restore point had not."""
    everybody = struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", tag, rights, who) for tag, rights, who in ((1, 7, -1 & 0xFFFFFFFF), (2, 7, 65534), (4, 7, -1 &
        0xFFFFFFFF), (16, 7, -1 & 0xFFFFFFFF), (32, 0, -1 & 0xFFFFFFFF))
    )  # fmt: skip
    try:
        os.setxattr(tmp_path, "system.posix_acl_default", everybody)
    except OSError:
        pytest.skip("needs a file system with access control lists")
    steps = [
        [*step.line, 0] if step.data else step.line for step in (*above(tmp_path), *file(1, "a", b"x"), folder(2, "in"))
    ]
    told = carried_out([*steps, *(step.line for step in file(3, "b", b"", None, 2))])
    assert [one[1] for one in told if one[0] in (1, 3) or one[1] == "done"] == ["done", "done", "done"]
    for name in ("a", "in", "in/b"):
        assert not [key for key in os.listxattr(tmp_path / name) if "acl" in key], name


def test_folders_deeper_than_python_goes(tmp_path: Path) -> None:
    steps = [step.line for step in above(tmp_path)]
    parent = 1000
    for number in range(2000, 3500):
        steps.append(folder(number, "d", parent).line)
        parent = number
    steps += [step.line for step in file(9000, "deep", b"", None, parent)]
    told = {one[0]: one[1] for one in carried_out(steps) if one[1] != "made"}
    assert told[9000] == "done"
    assert set(told.values()) == {"done"}
    subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)


class Cutting(http.server.BaseHTTPRequestHandler):
    """Answers that break off, are a proxy's, or are no XML; the fourth one is sound."""

    count = 0

    def do_GET(self) -> None:
        type(self).count += 1
        body = b"<QueueMessagesList></QueueMessagesList>"
        self.send_response(200)
        if self.count != 2:
            self.send_header("x-ms-request-id", "1")
        self.send_header("content-length", str(len(body) + (20 if self.count == 1 else 0)))
        self.end_headers()
        self.wfile.write(b"<html" if self.count == 3 else body)
        self.close_connection = True

    def log_message(self, *words: object) -> None: ...


def test_half_an_answer_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool.time, "sleep", lambda seconds: None)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Cutting) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/queue?sig=x"
        box = tool.AzureMailbox({"requests": url, "replies": url, "blobs": url})
        assert box.take() == []
        assert Cutting.count == 4
        server.shutdown()
        thread.join()
