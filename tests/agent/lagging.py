# SPDX-License-Identifier: Apache-2.0
"""A worker whose clocks are wrong, as of a VM that was frozen: `python -m tests.agent.lagging FILE WORDS OF data-mover-agent`.

FILE, once it is there, holds two numbers: by how many seconds CLOCK_BOOTTIME lags, and by how many the wall clock is ahead.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from agent.daemon import main
from mover.clock import SystemClock


def shift(file: Path) -> tuple[float, float]:
    try:
        lag, ahead = file.read_text().split()
        return float(lag), float(ahead)
    except FileNotFoundError:
        return 0.0, 0.0


if __name__ == "__main__":
    place = Path(sys.argv[1])
    SystemClock.monotonic = lambda self: time.clock_gettime(time.CLOCK_BOOTTIME) - shift(place)[0]  # type: ignore[method-assign]
    SystemClock.wall = lambda self: time.time() + shift(place)[1]  # type: ignore[method-assign]
    sys.exit(main(sys.argv[2:]))
