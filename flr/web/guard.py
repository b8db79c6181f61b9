# SPDX-License-Identifier: Apache-2.0
"""What every request passes through: which host was meant, which page it comes from, and the headers that every answer carries.

The list is the study's (section 11, points 3 to 5). Not here: who may come in (`flr.web.access`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LARGEST_BODY = 4 << 20
"""Bytes of one request: a basket of tens of thousands of paths."""
LONGEST_QUERY = 32 << 10
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
CONTENT_POLICY = "sandbox; default-src 'none'"
"""Of whatever a guest wrote."""
_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"x-frame-options": b"DENY",
    b"permissions-policy": b"camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    b"cache-control": b"no-store",
    b"content-security-policy": POLICY.encode(),
}
_READS = frozenset(("GET", "HEAD"))
FORMS = frozenset(("/plain/sign-in", "/plain/sign-out"))
"""Where a page without scripts posts to; the browser has to say that it was ours."""
ASKED_BY = b"x-recovery"
"""A header that no page of another origin can send without being asked first."""


class Guard:
    """`hosts`: names and addresses of this server, without a port. Everything else is refused, also what a name was made to lead
    here."""

    def __init__(self, app: App, hosts: Iterable[str]) -> None:
        self._app = app
        self._hosts = frozenset(host.lower().rstrip(".") for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        headers = _single(scope["headers"])
        problem = self._problem(scope, headers)
        if problem is not None:
            await _refuse(_with_headers(send), *problem)
            return
        await self._app(scope, _bounded(receive), _with_headers(send))

    def _problem(self, scope: Scope, headers: dict[bytes, bytes | None]) -> tuple[int, str] | None:
        host = headers.get(b"host")
        if host is None or _name(host) not in self._hosts:
            return 421, "this server is not called that"
        if len(scope.get("query_string", b"")) > LONGEST_QUERY:
            return 414, "the address is too long"
        site = headers.get(b"sec-fetch-site", b"none")
        reads = scope["method"] in _READS
        if reads and site == b"cross-site" and headers.get(b"sec-fetch-mode") == b"navigate" and scope["path"] == "/":
            return (
                None  # a link from a mail or the appliance: the page by itself gives nothing away and changes nothing
            )
        if site not in (b"same-origin", b"none"):
            return 403, "another page asked for this"
        if reads:
            return None
        if scope["method"] != "POST":
            return 405, "not a method of this server"
        origin = headers.get(b"origin")
        if origin is not None and origin != b"https://" + host:
            return 403, "another page asked for this"
        kind = (headers.get(b"content-type") or b"").partition(b";")[0].strip().lower()
        if scope["path"] in FORMS:
            if origin is None or kind != b"application/x-www-form-urlencoded":
                return 403, "not sent by this server's own form"
        elif headers.get(ASKED_BY) is None:
            return 403, "not asked for by the recovery browser's own page"
        elif kind != b"application/json":
            return 415, "only JSON is understood"
        length = headers.get(b"content-length")
        if length is not None and (not length.isdigit() or int(length) > LARGEST_BODY):
            return 413, "the request is too large"
        return None


def _single(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes | None]:
    """None for one that was sent twice with different values: whoever reads which of them is not left to chance."""
    found: dict[bytes, bytes | None] = {}
    for name, value in headers:
        found[name] = value if found.get(name, value) == value else None
    return found


def _name(host: bytes) -> str:
    text = host.decode("latin-1").lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0].rstrip(".")


def _bounded(receive: Receive) -> Receive:
    """A body that is longer than it said, or said nothing, ends as if the other side had gone."""
    left = LARGEST_BODY

    async def limited() -> MutableMapping[str, Any]:
        nonlocal left
        message = await receive()
        if message["type"] == "http.request":
            left -= len(message.get("body", b""))
            if left < 0:
                return {"type": "http.disconnect"}
        return message

    return limited


def _with_headers(send: Send) -> Send:
    async def sends(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            given = list(message.get("headers", ()))
            names = {name.lower() for name, _ in given}
            message["headers"] = given + [(name, value) for name, value in _HEADERS.items() if name not in names]
        await send(message)

    return sends


async def _refuse(send: Send, status: int, text: str) -> None:
    body = (text + "\n").encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
