# SPDX-License-Identifier: Apache-2.0
"""`submit`, `watch` and the arguments of `data-mover-agent`."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from agent import daemon
from agent.opening import Settings
from agent.queue_sqlite import SqliteQueue
from agent.worker import Worker
from tests.agent.conftest import PASSWORD, Place, Said
from tests.agent.test_worker import Logs


@pytest.fixture
def commands(place: Place, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two backup commands, j1 and j2; the queue is named by the environment."""
    place.repo()
    monkeypatch.setenv("DATA_MOVER_QUEUE", str(place.queue))
    made = []
    for job in ("j1", "j2"):
        path = place.folder / f"{job}.json"
        path.write_text(place.back_up("--print-command", "--job", job).out)
        made.append(path)
    return made[0], made[1]


def work_all(place: Place) -> None:
    queue = SqliteQueue(place.queue)
    worker = Worker(queue, Settings(worker="w"), Logs())  # type: ignore[arg-type]
    while queue.waiting("j1") or queue.waiting("j2"):
        worker.run(once=True)
    queue.close()


def test_submit_says_the_jobs_and_watch_their_ends(place: Place, commands: tuple[Path, Path]) -> None:
    assert place.dm("submit", *commands).out == "j1\nj2\n"
    work_all(place)
    said = place.dm("watch", "j2", "j1")
    assert said.out.index("job j2: success") < said.out.index("job j1: success")
    assert said.out.count("restore point") == 2


def test_submit_and_watch_as_json(place: Place, commands: tuple[Path, Path]) -> None:
    submitted = place.dm("submit", *commands, "--json").document["submitted"]
    assert [(one["job"], one["kind"]) for one in submitted] == [("j1", "backup"), ("j2", "backup")]
    work_all(place)
    said = place.dm("watch", "j1", "j2", "--json")
    assert [one["status"] for one in said.document["results"]] == ["success", "success"]
    assert said.document["results"][0]["command"] == submitted[0]["id"]
    assert said.events[0]["event"] == "accepted"


def test_watch_follows_a_job_that_is_going_on(place: Place, commands: tuple[Path, Path]) -> None:
    place.dm("submit", *commands)
    thread = threading.Thread(target=work_all, args=(place,))
    thread.start()
    said = place.dm("watch", "j1", "j2", "--json")
    thread.join()
    assert [one["job"] for one in said.document["results"]] == ["j1", "j2"]


def test_watch_ends_with_the_first_failure_s_exit_code(place: Place, commands: tuple[Path, Path]) -> None:
    place.dm("submit", *commands)
    place.image.unlink()
    work_all(place)
    said = place.dm("watch", "j1", "j2", code=1)
    assert said.error[0] == "a disk cannot be opened"
    document = place.dm("watch", "j1", "--json", code=1).document
    assert document["results"][0]["error"]["exit_code"] == 1


def test_the_queue_holds_no_password(place: Place, commands: tuple[Path, Path]) -> None:
    place.dm("submit", *commands)
    work_all(place)
    for path in place.folder.glob("queue.db*"):
        assert PASSWORD.encode() not in path.read_bytes()


@pytest.mark.parametrize(
    ("words", "what", "value", "code"),
    [
        ([], "no queue was named", "", 2),
        (["--queue", "{folder}/none/q"], "the queue cannot be opened", "No such file", 7),
        (["--queue", "{image}"], "not a queue", "disk.img", 7),
        (["--queue", "{folder}/q", "--visibility", "1"], "not a time for --visibility", "1", 2),
        (["--queue", "{folder}/q", "--visibility", "soon"], "not a time for --visibility", "soon", 2),
        (["--queue", "{folder}/q", "--checkpoint-seconds", "0.5"], "not a time for --checkpoint-seconds", "0.5", 2),
        (["--queue", "{folder}/q", "--bandwidth", "fast"], "not a size", "fast", 2),
        (["--queue", "{folder}/q", "--bandwidth", "0"], "a bandwidth of nothing", "0", 2),
        (["--password", PASSWORD], "an argument that is not known", "--password", 2),
    ],
)
def test_the_worker_says_what_is_wrong_with_its_arguments(
    place: Place, capsys: pytest.CaptureFixture[str], words: list[str], what: str, value: str, code: int
) -> None:
    assert daemon.main([word.format(folder=place.folder, image=place.image) for word in words]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    said = Said(code, "", captured.err.replace("data-mover-agent: ", "data-mover: "))
    assert what in said.error[0]
    assert value in said.error[1]
    assert said.error[2]
    assert PASSWORD not in captured.err
