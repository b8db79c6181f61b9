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
    ResourceTypes,
    generate_account_sas,
)

from tests.agent.conftest import dm, place, strict  # noqa: F401 - fixtures
from tests.azure.front import Front
from tests.azurite import Azurite

MIB = 1 << 20


@pytest.fixture
def front(azurite: Azurite) -> Iterator[Front]:
    with Front(azurite.blob_url) as running:
        yield running


class PageBlob:
    """A page blob behind the front, written by the SDK."""

    def __init__(self, azurite: Azurite, front: Front, size: int) -> None:
        self._front = front
        self.size = size
        with BlobServiceClient(azurite.blob_url, azurite.account_key, retry_total=0) as service:
            self.container = uuid.uuid4().hex
            service.create_container(self.container)
        self._azurite = azurite
        self._client = self._open()
        self._client.create_page_blob(size)
        self._sas = generate_account_sas(
            azurite.account_name,
            azurite.account_key,
            ResourceTypes(object=True, container=True, service=True),
            AccountSasPermissions(read=True, write=True, list=True, create=True),
            datetime.now(UTC) + timedelta(hours=2),
        )

    def _open(self, snapshot: str = "") -> BlobClient:
        server = self._azurite
        return BlobClient(
            server.blob_url,
            self.container,
            "disk.vhd",
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

    def url(self, snapshot: str = "") -> str:
        """With a SAS, at the front."""
        state = f"snapshot={snapshot}&" if snapshot else ""
        return f"{self._front.url}/{self.container}/disk.vhd?{state}{self._sas}"

    def content(self, snapshot: str = "") -> bytes:
        with self._open(snapshot) as client:
            data: bytes = client.download_blob().readall()
        return data


@pytest.fixture
def page_blob(azurite: Azurite, front: Front) -> PageBlob:
    return PageBlob(azurite, front, 12 * MIB)
