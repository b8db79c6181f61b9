# SPDX-License-Identifier: Apache-2.0
"""Writes docs/configuration.md of the options that a worker has; with --check it ends with 1 when the page is another."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from agent.config import page  # noqa: E402

PAGE = ROOT / "docs/configuration.md"


def main() -> int:
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(page())
        return 0
    if not PAGE.exists() or PAGE.read_text() != page():
        print("docs/configuration.md is not what the options say; hint: python packaging/configuration_page.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
