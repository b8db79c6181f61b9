# SPDX-License-Identifier: Apache-2.0
"""Bad input for every verb: what happened, the value, a hint, the exit code (issue 2, point 10). No password in any output."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent import opening
from mover.clock import Clock
from mover.errors import MoverError, StoreFull
from mover.store.base import Store
from mover.store.fault import Fault, FaultStore
from mover.store.local import LocalStore
from tests.agent.conftest import PASSWORD, Place, Said, Terminal, write_image


def assert_error(said: Said, what: str, value: str, hint: str) -> None:
    got = said.error
    assert what in got[0]
    assert value in got[1]
    assert hint in got[2]
    assert got[2], "an error without a hint"


# -- words ----------------------------------------------------------------------------------------------------------


@dataclass
class Case:
    words: str
    what: str
    value: str
    hint: str
    code: int = 2


@pytest.mark.parametrize(
    "case",
    [
        Case("", "not complete", "VERB", "--help"),
        Case("defragment", "not right", "defragment", "--help"),
        Case("repo", "not complete", "ACTION", "--help"),
        Case("repo delete", "not right", "delete", "--help"),
        Case("backup", "not complete", "--resource, --disk", "--help"),
        Case("backup --resource a", "not complete", "--disk", "--help"),
        Case("restore --to x", "not complete", "--point", "--help"),
        Case("run", "not complete", "COMMAND.json", "--help"),
        Case("submit", "not complete", "COMMAND.json", "--help"),
        Case("watch", "not complete", "JOB", "--help"),
        Case("points extra", "not known", "a word that no option takes", "--help"),
        Case("points --frobnicate", "not known", "--frobnicate", "--help"),
        Case("points --res vm1", "not known", "--res", "--help"),  # no abbreviations
        Case("points --flag X", "not a flag", "X", "D, W, M and Y"),
        Case("points --since yesterday", "not a moment", "yesterday", "2026-01-31"),
        Case("backup --resource a --disk {image} --flags D,X", "not a list of flags", "D,X", "D,W"),
        Case("backup --resource a --disk {image} --level 20", "not a level", "20", "1 to 19"),
        Case("backup --resource a --disk {image} --level high", "not right", "high", "--help"),
        Case("backup --resource a --disk {image} --memory lots", "not a size", "lots", "1GiB"),
        Case("backup --resource a --disk {image} --memory 1MiB", "more memory", "1048576", "384 MiB"),
        Case("backup --resource a --disk {image} --job a/b", "not a job id", "a/b", "letters, digits"),
        Case("backup --resource a --disk name=", "a disk without a path", "name=", "NAME=PATH"),
        Case(
            "backup --resource a --disk {image} --disk {image}", "two disks have the same name", "disk.img", "NAME=PATH"
        ),
        Case("restore --point 0123 --to {folder}/x --format vmdk", "not a format", "vmdk", "raw or vhd"),
        Case("restore --point 0123 --to {folder}/x --disk -1", "not a disk's number", "-1", "counted from 0"),
        Case(
            "restore --point 0123 --to {folder}/x --print-command --password-fd 3",
            "descriptor",
            "--password-fd",
            "file",
        ),
        Case("watch job", "no queue was named", "", "DATA_MOVER_QUEUE"),
        Case("submit {folder}/none.json", "no queue was named", "", "DATA_MOVER_QUEUE"),
        Case("watch job --queue {folder}/none.db", "there is no queue", "none.db", "submit", 7),
        Case("watch job --queue {image}", "not a queue", "disk.img", "another file", 7),
        Case("submit {folder}/none.json --queue {folder}/q", "the command cannot be read", "No such file", "path"),
        Case("run {folder}/none.json", "the command cannot be read", "No such file", "path"),
        Case("run {folder}", "the command cannot be read", "Is a directory", "path"),
        Case("demo --directory {folder}", "the demo's folder is not empty", "", "empty or a new one"),
    ],
    ids=lambda case: case.words[:60] or "nothing",
)
def test_words_that_cannot_be_obeyed(place: Place, case: Case) -> None:
    place.repo()
    words = [word.format(image=place.image, folder=place.folder) for word in case.words.split()]
    assert_error(place.dm(*words, code=case.code), case.what, case.value, case.hint)
    document = place.dm(*words, "--json", code=case.code)
    assert_error(document, case.what, case.value, case.hint)
    assert document.document["error"]["exit_code"] == case.code


def test_an_argument_that_is_no_text(place: Place) -> None:
    said = place.dm("backup", "--resource", "a", "--disk", "x\udcff.img", code=2)
    assert_error(said, "an argument that is not UTF-8", "udcff", "rename the file")


# -- passwords ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [["points"], ["backup", "--resource", "a", "--disk", "{image}"], ["restore", "--point", "0123", "--to", "x"]],
)
def test_a_wrong_password(place: Place, words: list[str]) -> None:
    place.repo(encrypted=True)
    wrong = place.folder / "wrong"
    wrong.write_text("wrong-Horse-9\n")
    said = place.dm(*(word.format(image=place.image) for word in words), "--password-file", wrong, code=3)
    assert_error(said, "the password does not open this repository", "1 key slot", "nothing was touched")
    assert "wrong-Horse-9" not in said.out + said.err


def test_a_password_that_is_given_nowhere(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.dm("repo", "create", place.url, "--password-file", place.password_file, "--hint", "like the cat")
    monkeypatch.delenv("DATA_MOVER_PASSWORD_FILE")
    for words in (
        ["points"],
        ["backup", "--resource", "a", "--disk", place.image],
        ["restore", "--point", "0123", "--to", "x"],
    ):
        said = place.dm(*words, code=2)
        assert_error(said, "encrypted and no password was given", "", "--password-file or DATA_MOVER_PASSWORD_FILE")
        assert "like the cat" in said.err


def test_a_password_is_no_argument_and_is_not_repeated(place: Place) -> None:
    place.repo()
    for words in (
        ["--password", PASSWORD],
        [f"--password={PASSWORD}"],
        ["--pass", PASSWORD],
        ["--sas-token", PASSWORD],
    ):
        said = place.dm("points", *words, code=2)
        assert_error(
            said, "an argument that is not known", "", "no secret is an argument" if words[0] != "--pass" else "--help"
        )
    said = place.dm("points", "--password-fd", PASSWORD, code=2)
    assert_error(said, "not a descriptor's number", "--password-fd", "3< FILE")
    said = place.dm("points", PASSWORD, code=2)
    assert_error(said, "an argument that is not known", "a word that no option takes", "--help")


@pytest.mark.parametrize(
    ("content", "what", "hint"),
    [
        (None, "the secret's file cannot be read", "check the path"),
        (b"", "the secret's file is empty", "in UTF-8"),
        (b"\n", "the secret's file is empty", "in UTF-8"),
        (b"\xff\xfe", "the secret's file is not UTF-8", "in UTF-8"),
        (b"x" * 5000, "the secret's file is too large", "in UTF-8"),
    ],
)
def test_a_password_file_that_is_none(place: Place, content: bytes | None, what: str, hint: str) -> None:
    path = place.folder / "file"
    if content is not None:
        path.write_bytes(content)
    for words in (["repo", "create", place.url], ["points"]):
        assert_error(place.dm(*words, "--password-file", path, code=2), what, str(path), hint)
    assert not (place.folder / "repository").exists()


def test_a_password_from_two_places(place: Place) -> None:
    said = place.dm("points", "--password-file", place.password_file, "--password-fd", 0, code=2)
    assert_error(said, "a password from two places", "--password-fd", "one of them")


def test_a_hint_that_tells_the_password(place: Place) -> None:
    said = place.dm("repo", "create", place.url, "--hint", f"it is {PASSWORD}", code=2)
    assert_error(said, "the hint tells the password", "--hint", "readable by everybody")
    assert not (place.folder / "repository").exists()


def test_a_hint_without_a_password(dm: Terminal, tmp_path: Path) -> None:
    said = dm("repo", "create", (tmp_path / "r").as_uri(), "--hint", "cat", code=2)
    assert_error(said, "a hint without a password", "cat", "give a password")


# -- repositories ---------------------------------------------------------------------------------------------------

USES = (
    ["points"],
    ["backup", "--resource", "a", "--disk", "{image}"],
    ["backup", "--resource", "a", "--disk", "{image}", "--job", "j"],
    ["restore", "--point", "0123", "--to", "{folder}/x"],
)


def use(place: Place, words: list[str], *more: str, code: int) -> Said:
    return place.dm(*(word.format(image=place.image, folder=place.folder) for word in words), *more, code=code)


@pytest.mark.parametrize("words", USES)
@pytest.mark.parametrize(
    ("url", "what", "value", "hint", "code"),
    [
        ("s3://bucket/x", "not the URL of a repository", "s3://bucket/x", "file:///path", 2),
        ("/srv/backup", "not the URL of a repository", "/srv/backup", "file:///path", 2),
        ("file://host/x", "not the URL of a folder of this host", "file://host/x", "three slashes", 2),
        (f"file:///{'x' * 300}", "local store", "xxx", "check", 1),
        ("file:///nowhere/at/all", "there is no repository", "file:///nowhere/at/all", "repo create", 4),
        ("https://host.example/c?sv=1&sig=SECRET", "URL with a query", "https://host.example/c", "DATA_MOVER_SAS", 2),
    ],
)
def test_a_url_that_names_no_repository(
    place: Place, words: list[str], url: str, what: str, value: str, hint: str, code: int
) -> None:
    said = use(place, words, "--repository", url, code=code)
    assert_error(said, what, value, hint)
    assert "SECRET" not in said.out + said.err


@pytest.mark.parametrize("words", USES)
def test_no_repository_at_all(place: Place, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    monkeypatch.delenv("DATA_MOVER_REPOSITORY")
    assert_error(use(place, words, code=2), "no repository was named", "", "DATA_MOVER_REPOSITORY")


@pytest.mark.parametrize("words", [["repo", "create"], *USES])
def test_a_host_that_does_not_answer(place: Place, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    """Nobody at a terminal waits as long as a backup that is under way may."""
    monkeypatch.setattr(opening, "VERB_PATIENCE_SECONDS", 0.5)
    monkeypatch.setenv("DATA_MOVER_REPOSITORY", "http://127.0.0.1:1/account/container")
    monkeypatch.setenv("DATA_MOVER_ACCOUNT_KEY", "a2V5")
    said = use(place, words, code=7)
    assert said.error[0]
    assert "issue the same command again" in said.error[2]
    assert "a2V5" not in said.out + said.err


def test_creating_without_a_url(dm: Terminal) -> None:
    assert_error(dm("repo", "create", code=2), "no repository was named", "", "DATA_MOVER_REPOSITORY")


@pytest.mark.parametrize("words", USES)
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:100],
        lambda data: data.replace(b"hot", b"hat"),
        lambda data: b"\0" * len(data),
    ],
)
def test_a_damaged_descriptor(place: Place, words: list[str], damage: Callable[[bytes], bytes]) -> None:
    place.repo()
    path = place.folder / "repository" / "repository.json"
    path.write_bytes(damage(path.read_bytes()))
    said = use(place, words, code=5)
    assert said.error[0]
    assert "repository.json" in said.error[0] + said.error[1]
    assert said.error[2]


def test_creating_where_a_repository_is(place: Place) -> None:
    place.repo()
    said = place.dm("repo", "create", place.url, code=6)
    assert_error(said, "there is a repository already", "repository.json", "choose another folder")


def test_creating_with_an_unknown_tier(place: Place) -> None:
    assert_error(place.dm("repo", "create", place.url, "--tier", "cold", code=2), "not a tier", "cold", "archive")


def test_creating_where_a_file_is_in_the_way(place: Place) -> None:
    said = place.dm("repo", "create", place.image.as_uri() + "/r", code=1)
    assert said.error[0]


def test_a_damaged_point_hides_no_other_and_is_told(place: Place) -> None:
    place.repo()
    place.back_up()
    place.back_up(resource="vm2")
    point = next((place.folder / "repository" / "points").glob("*/*"))
    data = bytearray(point.read_bytes())
    data[-100] ^= 1
    point.write_bytes(data)
    said = place.dm("points", "--json", code=5).document
    assert len(said["points"]) == 1
    assert point.name in said["damaged"][0]["value"]
    assert point.name in place.dm("points", "--all", code=5).err


# -- restores -------------------------------------------------------------------------------------------------------


def test_a_point_that_is_not_there(place: Place) -> None:
    place.repo()
    place.back_up()
    said = place.dm("restore", "--point", "zzzz", "--to", place.folder / "x", code=4)
    assert_error(said, "no such restore point", "zzzz", "data-mover points")
    said = place.dm("restore", "--point", "0", "--to", place.folder / "x", code=2)
    assert_error(said, "too short", "0", "at least 4")


def test_a_prefix_that_two_points_have(place: Place) -> None:
    place.repo()
    for name in ("a", "b"):
        place.back_up("--job", name)
    points = sorted((place.folder / "repository" / "points").glob("*/*"))
    same = points[0].with_name(
        points[1].name[:6] + points[0].name[6:]
    )  # two beginnings alike; its content does not matter
    points[0].rename(same)
    said = place.dm("restore", "--point", points[1].name[:6], "--to", place.folder / "x", code=2)
    assert_error(said, "more than one restore point begins so", points[1].name[:6], "more of its id")


def restore_case(place: Place, *words: object, code: int) -> Said:
    place.repo()
    place.back_up()
    return place.dm("restore", "--point", place.point(), *words, code=code)


def test_a_disk_that_the_point_has_not(place: Place) -> None:
    said = restore_case(place, "--to", place.folder / "x", "--disk", 1, code=2)
    assert_error(said, "no such disk", "1 of 1", "counted from 0")


def test_a_target_that_exists(place: Place) -> None:
    other = place.folder / "other.img"
    write_image(other, place.image.stat().st_size, seed=9)
    before = other.read_bytes()
    assert_error(restore_case(place, "--to", other, code=1), "the target exists", "other.img", "--in-place")
    assert other.read_bytes() == before


def test_a_target_in_a_folder_that_does_not(place: Place) -> None:
    said = restore_case(place, "--to", place.folder / "none" / "x", code=1)
    assert_error(said, "a target cannot be opened", "No such file or directory", "check the path")


def test_a_target_that_is_a_folder(place: Place) -> None:
    said = restore_case(place, "--to", place.folder, code=1)
    assert_error(said, "neither a file nor a block device", str(place.folder), "check the target's path")


def test_nothing_to_restore_in_place(place: Place) -> None:
    said = restore_case(place, "--to", place.folder / "x", "--in-place", code=1)
    assert_error(said, "nothing to restore in place", "x", "--in-place")


def test_a_document_that_the_point_has_not(place: Place) -> None:
    said = restore_case(place, "--to", place.folder / "x", "--document", place.folder / "d", code=4)
    assert_error(said, "no such document", "configuration", "points")
    assert not (place.folder / "x").exists()


# -- disks and files of a backup ------------------------------------------------------------------------------------


def disk_case(place: Place, disk: object, code: int = 1) -> Said:
    place.repo()
    return place.dm("backup", "--resource", "a", "--disk", disk, code=code)


def test_a_disk_that_is_not_there(place: Place) -> None:
    assert_error(disk_case(place, place.folder / "none"), "a disk cannot be opened", "No such file", "check the path")


def test_a_disk_that_is_a_folder_or_a_terminal(place: Place) -> None:
    assert_error(disk_case(place, place.folder), "not a disk image", str(place.folder), "what kind of file")
    assert "not a disk image" in place.dm("backup", "--resource", "a", "--disk", "/dev/null", code=1).error[0]


def test_an_empty_disk(place: Place) -> None:
    place.image.write_bytes(b"")
    assert_error(disk_case(place, place.image), "a disk is empty", "disk.img", "has a size")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "malformed"),
        (b"{", "malformed"),
        (b"\xff", "malformed"),
        (b"[]extra", "malformed"),
        (b'{"disk": "d"}', "malformed"),
        (b'{"disk": "d", "size": 1, "snapshot": "s", "ranges": [[0, 2]]}', "outside its disk"),
        (b'{"disk": "d", "size": 1, "snapshot": "s", "ranges": [[-1, 1]]}', "outside its disk"),
        (b'[{"disk": "d", "size": 1, "snapshot": "s"}, {"disk": "d", "size": 1, "snapshot": "t"}]', "twice"),
        (b"[" * 100_000, "malformed"),
        (None, "cannot be read"),
    ],
)
def test_a_change_map_that_is_none(place: Place, content: bytes | None, what: str) -> None:
    place.repo()
    path = place.folder / "changes.json"
    if content is not None:
        path.write_bytes(content)
    said = place.back_up("--changes", path, code=2)
    assert what in said.error[0]
    assert str(path) in said.error[1]


def test_a_configuration_document_that_is_not_there(place: Place) -> None:
    place.repo()
    said = place.back_up("--config-document", place.folder / "none", code=2)
    assert_error(said, "the configuration document cannot be read", "No such file", "check the path")


def test_a_full_store(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said as what it is, nothing is listed, and the same command goes on when there is room again."""
    place.repo()

    def full(url: str, environ: object, clock: Clock, cancel: object) -> Store:
        fault = Fault("put", "fail", times=99, error=lambda name: StoreFull("no space left", name))
        return FaultStore(LocalStore(place.folder / "repository"), [fault])

    with monkeypatch.context() as patch:
        patch.setattr(opening, "open_store", full)
        said = place.back_up(code=7)
    assert_error(said, "no space left", "packs/", "free space")
    assert place.dm("points", "--json").document["points"] == []
    said = place.back_up("--json")
    assert "going on with job" in said.events[0]["message"]
    assert said.document["resumed"]


