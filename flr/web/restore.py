# SPDX-License-Identifier: Apache-2.0
"""Endpoints that write to the original machine: whether it can be written to, what a restore would meet, restores and how far
they are."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from starlette.responses import Response
from starlette.routing import Route

from flr.printable import shown
from flr.recovery.basket import Item
from flr.restore.preview import Preview
from flr.restore.restoration import Restoration, Restorations, Wish, document
from flr.restore.steps import Entry
from flr.restore.target import Rule, Status
from flr.web.requests import Signed, answer, endpoint, query
from flr.web.wire import error_document
from mover.errors import UsageError

PREVIEW_SECONDS = 0.3
RESULTS = {"done": "ok", "warning": "warning", "skipped": "skipped", "failed": "failed"}


class Where(msgspec.Struct):
    """Of the restore list's items with these ids, or of all of it. `folder`: of the machine; empty for where they were."""

    ids: list[int] = []
    folder: Annotated[str, msgspec.Meta(max_length=4096)] = ""


class Begin(Where):
    rule: Rule = "keep"
    privileges: bool = False


class Which(msgspec.Struct):
    id: str


def _restores(signed: Signed) -> Restorations:
    made, why = signed.desk.restores()
    if made is None:
        raise UsageError("this session only hands out files", "", why)
    return made


def _items(signed: Signed, ids: list[int]) -> list[Item]:
    wanted = set(ids)
    return [item for item in signed.desk.basket.all() if not wanted or item.id in wanted]


def target(signed: Signed) -> Response:
    made, why = signed.desk.restores()
    if made is None:
        return answer({"offered": False, "why": why})
    return answer({"offered": True, "way": made.target.name, "state": made.target.state()})


def preview(signed: Signed, body: Where) -> Response:
    """Begins to look; `looked` tells what it found."""
    made = _restores(signed).look(_items(signed, body.ids), _folder(body.folder))
    made.over.wait(PREVIEW_SECONDS)
    return _previewed(made)


def looked(signed: Signed) -> Response:
    made = _restores(signed).preview(query(signed.request, Which).id)
    made.over.wait(PREVIEW_SECONDS)
    return _previewed(made)


def _previewed(made: Preview) -> Response:
    return answer({**made.document(), **_error_of(made)})


def _error_of(made: Preview | Restoration) -> dict[str, Any]:
    return {"error": error_document(made.error)["error"] if made.error is not None else None}


def _folder(text: str) -> bytes:
    return text.strip().encode("utf-8", "surrogatepass")


def begin(signed: Signed, body: Begin) -> Response:
    items = _items(signed, body.ids)
    wish = Wish(tuple(items), body.rule, _folder(body.folder), body.privileges)
    return _begun(signed, wish)


def retry(signed: Signed, body: Which) -> Response:
    return _begun(signed, Wish((), "keep"), body.id)


def _begun(signed: Signed, wish: Wish, after: str = "") -> Response:
    def told(entry: Entry, status: Status, digest: str) -> None:
        if entry.kind == "folder" and status.state != "failed":
            return
        path = entry.target
        if status.name:
            path = path.rpartition(b"/")[0] + b"/" + status.name.encode("utf-8", "surrogateescape")
        signed.note(
            "restore", result=RESULTS[status.state], point=entry.item.point, volume=entry.item.volume, path=shown(path),
            size=entry.found.size if entry.kind == "file" else None, sha256=digest, text=status.text,
        )  # fmt: skip

    made = _restores(signed).start(wish, told, lambda made: _over(signed, made), after)
    wish = made.wish
    where = f"into {shown(wish.folder)}" if wish.folder else "where it was"
    signed.note(
        "restore begins",
        path=shown(wish.items[0].path),
        text=f"{len(wish.items)} items, {where}, rule {wish.rule}, number {made.id}",
    )
    return answer(_told(made))


def _over(signed: Signed, made: Restoration) -> None:
    counts = made.counts
    words = ", ".join(f"{counts[word]} {word}" for word in counts)
    result = (
        "failed"
        if made.error is not None
        else "cut"
        if made.state == "stopped"
        else "warning"
        if counts["failed"]
        else "ok"
    )
    more = f": {made.error.what}" if made.error is not None else ""
    signed.note("restore ends", result=result, text=f"number {made.id}: {words}{more}")


def stop(signed: Signed, body: Which) -> Response:
    made = _restores(signed).get(body.id)
    made.stop.set()
    signed.note("restore stop", text=f"number {made.id}")
    return answer(_told(made))


def restores(signed: Signed) -> Response:
    made, _ = signed.desk.restores()
    return answer({"restores": [_told(one) for one in made.all()] if made is not None else []})


def problems(signed: Signed) -> Response:
    """All that is remembered of what went wrong, as text."""
    made = _restores(signed).get(query(signed.request, Which).id)
    lines = "".join(f"{text}\n" for text in made.problems)
    if made.problem_count > len(made.problems):
        lines += f"and {made.problem_count - len(made.problems)} more\n"
    headers = {"content-disposition": f'attachment; filename="restore-{made.id}.txt"'}
    return Response(lines, media_type="application/octet-stream", headers=headers)


def _told(made: Restoration) -> dict[str, Any]:
    return {**document(made), **_error_of(made)}


ROUTES = [
    Route("/api/restore", endpoint(target)),
    Route("/api/restore/preview", endpoint(preview, Where), methods=["POST"]),
    Route("/api/restore/looked", endpoint(looked)),
    Route("/api/restore/begin", endpoint(begin, Begin), methods=["POST"]),
    Route("/api/restore/retry", endpoint(retry, Which), methods=["POST"]),
    Route("/api/restore/stop", endpoint(stop, Which), methods=["POST"]),
    Route("/api/restores", endpoint(restores)),
    Route("/api/restore/problems", endpoint(problems)),
]
