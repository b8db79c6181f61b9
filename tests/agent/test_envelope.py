# SPDX-License-Identifier: Apache-2.0
"""Forged, altered, truncated, expired, misaddressed, nested and random messages: refused with a CommandRefused, nothing else."""

from __future__ import annotations

import hashlib
import json
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import envelope
from agent.envelope import Claim, Trust, admit, unwrap, wrap
from agent.errors import CommandRefused, Expired, Forged, Misaddressed
from agent.queue.base import MAX_BODY
from agent.signing import Signer

SIGNER = Signer(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
TRUST = Trust.of(SIGNER.public)
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def body(**fields: Any) -> bytes:
    command = {
        "schema": 1,
        "id": "c1",
        "job": "j1",
        "kind": "test-connection",
        "issued": NOW.isoformat(),
        "expires": (NOW + timedelta(hours=1)).isoformat(),
        "to": "workers",
        "payload": {"disks": ["/dev/disk"]},
    }
    return json.dumps({name: value for name, value in (command | fields).items() if value is not None}).encode()


def nothing(claim: Claim) -> bytes:
    raise AssertionError("something was fetched")


def admitted(message: bytes, *, trust: Trust = TRUST, at: datetime = NOW, queue: str = "workers") -> Any:
    return admit(message, trust, nothing, queue=queue, now=at.timestamp())


def test_a_signed_command_is_admitted() -> None:
    assert admitted(wrap(body(), signer=SIGNER, claim_to=None)).id == "c1"


def test_the_construction_does_not_change() -> None:
    """What another language's appliance must produce (docs/protocol.md)."""
    message = wrap(b'{"schema":1}', signer=SIGNER, claim_to=None)
    signature = SIGNER.sign(b"data-mover command 1\0" + hashlib.sha256(b'{"schema":1}').digest())
    head, _, rest = message.partition(b"\n")
    assert head.startswith(b"DMC1 {")
    header = json.loads(head[5:])
    assert header.keys() == {"key", "signature"}
    assert header["key"] == hashlib.sha256(SIGNER.public).hexdigest()[:16] == "56475aa75463474c"
    import base64

    assert base64.b64decode(header["signature"]) == signature
    assert rest == b'{"schema":1}'


@settings(max_examples=400)
@given(st.data())
def test_no_altered_message_is_admitted(data: st.DataObject) -> None:
    message = bytearray(wrap(body(), signer=SIGNER, claim_to=None))
    how = data.draw(st.sampled_from(["flip", "cut", "grow", "swap"]))
    at = data.draw(st.integers(0, len(message) - 1))
    if how == "flip":
        message[at] ^= data.draw(st.integers(1, 255))
    elif how == "cut":
        del message[at:]
    elif how == "grow":
        message[at:at] = data.draw(st.binary(min_size=1, max_size=5))
    else:
        other = data.draw(st.integers(0, len(message) - 1))
        message[at], message[other] = message[other], message[at]
        if message == wrap(body(), signer=SIGNER, claim_to=None):
            return
    try:
        command = admitted(bytes(message))
    except CommandRefused:
        return
    assert command == admitted(wrap(body(), signer=SIGNER, claim_to=None)), "only the header's own form may differ"


@settings(max_examples=300)
@given(
    st.one_of(st.binary(max_size=300), st.binary(max_size=300).map(lambda b: b"DMC1 " + b), st.text().map(str.encode))
)
def test_random_bytes_are_refused(message: bytes) -> None:
    for trust in (TRUST, Trust()):
        with pytest.raises(CommandRefused):
            admitted(message, trust=trust)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300)
@given(
    st.dictionaries(st.sampled_from(["schema", "id", "job", "kind", "issued", "expires", "payload", "to"]), json_values)
)
def test_any_json_in_any_field_is_refused_or_a_command(fields: dict[str, Any]) -> None:
    try:
        admitted(body(**fields), trust=Trust())
    except CommandRefused as error:
        assert error.hint  # noqa: PT017 - either is right


@pytest.mark.parametrize(
    "inner",
    [
        b"[" * 40_000,
        b'{"a":' * 8_000,
        b'{"schema": 1e999, "kind": "backup"}',
        b'{"schema": 1, "schema": 2, "kind": "x"}',
        b"\xff\xfe{}",
        b'{"kind": "\\ud800", "schema": 1}',
        b"\0" * 100,
        b"",
    ],
)
def test_what_is_made_to_hurt_a_decoder_is_refused(inner: bytes) -> None:
    for message in (inner, wrap(inner, signer=SIGNER, claim_to=None) if inner else b"DMC1 {}\n"):
        for trust in (TRUST, Trust()):
            with pytest.raises(CommandRefused):
                admitted(message, trust=trust)


@pytest.mark.parametrize(
    "header", [b"[" * 2000, b'{"claim":' * 200, b"x" * 3000, b'{"key": "56475aa75463474c"}', b'{"more": 1}']
)
def test_a_header_that_is_none_is_refused(header: bytes) -> None:
    with pytest.raises(CommandRefused, match="envelope"):
        unwrap(b"DMC1 " + header + b"\n" + body(), Trust(), nothing)


def test_a_message_that_no_queue_can_hold_is_refused() -> None:
    with pytest.raises(CommandRefused, match="too large"):
        unwrap(b"{" + bytes(MAX_BODY), Trust(), nothing)


