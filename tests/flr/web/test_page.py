# SPDX-License-Identifier: Apache-2.0
"""The page in a real browser: what somebody does who lost a file, by mouse and by keyboard only; how it looks to axe."""

from __future__ import annotations

import hashlib
import io
import os
import random
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from flr.web.wire import coded
from mover.repository.repository import Repository
from tests.agent.waiting import wait_for
from tests.flr.web.axe import Axe
from tests.flr.web.conftest import HOSTILE, MANY, THESIS
from tests.flr.web.serving import Serving

Open = Callable[[Serving], Page]


def names(page: Page) -> list[str]:
    expect(page.locator(".files .rows .title").first).to_be_visible()
    return page.locator(".files .rows .title bdi").all_inner_texts()


def go(page: Page, path: str) -> None:
    """To a path of the volume that is shown, as somebody who types it."""
    page.keyboard.press("F2")
    field = page.locator(".crumbs .path")
    field.fill(path)
    field.press("Enter")
    last = path.rstrip("/").rpartition("/")[2]
    expect(page.locator(".crumbs [aria-current]")).to_have_text(last)
    expect(page.locator(".files .grid[aria-busy]")).to_have_count(0)


def taken(page: Page, click: Callable[[], object]) -> bytes:
    with page.expect_download() as coming:
        click()
    data = Path(str(coming.value.path())).read_bytes()
    coming.value.delete()
    return data


def test_the_story_by_mouse(served: Serving, open_page: Open) -> None:
    page = open_page(served)
    assert "#t=" not in page.url
    expect(page.locator("h1")).to_contain_text("vm one")
    page.get_by_role("button", name="Time left").click()
    text = page.locator("dialog").inner_text().replace(":", "")
    assert served.certificate.sha256 in text
    assert served.certificate.sha1 in text
    page.get_by_role("button", name="Close", exact=True).last.click()
    for folder in ("home", "anna", "Documents"):
        page.locator(".files .rows .title", has_text=folder).dblclick()
        expect(page.locator(".crumbs [aria-current]")).to_have_text(folder)
    page.locator(".files .rows .row", has_text="thesis.txt").locator(".pick").click()
    page.locator(".files .rows .row", has_text="deleted.txt").locator(".pick").click()
    expect(page.locator(".chosen")).to_contain_text("2 chosen")
    page.locator(".chosen").get_by_role("button", name="Add to the restore list").click()
    expect(page.locator(".head-part .count")).to_have_text("2")
    page.get_by_role("button", name="Restore list 2").click()
    data = taken(page, lambda: page.get_by_role("button", name="Download all as a zip").click())
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert archive.read("thesis.txt") == THESIS
        assert archive.read("deleted.txt") == b"it was here\n"
    data = taken(page, lambda: page.get_by_role("button", name="Download all as a tar").click())
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        member = tar.getmember("thesis.txt")
        assert (member.uid, member.gid) == (1000, 1000)
        content = tar.extractfile(member)
        assert content is not None
        assert content.read() == THESIS
    page.go_back()
    expect(page.locator(".crumbs [aria-current]")).to_have_text("Documents")
    page.reload()
    expect(page.locator(".head-part .count")).to_have_text("2")
    page.get_by_role("button", name="Time left").click()
    page.get_by_role("button", name="Stop the session…").click()
    page.get_by_role("button", name="Stop the session", exact=True).click()
    expect(page.locator("h1")).to_have_text("The session is over")
    served.thread.join(30)
    assert not served.thread.is_alive()


def test_the_story_by_keyboard(served: Serving, open_page: Open) -> None:
    page = open_page(served)
    press = page.keyboard.press
    expect(page.locator(".files .grid")).to_be_focused()
    for folder in ("home", "anna", "Documents"):
        page.keyboard.type(folder[:3])
        expect(page.locator(".files .row.active")).to_contain_text(folder)
        press("Enter")
        expect(page.locator(".crumbs [aria-current]")).to_have_text(folder)
        expect(page.locator(".files .rows .title").first).to_be_visible()
    page.keyboard.type("the")
    expect(page.locator(".files .row.active")).to_contain_text("thesis.txt")
    press("Enter")
    expect(page.locator(".text-view")).to_contain_text("Once upon a time")
    press("Space")
    press("+")
    expect(page.locator(".head-part .count")).to_have_text("1")
    press("Backspace")
    expect(page.locator(".crumbs [aria-current]")).to_have_text("anna")
    expect(page.locator(".files .row.active")).to_contain_text("Documents")
    press("?")
    expect(page.locator("dialog h2")).to_have_text("Keys")
    press("Escape")
    press("/")
    page.keyboard.type("big")
    press("Enter")
    expect(page.locator(".search .rows")).to_contain_text("big.log")
    press("Escape")
    page.locator(".search .grid").focus()
    press("Escape")
    expect(page.locator(".files .grid")).to_be_focused()


