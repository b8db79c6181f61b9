# SPDX-License-Identifier: Apache-2.0
"""The restore tool and what goes between it and the worker: nobody else is listened to, nothing is done twice, each end copes
with the other one's death; and the tool runs on old machines."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flr.restore import tool
from flr.restore.mailbox import FolderMailbox
from flr.restore.target import Order, Status, Step, TargetGone
from flr.restore.through_tool import SILENCE_SECONDS, ToolTarget
from mover.clock import SYSTEM
from mover.errors import MoverError
from tests.agent.waiting import wait_for
from tests.flr.restore.test_ways import above, file
from tests.flr.restore.ways import by_tool_here, connected, started

TOOL = Path(tool.__file__)
BODIES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


# -- old machines


def test_it_needs_no_more_than_python_3_6() -> None:
    def needed(path: Path) -> str:
        command = [str(Path(sys.executable).with_name("vermin")), "--no-tips", "-t=3.6-", str(path)]
        done = subprocess.run(command, capture_output=True, text=True)
        return "" if done.returncode == 0 else done.stdout

    assert needed(TOOL) == ""
    assert needed(TOOL.with_name("sftp.py"))  # so that the check is one


def test_it_imports_the_standard_library_only() -> None:
    names = set()
    for node in ast.walk(ast.parse(TOOL.read_text())):
        if isinstance(node, ast.Import):
            names |= {name.name.partition(".")[0] for name in node.names}
        assert not isinstance(node, ast.ImportFrom)
    assert names <= set(sys.stdlib_module_names)


def test_the_command_line_shows_nothing_in_the_list_of_processes(tmp_path: Path) -> None:
    target = ToolTarget(FolderMailbox(tmp_path / "box"), SYSTEM, SYSTEM.wall() + 60)
    target.open()
    running = started(target)
    try:
        connected(target)
        words = Path(f"/proc/{running.pid}/cmdline").read_bytes() + Path(f"/proc/{running.pid}/environ").read_bytes()
        key = json.loads(target.command().split("json.loads(")[1].split(")\n")[0].strip("'"))["key"]
        assert key.encode() not in words
        assert str(tmp_path).encode() not in words
    finally:
        target.close()
        running.communicate(timeout=20)


def test_an_altered_tool_does_not_run(tmp_path: Path) -> None:
    box = FolderMailbox(tmp_path / "box")
    target = ToolTarget(box, SYSTEM, SYSTEM.wall() + 60)
    target.open()
    box.put("restore-tool.py", [TOOL.read_bytes() + b"\n# altered\n"])
    running = started(target)
    _, said = running.communicate(timeout=20)
    target.close()
    assert running.returncode == 1
    assert b"not the one that the worker sent" in said


def test_it_goes_on_by_itself_for_whoever_waits_for_it(tmp_path: Path) -> None:
    """Azure's Run Command waits until a script ends."""
    target = ToolTarget(FolderMailbox(tmp_path / "box"), SYSTEM, SYSTEM.wall() + 600)
    target.open()
    try:
        done = subprocess.run(["sh"], input=target.command(), capture_output=True, text=True, timeout=30)
        assert (done.returncode, done.stderr) == (0, "")
        assert "connected" in done.stdout
        connected(target)
        assert target.look("/", ["/etc/passwd"])[0][0].kind == "file"
    finally:
        target.close()


# -- messages


@given(key=st.binary(min_size=1), number=st.integers(0, 10**9), body=BODIES)
def test_a_message_is_the_one_that_was_sealed(key: bytes, number: int, body: Any) -> None:
    data = tool.sealed(key, number, [1, "word"], body)
    assert tool.opened(key, data) == (number, [1, "word"], body)
    assert tool.opened(key + b"x", data) is None


@given(st.binary(), st.binary())
def test_nothing_else_is_a_message(head: bytes, tail: bytes) -> None:
    """Nor is it looked at: what would be too deep, too large or no JSON is not parsed."""
    for data in (head, head + b"\n" + tail, b"0" * 64 + b"\n" + b"[" * 50_000, b"0" * 64 + b'\n[1, Infinity, [], "x"]'):
        assert tool.opened(b"key", data) is None


