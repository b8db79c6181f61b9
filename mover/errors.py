# SPDX-License-Identifier: Apache-2.0
"""Every error that leaves this package: what happened, the value, a hint, and the exit code of a command that ends by it.

Not here: programming errors (ValueError, TypeError), which are bugs and keep their traces. No error carries a secret:
a value shown is a name, a place, a size or a count, never a key, a password or the query string of a URL.
"""

from __future__ import annotations

from typing import ClassVar


class MoverError(Exception):
    """Base of all. `what` is a sentence without a full stop, `value` what it was about, `hint` what to do now."""

    exit_code: ClassVar[int] = 1
    hint_default: ClassVar[str] = (
        "docs/operations.md may say more; if it does not, report what was done and this message"
    )

    def __init__(self, what: str, value: object = "", hint: str = "") -> None:
        self.what = what
        self.value = str(value)
        self.hint = hint or self.hint_default
        super().__init__(what, self.value, self.hint)

    @property
    def type(self) -> str:
        """The name of what it is, for machines."""
        return type(self).__name__

    def __str__(self) -> str:
        text = f"{self.what}: {self.value}" if self.value else self.what
        return f"{text} (hint: {self.hint})" if self.hint else text


class UsageError(MoverError):
    """The request cannot be carried out as it is worded."""

    exit_code = 2
    hint_default = "`data-mover VERB --help` and docs/operations.md show how it is worded"


# -- stores ---------------------------------------------------------------------------------------------------------


class StoreError(MoverError):
    """The store refused or failed; nothing is known to have changed unless a subclass says otherwise."""

    hint_default = "check the repository's folder or container and your rights to it, then issue the same command again"


class ObjectNotFound(StoreError):
    """No such object."""

    exit_code = 4
    hint_default = "check the repository's URL; if it is right, an object is missing: run a health check"


class ObjectExists(StoreError):
    """Put-if-absent found the name taken."""

    exit_code = 6
    hint_default = "another process was faster; issue the same command again"


class ConditionFailed(StoreError):
    """The ETag named is not the object's."""

    exit_code = 6
    hint_default = "another process changed it meanwhile; issue the same command again"


class LeaseConflict(StoreError):
    """Another holder's lease is active on the object, and the request did not name it."""

    exit_code = 6
    hint_default = "another worker is at it; issue the same command again when its lease has lapsed, a minute at most"


class LeaseLost(StoreError):
    """The lease named is not the object's active lease: it lapsed, was broken, or another one was taken since."""

    exit_code = 6
    hint_default = "another worker has taken over; issue the same command again"


class ShortObject(StoreError):
    """A range that the object does not have was asked for: it is shorter than what named the range."""

    exit_code = 5
    hint_default = "the object is cut: restore another point of the resource, and run a health check"


class NotARecord(StoreError):
    """What stands under a record's name is none: damaged, or put there by somebody else."""

    exit_code = 5
    hint_default = "put a copy of the object back, or restore another point; then run a health check"


class AccessDenied(StoreError):
    """The store knows the caller and says no, or does not know the caller (expired SAS, wrong key)."""

    exit_code = 3
    hint_default = "check the SAS, key or identity and its permissions; docs/operations.md lists what each verb needs"


class SasExpired(AccessDenied):
    """The SAS's time is over by the store's own clock."""

    hint_default = "give a new SAS and issue the same command again: it goes on"


class StoreFull(StoreError):
    """No space or quota left."""

    exit_code = 7
    hint_default = "free space or raise the quota, then issue the same command again: it resumes"


class StoreUnavailable(StoreError):
    """A transient failure outlived its retries (time-out, throttling, broken connection, server error)."""

    exit_code = 7
    hint_default = "issue the same command again when the store answers: it resumes"


# -- repository -----------------------------------------------------------------------------------------------------


class RepositoryError(MoverError):
    """The repository cannot be used as asked."""

    hint_default = "`data-mover points` shows what the repository holds"


class RepositoryNotFound(RepositoryError):
    exit_code = 4
    hint_default = "check the URL; `data-mover repo create URL` makes a new repository"


class RepositoryExists(RepositoryError):
    exit_code = 6
    hint_default = "choose another folder, or use the repository that is there"


class WrongPassword(RepositoryError):
    exit_code = 3
    hint_default = "nothing was touched; give the repository's password by --password-file or DATA_MOVER_PASSWORD_FILE"


class UnsupportedFormat(RepositoryError):
    """A version or feature flag that this release does not know: refused, never guessed."""

    exit_code = 5
    hint_default = "use a release that knows this format"


class Damaged(RepositoryError):
    """Stored bytes are not what was written. `place` names object and offset."""

    exit_code = 5
    hint_default = "restore another point of the resource, and run a health check"


class MissingObject(Damaged):
    """An object that something committed refers to is not there, and the collector does not say that it is gone."""


class PointNotFound(RepositoryError):
    exit_code = 4
    hint_default = "`data-mover points` lists what there is"


class PointGone(RepositoryError):
    """The point was deleted by retention while (or before) it was read."""

    exit_code = 4
    hint_default = "`data-mover points` lists what is left"


class OwnershipChanged(RepositoryError):
    exit_code = 6
    hint_default = "another appliance took ownership of this repository; it must issue the commands now"


class SessionBusy(RepositoryError):
    """The point's session is open and its holder is alive."""

    exit_code = 6
    hint_default = "another worker is at it; wait for it to end, or issue the command again when its lease has lapsed"


class SessionLost(RepositoryError):
    """This incarnation no longer holds its session: fenced, adopted or aborted. Final for this process's attempt."""

    exit_code = 6
    hint_default = "nothing of this attempt became visible; issue the same command again to resume"


class SessionEnded(RepositoryError):
    """The session was aborted: its point will never exist."""

    exit_code = 6
    hint_default = "issue the backup under a new job id"


class Cancelled(MoverError):
    exit_code = 8
    hint_default = "issue the same command again to go on from its last checkpoint"


# -- sources, targets -----------------------------------------------------------------------------------------------


class SourceError(MoverError):
    """The disk to read cannot be read as asked."""

    hint_default = "check the disk's path, what kind of file it is, and your rights to it"


class SourceChanged(SourceError):
    hint_default = "back up a snapshot, not a disk that is being written"


class TargetError(MoverError):
    """The place to write cannot be written as asked."""

    hint_default = "check the target's path, its file system, and your rights to it"


class VerifyFailed(TargetError):
    """What was read back is not what was written."""

    exit_code = 5
    hint_default = "the target returned other bytes than were written to it: restore to another target"


class CodecFailed(MoverError):
    """A frame did not decode to what it was made from; it was not uploaded."""

    exit_code = 5
    hint_default = "this worker's memory, processor or codec library is not to be trusted: replace the worker"
