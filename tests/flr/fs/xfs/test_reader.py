# SPDX-License-Identifier: Apache-2.0
"""Whole trees as the kernel tells them: every attribute, name, link, extended attribute, and the content's hash."""

from __future__ import annotations

import pytest

from flr.fs.xfs import open_xfs, superblock
from tests.flr.corpus import mounted, truth, uml
from tests.flr.corpus.image import CHUNK, Image, opened
from tests.flr.fs.xfs import images


@pytest.fixture(autouse=True)
def _tools() -> None:
    mounted.need("mkfs.xfs")


@pytest.mark.parametrize("name", images.FORMS)
def test_a_tree_is_what_the_kernel_tells(name: str) -> None:
    made = images.form(name)
    with opened(made.image) as disk:
        fs = open_xfs(disk)
        assert truth.differences(made.truth, truth.told(fs)) == []
        assert fs.warnings == []
        assert fs.about.journal == "clean"


@pytest.mark.parametrize(
    "name", [pytest.param(v4, marks=[pytest.mark.slow] if k else []) for k, v4 in enumerate(images.V4)]
)
def test_a_tree_of_version_4_is_what_another_kernel_tells(name: str) -> None:
    uml.need()
    made = images.v4(name)
    with opened(made.image) as disk:
        fs = open_xfs(disk)
        assert truth.differences(made.truth, truth.told(fs)) == []
        assert fs.warnings == []
        assert fs.about.journal == "clean"


def test_a_large_folder_costs_few_reads_of_few_chunks() -> None:
    image = Image(images.wide())
    fs = open_xfs(image)
    sb, _ = superblock.find(image)
    [wide] = fs.entries(fs.root()).entries
    assert wide.attributes is not None
    inodes: set[int] = set()
    cursor: int | None = 0
    pages = count = 0
    image.reads, image.hints, image.chunks = 0, 0, set()
    while cursor is not None:
        listing = fs.entries(wide.attributes.node, cursor)
        for entry in listing.entries:
            assert entry.attributes is not None
            inodes.add((sb.inode_offset(entry.number) or 0) >> CHUNK)
        count += len(listing.entries)
        pages, cursor = pages + 1, listing.cursor
    assert count == images.WIDE
    assert image.hints == 2 * pages  # the folder's blocks, then their inodes
    assert len(image.chunks - inodes) <= 3  # the folder itself: 1 MiB
    assert image.reads < images.WIDE / 100  # an inode is not read alone
