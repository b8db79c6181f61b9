# SPDX-License-Identifier: Apache-2.0
"""The restore tool's mailbox in a storage account: a temporary container, and two queues beside it, of one session.

The worker's own credential makes and deletes them: a SAS of the account, or its identity. The tool gets rights to these three
alone, as narrow as they can be: a SAS that the appliance gave, or three that are made here of the identity's user delegation key.
Their names begin with a digest of the job's, so that the next worker finds what one that died left behind; `until` in the
container's metadata says when anybody may delete it.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob import BlobServiceClient, ContainerSasPermissions, generate_container_sas
from azure.storage.queue import QueueSasPermissions, QueueServiceClient, generate_queue_sas

from agent.opening import PATIENCE_SECONDS
from agent.queue.azure import AzureQueueService
from agent.queue.base import Queue
from agent.queue.patient import PatientService
from mover.clock import Clock
from mover.errors import MoverError, StoreError, UsageError
from mover.store.azure_credentials import Credential, Sas, for_sdk
from mover.store.azure_location import account_of
from mover.store.azure_reads import asked
from mover.store.azure_transport import CONNECT_SECONDS, ca_bundle

T = TypeVar("T")
PREFIX = "flr-restore-"
HIDDEN_SECONDS, KEPT_SECONDS = 30.0, 3600.0
"""For which a reply that is being taken is hidden, and a request is kept."""
LONGEST = timedelta(days=7)
"""That a user delegation key is good for."""
MOST_TAKEN = 64
_ANSWER_SECONDS = 60


class AzureMailbox:
    """`blobs` and `queues`: the account's endpoints. `until`: Unix seconds. `tool_sas`: None to make some. `cancel` ends waiting
    for a service that fails."""

    busy, idle = 0.3, 3.0

    def __init__(
        self,
        blobs: str,
        queues: str,
        credential: Credential,
        job: str,
        until: float,
        clock: Clock,
        *,
        tool_sas: str | None = None,
        cancel: threading.Event | None = None,
    ) -> None:
        cancel = cancel or threading.Event()
        self._blob_url, self._account, _ = account_of(blobs)
        self._queue_url, _, _ = account_of(queues)
        self._until = until
        self._clock = clock
        self._tool_sas = tool_sas
        self._expiry = credential.expiry if isinstance(credential, Sas) else ""
        self._family = f"{PREFIX}{hashlib.sha256(job.encode()).hexdigest()[:12]}-"
        self.name = self._family + secrets.token_hex(4)
        common: dict[str, Any] = {
            "connection_timeout": CONNECT_SECONDS,
            "read_timeout": _ANSWER_SECONDS,
            "connection_verify": ca_bundle(),
            "user_agent": "data-mover",
        }
        self._blobs = BlobServiceClient(self._blob_url, for_sdk(credential), **common)
        self._queues = QueueServiceClient(self._queue_url, for_sdk(credential), **common)
        self._container = self._blobs.get_container_client(self.name)
        service = AzureQueueService(queues, credential, clock)
        self._service = service
        patient = PatientService(service, clock, patience=PATIENCE_SECONDS, cancel=cancel)
        self._requests: Queue = patient.queue(self.name + "-requests")
        self._replies: Queue = service.queue(self.name + "-replies")
        self._closed = False
        self._rights: tuple[str, str, str] | None = None

    def _ask(self, call: Callable[[], T]) -> T:
        return asked(f"{self._blob_url}/{self.name}", call, self._expiry)

    def open(self) -> None:
        self._sweep()
        self._ask(lambda: self._container.create_container(metadata={"until": str(int(self._until))}))
        for queue in (self._requests, self._replies):
            queue.ensure()
        self._rights = self._shared()

    def _sweep(self) -> None:
        """Deletes what sessions left that did not end in good order: earlier ones of this job, and others whose time is over."""

        def look() -> list[str]:
            found = self._blobs.list_containers(name_starts_with=PREFIX, include_metadata=True)
            return [one.name for one in found if self._left(one.name, one.metadata or {})]

        for name in self._ask(look):
            self._delete(name)

    def _left(self, name: str, metadata: dict[str, str]) -> bool:
        until = metadata.get("until", "")
        return name.startswith(self._family) or (until.isdigit() and int(until) + 3600 < self._clock.wall())

    def _delete(self, name: str) -> None:
        for queue in (f"{name}-requests", f"{name}-replies"):
            self._gone(lambda queue=queue: self._queues.delete_queue(queue))  # type: ignore[misc]
        self._gone(lambda: self._blobs.delete_container(name))

    def _gone(self, call: Callable[[], object]) -> None:
        try:
            self._ask(lambda: _unless_missing(call))
        except MoverError as error:
            if "ContainerBeingDeleted" not in error.what:
                raise

    def _shared(self) -> tuple[str, str, str]:
        """SAS for the container, the requests and the replies."""
        if self._tool_sas is not None:
            return (self._tool_sas.lstrip("?"),) * 3
        now = datetime.fromtimestamp(self._clock.wall(), UTC)
        end = min(datetime.fromtimestamp(self._until, UTC) + timedelta(minutes=10), now + LONGEST)
        start = now - timedelta(minutes=5)
        key: Any = self._ask(lambda: self._blobs.get_user_delegation_key(start, end))
        container = generate_container_sas(
            self._account, self.name, user_delegation_key=key, permission=ContainerSasPermissions(read=True), expiry=end
        )
        try:
            queue_key: Any = self._ask(lambda: self._queues.get_user_delegation_key(expiry=end, start=start))
        except StoreError as error:
            hint = "give the restore tool's SAS in `tool_sas`"
            raise UsageError("no SAS for queues can be made of the identity here", error.value, hint) from None
        made = [
            generate_queue_sas(
                self._account, queue.name, user_delegation_key=queue_key, permission=permission, expiry=end
            )
            for queue, permission in (
                (self._requests, QueueSasPermissions(process=True)),
                (self._replies, QueueSasPermissions(add=True)),
            )
        ]
        return container, made[0], made[1]

    def put(self, name: str, parts: Sequence[bytes]) -> None:
        data = b"".join(parts)
        self._ask(lambda: self._container.upload_blob(name, data, length=len(data)))

    def remove(self, name: str) -> None:
        try:
            self._gone(lambda: self._container.delete_blob(name))
        except MoverError:
            pass  # it goes with the container

    def send(self, message: bytes) -> None:
        self._requests.put(message, ttl=KEPT_SECONDS)

    def take(self) -> list[bytes]:
        found: list[bytes] = []
        try:
            while len(found) < MOST_TAKEN and (message := self._replies.take(HIDDEN_SECONDS)) is not None:
                found.append(message.body)
                self._replies.delete(message)
        except MoverError:
            if not found:
                raise  # else the next look meets it again; what could not be deleted comes again, and is known by its number
        return found

    def config(self) -> dict[str, Any]:
        container, requests, replies = self._rights or self._shared()
        return {
            "blobs": f"{self._blob_url}/{self.name}?{container}",
            "requests": f"{self._queue_url}/{self._requests.name}?{requests}",
            "replies": f"{self._queue_url}/{self._replies.name}?{replies}",
        }

    def fetch(self, name: str) -> str:
        return f"urllib.request.urlopen(C['blobs'].replace('?', '/{name}?', 1), timeout=60).read()"

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            self._delete(self.name)
        finally:
            self._blobs.close()
            self._queues.close()
            self._service.close()


def _unless_missing(call: Callable[[], object]) -> None:
    try:
        call()
    except ResourceNotFoundError:
        pass
