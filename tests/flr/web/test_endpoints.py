# SPDX-License-Identifier: Apache-2.0
"""Whatever an endpoint is asked, it answers, or says what is wrong with the question: never by a defect."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flr.restore.target import Found, Order, State, Status, Step, Tell
from tests.flr.corpus.catalogue import sample
from tests.flr.web.serving import disks, serving

READS = (
    "session", "status", "log", "volumes", "list", "jump", "details", "preview", "image", "hash", "results", "versions", "basket",
    "downloads", "restore", "restores", "restore/looked", "restore/problems",
)  # fmt: skip
WRITES = (
    "stay", "search", "search/stop", "basket/add", "basket/remove", "downloads/make", "restore/preview", "restore/begin",
    "restore/retry", "restore/stop",
)  # fmt: skip


class Nowhere:
    """A machine on which nothing stands and whatever is sent is well."""

    name, resolution = "nowhere", 1

    def state(self) -> State:
        return State(True, "always")

    def look(self, base: str, paths: Sequence[str]) -> tuple[list[Found], int | None]:
        return [Found("") for _ in paths], None

    def run(self, order: Order, steps: Iterable[Step], tell: Tell) -> None:
        for step in steps:
            if step.line[0] in ("close", "link", "folder"):
                tell(Status(step.line[1], "done"))

    def close(self) -> None: ...


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MOST_LOOKS", "MOST_SEARCHES"):
            patch.setattr(f"flr.web.app.{name}", 10**9)  # how often is another test's
        with serving(disks([sample("ext4-inline").image]), target=Nowhere()) as running, running.signed() as made:
            yield made


@pytest.fixture(scope="module")
def paths(client: httpx.Client) -> list[str]:
    """Of what there is, two folders deep."""
    found = ["/"]
    for path in ("/", *_below(client, "/")):
        found += _below(client, path)
    assert len(found) > 100
    return found


def _below(client: httpx.Client, path: str) -> list[str]:
    answer = client.get("/api/list", params={"point": "disks", "volume": "0", "path": path, "count": 1000})
    if answer.status_code != 200:
        return []
    return [path.rstrip("/") + "/" + row["key"] for row in answer.json()["rows"]]


ODD = st.one_of(
    st.just(""),
    st.text(max_size=12),
    st.sampled_from(["-1", "1e9", "nan", "inf", "null", "[]", "%ff", "..", "\x00", "٣", str(1 << 70)]),
)


def good(client: httpx.Client, answer: httpx.Response) -> None:
    assert answer.status_code in (200, 400, 404, 414, 422), answer.text
    if answer.status_code != 200:
        error = answer.json()["error"]
        assert error["type"] != "Defect"
        assert error["what"]
        assert error["hint"]


def arguments(paths: list[str], data: st.DataObject) -> dict[str, Any]:
    draw = data.draw
    path = draw(st.one_of(st.sampled_from(paths), st.text(max_size=8).map(lambda text: "/" + text), ODD))
    made: dict[str, Any] = {"point": draw(st.sampled_from(["disks", "disks", "disks", "none", ""])), "path": path}
    made["volume"] = draw(st.sampled_from(["0", "0", "0", "0p1", "", "\n"]))
    for name, values in (
        ("sort", ["name", "size", "modified", "type", "owner", "mode", "nothing"]),
        ("order", ["up", "down", "round"]),
        ("how", ["contains", "glob", "regex"]),
        ("kind", ["", "file", "folder", "link", "x"]),
    ):
        if draw(st.booleans()):
            made[name] = draw(st.sampled_from(values))
    for name in ("filter", "prefix", "text", "key", "encoding"):
        if draw(st.booleans()):
            made[name] = draw(
                st.one_of(st.text(max_size=8), st.sampled_from(["[", "(", "*", "a{999999}", "\\", "(?P<", "\ud800"]))
            )
    for name, texts in (("id", ODD), ("folder", st.sampled_from(["/", "/srv/x", "srv", "/../x", "/\ud800", "/\0"]))):
        if draw(st.booleans()):
            made[name] = draw(texts)
    if draw(st.booleans()):
        made["rule"] = draw(st.sampled_from(["keep", "overwrite", "skip", "newer", "other", None]))
    for name in ("offset", "count", "after", "search", "least", "most", "since", "until"):
        if draw(st.booleans()):
            made[name] = draw(st.one_of(st.integers(-10, 10), st.integers(), ODD))
    return made


SETTINGS = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@SETTINGS
@given(what=st.sampled_from(READS), data=st.data())
def test_a_question_is_answered_or_refused(
    client: httpx.Client, paths: list[str], what: str, data: st.DataObject
) -> None:
    asked = arguments(paths, data)
    for name, value in asked.items():
        asked[name] = str(value).encode("utf-8", "replace").decode()
    good(client, client.get(f"/api/{what}", params=asked))


@SETTINGS
@given(what=st.sampled_from(WRITES), data=st.data())
def test_a_wish_is_fulfilled_or_refused(client: httpx.Client, paths: list[str], what: str, data: st.DataObject) -> None:
    asked = arguments(paths, data)
    chosen = [{key: asked[key] for key in ("point", "volume", "path")} for _ in range(data.draw(st.integers(0, 2)))]
    asked["items"] = data.draw(st.sampled_from([chosen, [], [1], None]))
    asked["ids"] = data.draw(st.sampled_from([[], [1], [1, -5], ["x"]]))
    asked["form"] = data.draw(st.sampled_from(["file", "zip", "tar", "iso"]))
    if data.draw(st.booleans()):
        asked = {key: value for key, value in asked.items() if key in ("form", "items", "ids")}
    good(client, client.post(f"/api/{what}", content=json.dumps(asked).encode("utf-8", "surrogatepass")))


@SETTINGS
@given(what=st.sampled_from(["", "list", "file"]), data=st.data())
def test_a_plain_page_is_one(client: httpx.Client, paths: list[str], what: str, data: st.DataObject) -> None:
    asked = {name: str(value).encode("utf-8", "replace").decode() for name, value in arguments(paths, data).items()}
    answer = client.get(f"/plain/{what}", params=asked)
    assert answer.status_code in (200, 400, 404, 414), answer.text
    assert "<script" not in answer.text or what == "file"
