# SPDX-License-Identifier: Apache-2.0
"""`data-mover support-bundle`: what somebody at a worker's machine sends to who helps."""

from __future__ import annotations

import contextlib
import json
import stat
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.appliance import QueueNames
from agent.protocol import Failed, encode
from agent.queue.sqlite import SqliteQueueService
from tests.agent.conftest import Place

SECRET = "sv=1&sp=rw&sig=Zm9yIG5vYm9keQ%3D%3D"


def members(path: Path) -> dict[str, bytes]:
    found = {}
    with tarfile.open(path) as archive:
        for member in archive:
            file = archive.extractfile(member)
            assert file is not None
            found[member.name.removeprefix("support/")] = file.read()
    return found


def test_it_has_versions_configuration_unit_and_waiting_events_and_no_secret(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_MOVER_SAS", SECRET)
    config, out = place.folder / "agent.toml", place.folder / "bundle"
    config.write_text(f'[queue]\nservice = "{place.queue}"\nname = "queue"\n[worker]\nname = "w7"\n')
    event = Failed(time=datetime.now(UTC), worker="w7", step="start", what="x", lines=(f"asked with {SECRET}",))
    with contextlib.closing(SqliteQueueService(str(place.queue))) as service:
        queue = service.queue(QueueNames.of("queue").events)
        queue.ensure()
        queue.put(encode(event))
        said = place.dm("support-bundle", "--config", config, "--output", out)
        assert queue.length() == 1, "it is the appliance's to take"
    assert said.out == f"{out}\n"
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    found = members(out)
    assert json.loads(found["configuration.json"])["worker"]["name"] == "w7"
    assert json.loads(found["events.jsonl"])["what"] == "x"
    assert "unit" in json.loads(found["state.json"])
    assert {"versions.json", "machine.json"} < set(found)
    assert "Zm9yIG5vYm9keQ" not in repr(found)
    document = place.dm("support-bundle", "--config", config, "--output", f"{out}2", "--json").document
    assert (document["file"], set(document["members"])) == (f"{out}2", set(found))
    assert (
        place.dm("support-bundle", "--config", config, "--output", out, code=1).error[0]
        == "the support bundle cannot be written"
    )


@pytest.mark.parametrize("text", ["nonsense", '[queue]\nservice = "/no/such/queue.db"\n', "[queue]\n"])
def test_a_worker_that_is_out_of_order_has_a_bundle_all_the_same(place: Place, text: str) -> None:
    config, out = place.folder / "agent.toml", place.folder / "bundle"
    config.write_text(text)
    place.dm("support-bundle", "--config", config, "--output", out)
    found = members(out)
    assert json.loads(found["state.json"])["missing"]["what"]
    assert "versions.json" in found
