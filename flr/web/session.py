# SPDX-License-Identifier: Apache-2.0
"""Endpoints of the session itself: signing in and out, what it is, staying, stopping, its log."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flr.web.access import Refused
from flr.web.requests import COOKIE, Signed, address_of, agent_of, answer, endpoint


class Token(msgspec.Struct, forbid_unknown_fields=True):
    token: str


class Nothing(msgspec.Struct):
    """A POST that says all by its address."""


def sign_in(request: Request, body: Token) -> Response:
    access, desk = request.app.state.access, request.app.state.desk
    who = {"address": address_of(request), "agent": agent_of(request)}
    try:
        secret = access.exchange(body.token[:200], who["address"])
    except Refused as refused:
        desk.audit.add("sign-in", result="refused", text=refused.what, **who)
        hint = "wait a little" if refused.wait else "ask whoever gave you the link for a new one; a link works once"
        document = {"error": {"type": "Refused", "what": refused.what, "value": "", "hint": hint}}
        made = answer(document, 429 if refused.wait else 403)
        if refused.wait:
            made.headers["retry-after"] = str(int(refused.wait) + 1)
        return made
    desk.life.use()
    desk.audit.add("sign-in", **who)
    return with_cookie(answer({}), secret)


def with_cookie(made: Response, secret: str) -> Response:
    made.set_cookie(COOKIE, secret, secure=True, httponly=True, samesite="strict", path="/")
    return made


def without_cookie(made: Response) -> Response:
    made.delete_cookie(COOKIE, secure=True, httponly=True, samesite="strict", path="/")
    return made


def sign_out(signed: Signed, body: Nothing) -> Response:
    signed.request.app.state.access.end(signed.secret)
    signed.note("sign-out")
    return without_cookie(answer({}))


def about(signed: Signed) -> Response:
    desk = signed.desk
    certificate = signed.request.app.state.certificate
    points = desk.recovery.all()
    first = desk.first or points[0].id
    return answer(
        {
            "resource": desk.recovery.points.resource,
            "reason": desk.reason,
            "points": points,
            "first": first,
            "certificate": {"sha256": certificate.sha256, "sha1": certificate.sha1},
            "left": desk.life.left(),
            "idle": desk.life.idle,
            "notes": desk.notes,
        }
    )


def status(signed: Signed) -> Response:
    """Asked for every few seconds by a page that is open."""
    desk = signed.desk
    return answer({"left": desk.life.left(), "basket": len(desk.basket.all()), "notes": desk.notes})


def stay(signed: Signed, body: Nothing) -> Response:
    signed.desk.life.use()
    return answer({"left": signed.desk.life.left()})


def stop(signed: Signed, body: Nothing) -> Response:
    signed.note("stop")
    signed.request.app.state.access.end_all()
    signed.desk.life.end("it was stopped in the browser")
    return without_cookie(answer({}))


def log(signed: Signed) -> Response:
    records = signed.desk.audit.all()
    if "download" in signed.request.query_params:
        lines = b"".join(msgspec.json.encode(record) + b"\n" for record in records)
        headers = {"content-disposition": 'attachment; filename="recovery-log.jsonl"'}
        return Response(lines, media_type="application/x-ndjson", headers=headers)
    return answer({"records": records[-1000:], "count": len(records)})


ROUTES = [
    Route("/api/sign-in", endpoint(sign_in, Token, signed=False), methods=["POST"]),
    Route("/api/sign-out", endpoint(sign_out, Nothing), methods=["POST"]),
    Route("/api/session", endpoint(about)),
    Route("/api/status", endpoint(status)),
    Route("/api/stay", endpoint(stay, Nothing), methods=["POST"]),
    Route("/api/stop", endpoint(stop, Nothing), methods=["POST"]),
    Route("/api/log", endpoint(log)),
]
