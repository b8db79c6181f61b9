# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import pytest

from mover.disk.changes import ChangeMap, read_changes
from mover.errors import UsageError

ONE = {"disk": "a", "size": 100, "snapshot": "s2", "base": "s1", "ranges": [[0, 10], [90, 10], [100, 0]]}


def written(folder: Path, value: object) -> str:
    path = folder / "changes.json"
    path.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
    return str(path)


def test_one_map_or_a_list_of_them(tmp_path: Path) -> None:
    one = ChangeMap(disk="a", size=100, snapshot="s2", base="s1", ranges=((0, 10), (90, 10), (100, 0)))
    assert read_changes(written(tmp_path, ONE)) == {"a": one}
    first = {"disk": "b", "size": 5, "snapshot": "s1"}
    assert read_changes(written(tmp_path, [ONE, first])) == {"a": one, "b": ChangeMap(disk="b", size=5, snapshot="s1")}


@pytest.mark.parametrize("ranges", [[[0, 101]], [[-1, 5]], [[5, -1]], [[101, 0]], [[100, 1]], [[0, 1 << 70]]], ids=str)
def test_a_range_outside_the_disk_is_refused(tmp_path: Path, ranges: list[list[int]]) -> None:
    path = written(tmp_path, ONE | {"ranges": ranges})
    with pytest.raises(UsageError, match="outside its disk") as caught:
        read_changes(path)
    assert path in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"disk": "\xff"}',
        7,
        [7],
        {},
        ONE | {"size": "100"},
        ONE | {"ranges": [[0]]},
        ONE | {"ranges": [[0, 1, 2]]},
        ONE | {"ranges": [[0.5, 1]]},
        ONE | {"rangs": []},
    ],
    ids=str,
)
def test_what_is_no_map_is_refused_with_a_hint(tmp_path: Path, value: object) -> None:
    with pytest.raises(UsageError, match=r"malformed.*hint: a map is"):
        read_changes(written(tmp_path, value))


def test_a_disk_twice_and_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="twice"):
        read_changes(written(tmp_path, [ONE, ONE]))
    with pytest.raises(UsageError, match="cannot be read"):
        read_changes(str(tmp_path / "none"))
    with pytest.raises(UsageError, match="cannot be read"):
        read_changes(str(tmp_path))
