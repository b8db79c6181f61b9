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
from typing import Annotated, Any, Literal

import msgspec

from flr.restore import tool
from flr.restore.mailbox import Mailbox
from flr.restore.target import Found, Order, State, Status, Step, TargetGone, Tell
from mover.clock import Clock
from mover.errors import MoverError

PACK_BYTES, PACK_STEPS = 8 << 20, 2000
"""Of content and of the manifest, and steps, that travel at once."""
AHEAD = 3
"""Requests that are on their way while the tool works on one: with the packs of these all that lies in the mailbox."""
LOOK_PATHS = 2000
SILENCE_SECONDS = 90.0
"""Without a word from a tool after which it counts as gone; it speaks every 20 seconds at least."""
GAP_SECONDS = 60.0
"""For which a reply may be late that another one has overtaken."""
UNREACHED_SECONDS = 30.0
"""For which the mailbox may fail before anybody is told."""
TOOL = "restore-tool.py"
LEAST_VERSION = 1
UNTAKEN_SECONDS = 120.0
"""For which a tool that has nothing to do may not get what is sent to it, again and again."""
NOTHING = {"do": "welcome", "id": 0}
"""A request of which nothing comes; the first one, which tells a tool that it was heard."""
STARTED_ANEW = "the restore tool on the machine was started anew"
LOST = "a word of the restore tool was lost"


