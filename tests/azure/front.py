# SPDX-License-Identifier: Apache-2.0
"""A front to Azurite: what Azurite answers wrongly about page blobs is answered as Azure does; the rest is passed through.

It gives true `comp=pagelist` answers since an earlier snapshot (changed and cleared pages, interleaved, in pages of `results`),
exports of snapshots under hosts of their own (`/md-N/GUID/abcd`, read-only, with a SAS that ends), managed disks that wait for
their upload (the same, and pages may be written, nothing else; what Azure would make of it is `uploaded`), Azure's limit of
4 MiB a Put Page, and faults: each request is shown to `faults`, oldest first; one that returns an answer has it sent instead.
What it is not: a measure of Azure's speed.
Sources: Microsoft's "Get Page Ranges", "Put Page", "Upload a VHD to Azure" and "Common REST API error codes".
"""

from __future__ import annotations

import http.client
import itertools
import re
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

PAGE = 512
MOST = 4 << 20
_RANGE = re.compile(r"<(Page|Clear)Range><Start>(\d+)</Start><End>(\d+)</End></\1Range>")


@dataclass
class Request:
    method: str
    path: str
    fields: dict[str, str]
    headers: dict[str, str]
    """Names in lower case."""

    @property
    def range(self) -> tuple[int, int]:
        """First and last byte that are asked for; (0, -1): all."""
        found = re.match(r"bytes=(\d+)-(\d+)", self.headers.get("x-ms-range", self.headers.get("range", "")))
        return (int(found[1]), int(found[2])) if found else (0, -1)

    @property
    def is_diff(self) -> bool:
        """Whether it asks what changed since a snapshot."""
        return "prevsnapshot" in self.fields or "x-ms-previous-snapshot-url" in self.headers


