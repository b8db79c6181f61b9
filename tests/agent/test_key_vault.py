# SPDX-License-Identifier: Apache-2.0
"""Secrets in Key Vault, by a transport that answers as the service's REST reference says: no vault can be had here."""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec
import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError, ServiceRequestError
from azure.core.pipeline.transport import HttpTransport

from agent import key_vault
from agent.protocol import Secret
from mover.errors import AccessDenied, MoverError, StoreUnavailable, UsageError

URL = "https://vault-1.vault.azure.net/secrets/repository"
VALUE = "known-secret-5512"


class Identity:
    def __init__(self, refused: bool = False) -> None:
        self.scopes: list[str] = []
        self._refused = refused

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        self.scopes += scopes
        if self._refused:
            raise ClientAuthenticationError("no identity")
        return AccessToken("token-1", int(time.time()) + 3600)


class Answer:
    def __init__(self, status: int, body: bytes) -> None:
        self.status_code, self._body = status, body
        self.headers: dict[str, str] = {}

    def read(self) -> bytes:
        return self._body


class Vault(HttpTransport):  # type: ignore[type-arg]
    def __init__(self, status: int, body: bytes, error: Exception | None = None) -> None:
        self._answer, self._error = Answer(status, body), error
        self.asked: list[Any] = []

    def send(self, request: Any, **_: Any) -> Any:
        self.asked.append(request)
        if self._error:
            raise self._error
        return self._answer

    def open(self) -> None: ...

    def close(self) -> None: ...

    def __enter__(self) -> Vault:
        return self

    def __exit__(self, *_: object) -> None: ...


def test_a_secret_is_read_by_the_worker_s_identity() -> None:
    identity, vault = Identity(), Vault(200, json.dumps({"value": VALUE, "id": URL}).encode())
    assert key_vault.read(URL, identity, vault) == VALUE
    (request,) = vault.asked
    assert (request.method, request.url) == ("GET", f"{URL}?api-version=7.4")
    assert request.headers["Authorization"] == "Bearer token-1"
    assert identity.scopes == ["https://vault.azure.net/.default"]


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (401, b"", AccessDenied),
        (403, VALUE.encode(), AccessDenied),
        (404, b"", UsageError),
        (429, b"", StoreUnavailable),
        (503, VALUE.encode(), StoreUnavailable),
        (200, b"<html>" + VALUE.encode(), StoreUnavailable),
        (200, b'{"value":' + b"[" * 50_000, StoreUnavailable),
        (200, b'{"value":""}', UsageError),
        (200, b'{"value":7}', UsageError),
        (200, json.dumps({"value": VALUE * 1000}).encode(), UsageError),
    ],
)
def test_what_is_no_secret_is_said_and_not_shown(status: int, body: bytes, error: type[MoverError]) -> None:
    with pytest.raises(error) as raised:
        key_vault.read(URL, Identity(), Vault(status, body))
    assert VALUE not in repr(raised.value) + str(raised.value.__cause__)
    assert URL in raised.value.value


def test_no_identity_and_no_network() -> None:
    with pytest.raises(AccessDenied):
        key_vault.read(URL, Identity(refused=True), Vault(200, b""))
    with pytest.raises(StoreUnavailable):
        key_vault.read(URL, Identity(), Vault(200, b"", ServiceRequestError("no route")))


@pytest.mark.parametrize(
    "url",
    [
        "http://vault-1.vault.azure.net/secrets/x",
        "https://vault.azure.net.example.com/secrets/x",
        "https://evil.example/secrets/x",
        "https://a@vault-1.vault.azure.net/secrets/x",
        "https://vault-1.vault.azure.net:444/secrets/x",
        "https://vault-1.vault.azure.net/secrets/../keys/x",
        "https://vault-1.vault.azure.net/secrets/x?y",
        "https://vault-1.vault.azure.net/secrets/x\n",
    ],
)
def test_the_token_goes_to_vaults_only(url: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode({"vault": url}), type=Secret)
    assert msgspec.json.decode(msgspec.json.encode({"vault": URL}), type=Secret).vault == URL
