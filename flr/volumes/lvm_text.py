# SPDX-License-Identifier: Apache-2.0
"""The text in which LVM2 keeps a group's metadata: sections, values, lists, comments; read into dicts, within limits.

A section is `name { ... }`, a value `name = 1`, `= 0.5`, `= "text"` or a list of such in brackets. Not here: what it means (`lvm`).
Nothing recurses: sections are kept on a stack of their own, which has a limit, as the text and the number of values have.

Source: libyal's document "Logical Volume Manager (LVM) format", and lvm.conf(5), which has the same syntax.
"""

from __future__ import annotations

import re
from typing import Any

from flr.errors import Corrupt, TooMuch

MOST_BYTES = 16 << 20
MOST_DEPTH = 16
MOST_VALUES = 300_000

Value = int | float | str | list[int | float | str]
Section = dict[str, Any]
"""Of `Value`s and further sections; `Any` because every use checks what it finds anyway."""

# One token; comments and blanks are passed over first. All is possessive: nothing is tried twice, so time is linear.
TOKEN = re.compile(
    r"""(?:[\s\0]++|\#[^\n]*+)*+
    (?: (?P<word>[A-Za-z0-9_.+-]++)
      | "(?P<text>(?:[^"\\]++|\\.)*+)"
      | (?P<mark>[{}=\[\],]) | (?P<end>\Z) )""",
    re.VERBOSE | re.DOTALL,
)
INTEGER, FRACTION = re.compile(r"[+-]?[0-9]{1,20}"), re.compile(r"[+-]?[0-9]{1,20}\.[0-9]{0,20}")
ESCAPE = re.compile(r"\\(.)", re.DOTALL)


def parse(raw: bytes) -> Section:
    """Corrupt where it is no such text, TooMuch beyond the limits."""
    if len(raw) > MOST_BYTES:
        raise TooMuch("a volume group's metadata is larger than any is", f"{len(raw)} bytes")
    return _Parser(raw.decode("utf-8", "replace")).parse()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._values = 0

    def parse(self) -> Section:
        root: Section = {}
        stack = [root]
        while True:
            kind, name = self._next()
            if kind == "end" and len(stack) == 1:
                return root
            if (kind, name) == ("mark", "}") and len(stack) > 1:
                stack.pop()
                continue
            if kind != "word":
                raise self._wrong()
            kind, mark = self._next()
            if (kind, mark) == ("mark", "{"):
                if len(stack) == MOST_DEPTH:
                    raise TooMuch("a volume group's metadata is nested deeper than any is", f"{MOST_DEPTH} levels")
                section: Section = {}
                self._put(stack[-1], name, section)
                stack.append(section)
            elif (kind, mark) == ("mark", "="):
                self._put(stack[-1], name, self._value())
            else:
                raise self._wrong()

    def _next(self) -> tuple[str, str]:
        match = TOKEN.match(self._text, self._at)
        if match is None or match.lastgroup is None:
            raise self._wrong()
        self._at = match.end()
        return match.lastgroup, match[match.lastgroup]

    def _put(self, section: Section, name: str, value: object) -> None:
        if name in section:
            raise Corrupt("a volume group's metadata says something twice", f"character {self._at}")
        section[name] = value
        self._count()

    def _count(self) -> None:
        self._values += 1
        if self._values > MOST_VALUES:
            raise TooMuch("a volume group's metadata has more values than any has", f"{MOST_VALUES}")

    def _scalar(self, kind: str, word: str) -> int | float | str:
        if kind == "text":
            return ESCAPE.sub(r"\1", word)
        if kind == "word" and INTEGER.fullmatch(word):
            return int(word)
        if kind == "word" and FRACTION.fullmatch(word):
            return float(word)
        raise self._wrong()

    def _value(self) -> Value:
        kind, word = self._next()
        if (kind, word) != ("mark", "["):
            return self._scalar(kind, word)
        made: list[int | float | str] = []
        while True:
            kind, word = self._next()
            if (kind, word) == ("mark", "]"):
                return made
            made.append(self._scalar(kind, word))
            self._count()
            kind, word = self._next()
            if (kind, word) == ("mark", "]"):
                return made
            if (kind, word) != ("mark", ","):
                raise self._wrong()

    def _wrong(self) -> Corrupt:
        return Corrupt("a volume group's metadata cannot be understood", f"character {self._at} of {len(self._text)}")
