# SPDX-License-Identifier: Apache-2.0
"""Strategies for the format's values, and what every decoder owes: its value, or a MoverError, whatever bytes it is given."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from hypothesis import strategies as st

from mover.errors import MoverError
from mover.repository.maps import ChunkRef, MapEntry
from mover.repository.names import METADATA_BIT, PackName
from mover.repository.pack import Place

WORD = (1 << 32) - 1

writers = st.integers(0, 3).map(lambda k: bytes([k]) * 47 + b"\0") | st.binary(min_size=48, max_size=48)
numbers = st.integers(0, METADATA_BIT - 1)
packs = st.builds(PackName, writers, st.integers(0, 5) | numbers | numbers.map(lambda n: n | METADATA_BIT))
places = st.builds(Place, packs, st.integers(0, WORD), st.integers(0, WORD))
ids = st.sampled_from(
    [bytes(32), b"\xff" * 32, b"\1" + bytes(31), bytes(31) + b"\1", b"\7" * 16 + bytes(16)]
) | st.binary(min_size=32, max_size=32)
entries = st.builds(MapEntry, ids, places)
refs = st.builds(ChunkRef, ids, places)


def wounded(data: bytes, seed: int = 0) -> Iterator[bytes]:
    """The bytes cut at every length, and with every byte changed, once each."""
    rng = random.Random(seed)
    for length in range(len(data)):
        yield data[:length]
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= rng.randrange(1, 256)
        yield bytes(changed)


def yields(decode: Callable[[bytes], object], data: bytes) -> object:
    """What it decodes to; None when it raises a MoverError. Any other exception is the test's failure."""
    try:
        return decode(data)
    except MoverError:
        return None


def assert_guarded(decode: Callable[[bytes], object], data: bytes) -> int:
    """No wound yields another value than the bytes that were written; returns how many were harmless."""
    healthy = decode(data)
    assert healthy is not None
    found = [yields(decode, wound) for wound in wounded(data)]
    assert all(value is None or value == healthy for value in found)
    return sum(value is not None for value in found)


def assert_sturdy(decode: Callable[[bytes], object], data: bytes) -> None:
    """For what a chunk id guards: a wound may yield another value here, but no other exception, and no cut passes."""
    for wound in wounded(data):
        value = yields(decode, wound)
        assert value is None or len(wound) == len(data)
