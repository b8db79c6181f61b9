# SPDX-License-Identifier: Apache-2.0
"""A store in a container of Azure Blob Storage, or in a folder of one. Any cloud, private endpoint, or emulator.

Objects and records are block blobs, each written by one Put Blob; writes, deletions and leases go through the SDK's
clients, reads and listings through `azure_reads`. The SDK's own retries are off: `retry` repeats, above this. Accounts
with a hierarchical namespace are not supported (`azure_listing`).
"""

from __future__ import annotations

import datetime
import importlib.util
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from azure.core import MatchConditions
from azure.storage.blob import BlobClient, BlobLeaseClient, ContainerClient

from mover.clock import SYSTEM, Clock
from mover.errors import (
    ConditionFailed,
    LeaseConflict,
    LeaseLost,
    ObjectExists,
    ObjectNotFound,
    ShortObject,
    UsageError,
)
from mover.store.azure_credentials import Credential, Sas, for_sdk
from mover.store.azure_errors import seconds
from mover.store.azure_listing import list_blobs
from mover.store.azure_location import parse_location
from mover.store.azure_reads import AzureReads, asked
from mover.store.azure_transport import CONNECT_SECONDS, ca_bundle
from mover.store.azure_uploads import UploadTransport
from mover.store.base import Buffer, Entry, Record, Store, Written, check_name, check_prefix
from mover.store.record_rules import RECORD_LIMIT, check_lease_seconds, check_record

T = TypeVar("T")

_PUT_LIMIT = 5000 << 20  # bytes in one Put Blob
_ANSWER_SECONDS = 120  # a Put Blob of a whole pack is answered when it is stored
_PAGE = 5000  # names in one answer of a listing, Azure's most
# In C, when the SDK's extra is installed (it is locked); MD5 costs 1.5 CPU seconds a GB more.
_CHECK: Any = "crc64" if importlib.util.find_spec("azure.storage.extensions") else "md5"


