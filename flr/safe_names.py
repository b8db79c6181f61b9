# SPDX-License-Identifier: Apache-2.0
"""Names that do no harm on the computer of whoever downloads, whatever a guest named its files.

As Windows wants them, which every other system takes too: what cannot stay (`UNSAFE`, a dot or space at the end) becomes
`_`, and a device's name gets one before it. Bytes that are no UTF-8 are written as `%FF`, and a `%` beside them that could be taken
for such a one as `%25`; a name that is UTF-8 keeps its `%`. No two names of a folder are the same to Windows or macOS, neither by
case nor by how Unicode composes them nor by what nobody sees: a later one gets ` (2)` before its extension.

Folders come before what is in them, and a folder that was left does not come again (it would be taken for another one): so only
the names of the folders above the present one are kept, as 60 bits each. Two names whose bits are the same by chance cost a
suffix, never a file. Belongs to one thread. Source: "Naming Files, Paths, and Namespaces" of Microsoft's documentation.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence

from xxhash import xxh3_64_intdigest

from flr.errors import Corrupt
from flr.printable import shown

LONGEST = 255
"""Bytes of UTF-8, as ext4 has it; so there are no more of UTF-16's units, which NTFS counts."""
LONGEST_EXTENSION = 20
"""Bytes, with its dot; a longer one is no extension."""
LONGEST_SUFFIX = 12
"""Bytes that are free for ` (2)` to ` (99999999)`."""
UNSAFE = re.compile(
    # Windows' own, and control characters of both halves
    '[<>:"/\\\\|?*\x00-\x1f\x7f-\x9f'
    # what turns the direction of writing round, so that `exe.gnp` reads as `png.exe`, or ends a line or a paragraph. Joiners
    # stay: Persian words and many emoji are spelt with them.
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029]"
)
_DEVICE = re.compile(
    r"(?:con|prn|aux|nul|clock\$|conin\$|conout\$|(?:com|lpt)[0-9\u00b9\u00b2\u00b3]) *(?:\..*)?", re.IGNORECASE
)
_UNSEEN = re.compile("[\u00ad\u034f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]")
_AMBIGUOUS = re.compile("%(?=[0-9A-Fa-f]{2})")


def safe_name(name: bytes) -> str:
    """Of one name by itself: two names may become the same. Corrupt when it is none (empty, `.`, `..`, with a slash or a NUL)."""
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
        raise Corrupt("a name that no file can have", shown(name))
    try:
        made = name.decode()
    except UnicodeDecodeError:
        text = _AMBIGUOUS.sub("%25", name.decode("utf-8", "surrogateescape"))
        made = "".join(f"%{ord(c) - 0xDC00:02X}" if "\udc80" <= c <= "\udcff" else c for c in text)
    made = UNSAFE.sub("_", made)
    kept = made.rstrip(". ")
    made = _fitting(kept + "_" * (len(made) - len(kept)))
    return _fitting("_" + made) if _DEVICE.fullmatch(made) else made


class SafeNames:
    """`renamed` is told the guest's path and the safe one of each entry whose own name changed, not of what is below it. `taken`
    are names of the outermost folder that belong to somebody else."""

    def __init__(self, renamed: Callable[[bytes, str], None], taken: Sequence[str] = ()) -> None:
        self._renamed = renamed
        self._above: list[_Folder] = [_Folder(b"", "")]
        for name in taken:
            self._above[0].used.add(_bits(name))

    def path(self, parts: Sequence[bytes], *, folder: bool) -> str:
        """Of a file or a folder, whose path has these parts, at least one: without a slash at either end. Folders above it need not
        have been told of. Corrupt when a part is no name."""
        depth = 1
        while depth < min(len(self._above), len(parts)) and self._above[depth].name == parts[depth - 1]:
            depth += 1
        del self._above[depth:]
        for known in range(depth, len(parts)):
            self._enter(parts[:known])
        if folder:
            return self._enter(parts)
        return self._free(parts)

    def _enter(self, parts: Sequence[bytes]) -> str:
        path = self._free(parts)
        self._above.append(_Folder(parts[-1], path + "/"))
        return path

    def _free(self, parts: Sequence[bytes]) -> str:
        folder = self._above[-1]
        name = safe_name(parts[-1])
        bits = _bits(name)
        if bits in folder.used:
            name, bits = folder.other(name)
        folder.used.add(bits)
        path = folder.path + name
        if name.encode() != parts[-1]:
            self._renamed(b"/".join(parts), path)
        return path


class _Folder:
    """`path` of the safe ones, with a slash at its end."""

    def __init__(self, name: bytes, path: str) -> None:
        self.name = name
        self.path = path
        self.used: set[int] = set()
        self._numbers: dict[int, int] = {}

    def other(self, name: str) -> tuple[str, int]:
        """A free name with a number, and its bits. Numbers go on where the last one of this kind was given: a folder of a million
        names that are all the same takes a million steps, not their square."""
        stem, extension = _cut(name, LONGEST - LONGEST_SUFFIX)
        kind = _bits(stem + extension)
        number = self._numbers.get(kind, 1)
        while True:
            number += 1
            made = f"{stem} ({number}){extension}"
            bits = _bits(made)
            if bits not in self.used:
                self._numbers[kind] = number
                return made, bits


def _fitting(name: str) -> str:
    return name if len(name.encode()) <= LONGEST else "".join(_cut(name, LONGEST))


def _cut(name: str, room: int) -> tuple[str, str]:
    """Stem and extension, of which the stem is shortened until both take at most `room` bytes."""
    stem, dot, extension = name.rpartition(".")
    if not stem or len(extension.encode()) >= LONGEST_EXTENSION:
        stem, dot, extension = name, "", ""
    cut = stem.encode()[: room - len((dot + extension).encode())].decode("utf-8", "ignore")
    if len(cut) < len(stem):
        cut = cut.rstrip(". ") or "_"
    return cut, dot + extension


def _bits(name: str) -> int:
    """The same for names that some system takes for the same, and by chance for one in 10^18 others."""
    if name.isascii():
        folded = name.lower()
    else:
        seen = unicodedata.normalize("NFD", _UNSEEN.sub("", name))
        folded = unicodedata.normalize("NFD", seen.casefold().upper().casefold())
    return xxh3_64_intdigest(folded.encode()) >> 4
