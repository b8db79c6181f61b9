# SPDX-License-Identifier: Apache-2.0
"""A terminal for the verbs, and a place with a disk and a repository to use them on."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent import cli
from agent.appliance import QueueNames
from agent.envelope import Trust
from agent.queue.azure import AzureQueueService
from agent.queue.base import QueueService
from agent.queue.sqlite import SqliteQueueService
from agent.signing import Signer
from mover.store.azure_credentials import AccountKey
from mover.store.base import Store
from mover.store.local import LocalStore
from mover.store.open import open_store
from tests.agent.rig import Rig
from tests.azurite import Azurite
from tests.mover.store.test_azure import make_container

MIB = 1 << 20
PASSWORD = "correct-horse-7Q"
"""Must occur in no output of any test; `Terminal` looks for it after every verb."""
VARIABLES = (
    *(
        "DATA_MOVER_REPOSITORY",
        "DATA_MOVER_QUEUE",
        "DATA_MOVER_PASSWORD",
        "DATA_MOVER_PASSWORD_FILE",
        "DATA_MOVER_DEBUG",
    ),
    *("DATA_MOVER_SAS", "DATA_MOVER_SAS_FILE", "DATA_MOVER_CONNECTION_STRING", "DATA_MOVER_ACCOUNT_KEY"),
)


@dataclass
class Said:
    """What a verb did: its exit code and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The JSON lines on stderr."""
        return [json.loads(line) for line in self.err.splitlines()]

    @property
    def error(self) -> tuple[str, str, str]:
        """(what, value, hint) of the three lines, or of the document."""
        if self.out.startswith("{"):
            error = self.document["error"]
            return error["what"], error["value"], error["hint"]
        lines = self.err.splitlines()
        what = next(line for line in lines if line.startswith("data-mover: ")).removeprefix("data-mover: ")
        value = next((line[9:] for line in lines if line.startswith("  value: ")), "")
        hint = next((line[9:] for line in lines if line.startswith("  hint:  ")), "")
        return what, value, hint


class Terminal:
    """Runs verbs in this process, as `data-mover` would."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: object, code: int | None = 0) -> Said:
        """The verb's exit code must be `code`; None: any."""
        self._capsys.readouterr()
        got = cli.main([str(word) for word in words])
        captured = self._capsys.readouterr()
        said = Said(got, captured.out, captured.err)
        assert PASSWORD not in captured.out + captured.err
        assert "Traceback" not in captured.err
        assert code in (None, got), f"{words}: {got}\n{captured.out}\n{captured.err}"
        return said


@dataclass
class Place:
    """A folder with a disk image and a password's file; `repo` makes the repository."""

    folder: Path
    dm: Terminal

    @property
    def url(self) -> str:
        return (self.folder / "repository").as_uri()

    @property
    def password_file(self) -> Path:
        return self.folder / "password"

    @property
    def image(self) -> Path:
        return self.folder / "disk.img"

    @property
    def queue(self) -> Path:
        return self.folder / "queue.db"

    def repo(self, *, encrypted: bool = False) -> None:
        """Most tests do without the password: stretching it takes a quarter of a second for each verb."""
        if encrypted:
            self.dm("repo", "create", self.url, "--password-file", self.password_file)
        else:
            from mover.repository.repository import Repository
            from mover.store.local import LocalStore

            Repository.create(LocalStore(self.folder / "repository"))

    def back_up(self, *words: object, resource: str = "vm1", code: int = 0) -> Said:
        return self.dm("backup", "--resource", resource, "--disk", self.image, *words, code=code)

    def point(self) -> str:
        """The id of the newest restore point."""
        found: str = self.dm("points", "--json").document["points"][-1]["point"]
        return found


@pytest.fixture
def dm(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Terminal:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return Terminal(capsys)


@pytest.fixture
def place(tmp_path: Path, dm: Terminal, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Named by the environment: DATA_MOVER_REPOSITORY and DATA_MOVER_PASSWORD_FILE. Nothing is in the folder but the disk."""
    made = Place(tmp_path, dm)
    made.password_file.write_text(PASSWORD + "\n")
    write_image(made.image, 5 * MIB + 1536)
    monkeypatch.setenv("DATA_MOVER_REPOSITORY", made.url)
    monkeypatch.setenv("DATA_MOVER_PASSWORD_FILE", str(made.password_file))
    return made


def write_image(path: Path, size: int, seed: int = 1) -> None:
    """Random bytes, with a hole of a MiB in the middle when there is room for one."""
    rng = random.Random(seed)
    with path.open("wb") as file:
        if size < 3 * MIB:
            file.write(rng.randbytes(size))
            return
        half = (size - MIB) // 2
        file.write(rng.randbytes(half))
        file.seek(half + MIB)
        file.write(rng.randbytes(size - MIB - half))


KINDS = ["sqlite", pytest.param("azurite", marks=pytest.mark.azurite)]


@pytest.fixture(params=KINDS)
def rig(request: pytest.FixtureRequest, place: Place) -> Iterator[Rig]:
    """A repository in a folder; queue and state on SQLite and a folder, or on Azurite."""
    place.repo()
    service: QueueService
    state: Store
    names = None
    if request.param == "sqlite":
        service, state = SqliteQueueService(place.queue), LocalStore(place.folder / "state")
    else:
        azurite: Azurite = request.getfixturevalue("azurite")
        names = QueueNames.of(f"q-{uuid.uuid4().hex[:20]}")
        key = AccountKey(azurite.account_name, azurite.account_key)
        service = AzureQueueService(azurite.queue_url, key)
        state = open_store(make_container(azurite), {"DATA_MOVER_ACCOUNT_KEY": azurite.account_key})
    made = Rig(service, state, names=names)
    yield made
    state.close()
    service.close()


@pytest.fixture
def strict(place: Place) -> Iterator[Rig]:
    """Workers that trust one appliance only, and take no secret in the clear."""
    place.repo(encrypted=True)
    signer = Signer.generate()
    service, state = SqliteQueueService(place.queue), LocalStore(place.folder / "state")
    yield Rig(service, state, signer=signer, trust=Trust.of(signer.public), allow_clear=False)
    state.close()
    service.close()
