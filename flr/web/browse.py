# SPDX-License-Identifier: Apache-2.0
"""Endpoints that look: volumes, folders, details, previews, searches, versions of a file. None of them changes anything."""

from __future__ import annotations

import hashlib
import stat
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import msgspec
from starlette.responses import Response
from starlette.routing import Route

from flr.archive import acl_text
from flr.blocks import Hole
from flr.catalogue import Query
from flr.errors import NodeNotFound, RecoveryError, WrongKind
from flr.fs.base import Attributes
from flr.printable import shown
from flr.recovery.content import zeros
from flr.recovery.folder import COLUMNS
from flr.recovery.preview import ENCODINGS, PREVIEW_BYTES, image_type, kind_of_content
from flr.recovery.recovery import OpenPoint
from flr.web.guard import CONTENT_POLICY
from flr.web.requests import Signed, answer, endpoint, query
from flr.web.wire import decoded, figures, match_row, row, seconds
from mover.errors import UsageError

MOST_ROWS = 1000
LONGEST_ATTRIBUTE = 4096
_ACLS = (b"system.posix_acl_access", b"system.posix_acl_default")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Natural = Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]


class Place(msgspec.Struct, kw_only=True):
    point: str
    volume: str = ""
    path: str = "/"


class Rows(Place, kw_only=True):
    sort: str = "name"
    order: Literal["up", "down"] = "up"
    filter: str = ""
    offset: Natural = 0
    count: Natural = 200


class Jump(Rows, kw_only=True):
    """`key`: to that very entry; else to the next one behind `after` whose name begins with `prefix`."""

    key: str = ""
    prefix: str = ""
    after: int = -1


class Preview(Place, kw_only=True):
    """`encoding`: of the part before, or as a person wants to see it; empty to find out."""

    offset: Natural = 0
    encoding: str = ""


class Wanted(Place, kw_only=True):
    """Sizes in bytes, times in seconds since 1970."""

    text: str = ""
    how: Literal["contains", "glob", "regex"] = "contains"
    case: bool = False
    least: Natural | None = None
    most: Natural | None = None
    since: float | None = None
    until: float | None = None
    kind: Literal["", "file", "folder", "link"] = ""


class Results(msgspec.Struct):
    search: int
    offset: Natural = 0
    count: Natural = 200


class Number(msgspec.Struct):
    search: int


def volumes(signed: Signed) -> Response:
    place = query(signed.request, Place)
    with signed.desk.recovery.using(place.point) as opened:
        guest = opened.guest()
        made = []
        for volume in opened.volumes():
            entry, about = volume.entry, volume.opened.about if volume.opened else None
            made.append(
                {
                    "id": entry.id,
                    "kind": entry.kind,
                    "size": entry.size,
                    "used": about.used if about else None,
                    "holds": entry.words or entry.type or entry.kind,
                    "label": (about.label if about else "") or entry.label or entry.name,
                    "mounted": guest.mounts.get(entry.id, "") or (about.mounted_at if about else ""),
                    "journal": about.journal if about else "",
                    "opens": about is not None,
                    "why_not": volume.why_not,
                    "hint": volume.hint,
                    "part_of": entry.part_of,
                    "warnings": volume.warnings,
                }
            )
        return answer({"volumes": made, "warnings": opened.session.found()[1], "root": guest.root})


def listing(signed: Signed) -> Response:
    wanted = query(signed.request, Rows)
    if wanted.sort not in COLUMNS:
        raise UsageError("not a column", wanted.sort, ", ".join(COLUMNS))
    path = decoded(wanted.path)
    folder = signed.desk.folder(wanted.point, wanted.volume, path)
    down = wanted.order == "down"
    page = folder.page(wanted.sort, down, wanted.filter.encode(), wanted.offset, min(wanted.count, MOST_ROWS))
    with signed.desk.recovery.using(wanted.point) as opened:
        guest = opened.guest()
        news = opened.news(wanted.volume) if page.complete and not page.offset else []
    if wanted.offset == 0 and not wanted.filter:
        signed.note("look", point=wanted.point, volume=wanted.volume, path=shown(path))
    return answer(
        {
            "rows": [row(entry, guest) for entry in page.entries],
            "offset": page.offset,
            "matched": page.matched,
            "total": page.total,
            "complete": page.complete,
            "problem": f"{page.problem.what}: {page.problem.value}" if page.problem else "",
            "warnings": news,
        }
    )


