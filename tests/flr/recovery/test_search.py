# SPDX-License-Identifier: Apache-2.0
"""Patterns of a search: what they find, and that none of them can stop the process by what it costs."""

from __future__ import annotations

import fnmatch
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flr.catalogue import Query, _fits
from mover.errors import UsageError

NAME = st.binary(min_size=1, max_size=12).map(lambda name: name.replace(b"/", b"_").replace(b"\0", b"_"))
LETTERS = st.text("ab*?.[]!^-\\é", min_size=1, max_size=8).map(str.encode)


@given(
    name=NAME,
    glob=st.lists(st.sampled_from([b"*", b"?", b"a", b".", b"(", b"+", b"\xe9", b"$"]), min_size=1, max_size=6).map(
        b"".join
    ),
)
def test_a_glob_finds_what_a_shell_finds(name: bytes, glob: bytes) -> None:
    if b"**" not in glob:
        assert _fits(Query(glob=glob))(name) == bool(
            re.match(fnmatch.translate(glob.decode("latin-1")), name.decode("latin-1"))
        )


@given(name=NAME, part=NAME)
def test_a_literal_expression_finds_a_part(name: bytes, part: bytes) -> None:
    assert _fits(Query(regex=re.escape(part)))(name) == (part in name)


@given(LETTERS, LETTERS)
def test_a_pattern_is_one_or_is_refused(pattern: bytes, name: bytes) -> None:
    told = []
    for query in (Query(glob=pattern), Query(regex=pattern), Query(regex=pattern, ignore_case=True)):
        try:
            _fits(query)(name)
        except UsageError as error:
            told.append((error.what, bool(error.hint)))
    assert set(told) <= {("not a pattern", True)}


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "query",
    [
        Query(regex=b"(a+)+$"), Query(regex=b"(a|aa)+$"), Query(regex=b"(.*a){25}$"), Query(glob=b"*a" * 40 + b"b"),
        Query(regex=b"((a{0,100}){0,100})b"),
    ],
)  # fmt: skip
def test_no_pattern_takes_for_ever(query: Query) -> None:
    """Python's own engine would take longer than the universe has for some of these, and would let no other thread run."""
    try:
        fits = _fits(query)
    except UsageError:
        return  # larger than a pattern may be
    for _ in range(100):
        assert not fits(b"a" * 255 + b"c")
