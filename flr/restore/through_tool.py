# SPDX-License-Identifier: Apache-2.0
"""To the original machine through the restore tool (`flr.restore.tool`), which somebody starts there by a command line.

Requests and replies are numbered and carry an HMAC under keys that both derive from the session's and from a word that the tool
makes up when it starts: what anybody else writes, and what is left of an earlier start, is nothing. Manifests are named in a
request with their SHA-256, and content is checked by the SHA-256 of its file; so the mailbox needs no trust. docs/restore-tool.md
describes it.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from importlib import resources
from typing import Any

from flr.restore import tool
from flr.restore.mailbox import Mailbox
from flr.restore.target import Found, Order, State, Status, Step, TargetGone, Tell
from mover.clock import Clock
from mover.errors import MoverError

PACK_BYTES, PACK_STEPS = 8 << 20, 2000
"""Of content, and steps, that travel at once."""
AHEAD = 3
"""Requests that are on their way while the tool works on one: with the packs of these all that lies in the mailbox."""
LOOK_PATHS = 2000
SILENCE_SECONDS = 90.0
"""Without a word from a tool after which it counts as gone; it speaks every 20 seconds at least, but while it writes a pack."""
TOOL = "restore-tool.py"
LEAST_VERSION = 1


class _Asked:
    """A request that is under way."""

    def __init__(self, identifier: int, rows: Callable[[list[Any]], None], blobs: list[str]) -> None:
        self.id = identifier
        self.rows = rows
        self.blobs = blobs
        self.done = threading.Event()
        self.answer: dict[str, Any] = {}
        self.problem = ""


class ToolTarget:
    """A context manager by `close`; `open` first. `until`: Unix seconds at which the session ends at the latest."""

    name = "restore tool"

    def __init__(self, mailbox: Mailbox, clock: Clock, until: float) -> None:
        self._mailbox = mailbox
        self._clock = clock
        self._until = until
        self._key = secrets.token_bytes(32)
        self._hello = tool.derived(self._key, "hello", "")
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._look = threading.Event()
        self._news = threading.Condition(self._lock)
        self._greeting: dict[str, Any] | None = None
        self._greeted: set[str] = set()
        self._in = self._out = b""
        self._sent = self._taken = 0
        self._early: dict[int, dict[str, Any]] = {}
        self._asked: dict[int, _Asked] = {}
        self._serial = 0
        self._heard = 0.0
        self._problem = ""
        self._source = resources.files("flr.restore").joinpath("tool.py").read_bytes()
        self._thread = threading.Thread(target=self._listen, name="flr-tool", daemon=True)

    def open(self) -> None:
        """Makes the mailbox and puts the tool into it."""
        self._mailbox.open()
        self._mailbox.put(TOOL, [self._source])
        self._thread.start()

    def command(self, *, detach: bool = True) -> str:
        """A script for the machine's `sh`, to be run as root. Secret: with it anybody is this machine's restore tool. Nothing of it
        stands in the list of the machine's processes."""
        config = {**self._mailbox.config(), "key": self._key.hex(), "until": self._until, "detach": detach}
        digest = hashlib.sha256(self._source).hexdigest()
        return "\n".join(
            [
                "#!/bin/sh",
                "command -v python3 >/dev/null || { echo 'the restore tool needs python3' >&2; exit 3; }",
                "exec python3 - <<'END_OF_TOOL'",
                "import hashlib, json, sys, urllib.request",
                f"C = json.loads({json.dumps(config)!r})",
                f"code = {self._mailbox.fetch(TOOL)}",
                f"if hashlib.sha256(code).hexdigest() != {digest!r}:",
                "    sys.exit('the restore tool is not the one that the worker sent')",
                "exec(compile(code, 'restore-tool', 'exec'), {'__name__': 'restore_tool', 'CONFIG': C})",
                "END_OF_TOOL",
                "",
            ]
        )

    # -- what is heard

    def _listen(self) -> None:
        while not self._closed.is_set():
            took = False
            try:
                for data in self._mailbox.take():
                    took = self._heard_of(data) or took
                self._problem = ""
            except MoverError as error:
                self._problem = f"{error.what}: {error.value}"
            with self._lock:
                self._silence()
                busy = bool(self._asked)
            if busy and not took:
                self._clock.wait(self._closed, self._mailbox.busy)
            elif not took:
                self._clock.wait(self._look, self._mailbox.idle)  # or until something is asked
                self._look.clear()

    def _silence(self) -> None:
        if self._greeting is not None and self._clock.monotonic() - self._heard > SILENCE_SECONDS and self._asked:
            self._fail("the restore tool on the machine does not answer")

    def _fail(self, why: str) -> None:
        for asked in self._asked.values():
            asked.problem = why
            asked.done.set()
        self._asked.clear()
        self._news.notify_all()

    def _heard_of(self, data: bytes) -> bool:
        """Whether it was a reply of this session's tool."""
        greeting = tool.opened(self._hello, data)
        if greeting is not None:
            return self._greet(greeting[1])
        with self._lock:
            message = tool.opened(self._out, data) if self._out else None
            if message is None or message[0] <= self._taken:
                return False
            self._heard = self._clock.monotonic()
            self._early[message[0]] = message[1]
            while (following := self._early.pop(self._taken + 1, None)) is not None:
                self._taken += 1
                self._reply(following)
            return True

    def _greet(self, body: dict[str, Any]) -> bool:
        nonce = str(body.get("nonce", ""))
        with self._lock:
            if nonce in self._greeted:
                return False  # an old one again
            self._greeted.add(nonce)
            self._greeting = body
            self._in, self._out = (tool.derived(self._key, way, nonce) for way in ("requests", "replies"))
            self._sent = self._taken = 0
            self._early.clear()
            self._heard = self._clock.monotonic()
            self._fail("the restore tool on the machine was started anew")
            return True

    def _reply(self, body: dict[str, Any]) -> None:
        asked = self._asked.get(body.get("to", 0))
        if asked is None:
            return
        if body["is"] == "rows":
            asked.rows(body["rows"])
        elif body["is"] == "answer":
            del self._asked[asked.id]
            asked.answer = body
            asked.problem = body.get("problem", "")
            asked.done.set()
            self._news.notify_all()

    # -- what is asked

    def state(self) -> State:
        with self._lock:
            if self._closed.is_set():
                return State(False, "the session has ended")
            if self._problem:
                return State(False, f"the restore tool's mailbox cannot be reached: {self._problem}")
            if self._greeting is None:
                return State(False, "the restore tool was not started on the machine yet")
            host = tool.printable(str(self._greeting.get("host", "")))[:255]
            silence = self._clock.monotonic() - self._heard
            if silence > SILENCE_SECONDS:
                return State(False, f"the restore tool was heard last {silence:.0f} seconds ago", host)
            if not isinstance(self._greeting.get("version"), int) or self._greeting["version"] < LEAST_VERSION:
                return State(False, "the restore tool is too old for this worker", host)
            lacks = (
                [] if self._greeting.get("user") == 0 else ["the tool does not run as root: owners may not come back"]
            )
            return State(True, "the restore tool is connected", host, lacks)

    def _ask(self, body: dict[str, Any], rows: Callable[[list[Any]], None], blobs: list[str]) -> _Asked:
        state = self.state()
        if not state.ready:
            raise TargetGone(state.text, state.host)
        with self._lock:
            self._serial += 1
            asked = self._asked[self._serial] = _Asked(self._serial, rows, blobs)
            self._sent += 1
            data = tool.sealed(self._in, self._sent, {**body, "id": asked.id})
        try:
            self._mailbox.send(data)
        except MoverError:
            with self._lock:  # whether it arrived nobody knows, and its number cannot be used again
                self._asked.pop(asked.id, None)
                self._greeting = None
                self._fail("a request could not be sent: start the restore tool again")
            raise
        self._look.set()
        return asked

    def _wait(self, asked: _Asked) -> dict[str, Any]:
        while not asked.done.is_set():
            if self._closed.is_set():
                raise TargetGone("the session has ended")
            asked.done.wait(0.5)
        for blob in asked.blobs:
            self._mailbox.remove(blob)
        if asked.problem:
            raise TargetGone(tool.printable(asked.problem)[:500])
        return asked.answer

    def _manifest(self, data: bytes) -> dict[str, str]:
        name = f"m-{secrets.token_hex(8)}"
        self._mailbox.put(name, [data])
        return {"manifest": name, "sha256": hashlib.sha256(data).hexdigest()}

    def look(self, base: str, paths: Sequence[str]) -> tuple[list[Found], int | None]:
        found: list[Found] = []
        free: int | None = None
        for start in range(0, max(1, len(paths)), LOOK_PATHS):
            some = paths[start : start + LOOK_PATHS]
            rows: list[Any] = []
            named = self._manifest(json.dumps({"base": base, "paths": list(some)}).encode())
            answer = self._wait(self._ask({"do": "look", **named}, rows.extend, [named["manifest"]]))
            if len(rows) != len(some):
                raise TargetGone(
                    "the restore tool told of other files than it was asked for", f"{len(rows)} of {len(some)}"
                )
            found += [_found(row) for row in rows]
            free = answer.get("free")
        return found, free

    def run(self, order: Order, steps: Iterable[Step], tell: Tell) -> None:
        head = json.dumps(order.document())

        def rows(some: list[Any]) -> None:
            for row in some:
                tell(Status(*row))

        waiting: deque[_Asked] = deque()
        try:
            for lines, pack in _batches(steps):
                blobs = []
                named = self._manifest("\n".join([head, *lines]).encode())
                if pack:
                    named["pack"] = f"p-{secrets.token_hex(8)}"
                    self._mailbox.put(named["pack"], pack)
                    blobs.append(named["pack"])
                waiting.append(self._ask({"do": "steps", **named}, rows, [*blobs, named["manifest"]]))
                while len(waiting) > AHEAD:
                    self._wait(waiting.popleft())
            while waiting:
                self._wait(waiting.popleft())
        finally:
            # Also after a failure: folders get their modes, what is half written goes.
            if self.state().ready and not self._closed.is_set():
                self._wait(self._ask({"do": "end"}, rows, []))

    def close(self) -> None:
        """The tool is told to end; the mailbox goes. StoreError when it cannot be deleted."""
        if self._closed.is_set():
            return
        if self.state().ready:
            try:
                with self._lock:
                    self._sent += 1
                    data = tool.sealed(self._in, self._sent, {"do": "stop", "id": 0})
                self._mailbox.send(data)
            except MoverError:
                pass  # it ends when its mailbox is gone
        self._closed.set()
        self._look.set()
        if self._thread.is_alive():
            self._thread.join()
        self._mailbox.close()


def _found(row: Any) -> Found:
    kind, size, modified, why = row
    return Found(str(kind), int(size), int(modified), tool.printable(str(why))[:500])


def _batches(steps: Iterable[Step]) -> Iterable[tuple[list[str], list[bytes]]]:
    """Lines of a manifest, and the content that they are about."""
    lines: list[str] = []
    pack: list[bytes] = []
    size = 0
    for step in steps:
        line = step.line
        if step.data:
            line = [*line, size]
            pack.append(step.data)
            size += len(step.data)
        lines.append(json.dumps(line))
        if size >= PACK_BYTES or len(lines) >= PACK_STEPS:
            yield lines, pack
            lines, pack, size = [], [], 0
    if lines:
        yield lines, pack
