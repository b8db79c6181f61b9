# SPDX-License-Identifier: Apache-2.0
"""What a machine that boots needs around it: the package on a server, Azurite, an appliance."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from azure.storage.blob import AccountSasPermissions, BlobServiceClient, ResourceTypes, Services, generate_account_sas

from agent.appliance import Appliance, QueueNames
from agent.cloud_init import Rendering, render
from agent.protocol import Event
from agent.queue.azure import AzureQueueService
from mover.clock import SYSTEM
from mover.store.azure_credentials import Sas
from mover.store.open import open_store
from tests.azurite import Azurite
from tests.boot.machine import HERE, Machine


class Packages:
    """The committed tree's package for each suite: built here if this is one, else in a bare tree of it; each once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._built: dict[str, Path] = {}

    def of(self, suite: str) -> Path:
        if suite not in self._built:
            here = platform.freedesktop_os_release().get("VERSION_CODENAME") == suite
            words = ["packaging/deb/build.sh", self._folder] if here else ["packaging/prove-fresh.sh", suite, "deb"]
            said = subprocess.run(words, cwd=HERE, check=True, stdout=subprocess.PIPE, text=True).stdout
            name = re.findall(r"data-mover_\S+\.deb", said)[-1]
            self._built[suite] = (self._folder if here else HERE / "dist") / name
        return self._built[suite]


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    if os.getuid() != 0:
        pytest.skip("it boots a machine, which takes root")
    return Packages(tmp_path_factory.mktemp("package"))


@pytest.fixture
def suite() -> str:
    """Of the machine; a test's parameter may be another."""
    return "bookworm"


@pytest.fixture
def package(packages: Packages, suite: str) -> Path:
    return packages.of(suite)


class PackageServer:
    """Serves the package to who has the SAS. `refuse`: answer that status instead; `hold`: do not answer while it is set."""

    def __init__(self, package: Path) -> None:
        self.body = package.read_bytes()
        self.sha256 = hashlib.sha256(self.body).hexdigest()
        self.refuse = 0
        self.hold = False
        self.asked = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                outer.asked += 1
                while outer.hold:
                    time.sleep(0.05)
                status = outer.refuse or (200 if "sig=secret-of-the-package" in self.path else 403)
                body = outer.body if status == 200 else b""
                with contextlib.suppress(ConnectionError):  # who asked may be gone
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/data-mover.deb?sig=secret-of-the-package"

    def __enter__(self) -> PackageServer:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class Region:
    """A queue, a state container and a repository's container in Azurite; an appliance that uses them; rendered user-data."""

    def __init__(self, azurite: Azurite, server: PackageServer) -> None:
        self.azurite, self.server = azurite, server
        expiry = datetime.now(UTC) + timedelta(hours=2)
        self.sas: str = generate_account_sas(
            azurite.account_name,
            azurite.account_key,
            ResourceTypes(service=True, container=True, object=True),
            AccountSasPermissions(
                read=True, write=True, delete=True, list=True, add=True, create=True, update=True, process=True
            ),
            expiry,
            services=Services(blob=True, queue=True),
        )
        self.container = uuid.uuid4().hex
        with BlobServiceClient(azurite.blob_url, azurite.account_key, retry_total=0) as service:
            service.create_container(self.container)
        self.state_url = f"{azurite.blob_url}/{self.container}/state"
        self.queue = AzureQueueService(azurite.queue_url, Sas(self.sas))
        self.state = open_store(self.state_url, {"DATA_MOVER_SAS": self.sas})
        self.names = QueueNames.of(f"w{self.container[:12]}")
        self.appliance = Appliance(self.queue, self.state, SYSTEM, names=self.names)
        self.events: list[Event] = []

    @property
    def configuration(self) -> str:
        return (
            f'[queue]\nservice = "{self.azurite.queue_url}"\nname = "{self.names.commands}"\npoll_longest = 1\n'
            f'[state]\nurl = "{self.state_url}"\n'
            '[trust]\nseal_key = "/var/lib/data-mover/seal.pem"\n[worker]\ncheckpoint = 1\n'
        )

    def user_data(self, **changed: object) -> str:
        wanted = {
            "package_url": self.server.url,
            "package_sha256": self.server.sha256,
            "configuration": self.configuration,
            "secrets": {"DATA_MOVER_QUEUE_SAS": self.sas, "DATA_MOVER_SAS": self.sas},
            "time_limit": 120,
        }
        return render(Rendering(**(wanted | changed)))  # type: ignore[arg-type]

    def wait_for(self, wanted: Callable[[Event], bool], machine: Machine, seconds: float = 120) -> Event:
        """The first event that is wanted; those before it are kept in `events`."""
        self.queue.queue(self.names.events).ensure()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for event in self.appliance.events():
                self.events.append(event)
                if wanted(event):
                    return event
            time.sleep(0.1)
        raise AssertionError(f"it did not come: {self.events[-5:]}\n{machine.console[-3000:]}\n{machine.journal()}")

    def wait_until_reading(self, job: str, machine: Machine, seconds: float = 60) -> None:
        """Until a backup's record says that it is read; how much may not be told again before packs are uploaded."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            record = self.appliance.records.read(job)
            if record is not None and record.progress is not None and record.progress.stage.startswith("back up"):
                assert record.state == "running", "it ended too soon to be stopped in the middle"
                return
            time.sleep(0.1)
        raise AssertionError(f"{job} is not being read: {machine.journal()}")

    def close(self) -> None:
        self.state.close()
        self.queue.close()


@pytest.fixture
def region(azurite: Azurite, package: Path) -> Iterator[Region]:
    with PackageServer(package) as server:
        made = Region(azurite, server)
        yield made
        made.close()


Boot = Callable[..., Machine]


@pytest.fixture
def boot(suite: str) -> Iterator[Boot]:
    """Machines that are removed afterwards, and leave nothing mounted."""
    made: list[Path] = []

    def start(user_data: str, *options: str) -> Machine:
        root = Path(f"/var/tmp/data-mover-boot/machine-{os.getpid()}-{len(made)}")
        made.append(root)
        return Machine(root, suite, user_data, *options)

    yield start
    for root in made:
        subprocess.run(["rm", "-rf", "--one-file-system", root], check=True)
