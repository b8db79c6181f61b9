# SPDX-License-Identifier: Apache-2.0
"""The real code, made small: blocks of 64 bytes, pages of two blocks, packs of two frames, and ids that a seed decides.

Sizes are constants of the format; no rule hangs on them, and a world in miniature has several packs and pages after a dozen
requests. The pipeline's stages run in the caller's thread, one range after the other; everything else is the code as it is. A
patch that meets no name raises, so a change of the code under test is noticed here.
"""

from __future__ import annotations

import functools
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import mover.backup
import mover.disk_backup
import mover.disk_restore
import mover.keeper
import mover.pipeline
import mover.repository.descriptor
import mover.repository.hold
import mover.repository.index
import mover.repository.index_run
import mover.repository.leased
import mover.repository.map_store
import mover.repository.maps
import mover.repository.names
import mover.repository.packer
import mover.repository.session
import mover.restore
from mover.pipeline import Pipeline
from mover.repository.index import DedupeView
from mover.repository.session import SessionSettings
from tests.world.baton import Baton, threading_of

BLOCK = 64
PAGE = 2
PACK = 300  # two frames of incompressible blocks


class InlinePipeline(Pipeline):
    """The stages of `Pipeline` without its threads."""

    def run(self, between: Callable[[], None]) -> None:
        while not self._lanes.all_fed():
            lane = self._lanes.hungry(0.0)
            assert lane is not None
            try:
                run = next(lane.runs)
            except StopIteration:
                self._lanes.fed(lane)
                continue
            if run is None:
                continue
            buffers = self._buffers(lane, run)
            lane.source.read_into(run.first * BLOCK, buffers)
            self._process(lane, run, buffers)
            between()


class PlannedPacing:
    """Checkpoints where the world's schedule wants them: `wanted` is asked between ranges."""

    wanted: Callable[[], bool] = staticmethod(lambda: False)

    def __init__(self, seconds: float, now: Callable[[], float]) -> None:
        pass

    def due(self, unpublished: int) -> bool:
        return PlannedPacing.wanted()

    def done(self) -> None:
        pass


@contextmanager
def miniature(baton: Baton, seed: int, *, remote_index: bool = False) -> Iterator[None]:
    """Everything above, while it lasts. `remote_index`: index runs are never held whole."""
    rng = random.Random(seed)
    ids = SimpleNamespace(token_hex=lambda size: rng.randbytes(size).hex())
    threads = threading_of(baton)
    view: Any = _remote_view if remote_index else DedupeView
    small: list[tuple[Any, str, Any]] = [
        (mover.repository.names, "secrets", ids),
        (mover.pipeline, "ZERO", bytes(BLOCK)),
        (mover.pipeline, "RANGE_BLOCKS", 1),
        *_everywhere("FETCH_BYTES", 4096),
        (mover.backup, "SessionSettings", functools.partial(SessionSettings, pack_size=PACK, index_threads=1)),
        (mover.repository.session, "DedupeView", view),
        (mover.repository.hold, "Hold", functools.partial(mover.repository.hold.Hold, poll_seconds=0.0)),
        *_everywhere("BLOCK_SIZE", BLOCK, but=mover.repository.descriptor),
        *_everywhere("PAGE_BLOCKS", PAGE),
        *_everywhere("Pipeline", InlinePipeline, but=mover.pipeline),
        *_everywhere("Pacing", PlannedPacing),
    ]
    modules = (
        mover.keeper,
        mover.repository.index,
        mover.repository.index_run,
        mover.repository.leased,
        mover.repository.map_store,
        mover.repository.packer,
        mover.repository.session,
    )
    small += [(module, "threading", threads) for module in modules]
    with ExitStack() as stack:
        for module, name, value in small:
            stack.enter_context(mock.patch.object(module, name, value))
        # a new root knows the block size by a default that was bound when the class was made
        stack.enter_context(mock.patch.object(mover.repository.maps.Root, "__init__", _root_init))
        yield


def _everywhere(name: str, value: Any, but: ModuleType | None = None) -> list[tuple[Any, str, Any]]:
    """The name in every module of `mover` that has it."""
    loaded = [module for path, module in sys.modules.items() if path.startswith("mover.") and module is not but]
    having = [(module, name, value) for module in loaded if hasattr(module, name)]
    assert having, name
    return having


def _remote_view(*arguments: Any, **options: Any) -> DedupeView:
    return DedupeView(*arguments, **(options | {"small_run": 0, "resident_bytes": 0}))


def _root_init(self: Any, size: int, covered: int, pages: Any = None, block_size: int = BLOCK) -> None:
    self.size, self.covered, self.block_size = size, covered, block_size
    self.pages = [] if pages is None else pages
