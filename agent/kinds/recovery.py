# SPDX-License-Identifier: Apache-2.0
"""`flr-start`: hosts a recovery browser until nobody uses it, somebody stops it there, or `flr-stop` or `cancel` ends it.

Its events carry the link and who took what out; a link is given anew when another worker goes on after this one's death.
"""

from __future__ import annotations

import queue
import threading
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from types import TracebackType

import msgspec

from agent.kinds.work import Work
from agent.protocol import Disk, FlrReady, FlrStartPayload, Recovered
from agent.restore_target import open_target
from flr.recovery.audit import Record
from flr.recovery.points import DiskPoints, Points, RepositoryPoints
from flr.restore.through_tool import ToolTarget
from flr.web.access import FIRST_USE_SECONDS
from flr.web.hosting import Browser
from mover.disk.source import DiskSource, FileSource
from mover.errors import Cancelled, MoverError

STOPPING = "the worker is stopping"
WRITTEN = ("ok", "warning")
NOT_TOLD = frozenset({"look", "preview", "search"})
"""What stands in the session's own log only: a person's every step is nobody's event."""
MOST_TOLD, MOST_WAITING = 1000, 10_000


def run(work: Work, payload: FlrStartPayload) -> None:
    clock = work.settings.clock
    with ExitStack() as stack:
        points, first = _points(work, payload)
        target = None
        if payload.restore is not None:
            target = open_target(payload.restore, work.command.job, payload.limit, work.settings)
            stack.callback(target.close)  # also when no browser comes to have it
        browser = stack.enter_context(
            Browser(
                points,
                first,
                names=payload.names,
                port=payload.port,
                idle=payload.idle,
                limit=payload.limit,
                tell=stack.enter_context(_Teller(work)).take,
                target=target,
                reason=payload.reason,
                clock=clock,
            )
        )
        for note in browser.desk.notes:
            work.reporter.say(note)

        def ready() -> None:
            now = datetime.fromtimestamp(clock.wall(), UTC)
            work.reporter.event(
                FlrReady,
                link=browser.link(),
                sha256=browser.certificate.sha256,
                sha1=browser.certificate.sha1,
                expires=now + timedelta(seconds=FIRST_USE_SECONDS),
                until=now + timedelta(seconds=payload.limit),
                restore_tool=target.command().encode() if isinstance(target, ToolTarget) else None,
            )

        def ended() -> str:
            work.settings.heard("recovery browser")
            if work.wished():
                return "it was stopped"
            return STOPPING if work.cancelled() else ""

        why = browser.serve(ready, ended)
        if why == STOPPING:
            raise Cancelled(
                "the worker stopped: another one opens a recovery browser and sends its link", work.command.job
            )
        work.outcome.details["ended"] = why
        records = browser.desk.audit.all()
        taken = [record for record in records if record.what.startswith("download") and record.size is not None]
        work.outcome.statistics = {
            "sign_ins": float(sum(record.what == "sign-in" and record.result == "ok" for record in records)),
            "downloads": float(len(taken)),
            "bytes": float(sum(record.size or 0 for record in taken)),
            "restored": float(sum(record.what == "restore" and record.result in WRITTEN for record in records)),
        }


class _Teller:
    """Events of what people do, sent by a thread of its own: whoever restores ten thousand files does not wait for a queue ten
    thousand times. Of files that were restored the first MOST_TOLD are told one by one, then only those that were not; the
    numbers of all stand in the restore's last record, each file in the session's own log."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._waiting: queue.Queue[Record | None] = queue.Queue(MOST_WAITING)
        self._written = 0
        self._thread = threading.Thread(target=self._send, name="flr-events", daemon=True)

    def __enter__(self) -> _Teller:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._waiting.put(None)
        self._thread.join()

    def take(self, record: Record) -> None:
        """Waits only when more than MOST_WAITING have not gone yet."""
        if record.what in NOT_TOLD:
            return
        if record.what == "restore" and record.result in (*WRITTEN, "skipped"):
            self._written += 1
            if self._written > MOST_TOLD:
                return
        self._waiting.put(record)

    def _send(self) -> None:
        while (record := self._waiting.get()) is not None:
            figures = msgspec.structs.asdict(record)
            del figures["time"]
            try:
                self._work.reporter.event(Recovered, **figures)
            except Exception as error:  # this thread is waited for
                self._work.reporter.say(f"an event could not be sent: {type(error).__name__}")


def _points(work: Work, payload: FlrStartPayload) -> tuple[Points, str]:
    """What is looked into, and which of it first."""
    if payload.repository is not None:
        repository = work.repository(payload.repository).repository
        point = repository.find_point(payload.point or "")
        work.outcome.point = point.id
        return RepositoryPoints(repository, point, work.reporter.say), point.id
    resource = payload.resource or ", ".join(disk.name or "disk" for disk in payload.disks)
    return DiskPoints(resource, None, lambda: _sources(work, payload.disks)), DiskPoints.ID


def _sources(work: Work, disks: tuple[Disk, ...]) -> list[DiskSource]:
    opened: list[DiskSource] = []
    try:
        for disk in disks:
            if disk.url is not None:
                from mover.disk.page_source import PageBlobSource  # a local disk does not pay for Azure's modules

                opened.append(PageBlobSource(work.page_blob(disk.url), name=disk.name))
            else:
                opened.append(FileSource(disk.path or ""))
    except MoverError:
        for source in opened:
            source.close()
        raise
    return opened
