# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import CommandRefused, SealedForAnother
from agent.protocol import Command, Sealed, Secret, decode_command, encode
from agent.seal import Revealer, SealKey, is_withheld, seal, seal_all, withhold
from agent.signing import Signer, load_public, verify
from mover.errors import UsageError

ONE, TWO = SealKey.generate(), SealKey.generate()


def sealed(text: str = "hidden", *keys: SealKey, context: str = "c1") -> Sealed:
    found = seal(text, [key.public for key in keys or (ONE,)], context).sealed
    assert found is not None
    return found


@given(st.text(min_size=1, max_size=200), st.text(max_size=20))
def test_what_is_sealed_is_opened_by_each_recipient(text: str, context: str) -> None:
    box = sealed(text, ONE, TWO, context=context)
    assert ONE.open(box, context) == TWO.open(box, context) == text


def test_nobody_else_opens_it_and_nowhere_else() -> None:
    box = sealed()
    with pytest.raises(SealedForAnother):
        TWO.open(box, "c1")
    with pytest.raises(CommandRefused, match="does not open"):
        ONE.open(box, "c2")


@given(st.data())
def test_no_altered_secret_opens(data: st.DataObject) -> None:
    box = sealed()
    raw = json.loads(msgspec.json.encode(box))
    field = data.draw(st.sampled_from(["nonce", "box", "ephemeral", "wrapped"]))
    place: Any = raw if field in raw else raw["keys"][0]
    import base64

    value = bytearray(base64.b64decode(place[field]))
    value[data.draw(st.integers(0, len(value) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    place[field] = base64.b64encode(value).decode()
    changed = msgspec.json.decode(json.dumps(raw), type=Sealed)
    try:
        assert ONE.open(changed, "c1") == "hidden"
        assert field == "ephemeral"  # X25519 ignores the top bit of a public key
    except CommandRefused as error:
        assert "hidden" not in str(error)  # noqa: PT017 - either is right


def test_keys_and_secrets_show_nothing(tmp_path: Path) -> None:
    path = tmp_path / "key"
    made = SealKey.load(str(path))
    assert SealKey.load(str(path)).public == made.public
    assert path.stat().st_mode & 0o777 == 0o600
    raw = path.read_bytes()
    assert repr(raw)[2:-1] not in repr(made)
    assert "hidden" not in repr(Secret(clear="hidden")) + str(Secret(clear="hidden"))
    path.chmod(0o640)
    with pytest.raises(UsageError, match="others can read"):
        SealKey.load(str(path))
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(UsageError, match="not a key"):
        SealKey.load(str(path))


def command(password: Secret) -> Command:
    raw = {
        "schema": 1,
        "id": "c1",
        "job": "j",
        "kind": "backup",
        "issued": "2026-01-01T00:00:00Z",
        "payload": {
            "what": "disk",
            "repository": {
                "url": "file:///r",
                "password": msgspec.to_builtins(password),
                "sas": {"clear": "sv=1&sig=hidden"},
            },
            "resource": "vm",
            "disks": [{"path": "/d"}],
        },
    }
    return decode_command(json.dumps(raw, default=lambda b: __import__("base64").b64encode(b).decode()).encode())


def test_copies_hold_no_secret_and_sealing_leaves_none_in_the_clear() -> None:
    given_one = command(Secret(clear="hidden-password"))
    for made in (withhold(given_one), seal_all(given_one, [ONE.public])):
        assert b"hidden" not in encode(made)
        assert made.id == given_one.id
    assert is_withheld(withhold(given_one))
    assert not is_withheld(given_one)
    kept = withhold(command(Secret(file="/etc/password")))
    assert kept.payload.repository.password == Secret(file="/etc/password")  # type: ignore[union-attr]


def test_the_one_place_where_a_secret_becomes_text(tmp_path: Path) -> None:
    learned: list[str] = []
    made = seal_all(command(Secret(clear="hidden-password")), [ONE.public])
    password = made.payload.repository.password  # type: ignore[union-attr]
    assert password is not None
    reveal = Revealer({"P": "from-environment"}, ONE, allow_clear=False, learned=learned.append).of(made)
    assert reveal(password) == "hidden-password"
    assert reveal(Secret(environment="P")) == "from-environment"
    assert learned == ["hidden-password", "from-environment"]
    with pytest.raises(CommandRefused, match="in the clear"):
        reveal(Secret(clear="hidden-password"))
    with pytest.raises(CommandRefused, match="without its secrets"):
        reveal(Secret(withheld=True))
    with pytest.raises(CommandRefused, match="no key"):
        Revealer({}, None, allow_clear=True, learned=learned.append).of(made)(password)
    assert Revealer({}, ONE, allow_clear=True, learned=learned.append).of(made)(Secret(clear="x")) == "x"


def test_signing_keys(tmp_path: Path) -> None:
    made = Signer.generate()
    path = tmp_path / "key.pem"
    made.save(str(path))
    again = Signer.load(str(path))
    assert (again.public, again.id) == (made.public, made.id)
    assert verify(made.public, again.sign(b"data"), b"data")
    assert not verify(made.public, again.sign(b"data"), b"date")
    assert not verify(b"short", b"x", b"data")
    public = tmp_path / "public.pem"
    public.write_text(made.public_pem())
    import base64

    assert load_public(str(public)) == load_public(base64.b64encode(made.public).decode()) == made.public
    with pytest.raises(UsageError, match="cannot be written"):
        made.save(str(path))
    path.chmod(0o604)
    with pytest.raises(UsageError, match="others can read"):
        Signer.load(str(path))
    for text, what in (("nonsense", "not a private key"),):
        bad = tmp_path / "bad"
        bad.write_text(text)
        bad.chmod(0o600)
        with pytest.raises(UsageError, match=what):
            Signer.load(str(bad))
        with pytest.raises(UsageError, match="not a public key"):
            load_public(str(bad))
    with pytest.raises(UsageError, match="cannot be read"):
        load_public(str(tmp_path / "none"))
