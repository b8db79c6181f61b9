# SPDX-License-Identifier: Apache-2.0
"""An azure-core transport over http.client whose answers are read into the caller's buffer and whose bodies are sent from it.

For ranges and pages: the SDK's own transport joins every body into fresh memory, and benchmarks/page_blob.py shows what that
costs. It keeps connections open, as many as there are requests at once; it honours HTTPS_PROXY, HTTP_PROXY, NO_PROXY
and the CA bundle. It follows no redirects and repeats nothing, but for one case: a kept connection that the server had
closed meanwhile is replaced by a new one. What is sent through it MUST be such that a second time changes nothing.
"""

from __future__ import annotations

import base64
import http.client
import os
import socket
import ssl
import threading
from collections.abc import Iterable
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from azure.core.exceptions import ServiceRequestError, ServiceResponseError
from azure.core.pipeline.transport import HttpTransport
from azure.core.rest import HttpRequest

from mover.errors import UsageError
from mover.store.deadlines import Deadlines

CONNECT_SECONDS = 20.0
READ_SECONDS = 60.0  # without a byte
_DRAIN = 64 << 10  # bytes of an unread body that are worth reading to keep the connection
_SLOWEST = 32 << 10  # bytes a second; what comes slower is broken off, however steadily it drips
_UNKNOWN = 8 << 20  # bytes of a body that does not tell its length


def ca_bundle() -> str:
    """The CA bundle (a file, or a folder) of this environment, for our transport and for the SDK's alike."""
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        if path := os.environ.get(variable):
            return path
    system = ssl.get_default_verify_paths().cafile
    if system:
        return system
    import certifi

    return certifi.where()


def _tls_context() -> ssl.SSLContext:
    path = ca_bundle()
    try:
        if os.path.isdir(path):
            return ssl.create_default_context(capath=path)
        return ssl.create_default_context(cafile=path)
    except OSError as error:
        raise UsageError(f"the CA bundle cannot be used ({error.strerror or 'no PEM'})", path) from error


