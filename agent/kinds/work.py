# SPDX-License-Identifier: Apache-2.0
"""What the functions of all kinds are given: the command, the worker's settings, where to report, whether to end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.opening import PATIENCE_SECONDS, Opened, Settings, open_repository
from agent.protocol import Command, RepositoryReference, Secret
from agent.reporter import Outcome, Reporter
from mover.errors import Cancelled

if TYPE_CHECKING:
    from mover.disk.page_blob import PageBlob


@dataclass
class Work:
    """One command being carried out. `cancelled`: it shall end, because somebody wishes it (`wished`) or because the worker stops.
    `opened`: its repository, once it is open; `close` gives it back."""

    command: Command
    settings: Settings
    reporter: Reporter
    cancelled: Callable[[], bool]
    opened: Opened | None = None
    outcome: Outcome = field(default_factory=Outcome)
    wished: Callable[[], bool] = lambda: False

    def repository(self, reference: RepositoryReference) -> Opened:
        """The repository that the command names; opened at the first call."""
        if self.opened is None:
            self.opened = open_repository(reference, self.settings)
        return self.opened

    def page_blob(self, url: Secret) -> PageBlob:
        """The caller closes it."""
        from mover.disk.page_blob import PageBlob  # a local disk does not pay for Azure's modules
        from mover.store.patience import Patience

        settings = self.settings
        return PageBlob(
            settings.secret(url),
            clock=settings.clock,
            patience=Patience(settings.clock, seconds=PATIENCE_SECONDS, cancel=settings.cancel),
            heard=lambda: settings.heard("disk"),
        )

    def check(self) -> None:
        """Cancelled when the command shall end."""
        if self.cancelled():
            raise Cancelled("the command was cancelled", self.command.job)

    def close(self) -> None:
        if self.opened is not None:
            self.opened.repository.store.close()
