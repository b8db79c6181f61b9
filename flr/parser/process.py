# SPDX-License-Identifier: Apache-2.0
"""The parser's own side: answers questions about the disks whose bytes its parent has, until the socket closes.

Started by `flr.parser.client`, with the number of its socket and of its parent as arguments. It imports everything first, then
locks itself in, then says so, and only then reads the first byte that a guest wrote. One thread.
"""

from __future__ import annotations

import codecs
import os
import signal
import socket
import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.ma  # numpy wants it now and then, and files cannot be opened then

from flr.blocks import Extent, Places, Records, Segment, Volume, records
from flr.errors import NodeNotFound, RecoveryError, Unreadable
from flr.fs.base import FileSystem, Node, Scan
from flr.fs.open import open_file_system
from flr.fs.table import Table, pack
from flr.parser import sandbox
from flr.parser.protocol import MOST_NEEDED, MOST_RANGES, OUT_OF_MEMORY, Ask, Done, Failed, Folder, Need, Peer, Ready
from flr.volumes.find import Found, find

ANSWER_SECONDS, OPEN_SECONDS = 60.0, 600.0
"""Of processor time, for one answer: twice what the parent waits at most. Its watchdog is the one that counts, but a parser that
systemd started is not the parent's to kill."""
BLOCK = 256 << 10
BLOCKS_KEPT = 256
"""64 MiB of the disks' metadata; what is older is asked for again and comes out of the parent's larger cache."""


for _name in ("cp437", "utf-16-le", "utf-8", "ascii", "latin-1"):
    codecs.lookup(_name)  # each is a module that is imported when it is first used


