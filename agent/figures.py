# SPDX-License-Identifier: Apache-2.0
"""Sizes, durations and moments as people write and read them. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from mover.errors import UsageError

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) *([KMGTP]?)(?:i?B)?\Z", re.IGNORECASE)
_AGO = re.compile(r"([0-9]+) *([hdw])\Z")


def format_size(size: float) -> str:
    """1536 -> "1.5 KiB"."""
    unit = 0
    while size >= 999.5 and unit < len(_UNITS) - 1:
        size /= 1024
        unit += 1
    digits = 0 if unit == 0 or size >= 99.95 else 1
    return f"{size:.{digits}f} {_UNITS[unit]}"


def parse_size(text: str) -> int:
    """ "1GiB", "512M", "1.5 TiB" -> bytes; all units are powers of 1024."""
    match = _SIZE.match(text.strip())
    if not match:
        raise UsageError("not a size", text, "a size is a number and a unit: 512MiB, 1GiB")
    return int(float(match[1]) * 1024 ** " KMGTP".index(match[2].upper() or " "))


def format_duration(seconds: float) -> str:
    """75.2 -> "1:15"; under ten seconds one decimal: "3.4 s"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def parse_moment(text: str, now: datetime) -> datetime:
    """ "2026-01-31", "2026-01-31T18:00Z", or so long ago: "12h", "7d", "2w". Without a zone it is UTC."""
    match = _AGO.match(text.strip())
    if match:
        try:
            return now - timedelta(hours=int(match[1]) * {"h": 1, "d": 24, "w": 168}[match[2]])
        except OverflowError:
            raise UsageError("not a moment", text, "that is longer ago than there are dates") from None
    try:
        when = datetime.fromisoformat(text.strip())
    except ValueError:
        raise UsageError(
            "not a moment", text, "a date (2026-01-31), a time (2026-01-31T18:00Z) or 12h, 7d, 2w"
        ) from None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def moment(seconds: float) -> datetime:
    """Unix seconds out of a repository as a moment; what is no moment is the first one."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return datetime.fromtimestamp(0, UTC)


def format_moment(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%d %H:%MZ")


def printable(text: str) -> str:
    """The text without what would steer a terminal: names out of a repository are not to be trusted with that."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)
