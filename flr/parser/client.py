# SPDX-License-Identifier: Apache-2.0
"""The parent's side: starts the parser, hands it bytes, believes only the form of what it says, and replaces it when it dies.

Safe for many threads: one question at a time. The watchdog counts the time in which the parser has the word, not that of the store.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import msgspec

import flr
from flr import errors
from flr.errors import RecoveryError, TooMuch, Unreadable
from flr.parser.protocol import (
    LARGEST_WISH,
    MOST_BLOCKS,
    MOST_NEEDED,
    MOST_RANGES,
    OUT_OF_MEMORY,
    Answer,
    Ask,
    Done,
    Failed,
    Need,
    ParserDied,
    ParserFault,
    Peer,
    Ready,
)
from flr.printable import printable
from flr.virtual.disk import VirtualDisk
from mover.clock import Clock
from mover.repository.maps import BLOCK_SIZE

PATIENCE_SECONDS = 30.0
"""For which a parser may think about one question."""
OPENING = 10
"""Times as long for what replays a journal: a full one of XFS has millions of changes."""
MOST_NEEDED_AT_ALL = 64 << 30
"""Bytes of the blocks that a parser may ask for to answer one question: more than the largest journal."""
START_SECONDS = 60.0
MOST_DEATHS, ANSWERS_A_STRIKE = 25, 50
"""Deaths after which a session gives up; so many answers make good for one."""
MOST_LAYERS = 20
SOCKET_BYTES = 4 << 20
"""A listing's part is sent in one go."""
LONGEST_TEXT = 500
"""Letters of an error that the parser tells."""
_HOME = str(Path(flr.__file__).parents[1])
_BOOT = "import sys; sys.path[:] = sys.argv[3:]; from flr.parser.process import main; main()"
UNIT = "/run/data-mover-parser/socket"
"""Where systemd starts a parser for whoever may connect (docs/decisions/0009)."""
COMMAND = (sys.executable, "-I", "-c", _BOOT)
"""With the number of its socket behind it, and then where modules are: just where this process has them, whoever started it and
however (a package's launcher has them in a folder of its own)."""
T = TypeVar("T")
_ANSWERS = msgspec.msgpack.Decoder(Answer)
_ERRORS: dict[str, type[RecoveryError]] = {
    kind.__name__: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, RecoveryError)
}
_ERRORS[ParserFault.__name__] = ParserFault


