# SPDX-License-Identifier: Apache-2.0
"""What the two sides say to each other: frames of msgpack, one question at a time.

A question is answered by `Done` or `Failed`; until then the parser may ask for bytes (`Need`), which the parent answers with the
bytes of all ranges, one after the other, or with nothing when they cannot be had. Not here: who may say what.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from flr.errors import RecoveryError
from flr.fs.table import Table

LARGEST, LARGEST_WISH = 16 << 20, 128 << 10
"""Bytes of one frame, and of one that is no answer; a parser that says more is not believed."""
MOST_RANGES = 1024
MOST_NEEDED, MOST_BLOCKS = 32 << 20, 256
"""Bytes of one `Need`, and blocks of the disks (1 MiB each) that they may stand in."""
MOST_AT_ONCE = 64
"""Parts that one system call sends."""
OUT_OF_MEMORY = 12
"""The exit code of a parser that may have no more."""
_LENGTH = struct.Struct("<I")


class ParserDied(RecoveryError):
    """The process that was asked is gone: killed by a limit, by the watchdog, or by what it read."""

    exit_code = 5
    hint_default = "the parser was started again and the rest can be read; what was asked for may be damaged on purpose"


class ParserFault(RecoveryError):
    """The parser met something that its author did not think of: a defect, contained."""

    exit_code = 5
    hint_default = "the rest can be read; please report what was asked for and this message"


class Ask(msgspec.Struct, array_like=True):
    """`method` of `volume` (of none: of all disks) with these arguments."""

    method: str
    volume: str
    arguments: list[Any]


class Done(msgspec.Struct, array_like=True, tag="d"):
    value: msgspec.Raw


class Failed(msgspec.Struct, array_like=True, tag="f"):
    """`kind` is the error's name, in `flr.errors` or here."""

    kind: str
    what: str
    value: str
    hint: str


class Folder(msgspec.Struct, array_like=True):
    """The first part of one of several folders, or why it cannot be had."""

    table: Table | None
    problem: Failed | None


class Need(msgspec.Struct, array_like=True, tag="n"):
    """(disk, offset, length) of each range."""

    ranges: list[tuple[int, int, int]]


class Ready(msgspec.Struct, array_like=True, tag="r"):
    """Said once, at the start: the layers of protection that hold, and those that could not be had, each with why."""

    layers: list[str]
    missing: list[str]


Answer = Done | Failed | Need | Ready


class Peer:
    """One end of the socket. EOFError when the other one is gone. `left`, if given, tells the seconds that a frame may still take,
    in either direction; TimeoutError when they are over."""

    def __init__(self, connection: socket.socket, left: Callable[[], float] | None = None) -> None:
        self.connection = connection
        self._left = left

    def send(self, *parts: bytes | memoryview) -> None:
        """One frame of all parts."""
        left = [memoryview(_LENGTH.pack(sum(map(len, parts)))), *(memoryview(part) for part in parts if part)]
        while left:
            self._wait()
            sent = self.connection.sendmsg(left[:MOST_AT_ONCE])
            while left and sent >= len(left[0]):
                sent -= len(left.pop(0))
            if sent:
                left[0] = left[0][sent:]

    def _wait(self) -> None:
        """TimeoutError when nothing is left of the time."""
        if self._left is not None:
            left = self._left()
            if left <= 0:
                raise TimeoutError
            self.connection.settimeout(left)

    def receive(self) -> bytearray:
        """One frame. ValueError when it is too large."""
        length = _LENGTH.unpack(self._exactly(_LENGTH.size))[0]
        if length > LARGEST:
            raise ValueError(f"a frame of {length} bytes")
        return self._exactly(length)

    def receive_into(self, buffers: Sequence[bytearray]) -> bool:
        """One frame that fills the buffers; False when it is empty. ValueError when it is of another length."""
        length = _LENGTH.unpack(self._exactly(_LENGTH.size))[0]
        if length == 0:
            return False
        if length != sum(map(len, buffers)):
            raise ValueError(f"a frame of {length} bytes")
        for buffer in buffers:
            self._fill(buffer)
        return True

    def _exactly(self, length: int) -> bytearray:
        data = bytearray(length)
        self._fill(data)
        return data

    def _fill(self, data: bytearray) -> None:
        length = len(data)
        view = memoryview(data)
        at = 0
        while at < length:
            self._wait()
            got = self.connection.recv_into(view[at:])
            if got == 0:
                raise EOFError
            at += got
