# SPDX-License-Identifier: Apache-2.0
"""The journal's replay: at random moments of a busy file system, what we tell is what the kernel tells after its own replay."""

from __future__ import annotations

from pathlib import Path

import pytest

from flr.fs.ext.open import open_ext
from tests.flr.corpus import busy, mounted, truth
from tests.flr.corpus.image import opened
from tests.flr.fs.ext import images

BUSY: dict[str, tuple[int, list[str], str]] = {
    # the default; contents in the journal, too; a journal that wraps; the older checksum of whole transactions; ext3
    "default": (20, ["mkfs.ext4"], ""),
    "contents": (10, ["mkfs.ext4", "-O", "inline_data,ea_inode"], "data=journal"),
    "wrapping": (14, ["mkfs.ext4", "-b", "1024", "-J", "size=2"], ""),
    "checksums": (10, ["mkfs.ext4", "-O", "^metadata_csum,^64bit"], "journal_checksum"),
    "ext3": (8, ["mkfs.ext3", "-J", "size=4"], ""),
}


QUICK = "wrapping"
"""What a short run takes; `make test-all` has them all."""


@pytest.mark.parametrize("name", [QUICK, *(pytest.param(one, marks=pytest.mark.slow) for one in BUSY if one != QUICK)])
def test_every_moment_of_a_busy_file_system_is_told_as_the_kernel_replays_it(name: str, tmp_path: Path) -> None:
    mounted.need("mkfs.ext4", "mkfs.xfs")
    count, mkfs, options = BUSY[name]
    moments = busy.moments(tmp_path, [*mkfs, "-q"], count, seed=len(name), options=options, size=96 << 20)
    needed = busy.compared(moments, open_ext)
    assert needed > count / 2  # otherwise the above would prove little


def test_fast_commits_of_the_kernel_are_told_and_left_out() -> None:
    """Ours is the moment before them, and says so: without that, nobody would know that changes are missing."""
    mounted.need("mkfs.ext4", "mkfs.xfs")
    made = images.fast_commits()
    with opened(made.image) as disk:
        fs = open_ext(disk)
        assert truth.differences(made.truth, truth.told(fs)) != []
        assert fs.about.journal.startswith("replayed: ")
        assert [warning for warning in fs.warnings if "fast commits, which are not replayed" in warning] == fs.warnings