class PeerDisk(Volume):
    """Disk `number`, whose bytes are asked for by blocks and kept for a while."""

    def __init__(
        self, peer: Peer, number: int, size: int, sector_size: int, kept: OrderedDict[tuple[int, int], bytearray]
    ) -> None:
        self.size = size
        self.sector_size = sector_size
        self._peer = peer
        self._number = number
        self._kept = kept

    def pread(self, offset: int, length: int) -> bytes:
        self.check(offset, length)
        if not length:
            return b""
        first, within = divmod(offset, BLOCK)
        if within + length <= BLOCK:
            data = self._kept.get((self._number, first))
            if data is None:
                data = self._fill([first])[first]
            return bytes(memoryview(data)[within : within + length])
        last = (offset + length - 1) // BLOCK
        if last - first >= MOST_RANGES // 2 or length > MOST_NEEDED // 2:
            half = length // 2 // BLOCK * BLOCK or BLOCK
            return self.pread(offset, half) + self.pread(offset + half, length - half)
        got = self._fill(list(range(first, last + 1)))
        parts = [memoryview(got[number]) for number in range(first, last + 1)]
        parts[-1] = parts[-1][: offset + length - last * BLOCK]
        parts[0] = parts[0][within:]
        return b"".join(parts)

    def _fill(self, numbers: Sequence[int]) -> dict[int, bytearray]:
        """These blocks, at most MOST_NEEDED bytes; those that are not here are asked for in one question."""
        got: dict[int, bytearray] = {}
        missing = []
        for number in numbers:
            data = self._kept.get((self._number, number))
            if data is None:
                missing.append(number)
            else:
                self._kept.move_to_end((self._number, number))
                got[number] = data
        if missing:
            runs: list[tuple[int, int]] = []
            for number in missing:
                if runs and runs[-1][1] == number:
                    runs[-1] = (runs[-1][0], number + 1)
                else:
                    runs.append((number, number + 1))
            ranges = [(self._number, low * BLOCK, min(high * BLOCK, self.size) - low * BLOCK) for low, high in runs]
            self._peer.send(msgspec.msgpack.encode(Need(ranges)))
            blocks = [bytearray(min(BLOCK, self.size - number * BLOCK)) for number in missing]
            if not self._peer.receive_into(blocks):
                if len(missing) == 1:
                    raise Unreadable("a part of the disk cannot be read", f"disk {self._number} at {ranges[0][1]}")
                for number in missing:  # one of them is bad, and the others are wanted
                    got.update(self._fill([number]))
                return got
            for number, block in zip(missing, blocks, strict=True):
                got[number] = self._kept[self._number, number] = block
            while len(self._kept) > BLOCKS_KEPT:
                self._kept.popitem(last=False)
        return got

    def prefetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        numbers: dict[int, None] = {}
        for offset, length in ranges:
            if offset >= 0 and 0 < length <= self.size - offset:
                numbers.update(dict.fromkeys(range(offset // BLOCK, (offset + length - 1) // BLOCK + 1)))
            if len(numbers) >= BLOCKS_KEPT // 2:
                break
        try:
            self._fill(sorted(numbers)[: BLOCKS_KEPT // 2])
        except Unreadable:
            pass  # whoever needs just that part is told

    def locate(self, offset: int, length: int) -> list[Segment]:
        self.check(offset, length)
        return [Extent(self._number, offset, length)] if length else []

    def gather(self, places: Places, size: int) -> Records:
        if not len(places):
            return np.zeros((0, size), np.uint8)
        self.check(int(places[0]), 0)
        self.check(int(places[-1]), size)
        first, last = places // BLOCK, (places + size - 1) // BLOCK
        made = np.empty((len(places), size), np.uint8)
        for number in np.unique(first[first == last]).tolist():
            mine = np.flatnonzero((first == number) & (last == number))
            data = self._kept.get((self._number, number)) or self._fill([number])[number]
            made[mine] = records(data, places[mine] - number * BLOCK, size)
        for k in np.flatnonzero(first != last).tolist():
            made[k] = np.frombuffer(self.pread(int(places[k]), size), np.uint8)
        return made


class Parser:
    """Answers. `disks`: (size, sector size) of each."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._disks: list[Volume] = []
        self._found: Found | None = None
        self._replay = True
        self._open: dict[str, FileSystem] = {}
        self._methods: dict[str, Callable[..., Any]] = {
            "look": self._look,
            "open": self._about,
            "table": self._table,
            "tables": self._tables,
            "find": self._find,
            "attributes": lambda volume, *node: self._fs(volume).attributes(Node(*node)),
            "map": lambda volume, node, *rest: self._fs(volume).map(Node(*node), *rest),
            "link": lambda volume, *node: self._fs(volume).link(Node(*node)),
            "xattrs": lambda volume, *node: self._fs(volume).xattrs(Node(*node)),
            "streams": lambda volume, *node: self._fs(volume).streams(Node(*node)),
            "security": lambda volume, *node: self._fs(volume).security(Node(*node)),
            "scan": self._scan,
            "warnings": lambda volume: self._fs(volume).warnings,
        }

    def answer(self, ask: Ask) -> Any:
        return self._methods[ask.method](ask.volume, *ask.arguments)

    def _look(self, volume: str, disks: list[tuple[int, int]], replay: bool) -> Any:
        kept: OrderedDict[tuple[int, int], bytearray] = OrderedDict()
        self._disks = [PeerDisk(self._peer, number, size, sector, kept) for number, (size, sector) in enumerate(disks)]
        self._replay = replay
        self._open = {}
        self._found = find(self._disks)
        return self._found.entries, self._found.warnings

    def _fs(self, volume: str) -> FileSystem:
        fs = self._open.get(volume)
        if fs is None:
            if self._found is None:
                raise NodeNotFound("the disks were not looked at", volume)
            holds = self._found.entry(volume).holds
            fs = self._open[volume] = open_file_system(self._found.open(volume), holds, replay=self._replay)
        return fs

    def _about(self, volume: str) -> Any:
        fs = self._fs(volume)
        return fs.about, fs.root(), fs.warnings

    def _table(self, volume: str, node: tuple[int, int], cursor: int, count: int) -> Table:
        fs = self._fs(volume)
        table = getattr(fs, "table", None)
        found: Table = table(Node(*node), cursor, count) if table else pack(fs.entries(Node(*node), cursor, count))
        return found

    def _tables(self, volume: str, nodes: list[tuple[int, int]], count: int) -> list[Folder]:
        made = []
        for node in nodes:
            try:
                made.append(Folder(self._table(volume, node, 0, count), None))
            except RecoveryError as error:
                made.append(Folder(None, _failed(error)))
        return made

    def _scan(self, volume: str, cursor: int, count: int) -> list[Scan]:
        scan = self._fs(volume).scan(cursor, count)
        return [] if scan is None else [scan]

    def _find(self, volume: str, node: tuple[int, int], name: bytes) -> Any:
        """The entry of that name. NodeNotFound when the folder has none, for whoever asks with a path."""
        fs = self._fs(volume)
        cursor: int | None = 0
        while cursor is not None:
            listing = fs.entries(Node(*node), cursor)
            for entry in listing.entries:
                if entry.name == name:
                    return entry
            cursor = listing.cursor
        raise NodeNotFound("a folder has no such entry", name.decode("utf-8", "backslashreplace"))


def serve(peer: Peer) -> None:
    """Until the other side is gone."""
    parser = Parser(peer)
    asks = msgspec.msgpack.Decoder(Ask)
    while True:
        try:
            frame = peer.receive()
        except EOFError:
            return
        answer: Done | Failed
        try:
            ask = asks.decode(frame)
            signal.setitimer(signal.ITIMER_PROF, OPEN_SECONDS if ask.method == "open" else ANSWER_SECONDS)
            answer = Done(msgspec.Raw(msgspec.msgpack.encode(parser.answer(ask))))
        except RecoveryError as error:
            answer = _failed(error)
        except (EOFError, OSError, MemoryError):
            raise
        except Exception as error:
            answer = Failed("ParserFault", "the parser met something that it does not know", _where(error), "")
        signal.setitimer(signal.ITIMER_PROF, 0)
        peer.send(msgspec.msgpack.encode(answer))


def _failed(error: RecoveryError) -> Failed:
    return Failed(error.type, error.what, error.value, error.hint)


def _where(error: BaseException) -> str:
    """The kind of the error and the line that raised it; not its message, which may hold anything."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}" if trace else "?"
    return f"{type(error).__name__} at {place}"


def main(given: Sequence[str] = ()) -> None:
    """`given`: see `sandbox.lock`."""
    peer = Peer(socket.socket(fileno=int(sys.argv[1])))
    layers, missing = sandbox.lock(int(sys.argv[2]), given)
    peer.send(msgspec.msgpack.encode(Ready(layers, missing)))
    try:
        serve(peer)
    except MemoryError:
        os._exit(OUT_OF_MEMORY)


if __name__ == "__main__":
    main()
