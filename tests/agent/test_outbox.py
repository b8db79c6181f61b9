# SPDX-License-Identifier: Apache-2.0
"""Every event fits into a message, whatever is in it, and stays an event that names its command."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import CommandRefused
from agent.outbox import Outbox, fitting
from agent.protocol import ErrorBody, FlrReady, LogItem, Result, decode_command, decode_event, encode
from agent.queue.base import MAX_BODY
from agent.queue.sqlite import SqliteQueueService
from mover.clock import SYSTEM
from tests.agent.conftest import Place
from tests.agent.rig import Logs, changed, command

NOW = datetime(2026, 1, 2, tzinfo=UTC)
TEXT = st.integers(0, 60_000).map(lambda n: '"é' * n)  # two bytes each in JSON, and more


@settings(max_examples=60, deadline=None)
@given(
    TEXT,
    TEXT,
    st.lists(TEXT, max_size=4),
    st.dictionaries(st.text(max_size=9), TEXT, max_size=30),
    st.integers(0, 90_000),
)
def test_a_result_always_fits(value: str, resource: str, notes: list[str], details: dict[str, str], size: int) -> None:
    error = ErrorBody(what="what", value=value, exit_code=3)
    result = Result(
        command="c" * 128, job="j" * 128, time=NOW, kind="backup", status="failed", resource=resource, error=error,
        notes=tuple(notes), details=details, document=bytes(size), api_calls={str(n): {} for n in range(size // 10)},
    )  # fmt: skip
    data = fitting(result)
    assert len(data) <= MAX_BODY
    found = decode_event(data)
    assert isinstance(found, Result)
    assert (found.command, found.job, found.status) == (result.command, result.job, "failed")
    assert found.error is not None
    assert found.error.exit_code == 3
    if len(encode(result)) <= MAX_BODY:
        assert found == result


@settings(max_examples=20, deadline=None)
@given(TEXT)
def test_a_log_item_always_fits(text: str) -> None:
    item = LogItem(command="c", job="j", time=NOW, status="error", message=text, resource=text, start=NOW)
    assert len(fitting(item)) <= MAX_BODY


@pytest.mark.parametrize("url", ["https://a.blob.core.windows.net/c?sig=abcdef", "file:///x#y"])
def test_a_repository_s_url_with_a_query_is_no_command(place: Place, url: str) -> None:
    """It would be shown and kept; and the refusal does not show it either."""
    place.repo()
    body = decode_command(command(place))
    payload = changed(encode(body).decode())
    with pytest.raises(CommandRefused) as refused:
        decode_command(payload.replace(place.url.encode(), url.encode()))
    assert "sig" not in str(refused.value)


def test_what_is_remembered_of_events_lets_nobody_in(place: Place) -> None:
    """It goes into support bundles; a recovery browser's link and the script of its restore tool are for the appliance alone."""
    place.repo()
    service = SqliteQueueService(place.queue)
    outbox = Outbox(service.queue, "events", 60, SYSTEM, Logs())  # type: ignore[arg-type]
    service.queue("events").ensure()
    ready = FlrReady(
        command="c", job="j", time=NOW, link="https://worker/#t=secret-token", sha256="A", sha1="B", expires=NOW,
        until=NOW, restore_tool=b"key secret-key sig=secret",
    )  # fmt: skip
    outbox.send(ready)
    message = service.queue("events").take(30)
    assert message is not None
    assert decode_event(message.body) == ready
    kept = "".join(outbox.recent)
    assert "flr-ready" in kept
    assert "secret-token" not in kept
    assert base64.b64encode(b"secret-key").decode()[:6] not in kept
    assert "restore_tool" not in kept or '"restore_tool":null' in kept