def test_another_restore_point_keeps_the_path(served: Serving, open_page: Open, guest: Repository) -> None:
    page = open_page(served)
    go(page, "/home/anna/Documents")
    assert "deleted.txt" in names(page)
    newest = [point.id for point in guest.points()][-1]
    page.get_by_label("Restore point", exact=True).select_option(newest)
    expect(page.locator(".files .rows")).not_to_contain_text("deleted.txt")
    assert "thesis.txt" in names(page)
    page.locator(".files .rows .title", has_text="thesis.txt").click()
    page.get_by_role("tab", name="Versions").click()
    expect(page.locator(".versions")).to_contain_text("9 B smaller")
    page.get_by_role("button", name="Go there").click()
    expect(page.locator(".files .rows")).to_contain_text("deleted.txt")


def test_a_hundred_thousand_entries(served: Serving, open_page: Open) -> None:
    page = open_page(served)
    go(page, "/srv/many")
    expect(page.locator(".foot .state")).to_have_text(f"{MANY:,} entries")
    assert names(page)[:2] == ["file 0 of many.txt", "file 1 of many.txt"]
    page.keyboard.press("End")
    expect(page.locator(".files .row.active")).to_contain_text(f"file {MANY - 1} of many.txt")
    page.keyboard.type("file 777")
    expect(page.locator(".files .row.active")).to_contain_text("file 777 of")
    page.evaluate(
        "(() => { const view = document.querySelector('.files .view'); view.scrollTop = view.scrollHeight / 2; })()"
    )
    expect(page.locator(".files .rows")).to_contain_text("file 50005 of many.txt")
    assert page.locator("*").count() < 1500
    page.get_by_label("Filter this folder").fill("9999")
    expect(page.locator(".foot .state")).to_contain_text(f"of {MANY:,} entries")
    assert all("9999" in name for name in names(page))
    page.get_by_role("button", name="Name").click()
    expect(page.locator(".files .rows .title").first).to_contain_text("file 99999 ")


def test_what_a_guest_named_badly_is_only_text(served: Serving, open_page: Open) -> None:
    page = open_page(served)
    go(page, "/home/anna/Documents")
    shown = names(page)
    for name in ("<b>bold<b>.html", "bad\\xff\\x0aname", "rtl\\u202egnp.exe", "..\\..\\evil", "&amp;<script>alert(1)<"):
        assert name in shown
    assert page.locator(".rows b, .rows script").count() == 0
    for name in ("page.html", "picture.svg", "bad\\xff", "' onmouseover"):
        page.locator(".files .rows .title", has_text=name).hover()
        page.locator(".files .rows .title", has_text=name).dblclick()
        expect(page.locator(".details h2")).to_contain_text(name)
        expect(page.locator(".sheet .text-view")).to_be_visible()
    assert page.title() != "run"
    page.locator(".files .rows .title", has_text="bad\\xff").click()
    data = taken(page, lambda: page.locator(".details").get_by_role("button", name="Download").click())
    assert data == HOSTILE[1]


def test_a_picture_is_shown(served: Serving, open_page: Open) -> None:
    page = open_page(served)
    go(page, "/home/anna/Pictures")
    page.locator(".files .rows .title", has_text="dot.png").dblclick()
    expect(page.locator(".sheet img")).to_be_visible()
    assert page.evaluate("document.querySelector('.sheet img').naturalWidth") == 1


def test_a_download_that_was_cut_goes_on(served: Serving, open_page: Open, guest: Repository) -> None:
    page = open_page(served)
    point = next(guest.points()).id
    with served.signed() as client:
        items = [{"point": point, "volume": "0", "path": path} for path in ("/home", "/var")]
        made = client.post("/api/downloads/make", json={"form": "zip", "items": items}).json()
        while made["state"] == "preparing":
            made = client.get("/api/downloads").json()["downloads"][0]
        got = b""
        with client.stream("GET", made["url"]) as answer:
            tag = answer.headers["etag"]
            for piece in answer.iter_bytes():
                got += piece
                if len(got) > made["size"] // 2:
                    break
        with client.stream("GET", made["url"], headers={"range": f"bytes={len(got)}-", "if-range": tag}) as answer:
            assert answer.status_code == 206
            got += answer.read()
    assert len(got) == made["size"]
    with zipfile.ZipFile(io.BytesIO(got)) as archive:
        assert archive.testzip() is None
        assert archive.read("home/anna/Documents/thesis.txt") == THESIS
    page.goto(f"{served.url}/#list")
    expect(page.get_by_role("list", name="Downloads")).to_contain_text("recovered.zip")


def test_the_hash_is_the_file_s(served: Serving, open_page: Open) -> None:
    page = open_page(served)
    go(page, "/home/anna/Documents")
    page.locator(".files .rows .title", has_text="thesis.txt").click()
    page.get_by_role("button", name="Compute SHA-256").click()
    expect(page.locator(".sheet")).to_contain_text(hashlib.sha256(THESIS).hexdigest())


