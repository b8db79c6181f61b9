# SPDX-License-Identifier: Apache-2.0
"""The Azure store passes the suite on Azurite: with the account key, with a SAS, with a bearer token over TLS; and on a
real account when DATA_MOVER_AZURE_SMOKE_URL names a container (with a SAS, or through the worker's credentials).

What Azurite cannot do wrong (proxies, throttling, answers that break) is in test_azure_faults.py.
"""

from __future__ import annotations

import datetime
import os
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from azure.storage.blob import BlobServiceClient, ContainerSasPermissions, generate_container_sas

from mover.store.azure import AzureBlobStore
from mover.store.azure_credentials import AccountKey
from mover.store.base import Store
from mover.store.open import open_store
from tests.azurite import Azurite, StaticCredential
from tests.mover.store.conformance import Conformance, LapsedLeases, Place

pytestmark = pytest.mark.azurite

REAL_ACCOUNT = os.environ.get("DATA_MOVER_AZURE_SMOKE_URL", "")


def make_container(server: Azurite) -> str:
    """The URL of a new container."""
    name = uuid.uuid4().hex
    options: dict[str, Any] = {"connection_verify": str(server.ca_file)} if server.ca_file else {}
    with BlobServiceClient(server.blob_url, server.account_key, retry_total=0, **options) as service:
        service.create_container(name)
    return f"{server.blob_url}/{name}"


def poll(seconds: float, condition: Callable[[], bool]) -> None:
    """Leases of a service lapse by its own clock: ask until it says so."""
    deadline = time.monotonic() + seconds + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.25)


def places(open_store: Callable[[], Store]) -> Iterator[Place]:
    opened: list[Store] = []

    def open_and_remember() -> Store:
        opened.append(open_store())
        return opened[-1]

    yield Place(open_and_remember, poll, many=120, rounds=8)
    for store in opened:
        store.close()


def key_of(server: Azurite) -> AccountKey:
    return AccountKey(server.account_name, server.account_key)


def sas(server: Azurite, container: str, permissions: str, *, minutes: int = 60) -> str:
    now = datetime.datetime.now(datetime.UTC)
    return generate_container_sas(
        server.account_name,
        container.rpartition("/")[2],
        account_key=server.account_key,
        permission=ContainerSasPermissions.from_string(permissions),
        start=now - datetime.timedelta(hours=2),
        expiry=now + datetime.timedelta(minutes=minutes),
    )


# -- the suite


@pytest.fixture(scope="class")
def plain(azurite: Azurite) -> Iterator[Place]:
    url = make_container(azurite) + "/some/folder"
    yield from places(lambda: AzureBlobStore(url, key_of(azurite), page=50))


@pytest.fixture(scope="class")
def bearer(azurite_tls: Azurite) -> Iterator[Place]:
    url = make_container(azurite_tls)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REQUESTS_CA_BUNDLE", str(azurite_tls.ca_file))
        yield from places(lambda: AzureBlobStore(url, StaticCredential(), page=50))


@pytest.fixture(scope="class")
def signed(azurite: Azurite) -> Iterator[Place]:
    url = make_container(azurite)
    yield from places(lambda: open_store(f"{url}?{sas(azurite, url, 'rcwdl')}", {}))


class TestAzurite(Conformance):
    @pytest.fixture(scope="class")
    @classmethod
    def place(cls, plain: Place) -> Place:
        return plain


class TestAzuriteLapsedLeases(LapsedLeases):
    @pytest.fixture(scope="class")
    @classmethod
    def place(cls, plain: Place) -> Place:
        return plain


class TestAzuriteWithBearerToken(Conformance):
    @pytest.fixture(scope="class")
    @classmethod
    def place(cls, bearer: Place) -> Place:
        return bearer


@pytest.mark.slow
class TestAzuriteWithBearerTokenLapsedLeases(LapsedLeases):
    @pytest.fixture(scope="class")
    @classmethod
    def place(cls, bearer: Place) -> Place:
        return bearer


class TestAzuriteWithSas(Conformance):
    @pytest.fixture(scope="class")
    @classmethod
    def place(cls, signed: Place) -> Place:
        return signed


if REAL_ACCOUNT:

    @pytest.fixture(scope="class")
    def real() -> Iterator[Place]:
        base, _, query = REAL_ACCOUNT.partition("?")
        folder = f"{base.rstrip('/')}/smoke-{uuid.uuid4().hex}" + (f"?{query}" if query else "")
        yield from places(lambda: open_store(folder, os.environ))

    class TestRealAccount(Conformance):
        @pytest.fixture(scope="class")
        @classmethod
        def place(cls, real: Place) -> Place:
            return real

    @pytest.mark.slow
    class TestRealAccountLapsedLeases(LapsedLeases):
        @pytest.fixture(scope="class")
        @classmethod
        def place(cls, real: Place) -> Place:
            return real