class AzureBlobStore(Store):
    """`url` is a container's, with a folder if the store is not alone there; a SAS in it is ignored (`open` takes it).

    Safe for many threads. `page` is the number of names in one request of a listing. `cancel` stops uploads on their way.
    """

    def __init__(
        self,
        url: str,
        credential: Credential,
        clock: Clock = SYSTEM,
        *,
        page: int = _PAGE,
        cancel: threading.Event | None = None,
    ) -> None:
        self._location = location = parse_location(url)
        if location.account_url.startswith("http:") and hasattr(credential, "get_token"):
            raise UsageError("a bearer token would travel in the clear", location.url, "use https")
        self._sas_expiry = credential.expiry if isinstance(credential, Sas) else ""
        self._page = page
        self._reads = AzureReads(location, credential, clock)
        self._container = ContainerClient(
            location.account_url,
            location.container,
            for_sdk(credential),
            retry_total=0,
            max_single_put_size=_PUT_LIMIT,
            user_agent="data-mover",
            transport=UploadTransport(
                cancel or threading.Event(),
                connection_timeout=CONNECT_SECONDS,
                read_timeout=_ANSWER_SECONDS,
                connection_verify=ca_bundle(),
            ),
        )

    # -- objects

    def put(self, name: str, parts: Sequence[Buffer]) -> None:
        # One `bytes`: the SDK refuses anything else for a single Put Blob. A lone part is not copied.
        data = parts[0] if len(parts) == 1 and isinstance(parts[0], bytes) else b"".join(parts)
        blob = self._blob(name)
        self._create(name, lambda: blob.upload_blob(data, overwrite=False, validate_content=_CHECK))

    def read_into(self, name: str, offset: int, target: memoryview) -> None:
        check_name(name)
        if offset < 0 or not target.nbytes:  # HTTP has no empty range
            if not 0 <= offset <= self._reads.size(name):
                raise ShortObject(f"the object ends before offset {offset}", name)
            return
        self._reads.read_into(name, offset, target)

    def size(self, name: str) -> int:
        return self._reads.size(check_name(name))

    # -- records

    def create_record(self, name: str, data: bytes, metadata: Mapping[str, str]) -> Written:
        blob, kept = self._blob(name), check_record(name, data, metadata)

        def call() -> dict[str, Any]:
            return blob.upload_blob(data, overwrite=False, metadata=kept, validate_content=_CHECK)

        return self._create(name, call)

    def replace_record(
        self, name: str, data: bytes, metadata: Mapping[str, str], *, etag: str, lease: str | None
    ) -> Written:
        blob, kept = self._blob(name), check_record(name, data, metadata)

        def call() -> dict[str, Any]:
            return blob.upload_blob(
                data, overwrite=True, metadata=kept, validate_content=_CHECK, **_if_match(etag), **_lease(lease)
            )

        return _written(self._conditional(name, call))

    def read_record(self, name: str) -> Record:
        data, headers = self._reads.read_whole(check_name(name), RECORD_LIMIT)
        metadata = {key[10:]: value for key, value in headers.items() if key.startswith("x-ms-meta-")}
        # "breaking" is active too: nobody else can lease the record before it has ended.
        leased = headers.get("x-ms-lease-state") in ("leased", "breaking")
        return Record(data, headers["etag"], metadata, leased, seconds(headers.get("date", "")))

    # -- both

    def list(self, prefix: str) -> Iterator[Entry]:
        return list_blobs(self._reads, self._location, check_prefix(prefix), self._page)

    def delete(self, name: str, *, etag: str | None = None, lease: str | None = None) -> None:
        blob = self._blob(name)
        conditions = _lease(lease) | (_if_match(etag) if etag is not None else {})
        self._conditional(name, lambda: blob.delete_blob(**conditions))

    # -- leases

    def acquire_lease(self, name: str, seconds: int) -> str:
        lease = BlobLeaseClient(self._blob(name))
        check_lease_seconds(name, seconds)
        self._ask(name, lambda: lease.acquire(lease_duration=seconds))
        return lease.id

    def renew_lease(self, name: str, lease: str) -> None:
        self._held(name, BlobLeaseClient(self._blob(name), lease).renew)

    def release_lease(self, name: str, lease: str) -> None:
        self._held(name, BlobLeaseClient(self._blob(name), lease).release)

    def break_lease(self, name: str) -> None:
        lease = BlobLeaseClient(self._blob(name))
        try:
            self._ask(name, lambda: lease.break_lease(lease_break_period=0))
        except LeaseLost:
            pass  # there was none

    def close(self) -> None:
        self._container.close()
        self._reads.close()

    # -- inside

    def _blob(self, name: str) -> BlobClient:
        return self._container.get_blob_client(self._location.folder + check_name(name))

    def _create(self, name: str, call: Callable[[], dict[str, Any]]) -> Written:
        try:
            return _written(self._ask(name, call))
        except (ConditionFailed, LeaseConflict):
            # Both say that there is a blob: If-None-Match failed, or it is leased, which Azure may check first.
            raise ObjectExists("the name is taken", name) from None

    def _conditional(self, name: str, call: Callable[[], T]) -> T:
        try:
            return self._ask(name, call)
        except (ConditionFailed, LeaseLost):
            # Of a free name too the service says that the condition is not met.
            if not self._reads.is_there(name):
                raise ObjectNotFound("no such object", name) from None
            raise

    def _held(self, name: str, call: Callable[[], object]) -> None:
        try:
            self._ask(name, call)
        except ObjectNotFound:
            raise LeaseLost("the record is gone, and its lease with it", name) from None

    def _ask(self, name: str, call: Callable[[], T]) -> T:
        return asked(name, call, self._sas_expiry)


def _if_match(etag: str) -> dict[str, Any]:
    return {"etag": etag, "match_condition": MatchConditions.IfNotModified}


def _lease(lease: str | None) -> dict[str, Any]:
    return {"lease": lease} if lease is not None else {}


def _written(answer: Mapping[str, Any]) -> Written:
    date = answer["date"]
    return Written(str(answer["etag"]), date.timestamp() if isinstance(date, datetime.datetime) else seconds(str(date)))
