# SPDX-License-Identifier: Apache-2.0
"""The syntax of LVM's metadata, and its limits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flr.errors import Corrupt, RecoveryError, TooMuch
from flr.volumes import lvm_text
from flr.volumes.lvm_text import parse


def test_sections_values_lists_and_comments() -> None:
    text = b"""# made by hand
    vg { id = "a\\"b\\\\c" n=-12 f = 0.5 # here too
      list = [ "pv0", 3, 1.5 ] empty = [] last = [1,]
      inner { deep { x = 1 } } }
    123 { }
    contents = "Text"\0\0"""
    assert parse(text) == {
        "vg": {
            "id": 'a"b\\c', "n": -12, "f": 0.5, "list": ["pv0", 3, 1.5], "empty": [], "last": [1], "inner": {"deep": {"x": 1}},
        },
        "123": {},
        "contents": "Text",
    }  # fmt: skip
    assert parse(b"") == {}


@pytest.mark.parametrize(
    "text",
    [
        b"a", b"a =", b"a = b", b"a { ", b"}", b"= 1", b"a = [1 2]", b"a = [", b"a = [[1]]", b'a = "x', b"a = 1_000", b"$",
        b"a {} a {}", b"a = 1 a = 2", b"a = 0x10", b"a = 1.2.3", b"a = 111111111111111111111111111", b"[", b'"a" = 1', b"a = \xff",
    ],
)  # fmt: skip
def test_what_is_no_such_text(text: bytes) -> None:
    with pytest.raises(Corrupt):
        parse(text)


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TooMuch):
        parse(b"a {" * 100_000)
    with pytest.raises(TooMuch):
        parse(bytes(lvm_text.MOST_BYTES + 1))
    monkeypatch.setattr(lvm_text, "MOST_VALUES", 10)
    with pytest.raises(TooMuch):
        parse(b"a = [" + b"1," * 11 + b"]")


@pytest.mark.parametrize("pattern", [b" ", b"# ", b'"', b"\\", b'a = "\\', b"\n#", b"a", b"1", b"-", b"{", b"[", b"\0"])
def test_time_is_linear_whatever_it_is(pattern: bytes) -> None:
    """A pattern that backtracks would not end within the test's time limit."""
    with pytest.raises(RecoveryError):
        parse(pattern * (1 << 17) + b"\n$")


@given(st.binary(max_size=200) | st.text(alphabet='ab1.{}[]=,"\\# \n', max_size=60).map(str.encode))
def test_nothing_else_is_raised(text: bytes) -> None:
    try:
        parse(text)
    except RecoveryError:
        pass
