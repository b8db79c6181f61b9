# SPDX-License-Identifier: Apache-2.0
"""Whole trees as the kernel tells them: every attribute, name, link, extended attribute, and the content's hash."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest

from flr.blocks import MemoryDisk
from flr.fs.xfs import open_xfs
from tests.flr.corpus import mounted, truth
from tests.flr.fs.xfs import images


@pytest.fixture(autouse=True)
def _tools() -> None:
    mounted.need("mkfs.xfs")


def disk(image: Path) -> MemoryDisk:
    with open(image, "rb") as file:
        return MemoryDisk(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))  # type: ignore[arg-type]  # sliced alike


@pytest.mark.parametrize("name", images.FORMS)
def test_a_tree_is_what_the_kernel_tells(name: str) -> None:
    made = images.form(name)
    fs = open_xfs(disk(made.image))
    assert truth.differences(made.truth, truth.told(fs)) == []
    assert fs.warnings == []
