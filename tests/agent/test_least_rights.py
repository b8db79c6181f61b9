# SPDX-License-Identifier: Apache-2.0
"""Each verb with the SAS permissions that docs/operations.md names for it, and with one letter less: refused, and said why."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from azure.storage.queue import AccountSasPermissions, ResourceTypes, Services, generate_account_sas

from agent.appliance import Appliance, QueueNames
from agent.jobs import JobStore
from agent.protocol import ErrorBody, PoisonEntry
from agent.queue.azure import AzureQueueService
from agent.records import WorkerRecord
from agent.seal import SealKey, seal
from mover.clock import SYSTEM
from mover.errors import AccessDenied
from mover.store.azure_credentials import AccountKey
from mover.store.open import open_store
from tests.agent.conftest import Place
from tests.agent.waiting import wait_for
from tests.azurite import Azurite
from tests.mover.store.test_azure import make_container, sas

pytestmark = pytest.mark.azurite

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


def documented() -> dict[str, str]:
    """Verb -> letters, from the first table of docs/operations.md."""
    text = OPERATIONS.read_text().partition("## Permissions of a queue")[0]
    return dict(re.findall(r"^\| `([a-z ]+)` \| `([a-z]+)` \|", text, re.MULTILINE))


def of_queues() -> dict[str, tuple[str, str]]:
    """Who -> letters on the queues and on the state store."""
    text = OPERATIONS.read_text().partition("## Permissions of a queue")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+) \| `([a-z]+)` \| `([a-z]+)` \|", text, re.MULTILINE)
    return {who.replace("`", ""): (queues, state) for who, queues, state in rows}


class Account:
    """A container on Azurite, named by the environment, with the rights that a test gives."""

    def __init__(self, azurite: Azurite, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        self._azurite = azurite
        self._monkeypatch = monkeypatch
        self._container = make_container(azurite)
        self.place = place
        monkeypatch.setenv("DATA_MOVER_REPOSITORY", f"{self._container}/backups")

    def grant(self, letters: str) -> None:
        self._monkeypatch.setenv("DATA_MOVER_SAS", sas(self._azurite, self._container, letters))

    def words(self, verb: str) -> list[object]:
        place = self.place
        if verb == "repo create":
            return ["repo", "create"]
        if verb == "points":
            return ["points"]
        if verb == "backup":
            return ["backup", "--resource", "vm1", "--disk", place.image]
        self.grant("rl")
        point = place.dm("points", "--json").document["points"][-1]["point"]
        if verb == "files":
            return ["files", "volumes", "--point", point]
        return ["restore", "--point", point, "--to", place.folder / "restored"]


@pytest.fixture
def account(azurite: Azurite, place: Place, monkeypatch: pytest.MonkeyPatch) -> Account:
    return Account(azurite, place, monkeypatch)


def test_the_page_names_the_rights_of_every_verb_that_touches_a_repository() -> None:
    found = documented()
    assert set(found) == {"repo create", "points", "backup", "restore", "files", "flr"}
    assert not any("d" in letters for letters in found.values())


def test_every_verb_does_with_the_rights_that_the_page_names(account: Account) -> None:
    for verb in ("repo create", "backup", "points", "restore", "files"):
        words = account.words(verb)
        account.grant(documented()[verb])
        account.place.dm(*words)
    assert (account.place.folder / "restored").read_bytes() == account.place.image.read_bytes()


@pytest.mark.parametrize("verb", ["repo create", "points", "backup", "restore", "files"])
def test_with_one_right_less_a_verb_is_refused_and_says_what_to_look_at(account: Account, verb: str) -> None:
    if verb != "repo create":
        account.grant("rwl")
        account.place.dm("repo", "create")
        account.place.dm(*account.words("backup"))
    for letter in documented()[verb]:
        if (verb, letter) in (("restore", "w"), ("files", "w")):
            continue  # the next test's
        words = account.words(verb)
        account.grant(documented()[verb].replace(letter, "") or "t")
        said = account.place.dm(*words, code=3)
        assert said.error[0]
        assert "docs/operations.md" in said.error[2]
        assert "sig=" not in said.out + said.err


def test_a_restore_without_the_right_to_write_reads_unheld_and_says_so(account: Account) -> None:
    account.grant("rwl")
    account.place.dm("repo", "create")
    account.place.dm(*account.words("backup"))
    words = account.words("restore")
    account.grant("rl")
    said = account.place.dm(*words)
    assert "warning: " in said.err
    assert "not held" in said.err
    assert (account.place.folder / "restored").read_bytes() == account.place.image.read_bytes()
    words = account.words("files")
    account.grant("rl")
    assert "not held" in account.place.dm(*words).err


def test_a_sas_in_the_url_of_the_environment_serves_too_and_reaches_no_command(
    account: Account, azurite: Azurite, monkeypatch: pytest.MonkeyPatch
) -> None:
    account.grant("rwl")
    account.place.dm("repo", "create")
    url = f"{account._container}/backups"
    monkeypatch.delenv("DATA_MOVER_SAS")
    monkeypatch.setenv("DATA_MOVER_REPOSITORY", f"{url}?{sas(azurite, account._container, 'rwl')}")
    words = account.words("backup")
    assert account.place.dm(*words, "--json").document["status"] == "success"
    printed = account.place.dm(*words, "--print-command")
    assert printed.document["payload"]["repository"]["url"] == url
    assert "sig=" not in printed.out + printed.err


# -- queues ---------------------------------------------------------------------------------------------------------


LARGE = base64.b64encode(bytes(150_000)).decode()


class Fleet:
    """A queue and a state store on Azurite, and verbs with the rights that a test gives."""

    def __init__(self, azurite: Azurite, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        self._azurite, self.place, self._monkeypatch = azurite, place, monkeypatch
        self.name = f"q-{uuid.uuid4().hex[:20]}"
        self._state = make_container(azurite)
        monkeypatch.setenv("DATA_MOVER_QUEUE", azurite.queue_url)
        monkeypatch.setenv("DATA_MOVER_QUEUE_NAME", self.name)
        monkeypatch.setenv("DATA_MOVER_STATE", self._state)
        service = AzureQueueService(azurite.queue_url, AccountKey(azurite.account_name, azurite.account_key))
        for suffix in ("", "-control", "-poison", "-events"):
            service.queue(self.name + suffix).ensure()
        service.close()

    def grant(self, queues: str, state: str) -> None:
        token = generate_account_sas(
            self._azurite.account_name,
            self._azurite.account_key,
            ResourceTypes(object=True, container=True),
            AccountSasPermissions.from_string(queues),
            datetime.now(UTC) + timedelta(hours=1),
            services=Services(queue=True),
        )
        self._monkeypatch.setenv("DATA_MOVER_QUEUE_SAS", token)
        self._monkeypatch.setenv("DATA_MOVER_SAS", sas(self._azurite, self._state, state))

    def grant_but(self, who: str, where: str, letter: str) -> None:
        """The row's rights, one letter left out. A SAS needs some right: one that no verb uses stands in for none at all."""
        queues, state = of_queues()[who]
        if where == "queues":
            queues = queues.replace(letter, "") or "c"
        else:
            state = state.replace(letter, "") or "c"
        self.grant(queues, state)

    def worker(self, *settings: str) -> list[str]:
        """The words that start a worker; `settings` are lines of its section [queue]."""
        config = self.place.folder / "worker.toml"
        lines = "\n".join((f"name = '{self.name}'", "poll_longest = 1", *settings))
        config.write_text(f"[queue]\n{lines}\n[state]\nurl = '{self._state}'\n")
        return [sys.executable, "-m", "agent.daemon", "--config", str(config)]

    def prepare(self, who: str) -> None:
        """What the row's verbs work on is there, put with all rights."""
        service = AzureQueueService(
            self._azurite.queue_url, AccountKey(self._azurite.account_name, self._azurite.account_key)
        )
        state = open_store(self._state, {"DATA_MOVER_ACCOUNT_KEY": self._azurite.account_key})
        appliance = Appliance(service, state, SYSTEM, names=QueueNames.of(self.name))
        body = (self.place.folder / "command.json").read_bytes()
        if who == "poison":
            error = ErrorBody(what="x", exit_code=6)
            entry = PoisonEntry(
                time=datetime.now(UTC), error=error, job="j", command="c", kind="backup", body=msgspec.Raw(body)
            )
            data = msgspec.json.encode(entry)
            _, self.poison = (service.queue(self.name + "-poison").put(data) for _ in range(2))
        else:
            appliance.submit(body)
        if who == "worker":  # one that goes back, for its secret is for another; one with a claim; a cancel
            secret = seal("secret", [SealKey.generate().public], "sealed")
            command = json.loads(body) | {"job": "sealed", "id": "sealed"}
            command["payload"]["repository"]["password"] = json.loads(msgspec.json.encode(secret))
            appliance.submit(json.dumps(command).encode())
            appliance.submit(self.large(body))
            appliance.cancel("nothing")
        now = datetime.now(UTC)
        there = WorkerRecord(
            version=1, worker="w", state="idle", since=now, updated=now, seal=bytes(32), queue=self.name, release="0"
        )
        JobStore(state, SYSTEM).publish(there)
        state.close()
        service.close()
        if who == "watch, jobs":  # `watch` ends only with a job that has
            self.grant(*of_queues()["worker"])
            assert run_worker(self)[0] == 0

    @staticmethod
    def large(body: bytes) -> bytes:
        """The command with a document: it travels as a claim."""
        command = json.loads(body) | {"job": "large", "id": "large"}
        command["payload"]["document"] = LARGE
        return json.dumps(command).encode()

    def verbs(self, who: str) -> list[list[object]]:
        folder = self.place.folder
        if who == "submit, cancel":
            (folder / "large.json").write_bytes(self.large((folder / "command.json").read_bytes()))
            return [["submit", folder / "command.json"], ["submit", folder / "large.json"], ["cancel", "j1"]]
        if who == "watch, jobs":
            return [["jobs"], ["watch", "j1"], ["watch", "nobody"]]
        return [["poison", "list"], ["poison", "send", self.poison]]


