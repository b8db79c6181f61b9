# SPDX-License-Identifier: Apache-2.0
"""Azure's answers, right, wrong and cut off, as errors of ours; proxies; and that no error shows a secret."""

from __future__ import annotations

import base64
import email.utils
import selectors
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mover.clock import SYSTEM
from mover.errors import (
    AccessDenied,
    ConditionFailed,
    LeaseConflict,
    LeaseLost,
    MoverError,
    ObjectExists,
    ObjectNotFound,
    ShortObject,
    StoreError,
    StoreUnavailable,
    UsageError,
)
from mover.store import azure_transport
from mover.store.azure import AzureBlobStore
from mover.store.azure_credentials import AccountKey, Sas
from mover.store.azure_errors import from_answer
from mover.store.patience import RetryLater
from mover.store.retry import RetryStore
from tests.azurite import Azurite, StaticCredential
from tests.mover.store.clock import ManualClock
from tests.mover.store.conformance import names, read
from tests.mover.store.scripted_server import CLOSE, ScriptedServer, answer, part
from tests.mover.store.test_azure import key_of, make_container, sas

SIGNATURE = "c2lnbmF0dXJlLXRoYXQtbXVzdC1ub3QtYmUtc2hvd24"
SIGNED = Sas(f"sv=2021-12-02&se=2030-01-01T00%3A00%3A00Z&sp=rcwdl&sig={SIGNATURE}%3D")
DATA = bytes(range(256)) * 40
MIB = 1 << 20


@pytest.fixture
def opened() -> Iterator[Callable[..., AzureBlobStore]]:
    stores: list[AzureBlobStore] = []

    def open_store(url: str, credential: Any = SIGNED, **options: Any) -> AzureBlobStore:
        stores.append(AzureBlobStore(url, credential, **options))
        return stores[-1]

    yield open_store
    for store in stores:
        store.close()


Opener = Callable[..., AzureBlobStore]


def shown(error: BaseException) -> str:
    """All that a log could hold of an error."""
    return "".join(traceback.format_exception(error)) + repr(error) + str(getattr(error, "__dict__", ""))


def all_calls(store: AzureBlobStore) -> list[Callable[[], object]]:
    return [
        lambda: store.put("a", [b"x"]),
        lambda: store.create_record("a", b"", {}),
        lambda: store.replace_record("a", b"", {}, etag='"1"', lease="x"),
        lambda: store.read("a", 0, 1),
        lambda: store.read_record("a"),
        lambda: store.size("a"),
        lambda: list(store.list("")),
        lambda: store.delete("a"),
        lambda: store.acquire_lease("a", 15),
        lambda: store.renew_lease("a", "x"),
        lambda: store.release_lease("a", "x"),
        lambda: store.break_lease("a"),
    ]


