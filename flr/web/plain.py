# SPDX-License-Identifier: Apache-2.0
"""The browser without scripts: volumes, folders as lists of links, files to download. For text browsers, and when all else fails.

Everything that a guest wrote becomes text here (`element` escapes whatever it is given); no page of these runs a script.
"""

from __future__ import annotations

import html
import stat
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, Literal
from urllib.parse import parse_qs, quote, urlencode

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from flr.printable import shown
from flr.recovery.folder import COLUMNS
from flr.web.access import Refused
from flr.web.download import send
from flr.web.requests import COOKIE, Signed, address_of, agent_of, query
from flr.web.session import with_cookie, without_cookie
from flr.web.wire import coded, decoded, row
from mover.errors import MoverError, UsageError

PAGE = 500
"""Entries of one page."""
POLICY = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


class Html(str):
    """Text that is markup already."""


class Wanted(msgspec.Struct, kw_only=True):
    point: str
    volume: str = ""
    path: str = "/"
    sort: Literal["name", "size", "modified", "type", "owner", "mode"] = "name"
    order: Literal["up", "down"] = "up"
    offset: Annotated[int, msgspec.Meta(ge=0, le=1 << 40)] = 0


def element(tag: str, *inside: str, **attributes: str) -> Html:
    """Strings become text, Html stays as it is; `class_` is the attribute's name without its line."""
    named = "".join(f' {name.rstrip("_")}="{html.escape(value)}"' for name, value in attributes.items())
    if tag in ("input", "br", "link", "meta"):
        return Html(f"<{tag}{named}>")
    return Html(
        f"<{tag}{named}>{''.join(text if isinstance(text, Html) else html.escape(text) for text in inside)}</{tag}>"
    )


def page(title: str, *inside: Html, status: int = 200) -> Response:
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width"),
        element("title", title),
        element("link", rel="stylesheet", href="/static/plain.css"),
    )
    body = element("body", element("main", element("h1", title), *inside))
    document = "<!doctype html>\n" + element("html", head, body, lang="en")
    return Response(document, status, media_type="text/html", headers={"content-security-policy": POLICY})


def signing_in(text: str = "", status: int = 200) -> Response:
    form = element(
        "form",
        element(
            "label", "The code: what follows “#t=” in your link ", element("input", name="token", autocomplete="off")
        ),
        element("button", "Sign in"),
        method="post",
        action="/plain/sign-in",
    )
    return page("File recovery", *([element("p", text, role="alert")] if text else []), form, status=status)


async def sign_in(request: Request) -> Response:
    fields = parse_qs((await request.body()).decode("ascii", "replace"))
    token = fields.get("token", [""])[0].strip().rpartition("#t=")[2]
    desk, access = request.app.state.desk, request.app.state.access
    who = {"address": address_of(request), "agent": agent_of(request)}
    try:
        secret = access.exchange(token[:200], who["address"])
    except Refused as refused:
        desk.audit.add("sign-in", result="refused", text=refused.what, **who)
        return signing_in(f"{refused.what[:1].upper()}{refused.what[1:]}.", 429 if refused.wait else 403)
    desk.audit.add("sign-in", **who)
    return with_cookie(RedirectResponse("/plain/", 303), secret)


async def sign_out(request: Request) -> Response:
    request.app.state.access.end(request.cookies.get(COOKIE, ""))
    return without_cookie(signing_in("You are signed out."))


def home(signed: Signed) -> Response:
    """Points, and the volumes of the one that is chosen."""
    recovery = signed.desk.recovery
    points = recovery.all()
    chosen = signed.request.query_params.get("point") or signed.desk.first or points[0].id
    parts = []
    with recovery.using(chosen) as opened:
        guest = opened.guest()
        for volume in opened.volumes():
            entry = volume.entry
            if volume.opened is None:
                if volume.why_not:
                    parts.append(
                        element("li", f"{entry.id}: {entry.words or entry.kind} cannot be opened: {volume.why_not}")
                    )
                continue
            name = " · ".join(
                text
                for text in (
                    entry.id,
                    volume.opened.about.label,
                    entry.words,
                    _size(entry.size),
                    guest.mounts.get(entry.id, ""),
                )
                if text
            )
            link = element("a", name, href=_address("list", point=chosen, volume=entry.id, path="/"))
            parts.append(element("li", link, *(element("p", text) for text in volume.warnings)))
    others = [
        element("li", element("a", _moment(point.made) or point.id, href=_address("", point=point.id)))
        for point in points
        if point.id != chosen
    ]
    more = [element("h2", "Other restore points"), element("ul", *others)] if others else []
    leave = element("form", element("button", "Sign out"), method="post", action="/plain/sign-out")
    return page(f"Files of {recovery.points.resource}", element("h2", "Volumes"), element("ul", *parts), *more, leave)


