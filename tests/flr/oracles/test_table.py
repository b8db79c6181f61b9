# SPDX-License-Identifier: Apache-2.0
"""The table of docs/file-systems.md is that of this tree: its rows, its versions, and in our column what our readers tell now.

The oracles themselves are not needed here: `make oracles` runs them.
"""

from __future__ import annotations

import stat

import pytest

from tests.flr.corpus.catalogue import CATALOGUE, sample
from tests.flr.corpus.truth import Fact, Facts
from tests.flr.oracles import table
from tests.flr.oracles.verdict import verdict

QUICK = (
    "ext4", "ext4-inline", "ext3-1k", "ext2-old-inodes", "ext4-busy", "xfs-small", "xfs-busy", "ntfs-plain", "ntfs-wof",
    "fat12-few", "fat32", "exfat",
)  # fmt: skip


@pytest.fixture(scope="module")
def rows() -> dict[str, list[str]]:
    """Cells by the image."""
    _, part, _ = table.parted(table.PAGE.read_text())
    cells = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("| ")]
    end = cells.index(["volume or array", "bytes", "ours", *table.volumes.ORACLES])
    assert tuple(cells[0]) == table.HEAD
    return {row[0]: row for row in cells[2:end]}


def test_its_rows_are_the_images(rows: dict[str, list[str]]) -> None:
    assert list(rows) == list(CATALOGUE), "hint: make oracles"
    assert {len(row) for row in rows.values()} == {len(table.HEAD)}


def test_its_versions_are_the_lock_s() -> None:
    assert f"Versions: {table.versions()}." in " ".join(table.PAGE.read_text().split()), "hint: make oracles"


def test_ours_is_equal_but_where_the_page_says_why(rows: dict[str, list[str]]) -> None:
    known = {name: listed.differs for name, listed in CATALOGUE.items() if listed.differs}
    assert {name for name, row in rows.items() if row[2] != "equal"} == known.keys()
    before, _, _ = table.parted(table.PAGE.read_text())
    assert all(f"`{name}`" in before and why in before for name, why in known.items())


@pytest.mark.parametrize("name", QUICK)
def test_our_column_is_what_our_readers_tell(rows: dict[str, list[str]], name: str) -> None:
    of = sample(name)
    own = table.ours(name, of)
    assert own.words == rows[name][2]
    if not CATALOGUE[name].busy:
        assert rows[name][1].startswith(f"{len(of.truth)} entries, {own.files} contents, ")


# -- verdicts


def file(path: bytes, **changes: object) -> Fact:
    fact = Fact(path, stat.S_IFREG | 0o644, 1, 2, 3, 1, 5, 6, 7, 8, content="abc")
    for name, value in changes.items():
        setattr(fact, name, value)
    return fact


def facts(*all_of_them: Fact) -> Facts:
    return {fact.path: fact for fact in all_of_them}


TRUTH = facts(file(b"/a"), file(b"/b"), file(b"/c"), Fact(b"/d", stat.S_IFDIR, 0, 0, 4096, 2, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (TRUTH, "equal"),
        (TRUTH | facts(file(b"/x")), "4 listed, 1 invented"),
        (facts(file(b"/a"), file(b"/b")), "2 listed, 2 missing; contents 2 of 3"),
        (TRUTH | facts(file(b"/a", content="other")), "contents 2 of 3"),
        (TRUTH | facts(file(b"/a", xattrs={b"user.x": b""}), file(b"/b", modified=9)), "wrong: modified 1, xattrs 1"),
        (TRUTH | facts(file(b"/a", mode=stat.S_IFREG)), "wrong: mode 1"),
        (TRUTH | facts(Fact(b"/d", stat.S_IFDIR, 0, 0, 0, 2, 0, 0, 0, 0)), "wrong: size 1"),
    ],
)
def test_a_verdict_counts(told: Facts, words: str) -> None:
    assert verdict(TRUTH, told, frozenset(), frozenset()).words == words


def test_what_one_of_the_two_does_not_tell_is_not_counted() -> None:
    told = TRUTH | facts(file(b"/a", mode=stat.S_IFREG, owner=None), file(b"/b", size=9, content=""))
    untold = frozenset({"mode", "owner"})
    assert verdict(TRUTH, told, frozenset({b"/b"}), untold).words == "equal"
    assert verdict(TRUTH, told | facts(file(b"/a", mode=stat.S_IFLNK)), frozenset(), untold).wrong == {
        "type": 1,
        "size": 1,
    }
    told = TRUTH | facts(Fact(b"/d", stat.S_IFDIR, 0, 0, 0, 2, 0, 0, 0, 0))
    assert verdict(TRUTH, told, frozenset(), frozenset(), folder_sizes=False).equal


def test_an_oracle_that_ends_is_told_of() -> None:
    told = table.asked("libyal", "ext", table.PAGE, "/bin/false")
    assert told.why_not == "its process ended with 1"
