# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest
from blake3 import blake3

from mover.errors import Damaged, MoverError, UnsupportedFormat, UsageError, WrongPassword
from mover.repository import keys
from mover.repository.keys import KeyRing, Kind

REPOSITORY = "d4" * 16


@pytest.fixture(autouse=True)
def _cheap_scrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "SCRYPT_N", 2)


def slot(ring: KeyRing, **changes: Any) -> dict[str, Any]:
    return ring.wrap("password", REPOSITORY) | changes


def test_ids_are_keyed_by_repository_and_kind() -> None:
    """As docs/format.md sections 1 and 3 say it, computed here from the page."""
    material = bytes(range(32))
    ring = KeyRing(material, {}, 0)
    for kind, label in zip(Kind, ("data", "page", "root", "packs", "document", "summary"), strict=True):
        key = blake3(material, derive_key_context=f"data-mover v1 chunk id {label}").digest()
        assert ring.chunk_id(kind, b"x") == blake3(b"x", key=key).digest()
    name_key = blake3(material, derive_key_context="data-mover v1 resource name").digest()
    assert ring.resource_id("vm \u00fc") == blake3("vm \u00fc".encode(), key=name_key).hexdigest()[:32]
    assert ring.point_id("vm") != ring.resource_id("vm")
    other = KeyRing(bytes(32), {}, 0)
    assert other.chunk_id(Kind.DATA, b"x") != ring.chunk_id(Kind.DATA, b"x")


def test_a_slot_gives_all_keys_back() -> None:
    ring = KeyRing(b"i" * 32, {1: b"1" * 32, 2: b"2" * 32}, 2)
    opened = KeyRing.unwrap([slot(ring)], "password", REPOSITORY, 2)
    for epoch in (1, 2):
        assert opened.point_mac(epoch, b"x") == ring.point_mac(epoch, b"x")
    assert opened.chunk_id(Kind.DATA, b"x") == ring.chunk_id(Kind.DATA, b"x")
    assert opened.encrypted


def test_a_password_is_the_same_however_it_is_typed() -> None:
    ring = KeyRing.generate(encrypted=True)
    made = [ring.wrap("na\u00efve", REPOSITORY)]
    assert KeyRing.unwrap(made, "nai\u0308ve", REPOSITORY, 1).resource_id("vm") == ring.resource_id("vm")


def test_a_wrong_password_and_another_repository_are_refused() -> None:
    ring = KeyRing.generate(encrypted=True)
    with pytest.raises(WrongPassword, match="2 key slot"):
        KeyRing.unwrap([slot(ring), slot(ring)], "Password", REPOSITORY, 1)
    with pytest.raises(WrongPassword):
        KeyRing.unwrap([slot(ring)], "password", "e5" * 16, 1)
    with pytest.raises(UsageError, match="empty"):
        KeyRing.unwrap([slot(ring)], "", REPOSITORY, 1)


def test_slots_of_other_kinds_are_passed_over() -> None:
    ring = KeyRing.generate(encrypted=True)
    assert KeyRing.unwrap([{"kind": "key vault"}, slot(ring)], "password", REPOSITORY, 1).encrypted
    with pytest.raises(UnsupportedFormat, match="takes a password"):
        KeyRing.unwrap([{"kind": "key vault"}], "password", REPOSITORY, 1)


@pytest.mark.parametrize("changes", [{"n": 1 << 21}, {"r": 9}, {"p": 5}, {"n": 0}, {"kdf": "argon2"}])
def test_a_derivation_that_costs_too_much_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedFormat):
        KeyRing.unwrap([slot(KeyRing.generate(encrypted=True), **changes)], "password", REPOSITORY, 1)


@pytest.mark.parametrize(
    "changes", [{"n": 3}, {"n": "2"}, {"salt": "x"}, {"nonce": ""}, {"wrapped": None}, {"salt": None}, {"nonce": 7}]
)
def test_a_malformed_slot_is_damage(changes: dict[str, Any]) -> None:
    with pytest.raises(MoverError, match="slot"):
        KeyRing.unwrap([slot(KeyRing.generate(encrypted=True), **changes)], "password", REPOSITORY, 1)
    with pytest.raises(Damaged):
        KeyRing.unwrap([{"kind": "password", "kdf": "scrypt"}], "password", REPOSITORY, 1)


def test_an_epoch_without_a_key_is_damage() -> None:
    ring = KeyRing.generate(encrypted=True)
    for use in (
        lambda: ring.frame_cipher(2, bytes(32)),
        lambda: ring.body_cipher(2, "x"),
        lambda: ring.point_mac(0, b""),
    ):
        with pytest.raises(Damaged, match="epoch"):
            use()
    with pytest.raises(Damaged):
        KeyRing(bytes(32), {1: bytes(32)}, 2)


def test_nothing_shows_a_key() -> None:
    ring = KeyRing(b"i" * 32, {1: b"e" * 32}, 1)
    assert repr(ring) == "KeyRing(epoch=1)"
    with pytest.raises(WrongPassword) as caught:
        KeyRing.unwrap([slot(ring)], "secret", REPOSITORY, 1)
    assert "secret" not in str(caught.value)
