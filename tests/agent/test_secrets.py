# SPDX-License-Identifier: Apache-2.0
"""A fleet's run in which every secret is a known text: none of them is anywhere but where it was given.

Azurite for queue, state and repository; a signed appliance, sealed passwords and SAS, a command that ends its worker. Looked
at: the log, events, job records, the poison queue, the workers' records, the support bundle, process titles, errors.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import tarfile
import uuid
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

import pytest

from agent.appliance import Appliance, QueueNames
from agent.protocol import (
    BackupPayload,
    CollectLogsPayload,
    Disk,
    RepositoryReference,
    Result,
    Secret,
    TestConnectionPayload,
    encode,
)
from agent.queue.azure import AzureQueueService
from agent.signing import Signer
from mover.clock import SYSTEM
from mover.repository.repository import Repository
from mover.store.azure_credentials import AccountKey
from mover.store.open import open_store
from tests.agent.waiting import wait_for
from tests.azurite import Azurite
from tests.mover.store.test_azure import make_container, sas

MIB = 1 << 20
PASSWORD = "known-Password-8842/with+signs"
WRONG = "wrong-Password-7731"


@pytest.mark.azurite
def test_no_secret_is_anywhere(tmp_path: Path, azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> None:
    names = QueueNames.of(f"q-{uuid.uuid4().hex[:20]}")
    key = AccountKey(azurite.account_name, azurite.account_key)
    container = make_container(azurite)
    repository_sas, state_url = sas(azurite, container, "rwl"), make_container(azurite)
    environ = {"DATA_MOVER_ACCOUNT_KEY": azurite.account_key}
    made = open_store(f"{container}/repository", environ)
    Repository.create(made, password=PASSWORD)
    made.close()
    signer = Signer.generate()
    signer.save(str(tmp_path / "signing.pem"))
    (tmp_path / "appliance.pem").write_text(signer.public_pem())
    config = tmp_path / "worker.toml"
    config.write_text(
        f"[queue]\nservice = {json.dumps(azurite.queue_url)}\nname = '{names.commands}'\npoll_longest = '1s'\ndeliveries = 1\n"
        f"visibility = 3\n[state]\nurl = {json.dumps(state_url)}\n"
        f"[trust]\nappliance_keys = ['{tmp_path}/appliance.pem']\nseal_key = '{tmp_path}/seal.key'\n[log]\nformat = 'json'\n"
    )
    log = (tmp_path / "worker.log").open("wb")

    def start() -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", "agent.daemon", "--config", str(config)]
        return subprocess.Popen(words, env=os.environ | environ | {"DATA_MOVER_WORKER": "w"}, stdout=log, stderr=log)

    worker = start()
    service, state = AzureQueueService(azurite.queue_url, key), open_store(state_url, environ)
    said: list[Any] = []
    try:
        appliance = Appliance(service, state, SYSTEM, names=names, signer=signer)
        (worker_record,) = wait_for(appliance.workers)  # its record tells the key to seal to
        image = tmp_path / "disk.img"
        image.write_bytes(os.urandom(2 * MIB))

        def reference(password: str, token: str) -> RepositoryReference:
            url = f"{container}/repository"
            return RepositoryReference(url=url, password=Secret(clear=password), sas=Secret(clear=token))

        def results(job: str) -> list[Result]:
            said.extend(appliance.events())
            return [event for event in said if isinstance(event, Result) and event.job == job]

        disks = (Disk(path=str(image)),)

        def back_up(job: str, password: str, token: str) -> BackupPayload:
            payload = BackupPayload(what="disk", repository=reference(password, token), resource="vm", disks=disks)
            appliance.issue("backup", payload, job=job)
            return payload

        back_up("good", PASSWORD, repository_sas)
        assert wait_for(lambda: results("good"))[0].status == "success"
        back_up("wrong-password", WRONG, repository_sas)
        assert wait_for(lambda: results("wrong-password"))[0].status == "failed"
        back_up("wrong-sas", PASSWORD, repository_sas.replace("sig=", "sig=A"))
        assert wait_for(lambda: results("wrong-sas"))[0].status == "failed"
        appliance._recipients, appliance._allow_clear = (), True  # not sealed: refused, and still not shown
        clear = TestConnectionPayload(repository=reference(PASSWORD, repository_sas))
        appliance.issue("test-connection", clear, job="clear")
        assert wait_for(lambda: results("clear"))[0].status == "failed"
        appliance._recipients, appliance._allow_clear = [worker_record.seal], False
        title = Path(f"/proc/{worker.pid}/cmdline").read_bytes()
        # killed in the middle of it twice: poisoned
        image.write_bytes(os.urandom(200 * MIB))
        back_up("poison", PASSWORD, repository_sas)
        for _ in range(2):
            wait_for(lambda: (record := appliance.job("poison")) and record.progress)
            worker.send_signal(signal.SIGKILL)
            worker.wait()
            for entry in state.list("jobs/"):
                state.break_lease(entry.name)  # as a minute would
            worker = start()
            if results("poison"):
                break
        assert wait_for(lambda: results("poison"))
        appliance.issue("collect-logs", CollectLogsPayload(), job="logs")
        bundle_name = wait_for(lambda: results("logs"))[0].details["object"]
        bundle = bytes(state.read_all(bundle_name))
        poison = service.queue(names.poison).peek(32)
        records = [bytes(state.read_record(e.name).data) for e in state.list("jobs/")]
        records += [bytes(state.read_record(e.name).data) for e in state.list("workers/")]
        # A command that is sealed waits in the queue: not even there is it in the clear.
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0
        back_up("waiting", PASSWORD, repository_sas)
        waiting = [message.body for message in service.queue(names.commands).peek(32)]
        assert waiting
    finally:
        worker.kill()
        worker.wait()
        log.close()
        service.close()
        state.close()
    with tarfile.open(fileobj=BytesIO(bundle), mode="r:gz") as archive:
        members = [archive.extractfile(member).read() for member in archive]  # type: ignore[union-attr]
    assert len(records) >= 6
    everything = {
        "log": (tmp_path / "worker.log").read_bytes(),
        "events": b"\n".join(map(encode, said)),
        "records": b"\n".join(records),
        "poison": b"\n".join(message.body for message in poison),
        "bundle": b"\n".join(members),
        "title": title,
        "queue": b"\n".join(waiting),
    }
    assert poison, "the command that ended its workers was not put away"
    signature = parse_qs(repository_sas)["sig"][0]
    forbidden = [PASSWORD, WRONG, signature, quote(signature, safe=""), azurite.account_key]
    forbidden += [base64.b64encode(text.encode()).decode().rstrip("=") for text in (PASSWORD, signature)]
    forbidden.append(base64.b64encode((tmp_path / "seal.key").read_bytes()).decode())
    for where, data in everything.items():
        assert len(data) > 10, where
        for secret in forbidden:
            assert secret.encode() not in data, f"a secret is in {where}"