def test_a_used_link_says_so(served: Serving, open_page: Open) -> None:
    page = open_page(served)
    page.context.clear_cookies()
    page.goto("about:blank")
    page.goto(f"{served.url}/#t=used")
    expect(page.get_by_role("alert").first).to_contain_text("used already")
    page.get_by_label("The link, or the code").fill(served.link)
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator(".files .grid")).to_be_visible()


def test_a_path_that_is_typed_is_the_one_that_was_shown(served: Serving, open_page: Open) -> None:
    chance = random.Random(1)
    parts = [
        *HOSTILE,
        b" a ",
        b"100% sure",
        b"a+b&c=d#e?f",
        "\u00e9\u4e2d\U0001f600".encode(),
        b"'(!)*~",
        b"%41",
        b"%",
        b"\xc3",
    ]
    parts += [
        bytes(chance.choice(b"a%/\x00 \xe9\xc3\xa9#?") or 1 for _ in range(6)).replace(b"/", b"-") for _ in range(200)
    ]
    paths = ["/" + coded(part) for part in parts] + ["/".join(["", *(coded(part) for part in parts[:9])])]
    page = open_page(served)
    again = page.evaluate(
        "paths => import('/static/route.js').then(({ typed, shown }) => paths.map((path) => typed(shown(path))))", paths
    )
    assert again == paths


@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), pytest.param("dark", 320, marks=pytest.mark.slow)])
def test_axe_finds_nothing(served: Serving, open_page: Open, scheme: str, width: int) -> None:
    page = open_page(served)
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.set_viewport_size({"width": width, "height": 800})
    axe = Axe(page)
    look = axe.look
    go(page, "/home/gone")
    expect(page.locator(".files .empty")).to_contain_text("not there")
    look("what is not there")
    go(page, "/home/anna/Documents")
    page.keyboard.press("Control+a")
    expect(page.locator(".chosen button").first).to_be_visible()
    look("files")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Time left").click()
    look("session")
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Time left")).to_be_focused()
    page.locator(".files .grid").focus()
    page.keyboard.type("the")
    page.keyboard.press("Enter")
    expect(page.locator(".text-view")).to_be_visible()
    look("preview")
    for tab in ("Details", "Versions"):
        page.get_by_role("tab", name=tab).click()
        expect(page.locator(".sheet")).not_to_have_text("…")
        look(tab)
    page.locator(".details").get_by_role("button", name="Add to the restore list").click()
    expect(page.locator(".head-part .count")).to_have_text("1")
    page.locator(".details").get_by_role("button", name="Close").click()
    page.keyboard.press("/")
    page.keyboard.type("e")
    page.keyboard.press("Enter")
    expect(page.locator(".search .rows .row").first).to_be_visible()
    look("search")
    page.keyboard.press("Escape")
    page.goto(f"{served.url}/#list")
    expect(page.locator(".basket .rows .row").first).to_be_visible()
    page.get_by_role("button", name="as a tar").click()
    expect(page.locator("[aria-label=Downloads] a")).to_be_visible()
    look("list")
    page.goto(f"{served.url}/#log")
    expect(page.locator(".log td").first).to_be_visible()
    look("log")
    page.keyboard.press("?")
    look("help")
    page.keyboard.press("Escape")
    page.goto(f"{served.url}/plain/")
    look("plain")
    page.context.clear_cookies()
    page.goto(f"{served.url}/")
    expect(page.get_by_label("The link, or the code")).to_be_visible()
    look("sign in")
    assert axe.found == {}


def test_pictures_for_the_readme(served: Serving, open_page: Open) -> None:
    """Made by `DATA_MOVER_PICTURES=docs/pictures pytest ...`; else only looked at."""
    page = open_page(served)
    go(page, "/home/anna/Reports")
    page.keyboard.type("no")
    page.keyboard.press("Enter")
    expect(page.locator(".text-view")).to_be_visible()
    folder = os.environ.get("DATA_MOVER_PICTURES")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        picture = page.screenshot(path=f"{folder}/files-{scheme}.png" if folder else None)
        assert picture.startswith(b"\x89PNG")


def test_a_download_that_was_given_up_keeps_nothing_alive(served: Serving, guest: Repository) -> None:
    point = next(guest.points()).id
    for form, path in (("file", "/var/log/big.log"), ("zip", "/var"), ("tar", "/var")):
        with served.signed() as client:
            items = [{"point": point, "volume": "0", "path": path}]
            made = client.post("/api/downloads/make", json={"form": form, "items": items}).json()
            with client.stream("GET", made["url"]) as answer:
                next(answer.iter_raw())
                assert served.desk.life.left().transfers == 1
        wait_for(lambda: served.desk.life.left().transfers == 0)
        assert served.desk.audit.all()[-1].result == "cut"
        assert served.desk.audit.all()[-1].what == f"download {form}"
