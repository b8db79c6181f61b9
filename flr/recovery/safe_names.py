# SPDX-License-Identifier: Apache-2.0
"""Names that are safe on the computer of whoever downloads, whatever a guest named its files.

As Windows wants them, which is what the other systems take too: none of its forbidden characters, no device's name, no dot or space
at the end, at most 255 bytes; nothing that turns the direction of writing round; no two in a folder that differ in case only. What
is changed is told. Folders come before what is in them, and a folder that was left does not come again: so only the names of the
folders above the present one are kept.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence

LONGEST = 255
"""Bytes of UTF-8, as on ext4; no more of UTF-16's units, as on NTFS."""
LONGEST_EXTENSION = 20
_FORBIDDEN = frozenset('<>:"/\\|?*')
_DEVICE = re.compile(
    r"(?:con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])\s*(?:\..*)?", re.IGNORECASE | re.DOTALL
)


class _Folder:
    def __init__(self, original: bytes, safe: str) -> None:
        self.original = original
        self.safe = safe
        self.used: set[str] = set()


class SafeNames:
    """`renamed` is told the path as it was and the new one."""

    def __init__(self, renamed: Callable[[tuple[bytes, ...], str], None]) -> None:
        self._renamed = renamed
        self._above = [_Folder(b"", "")]

    def place(self, parts: Sequence[bytes], folder: bool) -> str:
        """A path without a slash at its ends."""
        depth = 1
        while depth < min(len(self._above), len(parts)) and self._above[depth].original == parts[depth - 1]:
            depth += 1
        del self._above[depth:]
        while len(self._above) < len(parts):
            self._enter(parts[len(self._above) - 1])
        if folder:
            self._enter(parts[-1])
            made = self._path("")
        else:
            made = self._path(self._free(parts[-1]))
        if made.encode("utf-8", "surrogatepass") != b"/".join(parts):
            self._renamed(tuple(parts), made)
        return made

    def reserve(self, name: str) -> None:
        """In the outermost folder, for a file that is not the guest's."""
        self._above[0].used.add(_folded(name))

    def _path(self, last: str) -> str:
        return "/".join([*(one.safe for one in self._above[1:]), *([last] if last else [])])

    def _enter(self, name: bytes) -> None:
        self._above.append(_Folder(name, self._free(name)))

    def _free(self, name: bytes) -> str:
        used = self._above[-1].used
        wanted = made = safe(name)
        number = 1
        while _folded(made) in used:
            number += 1
            made = _shortened(wanted, f" ({number})")
        used.add(_folded(made))
        return made


def safe(name: bytes) -> str:
    """Of one name. Two names may become the same."""
    text = "".join(
        f"%{ord(c) - 0xDC00:02X}" if "\udc80" <= c <= "\udcff" else c for c in name.decode("utf-8", "surrogateescape")
    )
    made = "".join("_" if c in _FORBIDDEN or not (c.isprintable() or c == "\u3000") else c for c in text)
    kept = made.rstrip(". ")
    made = kept + "_" * (len(made) - len(kept)) if kept else "_" * max(1, len(made))
    if _DEVICE.fullmatch(made):
        stem, dot, rest = made.partition(".")
        made = f"{stem.rstrip()}_{dot}{rest}"
    return _shortened(made, "")


def _shortened(name: str, addition: str) -> str:
    """With the addition before its extension, and cut there when it is too long."""
    stem, dot, extension = name.rpartition(".")
    if not stem or len(extension.encode()) > LONGEST_EXTENSION:
        stem, dot, extension = name, "", ""
    room = LONGEST - len((addition + dot + extension).encode())
    cut = stem.encode()[:room].decode("utf-8", "ignore")
    return (cut.rstrip(". ") or "_" if len(cut) < len(stem) else cut) + addition + dot + extension


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