# -- codes


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (404, "BlobNotFound", ObjectNotFound),
        (404, "ContainerNotFound", StoreError),
        (404, "", StoreError),
        (409, "BlobAlreadyExists", ObjectExists),
        (403, "UnauthorizedBlobOverwrite", ObjectExists),
        (412, "ConditionNotMet", ConditionFailed),
        (409, "LeaseAlreadyPresent", LeaseConflict),
        (412, "LeaseIdMissing", LeaseConflict),
        (409, "LeaseIsBreakingAndCannotBeAcquired", LeaseConflict),
        (412, "LeaseLost", LeaseLost),
        (412, "LeaseNotPresentWithBlobOperation", LeaseLost),
        (412, "LeaseIdMismatchWithBlobOperation", LeaseLost),
        (409, "LeaseIdMismatchWithLeaseOperation", LeaseLost),
        (409, "LeaseNotPresentWithLeaseOperation", LeaseLost),
        (409, "LeaseIsBrokenAndCannotBeRenewed", LeaseLost),
        (416, "InvalidRange", ShortObject),
        (400, "Md5Mismatch", StoreUnavailable),
        (400, "Crc64Mismatch", StoreUnavailable),
        (401, "InvalidAuthenticationInfo", AccessDenied),
        (403, "AuthenticationFailed", AccessDenied),
        (403, "AuthorizationPermissionMismatch", AccessDenied),
        (403, "", AccessDenied),
        (409, "BlobImmutableDueToPolicy", AccessDenied),
        (409, "BlobArchived", StoreError),
        (413, "RequestBodyTooLarge", StoreError),
        (400, "", StoreError),
        (408, "", StoreUnavailable),
        (429, "", StoreUnavailable),
        (500, "InternalError", StoreUnavailable),
        (500, "OperationTimedOut", StoreUnavailable),
        (502, "", StoreUnavailable),
        (503, "ServerBusy", StoreUnavailable),
        (504, "", StoreUnavailable),
    ],
)
def test_every_answer_has_its_error(status: int, code: str, kind: type[StoreError]) -> None:
    error = from_answer("a/b", status, {"x-ms-error-code": code} if code else {})
    assert error.type == kind.__name__
    assert error.value == "a/b"
    assert error.what
    assert str(status) in error.what


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"x-ms-retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "999999999999"}, 86400.0),
        ({"retry-after": "Sun, 06 Nov 1994 08:49:47 GMT", "date": "Sun, 06 Nov 1994 08:49:37 GMT"}, 10.0),
    ],
)
def test_the_wish_to_come_later_is_read(headers: dict[str, str], seconds: float) -> None:
    error = from_answer("a", 503, headers)
    assert isinstance(error, RetryLater)
    assert error.after == seconds
    assert error.type == "StoreUnavailable"


def test_what_is_no_code_and_no_id_is_not_shown() -> None:
    error = from_answer("a", 503, {"x-ms-error-code": f"see ?sig={SIGNATURE}", "x-ms-request-id": f"?sig={SIGNATURE}"})
    assert SIGNATURE not in shown(error)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"retry-after": "soon"},
        {"retry-after": "-3"},
        {"retry-after": "0"},
        {"retry-after": "\u00b2"},
        {"retry-after": "9" * 400},
    ],
)
def test_no_wish_is_no_wish(headers: dict[str, str]) -> None:
    assert type(from_answer("a", 503, headers)) is StoreUnavailable


def test_an_expired_sas_is_called_so_by_the_store_s_time() -> None:
    date = {"date": "Tue, 01 Jan 2030 00:00:01 GMT"}
    error = from_answer("a", 403, date, "2030-01-01T00:00:00Z")
    assert isinstance(error, AccessDenied)
    assert str(error).startswith("the SAS expired at 2030-01-01T00:00:00Z")
    assert "expired" not in str(from_answer("a", 403, date, "2030-01-01T00:00:02Z"))
    assert "expired" not in str(from_answer("a", 403, date, "no date"))


# -- reads


def test_a_range_is_one_request_over_a_kept_connection(opened: Opener) -> None:
    with ScriptedServer(part(DATA, 100, 50), part(DATA, 7, 9_000)) as server:
        store = opened(server.url + "/folder")
        assert store.read("a", 100, 50) == DATA[100:150]
        assert store.read("a", 7, 9_000) == DATA[7:9_007]
        assert [seen.headers["range"] for seen in server.seen] == ["bytes=100-149", "bytes=7-9006"]
        assert server.seen[0].line.startswith("GET /account/container/folder/a?sv=")
        assert {seen.connection for seen in server.seen} == {1}


