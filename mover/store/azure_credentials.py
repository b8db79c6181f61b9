# SPDX-License-Identifier: Apache-2.0
"""The kinds of credential that a container takes, and Azure's shared key signature for our own range reads.

For the SDK's clients their own types do; `azure-core` has public policies for SAS and bearer tokens, but none for the
account key, so that one is here. It signs requests without a body only. No `repr` shows a secret.
Source: Microsoft's "Authorize with Shared Key", for versions from 2015-02-21 on.
"""

from __future__ import annotations

import base64
import email.utils
import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

from azure.core.credentials import AzureSasCredential, TokenCredential
from azure.core.pipeline import PipelineRequest
from azure.core.pipeline.policies import AzureSasCredentialPolicy, BearerTokenCredentialPolicy, SansIOHTTPPolicy
from azure.core.rest import HttpRequest

from mover.clock import Clock
from mover.errors import UsageError

SCOPE = "https://storage.azure.com/.default"  # the same in every cloud

_SIGNED = (
    *("content-encoding", "content-language", "content-length", "content-md5", "content-type", "date"),
    *("if-modified-since", "if-match", "if-none-match", "if-unmodified-since", "range"),
)


@dataclass(frozen=True)
class Sas:
    """A shared access signature: the query string of a URL, without the question mark."""

    token: str = field(repr=False)

    @property
    def expiry(self) -> str:
        """When it ends, in its own words (ISO 8601); empty when a stored access policy says so."""
        return parse_qs(self.token).get("se", [""])[0]

    @property
    def permissions(self) -> str:
        """Its rights' letters; empty when a stored access policy says them."""
        return parse_qs(self.token).get("sp", [""])[0]


@dataclass(frozen=True)
class AccountKey:
    account: str
    key: str = field(repr=False)


Credential = Sas | AccountKey | TokenCredential


def for_sdk(credential: Credential) -> Any:
    """As the SDK's clients take it."""
    if isinstance(credential, Sas):
        return AzureSasCredential(credential.token)
    if isinstance(credential, AccountKey):
        return {"account_name": credential.account, "account_key": credential.key}
    return credential


def policy(credential: Credential, clock: Clock) -> Any:
    """As an azure-core pipeline takes it."""
    if isinstance(credential, Sas):
        return AzureSasCredentialPolicy(AzureSasCredential(credential.token))
    if isinstance(credential, AccountKey):
        return SharedKeyPolicy(credential, clock)
    return BearerTokenCredentialPolicy(credential, SCOPE)


class SharedKeyPolicy(SansIOHTTPPolicy[HttpRequest, Any]):
    def __init__(self, credential: AccountKey, clock: Clock) -> None:
        super().__init__()
        self._account = credential.account
        self._clock = clock
        try:
            self._key = base64.b64decode(credential.key, validate=True)
        except ValueError:
            raise UsageError("the account key is not Base64", credential.account) from None

    def on_request(self, request: PipelineRequest[HttpRequest]) -> None:
        message = request.http_request
        message.headers["x-ms-date"] = email.utils.formatdate(self._clock.wall(), usegmt=True)
        signature = hmac.new(self._key, self._text(message).encode(), hashlib.sha256).digest()
        message.headers["Authorization"] = f"SharedKey {self._account}:{base64.b64encode(signature).decode()}"

    def _text(self, message: HttpRequest) -> str:
        headers = {name.lower(): value for name, value in message.headers.items()}
        url = urlsplit(message.url)
        lines = [message.method, *(headers.get(name, "") for name in _SIGNED)]
        lines += [f"{name}:{headers[name]}" for name in sorted(headers) if name.startswith("x-ms-")]
        lines.append(f"/{self._account}{url.path}")
        lines += [f"{name.lower()}:{value}" for name, value in sorted(parse_qsl(url.query))]
        return "\n".join(lines)
