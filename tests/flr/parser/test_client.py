# SPDX-License-Identifier: Apache-2.0
"""The parent survives whatever its parser does, says what happened, and goes on with another one."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from flr.errors import RecoveryError, TooMuch
from flr.fs.base import Attributes, Entry, Listing, Node
from flr.fs.table import Table, pack
from flr.parser.client import COMMAND, MOST_DEATHS, Parser
from flr.parser.protocol import ParserDied
from flr.session import Session
from flr.virtual.disk import Fetcher, VirtualDisk
from flr.walk import walk
from mover.clock import SYSTEM
from mover.errors import StoreUnavailable
from tests.flr.fs.ext.images import image

HOSTILE = (sys.executable, str(Path(__file__).with_name("hostile.py")))


class Memory:
    """Blocks out of memory; `broken`: the store does not answer."""

    sector_size = 512

    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        self.data = data
        self.broken = False

    def plan(self, blocks: Sequence[int]) -> tuple[list[tuple[object, list[int]]], list[int]]:
        return [(block, [block]) for block in blocks], []

    def fetch(self, request: int) -> Iterator[tuple[int, bytes]]:
        if self.broken:
            raise StoreUnavailable("the store does not answer", "test")
        yield request, self.data[request << 20 : request + 1 << 20]


@pytest.fixture
def hostile() -> Iterator[Parser]:
    with Fetcher() as fetcher:
        disk = VirtualDisk(0, Memory(bytes(400 << 20)), fetcher)
        parser = Parser([disk], SYSTEM, patience=1.0, command=HOSTILE)
        yield parser
        parser.close()


WAYS = {
    "thinks for ever": "thought for too long",
    "drips": "thought for too long",
    "wants for ever": "thought for too long",
    "a huge frame": "no answer",
    "no msgpack": "no answer",
    "another type": "no answer",
    "greets again": "no answer",
    "nests": "no answer",
    "wants bytes outside": "no answer",
    "wants another disk": "no answer",
    "wants too much": "no answer",
    "asks and does not read": "thought for too long",
    "tiny wishes in many blocks": "no answer",
    "a wish of many megabytes": "no answer",
    "dies in the middle": "signal SIGABRT",
    "dies at once": "did not start",
}


@pytest.mark.parametrize("what", WAYS)
def test_a_parser_that_was_taken_over_is_replaced(what: str, hostile: Parser) -> None:
    hostile._command = (*HOSTILE, what)
    with pytest.raises(ParserDied, match=WAYS[what]):
        hostile.ask("warnings", "0", [], list[str])
    assert hostile._process is None
    assert hostile.deaths == 1
    hostile._command = COMMAND
    entries, _ = hostile.look(True, tuple[list[object], list[str]])
    assert len(entries) == 1


def test_a_parser_that_only_asks_and_never_answers_is_stopped(hostile: Parser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flr.parser.client.MOST_NEEDED_AT_ALL", 1 << 20)
    hostile._patience = 1000.0
    hostile._command = (*HOSTILE, "wants for ever")
    with pytest.raises(ParserDied, match="asked for too much"):
        hostile.ask("warnings", "0", [], list[str])


def test_what_is_missing_of_the_protection_is_told(hostile: Parser) -> None:
    said: list[str] = []
    hostile._note = said.append
    hostile._command = (*HOSTILE, "no msgpack")
    with pytest.raises(ParserDied):
        hostile.ask("warnings", "0", [], list[str])
    assert said == ["the parser of file systems runs without: everything: it is a test"]


def test_a_parser_that_dies_too_often_is_not_started_again(hostile: Parser) -> None:
    hostile._command = ("/bin/false",)
    for _ in range(MOST_DEATHS + 1):
        with pytest.raises(ParserDied):
            hostile.ask("warnings", "0", [], list[str])
    with pytest.raises(TooMuch, match="too often"):
        hostile.ask("warnings", "0", [], list[str])


@pytest.fixture
def session() -> Iterator[Session]:
    with Fetcher() as fetcher:
        memory = Memory(image("ext4").image.read_bytes())
        with Session([VirtualDisk(0, memory, fetcher)]) as made:
            made.memory = memory  # type: ignore[attr-defined]
            yield made


def test_a_session_goes_on_after_its_parser_was_killed(session: Session) -> None:
    before = [entry.name for entry in session.folder("0", session.open("0").root)]
    big = session.find("0", b"big.bin")
    process = session.parser._process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with pytest.raises(ParserDied, match="died"):
        session.entries("0", session.open("0").root)
    assert [entry.name for entry in session.folder("0", session.open("0").root)] == before
    assert session.find("0", b"big.bin") == big


def test_a_store_that_does_not_answer_is_told_as_that_and_harms_nothing(session: Session) -> None:
    session.found()
    session.memory.broken = True  # type: ignore[attr-defined]
    with pytest.raises(StoreUnavailable, match="does not answer"):
        list(session.folder("0", session.open("0").root))
    session.memory.broken = False  # type: ignore[attr-defined]
    assert list(session.folder("0", session.open("0").root))
    assert session.parser.deaths == 0


def test_a_restart_that_meets_a_store_error_is_no_end(session: Session) -> None:
    session.found()
    process = session.parser._process
    assert process is not None
    process.kill()
    process.wait()
    with pytest.raises(ParserDied):
        session.open("0")
    for pool in session.disks[0].cache._kept:
        pool.clear()
    session.memory.broken = True  # type: ignore[attr-defined]
    with pytest.raises(StoreUnavailable):
        session.open("0")
    session.memory.broken = False  # type: ignore[attr-defined]
    assert session.open("0").about.kind == "ext4"


def test_a_busy_parser_dies_with_its_parent() -> None:
    program = (
        "import os, signal, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import os\\nfrom flr.parser import sandbox\\n'\n"
        "    'sandbox.lock(os.getppid())\\nprint(1, flush=True)\\nwhile True: pass'], stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        "print(child.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=Path(__file__).parents[3]
    )
    ended(int(done.stdout))


def test_a_walk_finds_out_which_folder_kills_the_parser() -> None:
    """Sixty folders, three of which nobody survives: all the others are told."""
    bad = {7, 30, 31}
    asked: list[int] = []

    class Fragile:
        def tables(self, volume: str, nodes: list[Node], count: int) -> list[Table | RecoveryError]:
            asked.append(len(nodes))
            if any(node.number in bad for node in nodes):
                raise ParserDied("the parser died", "test")
            return [self.table(volume, node, 0, count) for node in nodes]

        def table(self, volume: str, node: Node, cursor: int, count: int) -> Table:
            asked.append(1)
            if node.number in bad:
                raise ParserDied("the parser died", "test")
            numbers = range(1, 61) if node.number == 0 else ()
            entries = [Entry(b"%d" % k, k, Attributes(k, 0, 0o40755, 2, 0, 0, 0, 0, 0, 0, 0, 0)) for k in numbers]
            return pack(Listing(entries, None))

    problems: list[bytes] = []
    root = Attributes(0, 0, 0o40755, 2, 0, 0, 0, 0, 0, 0, 0, 0)
    parts = list(walk(Fragile(), "0", root, b"/", lambda path, error: problems.append(path)))  # type: ignore[arg-type]
    assert sorted(problems) == [b"/30/", b"/31/", b"/7/"]
    assert {part.folder.number for part in parts} == set(range(61))
    deaths = len(problems) + 3  # each in its group, and each alone
    assert len(asked) < 60 + 10 + deaths


def test_a_parser_ends_with_its_parent() -> None:
    """Also when that is killed and can tell nobody."""
    program = (
        "import sys, os, signal\n"
        "from flr.virtual.disk import Fetcher, VirtualDisk\n"
        "from tests.flr.parser.test_client import Memory\n"
        "from flr.session import Session\n"
        "s = Session([VirtualDisk(0, Memory(bytes(1 << 20)), Fetcher())])\n"
        "s.found()\n"
        "print(s.parser._process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=Path(__file__).parents[3]
    )
    ended(int(done.stdout))


def ended(pid: int) -> None:
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([fd], [], [], 20)[0], "it ends"
    finally:
        os.close(fd)