def test_requests_at_once_use_connections_of_their_own(opened: Opener) -> None:
    with ScriptedServer(part(DATA, 0, 100)) as server:
        store = opened(server.url)
        threads = [threading.Thread(target=lambda: [store.read("a", 0, 100) for _ in range(20)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(server.seen) == 80
        assert len({seen.connection for seen in server.seen}) <= 4


def test_a_connection_that_the_server_closed_while_idle_is_replaced(opened: Opener) -> None:
    with ScriptedServer(part(DATA, 0, 10), close_after=(0,)) as server:
        store = opened(server.url)
        assert store.read("a", 0, 10) == DATA[:10]
        assert store.read("a", 0, 10) == DATA[:10]
        assert [seen.connection for seen in server.seen] == [1, 2]


def test_a_new_connection_without_an_answer_is_not(opened: Opener) -> None:
    with ScriptedServer(CLOSE) as server:
        with pytest.raises(StoreUnavailable):
            opened(server.url).read("a", 0, 10)
        assert len(server.seen) == 1


@pytest.mark.parametrize("sent", [0, 1, 4_999])
def test_a_body_that_ends_early_is_a_broken_answer_not_a_short_object(opened: Opener, sent: int) -> None:
    whole = part(DATA, 0, 5_000)
    cut = whole[: len(whole) - 5_000 + sent]
    with ScriptedServer(cut, part(DATA, 0, 5_000), close_after=(0,)) as server:
        store = opened(server.url)
        with pytest.raises(StoreUnavailable) as broken:
            store.read("a", 0, 5_000)
        assert type(broken.value) is StoreUnavailable
        assert store.read("a", 0, 5_000) == DATA[:5_000]


def test_an_object_that_ends_early_is_short(opened: Opener) -> None:
    invalid = answer("416 Range Not Satisfiable", {"x-ms-error-code": "InvalidRange"})
    with ScriptedServer(part(DATA[:80], 50, 100), invalid) as server:
        store = opened(server.url)
        with pytest.raises(ShortObject, match="has 80 bytes"):
            store.read("a", 50, 100)
        with pytest.raises(ShortObject):
            store.read("a", 500, 100)


def test_another_range_than_was_asked_for_is_never_taken(opened: Opener) -> None:
    whole = answer("200 OK", {"x-ms-version": "1"}, DATA)
    for wrong in (
        part(DATA, 1, 100),
        whole,
        part(DATA, 0, 100, Content_Range="nonsense"),
        answer("200 OK", {}, DATA[:100]),
    ):
        with ScriptedServer(wrong) as server, pytest.raises(StoreError, match="not the range"):
            opened(server.url).read("a", 0, 100)


def test_a_page_of_a_proxy_is_not_proof_that_an_object_is_missing(opened: Opener) -> None:
    page = answer("404 Not Found", {"Content-Type": "text/html"}, b"<html>no such page</html>")
    with ScriptedServer(page) as server:
        store = opened(server.url)
        for call in (lambda: store.size("a"), lambda: store.read("a", 0, 1), lambda: store.read_record("a")):
            with pytest.raises(StoreError) as refused:
                call()
            assert not isinstance(refused.value, ObjectNotFound)


def test_a_record_larger_than_records_are_is_not_read(opened: Opener) -> None:
    large = answer("200 OK", {"ETag": '"1"'}, b"", length=5 << 20)
    with ScriptedServer(large) as server, pytest.raises(StoreError, match="more than a record"):
        opened(server.url).read_record("a")


def test_a_busy_store_is_asked_again_when_it_says(opened: Opener) -> None:
    busy = answer("503 Server Busy", {"x-ms-error-code": "ServerBusy", "Retry-After": "7"}, b"<busy/>")
    clock = ManualClock()
    with ScriptedServer(busy, busy, part(DATA, 0, 10)) as server:
        assert RetryStore(opened(server.url), clock).read("a", 0, 10) == DATA[:10]
        assert clock.waits == [7.0, 7.0]
        assert {seen.connection for seen in server.seen} == {1}  # an error's body is read: the connection lives on


# -- writes


def test_a_put_is_one_put_blob_with_a_checksum_and_a_condition(opened: Opener) -> None:
    created = answer("201 Created", {"ETag": '"1"', "Date": "Sun, 06 Nov 1994 08:49:37 GMT"})
    with ScriptedServer(created) as server:
        opened(server.url).put("a", [bytes(40 << 20), memoryview(bytes(30 << 20))])
        [seen] = server.seen
        assert seen.line.startswith("PUT /account/container/a?sv=")
        assert "comp=" not in seen.line
        assert seen.headers["content-length"] == str(70 << 20)
        assert seen.headers["if-none-match"] == "*"
        assert seen.headers["x-ms-blob-type"] == "BlockBlob"
        assert seen.headers["x-ms-content-crc64"]


@pytest.mark.parametrize("status", ["429 Too Many", "500 Internal", "503 Busy", "504 Timeout"])
def test_nothing_is_repeated_here(opened: Opener, status: str) -> None:
    with ScriptedServer(answer(status, {"Retry-After": "3"})) as server:
        store = opened(server.url)
        for number, call in enumerate(all_calls(store), 1):
            with pytest.raises(RetryLater) as busy:
                call()
            assert busy.value.after == 3.0
            assert len(server.seen) == number


def listing(*blobs: str, marker: str = "<NextMarker/>", size: str = "1") -> bytes:
    items = "".join(
        f"<Blob><Name>{name}</Name><Properties><Content-Length>{size}</Content-Length></Properties></Blob>"
        for name in blobs
    )
    return f'<?xml version="1.0"?><EnumerationResults><Blobs>{items}</Blobs>{marker}</EnumerationResults>'.encode()


def test_a_listing_goes_on_until_there_is_no_marker(opened: Opener) -> None:
    first = answer("200 OK", {}, listing("f/a", "f/b", marker="<NextMarker>2!next &amp;+</NextMarker>"))
    empty = answer("200 OK", {}, listing(marker="<NextMarker>3</NextMarker>"))
    with ScriptedServer(first, empty, answer("200 OK", {}, listing("f/c"))) as server:
        assert names(opened(server.url + "/f"), "") == ["a", "b", "c"]
        asked = [seen.line for seen in server.seen]
        assert "prefix=f%2F" in asked[0]
        assert "marker=" not in asked[0]
        assert "marker=2%21next%20%26%2B&" in asked[1]
        assert "marker=3&" in asked[2]


def test_a_listing_out_of_order_is_refused(opened: Opener) -> None:
    more = "<NextMarker>x</NextMarker>"
    for pages in ([listing("a/b", "a-b")], [listing("a", "a")], [listing("a", "b", marker=more), listing("b")]):
        with (
            ScriptedServer(*(answer("200 OK", {}, page) for page in pages)) as server,
            pytest.raises(StoreError, match=r"ascending order.*hint: .*hierarchical"),
        ):
            names(opened(server.url), "")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>please sign in</html>",
        b"<html><Blobs/><NextMarker/></html>",
        b"<EnumerationResults/>",
        listing("a", "b", marker=""),
        listing("a", "b")[:-30],
        listing("a", "b", size=""),
        listing("a", "b", size="x"),
        listing("other/a"),
    ],
)
def test_what_is_no_whole_listing_is_an_error(opened: Opener, body: bytes) -> None:
    with ScriptedServer(answer("200 OK", {}, body)) as server, pytest.raises(StoreError, match="not a listing"):
        names(opened(server.url), "a" if b"other" in body else "")


def test_a_listing_that_is_cut_off_is_a_broken_answer(opened: Opener) -> None:
    whole = listing("a", "b")
    plain = answer("200 OK", {}, whole[:50], length=len(whole))
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(whole), whole)
    for cut in (plain, chunked):
        with ScriptedServer(cut, close_after=(0,)) as server, pytest.raises(StoreUnavailable):
            names(opened(server.url), "")


