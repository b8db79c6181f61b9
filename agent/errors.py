# SPDX-License-Identifier: Apache-2.0
"""What can go wrong with commands and queues, in the terms of `mover.errors` (what, value, hint, exit code)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mover.errors import MoverError, UsageError

if TYPE_CHECKING:
    from agent.records import JobRecord

EXIT_STOPPED = 75
"""Exit code of a worker that was ended before it could end in good order (EX_TEMPFAIL of sysexits.h)."""
EXIT_IDLE = 76
"""Exit code of a worker that had nothing to do for worker.idle_exit seconds: its unit does not start it again."""
EXIT_UNEXPECTED = 70
"""Exit code of a defect of ours (EX_SOFTWARE of sysexits.h): an exception that is no MoverError."""


class ConfigurationError(UsageError):
    hint_default = "`data-mover-agent --print-config` shows every option; docs/configuration.md explains them"


class CommandRefused(UsageError):
    """The command is not carried out: malformed, of an unknown kind, of a newer schema, or expired. Nothing was done.

    `command`, `job` and `reply` are the command's where it could be read, and came from someone who may command.
    """

    def __init__(self, what: str, value: object = "", hint: str = "") -> None:
        super().__init__(what, value, hint)
        self.command = self.job = ""
        self.reply: str | None = None


class Forged(CommandRefused):
    """Not from an appliance that this worker trusts, or altered on the way."""

    exit_code = 3
    hint_default = "only the appliance whose key this worker's configuration names may command it"


class Misaddressed(CommandRefused):
    hint_default = "put it into the queue that it is for"


class Expired(CommandRefused):
    hint_default = "issue it again"


class SealedForAnother(MoverError):
    """A secret that another worker can open; the command may find its way there."""

    exit_code = 3
    hint_default = (
        "seal it to the keys of the workers that are there: their `ready` events and `data-mover jobs` tell them"
    )


class QueueError(MoverError):
    """The queue cannot be used as asked."""

    exit_code = 7
    hint_default = "check the queue's path, its disk's space and your rights to it"


class QueueUnavailable(QueueError):
    """The queue service did not answer, or asked to wait; the same call may succeed later. `wait`: seconds it asked for."""

    hint_default = "the queue's service does not answer; it is asked again"

    def __init__(self, what: str, value: object = "", hint: str = "", *, wait: float = 0.0) -> None:
        super().__init__(what, value, hint)
        self.wait = wait


class QueueMissing(QueueError):
    """There is no such queue."""

    exit_code = 4
    hint_default = "check the queue's name; a worker with the right to do so makes its queues when it starts"


class StaleReceipt(QueueError):
    """The message was given to another worker since, or is done: this one's work on it must stop."""

    exit_code = 6
    hint_default = "another worker has the command now; nothing is to be done here"


class JobNotFound(MoverError):
    exit_code = 4
    hint_default = "`data-mover submit` prints the job of every command that it puts into the queue"


class JobBusy(MoverError):
    """Another worker holds the job. `holder`: its record, as far as it could be read."""

    exit_code = 6
    hint_default = "the command waits until the other worker is done, or its lease lapses"

    def __init__(self, what: str, value: object = "", hint: str = "", *, holder: JobRecord | None = None) -> None:
        super().__init__(what, value, hint)
        self.holder = holder


class Poisoned(MoverError):
    """A command that ended its workers again and again."""

    exit_code = 6
