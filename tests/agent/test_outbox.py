# SPDX-License-Identifier: Apache-2.0
"""Every event fits into a message, whatever is in it, and stays an event that names its command."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import CommandRefused
from agent.outbox import fitting
from agent.protocol import ErrorBody, LogItem, Result, decode_command, decode_event, encode
from agent.queue.base import MAX_BODY
from tests.agent.conftest import Place
from tests.agent.rig import changed, command

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
