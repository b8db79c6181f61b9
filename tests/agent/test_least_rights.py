# SPDX-License-Identifier: Apache-2.0
"""Each verb with the SAS permissions that docs/operations.md names for it, and with one letter less: refused, and said why."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.agent.conftest import Place
from tests.azurite import Azurite
from tests.mover.store.test_azure import make_container, sas

pytestmark = pytest.mark.azurite

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


def documented() -> dict[str, str]:
    """Verb -> letters, from the table of docs/operations.md."""
    rows = re.findall(r"^\| `([a-z ]+)` \| `([a-z]+)` \|", OPERATIONS.read_text(), re.MULTILINE)
    return dict(rows)


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
