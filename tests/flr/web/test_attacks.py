# SPDX-License-Identifier: Apache-2.0
"""What somebody who was not asked in may try: section 11 of the study, point by point, against a browser that serves."""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from flr.web import access, limits, server
from tests.agent.waiting import wait_for
from tests.flr.corpus.catalogue import sample
from tests.flr.web.serving import ASKED, Serving, disks, serving
from tests.mover.store.clock import ManualClock


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    log = tmp_path_factory.mktemp("log") / "log.jsonl"
    with serving(disks([sample("fat32").image]), log=log) as made:
        yield made


def sign_in(client: httpx.Client, token: str, **headers: str) -> httpx.Response:
    return client.post("/api/sign-in", json={"token": token}, headers={**ASKED, **headers})


# -- 1 and 2: the token, the cookie


def test_a_token_is_used_once(running: Serving) -> None:
    token = running.access.new_token()
    with running.client() as client, running.client() as other:
        assert sign_in(client, token).status_code == 200
        again = sign_in(other, token)
        assert again.status_code == 403
        assert "used already" in again.json()["error"]["what"]
        assert client.get("/api/session").status_code == 200
        assert other.get("/api/session").status_code == 401


@pytest.mark.parametrize("path", ["/", "/api/sign-in", "/plain/sign-in", "/plain/", "/api/session"])
def test_no_get_uses_a_token(running: Serving, path: str) -> None:
    token = running.access.new_token()
    with running.client() as client:
        for address in (f"{path}?token={token}", f"{path}?t={token}"):
            answer = client.get(address)
            assert "set-cookie" not in answer.headers
        assert sign_in(client, token).status_code == 200


def test_the_cookie_is_for_this_host_and_no_script(running: Serving) -> None:
    with running.client() as client:
        cookie = sign_in(client, running.access.new_token()).headers["set-cookie"].lower()
    name, _, rest = cookie.partition("=")
    assert name.startswith("__host-")
    words = {word.strip() for word in rest.split(";")[1:]}
    assert words == {"secure", "httponly", "samesite=strict", "path=/"}


def test_who_signs_out_is_out(running: Serving) -> None:
    with running.signed() as client, running.client() as thief:
        thief.cookies.update(client.cookies)
        assert thief.get("/api/session").status_code == 200
        assert client.post("/api/sign-out", json={}).status_code == 200
        assert thief.get("/api/session").status_code == 401


@pytest.mark.parametrize(
    "path",
    ["/api/session", "/api/status", "/api/log", "/api/volumes?point=disks", "/api/list?point=disks&volume=0", "/api/basket",
     "/api/downloads", "/api/details?point=disks", "/api/preview?point=disks", "/api/image?point=disks", "/api/hash?point=disks",
     "/api/results?search=1", "/api/versions?point=disks", "/download/x/y"],
)  # fmt: skip
def test_nothing_is_told_to_who_did_not_sign_in(running: Serving, path: str) -> None:
    with running.client() as client:
        for cookie in ("", "x" * 43):
            client.cookies.set("__Host-recovery", cookie)
            answer = client.get(path)
            assert answer.status_code == 401
            assert answer.json()["error"]["type"] == "SignedOut"


def test_ten_thousand_failed_sign_ins_lock_their_address_and_nobody_else(running: Serving) -> None:
    made = access.Access(running.desk.clock)
    token = made.new_token()
    refusals = []
    for _ in range(10_000):
        with pytest.raises(access.Refused) as refused:
            made.exchange("guess", "192.0.2.1")
        refusals.append(refused.value.wait > 0)
    assert refusals == [False] * access.TRIES + [True] * (10_000 - access.TRIES)
    for k in range(access.MOST_ADDRESSES + 10):  # what is remembered is bounded
        with pytest.raises(access.Refused):
            made.exchange("guess", f"host {k}")
    assert len(made._failed) <= access.MOST_ADDRESSES
    assert made.exchange(token, "192.0.2.2")


def test_failed_sign_ins_are_answered_and_logged(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with serving(disks([sample("fat32").image]), log=log) as running, running.client() as client:
        codes = [
            sign_in(client, f"guess {k}", **{"user-agent": 'a"}{\\n'}).status_code for k in range(access.TRIES + 2)
        ]
        assert codes == [403] * access.TRIES + [429, 429]
        assert int(sign_in(client, "guess").headers["retry-after"]) > 0
    records = [json.loads(line) for line in log.read_bytes().splitlines()]
    assert [record["result"] for record in records] == ["refused"] * (access.TRIES + 3)
    assert "guess" not in log.read_text()


# -- 3 to 5: other pages, other hosts, headers


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"x-recovery": ""}, 200),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-type": "multipart/form-data; boundary=x"}, 415),
    ],
)  # fmt: skip
def test_another_page_cannot_act(running: Serving, headers: dict[str, str], status: int) -> None:
    with running.signed() as client:
        assert client.post("/api/stay", content=b"{}", headers=headers).status_code == status
        if "sec-fetch-site" in headers:
            assert client.get("/api/session", headers=headers).status_code == 403
            assert client.get("/plain/file?point=disks", headers=headers).status_code == 403


