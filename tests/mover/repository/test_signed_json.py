# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from mover.errors import Damaged, MoverError, UnsupportedFormat
from mover.repository import signed_json
from tests.mover.repository import codecs

FORMAT, NAME = "data-mover thing", "things/one"
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text().map("m{}".format), values, max_size=4), st.sampled_from([None, 2]))
def test_a_value_is_read_back(value: dict[str, Any], indent: int | None) -> None:
    data = signed_json.dump(FORMAT, value, indent=indent)
    assert signed_json.load(FORMAT, data, NAME) == {"format": FORMAT, "version": 1, "features": 0, **value}


@pytest.mark.parametrize("indent", [None, 2])
def test_a_harmless_wound_is_a_blank(indent: int | None) -> None:
    data = signed_json.dump(FORMAT, {"text": "na\u00efve", "list": [1, {"a": None}]}, indent=indent)
    harmless = codecs.assert_guarded(lambda wound: signed_json.load(FORMAT, wound, NAME), data)
    assert harmless <= data.count(b" ") + data.count(b"\n") + 2  # and the letter case of an escape, the cut line's end


def signed(**members: Any) -> bytes:
    value = {"format": FORMAT, "version": 1, "features": 0} | members
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return json.dumps(value | {"checksum": blake3(text.encode("ascii")).hexdigest()}).encode("ascii")


@pytest.mark.parametrize(
    "members", [{"version": 2}, {"version": None}, {"features": 1}, {"features": "0"}, {"version": "1"}]
)
def test_an_unknown_version_or_feature_is_refused(members: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedFormat, match=NAME):
        signed_json.load(FORMAT, signed(**members), NAME)


def test_another_format_is_refused() -> None:
    with pytest.raises(Damaged, match="data-mover other"):
        signed_json.load(FORMAT, signed(format="data-mover other"), NAME)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"1" * 5000,
        b'{"checksum": 1}',
        b"\xff\xfe",
        b"{" * 100_000,
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"checksum": "x", "a": "\\ud800"}',
        b'{"checksum": "x", "a": NaN, "b": 1e999}',
    ],
    ids=range(12),
)
def test_what_is_no_such_object_is_damage(data: bytes) -> None:
    with pytest.raises(Damaged, match=NAME):
        signed_json.load(FORMAT, data, NAME)


@given(st.binary(max_size=100))
def test_no_bytes_yield_another_exception(data: bytes) -> None:
    with pytest.raises(MoverError):
        signed_json.load(FORMAT, data, NAME)
