# SPDX-License-Identifier: Apache-2.0
"""The parent survives whatever its parser does, says what happened, and goes on with another one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from flr.errors import TooMuch
from flr.parser.client import COMMAND, MOST_DEATHS, Parser
from flr.parser.protocol import ParserDied
from flr.session import Session
from flr.virtual.disk import Fetcher, VirtualDisk
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
        disk = VirtualDisk(0, Memory(bytes(4 << 20)), fetcher)
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
    pid = int(done.stdout)
    fd = None
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    import select

    assert select.select([fd], [], [], 20)[0], "it ends"
    os.close(fd)
