# SPDX-License-Identifier: Apache-2.0
"""A preview in parts is the whole: no letter is cut between two of them, whatever the encoding."""

from __future__ import annotations

import base64
import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flr.recovery.preview import BYTES, kind_of_content

LETTERS = st.text(st.sampled_from("aé\n\t ü€中😀𐍈"), min_size=1, max_size=80)


def in_parts(data: bytes, part: int, encoding: str = "") -> tuple[str, str]:
    """The text, and how it was understood."""
    at, text = 0, ""
    while at < len(data):
        found = kind_of_content(data[at : at + part], len(data), at, encoding)
        assert found["kind"] == "text"
        assert 0 < found["length"] <= part
        encoding = found["encoding"]
        text += found["text"]
        at += found["length"]
    return text, encoding


@given(LETTERS, st.integers(4, 90), st.sampled_from(["utf-8", "utf-16-le", "utf-16-be"]))
def test_text_in_parts_is_the_whole_text(text: str, part: int, encoding: str) -> None:
    mark = {"utf-8": codecs.BOM_UTF8, "utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}[encoding]
    assert in_parts(mark + text.encode(encoding), part) == (text, encoding)
    assert in_parts(text.encode(), part, "utf-8") == (text, "utf-8")


@given(st.binary(min_size=1, max_size=80), st.integers(4, 20), st.sampled_from(["utf-8", "utf-16-le", "latin-1"]))
def test_what_is_no_text_comes_to_its_end_as_text(data: bytes, part: int, encoding: str) -> None:
    in_parts(data, part, encoding)


@given(st.binary(min_size=1, max_size=200))
def test_bytes_are_bytes_when_they_are_wanted(data: bytes) -> None:
    found = kind_of_content(data, len(data), encoding=BYTES)
    assert base64.b64decode(found["base64"]) == data
    assert found["length"] == len(data)


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (b"plain", "utf-8"),
        ("cut: ü".encode()[:-1], "utf-8"),
        (b"\xff\xfea\0b\0", "utf-16-le"),
        (b"\xefnothing of utf-8, one odd letter", "latin-1"),
    ],
)
def test_encodings_are_found_out(data: bytes, encoding: str) -> None:
    assert kind_of_content(data, len(data))["encoding"] == encoding


def test_a_program_is_no_text() -> None:
    assert kind_of_content(b"\x7fELF\x02\x01\x01\0\0\0", 10)["kind"] == "binary"