def test_a_post_without_our_header_is_refused(running: Serving) -> None:
    with running.signed() as client:
        del client.headers["x-recovery"]
        assert client.post("/api/stay", content=b"{}").status_code == 403
        for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
            assert client.request(method, "/api/stay").status_code == 405


def test_a_link_in_a_mail_leads_to_the_page(running: Serving) -> None:
    with running.client() as client:
        headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
        assert client.get("/", headers=headers).status_code == 200
        assert client.get("/plain/", headers=headers).status_code == 403


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "", "localhost.evil", "evil@localhost", "[::1", "169.254.169.254"],
)
def test_another_host_is_refused(running: Serving, host: str) -> None:
    with running.signed() as client:
        answer = client.get("/api/session", headers={"host": host})
        assert answer.status_code in (400, 421)
        assert client.get("/api/session", headers={"host": f"LOCALHOST:{running.port}"}).status_code == 200


def test_two_hosts_at_once_are_refused(running: Serving) -> None:
    request = f"GET / HTTP/1.1\r\nHost: localhost:{running.port}\r\nHost: evil.example\r\n\r\n"
    assert raw(running, request.encode()).split(b" ")[1] in (b"400", b"421")


@pytest.mark.parametrize("path", ["/", "/api/session", "/static/nothing", "/api/nothing", "/plain/", "/download/a/b"])
def test_every_answer_has_the_headers(running: Serving, path: str) -> None:
    with running.client() as client:
        headers = client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "strict-transport-security" not in headers  # it would take the way past the certificate's warning
    assert "server" not in headers
    assert path in ("/", "/static/nothing") or headers["cache-control"] == "no-store"


# -- paths, sizes


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/..%2fapp.py",
        "/static/%2e%2e/app.py",
        "/static//etc/passwd",
        "/static/app.py",
        "/static/",
    ],
)
def test_no_file_of_ours_but_the_page(running: Serving, path: str) -> None:
    answer = raw(running, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert answer.split(b" ")[1] == b"404"


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/a/../../..",
        "/nothing",
        "/%00",
        "relative",
        "/é",
        "/" + "a" * 40_000,
    ],
)
def test_no_path_leaves_its_volume(running: Serving, path: str) -> None:
    with running.signed() as client:
        for address in ("list", "details", "preview", "hash", "versions"):
            answer = client.get(f"/api/{address}", params={"point": "disks", "volume": "0", "path": path})
            assert answer.status_code in (400, 404, 414, 422) or answer.json().get("there") is False or (
                address in ("list", "details", "versions") and b"passwd" not in answer.content
            ), (address, answer.text[:200])  # fmt: skip


def test_a_body_that_is_too_large_is_refused(running: Serving) -> None:
    with running.signed() as client:
        assert client.post("/api/basket/add", content=b" " * (5 << 20)).status_code == 413

        def endless() -> Iterator[bytes]:
            for _ in range(64):
                yield b" " * (1 << 20)

        try:
            assert client.post("/api/basket/add", content=endless()).status_code == 400
        except httpx.TransportError:
            pass  # the server hung up while it was sent
    with running.signed() as client:
        assert client.get("/api/session").status_code == 200


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"items": 1}', b'{"items": [{"point": 1}]}', b"\xff", b"[" * 100_000]
)
def test_a_body_that_is_none_of_ours(running: Serving, body: bytes) -> None:
    with running.signed() as client:
        answer = client.post("/api/basket/add", content=body)
        assert answer.status_code == 400
        assert answer.json()["error"]["hint"]


def test_a_huge_list_of_ranges_is_one_file(running: Serving) -> None:
    with running.signed() as client:
        name = next(
            one["key"]
            for one in client.get("/api/list", params={"point": "disks", "volume": "0"}).json()["rows"]
            if one["kind"] == "file" and one["size"] > 1000
        )
        chosen = {"point": "disks", "volume": "0", "path": "/" + name}
        made = client.post("/api/downloads/make", json={"form": "file", "items": [chosen]}).json()
        ranges = "bytes=" + ",".join(f"{k}-{k + 1}" for k in range(0, 10_000, 2))
        answer = client.get(made["url"], headers={"range": ranges})
        assert answer.status_code == 200
        assert len(answer.content) == made["size"]
        assert client.get(made["url"], headers={"range": f"bytes={made['size']}-"}).status_code == 416
        assert client.get(made["url"], headers={"range": "bytes=5-2"}).status_code == 416
        tail = client.get(made["url"], headers={"range": "bytes=-7"})
        assert (tail.status_code, tail.content) == (206, answer.content[-7:])
        part = client.get(made["url"], headers={"range": "bytes=10-19", "if-range": tail.headers["etag"]})
        assert (part.status_code, part.content) == (206, answer.content[10:20])
        assert part.headers["content-range"] == f"bytes 10-19/{made['size']}"
        other = client.get(made["url"], headers={"range": "bytes=10-19", "if-range": '"another"'})
        assert (other.status_code, other.content) == (200, answer.content)


# -- 6: content


