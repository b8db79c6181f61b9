# SPDX-License-Identifier: Apache-2.0
"""Proof that the emulator which other tests stand on is there and does what they need of it."""

from __future__ import annotations

import os
import ssl
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobServiceClient
from azure.storage.queue import QueueServiceClient

import tests.azurite
from tests.azurite import Azurite, AzuriteNotInstalled, StaticCredential

pytestmark = pytest.mark.azurite


def round_trip(server: Azurite, credential: Any) -> None:
    options: dict[str, Any] = {"retry_total": 0}
    if server.ca_file:
        options["connection_verify"] = str(server.ca_file)
    name = uuid.uuid4().hex
    with BlobServiceClient(server.blob_url, credential, **options) as blobs:
        container = blobs.create_container(name)
        # The CRC64 comes from the extra [ext-checksums], and the server checks it.
        container.upload_blob("a", b"bytes", validate_content="crc64")
        assert container.download_blob("a").readall() == b"bytes"
    with QueueServiceClient(server.queue_url, credential, **options) as queues:
        queue = queues.create_queue(name)
        queue.send_message("text")
        message = queue.receive_message()
        assert message is not None
        assert message.content == "text"
        queue.delete_message(message)


def test_round_trip_with_the_account_key(azurite: Azurite) -> None:
    round_trip(azurite, azurite.account_key)


def test_round_trip_over_tls(azurite_tls: Azurite) -> None:
    round_trip(azurite_tls, azurite_tls.account_key)


def test_round_trip_over_tls_with_a_bearer_token(azurite_tls: Azurite) -> None:
    round_trip(azurite_tls, StaticCredential())


def test_connection_string(azurite: Azurite) -> None:
    with BlobServiceClient.from_connection_string(azurite.connection_string, retry_total=0) as blobs:
        assert blobs.get_account_information()


def test_a_token_for_another_service_is_refused(azurite_tls: Azurite) -> None:
    credential = StaticCredential(audience="https://example.org")
    options: dict[str, Any] = {"retry_total": 0, "connection_verify": str(azurite_tls.ca_file)}
    with (
        BlobServiceClient(azurite_tls.blob_url, credential, **options) as blobs,
        pytest.raises(HttpResponseError) as refused,
    ):
        blobs.create_container(uuid.uuid4().hex)
    assert refused.value.status_code == 403


def test_a_strict_client_trusts_the_authority_and_nobody_else_does(azurite_tls: Azurite) -> None:
    context = ssl.create_default_context(cafile=str(azurite_tls.ca_file))
    context.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on
    with pytest.raises(urllib.error.HTTPError) as answered:
        urllib.request.urlopen(azurite_tls.blob_url, context=context)
    answered.value.close()
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        urllib.request.urlopen(azurite_tls.blob_url, context=ssl.create_default_context(cafile=None))


def test_it_stops_and_leaves_no_process(tmp_path: Path) -> None:
    with Azurite(tmp_path) as server:
        process = server._process
        assert process is not None
        # Node itself, no wrapper at which the signal would stop.
        assert os.path.samefile(f"/proc/{process.pid}/exe", tests.azurite._NODE)
    assert process.returncode is not None


def test_a_missing_azurite_is_an_error_with_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tests.azurite, "_MAIN", tmp_path / "absent.js")
    with pytest.raises(AzuriteNotInstalled, match="hint: make setup"), Azurite(tmp_path):
        pass