def test_a_put_that_may_not_overwrite_finds_the_name_taken(opened: Opener) -> None:
    """Azure's answer to a SAS that may create but not write; Azurite has another."""
    refused = answer("403 Forbidden", {"x-ms-error-code": "UnauthorizedBlobOverwrite"})
    with ScriptedServer(refused) as server:
        store = opened(server.url)
        for call in (lambda: store.put("a", [b"x"]), lambda: store.create_record("a", b"x", {})):
            with pytest.raises(ObjectExists):
                call()


# -- secrets


def test_no_error_shows_a_secret(opened: Opener) -> None:
    refused = answer(
        "403 Forbidden",
        {"x-ms-error-code": "AuthenticationFailed", "Content-Type": "application/xml"},
        f"<Error><Code>AuthenticationFailed</Code><Message>{SIGNATURE}</Message></Error>".encode(),
    )
    with socket.create_server(("127.0.0.1", 0)) as probe:
        nobody = f"http://127.0.0.1:{probe.getsockname()[1]}/account/container"
    servers = [ScriptedServer(refused), ScriptedServer(CLOSE), ScriptedServer(b"nonsense\r\n\r\n")]
    for server in servers:
        server.__enter__()
    try:
        for url in [nobody, *(server.url for server in servers)]:
            store = opened(url + "?" + SIGNED.token)
            for call in all_calls(store):
                with pytest.raises(StoreError) as failed:
                    call()
                assert SIGNATURE not in shown(failed.value)
                assert failed.value.__context__ is None
                assert type(failed.value) in (AccessDenied, StoreUnavailable)
            assert SIGNATURE not in repr(SIGNED) + repr(vars(store))
    finally:
        for server in servers:
            server.__exit__(None, None, None)


