# SPDX-License-Identifier: Apache-2.0
"""cloud-init/first-boot by itself: what it downloads and how it fails aloud, against servers that answer as badly as any.

What it does to a machine (dpkg, systemd) tests/boot shows on machines.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import importlib.util
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from agent.protocol import Failed, decode_event

ROOT = Path(__file__).resolve().parents[2]
BODY = b"package" * 1000
GOOD = f"HTTP/1.1 200 OK\r\nContent-Length: {len(BODY)}\r\n\r\n".encode() + BODY
Answer = bytes


@pytest.fixture
def boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program as a module, its files in a folder, and time that passes by itself."""
    loader = SourceFileLoader("first_boot", str(ROOT / "cloud-init/first-boot"))
    spec = importlib.util.spec_from_loader("first_boot", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    for name in ("SETTINGS", "PACKAGE"):
        monkeypatch.setattr(module, name, str(tmp_path / name.lower()))
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(module.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return module


@dataclass
class Server:
    """Answers as it is told: each request gets the next of `answers`, the last one for ever; then the line is cut."""

    answers: list[Answer] = field(default_factory=lambda: [GOOD])
    asked: list[tuple[str, bytes]] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def handle_one_request(self) -> None:
            self.raw_requestline = self.rfile.readline(65537)
            if not self.raw_requestline or not self.parse_request():
                return
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            made.asked.append((f"{self.command} {self.path}", body))
            self.wfile.write(made.answers.pop(0) if len(made.answers) > 1 else made.answers[0])
            self.close_connection = True

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{running.server_port}"
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield made
    running.shutdown()
    running.server_close()


def said(status: str, *headers: str) -> Answer:
    return "\r\n".join((f"HTTP/1.1 {status}", "Content-Length: 0", *headers, "", "")).encode()


def wanted(server: Server, **changed: Any) -> dict[str, Any]:
    report = {"url": f"{server.url}/workers-events", "sas": "sv=1&sig=SECRET", "identity": ""}
    settings: dict[str, Any] = {
        "package_url": f"{server.url}/p.deb?sig=SECRET",
        "package_sha256": hashlib.sha256(BODY).hexdigest(),
        "time_limit": 100,
        "worker": "w1",
        "report": report,
        "environment": {},
    }
    return settings | changed


@pytest.mark.parametrize(
    "bad",
    [
        said("503 Busy"),
        said("429 Later"),
        b"nonsense\r\n\r\n",
        b"",
        GOOD[:-100],
        GOOD.replace(str(len(BODY)).encode(), b"many", 1),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
    ],
)
def test_what_passes_is_asked_again(boot: ModuleType, server: Server, bad: Answer) -> None:
    server.answers = [bad, bad, GOOD]
    boot.download(wanted(server), 100.0)
    assert Path(boot.PACKAGE).read_bytes() == BODY
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (said("403 Server failed; sig=SECRET"), "answers 403 Forbidden"),
        (said("404 Gone"), "answers 404 Not Found"),
        (said("302 Found", "Location: file:///x?sig=SECRET"), "answers 302 Found"),
        (GOOD.replace(b"package", b"Package", 1), "SHA-256 is"),
        (said("503 Busy"), "answers 503 Service Unavailable"),
        (b"nonsense\r\n\r\n", "BadStatusLine"),
    ],
)
def test_what_does_not_pass_is_told_without_a_secret(
    boot: ModuleType, server: Server, answer: Answer, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers = [answer]
    with pytest.raises(boot.Failed) as caught:
        boot.download(wanted(server), 100.0)
    assert what in caught.value.what
    assert caught.value.hint
    assert "SECRET" not in repr(vars(caught.value)) + capsys.readouterr().out
    assert not Path(boot.PACKAGE).exists() or Path(boot.PACKAGE).stat().st_size == 0


def reported(server: Server) -> Failed:
    """The event that the queue took."""
    body = next(body for request, body in reversed(server.asked) if request.startswith("POST"))
    assert len(body) <= 64 * 1024
    text = ET.fromstring(body).findtext("MessageText")
    event = decode_event(base64.b64decode(text or ""))
    assert isinstance(event, Failed)
    return event


@pytest.mark.parametrize(
    "lines",
    [
        ["one", "two"],
        ["<&>\"'" * 60] * 20,
        ["\N{SNOWMAN}" * 300] * 20,
        ["\N{GRINNING FACE}" * 300] * 40,
        ["\x00\x1b[1m"],
        ["\udcff"],
    ],
)
def test_a_failed_event_is_the_protocol_s_whatever_was_said(boot: ModuleType, server: Server, lines: list[str]) -> None:
    server.answers = [said("201 Created")]
    boot.report(wanted(server), boot.Failed("install", "dpkg ended with 1", "a hint", lines))
    event = reported(server)
    assert (event.worker, event.step, event.what, event.hint) == ("w1", "install", "dpkg ended with 1", "a hint")
    assert event.lines
    assert event.lines[-1] == lines[-1].encode("utf-8", "replace").decode()
    assert re.fullmatch(r"POST /workers-events/messages\?messagettl=604800&sv=1&sig=SECRET", server.asked[-1][0])


def test_a_queue_that_is_not_there_is_made(boot: ModuleType, server: Server) -> None:
    server.answers = [said("404 Missing"), said("201 Created")]
    boot.report(wanted(server), boot.Failed("install", "x"))
    assert [request.split("?")[0] for request, _ in server.asked] == [
        "POST /workers-events/messages",
        "PUT /workers-events",
        "POST /workers-events/messages",
    ]


@pytest.mark.parametrize("bad", [said("403 Not yet"), b"nonsense\r\n\r\n", b"", said("500 Oops")])
def test_a_failure_is_offered_again_until_it_is_taken(
    boot: ModuleType, server: Server, bad: Answer, capsys: pytest.CaptureFixture[str]
) -> None:
    """A role that was assigned a minute ago is not known everywhere yet."""
    server.answers = [bad] * 6 + [said("201 Created")]
    boot.report(wanted(server), boot.Failed("install", "x"))
    assert reported(server).what == "x"
    out = capsys.readouterr().out
    assert "reported to" in out
    assert "SECRET" not in out


def test_a_failure_that_nobody_takes_is_given_up(
    boot: ModuleType, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers = [said("403 No")]
    boot.report(wanted(server), boot.Failed("install", "x"))
    assert "given up" in capsys.readouterr().out
    boot.report(wanted(server, report=None), boot.Failed("install", "x"))
    assert "no queue to report to" in capsys.readouterr().out


def test_an_output_that_is_closed_does_not_keep_the_event(boot: ModuleType, server: Server) -> None:
    server.answers = [said("201 Created")]
    with contextlib.suppress(OSError), open("/dev/full", "w") as full, contextlib.redirect_stdout(full):
        boot.report(wanted(server), boot.Failed("install", "x"))
    assert reported(server).what == "x"


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (ValueError("https://host/?sig=SECRET"), "a defect: ValueError"),
        (OSError(28, "No space left on device", "/var/x"), "/var/x: No space left on device"),
    ],
)
def test_a_defect_is_told_without_its_words(boot: ModuleType, server: Server, error: Exception, what: str) -> None:
    def fail(*_: object) -> None:
        raise error

    boot.download = fail
    problem = boot.attempt(wanted(server))
    assert (problem.step, problem.what) == ("download", what)


