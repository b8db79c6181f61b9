# SPDX-License-Identifier: Apache-2.0
"""What a guest named something, in a form that may be printed: control, direction and unassigned characters become visible.

Not here: names of files, which stay bytes (`flr.fs`); these are labels and identifiers, for reading only.
"""

from __future__ import annotations

LONGEST = 128


def printable(text: object, most: int = LONGEST) -> str:
    """At most `most` characters of it, without any that a terminal or a page acts upon."""
    cut = str(text)[: most + 1]
    shown = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in cut[:most])
    return shown + ("..." if len(cut) > most else "")
