# SPDX-License-Identifier: Apache-2.0
"""From where a queue is to its service: a SQLite file of this host, or an account's queue endpoint in Azure.

The credential of an account: a SAS in the URL, then DATA_MOVER_QUEUE_SAS, ..._CONNECTION_STRING and ..._ACCOUNT_KEY (each also
as ..._FILE), then the same names without QUEUE_ (a
container's SAS does not count), then the worker's identity (`mover.store.open`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from agent.queue.base import QueueService
from agent.queue.sqlite import SqliteQueueService
from mover.clock import SYSTEM, Clock
from mover.errors import UsageError
from mover.store.azure_location import account_of, redact
from mover.store.open import find_credential

if TYPE_CHECKING:
    from mover.store.azure_credentials import Credential

PREFIXES = ("DATA_MOVER_QUEUE_", "DATA_MOVER_")


def open_service(where: str, environ: Mapping[str, str], clock: Clock = SYSTEM, *, create: bool = True) -> QueueService:
    """`create`: a SQLite file that is not there is made. Makes no request."""
    scheme, separator, rest = where.partition("://")
    if not separator or scheme == "sqlite":
        return SqliteQueueService(rest if separator else where, clock, create=create)
    if scheme in ("https", "http"):
        from agent.queue.azure import AzureQueueService

        return AzureQueueService(where, queue_credential(where, environ), clock)
    raise UsageError(
        "not where a queue can be", redact(where), "a path, sqlite:///path, or https://ACCOUNT.queue.core.windows.net"
    )


def queue_credential(where: str, environ: Mapping[str, str]) -> Credential:
    """Of an account's queue endpoint."""
    _, account, query = account_of(where)
    return find_credential(account, query, environ, PREFIXES, _not_for_a_container)


def _not_for_a_container(sas: str) -> bool:
    """A SAS for a container or a blob (`sr`) is the repository's, and no queue takes it."""
    return "sr" not in parse_qs(sas.lstrip("?"))
