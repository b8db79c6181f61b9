# SPDX-License-Identifier: Apache-2.0
"""Serves the application over TLS until its session ends. One process, one event loop, in the thread that calls `serve`.

uvicorn speaks HTTP; connections are accepted here, because it limits neither how many there are, altogether and of one address, nor
how long one may take to say what it wants.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from flr.recovery.life import Life
from flr.web.certificate import Certificate
from flr.web.guard import App
from mover.errors import TargetError

MOST_CONNECTIONS, MOST_OF_ADDRESS = 200, 64
HANDSHAKE_SECONDS = HEADER_SECONDS = 15.0
"""For the TLS handshake, and for the headers of a request."""
KEEP_SECONDS = 60
LARGEST_HEADERS = 64 << 10
GRACE_SECONDS = 5
logging.getLogger("uvicorn").propagate = False  # what it would say is of its own insides; endpoints tell their defects
logging.getLogger("uvicorn").addHandler(logging.NullHandler())


class _Connection(H11Protocol):
    """One that has to say in time what it wants."""

    timer: asyncio.TimerHandle | None = None
    ended: asyncio.Event

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.timer = self.loop.call_later(HEADER_SECONDS, transport.abort)

    def data_received(self, data: bytes) -> None:
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._understood()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.is_closing() and self.timer is None:
            self.timer = self.loop.call_later(KEEP_SECONDS + HEADER_SECONDS, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._understood()
        self.ended.set()
        super().connection_lost(exc)

    def _understood(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class _Uvicorn(uvicorn.Server):
    """With our own way of accepting, without signals of its own, and with the end of the session as its end."""

    def __init__(self, config: uvicorn.Config, listening: socket.socket, life: Life, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._listening = listening
        self._life = life
        self._ready = ready
        self._open: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self.lifespan.startup()
        self.servers = []
        self._start(self._accept())
        self.started = True
        self._ready()

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or self._life.ended.is_set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for task in list(self._tasks):
            task.cancel()
        self._listening.close()
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(self._listening)
            except OSError:  # this process has no more files: those that are open will end
                await asyncio.sleep(0.5)
                continue
            who = str(address[0])
            if sum(self._open.values()) >= MOST_CONNECTIONS or self._open.get(who, 0) >= MOST_OF_ADDRESS:
                connection.close()
                continue
            self._open[who] = self._open.get(who, 0) + 1
            self._start(self._speak(connection, who))

    async def _speak(self, connection: socket.socket, who: str) -> None:
        """From the handshake to the end of the connection."""
        ended = asyncio.Event()

        def protocol() -> asyncio.Protocol:
            made = _Connection(self.config, self.server_state, self.lifespan.state)
            made.ended = ended
            return made

        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().connect_accepted_socket(
                protocol, connection, ssl=self.config.ssl, ssl_handshake_timeout=HANDSHAKE_SECONDS
            )
            await ended.wait()
        except OSError:  # no TLS, or none in time
            connection.close()
        finally:
            self._open[who] -= 1
            if not self._open[who]:
                del self._open[who]


class Server:
    """`address` is what it listens on; port 0 takes a free one. TargetError when it cannot be had."""

    def __init__(self, app: App, certificate: Certificate, address: str, port: int) -> None:
        self._listening = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._listening.bind((address, port))
            self._listening.listen(128)
        except (OSError, OverflowError) as error:
            self._listening.close()
            what = getattr(error, "strerror", None) or str(error)
            hint = "another port can be named; those below 1024 need a right (CAP_NET_BIND_SERVICE)"
            raise TargetError("the browser's port cannot be had", f"{address}:{port}: {what}", hint) from None
        self._listening.setblocking(False)
        self.port: int = self._listening.getsockname()[1]
        self._config = uvicorn.Config(
            app,
            http=_Connection,
            ws="none",
            lifespan="off",
            loop="asyncio",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_SECONDS,
            timeout_graceful_shutdown=GRACE_SECONDS,
            h11_max_incomplete_event_size=LARGEST_HEADERS,
            ssl_context_factory=lambda config, default: certificate.context,
        )

    def serve(self, life: Life, ready: Callable[[], None] = lambda: None) -> None:
        """Until the session's life is over; transfers that are under way then have GRACE_SECONDS."""
        _Uvicorn(self._config, self._listening, life, ready).run()
