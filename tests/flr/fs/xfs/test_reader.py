# SPDX-License-Identifier: Apache-2.0
"""Whole trees as the kernel tells them: every attribute, name, link, extended attribute, and the content's hash."""

from __future__ import annotations

import pytest

from flr.fs.xfs import open_xfs
from tests.flr.corpus import mounted, truth, uml
from tests.flr.corpus.image import opened
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


@pytest.mark.parametrize("name", images.V4)
def test_a_tree_of_version_4_is_what_another_kernel_tells(name: str) -> None:
    uml.need()
    made = images.v4(name)
    with opened(made.image) as disk:
        fs = open_xfs(disk)
        assert truth.differences(made.truth, truth.told(fs)) == []
        assert fs.warnings == []
        assert fs.about.journal == "clean"
