# SPDX-License-Identifier: Apache-2.0
"""A recovery browser that serves in this process, over TLS on loopback, over images; and clients for it."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from flr.recovery.audit import Audit
from flr.recovery.desk import Desk
from flr.recovery.life import Life
from flr.recovery.points import DiskPoints, Points
from flr.restore.target import Target
from flr.web.access import Access
from flr.web.app import application
from flr.web.certificate import Certificate, make
from flr.web.server import Server
from mover.clock import SYSTEM, Clock
from mover.disk.source import FileSource

NAMES = ("localhost", "127.0.0.1")
ASKED = {"x-recovery": "1", "content-type": "application/json"}


@dataclass
class Serving:
    desk: Desk
    access: Access
    certificate: Certificate
    port: int
    thread: threading.Thread

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    @property
    def link(self) -> str:
        return f"{self.url}/#t={self.access.new_token()}"

    def client(self, **more: Any) -> httpx.Client:
        """Nobody who signed in. The certificate is checked by its thumbprint's owner, not by an authority."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return httpx.Client(base_url=self.url, verify=context, trust_env=False, timeout=60, **more)

    @contextmanager
    def signed(self) -> Iterator[httpx.Client]:
        with self.client() as client:
            answer = client.post("/api/sign-in", json={"token": self.access.new_token()}, headers=ASKED)
            assert answer.status_code == 200, answer.text
            client.headers.update(ASKED)
            yield client


def disks(images: Sequence[Path]) -> DiskPoints:
    return DiskPoints("guest", None, lambda: [FileSource(str(image)) for image in images])


@contextmanager
def serving(
    points: Points,
    *,
    clock: Clock = SYSTEM,
    log: Path | None = None,
    first: str = "",
    target: Target | None = None,
    **life: float,
) -> Iterator[Serving]:
    """Until the end of the block, or of the session; `life`: idle and limit in seconds."""
    lives = Life(clock, **life)
    audit = Audit(clock, log)
    with Desk(points, lives, audit, first=first, clock=clock, target=target) as desk:
        certificate = make(NAMES, datetime.fromtimestamp(clock.wall(), UTC))
        access = Access(clock)
        server = Server(application(desk, access, certificate), certificate, "127.0.0.1", 0)
        ready = threading.Event()
        thread = threading.Thread(target=server.serve, args=(lives, ready.set), name="serving")
        thread.start()
        assert ready.wait(30)
        try:
            yield Serving(desk, access, certificate, server.port, thread)
        finally:
            lives.end("the test is over")
            thread.join(30)
            audit.close()
            assert not thread.is_alive()
