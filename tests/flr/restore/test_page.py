# SPDX-License-Identifier: Apache-2.0
"""The page, in a real browser, back to a real machine: by every rule, stopped and tried again, by keyboard only, and how axe sees
it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from flr.restore.target import Target
from tests.agent.waiting import wait_for
from tests.flr.restore import lost
from tests.flr.web.axe import Axe
from tests.flr.web.serving import Serving, serving

Open = Callable[[Serving], Page]
RULES = {"keep": "Keep both", "overwrite": "Overwrite", "skip": "Skip", "newer": "Overwrite older"}


@pytest.fixture
def served(image: Path, target: Target) -> Iterator[Serving]:
    with serving(lost.points(image), target=target) as running:
        yield running


def chosen(page: Page, *names: str) -> None:
    """Entries of the folder that is shown, on the restore list; and the list, with its button."""
    for name in names:
        page.locator(".files .rows .row", has_text=name).locator("input").click()
    page.get_by_role("button", name="Add to the restore list").first.click()
    page.get_by_role("button", name="Show the list").click()
    expect(page.get_by_role("button", name="to the machine")).to_be_enabled()


def ask(page: Page) -> None:
    page.get_by_role("button", name="to the machine").click()
    expect(page.locator(".preview strong")).to_contain_text("in the way")
    expect(page.get_by_role("button", name="Restore", exact=True)).to_be_enabled()


def restore(page: Page, rule: str) -> None:
    page.get_by_role("radio", name=RULES[rule], exact=False).first.check()
    page.get_by_role("button", name="Restore", exact=True).click()
    expect(page.locator("[aria-label=Restores] > li").first).to_contain_text("Ended", timeout=60_000)


@pytest.mark.parametrize("rule", RULES)
def test_the_story_back_to_the_machine(served: Serving, open_page: Open, machine: Path, rule: str) -> None:
    shop = machine / "data/shop"
    page = open_page(served)
    chosen(page, "shop")
    expect(page.locator(".basket header")).to_contain_text("46 files, 88.1 MiB in 1 folder")
    expect(page.locator("[data-inside]")).to_have_text("88.1 MiB")
    ask(page)
    expect(page.locator(".preview")).to_contain_text("22 in the way")
    page.get_by_text("What is in the way (22)").click()
    row = page.locator(".conflicts tr", has_text="catalogue.db")
    page.get_by_role("radio", name=RULES[rule], exact=False).first.check()
    words = {"keep": "kept beside it", "overwrite": "replaced", "skip": "skipped", "newer": "replaced"}
    expect(row).to_contain_text(words[rule])
    restore(page, rule)
    after = lost.taken(shop)
    whole = lost.content("catalogue", lost.BIG)
    assert after["catalogue.db"][1] == (whole if rule in ("overwrite", "newer") else b"it is damaged")
    assert after["orders/2026/order 040.xml"][1] == lost.content("order 40", 2000 + 37 * 40)
    assert (b"EUR" in after["settings.toml"][1]) == (rule == "overwrite")
    assert len([name for name in after if "_RESTORED_" in name]) == (22 if rule == "keep" else 0)
    expect(page.locator("[data-item]").first).to_have_text("with remarks")
    page.locator("summary", has_text="remark").first.click()
    expect(page.locator("[aria-label=Restores]")).to_contain_text("set-user-id")
    page.get_by_role("button", name="Session log").click()
    page.get_by_label("Which").select_option("restore")
    expect(page.locator(".log tbody tr", has_text="restore ends")).to_be_visible()
    expect(page.locator(".log tbody tr", has_text="catalogue.db")).to_be_visible()
    records = {record.path: record for record in served.desk.audit.all() if record.what == "restore"}
    name = next(path for path in records if "catalogue.db" in path)
    if rule != "skip":
        assert records[name].size == lost.BIG
        assert len(records[name].sha256) == 64
        assert records[name].address == "127.0.0.1"


def test_by_keyboard_into_another_folder(served: Serving, open_page: Open, machine: Path) -> None:
    page = open_page(served)
    page.keyboard.press("End")
    page.keyboard.press("Space")
    page.keyboard.press("+")
    expect(page.locator(".head-part .count")).to_have_text("1")
    page.goto(f"{served.url}/#list")
    button = page.get_by_role("button", name="to the machine")
    expect(button).to_be_enabled()
    button.focus()
    page.keyboard.press("Enter")
    expect(page.locator("dialog")).to_be_visible()
    page.locator("dialog input[value=same]").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    page.keyboard.type("/srv/found")
    expect(page.locator(".preview")).to_contain_text("nothing in the way")
    page.get_by_role("button", name="Restore", exact=True).focus()
    page.keyboard.press("Enter")
    expect(page.locator("[aria-label=Restores] > li").first).to_contain_text("Ended", timeout=60_000)
    assert (machine / "found/shop/catalogue.db").read_bytes() == lost.content("catalogue", lost.BIG)


def test_what_failed_is_tried_again_on_the_page(served: Serving, open_page: Open, machine: Path) -> None:
    shop = machine / "data/shop"
    (shop / "catalogue.db").unlink()
    (shop / "catalogue.db").mkdir()
    page = open_page(served)
    chosen(page, "shop")
    ask(page)
    restore(page, "overwrite")
    expect(page.locator("[data-item]").first).to_have_text("failed")
    expect(page.locator(".toast")).to_contain_text("could not be restored")
    (shop / "catalogue.db").rmdir()
    page.get_by_role("button", name="Retry what failed").click()
    expect(page.locator("[aria-label=Restores] > li")).to_have_count(2)
    expect(page.locator("[aria-label=Restores] > li").first).to_contain_text("· 1 restored", timeout=60_000)
    assert (shop / "catalogue.db").read_bytes() == lost.content("catalogue", lost.BIG)
    expect(page.locator("[data-item]").first).to_have_text("restored")


def test_a_session_that_ends_stops_its_restore(served: Serving, machine: Path) -> None:
    with served.signed() as client:
        place = {"point": "disks", "volume": "0", "path": "/shop"}
        client.post("/api/basket/add", json={"items": [place]})
        assert client.post("/api/restore/begin", json={"rule": "overwrite"}).status_code == 200
        assert client.post("/api/stop", json={}).status_code == 200
    restores, _ = served.desk.restores()
    assert restores is not None
    wait_for(lambda: restores.all()[0].over.is_set())
    assert not [name for name in lost.taken(machine / "data/shop") if ".flr-" in name]


@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("dark", 320)])
def test_axe_finds_nothing(image: Path, by_tool: Target, open_page: Open, scheme: str, width: int) -> None:
    with serving(lost.points(image), target=by_tool) as running:
        page = open_page(running)
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.set_viewport_size({"width": width, "height": 800})
        axe = Axe(page)
        chosen(page, "shop")
        axe.look("list")
        ask(page)
        page.get_by_text("What is in the way (22)").click()
        axe.look("dialog")
        folder = os.environ.get("DATA_MOVER_PICTURES")
        page.screenshot(path=f"{folder}/restore-{scheme}.png" if folder else None)
        restore(page, "keep")
        page.locator("summary", has_text="remark").first.click()
        axe.look("restores")
        page.screenshot(path=f"{folder}/restored-{scheme}.png" if folder else None)
    assert axe.found == {}


def test_two_people_look_at_what_each_one_chose(image: Path, by_tool: Target) -> None:
    with serving(lost.points(image), target=by_tool) as running, running.signed() as one, running.signed() as other:
        for client, path in ((one, "/shop"), (other, "/shop/first")):
            client.post("/api/basket/add", json={"items": [{"point": "disks", "volume": "0", "path": path}]})
        ids = [item["id"] for item in one.get("/api/basket").json()["items"]]
        first = one.post("/api/restore/preview", json={"ids": ids[:1]}).json()
        second = other.post("/api/restore/preview", json={"ids": ids[1:]}).json()

        def whole(client: httpx.Client, asked: dict[str, Any]) -> dict[str, Any]:
            def ready() -> dict[str, Any] | None:
                found: dict[str, Any] = client.get("/api/restore/looked", params={"id": asked["id"]}).json()
                return found if found["state"] == "ready" else None

            return wait_for(ready)

        assert whole(other, second)["files"] == 1
        assert whole(one, first)["conflict_count"] == 22
        for _ in range(10):  # those of people who went away are not kept
            last = one.post("/api/restore/preview", json={"ids": ids[:1]}).json()
        assert whole(one, last)["conflict_count"] == 22
        assert one.get("/api/restore/looked", params={"id": first["id"]}).status_code == 404


def test_nothing_goes_into_a_folder_that_nobody_looked_at(served: Serving, open_page: Open, machine: Path) -> None:
    page = open_page(served)
    chosen(page, "shop")
    ask(page)
    page.get_by_role("radio", name="Another folder of the machine").check()
    go = page.get_by_role("button", name="Restore", exact=True)
    expect(go).to_be_disabled()
    page.get_by_role("textbox", name="Folder of the machine").press_sequentially("/srv/f", delay=20)
    expect(go).to_be_disabled()
    expect(page.locator(".preview")).to_contain_text("nothing in the way")
    expect(go).to_be_enabled()
    page.get_by_role("textbox", name="Folder of the machine").press_sequentially("ound", delay=20)
    expect(go).to_be_disabled()
    assert not (machine / "f").exists()


def test_an_answer_that_did_not_come_ends_no_looking(image: Path, by_tool: Target, open_page: Open) -> None:
    with serving(lost.points(image), target=by_tool) as running:
        page = open_page(running)
        chosen(page, "shop")
        ask(page)
        lost_answers = iter(range(3))
        page.route("**/api/restores*", lambda route: route.abort() if next(lost_answers, None) else route.continue_())
        page.get_by_role("button", name="Restore", exact=True).click()
        expect(page.locator("[aria-label=Restores] > li").first).to_contain_text("Ended", timeout=60_000)


def test_without_a_way_back_it_says_so(image: Path, open_page: Open) -> None:
    with serving(lost.points(image)) as running:
        page = open_page(running)
        page.locator(".files .rows .row", has_text="shop").locator("input").click()
        page.get_by_role("button", name="Add to the restore list").first.click()
        page.get_by_role("button", name="Show the list").click()
        expect(page.locator(".basket")).to_contain_text("no way to the original machine")
        expect(page.get_by_role("button", name="to the machine")).to_have_count(0)
        with running.signed() as client:
            answer = client.post("/api/restore/begin", json={"rule": "keep"})
            assert answer.status_code == 400
            assert "hands out" in answer.text
