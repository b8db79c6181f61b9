# SPDX-License-Identifier: Apache-2.0
"""An HTTP server that answers as it is told, byte for byte: what no emulator can be made to do wrong.

Answers are given in order, whatever is asked; the last one is repeated. Requests are remembered.
"""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass, field
from types import TracebackType

CLOSE = b""  # as an answer: none, the connection is closed


def answer(status: str, headers: dict[str, str] | None = None, body: bytes = b"", length: int | None = None) -> bytes:
    """`length`: what Content-Length says, if not the truth."""
    lines = [f"HTTP/1.1 {status}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def part(data: bytes, offset: int, length: int, **changed: str) -> bytes:
    """A right answer for a range of `data`, but for headers that are changed."""
    body = data[offset : offset + length]
    headers = {"Content-Range": f"bytes {offset}-{offset + len(body) - 1}/{len(data)}", "x-ms-version": "2021-12-02"}
    return answer(
        "206 Partial Content", headers | {name.replace("_", "-"): value for name, value in changed.items()}, body
    )


@dataclass
class Seen:
    line: str
    headers: dict[str, str] = field(repr=False)
    connection: int = 0


class ScriptedServer:
    """`cut`: close the connection after every answer (the n-th answer by its number, from 0)."""

    def __init__(self, *answers: bytes, close_after: tuple[int, ...] = ()) -> None:
        self.seen: list[Seen] = []
        self._answers = answers
        self._close_after = close_after
        self._lock = threading.Lock()
        self._connections: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/account/container"

    def __enter__(self) -> ScriptedServer:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        with self._lock:
            connections = [*self._connections]
        for connection in connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # closed already
        for thread in self._threads:
            thread.join()

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with self._lock:
                self._connections.append(connection)
                number = len(self._connections)
            self._start(self._serve, connection, number)

    def _serve(self, connection: socket.socket, number: int) -> None:
        with connection, connection.makefile("rb") as reader:
            try:
                while line := reader.readline():
                    headers = {}
                    while (header := reader.readline().strip()) != b"":
                        name, _, value = header.decode("latin-1").partition(":")
                        headers[name.lower()] = value.strip()
                    reader.read(int(headers.get("content-length", 0)))
                    with self._lock:
                        self.seen.append(Seen(line.decode().strip(), headers, number))
                        turn = len(self.seen) - 1
                    reply = self._answers[min(turn, len(self._answers) - 1)]
                    connection.sendall(reply)
                    if not reply or turn in self._close_after:
                        return
            except OSError:
                pass  # the client went away
