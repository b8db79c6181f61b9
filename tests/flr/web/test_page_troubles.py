# SPDX-License-Identifier: Apache-2.0
"""What the page says when something is not there, is damaged, is too much, takes long, or is about to end. What the server would
take minutes or damage for is answered in its place."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, Route, expect

from flr.recovery.points import RepositoryPoints
from mover.repository.repository import Repository
from tests.agent.waiting import wait_for
from tests.flr.web.conftest import MANY, THESIS
from tests.flr.web.serving import Serving, serving
from tests.flr.web.test_page import go, names

pytestmark = pytest.mark.slow

Open = Callable[[Serving], Page]
LIST = "**/api/list?*"
CUT = """() => [...document.querySelectorAll("button, select, input, a")]
  .filter((one) => one.checkVisibility({ visibilityProperty: true }) && !one.closest(".grid, .crumbs ol, .scroll"))
  .map((one) => [one.outerHTML.slice(0, 120), one.getBoundingClientRect()])
  .filter(([, box]) => box.left < 0 || box.right > innerWidth || box.height < 24 || box.width < 16).map(([text]) => text)"""
"""What a finger or an eye cannot reach."""
LONG = {"idle": 1800.0, "limit": 43200.0, "warn": False, "transfers": 0}


def says(document: Any, status: int = 200) -> Callable[[Route], None]:
    return lambda route: route.fulfill(status=status, content_type="application/json", body=json.dumps(document))


def problem(what: str, value: str = "", kind: str = "Corrupt") -> Callable[[Route], None]:
    return says({"error": {"type": kind, "what": what, "value": value, "hint": "other files may be whole"}}, 422)


def test_a_folder_that_cannot_be_read_is_not_shown_as_empty(served: Serving, open_page: Open) -> None:
    page = open_page(served)
    page.route(LIST, problem("a block of the folder is damaged", "block 71"))
    page.locator(".files .rows .title", has_text="home").dblclick()
    note = page.locator(".files .empty")
    expect(note).to_contain_text("A block of the folder is damaged: block 71.")
    expect(note).to_contain_text("Other files may be whole.")
    expect(note).not_to_contain_text("Nothing is in this folder")
    expect(page.locator(".files .rows .row")).to_have_count(0)
    page.unroute(LIST)
    note.get_by_role("button", name="Try again").click()
    assert names(page) == ["anna"]
    expect(note).to_be_hidden()
    page.route(LIST, problem("the parser ended"))
    page.get_by_role("button", name="Size").click()
    expect(note).to_contain_text("The parser ended.")
    page.unroute(LIST)
    note.get_by_role("button", name="Try again").click()
    assert names(page) == ["anna"]
    expect(page.locator(".files [aria-sort=ascending]")).to_have_text("Size")


def test_a_path_that_is_not_there_leads_to_the_nearest_that_is(served: Serving, open_page: Open) -> None:
    page = open_page(served)
    go(page, "/home/anna/Gone/for/ever")
    expect(page.locator(".files .empty")).to_contain_text(
        "This folder is not there at this restore point: /home/anna/Gone/for/ever."
    )
    expect(page.locator(".files .rows .row")).to_have_count(0)
    page.get_by_role("button", name="Go to the nearest folder").click()
    expect(page.locator(".crumbs [aria-current]")).to_have_text("anna")
    expect(page.locator(".files .grid")).to_be_focused()
    page.keyboard.press("F2")
    field = page.locator(".crumbs .path")
    field.fill("/home/anna/Documents/thesis.txt")  # a file is shown where it stands
    field.press("Enter")
    expect(page.locator(".crumbs [aria-current]")).to_have_text("Documents")
    expect(page.locator(".files .row.active")).to_contain_text("thesis.txt")


def test_rows_of_one_point_never_stand_under_another(served: Serving, open_page: Open, guest: Repository) -> None:
    page = open_page(served)
    go(page, "/home/anna/Documents")
    page.locator(".files .rows .title", has_text="page.html").click()
    newest = [point.id for point in guest.points()][-1]
    held: list[Route] = []
    page.route("**/api/volumes?*", lambda route: held.append(route))
    page.get_by_label("Restore point", exact=True).select_option(newest)
    expect(page.locator(".foot .state")).to_have_text("Opening the restore point…")
    expect(page.locator(".files .rows .title")).to_have_count(0)
    wait_for(lambda: bool(held) or page.wait_for_timeout(1))
    problem("the repository does not answer", "", "TargetError")(held.pop())
    expect(page.locator(".files .empty")).to_contain_text("The repository does not answer.")
    page.unroute("**/api/volumes?*")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".files .row.active")).to_contain_text("page.html")  # where somebody was before
    expect(page.locator(".files .rows")).not_to_contain_text("deleted.txt")


def test_a_volume_that_is_not_there_is_said_to_be_so(served: Serving, open_page: Open, guest: Repository) -> None:
    page = open_page(served)
    page.goto(f"{served.url}/#/{next(guest.points()).id}/group%2Fdata/home")
    expect(page.locator(".files .empty")).to_contain_text("This volume is not there at this restore point: group/data.")


def test_a_choice_is_whole_or_none(served: Serving, open_page: Open) -> None:
    page = open_page(served)
    go(page, "/srv/many")
    expect(page.locator(".foot .state")).to_have_text(f"{MANY:,} entries")
    page.keyboard.press("Shift+End")
    toast = page.locator(".toast")
    expect(toast).to_contain_text(f"{MANY:,} entries are more than can be chosen at once")
    expect(page.locator(".chosen")).to_be_empty()
    page.keyboard.press("Home")
    for _ in range(3):
        page.keyboard.press("Shift+PageDown")
    expect(page.locator(".chosen")).to_contain_text("chosen")
    count = int(page.locator(".chosen .sub").inner_text().split()[0])
    assert count == int(page.locator(".files .row.active").get_attribute("aria-rowindex") or 0) - 1
    page.keyboard.press("Escape")
    page.keyboard.press("Control+a")
    toast.get_by_role("button", name="Add the folder").click()
    expect(page.locator(".head-part .count")).to_have_text("1")
    assert [item.path for item in served.desk.basket.all()] == [b"/srv/many"]
    page.keyboard.press("Control+a")
    expect(toast).to_contain_text("more than can be chosen")
    page.locator(".files .bar").get_by_role("button", name="One folder up").click()
    expect(toast).to_have_count(0)  # it would add another folder than it says


def test_what_is_scrolled_past_is_not_asked_for(served: Serving, open_page: Open) -> None:
    page = open_page(served)
    go(page, "/srv/many")
    expect(page.locator(".foot .state")).to_have_text(f"{MANY:,} entries")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/api/list" in request.url else None)
    page.evaluate("""async () => {
      const view = document.querySelector(".files .view");
      for (let step = 1; step <= 40; step += 1) {
        view.scrollTop = (view.scrollHeight * step) / 80;
        await new Promise(requestAnimationFrame);
      }
    }""")
    expect(page.locator(".files .rows")).to_contain_text(f"file {MANY // 2} of many.txt")
    assert len(asked) < 10


def test_millions_of_rows_are_reached_to_the_last(served: Serving, open_page: Open) -> None:
    page = open_page(served)
    page.evaluate("""async () => {
      const { Grid } = await import("/static/grid.js");
      const row = (number) => ({ key: String(number), name: `row ${number}` });
      const numbers = (offset, count) => [...Array(Math.min(count, 5_000_000 - offset)).keys()].map((k) => row(offset + k));
      const load = async (offset, count) => ({ matched: 5_000_000, rows: numbers(offset, count) });
      const columns = [{ id: "name", label: "Name", cell: (row) => row.name }];
      const grid = new Grid({ label: "Rows", columns, load, open: () => {} });
      const place = document.querySelector(".files");
      place.replaceChildren(grid.frame);
      await grid.reset();
      grid.element.focus();
    }""")
    rows = page.locator(".files .rows")
    for key, last in (("End", 4_999_999), ("ArrowUp", 4_999_998), ("PageUp", None), ("Home", 0), ("End", 4_999_999)):
        page.keyboard.press(key)
        expect(page.locator(".files .row.active .name")).to_be_in_viewport()
        if last is not None:
            expect(page.locator(".files .row.active .name")).to_have_text(f"row {last}")
    page.evaluate("document.querySelector('.files .view').scrollTop = 0")
    expect(rows).to_contain_text("row 0")
    page.evaluate(
        "(() => { const view = document.querySelector('.files .view'); view.scrollTop = view.scrollHeight; })()"
    )
    expect(rows.locator(".row", has_text="row 4999999")).to_be_in_viewport()
    assert page.locator(".files .row").count() < 100


def test_a_folder_that_is_being_read_fills_up_without_a_gap(served: Serving, open_page: Open) -> None:
    page = open_page(served)
    held: list[Route] = []

    def partly(route: Route) -> None:
        if seen:
            held.append(route)
            return
        answer = route.fetch()
        document = answer.json()
        seen.append(document["total"])
        document |= {"complete": False, "rows": document["rows"][:3], "matched": 3, "total": 3}
        route.fulfill(response=answer, json=document)

    seen: list[int] = []
    page.route(LIST, partly)
    page.locator(".files .bar").get_by_role("button", name="Refresh").click()
    expect(page.locator(".foot .state")).to_have_text("3 entries · reading on…")
    wait_for(lambda: bool(held) or page.wait_for_timeout(1))
    page.locator(".files .grid").press("ArrowDown")
    expect(page.locator(".files .row.active")).to_have_attribute("aria-rowindex", "3")
    assert len(names(page)) == 3  # while more of it is on its way
    expect(page.locator(".files .row.waiting")).to_have_count(0)
    held.pop().continue_()
    expect(page.locator(".foot .state")).to_have_text(f"{seen[0]} entries")
    assert len(names(page)) == seen[0]
    expect(page.locator(".files .row.active")).to_have_attribute("aria-rowindex", "3")


def test_results_are_sorted_and_lead_to_where_they_stand(served: Serving, open_page: Open) -> None:
    page = open_page(served)
    press = page.keyboard.press
    press("/")
    page.keyboard.type("e")
    page.locator(".search [name=how]").select_option("contains")
    page.locator(".search summary").click()
    page.locator(".search [name=least]").fill("30k")
    press("Enter")
    expect(page.locator(".search .state")).to_contain_text("looked at.")
    page.locator(".search .head").get_by_role("button", name="Size").click()
    page.locator(".search .head").get_by_role("button", name="Size").click()
    expect(page.locator(".search [aria-sort=descending]")).to_have_text("Size")
    sizes = page.locator(".search .rows .size").all_inner_texts()
    assert sizes[0] == "195.3 KiB"
    page.locator(".search .grid").focus()
    press("Home")
    press("Control+Enter")
    expect(page.locator(".crumbs [aria-current]")).to_have_text("Reports")
    expect(page.locator(".files .row.active")).to_contain_text("Minutes.docx")
    expect(page.locator(".files .grid")).to_be_focused()
    press("Home")
    press("/")
    press("Escape")  # from the field to the results
    press("Control+Enter")  # to the folder that is open already
    expect(page.locator(".files .row.active")).to_contain_text("Minutes.docx")
    page.goto(f"{served.url}/#/%/0/home")  # an address that was cut in the middle
    page.reload()
    expect(page.locator(".crumbs [aria-current]")).to_have_text("root")


def test_a_search_is_shown_while_it_goes_on_and_can_be_stopped(served: Serving, open_page: Open) -> None:
    page = open_page(served)

    def partly(route: Route) -> None:
        answer = route.fetch()
        document = answer.json()
        assert "state" in document, document
        document["state"] |= {"complete": False}
        route.fulfill(response=answer, json=document)

    page.route("**/api/results?*", partly)
    page.keyboard.press("/")
    page.keyboard.type("thesis")
    page.keyboard.press("Enter")
    expect(page.locator(".search .rows")).to_contain_text("thesis.txt")
    expect(page.locator(".search .state")).to_contain_text("1 found")
    expect(page.locator(".search .state")).to_contain_text("…")
    page.locator(".search").get_by_role("button", name="Stop").click()
    expect(page.locator(".search .state")).to_contain_text("Stopped.")
    expect(page.locator(".search .rows")).to_contain_text("thesis.txt")
    page.locator(".search [name=how]").select_option("regex")
    page.locator(".search [name=text]").fill("(")
    page.keyboard.press("Enter")
    expect(page.locator(".search .state .bad")).to_be_visible()
    page.unroute_all(behavior="wait")


def test_a_long_file_is_seen_part_by_part(served: Serving, open_page: Open) -> None:
    page = open_page(served)
    go(page, "/home/anna/Documents")
    page.locator(".files .rows .title", has_text="thesis.txt").dblclick()
    area = page.locator(".sheet pre")
    more = page.locator(".sheet").get_by_role("button", name="Show more")
    for _ in range(2):
        length = len(area.text_content() or "")
        with page.expect_request(lambda request: "encoding=utf-8" in request.url):  # no letter is cut in two
            more.click()
        wait_for(lambda before=length: len(area.text_content() or "") > before)  # type: ignore[misc]
    expect(more).to_be_hidden()
    assert (area.text_content() or "").encode() == THESIS
    page.locator(".sheet").get_by_role("button", name="As bytes").click()
    expect(page.locator(".hex-view")).to_contain_text("00000000  4f 6e 63 65 20 75 70 6f  Once upo")


def test_what_was_removed_from_the_list_comes_back(served: Serving, open_page: Open) -> None:
    page = open_page(served)
    page.keyboard.press("Control+a")
    page.keyboard.press("+")
    count = page.locator(".head-part .count")
    expect(count).not_to_be_empty()
    before = {item.path for item in served.desk.basket.all()}
    page.get_by_role("button", name="Show the list").press("Enter")
    expect(page.locator(".basket .grid")).to_be_focused()
    page.keyboard.press("Delete")
    expect(page.locator(".basket .empty")).to_contain_text("The list is empty")
    page.get_by_role("button", name="Undo").press("Enter")
    expect(page.locator(".basket .rows .row").first).to_be_visible()
    expect(page.locator(".basket .grid")).to_be_focused()
    assert {item.path for item in served.desk.basket.all()} == before
    page.go_back()
    expect(page.locator(".files .grid")).to_be_focused()


def test_a_person_is_asked_before_an_idle_session_ends(guest: Repository, open_page: Open) -> None:
    first = next(guest.points())
    with serving(RepositoryPoints(guest, first, lambda text: None), first=first.id, idle=6.0) as running:
        page = open_page(running)
        page.clock.install()
        page.goto(running.url)
        page.wait_for_selector(".rows .row .title")
        life = running.desk.life
        wait_for(lambda: life.left().warn)
        page.clock.fast_forward(15_000)  # until the page looks at the time that is left
        dialog = page.get_by_role("dialog", name="Are you still there?")
        expect(dialog).to_contain_text("The session ends in")
        before = life.left().idle
        dialog.get_by_role("button", name="Stay").click()
        expect(dialog).to_have_count(0)
        wait_for(lambda: life.left().idle > before)
        page.route("**/api/status?*", says({"left": {**LONG, "idle": 200.0, "warn": True}, "basket": 0, "notes": []}))
        page.clock.fast_forward(15_000)
        dialog.get_by_role("button", name="Stop now").click()
        expect(page.locator("h1")).to_have_text("The session is over")
        running.thread.join(30)
        assert life.why == "it was stopped in the browser"


def test_of_its_last_minutes_a_person_is_told_once(served: Serving, open_page: Open) -> None:
    page = open_page(served)
    page.clock.install()
    page.goto(served.url)
    page.wait_for_selector(".rows .row .title")
    status = {"left": {**LONG, "limit": 200.0, "warn": True}, "basket": 0, "notes": []}
    page.route("**/api/status?*", says(status))
    page.clock.fast_forward(15_000)
    dialog = page.get_by_role("dialog", name="The time is nearly over")
    dialog.get_by_role("button", name="Go on").click()
    for _ in range(4):
        with page.expect_response("**/api/status?*"):
            page.clock.fast_forward(15_000)
    expect(dialog).to_have_count(0)
    page.route("**/api/**", lambda route: route.abort())
    page.get_by_role("button", name="Time left").click()
    page.get_by_role("button", name="Stop the session…").click()
    page.get_by_role("button", name="Stop the session", exact=True).click()
    expect(page.locator(".toast")).to_contain_text("It could not be stopped.")
    page.clock.fast_forward(300_000)
    expect(page.locator("h1")).to_have_text("The session is over")
    expect(page.locator(".card")).to_contain_text("Its time was over")


def test_a_page_that_reaches_nobody_goes_on_by_itself(
    served: Serving, open_page: Open, context: BrowserContext
) -> None:
    page = open_page(served)
    go(page, "/home/anna")
    page.route("**/api/**", lambda route: route.abort())
    page.locator(".files .rows .title", has_text="Documents").dblclick()
    expect(page.get_by_role("alert")).to_contain_text("The worker does not answer")
    expect(page.locator(".files .empty")).to_contain_text("does not answer")
    page.unroute("**/api/**")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")  # somebody comes back to the page
    expect(page.locator(".files .rows")).to_contain_text("thesis.txt")
    expect(page.locator(".lost")).to_be_hidden()
    other = context.new_page()
    other.route("**/api/**", lambda route: route.abort())
    other.goto(served.url)
    expect(other.locator("h1")).to_have_text("The worker does not answer")
    other.unroute("**/api/**")
    expect(other.locator(".rows .row .title").first).to_be_visible()


def test_nothing_is_cut_off(served: Serving, open_page: Open) -> None:
    page = open_page(served)
    go(page, "/home/anna/Documents")
    folder = page.url
    page.emulate_media(reduced_motion="reduce")  # nothing is on its way to somewhere else
    for width in (320, 360, 768, 1100, 1440, 3840):
        page.set_viewport_size({"width": width, "height": 800})
        for address in (folder, f"{served.url}/#list", f"{served.url}/#log"):
            page.goto(address)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate(CUT) == []