def listing(signed: Signed) -> Response:
    wanted = query(signed.request, Wanted)
    path = decoded(wanted.path)
    here = {"point": wanted.point, "volume": wanted.volume}
    folder = signed.desk.folder(wanted.point, wanted.volume, path)
    found = folder.page(wanted.sort, wanted.order == "down", b"", wanted.offset, PAGE)
    with signed.desk.recovery.using(wanted.point) as opened:
        guest = opened.guest()
    signed.note("look", point=wanted.point, volume=wanted.volume, path=shown(path))
    clean = wanted.path.rstrip("/")
    heads = [
        element(
            "th",
            element(
                "a", column, href=_address("list", **here, path=wanted.path, sort=column, order=_turned(wanted, column))
            ),
        )
        for column in COLUMNS
    ]
    lines = []
    for one in (row(entry, guest) for entry in found.entries):
        place = f"{clean}/{one['key']}"
        target = {"folder": "list", "link": "list", "file": "file"}.get(one["kind"])
        name: str = element("bdi", one["name"])
        if target and "problem" not in one:
            name = element("a", name, href=_address(target, **here, path=place))
        mode = stat.filemode(one["mode"])[1:] if "mode" in one else ""
        cells = (name, _size(one.get("size")), _moment(one.get("modified")), one["kind"], one.get("owner", ""), mode)
        lines.append(
            element(
                "tr",
                *(element("td", cell) for cell in cells),
                *([element("td", one["problem"])] if "problem" in one else []),
            )
        )
    above = []
    if clean:
        parent = coded(path.rstrip(b"/").rpartition(b"/")[0] or b"/")
        above.append(element("p", element("a", "one folder up", href=_address("list", **here, path=parent))))
    table = element("table", element("thead", element("tr", *heads)), element("tbody", *lines))
    turns = []
    for text, at in (("earlier entries", wanted.offset - PAGE), ("more entries", wanted.offset + PAGE)):
        if 0 <= at < found.matched:
            turns.append(
                element(
                    "a",
                    text,
                    href=_address(
                        "list", **here, path=wanted.path, sort=wanted.sort, order=wanted.order, offset=str(at)
                    ),
                )
            )
    state = f"{found.total} entries" + ("" if found.complete else " so far; reload for more")
    if found.problem:
        state += f"; {found.problem.what}: {found.problem.value}"
    home_link = element("p", element("a", "all volumes", href=_address("", point=wanted.point)))
    return page(shown(path), home_link, *above, element("p", state), table, element("p", *turns))


def file(signed: Signed) -> Response:
    wanted = query(signed.request, Wanted)
    items = signed.desk.basket.look([(wanted.point, wanted.volume, decoded(wanted.path))])
    return send(signed, signed.desk.downloads.make("file", items))


def _page(run: Callable[[Signed], Response]) -> Callable[[Request], Awaitable[Response]]:
    async def answers(request: Request) -> Response:
        secret = request.cookies.get(COOKIE, "")
        if not request.app.state.access.knows(secret):
            return signing_in()
        desk = request.app.state.desk
        desk.life.use()
        try:
            return await run_in_threadpool(run, Signed(request, desk, secret))
        except MoverError as error:
            back = element("p", element("a", "all volumes", href="/plain/"))
            status = 400 if isinstance(error, UsageError) else 404
            return page(
                "That did not work",
                element("p", f"{error.what}: {error.value}"),
                element("p", error.hint),
                back,
                status=status,
            )

    return answers


def _address(what: str, **arguments: str) -> str:
    return f"/plain/{what}?{urlencode(arguments, quote_via=quote)}"


def _turned(wanted: Wanted, column: str) -> str:
    return "down" if wanted.sort == column and wanted.order == "up" else "up"


def _size(size: int | None) -> str:
    if size is None:
        return ""
    value, unit = float(size), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.1f} {_UNITS[unit]}" if unit else f"{size} B"


def _moment(seconds: float | None) -> str:
    try:
        return "" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
    except (OverflowError, ValueError, OSError):
        return f"{seconds:.0f} s since 1970"


ROUTES = [
    Route("/plain/", _page(home)),
    Route("/plain/list", _page(listing)),
    Route("/plain/file", _page(file)),
    Route("/plain/sign-in", sign_in, methods=["POST"]),
    Route("/plain/sign-out", sign_out, methods=["POST"]),
]
