# SPDX-License-Identifier: Apache-2.0
"""What axe-core, a checker of accessibility, finds wrong on a page."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page

AXE = Path(__file__).parents[3] / ".azurite/node_modules/axe-core/axe.min.js"


class Axe:
    """`found`: violations by the view's name."""

    def __init__(self, page: Page) -> None:
        if not AXE.exists():
            pytest.skip("needs axe-core (make setup)")
        self._page = page
        self.found: dict[str, list[str]] = {}

    def look(self, view: str) -> None:
        if not self._page.evaluate("'axe' in window"):
            # by the debugger, which the page's policy does not bind
            self._page.evaluate(f"(() => {{ {AXE.read_text()} }})()")
        result = self._page.evaluate("axe.run({ resultTypes: ['violations'] })")
        if result["violations"]:
            self.found[view] = [
                f"{one['id']}: {one['nodes'][0]['html'][:200]} {one['nodes'][0]['any'][:1]}"
                for one in result["violations"]
            ]
