# SPDX-License-Identifier: Apache-2.0
"""Waiting for a condition, never for a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_for(
    condition: Callable[[], T], seconds: float = 90, told: Callable[[], str] = lambda: "the condition was never met"
) -> T:
    """What `condition` gives as soon as it is true; the test fails when it never is, with what is `told` then."""
    until = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < until, told()
        threading.Event().wait(0.02)
    return value