@given(st.data())
def test_an_altered_message_is_none(data: st.DataObject) -> None:
    message = bytearray(tool.sealed(b"key", 7, [0, "w"], {"do": "steps", "id": 1}))
    message[data.draw(st.integers(0, len(message) - 1))] ^= data.draw(st.integers(1, 255))
    assert tool.opened(b"key", bytes(message)) is None


@given(st.text(min_size=1, max_size=300), st.integers(0, 12))
def test_a_kept_name_fits_and_says_what_it_was(name: str, attempt: int) -> None:
    kept = tool.kept_name(name, "_RESTORED_20261127_231500", attempt)
    assert len(tool.raw(kept)) <= 255 or len(tool.raw(name)) > 255
    assert "_RESTORED_20261127_231500" in kept
    if len(tool.raw(name)) < 200:
        assert kept.startswith(name)
    assert kept.encode(errors="surrogateescape").decode(errors="surrogateescape") == kept


class Box(FolderMailbox):
    """One that loses, repeats and mixes up what is in it, as a queue may; and that others write to."""

    def __init__(self, root: Path, bad: Callable[[], bytes | None]) -> None:
        super().__init__(root)
        self._bad = bad
        self._old: list[bytes] = []

    def send(self, message: bytes) -> None:
        for data in (self._bad(), message, *self._old[-3:], self._bad()):
            if data is not None:
                super().send(data)
        self._old.append(message)

    def take(self) -> list[bytes]:
        found = super().take()
        self._old_replies = [*getattr(self, "_old_replies", []), *found]
        bad = self._bad()
        return [*reversed(found), *self._old_replies[-20:], *([] if bad is None else [bad])]


def test_what_others_say_and_what_comes_twice_is_nothing(tmp_path: Path) -> None:
    forged = [
        tool.sealed(b"another key", 1, [0, "x"], {"do": "stop", "id": 0}),
        tool.sealed(b"another key", 1, [0, "x"], {"is": "answer", "to": 1}),
        tool.sealed(b"another key", 0, [0, "x"], {"is": "hello", "version": 1, "host": "evil", "user": 0}),
        b"", b"{}", b"\xff", b"[1, 2]", b'{"n": 1, "body": 5, "mac": 7}',
    ]  # fmt: skip
    count = iter(range(10**9))
    box = Box(tmp_path / "box", lambda: forged[next(count) % len(forged)])
    target = ToolTarget(box, SYSTEM, SYSTEM.wall() + 600)
    target.open()
    running = started(target)
    told: list[Status] = []
    try:
        connected(target)
        assert target.state().host != "evil"
        where = tmp_path / "out"
        where.mkdir()
        for k in range(5):
            order = Order(os.urandom(4).hex(), "keep", "_RESTORED_x", False)
            target.run(order, [*above(where), *file(1, f"file {k}", b"once")], told.append)
        assert target.look("/", [str(where / "file 0")])[0][0].kind == "file"
    finally:
        target.close()
        running.communicate(timeout=20)
    assert [status.state for status in told] == ["done"] * 5
    assert sorted(os.listdir(where)) == [f"file {k}" for k in range(5)]


# -- the other one's death


def steps(where: Path, go: threading.Event, count: int = 4) -> Iterator[Step]:
    """Big files; the second one waits."""
    yield from above(where)
    for number in range(1, count + 1):
        if number == 2:
            go.wait(30)
        yield from file(number, f"file {number}", os.urandom(9 << 20))