def test_unsigned_and_strangers_are_refused() -> None:
    stranger = Signer.generate()
    with pytest.raises(Forged, match="without a signature"):
        admitted(body())
    with pytest.raises(Forged, match="no trusted key"):
        admitted(wrap(body(), signer=stranger, claim_to=None))
    with pytest.raises(Forged, match="no trusted key"):
        admitted(b"DMC1 {}\n" + body())
    named = wrap(body(), signer=stranger, claim_to=None).replace(stranger.id.encode(), SIGNER.id.encode())
    with pytest.raises(Forged, match="signature is wrong"):
        admitted(named)
    assert admitted(wrap(body(), signer=stranger, claim_to=None), trust=Trust()).id == "c1"


@pytest.mark.parametrize(
    ("fields", "at", "queue", "error"),
    [
        ({"to": "others"}, NOW, "workers", Misaddressed),
        ({}, NOW, "others", Misaddressed),
        ({"to": None}, NOW, "workers", Misaddressed),
        ({"expires": None}, NOW, "workers", Expired),
        ({"expires": (NOW + timedelta(days=8)).isoformat()}, NOW, "workers", Expired),
        ({}, NOW + timedelta(hours=1, minutes=6), "workers", Expired),
        ({}, NOW - timedelta(minutes=6), "workers", Expired),
        ({"expires": NOW.isoformat()}, NOW, "workers", Expired),
        ({"to": "workers-control"}, NOW, "workers-control", Misaddressed),
        ({"kind": "cancel", "payload": {"target": "j"}}, NOW, "workers", Misaddressed),
    ],
)
def test_a_signature_is_good_for_one_queue_and_a_limited_time(
    fields: dict[str, Any], at: datetime, queue: str, error: type[CommandRefused]
) -> None:
    with pytest.raises(error) as refused:
        admitted(wrap(body(**fields), signer=SIGNER, claim_to=None), at=at, queue=queue)
    assert refused.value.hint


@pytest.mark.parametrize("minutes", [-4, 0, 60, 64])
def test_clocks_may_differ_by_five_minutes(minutes: int) -> None:
    admitted(wrap(body(), signer=SIGNER, claim_to=None), at=NOW + timedelta(minutes=minutes))


def test_what_was_begun_in_time_is_gone_on_with() -> None:
    message, later = wrap(body(), signer=SIGNER, claim_to=None), (NOW + timedelta(hours=5)).timestamp()
    for begun, inserted, admits in (
        (True, NOW.timestamp(), True),
        (False, NOW.timestamp(), False),  # kept hidden until its record was gone, or never begun
        (True, later, False),  # put back after its time
        (True, later - 60, False),
    ):
        with nullcontext() if admits else pytest.raises(Expired):
            admit(message, TRUST, nothing, queue="workers", now=later, inserted=inserted, begun=lambda _, b=begun: b)


@pytest.mark.parametrize("field", ["id", "job", "to"])
def test_a_line_s_end_is_no_part_of_a_name(field: str) -> None:
    with pytest.raises(CommandRefused):
        admitted(body(**{field: "workers\n"}), trust=Trust())


def test_a_refusal_names_a_command_that_someone_trusted_sent_and_no_other() -> None:
    with pytest.raises(Expired) as refused:
        admitted(wrap(body(reply="replies"), signer=SIGNER, claim_to=None), at=NOW + timedelta(days=1))
    assert (refused.value.command, refused.value.job, refused.value.reply) == ("c1", "j1", "replies")
    with pytest.raises(Forged) as forged:
        admitted(body())
    assert (forged.value.command, forged.value.job, forged.value.reply) == ("", "", None)


# -- claim checks ---------------------------------------------------------------------------------------------------


def claimed(data: bytes, signer: Signer | None = SIGNER) -> tuple[bytes, dict[str, bytes]]:
    kept: dict[str, bytes] = {}

    def keep(large: bytes) -> Claim:
        kept["claims/" + "a" * 32] = large
        return Claim.of("claims/" + "a" * 32, large)

    return wrap(data, signer=signer, claim_to=keep), kept


LARGE = body(payload={"disks": ["/" + "d" * 4000] * 20})


def test_a_large_command_is_fetched_after_its_signature_was_checked() -> None:
    message, kept = claimed(LARGE)
    assert len(message) < 500
    found = admit(message, TRUST, lambda claim: kept[claim.name], queue="workers", now=NOW.timestamp())
    assert found.job == "j1"
    with pytest.raises(Forged):
        admit(claimed(LARGE, Signer.generate())[0], TRUST, nothing, queue="workers", now=NOW.timestamp())
    with pytest.raises(CommandRefused, match="too large for the queue"):
        wrap(LARGE, signer=SIGNER, claim_to=None)


@pytest.mark.parametrize("change", [lambda d: d[:-1], lambda d: d + b" ", lambda d: d[::-1], lambda d: b""])
def test_a_claim_that_was_changed_is_refused(change: Any) -> None:
    message, kept = claimed(LARGE)
    with pytest.raises(Forged, match="claim check"):
        unwrap(message, TRUST, lambda claim: change(kept[claim.name]))


@pytest.mark.parametrize("name", ["claims/../jobs/x", "jobs/" + "a" * 32, "claims/" + "A" * 32, ""])
def test_a_claim_names_a_claim_and_nothing_else(name: str) -> None:
    header = json.dumps({"claim": {"name": name, "size": 5, "sha256": "0" * 64}}).encode()
    with pytest.raises(CommandRefused):
        unwrap(b"DMC1 " + header + b"\n", Trust(), nothing)


def test_looking_is_not_obeying() -> None:
    assert envelope.look(wrap(body(), signer=Signer.generate(), claim_to=None), nothing).id == "c1"