class _Row(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """What is told of a step's entry."""

    number: int
    state: Literal["made", "done", "warning", "skipped", "failed"]
    text: Annotated[str, msgspec.Meta(max_length=2000)]
    name: Annotated[str, msgspec.Meta(max_length=2000)]


class _There(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """What is told of a path."""

    kind: Literal["", "file", "folder", "link", "other", "blocked"]
    size: int
    modified: int
    why: Annotated[str, msgspec.Meta(max_length=2000)]


class _Asked:
    """A request that is under way: as it was sent, its number, what it is told."""

    def __init__(self, identifier: int, rows: Callable[[list[Any]], None]) -> None:
        self.id = identifier
        self.rows = rows
        self.number = 0
        self.data = b""
        self.done = threading.Event()
        self.answer: dict[str, Any] = {}
        self.problem = ""


class ToolTarget:
    """A context manager by `close`; `open` first. `until`: Unix seconds at which the session ends at the latest."""

    name = "restore tool"
    resolution = 1

    def __init__(self, mailbox: Mailbox, clock: Clock, until: float) -> None:
        self._mailbox = mailbox
        self._clock = clock
        self._until = until
        self._key = secrets.token_bytes(32)
        self._hello, self._in, self._out = (tool.derived(self._key, way) for way in ("hello", "requests", "replies"))
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._look = threading.Event()
        self._greeting: dict[str, Any] | None = None
        self._greeted: list[str] = []
        self._sent = self._taken = 0
        self._early: dict[int, dict[str, Any]] = {}
        self._sealed: dict[int, bytes] = {}
        self._gap = self._untaken = 0.0
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
                "exec python3 -I - <<'END_OF_TOOL'",
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
        reached = self._clock.monotonic()
        while not self._closed.is_set():
            took = False
            try:
                for data in self._mailbox.take():
                    took = self._heard_of(data) or took
                reached, self._problem = self._clock.monotonic(), ""
            except MoverError as error:
                if self._clock.monotonic() - reached > UNREACHED_SECONDS:
                    self._problem = f"{error.what}: {error.value}"
            except Exception as error:  # this thread is the only one that hears: it goes on
                self._problem = f"a defect of this program: {type(error).__name__}"
            with self._lock:
                self._judge()
            self._drain()
            with self._lock:
                busy = bool(self._asked)
            if busy and not took:
                self._clock.wait(self._closed, self._mailbox.busy)
            elif not took:
                self._clock.wait(self._look, self._mailbox.idle)  # or until something is asked
                self._look.clear()

    def _judge(self) -> None:
        """Whether there is still somebody to wait for."""
        now = self._clock.monotonic()
        if self._asked and now - self._heard > SILENCE_SECONDS:
            self._fail("the restore tool on the machine does not answer")
        if self._early and now - self._gap > GAP_SECONDS:
            self._fail(LOST)
            self._taken, self._gap = min(self._early) - 1, now

    def _fail(self, why: str) -> None:
        for asked in self._asked.values():
            asked.problem = why
            asked.done.set()
        self._asked.clear()

    def _heard_of(self, data: bytes) -> bool:
        """Whether it was a reply of this session's tool. Whatever a machine that has the key may say, this goes on."""
        try:
            greeting = tool.opened(self._hello, data)
            if greeting is not None:
                return self._greet(str(greeting[1][1]), dict(greeting[2]))
            message = tool.opened(self._out, data)
            if message is None:
                return False
            number, (_, word), body = message
            with self._lock:
                if word != self._tool()[1] or not isinstance(number, int) or number <= self._taken:
                    return False
                self._heard = self._clock.monotonic()
                self._early[number] = dict(body)
        except MoverError:
            raise
        except Exception:
            return False
        self._drain()
        return True

    def _drain(self) -> None:
        """What is next in order, as far as it is there."""
        while True:
            with self._lock:
                following = self._early.pop(self._taken + 1, None)
                if not self._early or following is not None:
                    self._gap = self._clock.monotonic()
                if following is None:
                    return
                self._taken += 1
            self._reply(following)  # not under the lock: what it calls may take its time

    def _tool(self) -> list[Any]:
        """Which start of the tool is spoken to."""
        return [len(self._greeted) - 1, self._greeted[-1]] if self._greeted else [0, ""]

    def _greet(self, word: str, body: dict[str, Any]) -> bool:
        with self._lock:
            if word in self._greeted:
                return False  # an old one again
            self._greeted.append(word)
            self._greeting = body
            self._taken = self._sent = 0
            self._early.clear()
            self._sealed.clear()
            self._untaken = 0.0
            self._heard = self._gap = self._clock.monotonic()
            self._fail(STARTED_ANEW)
        try:
            self._mailbox.send(self._next(NOTHING)[1])
        except MoverError:
            pass  # it is sent again
        return True

    def _reply(self, body: dict[str, Any]) -> None:
        kind = body.get("is")
        if kind == "here":
            self._send_again(body)
            return
        with self._lock:
            asked = self._asked.get(body.get("to", 0))
        if asked is None:
            return
        try:
            if kind == "rows":
                asked.rows(body["rows"])
            elif kind == "answer":
                asked.answer = body
                asked.problem = tool.printable(str(body.get("problem", "")))[:500]
                self._end(asked)
        except Exception as error:
            asked.problem = f"the restore tool said what cannot be: {type(error).__name__}"
            self._end(asked)

    def _end(self, asked: _Asked) -> None:
        with self._lock:
            self._asked.pop(asked.id, None)
            self._sealed.pop(asked.number, None)
        asked.done.set()

    def _send_again(self, body: dict[str, Any]) -> None:
        """What a tool that has nothing to do did not get."""
        taken = body.get("taken")
        if body.get("idle") is not True or not isinstance(taken, int):
            return
        now = self._clock.monotonic()
        with self._lock:
            lost = [data for number, data in sorted(self._sealed.items()) if number > taken]
            self._untaken = (self._untaken or now) if lost else 0.0
            if lost and now - self._untaken > UNTAKEN_SECONDS:
                self._fail("the restore tool on the machine does not get what it is sent")
                for number in self._sealed:  # what was given up is not carried out later, when nobody hears of it
                    self._sealed[number] = tool.sealed(self._in, number, self._tool(), NOTHING)
                self._untaken = 0.0
        try:
            for data in lost:
                self._mailbox.send(data)
        except MoverError:
            pass  # the tool says again that it waits

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
            version = self._greeting.get("version")
            if not isinstance(version, int) or version < LEAST_VERSION:
                return State(False, "the restore tool is too old for this worker", host)
            lacks = (
                [] if self._greeting.get("user") == 0 else ["the tool does not run as root: owners may not come back"]
            )
            return State(True, "the restore tool is connected", host, lacks)

    def _next(self, body: dict[str, Any]) -> tuple[int, bytes]:
        """The next message to the tool; it is kept until it is known to have arrived."""
        with self._lock:
            self._sent += 1
            data = tool.sealed(self._in, self._sent, self._tool(), body)
            self._sealed[self._sent] = data
            return self._sent, data

    def _ask(self, body: dict[str, Any], rows: Callable[[list[Any]], None]) -> _Asked:
        with self._lock:
            self._serial += 1
            asked = _Asked(self._serial, rows)
            self._asked[asked.id] = asked
        asked.number, asked.data = self._next({**body, "id": asked.id})
        try:
            self._mailbox.send(asked.data)
        except MoverError:
            pass  # it may have arrived; if not, it is sent again when the tool says that it has nothing to do
        self._look.set()
        return asked

    def _reached(self) -> None:
        state = self.state()
        if not state.ready:
            raise TargetGone(state.text, state.host)

    def _wait(self, asked: _Asked) -> dict[str, Any]:
        while not asked.done.wait(0.5):
            if self._closed.is_set():
                raise TargetGone("the session has ended")
        if asked.problem:
            raise TargetGone(asked.problem)
        return asked.answer

    def _manifest(self, data: bytes) -> dict[str, str]:
        name = f"m-{secrets.token_hex(8)}"
        self._mailbox.put(name, [data])
        return {"manifest": name, "sha256": hashlib.sha256(data).hexdigest()}

    def look(self, base: str, paths: Sequence[str]) -> tuple[list[Found], int | None]:
        self._reached()
        found: list[Found] = []
        free: int | None = None
        for start in range(0, max(1, len(paths)), LOOK_PATHS):
            some = paths[start : start + LOOK_PATHS]
            rows: list[_There] = []

            def told(part: list[Any], rows: list[_There] = rows) -> None:
                rows += msgspec.convert(part, list[_There])

            named = self._manifest(json.dumps({"base": base, "paths": list(some)}).encode())
            try:
                answer = self._wait(self._ask({"do": "look", **named}, told))
            finally:
                self._mailbox.remove(named["manifest"])
            if len(rows) != len(some):
                raise TargetGone(
                    "the restore tool told of other files than it was asked for", f"{len(rows)} of {len(some)}"
                )
            found += [Found(row.kind, row.size, row.modified, tool.printable(row.why)) for row in rows]
            free = answer["free"] if isinstance(answer.get("free"), int) else None
        return found, free

    def run(self, order: Order, steps: Iterable[Step], tell: Tell) -> None:
        self._reached()
        head = json.dumps(order.document())

        def rows(part: list[Any]) -> None:
            for row in msgspec.convert(part, list[_Row]):
                tell(Status(row.number, row.state, tool.printable(row.text), row.name))

        waiting: deque[tuple[_Asked, list[str]]] = deque()
        blobs: set[str] = set()

        def finish() -> None:
            asked, used = waiting.popleft()
            self._wait(asked)
            for blob in used:
                self._mailbox.remove(blob)
                blobs.discard(blob)

        try:
            for lines, pack in _batches(steps):
                named = self._manifest("\n".join([head, *lines]).encode())
                used = [named["manifest"]]
                blobs.update(used)
                if pack:
                    named["pack"] = f"p-{secrets.token_hex(8)}"
                    used.append(named["pack"])
                    blobs.update(used)
                    self._mailbox.put(named["pack"], pack)
                waiting.append((self._ask({"do": "steps", **named}, rows), used))
                while len(waiting) > AHEAD:
                    finish()
            while waiting:
                finish()
        finally:
            if not self._closed.is_set():
                self._leave(rows, blobs)

    def _leave(self, rows: Callable[[list[Any]], None], blobs: set[str]) -> None:
        """Also after a failure: folders get their attributes, what is half written goes, and so do blobs that nobody needs."""
        try:
            if self.state().ready:
                self._wait(self._ask({"do": "end"}, rows))
        finally:
            for blob in blobs:
                self._mailbox.remove(blob)

    def close(self) -> None:
        """The tool is told to end; the mailbox goes. StoreError when it cannot be deleted."""
        if self._closed.is_set():
            return
        if self.state().ready:
            try:
                self._mailbox.send(self._next({"do": "stop", "id": 0})[1])
            except MoverError:
                pass  # it ends when its mailbox is gone
        self._closed.set()
        self._look.set()
        if self._thread.is_alive():
            self._thread.join()
        self._mailbox.close()


def _batches(steps: Iterable[Step]) -> Iterable[tuple[list[str], list[bytes]]]:
    """Lines of a manifest, and the content that they are about."""
    lines: list[str] = []
    pack: list[bytes] = []
    size = written = 0
    for step in steps:
        line = step.line
        if step.data:
            line = [*line, size]
            pack.append(step.data)
            size += len(step.data)
        lines.append(json.dumps(line))
        written += len(lines[-1])
        if max(size, written) >= PACK_BYTES or len(lines) >= PACK_STEPS:
            yield lines, pack
            lines, pack, size, written = [], [], 0, 0
    if lines:
        yield lines, pack