def test_a_bearer_token_does_not_travel_in_the_clear() -> None:
    with pytest.raises(UsageError, match="in the clear"):
        AzureBlobStore("http://127.0.0.1:1/account/container", StaticCredential())


def test_an_identity_that_is_not_there_is_access_denied(opened: Opener, azurite_tls: Azurite) -> None:
    from azure.identity import CredentialUnavailableError

    class Nobody:
        def get_token(self, *scopes: str, **_: object) -> Any:
            raise CredentialUnavailableError("no identity")

    store = opened("https://127.0.0.1:1/account/container", Nobody())
    for call in (lambda: store.size("a"), lambda: store.put("a", [b""])):
        with pytest.raises(AccessDenied, match="hint: is a managed identity"):
            call()


# -- against Azurite


@pytest.mark.azurite
def test_sas_that_lack_something(azurite: Azurite, opened: Opener) -> None:
    url = make_container(azurite)
    whole = opened(url, key_of(azurite))
    whole.put("a", [b"data"])
    expired = opened(url, Sas(sas(azurite, url, "rcwdl", minutes=-5)))
    with pytest.raises(AccessDenied, match=r"the SAS expired at \d{4}-.*hint: give a new SAS"):
        expired.size("a")
    with pytest.raises(AccessDenied, match="the SAS expired"):
        expired.put("b", [b""])
    only_read = opened(url, Sas(sas(azurite, url, "r")))
    assert read(only_read, "a") == b"data"
    for call in (lambda: only_read.put("b", [b""]), lambda: list(only_read.list("")), lambda: only_read.delete("a")):
        with pytest.raises(AccessDenied, match="hint: "):
            call()
    opened(url, Sas(sas(azurite, url, "c"))).put("b", [b"new"])
    assert read(whole, "b") == b"new"


@pytest.mark.azurite
def test_a_wrong_key_is_access_denied(azurite: Azurite, opened: Opener) -> None:
    key = base64.b64encode(b"another key").decode()
    store = opened(make_container(azurite), AccountKey(azurite.account_name, key))
    for call in (lambda: store.size("a"), lambda: store.put("a", [b""]), lambda: list(store.list(""))):
        with pytest.raises(AccessDenied) as refused:
            call()
        assert key not in shown(refused.value)


@pytest.mark.azurite
def test_a_container_that_is_missing_is_not_an_empty_one(azurite: Azurite, opened: Opener) -> None:
    store = opened(azurite.blob_url + "/no-such-container", key_of(azurite))
    calls: list[Callable[[], object]] = [
        lambda: store.size("a"),
        lambda: store.read_record("a"),
        lambda: store.put("a", [b""]),
        lambda: list(store.list("")),
        lambda: store.delete("a"),
        lambda: store.renew_lease("a", "00000000-0000-4000-8000-000000000000"),
    ]
    for call in calls:
        with pytest.raises(StoreError, match=r"ContainerNotFound.*hint: make the container") as missing:
            call()
        assert type(missing.value) is StoreError


