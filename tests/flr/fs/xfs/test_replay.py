# SPDX-License-Identifier: Apache-2.0
"""The log's replay: at random moments of a busy file system, what we tell is what the kernel tells after its own replay."""

from __future__ import annotations

from pathlib import Path

import pytest

from flr.fs.xfs import open_xfs
from tests.flr.corpus import busy, mounted, uml
from tests.flr.fs.xfs import images

BUSY = {
    # the default; a log that wraps (mkfs wants 64 MiB otherwise), in records of the largest size; other structures and sizes
    "default": (20, (), ""),
    "wrapping": (18, ("--unsupported", "-l", "size=8m"), "logbsize=256k"),
    "small-blocks": (14, ("-b", "size=1024", "-m", "rmapbt=1", "-i", "nrext64=1"), "logbsize=64k"),
    "stripes": (6, ("-l", "su=256k"), ""),
    "large-sectors": (6, ("-s", "size=4096", "-n", "size=16384"), ""),
}


QUICK = "wrapping"
"""What a short run takes; `make test-all` has them all."""


@pytest.mark.parametrize("name", [QUICK, *(pytest.param(one, marks=pytest.mark.slow) for one in BUSY if one != QUICK)])
def test_every_moment_of_a_busy_file_system_is_told_as_the_kernel_replays_it(name: str, tmp_path: Path) -> None:
    mounted.need("mkfs.xfs")
    count, mkfs, options = BUSY[name]
    moments = busy.moments(
        tmp_path, ["mkfs.xfs", "-q", *mkfs], count, seed=len(name), options=options, replay="noatime,nouuid"
    )
    needed = busy.compared(moments, open_xfs)
    assert needed > count / 2  # otherwise the above would prove little


@pytest.mark.slow
def test_a_log_of_version_4_is_told_as_another_kernel_replays_it() -> None:
    uml.need("mkfs.xfs")
    needed = busy.compared(images.v4_busy(), open_xfs)
    assert needed == images.V4_MOMENTS
