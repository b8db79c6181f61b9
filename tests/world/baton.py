# SPDX-License-Identifier: Apache-2.0
"""One thread at a time: actors are threads that pass a baton, so a schedule says everything about a run.

An actor runs from one pause to the next (a request to the store, a wait, a lock that another holds) and only when `step` gives it
the baton. `threading_of` makes a stand-in for the `threading` module whose locks, events and threads know the baton; code that
is patched with it cannot dead-lock the scheduler, and its own threads become actors. Nothing here sleeps.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace, TracebackType
from typing import Any


class Crash(BaseException):
    """The actor's process is no more: unwinds its threads, which reach nothing outside themselves on the way."""


@dataclass(frozen=True)
class Pause:
    """Why an actor stands still. `blocker` says which actor must move first, if there is one."""

    what: str
    name: str = ""
    blocker: Callable[[], Actor | None] = lambda: None

    def __str__(self) -> str:
        return f"{self.what} {self.name}".strip()


class Process:
    """What crashes as a whole: the threads of one worker."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.crashed = False
        self.actors: list[Actor] = []
        self.content: Any = None  # what a commit of this process must read back as
        self.point = ""
        self.stage = ""
        self.hold = ""
        self.held = False
        self.trusts_listings = False

    def __repr__(self) -> str:
        return self.name


class Actor:
    """One thread. `at` is where it stands; `result` or `error` is how it ended."""

    def __init__(self, baton: Baton, process: Process, name: str, work: Callable[[], Any]) -> None:
        self.process = process
        self.name = name
        self.at = Pause("start")
        self.fate: Any = None
        self.done = False
        self.result: Any = None
        self.error: BaseException | None = None
        self._baton = baton
        self._work = work
        self.go = threading.Lock()
        self.go.acquire()
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()
        process.actors.append(self)

    def __repr__(self) -> str:
        return self.name

    def _run(self) -> None:
        self.go.acquire()
        try:
            if not self.process.crashed:
                self.result = self._work()
        except Crash:
            pass
        except BaseException as error:
            self.error = error
        self.done = True
        self._baton.back.release()


class Baton:
    """The scheduler's half: who runs. `current` is None while the test's own thread does.

    `fine`: threads of one process also take turns where they take a lock, not at requests alone.
    """

    def __init__(self, *, fine: bool = False) -> None:
        self.fine = fine
        self.actors: list[Actor] = []
        self.current: Actor | None = None
        self.back = threading.Lock()
        self.back.acquire()

    def spawn(self, process: Process, name: str, work: Callable[[], Any]) -> Actor:
        actor = Actor(self, process, name, work)
        self.actors.append(actor)
        return actor

    def step(self, actor: Actor, fate: Any = None) -> None:
        """Let the actor run to its next pause. One that waits for another lets that one run instead."""
        seen = {actor}
        while (blocker := actor.at.blocker()) is not None and not blocker.done:
            assert blocker not in seen, f"dead-lock: {seen}"
            actor = blocker
            seen.add(actor)
        assert not actor.done, f"{actor} has ended"
        actor.fate = fate
        self.current = actor
        actor.go.release()
        self.back.acquire()
        self.current = None
        if actor.done:
            actor.thread.join()

    def pause(self, pause: Pause) -> Any:
        """Called by the actor that runs: hand the baton back; what `step` was given comes out."""
        actor = self.current
        assert actor is not None
        if actor.process.crashed:
            raise Crash
        actor.at = pause
        self.back.release()
        actor.go.acquire()
        if actor.process.crashed:
            raise Crash
        return actor.fate

    def crash(self, process: Process) -> None:
        """None of the process's threads moves again."""
        process.crashed = True
        for actor in process.actors:
            while not actor.done:
                actor.at = Pause("crash")
                self.step(actor)

    def close(self) -> None:
        for actor in self.actors:
            if not actor.done:
                self.crash(actor.process)


class _Lock:
    """Re-entrant or not, of actors. Contended, it pauses."""

    def __init__(self, baton: Baton, *, reentrant: bool) -> None:
        self._baton = baton
        self._reentrant = reentrant
        self._owner: Actor | None = None
        self._count = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        me = self._baton.current
        if self._baton.fine and me is not None and self._owner is not me and not me.process.crashed:
            self._baton.pause(Pause("turn"))
        while self._count and not (self._reentrant and self._owner is me):
            if not blocking:
                return False
            assert me is not None, "the test's own thread would wait for an actor"
            self._baton.pause(Pause("lock", blocker=lambda: self._owner))
        self._owner, self._count = me, self._count + 1
        return True

    def release(self) -> None:
        self._count -= 1
        if not self._count:
            self._owner = None

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class _Thread:
    """An actor of the process that starts it; `join` waits without time."""

    def __init__(self, baton: Baton, target: Callable[[], Any], name: str = "thread", daemon: bool = False) -> None:
        self._baton = baton
        self._target = target
        self._name = name
        self.actor: Actor | None = None

    def start(self) -> None:
        parent = self._baton.current
        assert parent is not None
        self.actor = self._baton.spawn(parent.process, f"{parent.name}/{self._name}", self._target)

    def join(self, timeout: float | None = None) -> None:
        actor = self.actor
        assert actor is not None
        while not actor.done:
            self._baton.pause(Pause("join", actor.name, lambda: actor))


def threading_of(baton: Baton) -> SimpleNamespace:
    """A `threading` for modules whose threads and locks shall be actors'."""
    return SimpleNamespace(
        Lock=lambda: _Lock(baton, reentrant=False),
        RLock=lambda: _Lock(baton, reentrant=True),
        Thread=lambda target, name="thread", daemon=False: _Thread(baton, target, name, daemon),
        Event=threading.Event,
        Semaphore=threading.Semaphore,
        local=threading.local,
    )
