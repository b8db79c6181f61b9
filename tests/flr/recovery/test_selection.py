# SPDX-License-Identifier: Apache-2.0
"""Where the items of a selection stand in an archive: each file once, in one order, nothing in two places."""

from __future__ import annotations

import stat

from hypothesis import given
from hypothesis import strategies as st

from flr.fs.base import Attributes
from flr.recovery.basket import Item
from flr.recovery.selection import sources

PART = st.sampled_from([b"a", b"b", b"a-b", b"a.b", b"a b", b"A", b"\xff"])
PATHS = st.lists(
    st.lists(PART, min_size=1, max_size=4).map(lambda parts: b"/" + b"/".join(parts)), min_size=1, max_size=12
)


def item(point: str, volume: str, path: bytes, folder: bool) -> Item:
    mode = stat.S_IFDIR if folder else stat.S_IFREG
    return Item(0, point, volume, path, Attributes(1, 0, mode | 0o755, 1, 0, 0, 0, 0, 0, 0, 0, 0))


@given(paths=PATHS, volumes=st.lists(st.sampled_from(["0", "0p1"]), min_size=1, max_size=12))
def test_everything_comes_once(paths: list[bytes], volumes: list[str]) -> None:
    chosen = {(volumes[k % len(volumes)], path) for k, path in enumerate(paths)}
    folders = {
        one for one in chosen if any(other[0] == one[0] and other[1].startswith(one[1] + b"/") for other in chosen)
    }
    items = [item("p", volume, path, (volume, path) in folders) for volume, path in chosen]
    found = sources(items)
    kept = [(source.volume, one.path) for source in found for _, one in source.items]
    assert len(set(kept)) == len(kept)
    for volume, path in chosen:  # by itself, or within a folder that is kept
        above = [one for one in kept if one[0] == volume and (path == one[1] or path.startswith(one[1] + b"/"))]
        assert len(above) == 1, (volume, path, kept)
    places = [place for source in found for place, _ in source.items]
    assert len(set(places)) == len(places)
    for source in found:  # a folder that was left does not come again
        left: set[tuple[bytes, ...]] = set()
        before: tuple[bytes, ...] = ()
        for place, _ in source.items:
            now = place[:-1]
            left |= {before[:k] for k in range(1, len(before) + 1) if now[:k] != before[:k]}
            assert not any(now[:k] in left for k in range(1, len(now) + 1)), (place, left)
            before = now


def test_items_of_one_folder_keep_their_names() -> None:
    found = sources([item("p", "0", b"/home/anna/x", False), item("p", "0", b"/home/anna/y", True)])
    assert [place for place, _ in found[0].items] == [(b"x",), (b"y",)]


def test_a_whole_volume_is_called_by_its_id() -> None:
    assert [place for place, _ in sources([item("p", "0p1", b"/", True)])[0].items] == [(b"0p1",)]


def test_several_points_and_volumes_are_told_apart() -> None:
    found = sources([item("p", "0", b"/x", False), item("q", "1", b"/x", False)])
    assert [place for source in found for place, _ in source.items] == [(b"p", b"0", b"x"), (b"q", b"1", b"x")]
