# SPDX-License-Identifier: Apache-2.0
"""A TLS server of one file as a page blob: HEAD, ranges, and a list of one page range. It checks nothing and is no bottleneck.

    benchmarks/tls_server.py CERTIFICATE KEY FILE       prints its port

Answers are encrypted in large pieces and sent as such, as a busy network delivers them: record by record a client would be
woken for every 16 KiB, and both sides of a comparison would cost more.
"""

from __future__ import annotations

import mmap
import re
import socket
import ssl
import sys
import threading
from collections.abc import Callable
from typing import Any

PIECE = 1 << 18
CRLF = "\r\n"


def serve(connection: socket.socket, context: ssl.SSLContext, body: memoryview) -> None:
    near, far = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(near, far, server_side=True)

    def until(call: Callable[[], Any]) -> Any:
        while True:
            try:
                return call()
            except ssl.SSLWantReadError:
                connection.sendall(far.read())
                if not (more := connection.recv(65536)):
                    raise SystemExit from None
                near.write(more)

    until(tls.do_handshake)
    request = b""
    while True:
        while b"\r\n\r\n" not in request:
            if not (more := until(lambda: tls.read(65536))):
                return
            request += more
        head, request = request.split(b"\r\n\r\n", 1)
        status, headers, answer = reply(head, body)
        lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        tls.write(CRLF.join(lines).encode())
        for at in range(0, len(answer), PIECE):
            part, sent = answer[at : at + PIECE], 0
            while sent < len(part):
                sent += tls.write(part[sent:])
            connection.sendall(far.read())
        connection.sendall(far.read())


def reply(head: bytes, body: memoryview) -> tuple[str, dict[str, object], memoryview]:
    headers: dict[str, object] = {
        "x-ms-version": "2021-12-02",
        "x-ms-blob-type": "PageBlob",
        "ETag": '"1"',
        "Last-Modified": "Sun, 06 Nov 1994 08:49:37 GMT",
        "Accept-Ranges": "bytes",
    }
    if head.startswith(b"HEAD"):
        return "200 OK", headers | {"Content-Length": len(body)}, memoryview(b"")
    if b"comp=pagelist" in head.split(b" ", 2)[1]:
        text = f"<PageList><PageRange><Start>0</Start><End>{len(body) - 1}</End></PageRange></PageList>".encode()
        headers |= {"x-ms-blob-content-length": len(body), "Content-Type": "application/xml"}
        return "200 OK", headers | {"Content-Length": len(text)}, memoryview(text)
    found = re.search(rb"(?i)range: bytes=(\d+)-(\d+)", head)
    first, last = map(int, found.groups()) if found else (0, len(body) - 1)
    last = min(last, len(body) - 1)
    headers |= {"Content-Range": f"bytes {first}-{last}/{len(body)}", "Content-Length": last + 1 - first}
    return "206 Partial Content", headers, body[first : last + 1]


def main() -> None:
    certificate, key, path = sys.argv[1:]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with open(path, "rb") as file:
        body = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0], context, body), daemon=True).start()


if __name__ == "__main__":
    main()
