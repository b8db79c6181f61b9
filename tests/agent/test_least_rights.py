# SPDX-License-Identifier: Apache-2.0
"""Each verb with the SAS permissions that docs/operations.md names for it, and with one letter less: refused, and said why."""

from __future__ import annotations

import re
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from azure.storage.queue import AccountSasPermissions, ResourceTypes, Services, generate_account_sas

from agent.queue.azure import AzureQueueService
from mover.store.azure_credentials import AccountKey
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
        return ["restore", "--point", point, "--to", place.folder / "restored"]


@pytest.fixture
def account(azurite: Azurite, place: Place, monkeypatch: pytest.MonkeyPatch) -> Account:
    return Account(azurite, place, monkeypatch)


def test_the_page_names_the_rights_of_every_verb_that_touches_a_repository() -> None:
    found = documented()
    assert set(found) == {"repo create", "points", "backup", "restore"}
    assert not any("d" in letters for letters in found.values())


def test_every_verb_does_with_the_rights_that_the_page_names(account: Account) -> None:
    for verb in ("repo create", "backup", "points", "restore"):
        words = account.words(verb)
        account.grant(documented()[verb])
        account.place.dm(*words)
    assert (account.place.folder / "restored").read_bytes() == account.place.image.read_bytes()


@pytest.mark.parametrize("verb", ["repo create", "points", "backup", "restore"])
def test_with_one_right_less_a_verb_is_refused_and_says_what_to_look_at(account: Account, verb: str) -> None:
    if verb != "repo create":
        account.grant("rwl")
        account.place.dm("repo", "create")
        account.place.dm(*account.words("backup"))
    for letter in documented()[verb]:
        if (verb, letter) == ("restore", "w"):
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

    def words(self, who: str) -> list[object]:
        return {
            "submit, cancel": ["submit", self.place.folder / "command.json"],
            "watch, jobs": ["jobs"],
            "poison": ["poison", "list"],
        }[who]


@pytest.fixture
def fleet(azurite: Azurite, place: Place, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    place.repo()
    (place.folder / "command.json").write_text(place.back_up("--print-command", "--job", "j1").out)
    return Fleet(azurite, place, monkeypatch)


def run_worker(fleet: Fleet) -> tuple[int, str]:
    words = [sys.executable, "-m", "agent.daemon", "--once"]
    config = fleet.place.folder / "worker.toml"
    config.write_text(
        f"[queue]\nname = '{fleet.name}'\npoll_longest = 1\npatience = 2\n[state]\nurl = '{fleet._state}'\n"
    )
    done = subprocess.run([*words, "--config", str(config)], capture_output=True, text=True, timeout=100, check=False)
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


@pytest.mark.parametrize(("who", "letter"), [("submit, cancel", "a"), ("watch, jobs", "l"), ("poison", "r")])
def test_an_operator_with_one_right_less_is_refused(fleet: Fleet, who: str, letter: str) -> None:
    queues, state = of_queues()[who]
    if who == "watch, jobs":
        fleet.grant(queues, state.replace(letter, ""))
    else:
        fleet.grant(queues.replace(letter, "") or "l", state)
    said = fleet.place.dm(*fleet.words(who), code=3)
    assert "sig=" not in said.out + said.err
    assert said.error[2]


@pytest.mark.parametrize("letter", ["p", "a"])
def test_a_worker_with_one_right_less_says_so(fleet: Fleet, letter: str) -> None:
    rights = of_queues()
    fleet.grant(*rights["submit, cancel"])
    fleet.place.dm("submit", fleet.place.folder / "command.json")
    fleet.grant(rights["worker"][0].replace(letter, ""), rights["worker"][1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATA_MOVER_WORKER", "w")
        words = [sys.executable, "-m", "agent.daemon"]
        config = fleet.place.folder / "worker.toml"
        config.write_text(f"[queue]\nname = '{fleet.name}'\npoll_longest = 1\n[state]\nurl = '{fleet._state}'\n")
        with (fleet.place.folder / "log").open("wb") as log:
            worker = subprocess.Popen([*words, "--config", str(config)], stdout=log, stderr=log)
        try:
            log_file = fleet.place.folder / "log"
            wait_for(lambda: "refused access" in log_file.read_text() or worker.poll() is not None)
        finally:
            worker.kill()
            worker.wait()
    assert "refused access" in log_file.read_text()
    assert "sig=" not in log_file.read_text()