def jump(signed: Signed) -> Response:
    wanted = query(signed.request, Jump)
    if wanted.sort not in COLUMNS:
        raise UsageError("not a column", wanted.sort, ", ".join(COLUMNS))
    folder = signed.desk.folder(wanted.point, wanted.volume, decoded(wanted.path))
    down, text = wanted.order == "down", wanted.filter.encode()
    if wanted.key:
        return answer({"row": folder.where(wanted.sort, down, text, decoded("/" + wanted.key)[1:])})
    return answer({"row": folder.place(wanted.sort, down, text, wanted.prefix.encode(), wanted.after)})


def details(signed: Signed) -> Response:
    """All that is known of one entry. What of it cannot be read is said beside the rest."""
    place = query(signed.request, Place)
    path = decoded(place.path)
    with signed.desk.recovery.using(place.point) as opened:
        found = opened.find(place.volume, path)
        made = figures(found, opened.guest())
        made.update(
            {
                "path": shown(path),
                "node": found.number,
                "links": found.links,
                "allocated": found.allocated,
                "owner_id": found.owner,
                "group_id": found.group,
                "permissions": stat.filemode(found.mode),
                "times": {
                    word: {"at": seconds(value), "exact": _exact(value)}
                    for word in ("modified", "changed", "accessed", "created")
                    if (value := getattr(found, word)) is not None
                },
                **_more(opened, place.volume, found),
            }
        )
        return answer(made)


def _more(opened: OpenPoint, volume: str, found: Attributes) -> dict[str, Any]:
    session, node = opened.session, found.node
    made: dict[str, Any] = {"problems": []}

    def ask(word: str, make: Any) -> None:
        try:
            made[word] = make()
        except RecoveryError as error:
            made["problems"].append(f"{word}: {error.what}")

    if stat.S_ISLNK(found.mode):
        ask("target", lambda: shown(session.link(volume, node)))

    def attributes() -> list[dict[str, str]]:
        values = session.xattrs(volume, node)
        return [{"name": shown(name), "value": _value(name, value)} for name, value in sorted(values.items())]

    ask("attributes", attributes)
    ask("streams", lambda: [{"name": shown(one.name), "size": one.size} for one in session.streams(volume, node)])
    ask("security", lambda: session.security(volume, node).hex()[: 2 * LONGEST_ATTRIBUTE])
    return made


def _value(name: bytes, value: bytes) -> str:
    if name in _ACLS:
        text = acl_text(value)
        if text is not None:
            return text.decode()
    try:
        return shown(value.rstrip(b"\0").decode()[:LONGEST_ATTRIBUTE].encode())
    except UnicodeDecodeError:
        return value[:LONGEST_ATTRIBUTE].hex()


def _exact(nanoseconds: int) -> str:
    whole, rest = divmod(nanoseconds, 10**9)
    try:
        return f"{_EPOCH + timedelta(seconds=whole):%Y-%m-%d %H:%M:%S}.{rest:09d} UTC"
    except OverflowError:
        return f"{whole}.{rest:09d} s since 1970"


def _file(opened: OpenPoint, place: Place) -> Attributes:
    found = opened.session.find(place.volume, decoded(place.path), follow=True)
    if not stat.S_ISREG(found.mode):
        raise WrongKind("not a file", shown(decoded(place.path)), "only files have content that can be shown")
    return found


def preview(signed: Signed) -> Response:
    """A part of a file, as text where it is text; or that it is an image, which `image` then shows."""
    place = query(signed.request, Preview)
    if place.encoding and place.encoding not in ENCODINGS:
        raise UsageError("not an encoding that is shown", shown(place.encoding.encode()[:100]), ", ".join(ENCODINGS))
    with signed.desk.recovery.using(place.point) as opened:
        found = _file(opened, place)
        length = max(0, min(PREVIEW_BYTES, found.size - place.offset))
        data = opened.session.read(place.volume, found.node, place.offset, length)
    if place.offset == 0:
        signed.note("preview", point=place.point, volume=place.volume, path=shown(decoded(place.path)), size=len(data))
    seen = kind_of_content(data, found.size, place.offset, place.encoding)
    return answer({"size": found.size, "offset": place.offset, **seen})


