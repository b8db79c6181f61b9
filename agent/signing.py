# SPDX-License-Identifier: Apache-2.0
"""The appliance's Ed25519 key: the private one that signs commands, the public ones that a worker trusts."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import stat

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from mover.errors import UsageError

RAW = serialization.Encoding.Raw, serialization.PublicFormat.Raw


def key_id(public: bytes) -> str:
    """How messages name a key: the first 16 hex digits of the SHA-256 of its 32 bytes."""
    return hashlib.sha256(public).hexdigest()[:16]


class Signer:
    """A private key. Its `repr` shows which, not what."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = key.public_key().public_bytes(*RAW)
        self.id = key_id(self.public)

    def __repr__(self) -> str:
        return f"Signer({self.id})"

    def sign(self, data: bytes) -> bytes:
        return self._key.sign(data)

    @classmethod
    def generate(cls) -> Signer:
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: str) -> Signer:
        """From a PEM file that only its owner can read."""
        try:
            key = serialization.load_pem_private_key(read_private(path), None)
        except (ValueError, TypeError):
            raise UsageError("not a private key in PEM", path, "openssl genpkey -algorithm ed25519 -out FILE") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise UsageError("not an Ed25519 key", path, "openssl genpkey -algorithm ed25519 -out FILE")
        return cls(key)

    def save(self, path: str) -> None:
        """A new file, for its owner only."""
        pem = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_private(path, pem)

    def public_pem(self) -> str:
        return (
            self._key.public_key()
            .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
            .decode()
        )


def verify(public: bytes, signature: bytes, data: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def load_public(text: str) -> bytes:
    """The 32 bytes of a public key: given as Base64, or as the path of a PEM file."""
    try:
        raw = base64.b64decode(text, validate=True)
        if len(raw) == 32:
            return raw
    except (binascii.Error, ValueError):
        pass  # then it is a path
    try:
        with open(text, "rb") as file:
            key = serialization.load_pem_public_key(file.read(16384))
    except OSError as error:
        hint = "give the path of a PEM file, or the 32 bytes in Base64"
        raise UsageError("a public key cannot be read", f"{text}: {os.strerror(error.errno or 0)}", hint) from None
    except ValueError:
        raise UsageError("not a public key in PEM", text, "openssl pkey -in KEY -pubout") from None
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError("not an Ed25519 public key", text, "openssl pkey -in KEY -pubout")
    return key.public_bytes(*RAW)


def read_private(path: str) -> bytes:
    """A key's file; UsageError when others than its owner may read it."""
    try:
        with open(path, "rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise UsageError("a private key that others can read", path, f"chmod 600 {path}")
            return file.read(16384)
    except OSError as error:
        raise UsageError("a private key cannot be read", f"{path}: {os.strerror(error.errno or 0)}") from None


def write_private(path: str, data: bytes) -> None:
    """A new file of mode 0600."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(data)
    except OSError as error:
        raise UsageError("a private key cannot be written", f"{path}: {os.strerror(error.errno or 0)}") from None
