# SPDX-License-Identifier: Apache-2.0
"""What every endpoint needs of a request: who sent it, its arguments checked by a type, and answers and errors in one form.

Endpoints are plain functions that Starlette runs in threads, because the engine waits for disks and processes.
"""

from __future__ import annotations

import functools
import gzip
import math
import traceback
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from flr.errors import NodeNotFound
from flr.recovery.desk import Desk
from flr.recovery.downloads import Busy
from flr.web.access import Access
from flr.web.wire import error_document
from mover.errors import MoverError, UsageError

COOKIE = "__Host-recovery"
SHORTEST_COMPRESSED = 1400
"""Bytes that fit into a packet anyway."""
BACKGROUND = "x-background"
"""A header: the page asks by itself, nobody did anything."""
T = TypeVar("T")


class Signed:
    """A request of somebody who signed in. `note` writes into the session's log, with who it was."""

    def __init__(self, request: Request, desk: Desk, secret: str) -> None:
        self.request = request
        self.desk = desk
        self.secret = secret

    def note(self, what: str, **more: Any) -> None:
        self.desk.audit.add(what, address=address_of(self.request), agent=agent_of(self.request), **more)


def address_of(request: Request) -> str:
    return request.client.host if request.client else ""


def agent_of(request: Request) -> str:
    return request.headers.get("user-agent", "")[:200]


def answer(document: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(document), status, media_type="application/json")


def compressed(request: Request, made: Response) -> Response:
    """A long JSON answer as gzip, where that is understood: lists of names become a tenth. No answer has a secret in it that its
    length could tell of: the session's is in a header. What streams, and what a guest wrote, goes as it is."""
    body = getattr(made, "body", b"")
    if made.media_type != "application/json" or len(body) < SHORTEST_COMPRESSED or not takes_gzip(request):
        return made
    packed = gzip.compress(body, 1, mtime=0)
    return Response(packed, made.status_code, {"content-encoding": "gzip", "vary": "accept-encoding"}, made.media_type)


def takes_gzip(request: Request) -> bool:
    return "gzip" in [word.strip() for word in request.headers.get("accept-encoding", "").split(",")]


def failed(error: MoverError) -> Response:
    kinds = ((NodeNotFound, 404), (UsageError, 400), (Busy, 429))
    status = next((status for kind, status in kinds if isinstance(error, kind)), 422)
    return answer(error_document(error), status)


def unsigned() -> Response:
    hint = "ask whoever gave you the link for a new one; a link works once"
    return answer({"error": {"type": "SignedOut", "what": "you are not signed in", "value": "", "hint": hint}}, 401)


def query(request: Request, form: type[T]) -> T:
    """The address's arguments. UsageError."""
    return _checked(lambda: msgspec.convert(dict(request.query_params), form, strict=False))


def _checked(make: Callable[[], T]) -> T:
    try:
        return make()
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise UsageError("the request is not one that is understood", str(error)[:200], "reload the page") from None


def too_often(wait: float) -> Response:
    hint = "wait a little; the page does so by itself"
    made = answer(
        {"error": {"type": "TooOften", "what": "this was asked for too often", "value": "", "hint": hint}}, 429
    )
    made.headers["retry-after"] = str(math.ceil(wait))
    return made


def endpoint(
    run: Callable[..., Response], body: type[Any] | None = None, signed: bool = True, bucket: str = ""
) -> Callable[[Request], Awaitable[Response]]:
    """`run(signed)`, or `run(signed, body)` for one that takes a document; `run(request, body)` if it needs nobody signed in.
    `bucket`: of the application's state, which says how often it may be asked for (`flr.web.limits`)."""
    decoder = msgspec.json.Decoder(body) if body is not None else None

    @functools.wraps(run)
    async def answers(request: Request) -> Response:
        desk: Desk = request.app.state.desk
        access: Access = request.app.state.access
        secret = request.cookies.get(COOKIE, "")
        if signed and not access.knows(secret):
            return unsigned()
        if signed and BACKGROUND not in request.headers:
            desk.life.use()
        if bucket and (wait := getattr(request.app.state, bucket).take()):
            return too_often(wait)
        who: Any = Signed(request, desk, secret) if signed else request
        try:
            if decoder is None:
                return await run_in_threadpool(lambda: compressed(request, run(who)))
            data = await request.body()
            document = _checked(lambda: decoder.decode(data))
            return await run_in_threadpool(lambda: compressed(request, run(who, document)))
        except MoverError as error:
            return failed(error)
        except ClientDisconnect:
            return Response(status_code=400)
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            text = f"{type(error).__name__} at {where.filename.rpartition('/')[2]}:{where.lineno}"  # its message may hold anything
            desk.audit.add("defect", result="failed", text=text, address=address_of(request))
            hint = "the rest works on; please report what was done and this message"
            return answer(
                {"error": {"type": "Defect", "what": "a defect of this program", "value": text, "hint": hint}}, 500
            )

    return answers
