# SPDX-License-Identifier: Apache-2.0
"""The disk path over Azure Blob Storage (Azurite): with the smallest permissions that can do it, and with a bearer token."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mover.clock import SYSTEM
from mover.errors import AccessDenied
from mover.repository.names import request_class
from mover.repository.repository import Repository
from mover.store.azure import AzureBlobStore
from mover.store.base import Store
from mover.store.meter import MeterStore
from mover.store.open import open_store
from mover.store.retry import RetryStore
from tests.azurite import Azurite, StaticCredential
from tests.mover.disks import MIB, MemoryDisk, back_up, restore
from tests.mover.store.test_azure import make_container, sas

pytestmark = pytest.mark.azurite


@pytest.fixture
def closing() -> Iterator[Callable[[Store], Store]]:
    """Closes the stores that it is given when the test is over."""
    with contextlib.ExitStack() as stack:
        yield lambda store: stack.enter_context(contextlib.closing(store))


def a_disk() -> MemoryDisk:
    disk = MemoryDisk(160 * MIB - 4096)
    disk.fill(random.Random(1), range(0, 160, 2))
    return disk


def full_incremental_restore(writing: Store, reading: Store, folder: Path) -> list[str]:
    """Backs up twice through one store, restores through the other; the notes of the restore."""
    Repository.create(writing, password="p")
    writer = Repository.open(writing, password="p")
    disk = a_disk()
    back_up(writer, "one", disk)
    disk.fill(random.Random(2), [1, 50])
    second = back_up(writer, "two", disk)
    assert second.statistics.new == 2 * MIB
    notes: list[str] = []
    restore(Repository.open(reading, password="p"), second.point, str(folder / "out"), notes=notes)
    assert (folder / "out").read_bytes() == disk.data
    return notes


def test_a_backup_needs_no_delete_and_a_restore_may_only_read(
    azurite: Azurite, tmp_path: Path, closing: Callable[[Store], Store]
) -> None:
    url = make_container(azurite)
    writing = closing(RetryStore(open_store(f"{url}/vault?{sas(azurite, url, 'rcwl')}", {}), SYSTEM))
    reading = closing(RetryStore(open_store(f"{url}/vault?{sas(azurite, url, 'rl')}", {}), SYSTEM))
    notes = full_incremental_restore(writing, reading, tmp_path)
    assert any("may only be read" in note for note in notes), "it reads unheld, and says so"
    with pytest.raises(AccessDenied):
        back_up(Repository.open(reading, password="p"), "three", a_disk())


def test_over_tls_with_a_bearer_token(
    azurite_tls: Azurite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closing: Callable[[Store], Store]
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(azurite_tls.ca_file))
    store = closing(AzureBlobStore(make_container(azurite_tls), StaticCredential()))
    assert full_incremental_restore(store, store, tmp_path) == []


def test_requests_of_an_incremental(azurite: Azurite, closing: Callable[[Store], Store]) -> None:
    """What a small incremental costs, by class: no request a block, none a chunk."""
    url = make_container(azurite)
    meter = MeterStore(open_store(url, {"DATA_MOVER_ACCOUNT_KEY": azurite.account_key}), request_class)
    closing(meter)
    repository = Repository.create(meter, password="p")
    disk = a_disk()
    back_up(repository, "one", disk)
    before = meter.snapshot()
    disk.fill(random.Random(2), [1])
    back_up(repository, "two", disk)
    after = meter.snapshot()

    def calls(operation: str) -> float:
        return sum(line["calls"] for line in after.get(operation, {}).values()) - sum(
            line["calls"] for line in before.get(operation, {}).values()
        )

    assert calls("put") == 3, "a data pack, a metadata pack, an index run"
    assert calls("create_record") == 1
    assert calls("replace_record") == 2, "the acknowledgement and the commit"
    assert calls("lease") == 2
    assert calls("list") == 2, "the resource's points, and the runs once something is new"
    assert calls("read_into") <= 6, "the parent's root, page and summary; the first run"
