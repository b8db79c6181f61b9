# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from hypothesis import given

from mover.repository import names
from mover.repository.names import METADATA_BIT, PackName, parse_pack
from mover.store.base import check_name
from tests.mover.repository import codecs

RESOURCE, POINT, INCARNATION = "0" * 31 + "a", "f" * 32, "1" * 32


@given(codecs.packs)
def test_a_packs_name_is_read_back(pack: PackName) -> None:
    assert parse_pack(str(pack)) == pack
    assert check_name(pack.object) == f"packs/{pack}"
    assert pack.is_metadata == ("-m" in str(pack).rsplit("/", 1)[1])


def test_numbers_are_decimal_and_below_their_limit() -> None:
    session = f"{RESOURCE}-{POINT}/{INCARNATION}"
    assert parse_pack(f"{session}-m{METADATA_BIT - 1}").number == 2 * METADATA_BIT - 1
    for number in ("", "m", "00", "01", "-1", "+1", "1 ", "1\n", "0x1", str(METADATA_BIT), "9" * 30, "\u0661"):
        with pytest.raises(ValueError, match="not a pack's name"):
            parse_pack(f"{session}-{number}")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        f"{RESOURCE}/{INCARNATION}-0",
        f"{RESOURCE.upper()}-{POINT}/{INCARNATION}-0",
        f"packs/{RESOURCE}-{POINT}/x-0",
    ],
)
def test_what_is_no_pack_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a pack's name"):
        parse_pack(text)


def test_sessions_and_points_name_each_other() -> None:
    name = names.point_record(RESOURCE, POINT)
    assert names.parse_point(name) == (RESOURCE, POINT)
    assert names.point_of(names.session_of(name)) == name
    writer = names.writer_bytes(names.session_of(name), INCARNATION)
    assert PackName(writer, 0).session == names.session_of(name)
    for wrong in ("points/x", f"{name}/", f"holds/{POINT}"):
        with pytest.raises(ValueError, match="not a point"):
            names.parse_point(wrong)
    for wrong in ("", RESOURCE, f"{RESOURCE}-{POINT}-0"):
        with pytest.raises(ValueError, match="not a session"):
            names.point_of(wrong)


def test_ids_are_never_the_same() -> None:
    assert len({names.random_id() for _ in range(100)}) == 100


def test_requests_are_counted_by_what_they_are_for() -> None:
    pack = f"packs/{RESOURCE}-{POINT}/{INCARNATION}"
    classes = {
        f"{pack}-1": "data-pack",
        f"{pack}-m1": "metadata-pack",
        names.index_run(f"{RESOURCE}-{POINT}", INCARNATION, 0): "index-run",
        names.point_record(RESOURCE, POINT): "session",
        names.hold_record(POINT): "session",
        "gc/state": "collector-state",
        "repository.json": "descriptor",
    }
    assert {name: names.request_class(name) for name in classes} == classes