class Parser:
    """`disks` by their number. `note` is told, once, which layers of protection could not be had."""

    def __init__(
        self,
        disks: Sequence[VirtualDisk],
        clock: Clock,
        note: Callable[[str], None] = lambda text: None,
        patience: float = PATIENCE_SECONDS,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self._disks = disks
        self._clock = clock
        self._note = note
        self._patience = patience
        self._command = command
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._peer: Peer | None = None
        self._until = 0.0
        self._looking: list[Any] | None = None
        self._starter = ThreadPoolExecutor(1, "flr-parser")
        self._closed = False
        self._strikes = 0.0
        self.deaths = 0
        self.layers: list[str] = []
        self.missing: list[str] = []

    def look(self, replay: bool, kind: type[T]) -> T:
        """What is on the disks; a parser that is started later is told to look first."""
        arguments = [[(disk.size, disk.sector_size) for disk in self._disks], replay]
        found = self.ask("look", "", arguments, kind)
        self._looking = arguments
        return found

    def ask(self, method: str, volume: str, arguments: list[Any], kind: type[T]) -> T:
        """The answer, checked to be of that type. RecoveryError as the parser tells it, ParserDied, ParserFault; what reading a
        disk raises."""
        with self._lock:
            if self._closed:
                raise ParserDied("the session is closed", method)
            peer = self._peer
            if peer is None:
                peer = self._start()
                if self._looking is not None:
                    self._again(peer, volume, method)
            return self._question(peer, Ask(method, volume, arguments), kind)

    def _again(self, peer: Peer, volume: str, method: str) -> None:
        """A new parser looks at the disks as the last one had; the volume's journal is not at the expense of the question."""
        try:
            self._question(peer, Ask("look", "", self._looking or []), object)
            if volume and method != "open":
                self._question(peer, Ask("open", volume, []), object)
        except BaseException:
            self._end()
            raise

    def close(self) -> None:
        """Also in the middle of a question, which then ends with ParserDied."""
        self._closed = True
        process = self._process
        if process is not None:
            process.kill()
        with self._lock:
            self._end()
        self._starter.shutdown()

    # -- one question

    def _question(self, peer: Peer, ask: Ask, kind: type[T]) -> T:
        left = self._patience * (OPENING if ask.method == "open" else 1)
        what = f"{ask.method} {ask.volume}".strip()
        needed = 0
        payload: Sequence[bytes | memoryview] = [msgspec.msgpack.encode(ask)]
        while True:
            began = self._clock.monotonic()
            self._until = began + left
            try:
                peer.send(*payload)
                frame = peer.receive()
                if frame[1:3] != b"\xa1d" and len(frame) > LARGEST_WISH:
                    raise ValueError("a wish of that size")
                answer = _ANSWERS.decode(frame)
                if isinstance(answer, Done):
                    found = msgspec.msgpack.decode(answer.value, type=kind)
                    self._strikes = max(0.0, self._strikes - 1 / ANSWERS_A_STRIKE)
                    return found
                if isinstance(answer, Ready):
                    raise ValueError("it greets again")
                if isinstance(answer, Need):
                    needed += self._cost(answer)
                    if needed > MOST_NEEDED_AT_ALL:
                        raise TimeoutError
            except (ValueError, RecursionError, msgspec.MsgspecError) as error:
                raise self._died(
                    "the parser said something that is no answer", f"{what}: {type(error).__name__}"
                ) from None
            except TimeoutError:
                raise self._died(
                    "the parser thought for too long, or asked for too much, and was stopped", what
                ) from None
            except (EOFError, OSError):
                raise self._died("the parser died", what) from None
            except BaseException:
                self._end()  # in the middle of a question: the next one begins anew
                raise
            left -= self._clock.monotonic() - began
            if isinstance(answer, Failed):
                raise told(answer)
            try:
                payload = self._bytes(answer)
            except Unreadable:
                payload = []  # the parser asks for its neighbours again, one by one
            except BaseException:
                self._end()  # nobody can answer: the store's error is the question's
                raise

    def _cost(self, need: Need) -> int:
        """Bytes of the blocks that are asked for. ValueError when it asks for what it cannot want."""
        blocks: set[tuple[int, int]] = set()
        for disk, offset, length in need.ranges:
            if (
                not 0 <= disk < len(self._disks)
                or offset < 0
                or length <= 0
                or offset + length > self._disks[disk].size
            ):
                raise ValueError("it asks for what no disk has")
            if length > MOST_NEEDED:
                raise ValueError("it asks for too much")
            blocks.update(
                (disk, block) for block in range(offset // BLOCK_SIZE, (offset + length - 1) // BLOCK_SIZE + 1)
            )
        wanted = sum(length for _, _, length in need.ranges)
        if len(need.ranges) > MOST_RANGES or wanted > MOST_NEEDED or len(blocks) > MOST_BLOCKS:
            raise ValueError("it asks for too much")
        return len(blocks) * BLOCK_SIZE

    def _bytes(self, need: Need) -> list[memoryview]:
        by_disk: dict[int, list[tuple[int, int]]] = {}
        for disk, offset, length in need.ranges:
            by_disk.setdefault(disk, []).append((offset, length))
        for disk, ranges in by_disk.items():
            if len(by_disk) > 1:
                self._disks[disk].prefetch(ranges, metadata=True)
        if len(by_disk) == 1:
            ((disk, ranges),) = by_disk.items()
            return self._disks[disk].parts(ranges, metadata=True)
        return [
            part
            for disk, *where in need.ranges
            for part in self._disks[disk].parts([(where[0], where[1])], metadata=True)
        ]

    def _died(self, what: str, value: str) -> RecoveryError:
        process = self._process
        if process is not None:
            try:
                code: int | None = (
                    process.wait(0.5) if what in ("the parser died", "the parser did not start") else None
                )
            except subprocess.TimeoutExpired:
                code = None
            if code is not None:
                value += f" ({_reason(code)})"
        self._end()
        self.deaths += 1
        self._strikes += 1
        return ParserDied(what, value)

    # -- its life

    def _start(self) -> Peer:
        if self._strikes > MOST_DEATHS:
            raise TooMuch("the parser died too often in this session", f"{self.deaths} times")
        unit, why_not = _unit()
        if unit is not None:
            peer = self._peer = Peer(unit, lambda: self._until - self._clock.monotonic())
        else:
            peer = self._own()
        self._until = self._clock.monotonic() + START_SECONDS
        try:
            frame = peer.receive()
            ready = _ANSWERS.decode(frame) if len(frame) <= LARGEST_WISH else None
        except (ValueError, RecursionError, msgspec.MsgspecError, TimeoutError, EOFError, OSError):
            raise self._died("the parser did not start", UNIT if unit else self._command[0]) from None
        if not isinstance(ready, Ready):
            raise self._died("the parser did not start", UNIT if unit else self._command[0])
        missing = [*why_not, *ready.missing[:MOST_LAYERS]]
        if missing and missing != self.missing:
            named = "; ".join(printable(text) for text in missing)
            self._note(f"the parser of file systems runs without: {named}")
        self.layers, self.missing = ready.layers[:MOST_LAYERS], missing
        return peer

    def _own(self) -> Peer:
        """A process of our own, where there is no unit."""
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)  # or as much of it as the kernel gives
        peer = self._peer = Peer(ours, lambda: self._until - self._clock.monotonic())
        with theirs:
            number = theirs.fileno()
            places = [place for place in sys.path if os.path.isabs(place)]
            try:
                # by a thread that lasts as long as this: the kernel ends a process with the thread that started it
                self._process = self._starter.submit(
                    subprocess.Popen,
                    [*self._command, str(number), str(os.getpid()), _HOME, *places],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=(number,),
                    cwd="/",
                    env={"LC_ALL": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1"},
                ).result()
            except OSError as error:
                raise self._died("the parser did not start", f"{self._command[0]}: {error.strerror}") from None
        return peer

    def _end(self) -> None:
        if self._peer is not None:
            self._peer.connection.close()
            self._peer = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def _unit() -> tuple[socket.socket | None, list[str]]:
    """A connection to the parser's unit, if there is one for us; if there is and it does not answer, that, as a layer that is
    missing."""
    if not os.access(UNIT, os.W_OK):
        return None, []
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
    try:
        made.settimeout(START_SECONDS)
        made.connect(UNIT)
    except OSError as error:
        made.close()
        return None, [f"its unit: {error.strerror or error}"]
    return made, []


def told(failed: Failed) -> RecoveryError:
    """The error that the parser tells of; of a kind that it may know, and no longer than errors are."""
    kind = _ERRORS.get(failed.kind, ParserFault)
    return kind(*(text[:LONGEST_TEXT] for text in (failed.what, failed.value, failed.hint)))


def _reason(code: int) -> str:
    if code == OUT_OF_MEMORY:
        return "it wanted more memory than it may have"
    if code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"