def image(signed: Signed) -> Response:
    """The whole of a small picture whose first bytes say that it is one."""
    place = query(signed.request, Place)
    with signed.desk.recovery.using(place.point) as opened:
        found = _file(opened, place)
        head = opened.session.read(place.volume, found.node, 0, 64)
        kind = image_type(head, found.size)
        if kind is None:
            raise WrongKind("not an image that is shown", shown(decoded(place.path)), "download it")
        data = opened.session.read(place.volume, found.node, 0, found.size)
    return Response(data, media_type=kind, headers={"content-security-policy": CONTENT_POLICY})


def digest(signed: Signed) -> Response:
    """SHA-256 of a file's content."""
    place = query(signed.request, Place)
    made = hashlib.sha256()
    with signed.desk.recovery.using(place.point) as opened, signed.desk.life.transfer():
        found = _file(opened, place)
        for piece in opened.session.content(place.volume, found.node, found.size):
            if isinstance(piece, Hole):
                for nothing in zeros(piece.length):
                    made.update(nothing)
            else:
                made.update(piece)
            if signed.desk.life.ended.is_set():
                raise RecoveryError("the session has ended", shown(decoded(place.path)))
    return answer({"sha256": made.hexdigest(), "size": found.size})


def search(signed: Signed, wanted: Wanted) -> Response:
    text = wanted.text.encode("utf-8", "surrogatepass")
    glob, regex = b"", b""
    if text and wanted.how == "glob":
        glob = text
    elif text:
        regex = text if wanted.how == "regex" else _literally(text)
    asked = Query(
        glob=glob, regex=regex, ignore_case=not wanted.case, least=wanted.least, most=wanted.most,
        since=_nanoseconds(wanted.since), until=_nanoseconds(wanted.until), kind=wanted.kind,
    )  # fmt: skip
    path = decoded(wanted.path)
    number = signed.desk.searches.start(wanted.point, wanted.volume, path, asked)
    signed.note("search", point=wanted.point, volume=wanted.volume, path=shown(path), text=shown(text[:500]))
    return answer({"search": number})


def _literally(text: bytes) -> bytes:
    return b"".join(b"\\" + bytes([c]) if c < 128 and not chr(c).isalnum() else bytes([c]) for c in text)


def _nanoseconds(value: float | None) -> int | None:
    return None if value is None or not -1e11 < value < 1e11 else int(value * 1000) * 1_000_000


def results(signed: Signed) -> Response:
    wanted = query(signed.request, Results)
    found = signed.desk.searches.get(wanted.search)
    matches, state = found.results(wanted.offset, min(wanted.count, MOST_ROWS), 0.3)
    with signed.desk.recovery.using(found.point) as opened:
        guest = opened.guest()
    return answer({"rows": [match_row(path, match, guest) for path, match in matches], "state": state})


def stop_search(signed: Signed, wanted: Number) -> Response:
    signed.desk.searches.stop(wanted.search)
    return answer({})


def versions(signed: Signed) -> Response:
    """What one other point has at the same path; the page asks for one after the other."""
    place = query(signed.request, Place)
    with signed.desk.recovery.using(place.point) as opened:
        try:
            found = opened.find(place.volume, decoded(place.path))
        except NodeNotFound:
            return answer({"there": False})
        return answer({"there": True, "node": found.number, **figures(found, opened.guest())})


ROUTES = [
    Route("/api/volumes", endpoint(volumes)),
    Route("/api/list", endpoint(listing, bucket="looks")),
    Route("/api/jump", endpoint(jump)),
    Route("/api/details", endpoint(details)),
    Route("/api/preview", endpoint(preview)),
    Route("/api/image", endpoint(image)),
    Route("/api/hash", endpoint(digest)),
    Route("/api/search", endpoint(search, Wanted, bucket="asked"), methods=["POST"]),
    Route("/api/results", endpoint(results)),
    Route("/api/search/stop", endpoint(stop_search, Number), methods=["POST"]),
    Route("/api/versions", endpoint(versions)),
]
