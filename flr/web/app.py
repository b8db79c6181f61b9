# SPDX-License-Identifier: Apache-2.0
"""The application: its routes, its page and its files. Without a build step: what is in `static` is what the browser gets."""

from __future__ import annotations

import gzip
import hashlib
from importlib import resources
from typing import NamedTuple

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flr.recovery.desk import Desk
from flr.web import browse, download, plain, restore, session
from flr.web.access import Access
from flr.web.certificate import Certificate
from flr.web.guard import App, Guard
from flr.web.limits import LOOKS_A_SECOND, MOST_LOOKS, MOST_SEARCHES, SEARCHES_A_SECOND, Bucket
from flr.web.requests import takes_gzip

_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


class File(NamedTuple):
    data: bytes
    packed: bytes
    etag: str


def application(desk: Desk, access: Access, certificate: Certificate) -> App:
    """An ASGI application, guarded. It belongs to one session."""
    routes = [
        *session.ROUTES,
        *browse.ROUTES,
        *download.ROUTES,
        *restore.ROUTES,
        *plain.ROUTES,
        Route("/", page),
        Route("/static/{name}", static),
    ]
    app = Starlette(routes=routes)
    app.state.desk = desk
    app.state.access = access
    app.state.certificate = certificate
    app.state.looks = Bucket(desk.clock, LOOKS_A_SECOND, MOST_LOOKS)
    app.state.asked = Bucket(desk.clock, SEARCHES_A_SECOND, MOST_SEARCHES)
    app.state.files = {
        file.name: _read(file.read_bytes())
        for file in resources.files("flr.web").joinpath("static").iterdir()
        if file.is_file()
    }
    return Guard(app, certificate.names)


def _read(data: bytes) -> File:
    return File(data, gzip.compress(data, 9, mtime=0), f'"{hashlib.sha256(data).hexdigest()[:32]}"')


def page(request: Request) -> Response:
    return _file(request, "index.html")


def static(request: Request) -> Response:
    return _file(request, request.path_params["name"])


def _file(request: Request, name: str) -> Response:
    file: File | None = request.app.state.files.get(name)
    kind = _TYPES.get(name.rpartition(".")[2])
    if file is None or kind is None:
        return Response("there is no such page\n", 404, media_type="text/plain")
    headers = {"cache-control": "no-cache", "etag": file.etag, "vary": "accept-encoding"}
    if request.headers.get("if-none-match") == file.etag:
        return Response(status_code=304, headers=headers)
    if takes_gzip(request):
        return Response(file.packed, media_type=kind, headers={**headers, "content-encoding": "gzip"})
    return Response(file.data, media_type=kind, headers=headers)
