# SPDX-License-Identifier: Apache-2.0
"""The demo's workers: processes of their own, on one queue, that are stopped politely or killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from mover.errors import MoverError

STOP_SECONDS = 30.0


class WorkerEnded(MoverError):
    """A worker ended by itself."""


class WorkerProcess:
    """`data-mover-agent` with its log in a file beside the queue."""

    def __init__(self, name: str, queue: Path, *options: str) -> None:
        self.name = name
        self.log = queue.parent / f"{name}.log"
        words = [sys.executable, "-m", "agent.daemon", "--queue", str(queue), *options]
        with self.log.open("wb") as log:
            # A session of its own: Ctrl-C is for the demo, which ends its workers itself.
            environ = {**os.environ, "DATA_MOVER_WORKER": name}
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=environ,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def check(self) -> None:
        """WorkerEnded when it is gone."""
        code = self._process.poll()
        if code is not None:
            lines = self.log.read_text(errors="replace").splitlines()
            raise WorkerEnded(f"worker {self.name} ended with {code}", lines[-1] if lines else "it said nothing")

    def kill(self) -> None:
        """SIGKILL: it cannot write another byte."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> int:
        """SIGTERM, and its exit code; killed when it does not end."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
        return self._process.returncode