def test_a_defect_is_short_and_keeps_its_trace_for_those_who_ask(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Store:
        raise ZeroDivisionError(PASSWORD)

    monkeypatch.setattr(opening, "open_store", broken)
    said = place.dm("points", code=70)
    assert_error(said, "a defect in data-mover", "ZeroDivisionError", "DATA_MOVER_DEBUG=1")
    assert place.dm("points", "--json", code=70).document["error"]["exit_code"] == 70


# -- commands -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["run", "submit"])
@pytest.mark.parametrize(
    ("content", "what", "hint"),
    [
        ("", "not JSON", "--print-command"),
        ("{]", "not JSON", "--print-command"),
        ("{}", "malformed", "--print-command"),
        ('{"schema": 2, "kind": "backup"}', "schema that this release does not know", "newer release"),
        ('{"schema": 1, "kind": "defragment"}', "unknown kind", "backup, restore"),
        ("[" * 300_000, "a command is", "--print-command"),
        ('{"schema":1,"kind":' * 100_000, "a command is", "--print-command"),
    ],
)
def test_a_command_file_that_is_none(place: Place, verb: str, content: str, what: str, hint: str) -> None:
    path = place.folder / "command.json"
    path.write_text(content)
    words = ["--queue", place.queue] if verb == "submit" else []
    said = place.dm(verb, path, *words, code=2)
    assert_error(said, what, "", hint)
    assert not place.queue.exists()


def test_of_several_commands_one_bad_one_refuses_all(place: Place) -> None:
    good, bad = place.folder / "good.json", place.folder / "bad.json"
    good.write_text(place.back_up("--print-command", "--job", "j1").out)
    bad.write_text("{}")
    place.dm("submit", good, bad, "--queue", place.queue, code=2)
    assert not place.queue.exists()


def test_a_command_that_has_expired(place: Place) -> None:
    command = place.back_up("--print-command").document | {
        "issued": "2020-01-01T00:00:00Z",
        "expires": "2020-01-02T00:00:00Z",
    }
    path = place.folder / "command.json"
    path.write_text(json.dumps(command))
    assert_error(place.dm("run", path, code=2), "the command has expired", "2020-01-02", "issue it again")


def test_a_command_whose_url_has_a_secret(place: Place) -> None:
    command = place.back_up("--print-command").document
    command["payload"]["repository"]["url"] = "https://host.example/c?sig=SECRET"
    path = place.folder / "command.json"
    path.write_text(json.dumps(command))
    said = place.dm("run", path, code=2)
    assert_error(said, "malformed", "URL with a query", "valid one")
    assert "DATA_MOVER_SAS" in said.err
    assert "SECRET" not in said.out + said.err


def test_a_job_that_the_queue_does_not_know(place: Place) -> None:
    command = place.folder / "command.json"
    command.write_text(place.back_up("--print-command", "--job", "j1").out)
    place.dm("submit", command, "--queue", place.queue)
    said = place.dm("watch", "j2", "--queue", place.queue, code=4)
    assert_error(said, "the queue knows no such job", "j2", "data-mover submit")


def test_the_demo_without_e2fsprogs(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.demo.disk.shutil.which", lambda name, path: None)
    said = place.dm("demo", "--directory", place.folder / "demo", code=2)
    assert_error(said, "the demo needs e2fsprogs", "mke2fs was not found", "apt-get install e2fsprogs")
    assert not (place.folder / "demo").exists()


def test_every_kind_of_error_has_a_hint_and_an_exit_code_of_its_own() -> None:
    kinds, found = [MoverError], list[type[MoverError]]()
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        found.append(kind)
    assert len(found) > 30
    for kind in found:
        assert kind.hint_default, kind
        assert 1 <= kind.exit_code <= 8, kind
