# SPDX-License-Identifier: Apache-2.0
"""Reads, of blobs and of listings' pages, through an azure-core pipeline of public policies over `azure_transport`.

One request a call, nothing repeated, and a range goes into the caller's buffer. A body that ends early is
StoreUnavailable (the connection broke); an answer that says the object is shorter is ShortObject. Writes, deletions and
leases go through the SDK's clients (`azure`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError
from azure.core.pipeline import Pipeline
from azure.core.pipeline.policies import RequestIdPolicy, UserAgentPolicy
from azure.core.rest import HttpRequest

from mover.clock import Clock
from mover.errors import AccessDenied, ObjectNotFound, ShortObject, StoreError, StoreUnavailable
from mover.store.azure_credentials import Credential, Sas, policy
from mover.store.azure_errors import broken, from_answer, number
from mover.store.azure_location import ContainerLocation
from mover.store.azure_transport import Answer, DirectTransport, Headers

T = TypeVar("T")

VERSION = "2021-12-02"  # of the service's interface: old enough for every cloud, and all that reads need
_MOST_LISTED = 64 << 20
"""Bytes of a listing's page: Azure's largest, of 5,000 names of 1,024 characters with metadata of 8 KiB each."""
_CONTENT_RANGE = re.compile(
    r"bytes ([0-9]{1,18})-(-?[0-9]{1,18})/([0-9]{1,18})\Z"
)  # of an empty blob Azurite answers "0--1/0"


class AzureReads:
    """Thread-safe. `version`: a query that says which state of every object is meant. `condition`: headers of each request."""

    def __init__(
        self,
        location: ContainerLocation,
        credential: Credential,
        clock: Clock,
        *,
        version: str = "",
    ) -> None:
        self._location = location
        self._version = version
        self.condition: dict[str, str] = {}
        self._sas_expiry = credential.expiry if isinstance(credential, Sas) else ""
        self._transport = DirectTransport(location.account_url)
        policies: list[Any] = [RequestIdPolicy(), UserAgentPolicy("data-mover"), policy(credential, clock)]
        self._pipeline: Pipeline[HttpRequest, Answer] = Pipeline(self._transport, policies)

    def read_into(self, name: str, offset: int, *targets: memoryview) -> None:
        """Fill the targets, one after the other, with one range."""
        size = sum(target.nbytes for target in targets)
        last = offset + size - 1
        with self._ask(name, "GET", {"Range": f"bytes={offset}-{last}"}) as answer:
            found = _CONTENT_RANGE.match(answer.headers.get("content-range", ""))
            if answer.status_code != 206 or found is None or int(found[1]) != offset:
                raise StoreError("the answer is not the range that was asked for", name, "is a proxy in between?")
            if int(found[2]) != last:
                raise ShortObject(f"the object has {found[3]} bytes, {offset}+{size} were asked for", name)
            self._fill(name, answer, *targets)

    def read_whole(self, name: str, most: int) -> tuple[bytes, Headers]:
        """Content and headers of one moment; StoreError when there are more bytes than `most`."""
        with self._ask(name, "GET", {}) as answer:
            size = self._length(name, answer)
            if size > most:
                raise StoreError(f"{size} bytes are more than a record has", name)
            target = bytearray(size)
            self._fill(name, answer, memoryview(target))
            return bytes(target), answer.headers

    def size(self, name: str) -> int:
        return self.properties(name)[0]

    def properties(self, name: str) -> tuple[int, Headers]:
        """(size in bytes, headers)."""
        with self._ask(name, "HEAD", {}) as answer:
            return self._length(name, answer), answer.headers

    def read_url(self, name: str, url: str, headers: Mapping[str, str] | None = None) -> bytes:
        """The body of an answer that may be chunked, a listing's page; `name` is what errors are about."""
        with self._ask(name, "GET", dict(headers or {}), url) as answer:
            try:
                body = answer.read(_MOST_LISTED)
            except AzureError as error:
                problem: StoreError = failed(name, error)
            else:
                if len(body) <= _MOST_LISTED:
                    return body
                problem = StoreError(f"an answer of more than {_MOST_LISTED} bytes", name, "is a proxy in between?")
            raise problem

    def is_there(self, name: str) -> bool:
        try:
            self.size(name)
        except ObjectNotFound:
            return False
        return True

    def close(self) -> None:
        self._transport.close()

    def object_url(self, name: str) -> str:
        url = self._location.object_url(name)
        return f"{url}?{self._version}" if self._version else url

    def _ask(self, name: str, method: str, headers: dict[str, str], url: str = "", body: bytes | None = None) -> Answer:
        url = url or self.object_url(name)
        headers = {"x-ms-version": VERSION} | self.condition | headers
        request = HttpRequest(method, url, headers=headers, content=body)
        try:
            answer = self._pipeline.run(request).http_response
        except AzureError as error:
            problem = failed(name, error)
        else:
            if answer.status_code in (200, 201, 206):
                return answer
            problem = from_answer(name, answer.status_code, answer.headers, self._sas_expiry)
            answer.close()
        raise problem  # outside the handler: the SDK's error, which quotes URLs, is not chained to ours

    def _fill(self, name: str, answer: Answer, *targets: memoryview) -> None:
        done, size = 0, sum(target.nbytes for target in targets)
        try:
            for target in targets:
                done += answer.read_into(target)
        except AzureError as error:
            problem = failed(name, error)
        else:
            if done == size:
                return
            problem = StoreUnavailable(f"the answer ended after {done} of {size} bytes", name)
        raise problem

    def _length(self, name: str, answer: Answer) -> int:
        length = number(answer.headers.get("content-length"))
        if length is None:
            raise StoreError("the answer does not say the object's size", name, "is a proxy in between?")
        return length


def failed(name: str, error: AzureError) -> StoreError:
    """The error for a request of azure-core's, whosever, that had no answer."""
    if isinstance(error, ClientAuthenticationError):
        return AccessDenied(
            "no token for the store could be had", name, "is a managed identity assigned to this worker?"
        )
    return broken(name, error)


def asked(name: str, call: Callable[[], T], sas_expiry: str = "") -> T:
    """What a call of the SDK's gives, its errors in our words."""
    try:
        return call()
    except HttpResponseError as error:
        answer: Any = error.response
        if answer is None:
            problem = failed(name, error)
        else:
            headers = {key.lower(): value for key, value in answer.headers.items()}
            problem = from_answer(name, answer.status_code or 0, headers, sas_expiry)
    except AzureError as error:
        problem = failed(name, error)
    raise problem  # outside the handler: the SDK's error, which quotes URLs, is not chained to ours
