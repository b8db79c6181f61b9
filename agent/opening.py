# SPDX-License-Identifier: Apache-2.0
"""A repository as a command names it, opened: the store with its wrappers, and the meter that counted from the first request.

From inside out: the store, the meter (it counts attempts, which is what a store bills), retry, limit.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from agent import passwords
from agent.protocol import CollectLogsPayload, RepositoryReference, Secret
from mover.clock import SYSTEM, Clock
from mover.errors import ObjectNotFound, RepositoryNotFound, UsageError
from mover.repository.names import request_class
from mover.repository.repository import Repository
from mover.store.base import Store
from mover.store.limit import LimitStore
from mover.store.meter import MeterStore
from mover.store.open import open_store, redact
from mover.store.retry import RetryStore

if TYPE_CHECKING:
    from agent.kinds.work import Work

PATIENCE_SECONDS, VERB_PATIENCE_SECONDS = 300.0, 20.0
"""How long a store may fail in a row: during work, and when somebody at a terminal opens it (a mistyped host never answers)."""
CHECKPOINT_SECONDS = 30.0
"""As `mover.disk_backup.CHECKPOINT_SECONDS`, which costs an import of the whole pipeline."""


@dataclass(frozen=True)
class Settings:
    """What a worker or a verb brings to every command: its own name, its environment, its limits, its keys.

    `checkpoint_seconds`: the shortest time between two checkpoints. `bandwidth`: bytes a second, up and down each; None:
    no limit. `opening_patience`: seconds for which a store may not answer at first. `cancel` ends waits for the store at
    once. `memory`: bytes that one backup may ask for; None: what it asks for. `reveal` turns a secret of a command
    into its text. `collect_logs`: how this worker does it. `heard` is told each operation that a store answered.
    """

    worker: str = ""
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    clock: Clock = SYSTEM
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    bandwidth: int | None = None
    opening_patience: float = PATIENCE_SECONDS
    cancel: threading.Event = field(default_factory=threading.Event)
    memory: int | None = None
    reveal: Callable[[Secret], str] | None = None
    collect_logs: Callable[[Work, CollectLogsPayload], None] | None = None
    heard: Callable[[str], None] = lambda operation: None

    def secret(self, place: Secret) -> str:
        return self.reveal(place) if self.reveal is not None else passwords.read(place, self.environ)


@dataclass(frozen=True)
class Opened:
    """A context manager: at its end connections are given back."""

    repository: Repository
    meter: MeterStore

    def __enter__(self) -> Opened:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.repository.store.close()


def open_metered(url: str, settings: Settings, patience: float = PATIENCE_SECONDS) -> tuple[Store, MeterStore]:
    """The store to use, and the meter within it."""
    if "?" in url or "#" in url:
        hint = "commands carry no secrets: give a SAS in the worker's DATA_MOVER_SAS or DATA_MOVER_SAS_FILE"
        raise UsageError("a repository's URL with a query", redact(url), hint)
    inner = open_store(url, settings.environ, settings.clock, settings.cancel)
    meter = MeterStore(inner, request_class, settings.clock, settings.heard)
    store: Store = RetryStore(meter, settings.clock, patience=patience, cancel=settings.cancel)
    if settings.bandwidth is not None:
        store = LimitStore(store, settings.bandwidth, settings.clock, cancel=settings.cancel)
    return store, meter


def open_repository(reference: RepositoryReference, settings: Settings) -> Opened:
    """UsageError, WrongPassword, RepositoryNotFound (with the URL), Damaged, UnsupportedFormat, AccessDenied."""
    place = reference.password or passwords.default(settings.environ)
    password = settings.secret(place) if place is not None else None
    if reference.sas is not None:
        settings = replace(settings, environ={**settings.environ, "DATA_MOVER_SAS": settings.secret(reference.sas)})
    store, meter = open_metered(reference.url, settings)
    first = RetryStore(meter, settings.clock, patience=settings.opening_patience, cancel=settings.cancel)
    try:
        found = Repository.open(first, password=password, clock=settings.clock)
        return Opened(Repository(store, found.descriptor, found.keys, settings.clock), meter)
    except BaseException as error:
        store.close()
        if isinstance(error, RepositoryNotFound | ObjectNotFound):
            raise RepositoryNotFound("there is no repository", redact(reference.url)) from None
        raise


def reference(url: str, password: Secret | None) -> RepositoryReference:
    if not url:
        hint = "give --repository URL, or set DATA_MOVER_REPOSITORY"
        raise UsageError("no repository was named", "", hint)
    return RepositoryReference(url=url, password=password)


def state_url(where: str) -> str:
    """The state store that goes with a queue unless another is named: a folder beside a SQLite file. UsageError for Azure's."""
    path = where.removeprefix("sqlite://")
    if "://" in path:
        hint = "name a container and a folder: --state, DATA_MOVER_STATE, or state.url in the worker's configuration"
        raise UsageError("a queue in Azure needs a state store", redact(where), hint)
    return Path(os.path.abspath(path) + ".state").as_uri()
