# SPDX-License-Identifier: Apache-2.0
"""From a repository's URL and the environment to a store: a folder (`file:///path`) or a container in Azure.

What a container's credential is, the first of these decides: a SAS in the URL; DATA_MOVER_SAS;
DATA_MOVER_CONNECTION_STRING; DATA_MOVER_ACCOUNT_KEY (each also as ..._FILE, the path of a file that holds it); else the
worker's identity as azure-identity finds it (workload or managed identity, AZURE_CLIENT_ID chooses one of several).
Azure's modules are imported for Azure's URLs only: they take a quarter of a second.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from mover.clock import SYSTEM, Clock
from mover.errors import UsageError
from mover.store.azure_location import parse_location, redact
from mover.store.base import Store
from mover.store.local import LocalStore

if TYPE_CHECKING:
    from mover.store.azure_credentials import Credential

__all__ = ["open_store", "redact"]


def open_store(
    url: str, environ: Mapping[str, str], clock: Clock = SYSTEM, cancel: threading.Event | None = None
) -> Store:
    """The store alone: `retry`, `limit` and `meter` are the caller's to put over it. Makes no request. `cancel` stops uploads."""
    scheme = url.partition(":")[0].lower()
    if scheme == "file":
        return LocalStore(_path(url), clock)
    if scheme in ("https", "http"):
        from mover.store.azure import AzureBlobStore

        location = parse_location(url)
        return AzureBlobStore(url, find_credential(location.account, location.query, environ), clock, cancel=cancel)
    raise UsageError(
        "not the URL of a repository", redact(url), "file:///path, or a container's https URL and a folder"
    )


def _path(url: str) -> Path:
    split = urlsplit(url)
    if split.netloc not in ("", "localhost") or not split.path.startswith("/") or split.query or split.fragment:
        raise UsageError("not the URL of a folder of this host", redact(url), "write file:///path, with three slashes")
    path = unquote(split.path)
    if "\0" in path:
        raise UsageError("not the URL of a folder of this host", redact(url))
    return Path(path)


def find_credential(
    account: str,
    query: str,
    environ: Mapping[str, str],
    prefixes: tuple[str, ...] = ("DATA_MOVER_",),
    accept: Callable[[str], bool] = lambda sas: True,
) -> Credential:
    """Of an account: what its URL's query says, else the first of the variables that begin with a prefix, else the identity.
    `accept`: whether a variable's SAS is good for what it is wanted for."""
    from mover.store.azure_credentials import AccountKey, Sas

    if "sig=" in query:
        return Sas(query)
    for prefix in prefixes:
        if (sas := _secret(environ, f"{prefix}SAS")) and accept(sas):
            return Sas(sas.lstrip("?"))
        if connection := _secret(environ, f"{prefix}CONNECTION_STRING"):
            return _from_connection_string(connection, account)
        if key := _secret(environ, f"{prefix}ACCOUNT_KEY"):
            return AccountKey(account, key)
    from azure.identity import DefaultAzureCredential

    return DefaultAzureCredential()


def _from_connection_string(text: str, account: str) -> Credential:
    from mover.store.azure_credentials import AccountKey, Sas

    fields = {key.strip().lower(): value for key, _, value in (part.partition("=") for part in text.split(";"))}
    if fields.get("sharedaccesssignature"):
        return Sas(fields["sharedaccesssignature"].lstrip("?"))
    name, key = fields.get("accountname", account), fields.get("accountkey")
    if not key:
        raise UsageError("the connection string has neither AccountKey nor SharedAccessSignature", account)
    return AccountKey(name, key)


def _secret(environ: Mapping[str, str], name: str) -> str:
    """The variable's value, or that of the file that `name`_FILE points to; empty when there is neither."""
    if value := environ.get(name, "").strip():
        return value
    if not (path := environ.get(name + "_FILE", "")):
        return ""
    try:
        value = Path(path).read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not ASCII"
        raise UsageError(f"{name}_FILE cannot be read ({reason})", path) from error
    if not value:
        raise UsageError(f"the file that {name}_FILE names is empty", path)
    return value
