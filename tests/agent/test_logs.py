# SPDX-License-Identifier: Apache-2.0
"""Logs, notifications and support bundles: structure, one redaction, and life only where work goes on."""

from __future__ import annotations

import io
import json
import logging
import os
import queue
import socket
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from agent import bundle, logs, notify
from agent.redaction import Redactor
from mover.clock import SYSTEM
from tests.agent.waiting import wait_for
from tests.mover.store.clock import ManualClock

SECRET = "known-secret-4711"


@pytest.fixture
def redactor() -> Iterator[Redactor]:
    made = Redactor()
    made.learn(SECRET)
    yield made
    structlog.reset_defaults()
    for handler in list(logging.getLogger().handlers):
        if type(handler).__name__ == "_Bridge":
            logging.getLogger().removeHandler(handler)


@pytest.mark.parametrize("form", ["json", "console", "journal"])
def test_no_form_of_the_log_shows_a_secret(redactor: Redactor, form: str) -> None:
    out, sent = io.StringIO(), []
    log = logs.set_up(
        "info", form, redactor, out=out, clock=ManualClock(), journal=lambda message, **f: sent.append((message, f))
    )
    log.info(f"with {SECRET}", value=SECRET, deep={"a": [SECRET]}, url="https://x/?sig=abcdef")
    try:
        raise ValueError(SECRET)
    except ValueError:
        log.error("broken", exc_info=True)
    logging.getLogger("azure.core").warning("GET https://x/?sig=abcdef %s", SECRET)
    logging.getLogger("azure.core").info("not at all")
    log.debug("not at all")
    shown = out.getvalue() + repr(sent)
    assert SECRET not in shown
    assert "abcdef" not in shown
    assert shown.count("***") >= 5
    assert "ValueError" in shown
    assert "azure.core" in shown
    assert "not at all" not in shown


def test_json_lines_and_journal_fields(redactor: Redactor) -> None:
    out = io.StringIO()
    logs.set_up("info", "json", redactor, out=out, clock=ManualClock()).bind(job="j1").warning("slow", seconds=3)
    line = json.loads(out.getvalue())
    assert (line["event"], line["level"], line["job"], line["seconds"]) == ("slow", "warning", "j1", 3)
    assert line["time"].endswith("Z")
    sent: list[tuple[str, dict[str, str]]] = []
    log = logs.set_up("info", "journal", redactor, journal=lambda message, **fields: sent.append((message, fields)))
    log.bind(job="j1").error("slow", seconds=3)
    ((message, fields),) = sent
    assert message == "slow job=j1 seconds=3"
    assert fields == {
        "DATA_MOVER_JOB": "j1",
        "DATA_MOVER_SECONDS": "3",
        "PRIORITY": "3",
        "SYSLOG_IDENTIFIER": "data-mover-agent",
    }


def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "notify"))
        server.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        send = notify.notifier(os.environ)
        assert send is not None
        send("READY=1")
        assert server.recv(100) == b"READY=1"
    assert notify.notifier({}) is None


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, 0),
        ({"WATCHDOG_USEC": "3000000"}, 3),
        ({"WATCHDOG_USEC": "x"}, 0),
        ({"WATCHDOG_USEC": "5", "WATCHDOG_PID": "1"}, 0),
    ],
)
def test_the_unit_s_watchdog(environ: dict[str, str], seconds: float) -> None:
    assert notify.watchdog_seconds(environ) == seconds


def test_a_worker_lives_only_while_all_of_it_makes_progress() -> None:
    clock, told = ManualClock(), []
    watchdog = notify.Watchdog(clock, told.append, 30)
    assert watchdog.feed(), "nothing has begun yet"
    watchdog.watch("job-0")
    watchdog.watch("control")
    watchdog.beat("unknown")
    clock.advance(29)
    assert watchdog.feed()
    watchdog.beat("control")
    clock.advance(2)
    assert not watchdog.feed()
    assert watchdog.silent() == ["job-0"]
    watchdog.beat("job-0")
    assert watchdog.feed()
    clock.advance(31)
    watchdog.forget("job-0")
    watchdog.beat("control")
    assert watchdog.feed()
    assert set(told) == {"WATCHDOG=1"}
    assert not notify.Watchdog(clock, None, 30).feed()


def test_a_wait_is_life_however_long_and_a_thread_that_hangs_is_none() -> None:
    """The clock of a worker beats for whoever waits by it: patience with a service that is away must not end the worker."""
    clock, told = ManualClock(), []
    watchdog = notify.Watchdog(clock, told.append, 30)
    living = notify.LivingClock(clock, watchdog.beat)
    watchdog.watch(threading.current_thread().name)
    watchdog.watch("job-0")
    assert not living.wait(threading.Event(), 300)
    assert watchdog.silent() == ["job-0"]
    assert not watchdog.feed()
    assert not told
    woken = threading.Event()
    woken.set()
    before = clock.monotonic()
    assert living.wait(woken, 300)
    assert clock.monotonic() == before


def test_the_watchdog_s_own_thread_feeds_it() -> None:
    """Whatever the thread that keeps house waits for."""
    told: queue.SimpleQueue[str] = queue.SimpleQueue()
    with notify.Watchdog(SYSTEM, told.put, 0.3) as watchdog:
        for _ in range(3):
            assert told.get(timeout=60) == "WATCHDOG=1"
        watchdog.watch("job-0")
        wait_for(lambda: watchdog.silent() == ["job-0"])


def test_a_support_bundle_says_much_and_no_secret(redactor: Redactor) -> None:
    out = io.BytesIO()
    names = bundle.write(
        out,
        configuration={"queue": {"service": f"https://x/?sig={SECRET}"}},
        state={"worker": "w", "note": SECRET},
        command="c",
        log_lines=[json.dumps({"event": "x", "value": SECRET})] * 3,
        redact=redactor.data,
        now=1_700_000_000,
        journal=lambda: None,
    )
    assert SECRET.encode() not in out.getvalue()
    out.seek(0)
    found: dict[str, Any] = {}
    with tarfile.open(fileobj=out, mode="r:gz") as archive:
        for member in archive:
            data = archive.extractfile(member)
            assert data is not None
            found[member.name.removeprefix("support/")] = data.read()
    assert set(found) == set(names)
    assert SECRET.encode() not in b"".join(found.values())
    assert json.loads(found["versions.json"])["msgspec"] != "not installed"
    assert json.loads(found["machine.json"])["MemTotal"] > 0
    assert "journal-is-missing.txt" in found
    assert len(found["log.jsonl"].splitlines()) == 3


def test_a_support_bundle_is_bounded(redactor: Redactor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "MAX_BUNDLE", 2000)
    out = io.BytesIO()
    bundle.write(
        out,
        configuration={},
        state={},
        command="c",
        log_lines=["x" * 1000] * 100,
        redact=redactor.data,
        now=0,
        journal=lambda: b"j" * 10_000,
    )
    out.seek(0)
    with tarfile.open(fileobj=out, mode="r:gz") as archive:
        assert sum(member.size for member in archive) <= 2000