class Headers(dict[str, str]):
    """By names in lower case; `written` are they as the server wrote them."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self.written = dict(pairs)
        super().__init__((name.lower(), value) for name, value in self.written.items())


class Answer:
    """Status and headers, and a body that is read once. Belongs to one thread."""

    def __init__(
        self,
        transport: DirectTransport,
        connection: http.client.HTTPConnection,
        link: socket.socket,
        raw: http.client.HTTPResponse,
    ):
        self.status_code = raw.status
        self.headers = Headers(raw.getheaders())
        self._transport = transport
        self._connection: http.client.HTTPConnection | None = connection
        self._raw = raw
        self._link = link

    def read_into(self, target: memoryview) -> int:
        """Fill the target; the count of bytes is smaller when the body ends or the connection breaks before."""
        done = 0
        try:
            while done < target.nbytes:
                count = self._raw.readinto(target[done:])
                if not count:
                    break
                done += count
        except (OSError, http.client.HTTPException) as error:
            self._drop()
            raise ServiceResponseError(type(error).__name__, error=error) from error
        return done

    def read(self, most: int) -> bytes:
        """The body; of one with more than `most` bytes some more than that, and no more is read."""
        pieces, size = [], 0
        try:
            while size <= most and (piece := self._raw.read(_DRAIN)):
                pieces.append(piece)
                size += len(piece)
            if size <= most and self._raw.length:  # http.client does not tell a short body that is read in pieces
                raise http.client.IncompleteRead(b"", self._raw.length)
        except (OSError, http.client.HTTPException) as error:
            self._drop()
            raise ServiceResponseError(type(error).__name__, error=error) from error
        return b"".join(pieces)

    def close(self) -> None:
        """Give the connection back if nothing of the body is left in it."""
        connection, self._connection = self._connection, None
        self._transport.deadlines.end(self._link)
        if connection is None:
            return
        try:
            if self._raw.length is None or self._raw.length <= _DRAIN:  # None: chunked
                self._raw.read(_DRAIN)
            whole = self._raw.isclosed() and not self._raw.will_close
        except (OSError, http.client.HTTPException):
            whole = False
        if whole:
            self._transport.give_back(connection)
        else:
            connection.close()

    def _drop(self) -> None:
        self._transport.deadlines.end(self._link)
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> Answer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._drop()


class DirectTransport(HttpTransport[HttpRequest, Answer]):
    """For one host, the one of `url`. Safe for many threads."""

    def __init__(self, url: str) -> None:
        split = urlsplit(url)
        self._secure = split.scheme == "https"
        self._host = split.hostname or ""
        self._port = split.port or (443 if self._secure else 80)
        self._context = _tls_context() if self._secure else None
        self._proxy = _proxy(split.scheme, split.netloc.rpartition("@")[2])
        self._lock = threading.Lock()
        self._idle: list[http.client.HTTPConnection] = []
        self._closed = False
        self.deadlines = Deadlines()

    def send(self, request: HttpRequest, **kwargs: Any) -> Answer:
        """`kwargs` are options of azure-core's that mean nothing here."""
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is not None:
            try:
                return self._exchange(connection, request)
            except (ConnectionError, http.client.BadStatusLine):
                pass  # closed by the server while it was idle: no answer has begun
            except (OSError, http.client.HTTPException) as error:
                raise ServiceResponseError(type(error).__name__, error=error) from error
        connection = self._connect()
        try:
            return self._exchange(connection, request)
        except (OSError, http.client.HTTPException) as error:
            raise ServiceResponseError(type(error).__name__, error=error) from error

    def _exchange(self, connection: http.client.HTTPConnection, request: HttpRequest) -> Answer:
        link = connection.sock  # http.client forgets it when the server wants to close
        self.deadlines.begin(link, _seconds(len(request.content or b"")))
        try:
            try:
                connection.request(request.method, self._target(request.url), request.content, self._headers(request))
            except ConnectionError:
                if not request.content:
                    raise
                # a server that refuses a request need not read its body: the answer may be there all the same
            raw = connection.getresponse()
            self.deadlines.begin(link, _seconds(_UNKNOWN if raw.length is None else raw.length))
            return Answer(self, connection, link, raw)
        except ValueError as error:  # its text may quote the header
            self.deadlines.end(link)
            connection.close()
            raise UsageError("a request that cannot be sent", type(error).__name__) from None
        except BaseException:
            self.deadlines.end(link)
            connection.close()
            raise

    def _target(self, url: str) -> str:
        if self._proxy is not None and not self._secure:
            return url  # a proxy for plain HTTP wants all of it
        split = urlsplit(url)
        return f"{split.path}?{split.query}" if split.query else split.path

    def _headers(self, request: HttpRequest) -> dict[str, str]:
        headers = dict(request.headers)
        if self._proxy is not None and not self._secure:
            headers |= self._proxy[2]
        return headers

    def _connect(self) -> http.client.HTTPConnection:
        host, port, proxy_headers = self._proxy or (self._host, self._port, {})
        connection: http.client.HTTPConnection
        if self._context is not None:
            connection = http.client.HTTPSConnection(host, port, timeout=CONNECT_SECONDS, context=self._context)
            if self._proxy is not None:
                connection.set_tunnel(self._host, self._port, proxy_headers)
        else:
            connection = http.client.HTTPConnection(host, port, timeout=CONNECT_SECONDS)
        try:
            connection.connect()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise ServiceRequestError(str(error), error=error) from error
        connection.sock.settimeout(READ_SECONDS)
        return connection

    def give_back(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(connection)
                return
        connection.close()

    def open(self) -> None:
        """Connections are made when they are needed."""

    def close(self) -> None:
        self.deadlines.close()
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def __enter__(self) -> DirectTransport:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _seconds(size: int) -> float:
    """How long an exchange of so many bytes may take."""
    return READ_SECONDS + size / _SLOWEST


def _proxy(scheme: str, netloc: str) -> tuple[str, int, dict[str, str]] | None:
    """Host, port and headers of the proxy that the environment names for this host."""
    proxies = getproxies()
    found = proxies.get(scheme) or proxies.get("all")
    if not found or proxy_bypass(netloc):
        return None
    split = urlsplit(found if "://" in found else f"http://{found}")
    if split.scheme != "http" or not split.hostname:
        raise UsageError(
            f"a proxy of the kind {split.scheme or 'unknown'}", split.hostname or "", "use an http:// proxy"
        )
    headers = {}
    if split.username is not None:
        user = f"{unquote(split.username)}:{unquote(split.password or '')}"
        headers["Proxy-Authorization"] = f"Basic {base64.b64encode(user.encode()).decode()}"
    return split.hostname, split.port or 80, headers
