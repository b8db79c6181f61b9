# SPDX-License-Identifier: Apache-2.0
"""Queues of Azurite under the conformance suite, and what a misbehaving service does to us."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator

import pytest

from agent.errors import QueueError, QueueUnavailable
from agent.queue.azure import AzureQueueService
from agent.queue.base import Queue, QueueService
from mover.errors import AccessDenied, MoverError, UsageError
from mover.store.azure_credentials import AccountKey, Credential, Sas
from tests.agent.queue.conformance import Conformance, Place
from tests.azurite import Azurite, StaticCredential
from tests.mover.store.clock import ManualClock
from tests.mover.store.scripted_server import ScriptedServer, answer

KEY = AccountKey("devacct", "a2V5IHRoYXQgbm9ib2R5IG1heSBzZWU=")


def places(open_service: Callable[[], QueueService]) -> Iterator[Place]:
    opened: list[QueueService] = []

    def other() -> QueueService:
        opened.append(open_service())
        return opened[-1]

    service = other()

    def make() -> Queue:
        queue = service.queue(f"q-{uuid.uuid4().hex}")
        queue.ensure()
        return queue

    def lapse(seconds: float, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + seconds + 60
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.1)

    yield Place(service, make, other, lapse)
    for one in opened:
        one.close()


@pytest.mark.azurite
class TestByKey(Conformance):
    @pytest.fixture
    def place(self, azurite: Azurite) -> Iterator[Place]:
        yield from places(
            lambda: AzureQueueService(azurite.queue_url, AccountKey(azurite.account_name, azurite.account_key))
        )


@pytest.mark.azurite
class TestByToken(Conformance):
    @pytest.fixture
    def place(self, azurite_tls: Azurite, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(azurite_tls.ca_file))
        yield from places(lambda: AzureQueueService(azurite_tls.queue_url, StaticCredential()))


@pytest.mark.azurite
@pytest.mark.parametrize("by", [-3600.0, 3600.0])
def test_a_worker_s_clock_does_not_matter(azurite: Azurite, by: float) -> None:
    """The service's Date counts, and how long ago it was by the clock that nobody sets."""
    clock = ManualClock(time.time() + by)
    service = AzureQueueService(azurite.queue_url, AccountKey(azurite.account_name, azurite.account_key), clock)
    queue = service.queue(f"q-{uuid.uuid4().hex}")
    queue.ensure()
    assert abs(service.now() - time.time()) < 60
    clock.advance(100)
    assert abs(service.now() - time.time() - 100) < 60
    service.close()


@pytest.mark.azurite
def test_a_wrong_key_is_refused_without_showing_it(azurite: Azurite) -> None:
    service = AzureQueueService(azurite.queue_url, KEY)
    with pytest.raises(AccessDenied) as refused:
        service.queue("workers").put(b"body")
    assert KEY.key not in str(refused.value) + repr(refused.value)
    service.close()


def test_a_token_does_not_travel_in_the_clear() -> None:
    with pytest.raises(UsageError, match="in the clear"):
        AzureQueueService("http://127.0.0.1:1/devacct", StaticCredential())


@pytest.mark.parametrize(
    "url", ["https://acc.queue.core.windows.net/queue", "http://acc.queue.core.windows.net", "ftp://x"]
)
def test_what_is_no_endpoint_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        AzureQueueService(url, KEY)


ANSWERS: list[tuple[int, dict[str, str], type[MoverError]]] = [
    (503, {"x-ms-error-code": "ServerBusy", "Retry-After": "7"}, QueueUnavailable),
    (429, {}, QueueUnavailable),
    (500, {"x-ms-error-code": "InternalError"}, QueueUnavailable),
    (403, {"x-ms-error-code": "AuthenticationFailed"}, AccessDenied),
    (403, {"x-ms-error-code": "AuthorizationPermissionMismatch"}, AccessDenied),
    (400, {"x-ms-error-code": "OutOfRangeInput"}, QueueError),
    (404, {}, QueueError),
]


@pytest.mark.parametrize(("status", "headers", "kind"), ANSWERS)
def test_what_a_service_answers_in_our_words(status: int, headers: dict[str, str], kind: type[MoverError]) -> None:
    credential: Credential = Sas("sv=1&sig=hidden")
    with ScriptedServer(answer(f"{status} X", headers, b"<secret>sig=hidden</secret>")) as server:
        service = AzureQueueService(f"http://127.0.0.1:{server.port}/devacct", credential)
        with pytest.raises(kind) as told:
            service.queue("workers").take(60)
        service.close()
    assert "hidden" not in str(told.value) + repr(told.value.__cause__)
    if isinstance(told.value, QueueUnavailable):
        assert told.value.wait == (7.0 if "Retry-After" in headers else 0.0)


@pytest.mark.parametrize("body", [b"<html>sign in first</html>", b"", b"<?xml version='1.0'?><QueueMessagesList />"])
def test_a_proxy_s_page_is_no_empty_queue(body: bytes) -> None:
    with ScriptedServer(answer("200 OK", {"Content-Type": "application/xml"}, body)) as server:
        service = AzureQueueService(f"http://127.0.0.1:{server.port}/devacct", KEY)
        with pytest.raises(QueueError):
            service.queue("workers").take(60)
        service.close()


def test_no_service_at_all_is_unavailable() -> None:
    service = AzureQueueService("http://127.0.0.1:9/devacct", KEY)
    with pytest.raises(QueueUnavailable):
        service.queue("workers").take(60)
    with pytest.raises(QueueUnavailable):
        service.now()
    service.close()
