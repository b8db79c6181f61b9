# SPDX-License-Identifier: Apache-2.0
"""What goes over a slow line: the page small and once, lists compressed, content as it is."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from importlib import resources

import pytest

from tests.flr.corpus.catalogue import sample
from tests.flr.web.serving import Serving, disks, serving

MOST_PACKED = 60_000
"""Bytes of the whole page, compressed."""
FILES = resources.files("flr.web").joinpath("static")


@pytest.fixture(scope="module")
def served() -> Iterator[Serving]:
    with serving(disks([sample("ext4-inline").image])) as running:
        yield running


def test_the_page_is_small_and_comes_once(served: Serving) -> None:
    wanted = ["/", *(f"/static/{file.name}" for file in FILES.iterdir())]
    total = 0
    with served.client() as client:
        for address in wanted:
            with client.stream("GET", address) as answer:
                packed = b"".join(answer.iter_raw())
                assert answer.headers["content-encoding"] == "gzip"
            plain = client.get(address, headers={"accept-encoding": "identity"})
            assert "content-encoding" not in plain.headers
            assert gzip.decompress(packed) == plain.content
            again = client.get(address, headers={"if-none-match": answer.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
            total += len(packed)
    assert total < MOST_PACKED


def test_no_module_waits_for_another_to_name_it() -> None:
    """A page whose modules are found one by the other takes a round trip for each step."""
    page = FILES.joinpath("index.html").read_text()
    named = set(re.findall(r'"/static/(\w+\.js)"', page))
    assert named == {file.name for file in FILES.iterdir() if file.name.endswith(".js")}


def test_a_long_list_is_compressed_and_a_file_is_not(served: Serving) -> None:
    with served.signed() as client:
        asked = {"point": "disks", "volume": "0", "path": "/", "count": "200"}
        top = client.get("/api/list", params=asked).json()["rows"]
        lists = {
            f"/{row['key']}": client.get("/api/list", params={**asked, "path": f"/{row['key']}"})
            for row in top
            if row["kind"] == "folder"
        }
        path, listed = max(lists.items(), key=lambda item: len(item[1].content))
        asked["path"] = path
        plain = client.get("/api/list", params=asked, headers={"accept-encoding": "identity"})
        assert listed.headers["content-encoding"] == "gzip"
        assert "content-encoding" not in plain.headers
        assert listed.json() == plain.json()
        file = next(row for row in listed.json()["rows"] if row["kind"] == "file")
        items = [{"point": "disks", "volume": "0", "path": f"{path}/{file['key']}"}]
        made = client.post("/api/downloads/make", json={"form": "file", "items": items}).json()
        got = client.get(made["url"])
        assert "content-encoding" not in got.headers
        assert len(got.content) == file["size"]
