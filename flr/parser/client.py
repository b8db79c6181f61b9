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
from typing import Any, TypeVar

import msgspec

from flr import errors
from flr.errors import RecoveryError, TooMuch
from flr.parser.protocol import (
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
from flr.virtual.disk import VirtualDisk
from mover.clock import Clock

PATIENCE_SECONDS = 30.0
"""For which a parser may think about one question."""
OPENING = 10
"""Times as long for what replays a journal: a full one of XFS has millions of changes."""
MOST_NEEDED_AT_ALL, LEAST_NEEDED = 16 << 30, 16 << 10
"""Bytes that a parser may ask for to answer one question, and what asking costs at least: more than the largest journal."""
START_SECONDS = 60.0
MOST_DEATHS = 25
LONGEST_TEXT = 500
"""Letters of an error that the parser tells."""
COMMAND = (sys.executable, "-P", "-m", "flr.parser.process")
"""With the number of its socket behind it."""
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
            peer = self._peer
            if peer is None:
                peer = self._start()
                if self._looking is not None:
                    self._question(peer, Ask("look", "", self._looking), object)
                    if volume and method != "open":  # or the question would pay for the journal
                        self._question(peer, Ask("open", volume, []), object)
            return self._question(peer, Ask(method, volume, arguments), kind)

    def close(self) -> None:
        with self._lock:
            self._end()

    # -- one question

    def _question(self, peer: Peer, ask: Ask, kind: type[T]) -> T:
        thought = self._patience * (OPENING if ask.method == "open" else 1)
        trouble: BaseException | None = None
        what = f"{ask.method} {ask.volume}".strip()
        needed = 0
        try:
            peer.send(msgspec.msgpack.encode(ask))
            while True:
                began = self._clock.monotonic()
                self._until = began + thought
                answer = _ANSWERS.decode(peer.receive())
                thought -= self._clock.monotonic() - began
                if isinstance(answer, Need):
                    needed += LEAST_NEEDED + sum(length for _, _, length in answer.ranges)
                    if needed > MOST_NEEDED_AT_ALL:
                        raise TimeoutError
                    peer.connection.settimeout(None)
                    try:
                        data = self._bytes(answer)
                    except ValueError:
                        raise
                    except BaseException as error:
                        trouble, data = error, b""
                        if not isinstance(error, Exception):
                            raise
                    peer.send(data)
                elif isinstance(answer, Done):
                    return msgspec.msgpack.decode(answer.value, type=kind)
                elif isinstance(answer, Failed):
                    if answer.kind == "DiskUnread" and trouble is not None:
                        raise trouble
                    raise told(answer)
                else:
                    raise ValueError("it greets again")
        except (ValueError, msgspec.MsgspecError) as error:
            raise self._died("the parser said something that is no answer", f"{what}: {type(error).__name__}") from None
        except TimeoutError:
            raise self._died("the parser thought for too long, or asked for too much, and was stopped", what) from None
        except (EOFError, OSError):
            raise self._died("the parser died", what) from None
        except BaseException as error:
            if not isinstance(error, Exception):
                self._end()  # in the middle of a question: the next one begins anew
            raise

    def _bytes(self, need: Need) -> bytes:
        """ValueError when it asks for what it cannot want."""
        if len(need.ranges) > MOST_RANGES or sum(length for _, _, length in need.ranges) > MOST_NEEDED:
            raise ValueError("it asks for too much")
        by_disk: dict[int, list[tuple[int, int]]] = {}
        for disk, offset, length in need.ranges:
            if not 0 <= disk < len(self._disks) or offset < 0 or length < 0 or offset + length > self._disks[disk].size:
                raise ValueError("it asks for what no disk has")
            by_disk.setdefault(disk, []).append((offset, length))
        if len(by_disk) == 1:
            ((disk, ranges),) = by_disk.items()
            return b"".join(self._disks[disk].read_many(ranges, metadata=True))
        return b"".join(self._disks[disk].pread(offset, length, metadata=True) for disk, offset, length in need.ranges)

    def _died(self, what: str, value: str) -> RecoveryError:
        process = self._process
        if process is not None:
            try:
                code: int | None = process.wait(0.5) if what == "the parser died" else None
            except subprocess.TimeoutExpired:
                code = None
            if code is not None:
                value += f" ({_reason(code)})"
        self._end()
        self.deaths += 1
        return ParserDied(what, value)

    # -- its life

    def _start(self) -> Peer:
        if self.deaths > MOST_DEATHS:
            raise TooMuch("the parser died too often in this session", f"{self.deaths} times")
        ours, theirs = socket.socketpair()
        peer = self._peer = Peer(ours, lambda: self._until - self._clock.monotonic())
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "VIRTUAL_ENV", "HOME") if name in os.environ}
        with theirs:
            self._process = subprocess.Popen(
                [*self._command, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                cwd="/",
                env={**kept, "LC_ALL": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
            )
        self._until = self._clock.monotonic() + START_SECONDS
        try:
            ready = _ANSWERS.decode(peer.receive())
        except (ValueError, msgspec.MsgspecError, TimeoutError, EOFError, OSError):
            raise self._died("the parser did not start", sys.executable) from None
        if not isinstance(ready, Ready):
            raise self._died("the parser did not start", sys.executable)
        if ready.missing != self.missing:
            self._note("the parser of file systems runs without: " + "; ".join(ready.missing))
        self.layers, self.missing = ready.layers, ready.missing
        return peer

    def _end(self) -> None:
        if self._peer is not None:
            self._peer.connection.close()
            self._peer = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


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
