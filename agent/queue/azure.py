# SPDX-License-Identifier: Apache-2.0
"""Queues in Azure Queue Storage, over the SDK's clients. Bodies travel as Base64, so any bytes survive.

The SDK's own retries are off: `patient` repeats, above this. A renewal whose answer is lost has changed the receipt: the next
call with the old one is refused as stale, and whoever holds the job's lease says who goes on.
"""

from __future__ import annotations

import base64
import binascii
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar
from xml.etree.ElementTree import ParseError

from azure.core.exceptions import AzureError, HttpResponseError, ResourceExistsError
from azure.storage.queue import QueueClient, QueueServiceClient

from agent.errors import QueueError, QueueMissing, QueueUnavailable, StaleReceipt
from agent.queue.base import (
    Message,
    Queue,
    QueueService,
    Waiting,
    check_body,
    check_queue_name,
    check_visibility,
)
from mover.clock import SYSTEM, Clock
from mover.errors import AccessDenied, StoreError, StoreUnavailable, UsageError
from mover.store.azure_credentials import Credential, Sas, for_sdk
from mover.store.azure_errors import broken, from_answer, seconds
from mover.store.azure_location import account_of
from mover.store.azure_reads import failed
from mover.store.azure_transport import CONNECT_SECONDS, ca_bundle
from mover.store.patience import RetryLater

T = TypeVar("T")
_ANSWER_SECONDS = 30
_STALE = frozenset({"PopReceiptMismatch", "MessageNotFound"})
_MISSING = frozenset({"QueueNotFound", "QueueBeingDeleted", "QueueDisabled"})


class AzureQueueService(QueueService):
    """`url` is an account's queue endpoint. Safe for many threads."""

    def __init__(self, url: str, credential: Credential, clock: Clock = SYSTEM) -> None:
        account_url, _, _ = account_of(url)
        if account_url.startswith("http:") and hasattr(credential, "get_token"):
            raise UsageError("a bearer token would travel in the clear", account_url, "use https")
        self._url = account_url
        self._clock = clock
        self._lock = threading.Lock()
        self._date, self._heard_at = 0.0, 0.0
        self.sas_expiry = credential.expiry if isinstance(credential, Sas) else ""
        self._client = QueueServiceClient(
            account_url,
            for_sdk(credential),
            retry_total=0,
            connection_timeout=CONNECT_SECONDS,
            read_timeout=_ANSWER_SECONDS,
            connection_verify=ca_bundle(),
            user_agent="data-mover",
        )

    @property
    def where(self) -> str:
        return self._url

    def queue(self, name: str) -> Queue:
        return AzureQueue(self, self._client.get_queue_client(check_queue_name(name)), name)

    def now(self) -> float:
        if not self._date:
            try:
                next(iter(self._client.list_queues(results_per_page=1, raw_response_hook=self.heard)), None)
            except HttpResponseError as error:
                self._hear(_headers(error))
            except AzureError as error:
                raise _of_store(broken(self._url, error), self._url) from None
        with self._lock:
            if not self._date:
                raise QueueUnavailable("the queue's service does not say what time it is", self._url)
            return self._date + self._clock.monotonic() - self._heard_at

    def heard(self, response: Any) -> None:
        """Note the service's time; a hook of the SDK's requests. QueueError for an answer that is not the service's: a proxy's
        page with status 200 would pass for an empty queue."""
        headers = {key.lower(): value for key, value in response.http_response.headers.items()}
        if response.http_response.status_code < 300 and "x-ms-request-id" not in headers:
            hint = "something between this worker and Azure answers in its place: check the proxy and the URL"
            raise QueueError("an answer that is not the queue service's", self._url, hint)
        self._hear(headers)

    def _hear(self, headers: dict[str, str]) -> None:
        date = seconds(headers.get("date", ""))
        if date:
            with self._lock:
                self._date, self._heard_at = date, self._clock.monotonic()

    def close(self) -> None:
        self._client.close()


