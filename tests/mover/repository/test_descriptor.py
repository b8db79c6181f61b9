# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from mover.errors import Damaged, MoverError, UnsupportedFormat, WrongPassword
from mover.repository import keys, signed_json
from mover.repository.descriptor import FORMAT, Descriptor
from mover.repository.keys import KeyRing, Kind
from tests.mover.repository import codecs

CLEAR = Descriptor(
    id="d4" * 16,
    created=1.5,
    method="none",
    key_epoch=0,
    owner_id="o",
    owner_name="na\u00efve",
    owner_epoch=3,
    write_id="e5" * 16,
    tier="cool",
    clear_key="07" * 32,
)


@pytest.fixture
def sealed(monkeypatch: pytest.MonkeyPatch) -> Descriptor:
    monkeypatch.setattr(keys, "SCRYPT_N", 2)
    ring = KeyRing(b"\7" * 32, {1: b"1" * 32}, 1)
    slots = [ring.wrap("password", CLEAR.id)]
    return replace(CLEAR, method="password", key_epoch=1, clear_key="", hint="the usual", slots=slots)


def test_a_descriptor_is_read_back_and_opens(sealed: Descriptor) -> None:
    for descriptor in (CLEAR, sealed):
        assert Descriptor.decode(descriptor.encode()) == descriptor
    ids = {one.unlock("password").chunk_id(Kind.DATA, b"x") for one in (CLEAR, sealed)}
    assert len(ids) == 1
    with pytest.raises(WrongPassword):
        sealed.unlock("Password")
    assert (CLEAR.encrypted, sealed.encrypted) == (False, True)


def test_no_secret_is_readable(sealed: Descriptor) -> None:
    assert b"id_key" not in sealed.encode()
    assert "07" * 32 not in sealed.encode().decode()


def test_a_harmless_wound_is_a_blank(sealed: Descriptor) -> None:
    for descriptor in (CLEAR, sealed):
        data = descriptor.encode()
        assert codecs.assert_guarded(Descriptor.decode, data) <= data.count(b" ") + data.count(b"\n") + 2


def crafted(descriptor: Descriptor, **members: Any) -> bytes:
    """As somebody can write it who has no key: the checksum fits."""
    value = json.loads(descriptor.encode())
    del value["checksum"], value["format"], value["version"], value["features"]
    return signed_json.dump(FORMAT, value | members)


@pytest.mark.parametrize("members", [{"block_size": 1 << 22}, {"encryption": {"method": "rot13"}}])
def test_what_this_release_cannot_use_is_refused(members: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedFormat):
        Descriptor.decode(crafted(CLEAR, **members))


@pytest.mark.parametrize(
    "members",
    [
        {"encryption": None},
        {"encryption": []},
        {"encryption": "none"},
        {"encryption": {}},
        {"owner": None},
        {"owner": {"id": "x"}},
        {"id_key": "xy"},
        {"id_key": 7},
        {"id_key": ""},
        {"key_epoch": "0"},
        {"id": 7},
        {"owner": {"id": "o", "name": "n", "epoch": "1"}},
    ],
)
def test_a_member_that_cannot_be_is_damage(members: dict[str, Any]) -> None:
    with pytest.raises(Damaged, match=r"repository\.json"):
        Descriptor.decode(crafted(CLEAR, **members)).unlock(None)


@pytest.mark.parametrize("slots", [None, 7, [7], [[]], [{}], "password", {"kind": "password"}])
def test_slots_that_cannot_be_are_told(sealed: Descriptor, slots: Any) -> None:
    encryption = {"method": "password", "hint": "", "slots": slots}
    with pytest.raises(MoverError):
        Descriptor.decode(crafted(sealed, encryption=encryption)).unlock("password")
