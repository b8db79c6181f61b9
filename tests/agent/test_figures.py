# SPDX-License-Identifier: Apache-2.0
"""Sizes, durations and moments, read and written."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.figures import format_duration, format_size, moment, parse_moment, parse_size, printable
from mover.errors import UsageError

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("512", 512),
        ("1GiB", 1 << 30),
        ("1 gib", 1 << 30),
        ("1.5K", 1536),
        ("384M", 384 << 20),
        ("2TB", 2 << 40),
    ],
)
def test_sizes_are_powers_of_1024_whatever_the_unit_is_called(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "-1", "1 EiB", "1e9", "1GiB more", "\u0661GiB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_size(text)
    assert caught.value.what == "not a size"
    assert caught.value.value == text
    assert "512MiB" in caught.value.hint


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 KiB"), (1536, "1.5 KiB"), (150 << 20, "150 MiB"), (1 << 40, "1.0 TiB")],
)
def test_sizes_are_written_with_few_digits(size: int, text: str) -> None:
    assert format_size(size) == text


@given(st.integers(0, 1 << 62))
def test_every_size_can_be_written(size: int) -> None:
    assert len(format_size(size)) <= len("1023.9 PiB")


@pytest.mark.parametrize(("seconds", "text"), [(0.04, "0.0 s"), (9.94, "9.9 s"), (75.2, "1:15"), (3723, "1:02:03")])
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("12h", datetime(2026, 3, 15, 0, tzinfo=UTC)),
        ("7d", datetime(2026, 3, 8, 12, tzinfo=UTC)),
        ("2w", datetime(2026, 3, 1, 12, tzinfo=UTC)),
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31T18:00+02:00", datetime(2026, 1, 31, 16, tzinfo=UTC)),
    ],
)
def test_moments(text: str, when: datetime) -> None:
    assert parse_moment(text, NOW) == when


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "7 days", "99999999999w"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_moment(text, NOW)
    assert caught.value.what == "not a moment"
    assert caught.value.hint


@pytest.mark.parametrize("seconds", [float("inf"), float("nan"), 1e300, -1e300])
def test_a_time_that_cannot_be_is_shown_as_the_first(seconds: float) -> None:
    assert moment(seconds) == datetime(1970, 1, 1, tzinfo=UTC)


def test_names_cannot_steer_a_terminal() -> None:
    assert printable("vm\x1b[2J\n\u202e1") == "vm\\x1b[2J\\x0a\\x202e1"
    assert printable("Größe 7") == "Größe 7"