@pytest.fixture
def fleet(azurite: Azurite, place: Place, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    place.repo()
    (place.folder / "command.json").write_text(place.back_up("--print-command", "--job", "j1").out)
    return Fleet(azurite, place, monkeypatch)


def run_worker(fleet: Fleet) -> tuple[int, str]:
    words = [*fleet.worker("patience = 2"), "--once"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100, check=False)
    return done.returncode, done.stderr


def test_a_worker_and_its_operators_do_with_the_rights_that_the_page_names(fleet: Fleet) -> None:
    rights = of_queues()
    assert set(rights) == {"worker", "submit, cancel", "watch, jobs", "poison"}
    fleet.grant(*rights["submit, cancel"])
    fleet.place.dm("submit", fleet.place.folder / "command.json")
    fleet.grant(*rights["worker"])
    code, said = run_worker(fleet)
    assert code == 0, said
    fleet.grant(*rights["watch, jobs"])
    assert fleet.place.dm("watch", "j1").out.startswith("job j1: success")
    assert "j1" in fleet.place.dm("jobs").out
    fleet.grant(*rights["poison"])
    fleet.place.dm("poison", "list")


def one_less(who: str) -> list[object]:
    """Every documented letter of that row, each to be left out once."""
    return [
        pytest.param(who, place, letter, id=f"{who}: {place} without {letter}")
        for place, letters in zip(("queues", "state"), of_queues()[who], strict=True)
        for letter in letters
    ]


OPERATORS = [case for who in ("submit, cancel", "watch, jobs", "poison") for case in one_less(who)]


@pytest.mark.parametrize(("who", "where", "letter"), OPERATORS)
def test_an_operator_with_one_right_less_is_refused(fleet: Fleet, who: str, where: str, letter: str) -> None:
    """At least one of the row's verbs needs the letter, and the one that does says so and shows no SAS."""
    fleet.prepare(who)
    fleet.grant_but(who, where, letter)
    said = [fleet.place.dm(*words, code=None) for words in fleet.verbs(who)]
    assert all(one.code in (0, 3, 4) for one in said), said
    refused = [one for one in said if one.code == 3]
    assert refused, "the letter is not needed: the page names too much"
    for one in refused:
        assert "sig=" not in one.out + one.err
        assert one.error[2]


@pytest.mark.parametrize(("who", "where", "letter"), one_less("worker"))
def test_a_worker_with_one_right_less_says_so(fleet: Fleet, who: str, where: str, letter: str) -> None:
    fleet.prepare(who)
    fleet.grant_but(who, where, letter)
    if (where, letter) == ("state", "l"):  # what lists is the removal of old records, ten minutes after the start
        store = open_store(fleet._state, dict(os.environ))
        with pytest.raises(AccessDenied):
            JobStore(store, SYSTEM).tidy(datetime.now(UTC), datetime.now(UTC))
        store.close()
        return
    log = fleet.place.folder / "log"
    with log.open("wb") as out:
        worker = subprocess.Popen(fleet.worker(), stdout=out, stderr=out)
    try:
        wait_for(lambda: "refused access" in log.read_text() or worker.poll() is not None)
    finally:
        worker.kill()
        worker.wait()
    assert "refused access" in log.read_text()
    assert "sig=" not in log.read_text()