class AzureQueue(Queue):
    """One queue of an account."""

    def __init__(self, service: AzureQueueService, client: QueueClient, name: str) -> None:
        self._service = service
        self._client = client
        self.name = name

    def ensure(self) -> None:
        def make() -> None:
            try:
                self._client.create_queue(raw_response_hook=self._service.heard)
            except ResourceExistsError:
                pass

        try:
            self._ask(make)
        except AccessDenied:
            self.length()  # no right to make one: then it must be there

    def put(self, body: bytes, *, ttl: float | None = None, delay: float = 0.0) -> str:
        text = base64.b64encode(check_body(body)).decode()
        sent = self._ask(
            lambda: self._client.send_message(
                text,
                visibility_timeout=round(delay) or None,
                time_to_live=-1 if ttl is None else max(1, round(ttl)),
                raw_response_hook=self._service.heard,
            )
        )
        return str(sent.id)

    def take(self, visibility: float) -> Message | None:
        seconds_hidden = max(1, round(check_visibility(visibility)))
        found: Any = self._ask(
            lambda: self._client.receive_message(
                visibility_timeout=seconds_hidden, raw_response_hook=self._service.heard
            )
        )
        if found is None:
            return None
        return Message(
            found.id, found.pop_receipt, _decoded(found.content), found.dequeue_count, found.inserted_on.timestamp()
        )

    def renew(self, message: Message, visibility: float) -> Message:
        return replace(message, receipt=self._update(message, max(1, round(check_visibility(visibility)))))

    def release(self, message: Message, delay: float = 0.0) -> None:
        self._update(message, round(delay))

    def _update(self, message: Message, hidden: int) -> str:
        updated = self._ask(
            lambda: self._client.update_message(
                message.id,
                message.receipt,
                visibility_timeout=hidden,
                raw_response_hook=self._service.heard,
            )
        )
        return str(updated.pop_receipt)

    def delete(self, message: Message) -> None:
        self._ask(
            lambda: self._client.delete_message(message.id, message.receipt, raw_response_hook=self._service.heard)
        )

    def peek(self, count: int) -> list[Waiting]:
        found: Any = self._ask(
            lambda: self._client.peek_messages(max_messages=count, raw_response_hook=self._service.heard)
        )
        return [
            Waiting(one.id, _decoded(one.content), one.dequeue_count or 0, one.inserted_on.timestamp()) for one in found
        ]

    def length(self) -> int:
        found = self._ask(lambda: self._client.get_queue_properties(raw_response_hook=self._service.heard))
        return int(found.approximate_message_count or 0)

    def _ask(self, call: Callable[[], T]) -> T:
        where = f"{self.name} at {self._service.where}"
        try:
            return call()
        except HttpResponseError as error:
            if error.response is None:
                raise _of_store(failed(where, error), where) from None
            headers = _headers(error)
            code = headers.get("x-ms-error-code", "")
            if code in _STALE:
                raise StaleReceipt("the message is no longer this worker's", where) from None
            if code in _MISSING:
                raise QueueMissing(f"there is no such queue ({code})", where) from None
            raise _of_store(
                from_answer(where, error.status_code or 0, headers, self._service.sas_expiry), where
            ) from None
        except AzureError as error:
            raise _of_store(failed(where, error), where) from None
        except ParseError as error:
            raise _of_store(broken(where, error), where) from None


def _headers(error: HttpResponseError) -> dict[str, str]:
    """The answer's, by their names in lower case."""
    response: Any = error.response
    return {key.lower(): value for key, value in response.headers.items()} if response is not None else {}


def _of_store(error: StoreError, where: str) -> AccessDenied | QueueError:
    """The blob service's errors in the words of queues."""
    what = error.what.replace("the store", "the queue's service")
    if isinstance(error, AccessDenied):
        return AccessDenied(what, where, error.hint)
    if isinstance(error, StoreUnavailable):
        return QueueUnavailable(what, where, wait=error.after if isinstance(error, RetryLater) else 0.0)
    return QueueError(what, where, error.hint)


def _decoded(text: Any) -> bytes:
    """The bytes that were put; a message that somebody wrote as plain text comes as it is, and will be refused."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError):
        return str(text or "").encode(errors="replace")
