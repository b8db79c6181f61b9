# SPDX-License-Identifier: Apache-2.0
"""Endpoints that take out: the restore list, and downloads with ranges.

Content of a guest is always an attachment of no type, which the browser neither shows nor runs (study, section 11, point 6).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Generator
from contextlib import closing
from typing import Annotated, Any
from urllib.parse import quote

import anyio
import msgspec
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from flr.errors import RecoveryError
from flr.printable import shown
from flr.recovery.basket import Item
from flr.recovery.downloads import Download, Form
from flr.recovery.pipe import Pipe, piped
from flr.web.guard import CONTENT_POLICY
from flr.web.requests import Signed, answer, endpoint
from flr.web.wire import coded, decoded, error_document, figures, key_of
from mover.errors import Cancelled, MoverError

FIRST_SECONDS, READY_SECONDS = 0.5, 20.0
"""For which who makes, and who fetches, a download waits until it is ready."""
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_PLAIN = re.compile(r"[^A-Za-z0-9._ ()+-]")


class Chosen(msgspec.Struct):
    point: str
    volume: str
    path: str


Some = Annotated[list[Chosen], msgspec.Meta(max_length=20_000)]


class Add(msgspec.Struct):
    items: Some


class Remove(msgspec.Struct):
    ids: list[int]


class Make(msgspec.Struct):
    """Of these, or of the restore list's items with these ids, or of all of it."""

    form: Form
    items: Some = []
    ids: list[int] = []


def _wanted(some: list[Chosen]) -> list[tuple[str, str, bytes]]:
    return [(one.point, one.volume, decoded(one.path)) for one in some]


def _told(signed: Signed, items: list[Item]) -> Response:
    rows = []
    for item in items:
        with signed.desk.recovery.using(item.point) as opened:
            guest = opened.guest()
        rows.append(
            {
                "id": item.id, "point": item.point, "volume": item.volume, "path": coded(item.path),
                "folder": shown(item.path.rpartition(b"/")[0] or b"/"), "key": key_of(item.name),
                "name": shown(item.name or b"/"), **figures(item.found, guest),
                "inside": signed.desk.inside.of(item) if item.found.is_directory else None,
            }
        )  # fmt: skip
    return answer({"items": rows})


def basket(signed: Signed) -> Response:
    return _told(signed, signed.desk.basket.all())


def add(signed: Signed, body: Add) -> Response:
    return _told(signed, signed.desk.basket.add(_wanted(body.items)))


def remove(signed: Signed, body: Remove) -> Response:
    return _told(signed, signed.desk.basket.remove(body.ids))


def make(signed: Signed, body: Make) -> Response:
    desk = signed.desk
    if body.items:
        items = desk.basket.look(_wanted(body.items))
    else:
        ids = set(body.ids)
        items = [item for item in desk.basket.all() if not ids or item.id in ids]
    made = desk.downloads.make(body.form, items)
    made.wait(FIRST_SECONDS)
    return answer(_document(made))


def _document(made: Download) -> dict[str, Any]:
    name = shown(made.name)
    return {
        "id": made.id, "name": name, "form": made.form, "size": made.size, "sent": made.sent,
        "state": made.state, "files": made.files, "sending": made.streams > 0,
        "error": error_document(made.error)["error"] if made.error else None,
        "url": f"/download/{made.id}/{quote(name, safe='')}", "problems": made.problems, "problem_count": made.problem_count,
    }  # fmt: skip


def downloads(signed: Signed) -> Response:
    return answer({"downloads": [_document(made) for made in signed.desk.downloads.all()]})


def fetch(signed: Signed) -> Response:
    made = signed.desk.downloads.get(signed.request.path_params["id"])
    made.wait(READY_SECONDS)
    if made.error is not None:
        raise made.error
    if made.state != "ready":
        raise RecoveryError("the download is still being made ready", made.files, "its files are counted; try again")
    with signed.desk.downloads.sending(made):
        pass  # what may not be sent now is said before the first byte
    return send(signed, made)


