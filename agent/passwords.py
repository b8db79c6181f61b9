# SPDX-License-Identifier: Apache-2.0
"""Where a verb's secret comes from, mostly a repository's password: a file, a descriptor, the environment, Key Vault; never an
argument or a command.

A password is read at the last moment and shown nowhere: errors name the place it was to come from.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from agent.protocol import Secret
from mover.errors import UsageError

VARIABLE, FILE_VARIABLE = "DATA_MOVER_PASSWORD", "DATA_MOVER_PASSWORD_FILE"
LONGEST = 4096
_HINT = "the file holds the secret and nothing else, in UTF-8; a line's end at its end does not count"


def reference(file: str | None, descriptor: str | None, environ: Mapping[str, str]) -> Secret | None:
    """What a verb was told: --password-file or --password-fd first, then the environment; None: nothing was said."""
    if file is not None and descriptor is not None:
        raise UsageError("a password from two places", "--password-file and --password-fd", "give one of them")
    if descriptor is not None:
        if not (descriptor.isascii() and descriptor.isdigit()):  # not shown: it may be the password itself
            raise UsageError("not a descriptor's number", "--password-fd", "--password-fd 3 3< FILE")
        return Secret(file=f"/dev/fd/{int(descriptor)}")
    if file is None:
        return default(environ)
    if not file:
        raise UsageError("an empty path of a password file", "--password-file")
    return Secret(file=os.path.abspath(file))


def default(environ: Mapping[str, str]) -> Secret | None:
    """What the environment of this process says, for commands that say nothing."""
    if path := environ.get(FILE_VARIABLE):
        return Secret(file=os.path.abspath(path))
    return Secret(environment=VARIABLE) if environ.get(VARIABLE) else None


def read(place: Secret, environ: Mapping[str, str]) -> str:
    """The secret that `place` names; one that is in a command itself is not for this function (`agent.seal`)."""
    if place.environment is not None:
        value = environ.get(place.environment, "")
        if not value:
            hint = "set it in this process's environment, or name a file"
            raise UsageError("the secret's variable is not set", place.environment, hint)
        return value
    if place.vault is not None:
        from agent import key_vault

        return key_vault.read(place.vault)
    if place.file is None:
        hint = "submit the command to a worker, or name a file or a variable"
        raise UsageError("a secret within a command is for a worker that may take it", repr(place), hint)
    path = place.file
    try:
        with open(path, "rb") as file:
            data = file.read(LONGEST + 1)
    except OSError as error:
        hint = "check the path and your rights to it"
        raise UsageError("the secret's file cannot be read", f"{path}: {os.strerror(error.errno or 0)}", hint) from None
    if len(data) > LONGEST:
        raise UsageError("the secret's file is too large", f"{path}: over {LONGEST} bytes", _HINT)
    data = data.removesuffix(b"\n").removesuffix(b"\r")
    if not data:
        raise UsageError("the secret's file is empty", path, _HINT)
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise UsageError("the secret's file is not UTF-8", path, _HINT) from None