@pytest.mark.azurite
def test_blobs_of_others_in_the_folder_are_not_listed(azurite: Azurite, opened: Opener) -> None:
    url = make_container(azurite)
    store = opened(url + "/Our%20folder", key_of(azurite))
    store.put("b", [b"x"])
    for name in ("Our folder/Foreign", "Our folder/.c", "Our folder.txt", "other/a"):
        store._container.upload_blob(name, b"")
    assert names(store, "") == ["b"]


@pytest.mark.azurite
def test_the_signature_of_the_account_key_is_azure_s(azurite: Azurite, opened: Opener) -> None:
    store = opened(make_container(azurite) + "/a%20folder/%2B%C3%A4", key_of(azurite))
    store.put("a", [DATA])
    assert store.size("a") == len(DATA)
    assert store.read("a", 3, 5) == DATA[3:8]


# -- proxies and certificates


class Proxy:
    """A CONNECT proxy that counts, and wants a password."""

    def __init__(self) -> None:
        self.tunnels: list[str] = []
        self.refused = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://user:p%40ss@127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with near:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += near.recv(1)
            if base64.b64encode(b"user:p@ss") not in head:
                self.refused += 1
                near.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                return
            target = head.split()[1].decode()
            self.tunnels.append(target)
            host, _, port = target.rpartition(":")
            with socket.create_connection((host, int(port))) as far:
                near.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                with selectors.DefaultSelector() as waiting:  # not select: it knows no descriptor over 1,023
                    for one, other in ((near, far), (far, near)):
                        waiting.register(one, selectors.EVENT_READ, (one, other))
                    while True:
                        for key, _ in waiting.select():
                            one, other = key.data
                            if not (data := one.recv(65536)):
                                return
                            other.sendall(data)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    for variable in ("NO_PROXY", "no_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    running = Proxy()
    yield running
    running.close()


@pytest.mark.azurite
def test_reads_and_writes_go_through_the_proxy(
    azurite_tls: Azurite, opened: Opener, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(azurite_tls.ca_file))
    url = make_container(azurite_tls)
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    store = opened(url, key_of(azurite_tls))
    store.put("a", [DATA])
    writes = len(proxy.tunnels)
    assert writes == 1
    assert read(store, "a") == DATA
    assert len(proxy.tunnels) == writes + 1  # one tunnel for both requests
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    direct = opened(url, key_of(azurite_tls))
    direct.put("b", [DATA])
    assert read(direct, "b") == DATA
    assert len(proxy.tunnels) == writes + 1


@pytest.mark.azurite
def test_a_proxy_that_refuses_is_named_as_no_answer_and_its_password_is_not_shown(
    azurite_tls: Azurite, opened: Opener, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(azurite_tls.ca_file))
    monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("p%40ss", "wrong-password"))
    store = opened(f"{azurite_tls.blob_url}/c", key_of(azurite_tls))
    for call in (lambda: store.size("a"), lambda: store.put("a", [b""])):
        with pytest.raises(StoreUnavailable) as refused:
            call()
        assert "wrong-password" not in shown(refused.value)
    assert proxy.refused == 2


