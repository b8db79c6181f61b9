# SPDX-License-Identifier: Apache-2.0
"""How what is found is worded in JSON: paths, rows, times, errors.

A path is the percent-encoded form of its bytes, with slashes between its parts: reversible, whatever a guest named something, and
plain ASCII. Beside it stands what may be shown. Times are seconds since 1970; a row leaves out what is not known.
"""

from __future__ import annotations

import stat
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

from flr.catalogue import Match
from flr.fs.base import Attributes, Entry, Flag
from flr.printable import shown
from flr.recovery.folder import kind_of
from flr.recovery.guest import Guest
from mover.errors import MoverError, UsageError

LONGEST_PATH = 64 << 10


def key_of(name: bytes) -> str:
    """Of one part of a path."""
    return quote_from_bytes(name, safe="")


def coded(path: bytes) -> str:
    return quote_from_bytes(path, safe="/")


def decoded(text: str) -> bytes:
    """UsageError for what is no path from a volume's root."""
    if not text.startswith("/") or len(text) > LONGEST_PATH or not text.isascii():
        raise UsageError(
            "not a path", text[:100].encode("ascii", "backslashreplace").decode(), "it begins with a slash"
        )
    path = unquote_to_bytes(text)
    if b"\0" in path:
        raise UsageError("not a path", text[:100], "no name has a zero byte")
    return path


def flags_of(flags: int) -> list[str]:
    return [flag.name.lower().replace("_", " ") for flag in Flag if flags & flag and flag != Flag.ARCHIVE and flag.name]


def seconds(nanoseconds: int | None) -> float | None:
    return None if nanoseconds is None else nanoseconds // 1_000_000 / 1000


def row(entry: Entry, guest: Guest) -> dict[str, Any]:
    """An entry of a folder."""
    found = entry.attributes
    made: dict[str, Any] = {"key": key_of(entry.name), "name": shown(entry.name), "kind": kind_of(entry.kind)}
    if found is None:
        return {**made, "problem": entry.problem}
    return {**made, **figures(found, guest)}


def figures(found: Attributes, guest: Guest) -> dict[str, Any]:
    made: dict[str, Any] = {"kind": kind_of(found.mode), "mode": stat.S_IMODE(found.mode)}
    if not found.is_directory:
        made["size"] = found.size
    if found.modified is not None:
        made["modified"] = seconds(found.modified)
    if found.owner is not None:
        made["owner"] = guest.owners.get(found.owner, str(found.owner))
    if found.group is not None:
        made["group"] = guest.groups.get(found.group, str(found.group))
    if flags := flags_of(found.flags):
        made["flags"] = flags
    return made


def match_row(path: bytes, match: Match, guest: Guest) -> dict[str, Any]:
    """Something that a search found."""
    folder, _, name = path.rpartition(b"/")
    made: dict[str, Any] = {
        "key": key_of(name), "name": shown(name), "kind": kind_of(match.mode), "mode": stat.S_IMODE(match.mode),
        "folder": coded(folder or b"/"), "folder_name": shown(folder or b"/"),
    }  # fmt: skip
    if made["kind"] != "folder":
        made["size"] = match.size
    if match.modified is not None:
        made["modified"] = seconds(match.modified)
    if match.owner is not None:
        made["owner"] = guest.owners.get(match.owner, str(match.owner))
    if match.problem:
        made["problem"] = match.problem
    return made


def error_document(error: MoverError) -> dict[str, Any]:
    return {"error": {"type": error.type, "what": error.what, "value": error.value, "hint": error.hint}}