def test_content_is_never_shown_by_the_browser(running: Serving) -> None:
    with running.signed() as client:
        rows = client.get("/api/list", params={"point": "disks", "volume": "0", "count": 1000}).json()["rows"]
        for one in [row for row in rows if row["kind"] == "file"][:3]:
            chosen = {"point": "disks", "volume": "0", "path": "/" + one["key"]}
            made = client.post("/api/downloads/make", json={"form": "file", "items": [chosen]}).json()
            headers = client.get(made["url"]).headers
            assert headers["content-type"] == "application/octet-stream"
            assert headers["content-disposition"].startswith("attachment;")
            assert headers["content-security-policy"].startswith("sandbox")
            assert "\n" not in headers["content-disposition"]


# -- 9 and 10: TLS, connections


def raw(running: Serving, request: bytes) -> bytes:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", running.port), 30) as plain, context.wrap_socket(plain) as tls:
        tls.sendall(request)
        answer = b""
        try:
            while data := tls.recv(65536):
                answer += data
                if b"\r\n\r\n" in answer and b"connection: close" not in answer.lower():
                    break
        except OSError:
            pass
        return answer


def test_the_certificate_is_what_its_thumbprints_say(running: Serving) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", running.port), 30) as plain, context.wrap_socket(plain) as tls:
        der = tls.getpeercert(binary_form=True)
        version = tls.version()
    assert der is not None
    assert hashlib.sha256(der).hexdigest().upper() == running.certificate.sha256
    assert hashlib.sha1(der, usedforsecurity=False).hexdigest().upper() == running.certificate.sha1
    assert version == "TLSv1.3"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_old_tls_and_no_tls_are_refused(running: Serving) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", running.port), 30) as plain, pytest.raises((ssl.SSLError, OSError)):
        context.wrap_socket(plain)
    with socket.create_connection(("127.0.0.1", running.port), 30) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"HTTP/1.1 2" not in plain.recv(1000)


def test_slow_headers_and_a_thousand_connections_keep_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HANDSHAKE_SECONDS", 1.0)
    monkeypatch.setattr(server, "HEADER_SECONDS", 1.0)
    with serving(disks([sample("fat32").image])) as running:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        slow = context.wrap_socket(socket.create_connection(("127.0.0.1", running.port), 30))
        slow.sendall(b"GET / HTTP/1.1\r\nHost: local")
        opened = []
        for _ in range(1000):
            try:
                opened.append(socket.create_connection(("127.0.0.1", running.port), 30))
            except OSError:
                break
        assert len(opened) > server.MOST_OF_ADDRESS
        assert slow.recv(1000) == b""  # hung up, without a word
        for one in opened:
            one.settimeout(30)
        refused = [one.recv(100) for one in opened]
        assert set(refused) <= {b""}
        with running.signed() as client:
            assert client.get("/api/session").status_code == 200
        for one in [slow, *opened]:
            one.close()


# -- 11: how often


def test_folders_and_searches_are_not_asked_for_without_end() -> None:
    clock = ManualClock()
    with serving(disks([sample("fat32").image]), clock=clock) as running, running.signed() as client:
        place = {"point": "disks", "volume": "0"}
        for ask, most in (
            (lambda: client.get("/api/list", params=place), limits.MOST_LOOKS),
            (lambda: client.post("/api/search", json={**place, "text": "x"}), limits.MOST_SEARCHES),
        ):
            codes = [ask().status_code for _ in range(most + 3)]
            assert codes == [200] * most + [429] * 3
            assert client.get("/api/session").status_code == 200
            clock.advance(float(ask().headers["retry-after"]))
            assert ask().status_code == 200


def test_one_archive_after_the_other(served: Serving) -> None:
    """The same one may be had in parts at once; a file, too."""
    with served.signed() as client, served.signed() as other:
        chosen = [{"point": served.desk.first, "volume": "0", "path": "/var"}]
        archives = [
            client.post("/api/downloads/make", json={"form": form, "items": chosen}).json()["url"]
            for form in ("zip", "tar")
        ]
        with client.stream("GET", archives[0]) as first:
            next(first.iter_raw(1024))  # of more than any buffer on the way holds
            refused = other.get(archives[1])
            assert refused.status_code == 429
            assert "another archive" in refused.text
            assert other.get(archives[0], headers={"range": "bytes=0-99"}).status_code == 206
        wait_for(lambda: not client.get("/api/downloads").json()["downloads"][1]["sending"])
        assert other.get(archives[1]).status_code == 200


# -- the end


def test_stop_ends_it_for_everybody(tmp_path: Path) -> None:
    with serving(disks([sample("fat32").image])) as running, running.signed() as client, running.signed() as other:
        assert client.post("/api/stop", json={}).status_code == 200
        running.thread.join(30)
        assert not running.thread.is_alive()
        with pytest.raises(httpx.TransportError):
            other.get("/api/session")


def test_a_session_that_nobody_uses_ends(tmp_path: Path) -> None:
    with serving(disks([sample("fat32").image]), idle=0.5) as running:
        watch = threading.Thread(target=running.desk.life.watch)
        watch.start()
        watch.join(30)
        assert running.desk.life.why == "nobody used it"
        running.thread.join(30)
        assert not running.thread.is_alive()