def test_settings_are_removed_when_the_rest_is_the_daemon_s(boot: ModuleType, server: Server) -> None:
    """A daemon that is ready only later is not installed anew, and restarted, by the next boot."""
    Path(boot.SETTINGS).write_text("{}")
    boot.download = boot.install = lambda *_: None

    def fail(*_: object) -> None:
        raise boot.Failed("configure", "x")

    boot.configure = fail
    assert boot.attempt(wanted(server)).step == "configure"
    assert Path(boot.SETTINGS).exists()
    boot.configure, boot.start = (lambda *_: None), fail
    assert boot.attempt(wanted(server)) is not None
    assert not Path(boot.SETTINGS).exists()
    assert boot.signal.getsignal(boot.signal.SIGTERM) == boot.signal.SIG_DFL, "a shutdown ends the report at once"


def test_the_time_limit_tells_what_the_program_said_that_hung(boot: ModuleType, server: Server) -> None:
    def hang(settings: dict[str, Any], deadline: float) -> None:
        boot.run("install", ["/bin/sh", "-c", "echo unpacking; printf '\\377\\n'; exec sleep 1000"], "")

    boot.download, boot.install = lambda *_: None, hang
    problem = boot.attempt(wanted(server, time_limit=1))
    assert problem.step == "install"
    assert "time limit of 1 s" in problem.what
    assert problem.lines == ["unpacking", "\N{REPLACEMENT CHARACTER}"]


def test_a_program_that_fails_is_told_with_its_last_lines(boot: ModuleType) -> None:
    with pytest.raises(boot.Failed) as caught:
        boot.run("install", ["/bin/sh", "-c", "seq 100; exit 3"], "a hint")
    assert caught.value.what == "sh ended with 3"
    assert caught.value.lines == [str(number) for number in range(81, 101)]


def test_a_proxy_of_the_settings_is_this_program_s_too(
    boot: ModuleType, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    server.answers = [said("403 No"), said("201 Created")]
    monkeypatch.setattr(boot.socket, "gethostname", lambda: "host")
    settings = wanted(server, environment={"http_proxy": server.url}, worker="")
    settings["package_url"] = "http://localhost:1/p.deb?sig=SECRET"
    monkeypatch.setenv("http_proxy", "")  # put back afterwards
    monkeypatch.setattr(boot.urllib.request, "_opener", None)  # as in a process that asked nothing yet
    Path(boot.SETTINGS).write_text(json.dumps(settings))
    assert boot.main() == 1
    assert server.asked[0][0] == "GET http://localhost:1/p.deb?sig=SECRET"
    assert reported(server).worker == "host"


def test_without_settings_it_says_so(boot: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert boot.main() == 1
    assert "nobody can be told" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["plain", 'a"b', "c\\", "$HOME", "`x`", "a b", "#x", "'"])
def test_a_variable_is_written_as_a_unit_reads_it(boot: ModuleType, text: str) -> None:
    """systemd.exec(5): within double quotes a backslash escapes itself, the quote, the dollar and the backtick, no others."""
    written = boot.quoted(text)
    assert re.fullmatch(r'(?:[^"\\`$]|\\["\\`$])*', written)
    assert re.sub(r"\\(.)", r"\1", written) == text
