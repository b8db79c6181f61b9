# SPDX-License-Identifier: Apache-2.0
"""repository.json (docs/format.md section 2): what can be known of a repository without its password."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mover.errors import Damaged, UnsupportedFormat
from mover.repository import signed_json
from mover.repository.chunk import BLOCK_SIZE
from mover.repository.keys import KeyRing
from mover.repository.names import DESCRIPTOR
from mover.repository.signed_json import member

FORMAT = "data-mover repository"
TIERS = ("hot", "cool", "archive", "inferred")


@dataclass(frozen=True, slots=True)
class Descriptor:
    """`slots` and `hint` only with method "password"; `clear_key` only with "none"."""

    id: str
    created: float
    method: str
    key_epoch: int
    owner_id: str
    owner_name: str
    owner_epoch: int
    write_id: str
    tier: str = "hot"
    hint: str = ""
    slots: list[dict[str, Any]] = field(default_factory=list)
    clear_key: str = ""

    @property
    def encrypted(self) -> bool:
        return self.method != "none"

    def unlock(self, password: str | None) -> KeyRing:
        """The keys; WrongPassword (password given and wrong), UnsupportedFormat; a password is ignored when none is needed."""
        if not self.encrypted:
            return KeyRing(bytes.fromhex(self.clear_key), {}, 0)
        return KeyRing.unwrap(self.slots, password or "", self.id, self.key_epoch)

    def encode(self) -> bytes:
        encryption: dict[str, Any] = {"method": self.method}
        if self.encrypted:
            encryption |= {"hint": self.hint, "slots": self.slots}
        value: dict[str, Any] = {
            "id": self.id,
            "tier": self.tier,
            "block_size": BLOCK_SIZE,
            "created": self.created,
            "encryption": encryption,
            "key_epoch": self.key_epoch,
            "immutability": None,
            "owner": {"id": self.owner_id, "name": self.owner_name, "epoch": self.owner_epoch},
            "write_id": self.write_id,
        }
        if not self.encrypted:
            value["id_key"] = self.clear_key
        return signed_json.dump(FORMAT, value, indent=2)

    @classmethod
    def decode(cls, data: bytes) -> Descriptor:
        value = signed_json.load(FORMAT, data, DESCRIPTOR)
        try:
            encryption, owner = member(value, "encryption", dict), member(value, "owner", dict)
            if value["block_size"] != BLOCK_SIZE or encryption["method"] not in ("none", "password"):
                what = f"block size {value['block_size']}, encryption {encryption['method']!r}"
                raise UnsupportedFormat("a repository that this release cannot use", what)
            encrypted = encryption["method"] != "none"
            return cls(
                id=member(value, "id", str),
                created=member(value, "created", int, float),
                method=encryption["method"],
                key_epoch=member(value, "key_epoch", int),
                owner_id=member(owner, "id", str),
                owner_name=member(owner, "name", str),
                owner_epoch=member(owner, "epoch", int),
                write_id=member(value, "write_id", str),
                tier=member(value, "tier", str),
                hint=member(encryption, "hint", str) if encrypted else "",
                slots=member(encryption, "slots", list) if encrypted else [],
                clear_key="" if encrypted else _clear_key(member(value, "id_key", str)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise Damaged("a member of the descriptor is missing or malformed", f"{DESCRIPTOR}: {error}") from None


def _clear_key(text: str) -> str:
    if len(bytes.fromhex(text)) != 32:
        raise ValueError(f"id_key has {len(text)} digits")
    return text
