# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from agent import config as configuration
from agent.config import default_text, load, page, toml
from agent.errors import ConfigurationError
from agent.options import LEAST_MEMORY, OPTIONS
from mover.backup import LEAST_MEMORY as BACKUPS_LEAST

ENVIRON = {"DATA_MOVER_QUEUE": "/q"}


def loaded(tmp_path: Path, text: str, environ: dict[str, str] | None = None) -> configuration.Config:
    path = tmp_path / "worker.toml"
    path.write_text(text)
    return load(str(path), ENVIRON if environ is None else environ)


def test_the_default_text_explains_every_option_and_decodes_to_the_defaults(tmp_path: Path) -> None:
    text = default_text()
    for option in OPTIONS:
        assert f"\n#{option.name} = {toml(option.default)}\n" in text
        assert option.text.endswith(".")
        assert f"| `{option.name}`" in page()
    assert loaded(tmp_path, text) == load(None, ENVIRON)
    without = "\n".join(
        line.removeprefix("#") if line.startswith("#") and " = " in line else line for line in text.splitlines()
    )
    lines = [line for line in without.splitlines() if not line.startswith("# ")]
    assert tomllib.loads("\n".join(lines)).keys() == {"queue", "state", "trust", "worker", "log"}
    assert loaded(tmp_path, "\n".join(lines)) == load(None, ENVIRON)


BAD: list[tuple[str, str, str]] = [
    ("[queue]\nvisibility = 2", "queue.visibility is not as it must be", "3 to 604800 seconds"),
    ("[queue]\nvisibility = 'soon'", "queue.visibility", "30s, 5min"),
    ("[queue]\nvisibility = true", "queue.visibility", "30s"),
    ("[queue]\nname = 'Workers'", "queue.name", "lower-case"),
    ("[queue]\nname = '" + "a" * 60 + "'", "queue.name is too long", "55"),
    ("[queue]\ndeliveries = 0", "queue.deliveries", "1 to 1000"),
    ("[queue]\npoll_shortest = 9\npoll_longest = 3", "queue.poll_longest is too short", ""),
    ("[queue]\nservise = 'x'", "an option that is not known", "did you mean queue.service?"),
    ("[quue]\nname = 'x'", "an option that is not known", "did you mean queue"),
    ("queue = 3", "an option that is not known", ""),
    ("[state]\nrecords_kept = '7d'", "state.records_kept", "691200"),
    ("[trust]\nappliance_keys = 'x'", "trust.appliance_keys", "a list of texts"),
    ("[trust]\nclear_secrets = true", "trust.clear_secrets", "one of auto, yes, no"),
    ("[worker]\njobs = 17", "worker.jobs", "1 to 16"),
    ("[worker]\nmemory = '100MiB'", "worker.memory", "at least"),
    ("[worker]\njobs = 4\nmemory = '1GiB'", "worker.memory is too little for worker.jobs", "at least"),
    ("[worker]\nbandwidth = 'fast'", "worker.bandwidth", "a size"),
    ("[log]\nlevel = 'loud'", "log.level", "one of debug"),
    ("[queue]\nservice = 'https://acc.queue.core.windows.net'", "a queue in Azure needs state.url", "container"),
    (
        "[queue]\nservice = 'https://a.queue.core.windows.net/?sig=x'",
        "queue.service with a query",
        "DATA_MOVER_QUEUE_SAS",
    ),
    ("[queue", "the configuration is not TOML", ""),
]


@pytest.mark.parametrize(("text", "what", "hint"), BAD)
def test_what_is_wrong_is_told_by_its_name(tmp_path: Path, text: str, what: str, hint: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        loaded(tmp_path, text)
    assert what in error.value.what
    assert hint in error.value.hint
    assert error.value.hint


def test_a_file_that_is_not_there_and_a_queue_that_is_not_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load(str(tmp_path / "none"), ENVIRON)
    with pytest.raises(ConfigurationError, match="no queue was named"):
        load(None, {})


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90.0), ("'90s'", 90.0), ("'1.5 min'", 90.0), ("'2h'", 7200.0), ("'7d'", 604800.0)]
)
def test_times(tmp_path: Path, text: str, seconds: float) -> None:
    assert loaded(tmp_path, f"[queue]\nvisibility = {text}")["queue.visibility"] == seconds


def test_what_depends_on_where_the_queue_is(tmp_path: Path) -> None:
    local = load(None, ENVIRON)
    assert (local["queue.poll_longest"], local.allows_clear_secrets, local.is_azure) == (0.5, True, False)
    azure = loaded(
        tmp_path,
        "[queue]\nservice = 'https://acc.queue.core.windows.net'\n[state]\nurl = 'https://acc.blob.core.windows.net/c'",
    )
    assert (azure["queue.poll_longest"], azure.allows_clear_secrets, azure.is_azure) == (30.0, False, True)
    trusting = loaded(tmp_path, "[trust]\nappliance_keys = ['x']")
    assert not trusting.allows_clear_secrets
    assert loaded(tmp_path, "[trust]\nappliance_keys = ['x']\nclear_secrets = 'yes'").allows_clear_secrets


def test_a_reload_takes_what_may_change_and_names_the_rest(tmp_path: Path) -> None:
    old = loaded(tmp_path, "")
    new = loaded(tmp_path, "[queue]\nname = 'other'\ncontrol_poll = 2\n[worker]\ncheckpoint = 60")
    now, applied, restart = old.reloaded(new)
    assert (set(applied), restart) == ({"queue.control_poll", "worker.checkpoint"}, ["queue.name"])
    assert (now["queue.name"], now["worker.checkpoint"]) == ("workers", 60.0)


def test_command_line_and_environment(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("[queue]\nservice = '/from-file'\n[worker]\nname = 'w'")
    assert load(str(path), ENVIRON, {"queue.service": "/from-words"})["queue.service"] == "/from-words"
    assert load(str(path), ENVIRON)["queue.service"] == "/from-file"
    assert load(None, ENVIRON | {"DATA_MOVER_WORKER": "named"})["worker.name"] == "named"


def test_the_least_memory_is_a_backup_s() -> None:
    assert LEAST_MEMORY == BACKUPS_LEAST


def test_no_option_is_a_secret() -> None:
    shown: dict[str, Any] = load(None, ENVIRON).shown()
    assert {f"{s}.{n}" for s, options in shown.items() for n in options} == {option.key for option in OPTIONS}