@dataclass
class Reply:
    """`cut`: the connection is closed after so many bytes of the body; -1: without any answer. `drip`: seconds between its pieces
    of 64 KiB."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: int | None = None
    drip: float = 0.0


def error(status: int, code: str, **headers: str) -> Reply:
    return Reply(status, {"x-ms-error-code": code, **{k.replace("_", "-"): v for k, v in headers.items()}})


Fault = Callable[[Request, "Front"], Reply | None]
NOTHING_CHANGED = Reply(200, {"content-type": "application/xml"}, b"<PageList><NextMarker/></PageList>")
"""A list of page ranges without any."""


@dataclass
class Export:
    """A disk under a URL of its own. `target`: the blob's path and query at Azurite, its SAS included. `upload`: it may be
    written."""

    target: str
    sig: str
    upload: bool = False
    revoked: bool = False


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no error; any other is told as always."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class Front:
    """A context manager. `url` stands for the account's URL; `log` has (method, path, fields) of each request."""

    def __init__(self, account_url: str, *, results: int = 10_000) -> None:
        split = urlsplit(account_url)
        self._upstream = split.netloc
        self._account = split.path
        self.results = results
        self.faults: list[Fault] = []
        self.loses: Callable[[Request], bool] = lambda request: False
        """Whether a request that is carried out is not answered."""
        self.log: list[Request] = []
        self._exports: dict[str, Export] = {}
        self._numbers = itertools.count(1)
        front = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def _serve(self) -> None:
                front._serve(self)

            do_GET = do_HEAD = do_PUT = do_DELETE = do_POST = _serve

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}{self._account}"

    def __enter__(self) -> Front:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    # -- exports

    def upload(self, blob: str) -> str:
        """The URL with a SAS, of a managed disk that waits for its upload; `blob` as for `export`, of the upload's size."""
        return self.export(blob, upload=True)

    def uploaded(self, url: str, size: int) -> bytes:
        """The first `size` bytes of the managed disk once its access is revoked; ValueError where Azure would make no disk of
        it, or where the rest is not zero."""
        self.revoke(url)
        target = self._exports[urlsplit(url).path].target
        body = self.upstream("GET", target, {"x-ms-version": "2021-12-02"}).body
        footer = body[-PAGE:]
        if footer[:8] != b"conectix" or int.from_bytes(footer[48:56], "big") != len(body) - PAGE:
            raise ValueError("no footer of a fixed VHD of this size")
        if any(body[size:-PAGE]):
            raise ValueError("there is something behind the disk")
        return body[:size]

    def export(self, blob: str, *, upload: bool = False) -> str:
        """The URL with a SAS, of an exported snapshot; `blob`: its URL at this front, with a SAS of the account."""
        split = urlsplit(blob)
        path = f"/md-{next(self._numbers)}/{uuid.uuid4().hex[:12]}/abcd"
        sig = uuid.uuid4().hex
        self._exports[path] = Export(f"{split.path}?{split.query}", sig, upload)
        host = f"http://127.0.0.1:{self._server.server_port}"
        sas = {"sv": "2018-03-28", "sr": "b", "si": str(uuid.uuid4()), "sig": sig}  # the policy says when it ends
        return f"{host}{path}?{urlencode(sas)}"

    def revoke(self, url: str) -> None:
        self._exports[urlsplit(url).path].revoked = True

    # -- serving

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        split = urlsplit(handler.path)
        headers = _headers(handler.headers.items())
        request = Request(handler.command, split.path, dict(parse_qsl(split.query)), headers)
        body = handler.rfile.read(int(headers.get("content-length", 0)))
        self.log.append(request)
        for fault in list(self.faults):
            if (reply := fault(request, self)) is not None:
                break
        else:
            reply = self._answer(request, handler.path, body)
            if self.loses(request):
                reply = Reply(0, cut=-1)
        self._send(handler, reply)

    def _answer(self, request: Request, target: str, body: bytes) -> Reply:
        if request.path in self._exports:
            export = self._exports[request.path]
            if export.revoked or request.fields.get("sig") != export.sig:
                return error(403, "AuthenticationFailed", date=formatdate(usegmt=True))
            is_page = request.method == "PUT" and request.fields.get("comp") == "page"
            if request.method not in ("GET", "HEAD") and not (export.upload and is_page):
                return error(403, "AuthorizationPermissionMismatch")
            kept = {n: v for n, v in request.fields.items() if n in ("comp", "maxresults", "marker")}
            target = export.target + (f"&{urlencode(kept)}" if kept else "")
        elif request.path.startswith("/md-"):
            return error(404, "BlobNotFound")
        if len(body) > MOST and request.fields.get("comp") == "page":
            return error(413, "RequestBodyTooLarge")
        previous = self._previous(request, target)
        if request.fields.get("comp") == "pagelist" and request.method == "GET":
            if previous is None and request.is_diff:
                return error(409, "PreviousSnapshotNotFound")
            unchanged = self.upstream("HEAD", target, {"x-ms-version": "2021-12-02"}).headers.get("etag")
            if request.headers.get("if-match", unchanged) != unchanged:
                return error(412, "ConditionNotMet")
            return self._page_list(request, target, previous)
        return self.upstream(request.method, target, request.headers, body)

    def upstream(self, method: str, target: str, headers: dict[str, str], body: bytes = b"") -> Reply:
        connection = http.client.HTTPConnection(self._upstream, timeout=60)
        try:
            sent = {
                n: v for n, v in headers.items() if n not in ("host", "connection", "content-length", "accept-encoding")
            }
            connection.request(method, target, body or (b"" if method == "PUT" else None), sent)
            answer = connection.getresponse()
            data = answer.read()
            skipped = ("transfer-encoding", "connection", "keep-alive")
            found = _headers((n, v) for n, v in answer.getheaders() if n.lower() not in skipped)
            return Reply(answer.status, found, data)
        finally:
            connection.close()

    def _send(self, handler: BaseHTTPRequestHandler, reply: Reply) -> None:
        if reply.cut == -1:
            handler.close_connection = True
            return
        handler.send_response(reply.status)
        headers = {"content-length": str(len(reply.body)), "date": formatdate(usegmt=True)} | reply.headers
        for name, value in headers.items():
            if name != "server":
                handler.send_header(name, value)
        handler.end_headers()
        if handler.command == "HEAD":
            return
        body = reply.body if reply.cut is None else reply.body[: reply.cut]
        step = 65536 if reply.drip else len(body) or 1
        try:
            for at in range(0, len(body), step):
                handler.wfile.write(body[at : at + step])
                if reply.drip:
                    handler.wfile.flush()
                    time.sleep(reply.drip)
        except OSError:
            pass
        if reply.cut is not None:
            handler.close_connection = True

    # -- page lists

    def _previous(self, request: Request, target: str) -> str | None:
        """The earlier snapshot's path and query at Azurite, if one is asked about that is there."""
        url = request.headers.get("x-ms-previous-snapshot-url")
        if url is not None:
            split = urlsplit(url)
            export = self._exports.get(split.path)
            if export is None or parse_qs(split.query).get("sig") != [export.sig]:
                return None
            return export.target
        when = request.fields.get("prevsnapshot")
        if when is None:
            return None
        split = urlsplit(target)
        fields = {
            n: v
            for n, v in parse_qsl(split.query)
            if n not in ("comp", "snapshot", "prevsnapshot", "maxresults", "marker")
        }
        return f"{split.path}?{urlencode({'snapshot': when, **fields})}"

    def _page_list(self, request: Request, target: str, previous: str | None) -> Reply:
        try:
            ranges = sorted(self._ranges(target) if previous is None else _merged(self._changes(target, previous)))
        except LookupError as missing:
            return missing.args[0] if isinstance(missing.args[0], Reply) else error(404, "BlobNotFound")
        low, high = request.range
        if high >= 0:
            ranges = [(max(s, low), min(e, high + 1), clear) for s, e, clear in ranges if s <= high and e > low]
        first = int(request.fields.get("marker") or 0)
        count = min(self.results, int(request.fields.get("maxresults", self.results)))
        shown = ranges[first : first + count]
        marker = str(first + count) if first + count < len(ranges) else ""
        body = "".join(
            f"<{kind}Range><Start>{s}</Start><End>{e - 1}</End></{kind}Range>"
            for s, e, clear in shown
            for kind in ("Clear" if clear else "Page",)
        )
        text = f'<?xml version="1.0" encoding="utf-8"?><PageList>{body}<NextMarker>{marker}</NextMarker></PageList>'
        return Reply(200, {"content-type": "application/xml"}, text.encode())

    def _ranges(self, target: str) -> Iterator[tuple[int, int, bool]]:
        """What Azurite says has data."""
        split = urlsplit(target)
        fields = {n: v for n, v in parse_qsl(split.query) if n not in ("comp", "prevsnapshot", "maxresults", "marker")}
        reply = self.upstream(
            "GET", f"{split.path}?{urlencode({'comp': 'pagelist', **fields})}", {"x-ms-version": "2021-12-02"}
        )
        if reply.status != 200:
            raise LookupError(reply)
        for _, start, end in _RANGE.findall(reply.body.decode()):
            yield int(start), int(end) + 1, False

    def _changes(self, target: str, previous: str) -> Iterator[tuple[int, int, bool]]:
        new, old = (sorted(self._ranges(one)) for one in (target, previous))
        pages = sorted({at for start, end, _ in (*new, *old) for at in range(start, end, PAGE)})
        has = [{at for start, end, _ in ranges for at in range(start, end, PAGE)} for ranges in (new, old)]
        data = [self._data(target, new), self._data(previous, old)]
        for at in pages:
            if at in has[0] and (at not in has[1] or data[0][at] != data[1][at]):
                yield at, at + PAGE, False
            elif at not in has[0] and at in has[1]:
                yield at, at + PAGE, True

    def _data(self, target: str, ranges: list[tuple[int, int, bool]]) -> dict[int, bytes]:
        split = urlsplit(target)
        fields = {n: v for n, v in parse_qsl(split.query) if n not in ("comp", "prevsnapshot", "maxresults", "marker")}
        found = {}
        for start, end, _ in ranges:
            headers = {"range": f"bytes={start}-{end - 1}", "x-ms-version": "2021-12-02"}
            body = self.upstream("GET", f"{split.path}?{urlencode(fields)}", headers).body
            found |= {start + at: body[at : at + PAGE] for at in range(0, len(body), PAGE)}
        return found


def _headers(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Names in lower case, but for the part of metadata's that is somebody's own."""
    return {
        name.lower() if not name.lower().startswith("x-ms-meta-") else "x-ms-meta-" + name[10:]: value
        for name, value in pairs
    }


def _merged(ranges: Iterable[tuple[int, int, bool]]) -> Iterator[tuple[int, int, bool]]:
    """Neighbours of one kind as one range, as Azure lists them."""
    last: tuple[int, int, bool] | None = None
    for start, end, clear in ranges:
        if last is not None and (last[1], last[2]) == (start, clear):
            last = (last[0], end, clear)
            continue
        if last is not None:
            yield last
        last = (start, end, clear)
    if last is not None:
        yield last
