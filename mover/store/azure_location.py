# SPDX-License-Identifier: Apache-2.0
"""Which container, and which folder in it, a repository's URL means; and what of a URL may be shown.

    https://ACCOUNT.blob.core.windows.net/CONTAINER[/FOLDER][?SAS]   any cloud, private endpoint or custom domain
    http://127.0.0.1:10000/ACCOUNT/CONTAINER[/FOLDER]                an emulator: its host is an address, or has no dot

No Azure module is imported here: a `file:` URL must not pay for that.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit

from mover.errors import UsageError

_SECRETS = re.compile(r"[#?&]|%3f|%26", re.IGNORECASE)
_HINT = "a container's URL is https://ACCOUNT.blob.core.windows.net/CONTAINER, then a folder if it is not alone there"


@dataclass(frozen=True)
class ContainerLocation:
    """`folder` is empty or ends with '/'. `account` is a guess where the host is a custom domain."""

    account_url: str
    account: str
    container: str
    folder: str
    query: str = field(default="", repr=False)  # a SAS, if the URL had one

    @property
    def url(self) -> str:
        """The container's URL and the folder, without any secret."""
        return f"{self.container_url}/{quote(self.folder)}".rstrip("/")

    @property
    def container_url(self) -> str:
        return f"{self.account_url}/{self.container}"

    def object_url(self, name: str) -> str:
        return f"{self.container_url}/{quote(self.folder + name)}"


def parse_location(url: str) -> ContainerLocation:
    account_url, account, query, (container, *folders) = _named(url, 1, "the URL names no container", _HINT)
    return ContainerLocation(account_url, account, container, "".join(part + "/" for part in folders), query)


def parse_blob(url: str) -> tuple[ContainerLocation, str]:
    """(the container, the blob's name in it) of a blob's URL; its query, a SAS and what else stands there, is the location's."""
    hint = "a blob's URL is https://ACCOUNT.blob.core.windows.net/CONTAINER/BLOB?SAS, or an exported disk's"
    account_url, account, query, (container, *blob) = _named(url, 2, "the URL names no blob", hint)
    return ContainerLocation(account_url, account, container, "", query), "/".join(blob)


def account_of(url: str) -> tuple[str, str, str]:
    """(the account's URL, its name as far as the host tells, a SAS or nothing) of a service's endpoint without a container."""
    account_url, account, query, parts = _split(url)
    if any(parts) or not account:
        raise UsageError(
            "not an account's endpoint", redact(url), "https://ACCOUNT.queue.core.windows.net, with nothing behind"
        )
    return account_url, account, query


def _named(url: str, least: int, what: str, hint: str) -> tuple[str, str, str, list[str]]:
    """As `_split`, of a URL whose path has so many parts at least, all of them names."""
    account_url, account, query, parts = _split(url)
    if len(parts) < least or not all(parts) or any(part in (".", "..") for part in parts):
        raise UsageError(what, redact(url), hint)
    if any("sig=" in part for part in parts):
        raise UsageError("a SAS in the URL's path", redact(url), "put a question mark before it, as it is")
    return account_url, account, query, parts


def _split(url: str) -> tuple[str, str, str, list[str]]:
    """(account's URL, account, query, the path's parts behind the account)."""
    try:
        split = urlsplit(url)
        port = split.port
    except ValueError:
        raise UsageError("not a URL", redact(url), _HINT) from None
    host = split.hostname or ""
    emulator = _is_emulator(host)
    if split.scheme not in ("https", "http") or not host or split.username or split.password or split.fragment:
        raise UsageError("not a container's URL", redact(url), _HINT)
    if split.scheme == "http" and not emulator and not host.endswith(".localhost"):
        raise UsageError("this URL would send data and secrets in the clear", redact(url), "use https")
    parts = [unquote(part) for part in split.path.strip("/").split("/")]
    account_url = f"{split.scheme}://{f'[{host}]' if ':' in host else host}{f':{port}' if port else ''}"
    account = host.partition(".")[0]
    if emulator:
        account = parts.pop(0)
        account_url += f"/{account}"
    return account_url, account, split.query, parts


def redact(url: str) -> str:
    """The URL as it may be shown: without its user, its fragment and its query (a SAS stands there), even if somebody lost the
    question mark. Of what is no URL nothing that could be a SAS alone, or a connection string."""
    shown = _SECRETS.split(url, maxsplit=1)[0]
    scheme, separator, rest = shown.partition("://")
    if not separator:
        return shown if shown == url and "=" not in url else "(a text that is no URL is not shown)"
    authority, slash, path = rest.partition("/")
    return f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"


def _is_emulator(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return "." not in host
    return True