def test_a_tool_that_is_killed_and_started_anew(tmp_path: Path) -> None:
    target = ToolTarget(FolderMailbox(tmp_path / "box"), SYSTEM, SYSTEM.wall() + 600)
    target.open()
    first = started(target)
    connected(target)
    where = tmp_path / "out"
    where.mkdir()
    go, told, problems = threading.Event(), [], []
    order = Order("aaaaaaaa", "keep", "_RESTORED_x", False)

    def run() -> None:
        try:
            target.run(order, steps(where, go), told.append)
        except TargetGone as error:
            problems.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    wait_for(lambda: list(where.iterdir()))
    first.kill()
    first.communicate()
    second = started(target)
    go.set()
    thread.join(60)
    assert not thread.is_alive()
    assert "started anew" in str(problems[0])
    told.clear()
    target.run(Order("bbbbbbbb", "overwrite", "", False), [*above(where), *file(1, "file 1", b"again")], told.append)
    assert [status.state for status in told] == ["done"]
    assert (where / "file 1").read_bytes() == b"again"
    target.close()
    second.communicate(timeout=20)
    assert second.returncode == 0


class Hurried:
    """A clock of which somebody can make hours pass."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def monotonic(self) -> float:
        return SYSTEM.monotonic() + self.ahead

    def wall(self) -> float:
        return SYSTEM.wall() + self.ahead

    def wait(self, event: threading.Event, seconds: float) -> bool:
        return SYSTEM.wait(event, seconds)


def test_a_tool_that_falls_silent_is_told_of(tmp_path: Path) -> None:
    clock = Hurried()
    target = ToolTarget(FolderMailbox(tmp_path / "box"), clock, SYSTEM.wall() + 600)
    target.open()
    assert not target.state().ready
    running = started(target)
    connected(target)
    running.kill()
    running.communicate()
    asked: list[BaseException] = []

    def look() -> None:
        try:
            target.look("/", ["/etc"])
        except TargetGone as error:
            asked.append(error)

    thread = threading.Thread(target=look)
    thread.start()
    wait_for(lambda: target._asked)
    clock.ahead += SILENCE_SECONDS + 1
    thread.join(30)
    assert "does not answer" in str(asked[0])
    state = target.state()
    assert not state.ready
    assert "seconds ago" in state.text
    with pytest.raises(TargetGone):
        target.look("/", ["/etc"])
    target.close()


def test_a_worker_that_dies_leaves_no_half_file(tmp_path: Path) -> None:
    """Its mailbox goes with it at last, and the tool cleans up what it had begun."""
    box = FolderMailbox(tmp_path / "box")
    target = ToolTarget(box, SYSTEM, SYSTEM.wall() + 600)
    target.open()
    running = started(target)
    connected(target)
    where = tmp_path / "out"
    (where / "old").mkdir(parents=True)
    go = threading.Event()

    def some() -> Iterator[Step]:
        yield from above(where)
        yield Step(["folder", 1, 1000, "new", {"mode": 0o755, "mtime": 10**18}, False, False])
        yield Step(["open", 2, 1, "half", 20 << 20, {"mode": 0o644}])
        for at in range(0, 16 << 20, 1 << 20):
            yield Step(["data", 2, at, 1 << 20], os.urandom(1 << 20))
        go.wait(30)

    def run() -> None:
        with pytest.raises(MoverError):
            target.run(Order("cccccccc", "keep", "_R", False), some(), lambda status: None)

    thread = threading.Thread(target=run)
    thread.start()
    wait_for(lambda: list((where / "new").glob(".flr-*")) if (where / "new").exists() else [])
    box.close()
    running.communicate(timeout=30)
    assert running.returncode == 0
    assert list((where / "new").iterdir()) == []
    assert (where / "new").stat().st_mtime == 10**9
    assert (where / "new").stat().st_mode & 0o777 == 0o755
    target._closed.set()
    go.set()
    thread.join(30)
    assert not thread.is_alive()
    target.close()


def test_a_session_s_end_ends_the_tool(tmp_path: Path) -> None:
    with by_tool_here(tmp_path) as target:
        assert target.state().ready
    assert not target.state().ready


def test_its_time_ends_it(tmp_path: Path) -> None:
    target = ToolTarget(FolderMailbox(tmp_path / "box"), SYSTEM, time.time() - 1)
    target.open()
    running = started(target)
    _, said = running.communicate(timeout=30)
    target.close()
    assert running.returncode == 0
    assert b"time is over" in said
