# SPDX-License-Identifier: Apache-2.0
"""A front to Azurite, and page blobs behind it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from azure.storage.blob import (
    AccountSasPermissions,
    BlobClient,
    BlobServiceClient,
    ContainerSasPermissions,
    ResourceTypes,
    generate_account_sas,
    generate_container_sas,
)

from mover.disk.page_blob import PageBlob
from mover.store.patience import Patience
from tests.agent.conftest import dm, place, strict  # noqa: F401 - fixtures
from tests.azure.front import Front
from tests.azurite import Azurite
from tests.mover.store.clock import ManualClock

MIB = 1 << 20


def open_blob(url: str, clock: ManualClock | None = None) -> PageBlob:
    """Its patience, of five minutes, passes at once."""
    clock = clock or ManualClock()
    return PageBlob(url, clock=clock, patience=Patience(clock))


@pytest.fixture
def front(azurite: Azurite) -> Iterator[Front]:
    with Front(azurite.blob_url) as running:
        yield running


class BlobDisk:
    """A page blob behind the front, written by the SDK."""

    def __init__(self, azurite: Azurite, front: Front, size: int) -> None:
        self._front = front
        self.size = size
        with BlobServiceClient(azurite.blob_url, azurite.account_key, retry_total=0) as service:
            self.container = uuid.uuid4().hex
            service.create_container(self.container)
        self._azurite = azurite
        self._client = self.client()
        self._client.create_page_blob(size)
        expiry = datetime.now(UTC) + timedelta(hours=2)
        # Azurite takes no container's SAS for a snapshot, and no account's for the resize of a page blob
        self._sas = self._container_sas("rwlc", expiry)
        self._account_sas = generate_account_sas(
            azurite.account_name,
            azurite.account_key,
            ResourceTypes(object=True),
            AccountSasPermissions(read=True),
            expiry,
        )

    def _container_sas(self, letters: str, expiry: datetime) -> str:
        sas: str = generate_container_sas(
            self._azurite.account_name,
            self.container,
            self._azurite.account_key,
            permission=ContainerSasPermissions.from_string(letters),
            expiry=expiry,
        )
        return sas

    def url_with(self, letters: str, name: str = "disk.vhd", hours: float = 1) -> str:
        """With a SAS of these rights that ends in so many hours."""
        sas = self._container_sas(letters, datetime.now(UTC) + timedelta(hours=hours))
        return f"{self._front.url}/{self.container}/{name}?{sas}"

    def client(self, name: str = "disk.vhd", snapshot: str = "") -> BlobClient:
        """The SDK's, of a blob in the container, past the front."""
        server = self._azurite
        return BlobClient(
            server.blob_url,
            self.container,
            name,
            snapshot=snapshot or None,
            credential=server.account_key,
            retry_total=0,
        )

    def write(self, offset: int, data: bytes) -> None:
        for at in range(0, len(data), 4 * MIB):
            part = data[at : at + 4 * MIB]
            self._client.upload_page(part, offset + at, len(part))

    def clear(self, offset: int, length: int) -> None:
        self._client.clear_page(offset, length)

    def resize(self, size: int) -> None:
        self._client.resize_blob(size)
        self.size = size

    def snapshot(self) -> str:
        """Its time."""
        made: str = self._client.create_snapshot()["snapshot"]
        return made

    def url(self, snapshot: str = "", name: str = "disk.vhd") -> str:
        """With a SAS, at the front; `name`: of another blob, which need not be there."""
        query = f"snapshot={snapshot}&{self._account_sas}" if snapshot else self._sas
        return f"{self._front.url}/{self.container}/{name}?{query}"

    def waits_for_upload(self, size: int, name: str = "upload") -> str:
        """The URL of a managed disk for `size` bytes that waits for its upload. As in Azure it has whole MiB, 20 at least."""
        self.client(name).create_page_blob(max(-(-size // MIB), 20) * MIB + 512)
        return self._front.upload(self.url(name=name))

    def content(self, snapshot: str = "", name: str = "disk.vhd") -> bytes:
        with self.client(name, snapshot) as client:
            data: bytes = client.download_blob().readall()
        return data


@pytest.fixture
def page_blob(azurite: Azurite, front: Front) -> BlobDisk:
    return BlobDisk(azurite, front, 12 * MIB)
