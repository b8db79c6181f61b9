# SPDX-License-Identifier: Apache-2.0
"""Whatever a guest named its files: the names of a download are safe, different, and the same each time; what changed is told."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flr.recovery.safe_names import LONGEST, SafeNames, safe

HOSTILE = st.one_of(
    st.binary(min_size=1, max_size=300),
    st.text(min_size=1, max_size=120).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.sampled_from([b"CON", b"nul.txt", b"Com1 .x", b"LPT9", b"a.", b"a ", b"...", b" ", b"..", b".",
                     b"~", b"a:b", b"C:", b"\\\\srv\\x", b"..\\..\\x", b"a\nb", "\u202egnp.exe".encode(),
                     "é".encode(), "e\u0301".encode(), "É".encode(), "ß".encode(), b"SS",
                     b"A", b"a", b"a (2)", "COM¹.txt".encode(), b"x" * 255, b"x" * 256, b"x" * 300 + b".txt", b"%41", b"\xff"]),
).map(lambda name: name.replace(b"/", b"_").replace(b"\0", b"_"))  # fmt: skip
DEVICES = re.compile(r"(?i)(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])")


def check(name: str) -> None:
    assert name not in ("", ".", "..")
    assert not re.search(r'[<>:"/\\|?*\x00-\x1f\x7f]', name)
    assert all(c.isprintable() or c == "\u3000" for c in name)
    assert not name.endswith((".", " "))
    assert len(name.encode()) <= LONGEST
    assert len(name.encode("utf-16-le")) <= 2 * LONGEST
    assert not DEVICES.fullmatch(name.partition(".")[0].rstrip())


@given(HOSTILE)
def test_a_name_is_safe(name: bytes) -> None:
    check(safe(name))


@given(st.from_regex(r"[A-Za-z0-9é_()-]([A-Za-z0-9é_ ().-]{0,40}[A-Za-z0-9é_)-])?", fullmatch=True))
def test_a_harmless_name_stays(name: str) -> None:
    if not DEVICES.fullmatch(name.partition(".")[0].rstrip()):
        assert safe(name.encode()) == name


@given(st.lists(HOSTILE, max_size=30))
def test_no_two_are_the_same_in_a_folder(names: list[bytes]) -> None:
    told: list[tuple[tuple[bytes, ...], str]] = []
    place = SafeNames(lambda parts, made: told.append((parts, made)))
    made = [place.place((b"folder", name), False) for name in names]
    parts = [path.split("/") for path in made]
    assert all(len(part) == 2 and part[0] == "folder" for part in parts)
    for _, name in parts:
        check(name)
    folded = [unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold()) for _, name in parts]
    assert len(set(folded)) == len(folded)
    renamed = [(old, new) for old, new in zip(names, made, strict=True) if new.encode() != b"folder/" + old]
    assert [(parts[1], new) for parts, new in told] == renamed
    again = SafeNames(lambda parts, made: None)
    assert [again.place((b"folder", name), False) for name in names] == made


def test_what_is_in_a_folder_that_was_renamed_is_in_it() -> None:
    names = SafeNames(lambda parts, made: None)
    assert names.place((b"A",), True) == "A"
    assert names.place((b"A", b"x"), False) == "A/x"
    assert names.place((b"a",), True) == "a (2)"
    assert names.place((b"a", b"nul"), True) == "a (2)/nul_"
    assert names.place((b"a", b"nul", b"x:y"), False) == "a (2)/nul_/x_y"
    assert names.place((b"a", b"z"), False) == "a (2)/z"
    assert names.place((b"b", b"never told of", b"z"), False) == "b/never told of/z"


@pytest.mark.parametrize("extension", [".txt", ".tar.gz", "." + "x" * 19])
def test_a_name_that_is_too_long_keeps_its_extension(extension: str) -> None:
    made = safe(b"n" * 300 + extension.encode())
    assert len(made) == LONGEST
    assert made.endswith(extension.rpartition(".")[2])
