# SPDX-License-Identifier: Apache-2.0
"""The parser's view of its disks: the same bytes by every way, asked for in pieces that the parent accepts."""

from __future__ import annotations

import random
import socket
import threading
from collections import OrderedDict
from collections.abc import Iterator

import msgspec
import numpy as np
import pytest

from flr.errors import OutOfBounds, Unreadable
from flr.parser.process import BLOCK, BLOCKS_KEPT, PeerDisk
from flr.parser.protocol import MOST_NEEDED, MOST_RANGES, Need, Peer

SIZE = 70 * (1 << 20) + 1536
DATA = random.Random(2).randbytes(1 << 20) * 71


class Parent:
    """Answers wishes as the real one does, and keeps them. `bad`: a byte that cannot be read."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.wishes: list[Need] = []
        self.bad = -1
        self.disk = PeerDisk(Peer(theirs), 0, SIZE, 512, OrderedDict())
        self.connections = ours, theirs
        self.thread = threading.Thread(target=self._serve, args=(Peer(ours),))
        self.thread.start()

    def _serve(self, peer: Peer) -> None:
        try:
            while True:
                need = msgspec.msgpack.decode(peer.receive(), type=Need)
                self.wishes.append(need)
                bad = any(offset <= self.bad < offset + length for _, offset, length in need.ranges)
                peer.send(b"" if bad else b"".join(DATA[offset : offset + length] for _, offset, length in need.ranges))
        except (EOFError, OSError):
            return

    def close(self) -> None:
        for connection in self.connections:
            connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self.thread.join()


@pytest.fixture
def parent() -> Iterator[Parent]:
    made = Parent()
    yield made
    made.close()


def test_any_range_reads_as_the_disk_and_wishes_stay_within_what_is_accepted(parent: Parent) -> None:
    chance = random.Random(3)
    disk = parent.disk
    for length in [*(chance.randrange(3 * BLOCK) for _ in range(60)), MOST_NEEDED, SIZE]:
        at = chance.randrange(SIZE - length + 1)
        assert disk.pread(at, length) == DATA[at : at + length]
    disk.prefetch([(0, SIZE), (SIZE, 1), (-1, 5), (5 * BLOCK, 0)])
    places = np.array(sorted(chance.randrange(SIZE - 256) for _ in range(5000)), np.int64)
    rows = disk.gather(places, 256)
    assert all(bytes(row) == DATA[at : at + 256] for row, at in zip(rows, places.tolist(), strict=True))
    assert all(len(need.ranges) <= MOST_RANGES for need in parent.wishes)
    assert all(sum(length for _, _, length in need.ranges) <= MOST_NEEDED for need in parent.wishes)
    assert len(disk._kept) <= BLOCKS_KEPT
    for at, length in ((SIZE, 1), (-1, 1), (0, SIZE + 1)):
        with pytest.raises(OutOfBounds):
            disk.pread(at, length)


def test_what_cannot_be_read_is_of_its_block_alone(parent: Parent) -> None:
    parent.bad = 7 * BLOCK + 9
    parent.disk.prefetch([(0, 20 * BLOCK)])
    with pytest.raises(Unreadable):
        parent.disk.pread(6 * BLOCK, 3 * BLOCK)
    assert parent.disk.pread(8 * BLOCK, 100) == DATA[8 * BLOCK : 8 * BLOCK + 100]
    assert parent.disk.pread(5 * BLOCK, 2 * BLOCK) == DATA[5 * BLOCK : 7 * BLOCK]
