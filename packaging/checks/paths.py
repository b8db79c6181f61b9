#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Fails when a file of the tree names the machine it was made on: a build folder, a package mirror, a local index.

A lock or a script that was made beside a mirror would otherwise work there and nowhere else, or say where "there" is.

Usage: paths.py [ROOT]
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

# In pieces, so that this file passes its own check. A folder counts at the root only: "tmp/work/" is nobody's machine,
# nor is "{folder}/work/".
PATHS = re.compile(r"(?:^|[^\w./}-])(?:/(?:work|farm)/|/opt/(?:wheels|pypi))", re.MULTILINE)
# Lock files name no index at all (pip's own settings decide), or the public one.
LOCKS = re.compile(
    r"^\s*(?:-i|-f|--(?:extra-)?index-url|--find-links|--trusted-host)\b|\bfile:|"
    r'"resolved": "(?!https://registry\.npmjs\.org/)',
    re.MULTILINE,
)


def violations(root: Path) -> Iterator[str]:
    listed = subprocess.run(
        ["git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        check=True,
        stdout=subprocess.PIPE,
    )
    for name in sorted(set(listed.stdout.decode().split("\0")) - {""}):
        path = root / name
        if not path.is_file():  # deleted and not committed, or a link to nowhere
            continue
        text = path.read_bytes().decode(errors="replace")
        patterns = [PATHS]
        if name.startswith("packaging/requirements/") or name.endswith("package-lock.json"):
            patterns.append(LOCKS)
        for pattern in patterns:
            for match in pattern.finditer(text):
                line = text.count("\n", 0, match.end()) + 1
                yield f"{name}:{line}: {match[0].strip()!r} belongs to one machine"


def main() -> int:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[2]
    found = list(violations(root))
    for line in found:
        print(line, file=sys.stderr)
    if found:
        print("hint: name what everybody has: a path relative to the tree, or the public index", file=sys.stderr)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
