# SPDX-License-Identifier: Apache-2.0
"""Keys of a repository: the identity key, the data keys of all epochs, and what is derived from them (docs/format.md 1 to 3, 6).

A key never leaves this module but as a derived key handed to a cipher or hash; `repr` shows none.
"""

from __future__ import annotations

import enum
import functools
import json
import os
import unicodedata
from collections.abc import Mapping
from typing import Any

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mover.errors import Damaged, UnsupportedFormat, UsageError, WrongPassword

SCRYPT_N, SCRYPT_R, SCRYPT_P = 1 << 16, 8, 1
"""64 MiB and about 0.12 s a guess. A slot carries its own figures; readers refuse ones that would need much over 1 GiB."""
SCRYPT_MEMORY = (1 << 30) + (1 << 20)


class Kind(enum.IntEnum):
    """What a frame holds (docs/format.md section 3)."""

    DATA = 1
    PAGE = 2
    ROOT = 3
    PACKS = 4
    DOCUMENT = 5
    SUMMARY = 6


SEALED_KINDS = frozenset({Kind.DATA, Kind.PAGE, Kind.ROOT, Kind.DOCUMENT})


def _derive(label: str, material: bytes) -> bytes:
    return blake3(material, derive_key_context=f"data-mover v1 {label}").digest()


class KeyRing:
    """All keys of one repository. `epoch` is the one that new data is sealed with; 0 = not encrypted. Immutable, thread-safe."""

    def __init__(self, id_key: bytes, epochs: Mapping[int, bytes], epoch: int) -> None:
        if epoch and epoch not in epochs:
            raise Damaged("the key slot lacks the current key epoch", epoch)
        self._id_key = id_key
        self._epochs = dict(epochs)
        self.epoch = epoch
        self._id_keys = {kind: _derive(f"chunk id {kind.name.lower()}", id_key) for kind in Kind}
        self.data_id_key = self._id_keys[Kind.DATA]
        self._seal = {number: _derive("seal", key) for number, key in self._epochs.items()}

    def __repr__(self) -> str:
        return f"KeyRing(epoch={self.epoch})"

    @property
    def encrypted(self) -> bool:
        return self.epoch != 0

    @classmethod
    def generate(cls, *, encrypted: bool) -> KeyRing:
        return cls(os.urandom(32), {1: os.urandom(32)} if encrypted else {}, 1 if encrypted else 0)

    def chunk_id(self, kind: Kind, raw: bytes | bytearray | memoryview) -> bytes:
        return blake3(raw, key=self._id_keys[kind]).digest()

    def frame_cipher(self, epoch: int, chunk_id: bytes) -> AESGCM:
        """The cipher of one frame; Damaged when no slot gave this epoch's key."""
        return AESGCM(blake3(chunk_id, key=self._epoch(self._seal, epoch)).digest())

    def body_cipher(self, epoch: int, record: str) -> AESGCM:
        key = _derive("point body", self._epoch(self._epochs, epoch))
        return AESGCM(blake3(record.encode(), key=key).digest())

    def point_mac(self, epoch: int, data: bytes) -> bytes:
        return blake3(data, key=_derive("point mac", self._epoch(self._epochs, epoch))).digest()

    @staticmethod
    def _epoch(keys: Mapping[int, bytes], epoch: int) -> bytes:
        try:
            return keys[epoch]
        except KeyError:
            raise Damaged("no key for the key epoch that a stored object names", epoch) from None

    def resource_id(self, identity: str) -> str:
        return self._name("resource name", identity)

    def point_id(self, job: str) -> str:
        return self._name("point name", job)

    @functools.lru_cache(maxsize=64)  # noqa: B019 - a key ring lives as long as its process's repository
    def _name(self, label: str, text: str) -> str:
        return blake3(text.encode(), key=_derive(label, self._id_key)).digest()[:16].hex()

    # -- storage

    def clear(self) -> dict[str, str]:
        """What the descriptor of a repository that is not encrypted carries."""
        return {"id_key": self._id_key.hex()}

    def wrap(self, password: str, repository: str) -> dict[str, Any]:
        """A key slot for the descriptor."""
        salt, nonce = os.urandom(32), os.urandom(12)
        cipher = AESGCM(_stretch(password, salt, SCRYPT_N, SCRYPT_R, SCRYPT_P))
        epochs = {str(number): key.hex() for number, key in self._epochs.items()}
        plain = json.dumps({"id_key": self._id_key.hex(), "epochs": epochs}).encode()
        wrapped = cipher.encrypt(nonce, plain, _slot_context(repository))
        return {
            "kind": "password",
            "kdf": "scrypt",
            "n": SCRYPT_N,
            "r": SCRYPT_R,
            "p": SCRYPT_P,
            "salt": salt.hex(),
            "nonce": nonce.hex(),
            "wrapped": wrapped.hex(),
        }

    @classmethod
    def unwrap(cls, slots: list[dict[str, Any]], password: str, repository: str, epoch: int) -> KeyRing:
        """The ring out of the first slot that the password opens; WrongPassword when it opens none."""
        tried = 0
        for slot in slots:
            try:
                if slot.get("kind") != "password":
                    continue
                tried += 1
                plain = _open_slot(slot, password, repository)
            except (KeyError, TypeError, ValueError, AttributeError):
                raise Damaged("a key slot is malformed", f"slot {tried} of repository {repository}") from None
            if plain is None:
                continue
            ring = json.loads(plain)
            epochs = {int(number): bytes.fromhex(key) for number, key in ring["epochs"].items()}
            return cls(bytes.fromhex(ring["id_key"]), epochs, epoch)
        if not tried:
            raise UnsupportedFormat("no key slot of this repository takes a password", f"{len(slots)} slots")
        raise WrongPassword("the password does not open this repository", f"{tried} key slot(s) tried")


def _open_slot(slot: Mapping[str, Any], password: str, repository: str) -> bytes | None:
    """What the slot holds; None when the password does not open it."""
    n, r, p = slot["n"], slot["r"], slot["p"]
    if slot.get("kdf") != "scrypt" or not (0 < n <= 1 << 20 and 0 < r <= 8 and 0 < p <= 4):
        raise UnsupportedFormat("key slot with a derivation that is not supported", f"{slot.get('kdf')} {n},{r},{p}")
    cipher = AESGCM(_stretch(password, bytes.fromhex(slot["salt"]), n, r, p))
    try:
        return cipher.decrypt(bytes.fromhex(slot["nonce"]), bytes.fromhex(slot["wrapped"]), _slot_context(repository))
    except InvalidTag:
        return None


def _slot_context(repository: str) -> bytes:
    return b"data-mover key slot " + repository.encode()


def _stretch(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    if not password:
        raise UsageError("an empty password", hint="give at least one character")
    text = unicodedata.normalize("NFC", password).encode()
    from nacl.bindings import crypto_pwhash_scryptsalsa208sha256_ll as scrypt  # only an encrypted repository needs it

    key: bytes = scrypt(text, salt, n, r, p, dklen=32, maxmem=SCRYPT_MEMORY)
    return key