def send(signed: Signed, made: Download) -> Response:
    """Whole, or the one range that is asked for; of several ranges the whole, as HTTP allows."""
    headers = {
        "content-disposition": disposition(made.name),
        "content-security-policy": CONTENT_POLICY,
        "content-type": "application/octet-stream",
    }
    start, end, status = 0, made.size or 0, 200
    if made.size is not None:
        headers |= {"accept-ranges": "bytes", "etag": f'"{made.etag}"'}
        found = _range(signed, made, made.size)
        if found is not None:
            if found[0] >= found[1]:
                headers["content-range"] = f"bytes */{made.size}"
                return Response(status_code=416, headers=headers)
            start, end = found
            status = 206
            headers["content-range"] = f"bytes {start}-{end - 1}/{made.size}"
        headers["content-length"] = str(end - start)
    if signed.request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    return _Stream(_noted(signed, made, start, end), status, headers)


class _Stream(StreamingResponse):
    """Whose end is told to what makes it, also when nobody wants it any more."""

    def __init__(self, pieces: Generator[bytes, None, None], status: int, headers: dict[str, str]) -> None:
        super().__init__(iterate_in_threadpool(pieces), status, headers)
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await run_in_threadpool(self._pieces.close)


def _noted(signed: Signed, made: Download, start: int, end: int) -> Generator[bytes, None, None]:
    """The bytes; how it went stands in the session's log, with what was sent."""
    digest, sent, result, text = hashlib.sha256(), 0, "cut", ""

    def make(pipe: Pipe) -> None:  # the next pieces are read and summed while one is encrypted and sent
        for piece in made.read(start, end):
            digest.update(piece)
            pipe.put(piece)

    try:
        with signed.desk.life.transfer(), signed.desk.downloads.sending(made), closing(piped(make)) as pieces:
            for piece in pieces:
                sent += len(piece)
                yield piece
                if signed.desk.life.ended.is_set():
                    raise Cancelled("the session has ended")  # so that a stream of no known length does not seem whole
        result = "ok"
    except Cancelled:
        raise
    except MoverError as error:
        result, text = "failed", f"{error.what}: {error.value}"
        raise
    finally:
        whole = result == "ok" and start == 0 and end == (made.size or 0)
        first = made.items[0]
        more = f"and {len(made.items) - 1} more; " if len(made.items) > 1 else ""
        signed.note(
            f"download {made.form}", result=result, point=first.point, volume=first.volume, path=shown(first.path),
            size=sent, sha256=digest.hexdigest() if whole else "", text=more + (text or f"from byte {start}"),
        )  # fmt: skip


def _range(signed: Signed, made: Download, size: int) -> tuple[int, int] | None:
    """(start, end) of what is wanted; None for all of it; an empty one cannot be had."""
    asked = _RANGE.fullmatch(signed.request.headers.get("range", ""))
    condition = signed.request.headers.get("if-range")
    if asked is None or (condition is not None and condition != f'"{made.etag}"'):
        return None
    first, last = asked[1], asked[2]
    if not first and not last:
        return None
    if not first:
        return max(0, size - int(last)), size
    return int(first), min(size, int(last) + 1) if last else size


def disposition(name: bytes) -> str:
    """RFC 6266: a plain name for old browsers, the true one beside it."""
    text = shown(name).replace("/", "_").replace("\\", "_")
    return f"attachment; filename=\"{_PLAIN.sub('_', text)}\"; filename*=UTF-8''{quote(text, safe='')}"


ROUTES = [
    Route("/api/basket", endpoint(basket)),
    Route("/api/basket/add", endpoint(add, Add), methods=["POST"]),
    Route("/api/basket/remove", endpoint(remove, Remove), methods=["POST"]),
    Route("/api/downloads", endpoint(downloads)),
    Route("/api/downloads/make", endpoint(make, Make), methods=["POST"]),
    Route("/download/{id}/{name}", endpoint(fetch)),
]
