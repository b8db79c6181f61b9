# SPDX-License-Identifier: Apache-2.0
"""A page blob by its URL with a SAS: an exported disk or snapshot, a blob of a storage account, or its snapshot.

Requests are asked again while they fail in passing, and counted. A SAS stands in no error, no name and no `repr`.
What reads a disk from it is `page_source`, what writes one to it `page_target`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar
from urllib.parse import parse_qsl, quote, urlencode

from mover.clock import SYSTEM, Clock
from mover.disk.page_ranges import page_ranges
from mover.errors import AccessDenied, MoverError, ObjectNotFound, SasExpired, StoreError, UsageError
from mover.store.azure_credentials import Sas
from mover.store.azure_location import ContainerLocation, parse_blob, redact
from mover.store.azure_pages import AzurePages
from mover.store.azure_transport import Headers
from mover.store.patience import Patience

T = TypeVar("T")
_HINT = "check the disk's URL, and that its access has not ended; then issue the same command again"
MARK = "x-ms-meta-data_mover_restore"
"""Metadata of a blob that a restore has not finished."""
_ENDED = "grant access anew: the same command with the new SAS goes on"
_VERSION_FIELDS = ("snapshot", "versionid")


class PageBlob:
    """Thread-safe. `heard` is called at each answer; `requests` counts them, those that failed too. `is_export`: a managed disk's
    own host, which serves its pages and no more. `may_write`: the SAS says so, or says nothing."""

    def __init__(
        self,
        url: str,
        *,
        clock: Clock = SYSTEM,
        patience: Patience | None = None,
        heard: Callable[[], None] = lambda: None,
    ) -> None:
        self._location, self.name, self.version, sas = parts(url)
        self.where = self._location.object_url(self.name)
        self.is_export = self._location.account.startswith("md-")
        self.clock = clock
        self.patience = patience or Patience(clock)
        self.may_write = "w" in Sas(sas).permissions or not Sas(sas).permissions
        self._heard = heard
        self._lock = threading.Lock()
        self.requests = 0
        self._answered = False
        self.pages = AzurePages(self._location, Sas(sas), clock, version=urlencode(self.version))

    def open(self, wrong: type[MoverError], what: str, hint: str) -> tuple[int, Headers] | None:
        """(size in bytes, headers); None when it is not there; `wrong` when it is no page blob."""
        try:
            length, headers = self.ask(lambda: self.pages.properties(self.name))
        except ObjectNotFound:
            return None
        kind = headers.get("x-ms-blob-type", "")
        if kind != "PageBlob":
            raise wrong(what, f"{self.where}: {kind or 'no blob'}", hint)
        return length, headers

    def ranges(
        self, length: int, fields: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> Iterator[tuple[int, int]]:
        """See `page_ranges`."""
        return page_ranges(self._list, self.where, length, self.patience, fields, headers)

    def _list(self, fields: Mapping[str, str], headers: Mapping[str, str]) -> bytes:
        self.patience.check(self.where)  # a long list is many answers
        query = urlencode(self.version | dict(fields), quote_via=quote)
        return self.once(lambda: self.pages.read_url(self.where, f"{self.where}?{query}", headers))

    def ask(self, call: Callable[[], T]) -> T:
        return self.patience.ask(self.where, lambda: self.once(call))

    def once(self, call: Callable[[], T]) -> T:
        """Without asking again."""
        with self._lock:
            self.requests += 1
        try:
            found = call()
        except StoreError as error:
            error.value = self.where if error.value == self.name else error.value
            if error.hint == StoreError.hint_default:
                error.hint = _HINT
            ended = isinstance(error, ObjectNotFound) or (
                type(error) is AccessDenied and "AuthenticationFailed" in error.what
            )
            if self.is_export and self._answered and ended:  # an export's SAS does not say when it ends
                raise SasExpired(f"the access to the disk has ended: {error.what}", self.where, _ENDED) from None
            raise
        self._answered = True
        self._heard()
        return found

    def close(self) -> None:
        self.pages.close()


def parts(url: str) -> tuple[ContainerLocation, str, dict[str, str], str]:
    """(container, blob, the fields that name a state of it, the SAS)."""
    if any(not " " < character < "\x7f" for character in url):
        raise UsageError(
            "a URL with spaces or characters that are none of a URL's", redact(url).encode("ascii", "replace").decode()
        )
    location, blob = parse_blob(url)
    fields = [pair.partition("=") for pair in location.query.split("&") if pair]
    version = dict(parse_qsl("&".join(f"{n}={v}" for n, _, v in fields if n.lower() in _VERSION_FIELDS)))
    sas = "&".join(f"{n}={v}" for n, _, v in fields if n.lower() not in _VERSION_FIELDS)
    return location, blob, version, sas
