# SPDX-License-Identifier: Apache-2.0
"""What can go wrong when a guest's disk is looked into; the form is `mover.errors`'s: what, value, hint, exit code.

A guest's disk is hostile or damaged until it is shown to be neither: whatever a reader finds impossible leaves it as one of
these, never as an IndexError, a struct.error or a RecursionError. Values are names and numbers, safe to be printed.
"""

from __future__ import annotations

from mover.errors import MoverError


class RecoveryError(MoverError):
    """Base of all that file-level recovery raises."""

    hint_default = "`data-mover files volumes` shows what was found on the disks"


class Corrupt(RecoveryError):
    """A structure says something impossible. What it describes cannot be read; its neighbours may be."""

    exit_code = 5
    hint_default = (
        "this part of the guest's file system is damaged; other files, or another restore point, may be whole"
    )


class OutOfBounds(Corrupt):
    """Something points outside of the volume that it stands in, or the image is cut."""

    hint_default = "the image is shorter than its structures say, or they are damaged; try another restore point"


class Unreadable(RecoveryError):
    """The disk's bytes themselves cannot be had: a damaged chunk of the repository, a bad sector of an image."""

    exit_code = 5
    hint_default = "what lies elsewhere can be read; try another restore point, and run a health check"


class Unsupported(RecoveryError):
    """Understood well enough to know that it cannot be read here."""

    exit_code = 5
    hint_default = "restore the whole disk and open it on a machine that knows this format"


class NotRecognised(Unsupported):
    """Nothing that is known begins here."""


class Missing(RecoveryError):
    """A disk that a volume stands on is not in this restore point."""

    exit_code = 5
    hint_default = "choose a restore point that has all disks of the machine"


class TooMuch(RecoveryError):
    """A limit that keeps a session alive was reached: size, depth, entries, time."""

    exit_code = 5
    hint_default = "the file system may be damaged on purpose; restore the whole disk to look at it"


class NodeNotFound(RecoveryError):
    """No such file, folder or volume, or not the one that was meant: its number is used again."""

    exit_code = 4
    hint_default = "list the folder again"


class WrongKind(RecoveryError):
    """A file where a folder was wanted, or the other way round."""

    exit_code = 2
    hint_default = "`data-mover files list` shows what is a folder and what a file"
