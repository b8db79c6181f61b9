# SPDX-License-Identifier: Apache-2.0
"""`submit`, `watch` and the arguments of `data-mover-agent`."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from agent import daemon
from agent.queue.sqlite import SqliteQueueService
from agent.signing import Signer
from mover.store.local import LocalStore
from tests.agent.conftest import PASSWORD, Place, Said
from tests.agent.rig import Rig


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
    """Carry out all that waits."""
    service, state = SqliteQueueService(place.queue), LocalStore(f"{place.queue}.state")
    rig = Rig(service, state)
    while rig.waiting():
        rig.worker().serve("w", once=True)
    state.close()
    service.close()


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
    assert {one["event"] for one in said.events} <= {"progress", "log"}


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
    for path in (path for path in place.folder.rglob("queue.db*") if path.is_file()):
        assert PASSWORD.encode() not in path.read_bytes()


@pytest.mark.parametrize(
    ("words", "what", "value", "code"),
    [
        ([], "no queue was named", "", 2),
        (["--queue", "{folder}/none/q"], "the queue cannot be opened", "No such file", 7),
        (["--queue", "{image}"], "not a queue", "disk.img", 7),
        (["--queue", "{folder}/q", "--visibility", "1"], "queue.visibility is not as it must be", "1", 2),
        (["--queue", "{folder}/q", "--visibility", "soon"], "not a time for --visibility", "soon", 2),
        (["--queue", "{folder}/q", "--checkpoint-seconds", "0.5"], "worker.checkpoint is not as it must be", "0.5", 2),
        (["--queue", "{folder}/q", "--bandwidth", "fast"], "not a size", "fast", 2),
        (["--queue", "{folder}/q", "--bandwidth", "0"], "worker.bandwidth is not as it must be", "0", 2),
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


def test_jobs_and_workers_are_listed(place: Place, commands: tuple[Path, Path]) -> None:
    place.dm("submit", *commands)
    place.image.rename(place.image.with_suffix(".away"))
    work_all(place)
    listed = place.dm("jobs", "--json").document["jobs"]
    assert {(one["job"], one["kind"], one["state"]) for one in listed} == {
        ("j1", "backup", "failed"),
        ("j2", "backup", "failed"),
    }
    assert "failed" in place.dm("jobs").out


def test_a_job_that_waits_is_cancelled(place: Place, commands: tuple[Path, Path]) -> None:
    place.dm("submit", commands[0])
    assert place.dm("cancel", "j1").out == "job j1: it ends\n"
    said = place.dm("cancel", "nobody", code=4)
    assert said.error[0] == "the queue knows no such job"


def test_poison_is_listed_shown_and_sent_again(place: Place, commands: tuple[Path, Path]) -> None:
    place.dm("submit", commands[0])
    service, state = SqliteQueueService(place.queue), LocalStore(f"{place.queue}.state")
    rig = Rig(service, state)
    worker = rig.worker()
    delivery = worker._take(service.queue("workers"))
    assert delivery is not None
    command = worker._admit(delivery.message, "workers")
    held = rig.jobs.claim(worker._fresh(command, delivery.message))
    worker._poison(delivery, command, held, rig.logs)  # type: ignore[arg-type]
    (poison,) = place.dm("poison", "--json").document["poison"]
    assert (poison["entry"]["job"], poison["entry"]["body"]["kind"]) == ("j1", "backup")
    assert "j1" in place.dm("poison", "list").out
    assert place.dm("poison", "show", poison["id"]).document["poison"][0]["id"] == poison["id"]
    assert place.dm("poison", "send", poison["id"]).out == "j1\n"
    assert place.dm("poison", "--json").document["poison"] == []
    work_all(place)
    assert place.dm("watch", "j1").out.startswith("job j1: success")
    for words, what in (
        (["show"], "no message was named"),
        (["send"], "no message was named"),
        (["show", "77"], "the poison queue has no such message"),
        (["send", "77"], "the poison queue has no such message"),
    ):
        assert place.dm("poison", *words, code=2 if len(words) == 1 else 4).error[0] == what
    state.close()
    service.close()


def test_a_command_is_signed_with_the_operators_key(
    place: Place, commands: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = place.folder / "key.pem"
    signer = Signer.generate()
    signer.save(str(key))
    monkeypatch.setenv("DATA_MOVER_SIGNING_KEY_FILE", str(key))
    place.dm("submit", commands[0])
    service = SqliteQueueService(place.queue)
    message = service.queue("workers").take(60)
    assert message is not None
    assert message.body.startswith(b"DMC1 ")
    assert signer.id.encode() in message.body
    service.close()
    key.chmod(0o644)
    assert place.dm("submit", commands[0], code=2).error[0] == "a private key that others can read"


def test_the_worker_checks_its_configuration(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.repo()
    config = place.folder / "worker.toml"
    config.write_text(f"[queue]\nservice = '{place.queue}'\n")
    assert daemon.main(["--config", str(config), "--check"]) == 0
    out = capsys.readouterr().out
    assert "ok: queue service" in out
    assert "whoever can write to the queue" in out
    config.write_text("[queue]\nservise = 'x'\n")
    assert daemon.main(["--config", str(config), "--check"]) == 2
    assert "did you mean queue.service?" in capsys.readouterr().err
    assert daemon.main(["--print-config"]) == 0
    assert "poll_longest" in capsys.readouterr().out
