# SPDX-License-Identifier: Apache-2.0
"""A folder in pages: whatever the order and the filter, every entry that fits comes exactly once, folders first."""

from __future__ import annotations

import stat
import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flr.errors import Corrupt
from flr.fs.base import Attributes, Entry, Listing, Node
from flr.fs.table import Table, pack
from flr.recovery.folder import COLUMNS, Folder, kind_of
from flr.recovery.recovery import OpenPoint

FOUND = Attributes(2, 0, stat.S_IFDIR | 0o755, 2, 0, 0, 0, 0, 0, 0, 0, 0)


class Parts:
    """A session that tells of one folder, in parts; `gate` holds the parts behind the first one back."""

    def __init__(
        self, entries: list[Entry], part: int, gate: threading.Event | None = None, fails: bool = False
    ) -> None:
        self.entries, self.part, self.gate, self.fails = entries, part, gate, fails

    def parts(self, volume: str, node: Node, cursor: int = 0) -> Iterator[Table]:
        for at in range(0, max(1, len(self.entries)), self.part):
            if at and self.gate is not None:
                self.gate.wait(30)
            yield pack(Listing(self.entries[at : at + self.part], None))
        if self.fails:
            raise Corrupt("a block of the folder is damaged", 7)


def folder(entries: list[Entry], part: int = 7, **more: Any) -> Folder:
    point = OpenPoint("p", cast(Any, Parts(entries, part, **more)))
    return Folder(point, "0", FOUND, lambda: None)


def entry(number: int, name: bytes, kind: int, size: int, modified: int | None) -> Entry:
    found = Attributes(number, 0, kind | 0o644, 1, number % 3, 0, size, 0, modified, None, None, None)
    return Entry(name, number, found, kind)


NAMES = st.one_of(
    st.binary(min_size=1, max_size=8), st.from_regex(rb"(File|file|x) ?[0-9]{1,3}(\.TXT|\.txt|\.c)?", fullmatch=True)
)
ENTRIES = st.lists(
    st.tuples(
        NAMES,
        st.sampled_from([stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK]),
        st.integers(0, 1 << 40),
        st.one_of(st.none(), st.integers(-(10**18), 10**18)),
    ),
    max_size=40,
    unique_by=lambda one: one[0],
).map(lambda rows: [entry(k + 10, *row) for k, row in enumerate(rows)])


@given(
    entries=ENTRIES,
    sort=st.sampled_from(COLUMNS),
    down=st.booleans(),
    text=st.sampled_from([b"", b"FILE", b"x", b"1", b"."]),
    step=st.integers(1, 9),
)
def test_every_entry_that_fits_comes_once(entries: list[Entry], sort: str, down: bool, text: bytes, step: int) -> None:
    made = folder(entries)
    made.wait(30)
    first = made.page(sort, down, text, 0, step)
    assert first.complete
    assert first.total == len(entries)
    got: list[Entry] = []
    for at in range(0, first.matched, step):
        got += made.page(sort, down, text, at, step).entries
    assert [made.where(sort, down, text, one.name) for one in got] == list(range(len(got)))
    assert made.where(sort, down, text, b"no such name at all") is None
    wanted = text.decode().casefold()
    fits = [one for one in entries if wanted in one.name.decode("utf-8", "surrogateescape").casefold()]
    assert sorted(one.name for one in got) == sorted(one.name for one in fits)
    assert len(got) == first.matched
    kinds = [stat.S_ISDIR(one.kind) for one in got]
    assert kinds == sorted(kinds, reverse=True)
    files = [one for one in got if not stat.S_ISDIR(one.kind)]
    if sort == "size":
        sizes = [one.attributes.size for one in files if one.attributes]
        assert sizes == sorted(sizes, reverse=down)


def test_numbers_in_names_count_as_numbers() -> None:
    names = [b"a10", b"a9", b"A1", b"a01", b"b2", b"a100"]
    made = folder([entry(k, name, stat.S_IFREG, 0, 0) for k, name in enumerate(names)])
    made.wait(30)
    assert [one.name for one in made.page("name", False, b"", 0, 10).entries] == [
        b"A1",
        b"a01",
        b"a9",
        b"a10",
        b"a100",
        b"b2",
    ]


def test_a_folder_is_shown_while_it_is_read() -> None:
    gate = threading.Event()
    made = folder([entry(k, b"%d" % k, stat.S_IFREG, 0, 0) for k in range(20)], part=5, gate=gate)
    made.wait(0.01)
    page = made.page("name", False, b"", 0, 100)
    assert (page.complete, page.total, len(page.entries)) == (False, 5, 5)
    gate.set()
    made.wait(30)
    page = made.page("name", False, b"", 0, 100)
    assert (page.complete, page.total, len(page.entries)) == (True, 20, 20)


def test_what_was_read_before_the_damage_is_shown() -> None:
    made = folder([entry(1, b"a", stat.S_IFREG, 0, 0)], fails=True)
    made.wait(30)
    page = made.page("name", False, b"", 0, 10)
    assert page.problem is not None
    assert page.problem.what == "a block of the folder is damaged"
    assert [one.name for one in page.entries] == [b"a"]


@pytest.mark.parametrize(
    ("prefix", "after", "row"), [(b"b", -1, 1), (b"B", 1, 2), (b"b", 2, 1), (b"x", 0, None), (b"", 0, 1)]
)
def test_a_jump_goes_to_the_next_that_begins_so(prefix: bytes, after: int, row: int | None) -> None:
    made = folder([entry(k, name, stat.S_IFREG, 0, 0) for k, name in enumerate([b"a", b"b1", b"b2", b"c"])])
    made.wait(30)
    assert made.place("name", False, b"", prefix, after) == row


def test_kinds_have_words() -> None:
    assert [kind_of(mode) for mode in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFSOCK, stat.S_IFBLK, 0)] == [
        "file", "folder", "link", "socket", "device", "unknown",
    ]  # fmt: skip