def test_a_plain_proxy_gets_the_whole_url(opened: Opener, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedServer(part(DATA, 0, 10)) as server:
        monkeypatch.setenv("http_proxy", f"http://u:p@127.0.0.1:{server.port}")
        assert opened("http://127.0.0.1:9/account/container").read("a", 0, 10) == DATA[:10]
        [seen] = server.seen
        assert seen.line.startswith("GET http://127.0.0.1:9/account/container/a?sv=")
        assert seen.headers["proxy-authorization"] == "Basic " + base64.b64encode(b"u:p").decode()


def test_a_proxy_of_another_kind_is_refused(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "socks5://user:secret@127.0.0.1:1")
    with pytest.raises(UsageError, match="socks5") as refused:
        AzureBlobStore("https://account.blob.core.windows.net/c", SIGNED)
    assert "secret" not in shown(refused.value)


@pytest.mark.azurite
def test_an_untrusted_certificate_is_said_and_not_repeated(
    azurite_tls: Azurite, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(variable, raising=False)
    store = opened(f"{azurite_tls.blob_url}/c", key_of(azurite_tls))
    for call in (lambda: store.size("a"), lambda: store.put("a", [b""])):
        with pytest.raises(StoreError, match=r"not trusted.*hint: set SSL_CERT_FILE") as refused:
            call()
        assert type(refused.value) is StoreError


def test_a_ca_bundle_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/file")
    with pytest.raises(UsageError, match=r"CA bundle.*: /no/such/file"):
        AzureBlobStore("https://account.blob.core.windows.net/c", SIGNED)


def test_dates_of_requests_come_from_the_clock(opened: Opener) -> None:
    key = AccountKey("account", base64.b64encode(b"key").decode())
    with ScriptedServer(part(DATA, 0, 10)) as server:
        opened(server.url, key, clock=ManualClock(1_000_000_000.0)).read("a", 0, 10)
        assert server.seen[0].headers["x-ms-date"] == "Sun, 09 Sep 2001 01:46:40 GMT"
        opened(server.url, key, clock=SYSTEM).read("a", 0, 10)
        sent = email.utils.parsedate_to_datetime(server.seen[1].headers["x-ms-date"]).timestamp()
        assert abs(sent - time.time()) < 300


def test_a_key_that_is_no_base64_is_a_callers_mistake() -> None:
    key = "*".join(["not", "base64"])
    with pytest.raises(MoverError, match="not Base64") as refused:
        AzureBlobStore("https://account.blob.core.windows.net/c", AccountKey("account", key))
    assert key not in shown(refused.value)


# -- bodies without end


class Endless:
    """Answers with a body that is told in chunks and never ends: as fast as it is read, or a byte now and then."""

    def __init__(self, status: str, *, pause: float = 0.0) -> None:
        self.sent = 0
        self._head = f"HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\nx-ms-version: 2021-12-02\r\n\r\n".encode()
        self._pause = pause
        self._stop = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/account/container"
        self._thread = threading.Thread(target=self._accept)

    def __enter__(self) -> Endless:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _accept(self) -> None:
        while not self._stop.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                try:
                    asked = connection.recv(65536)
                    connection.sendall(self._head)
                    if asked.startswith(b"HEAD"):
                        continue
                    piece = b"1" if self._pause else b"1" * 65536
                    while not self._stop.wait(self._pause):
                        connection.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                        self.sent += len(piece)
                except OSError:
                    pass  # the client has had enough


@pytest.mark.parametrize("status", ["200 OK", "206 Partial Content", "503 Server Busy", "404 Not Found"])
@pytest.mark.timeout(120)
def test_of_a_body_without_end_no_more_is_read_than_has_sense(opened: Opener, status: str) -> None:
    with Endless(status) as server:
        store = opened(server.url)
        for call in (lambda: list(store.list("")), lambda: store.read("a", 0, 100), lambda: store.size("a")):
            with pytest.raises(StoreError):
                call()
        assert server.sent < 3 * 80 * MIB


@pytest.mark.timeout(120)
def test_a_body_that_drips_for_ever_is_broken_off(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes in time, and the whole never does."""
    monkeypatch.setattr(azure_transport, "READ_SECONDS", 1.0)
    monkeypatch.setattr(azure_transport, "_SLOWEST", 1 << 30)
    with Endless("200 OK", pause=0.05) as server:
        with pytest.raises(StoreUnavailable):
            list(opened(server.url).list(""))
        assert server.sent
