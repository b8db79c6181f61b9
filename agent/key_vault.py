# SPDX-License-Identifier: Apache-2.0
"""A secret from Azure Key Vault, by the worker's own identity (which needs *Key Vault Secrets User*).

Only hosts of Azure's vaults are asked (`protocol.VaultUrl`): a command cannot send the worker's token elsewhere.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

from azure.core import PipelineClient
from azure.core.credentials import TokenCredential
from azure.core.exceptions import AzureError, ClientAuthenticationError
from azure.core.pipeline.policies import BearerTokenCredentialPolicy, UserAgentPolicy
from azure.core.rest import HttpRequest

from agent.passwords import LONGEST
from mover.errors import AccessDenied, StoreUnavailable, UsageError

API = "7.4"
ASKS = "the worker's identity needs the right to read secrets of this vault"


def read(url: str, credential: TokenCredential | None = None, transport: Any = None) -> str:
    """The secret's value. UsageError: it is not there, not enabled or not text; AccessDenied; StoreUnavailable: no answer."""
    split = urlsplit(url)
    if credential is None:
        from azure.identity import DefaultAzureCredential

        credential = DefaultAzureCredential()
    scope = f"https://{split.netloc.partition('.')[2]}/.default"
    policies = [UserAgentPolicy("data-mover"), BearerTokenCredentialPolicy(credential, scope)]
    client: PipelineClient[Any, Any] = PipelineClient(f"https://{split.netloc}", policies=policies, transport=transport)
    try:
        with client:
            answer = client.send_request(HttpRequest("GET", url, params={"api-version": API}))
            return _value(answer.status_code, answer.read(), url)
    except ClientAuthenticationError:
        raise AccessDenied("the worker has no identity for Key Vault", url, ASKS) from None
    except AzureError as error:
        raise StoreUnavailable("Key Vault does not answer", f"{url}: {type(error).__name__}") from None


def _value(status: int, body: bytes, url: str) -> str:
    """Nothing of the body is shown: a proxy may have put anything there."""
    if status in (401, 403):
        raise AccessDenied("Key Vault refused access, or the secret is disabled or expired", f"{url}: {status}", ASKS)
    if status == 404:
        raise UsageError("a secret is not in its Key Vault", url, "check its name; a deleted one can be recovered")
    if status != 200:
        raise StoreUnavailable("Key Vault does not answer", f"{url}: {status}")
    try:
        value = json.loads(body)["value"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise StoreUnavailable("Key Vault does not answer", f"{url}: not a secret") from None
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST:
        raise UsageError("a secret in Key Vault cannot be used", url, f"1 to {LONGEST} characters")
    return value
