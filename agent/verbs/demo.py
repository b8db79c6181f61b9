# SPDX-License-Identifier: Apache-2.0
"""`demo`: where it takes place, and that nothing of it stays behind. What happens is `agent.demo`'s."""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from agent.figures import format_size
from agent.verbs import Surroundings, add_json
from mover.errors import UsageError

NEEDED = 3 * 1024**3
"""Bytes: the image, the repository, a restored image, the files it is made of, and room."""


def add(verbs: argparse._SubParsersAction[Any]) -> None:
    demo = verbs.add_parser("demo", help="back up a real disk image, kill the worker, resume, restore, compare")
    demo.add_argument(
        "--directory", metavar="DIR", help="an empty or new folder to do it in (default: a temporary one)"
    )
    demo.add_argument("--keep", action="store_true", help="leave image, repository, queue and logs there")
    add_json(demo)
    demo.set_defaults(run=run_demo)


def run_demo(arguments: argparse.Namespace, around: Surroundings) -> int:
    from agent.demo.disk import check_tools
    from agent.demo.story import Story

    check_tools()
    folder = _folder(arguments.directory)
    story = Story(folder, around.console, around.clock, around.cancel)
    try:
        passed = story.play()
        story.report.show(around.console)
    finally:
        if arguments.keep:
            around.console.say(f"everything is in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return 0 if passed else 1


def _folder(wanted: str | None) -> Path:
    """An empty folder with enough room."""
    try:
        if wanted is None:
            places = [Path(tempfile.gettempdir()), Path("/var/tmp")]  # noqa: S108 - mkdtemp makes a folder of our own there
            place = next((one for one in places if one.is_dir() and _free(one) >= NEEDED), places[0])
            folder = Path(tempfile.mkdtemp(prefix="data-mover-demo-", dir=place))
        else:
            folder = Path(wanted).absolute()
            folder.mkdir(parents=True, exist_ok=True)
            if any(folder.iterdir()):
                raise UsageError("the demo's folder is not empty", folder, "name an empty or a new one")
    except OSError as error:
        raise UsageError(
            "the demo's folder cannot be used", f"{wanted or ''}: {error.strerror}", "name another: --directory"
        ) from None
    if _free(folder) < NEEDED:
        value = f"{folder}: {format_size(_free(folder))} of {format_size(NEEDED)}"
        if wanted is None:
            folder.rmdir()
        raise UsageError("the demo has too little room", value, "name a folder on another disk: --directory")
    return folder


def _free(folder: Path) -> int:
    """Bytes that we may still write there."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize
