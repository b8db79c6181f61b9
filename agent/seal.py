# SPDX-License-Identifier: Apache-2.0
"""Secrets within commands: sealed to workers' public keys, opened by one of them, withheld from copies that are kept.

A random content key seals the text (AES-256-GCM, the command's id as associated data: a secret cannot be moved to another
command); for each worker an exchange of its own (X25519 with a fresh key, HKDF-SHA256) wraps the content key. `Revealer` is the one
place where a secret of a command becomes text.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from agent import passwords
from agent.errors import CommandRefused, SealedForAnother
from agent.protocol import Command, Sealed, SealedKey, Secret
from agent.signing import RAW, key_id, read_private, write_private
from mover.errors import UsageError

INFO = b"data-mover seal 1"
_WRAP_NONCE = bytes(12)  # each wrapping key is used once
_T = TypeVar("_T")


class SealKey:
    """A worker's X25519 key. Its `repr` shows which, not what."""

    def __init__(self, key: X25519PrivateKey) -> None:
        self._key = key
        self.public = key.public_key().public_bytes(*RAW)
        self.id = key_id(self.public)

    def __repr__(self) -> str:
        return f"SealKey({self.id})"

    @classmethod
    def generate(cls) -> SealKey:
        return cls(X25519PrivateKey.generate())

    @classmethod
    def load(cls, path: str) -> SealKey:
        """From a file of 32 bytes that only its owner can read; made when it is not there."""
        if not os.path.exists(path):
            made = cls.generate()
            write_private(path, made._key.private_bytes_raw())
            return made
        raw = read_private(path)
        if len(raw) != 32:
            raise UsageError(
                "not a key that secrets are sealed to", f"{path}: {len(raw)} bytes", "move it away: a new one is made"
            )
        return cls(X25519PrivateKey.from_private_bytes(raw))

    def open(self, sealed: Sealed, context: str) -> str:
        """The text. SealedForAnother when this key is not among its recipients, CommandRefused when it does not open."""
        mine = next((one for one in sealed.keys if one.recipient == self.id), None)
        if mine is None:
            raise SealedForAnother(
                "a secret that is sealed for another worker", f"{len(sealed.keys)} recipients, not {self.id}"
            )
        try:
            shared = self._key.exchange(X25519PublicKey.from_public_bytes(mine.ephemeral))
            content = AESGCM(_wrapping(shared, mine.ephemeral, self.public)).decrypt(_WRAP_NONCE, mine.wrapped, INFO)
            return AESGCM(content).decrypt(sealed.nonce, sealed.box, context.encode()).decode()
        except (InvalidTag, ValueError, UnicodeDecodeError):
            hint = "it was altered, or taken from another command"
            raise CommandRefused("a sealed secret does not open", f"for {self.id}", hint) from None


def _wrapping(shared: bytes, ephemeral: bytes, recipient: bytes) -> bytes:
    return HKDF(hashes.SHA256(), 32, salt=ephemeral + recipient, info=INFO).derive(shared)


def seal(text: str, recipients: Sequence[bytes], context: str) -> Secret:
    """Only the workers of these public keys can open it, within the command `context`."""
    content, nonce = AESGCM.generate_key(256), os.urandom(12)
    keys = []
    for public in recipients:
        ephemeral = X25519PrivateKey.generate()
        own = ephemeral.public_key().public_bytes(*RAW)
        shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(public))
        wrapped = AESGCM(_wrapping(shared, own, public)).encrypt(_WRAP_NONCE, content, INFO)
        keys.append(SealedKey(recipient=key_id(public), ephemeral=own, wrapped=wrapped))
    box = AESGCM(content).encrypt(nonce, text.encode(), context.encode())
    return Secret(sealed=Sealed(nonce=nonce, box=box, keys=tuple(keys)))


class Revealer:
    """Turns the secrets of commands into text. `learned` is told each, so that no log shows it."""

    def __init__(
        self, environ: Mapping[str, str], key: SealKey | None, *, allow_clear: bool, learned: Callable[[str], None]
    ) -> None:
        self._environ = environ
        self._key = key
        self._allow_clear = allow_clear
        self._learned = learned

    def of(self, command: Command) -> Callable[[Secret], str]:
        """For the secrets of one command; each is looked for once."""
        known: dict[Secret, str] = {}

        def reveal(secret: Secret) -> str:
            if secret not in known:
                known[secret] = self._reveal(secret, command.id)
                self._learned(known[secret])
            return known[secret]

        return reveal

    def _reveal(self, secret: Secret, context: str) -> str:
        if secret.sealed is not None:
            if self._key is None:
                raise CommandRefused(
                    "a sealed secret, and no key to open it", context, "submit the command to a worker"
                )
            return self._key.open(secret.sealed, context)
        if secret.clear is not None:
            if not self._allow_clear:
                hint = "seal it to the worker's key, or set trust.clear_secrets in the worker's configuration"
                raise CommandRefused("a secret in the clear", context, hint)
            return secret.clear
        if secret.withheld:
            raise CommandRefused(
                "a copy of a command, without its secrets", context, "issue it anew where it came from"
            )
        return passwords.read(secret, self._environ)


def withhold(command: Command) -> Command:
    """A copy to keep: what is a secret, sealed or clear, is not in it."""
    return _replaced(
        command, lambda secret: secret if secret.file or secret.environment or secret.vault else Secret(withheld=True)
    )


def seal_all(command: Command, recipients: Sequence[bytes]) -> Command:
    """The command, its clear secrets sealed to the recipients."""
    return _replaced(
        command, lambda secret: seal(secret.clear, recipients, command.id) if secret.clear is not None else secret
    )


def is_withheld(command: Command) -> bool:
    """Whether secrets of the command were left out."""
    return any(secret.withheld for secret in secrets_of(command))


def holds_clear(command: Command) -> bool:
    """Whether a secret stands in the command itself."""
    return any(secret.clear is not None for secret in secrets_of(command))


def secrets_of(command: Command) -> list[Secret]:
    found: list[Secret] = []

    def note(secret: Secret) -> Secret:
        found.append(secret)
        return secret

    _replaced(command, note)
    return found


def _replaced(value: _T, change: Callable[[Secret], Secret]) -> _T:
    """The value with every Secret in it changed, however deep: a kind that comes later cannot be forgotten."""
    found: Any = value
    if isinstance(found, Secret):
        found = change(found)
    elif isinstance(found, msgspec.Struct):
        fields = {name: _replaced(getattr(found, name), change) for name in found.__struct_fields__}
        if any(fields[name] is not getattr(found, name) for name in fields):
            found = msgspec.structs.replace(found, **fields)
    elif isinstance(found, tuple):
        parts = tuple(_replaced(part, change) for part in found)
        found = parts if any(a is not b for a, b in zip(parts, found, strict=True)) else found
    result: _T = found
    return result
