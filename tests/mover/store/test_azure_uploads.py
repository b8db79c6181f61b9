# SPDX-License-Identifier: Apache-2.0
"""An upload that is stopped on its way: the server keeps nothing of it, and what ends a session in order still goes out."""

from __future__ import annotations

import os
import threading

import pytest

from mover.errors import Cancelled, ObjectNotFound
from mover.store.azure import AzureBlobStore
from mover.store.azure_uploads import PIECE, Body
from tests.azurite import Azurite
from tests.mover.store.test_azure import key_of, make_container


def test_a_body_is_whole_and_stops_between_two_pieces() -> None:
    data, cancel = os.urandom(3 * PIECE + 5), threading.Event()
    assert b"".join(Body(data, cancel)) == data
    assert len(Body(data, cancel)) == len(data)
    pieces = iter(Body(data, cancel))
    assert bytes(next(pieces)) == data[:PIECE]
    cancel.set()
    with pytest.raises(Cancelled):
        next(pieces)


@pytest.mark.azurite
def test_a_stopped_upload_leaves_nothing_and_small_writes_still_go_out(azurite: Azurite) -> None:
    cancel = threading.Event()
    store = AzureBlobStore(make_container(azurite), key_of(azurite), cancel=cancel)
    large = os.urandom(8 * PIECE + 1)
    store.put("whole", [large])
    assert store.read("whole", 0, len(large)) == large
    cancel.set()
    with pytest.raises(Cancelled):
        store.put("stopped", [large])
    with pytest.raises(ObjectNotFound):
        store.size("stopped")
    store.put("small", [bytes(PIECE)])
    written = store.create_record("record", b"x", {})
    lease = store.acquire_lease("record", 60)
    store.replace_record("record", b"y", {}, etag=written.etag, lease=lease)
    store.release_lease("record", lease)
    assert store.size("small") == PIECE
    store.close()
