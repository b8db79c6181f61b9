# SPDX-License-Identifier: Apache-2.0
"""What Azure announces to its VM: Scheduled Events of the instance metadata service, the ones that end or move it.

Preempt and Terminate end the VM, Reboot and Redeploy restart it: a worker hands its commands back within the notice, 30 s for
Preempt, and takes none until the announcement is over. Freeze pauses it for some seconds: a job that lost its lease meanwhile finds
out by itself. Where nothing answers (no VM of Azure's) nothing is announced. Source: Microsoft's "Scheduled Events for Linux VMs".
"""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from mover.clock import Clock

ADDRESS = "http://169.254.169.254"
VERSION = "2020-07-01"
ENDING = frozenset({"Preempt", "Terminate", "Reboot", "Redeploy"})
MOST_BYTES = 1 << 20
SECONDS = 5.0
"""Between two looks. The first answer of a VM's life may take two minutes, as Azure says."""
FIRST_SECONDS = 120.0
CONNECT_SECONDS = 2.0
"""The service is in the VM's own host."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """`kind`: Freeze, Reboot, Redeploy, Preempt or Terminate. `not_before`: in Azure's words; empty when it has begun. `alone`:
    no other VM is meant."""

    id: str
    kind: str
    not_before: str
    alone: bool = False

    @property
    def ends(self) -> bool:
        return self.kind in ENDING


class MetadataService:
    """Of this VM. Never through a proxy."""

    def __init__(self, address: str = ADDRESS) -> None:
        split = urlsplit(address)
        self._host, self._port = split.hostname or "", split.port or 80
        self._name = ""

    def announcements(self, seconds: float) -> list[Announcement]:
        """Of this VM. OSError: it does not answer; ValueError: what answers is no metadata service."""
        document = self._ask("GET", f"/metadata/scheduledevents?api-version={VERSION}", seconds)
        if not isinstance(document, dict) or not isinstance(document.get("Events"), list):
            raise ValueError("no scheduled events")
        found = [event for event in document["Events"] if isinstance(event, dict)]
        name = self._own_name(seconds) if found else ""
        announced = []
        for event in found:
            resources = event.get("Resources")
            named = {str(one).lower() for one in resources} if isinstance(resources, list) else set()
            if not name or not named or name in named:
                number, kind, moment = (str(event.get(key, "")) for key in ("EventId", "EventType", "NotBefore"))
                announced.append(Announcement(number, kind, moment, bool(name) and named == {name}))
        return announced

    def _own_name(self, seconds: float) -> str:
        """This VM's as events name it: of a scale set's instance "set_7". Empty when it is not told: then all events count."""
        if not self._name:
            try:
                compute = self._ask("GET", "/metadata/instance/compute?api-version=2021-02-01", seconds)
            except (OSError, ValueError):
                return ""
            self._name = str(compute.get("name", "")).lower() if isinstance(compute, dict) else ""
        return self._name

    def acknowledge(self, announcement: Announcement, seconds: float) -> None:
        """It may happen now. To all VMs that it names, so it is for one that names this VM alone."""
        body = json.dumps({"StartRequests": [{"EventId": announcement.id}]}).encode()
        self._ask("POST", f"/metadata/scheduledevents?api-version={VERSION}", seconds, body)

    def _ask(self, method: str, path: str, seconds: float, body: bytes | None = None) -> Any:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=CONNECT_SECONDS)
        try:
            connection.connect()
            connection.sock.settimeout(seconds)
            connection.request(method, path, body, {"Metadata": "true"})
            answer = connection.getresponse()
            data = answer.read(MOST_BYTES)
            if answer.status != 200:
                raise ValueError(f"status {answer.status}")
            return json.loads(data) if data else None
        except (http.client.HTTPException, RecursionError) as error:
            raise ValueError(type(error).__name__) from None
        finally:
            connection.close()


class Watch:
    """Looks while it is in use, in a thread of its own; `heard` is called with what is new. A context manager."""

    def __init__(self, service: MetadataService, clock: Clock, heard: Callable[[Announcement], None]) -> None:
        self._service = service
        self._clock = clock
        self._heard = heard
        self._end = threading.Event()
        self._known: set[str] = set()
        self._answered = False
        self._thread = threading.Thread(target=self._run, name="announcements", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Its last question may still wait for its answer: the thread ends by itself."""
        self._end.set()

    def _run(self) -> None:
        while True:
            self.look()
            if self._clock.wait(self._end, SECONDS):
                return

    def look(self) -> list[Announcement]:
        """What is announced now; nothing when nobody says."""
        try:
            found = self._service.announcements(SECONDS if self._answered else FIRST_SECONDS)
        except (OSError, ValueError):
            return []
        self._answered = True
        for one in found:
            if one.id not in self._known and not self._end.is_set():
                self._known.add(one.id)
                self._heard(one)
        self._known &= {one.id for one in found}
        return found
