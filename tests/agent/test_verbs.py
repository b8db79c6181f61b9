# SPDX-License-Identifier: Apache-2.0
"""Every verb that needs no queue, on its way to success: for people and as JSON."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mover.disk.vhd import FOOTER_SIZE
from tests.agent.conftest import MIB, PASSWORD, Place, Terminal, write_image


def test_a_disk_comes_back_byte_for_byte(place: Place) -> None:
    said = place.dm("repo", "create", place.url, "--password-file", place.password_file, "--hint", "the usual")
    assert "encrypted" in said.out
    assert "restore point" in place.back_up("--flags", "D,W").out
    to = place.folder / "restored.img"
    said = place.dm("restore", "--point", place.point(), "--to", to, "--verify")
    assert to.read_bytes() == place.image.read_bytes()
    assert "read back and right" in said.out


def test_an_incremental_names_its_parent_and_stores_what_changed(place: Place) -> None:
    place.repo()
    first = place.back_up("--json").document
    with place.image.open("r+b") as file:
        file.seek(100)
        file.write(b"changed")
    second = place.back_up("--json").document
    assert second["parent"] == first["point"]
    assert second["statistics"]["new"] == MIB
    assert first["statistics"]["new"] + first["statistics"]["unallocated"] == first["statistics"]["size"]
    assert second["statistics"]["unchanged"] == first["statistics"]["new"] - MIB


def test_the_result_as_json_has_figures_and_api_calls_by_class(place: Place) -> None:
    place.repo()
    result = place.back_up("--json", "--job", "nightly-7").document
    assert result["event"] == "result"
    assert (result["kind"], result["status"], result["job"], result["resource"]) == (
        "backup",
        "success",
        "nightly-7",
        "vm1",
    )
    assert result["error"] is None
    assert set(result["statistics"]) >= {"read", "hashed", "unchanged", "zero", "deduplicated", "new", "stored", "size"}
    assert result["api_calls"]["put"]["data-pack"]["calls"] == 1
    assert result["api_calls"]["lease"]["session"]["calls"] == 2
    assert result["seconds"] > 0


def test_events_as_json_lines_tell_the_course(place: Place) -> None:
    place.repo()
    events = place.back_up("--json").events
    assert events[0]["event"] == "accepted"
    assert {"stage", "done", "total", "rate", "eta"} <= set(events[1])
    logged = [event for event in events if event["event"] == "log"]
    assert [item["message"] for item in logged] == ["back up disk.img", "commit"]
    assert {"time", "status", "message", "resource", "start", "duration"} <= set(logged[0])


def test_the_same_job_again_is_the_same_point(place: Place) -> None:
    place.repo()
    first = place.back_up("--job", "j1", "--json").document
    again = place.back_up("--job", "j1", "--json").document
    assert again["point"] == first["point"]
    assert again["already"]
    assert again["status"] == "success"
    assert "was there already" in place.back_up("--job", "j1").out


def test_a_vm_has_several_disks_and_a_document(place: Place) -> None:
    place.repo()
    data, document = place.folder / "data=1.img", place.folder / "vm.json"
    write_image(data, MIB + 512, seed=2)
    document.write_bytes(b'{"size": "D4s_v5"}\0\xff')
    place.dm(
        *("backup", "--resource", "vm1", "--disk", f"os={place.image}", "--disk", data),
        *("--config-document", document, "--level", "3", "--no-check", "--memory", "512MiB"),
    )
    listed = place.dm("points", "--json").document["points"]
    assert [disk["name"] for disk in listed[0]["disks"]] == ["os", "data=1.img"]
    assert listed[0]["documents"] == ["configuration"]
    to, copy = place.folder / "restored", place.folder / "copy.json"
    place.dm("restore", "--point", place.point(), "--disk", 1, "--to", to, "--document", copy)
    assert to.read_bytes() == data.read_bytes()
    assert copy.read_bytes() == document.read_bytes()


def test_a_change_map_saves_reading(place: Place) -> None:
    place.repo()
    write_image(place.image, 40 * MIB)
    size = place.image.stat().st_size
    changes = place.folder / "changes.json"
    changes.write_text(json.dumps({"disk": "disk.img", "size": size, "snapshot": "monday"}))
    place.back_up("--changes", changes)
    with place.image.open("r+b") as file:
        file.seek(7 * MIB)
        file.write(b"tuesday")
    changes.write_text(
        json.dumps(
            [{"disk": "disk.img", "size": size, "snapshot": "tuesday", "base": "monday", "ranges": [[7 * MIB, 7]]}]
        )
    )
    result = place.back_up("--changes", changes, "--json").document
    assert result["notes"] == []
    assert result["statistics"]["read"] == 11 * MIB  # the changed block and a sample of ten
    to = place.folder / "restored"
    place.dm("restore", "--point", result["point"], "--to", to)
    assert to.read_bytes() == place.image.read_bytes()


def test_a_change_map_of_another_base_is_a_warning_and_everything_is_read(place: Place) -> None:
    place.repo()
    place.back_up()
    size = place.image.stat().st_size
    changes = place.folder / "changes.json"
    changes.write_text(json.dumps({"disk": "disk.img", "size": size, "snapshot": "s9", "base": "s8"}))
    said = place.back_up("--changes", changes, "--json")
    assert said.document["status"] == "warning"
    assert "is not used" in said.document["notes"][0]
    assert "warning: disk disk.img: the change map is not used" in place.back_up("--changes", changes).err


def test_in_place_writes_only_what_differs(place: Place) -> None:
    place.repo()
    place.back_up()
    before = place.image.read_bytes()
    with place.image.open("r+b") as file:
        file.write(b"broken")
    said = place.dm("restore", "--point", place.point(), "--to", place.image, "--in-place", "--json")
    assert place.image.read_bytes() == before
    assert said.document["statistics"]["written"] == MIB


def test_a_disk_can_be_restored_as_a_vhd_and_backed_up_from_it(place: Place) -> None:
    place.repo()
    place.back_up()
    vhd = place.folder / "restored.vhd"
    place.dm("restore", "--point", place.point(), "--to", vhd, "--format", "vhd")
    assert vhd.read_bytes()[:-FOOTER_SIZE] == place.image.read_bytes()
    result = place.dm("backup", "--resource", "vm1", "--disk", vhd, "--json").document
    assert result["statistics"]["size"] == place.image.stat().st_size
    assert result["statistics"]["new"] == 0


def test_points_are_filtered(place: Place) -> None:
    place.repo()
    place.back_up("--flags", "w,d")
    place.back_up()
    place.back_up("--flags", "D", resource="vm2")

    def listed(*words: str) -> list[tuple[str, str]]:
        found = place.dm("points", "--json", *words).document["points"]
        return [(point["resource"], point["flags"]) for point in found]

    assert listed() == [("vm1", "DW"), ("vm1", ""), ("vm2", "D")]
    assert listed("--resource", "vm1") == [("vm1", "DW"), ("vm1", "")]
    assert listed("--latest") == [("vm1", ""), ("vm2", "D")]
    assert listed("--flag", "d") == [("vm1", "DW"), ("vm2", "D")]
    assert listed("--since", "1h") == listed()
    assert listed("--since", "2999-01-01") == []
    assert listed("--resource", "nobody") == []


def test_points_for_people_are_a_table(place: Place) -> None:
    place.repo()
    assert place.dm("points").out == "no restore points\n"
    place.back_up("--flags", "D")
    said = place.dm("points").out
    for text in ("Point", "Made", "Resource", "Stored", place.point()[:12], "vm1", "D", "0: disk.img", "5.0 MiB"):
        assert text in said


def test_a_name_out_of_a_repository_cannot_steer_the_terminal(place: Place) -> None:
    place.repo()
    place.back_up(resource="vm\x1b[2J")
    assert "\x1b" not in place.dm("points").out


def test_a_point_is_found_by_the_beginning_of_its_id(place: Place) -> None:
    place.repo()
    place.back_up()
    to = place.folder / "restored"
    said = place.dm("restore", "--point", place.point()[:6], "--to", to, "--json").document
    assert said["point"] == place.point()


def test_a_verb_prints_the_command_that_run_carries_out(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.repo()
    command = place.folder / "backup.json"
    command.write_text(place.back_up("--print-command", "--job", "j1").out)
    assert place.dm("points", "--json").document["points"] == []
    assert place.dm("run", command, "--json").document["job"] == "j1"
    printed = place.dm("restore", "--point", place.point(), "--to", place.folder / "restored", "--print-command").out
    monkeypatch.setattr("sys.stdin", io.StringIO())
    read_end, write_end = os.pipe()
    os.write(write_end, printed.encode())
    os.close(write_end)
    before = os.dup(0)
    os.dup2(read_end, 0)
    try:
        place.dm("run", "-")
    finally:
        os.dup2(before, 0)
        os.close(before)
        os.close(read_end)
    assert (place.folder / "restored").read_bytes() == place.image.read_bytes()


def test_a_printed_command_holds_no_password(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATA_MOVER_PASSWORD_FILE")
    monkeypatch.setenv("DATA_MOVER_PASSWORD", PASSWORD)
    command = place.back_up("--print-command").document
    assert command["payload"]["repository"]["password"] == {"environment": "DATA_MOVER_PASSWORD"}


@pytest.mark.parametrize("source", ["file", "variable", "file variable", "descriptor"])
def test_the_password_comes_from_a_file_a_descriptor_or_the_environment(
    place: Place, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    place.repo(encrypted=True)
    monkeypatch.delenv("DATA_MOVER_PASSWORD_FILE")
    words: list[object] = []
    if source == "file":
        words = ["--password-file", place.password_file]
    elif source == "variable":
        monkeypatch.setenv("DATA_MOVER_PASSWORD", PASSWORD)
    elif source == "file variable":
        monkeypatch.setenv("DATA_MOVER_PASSWORD_FILE", str(place.password_file))
    else:
        read_end, write_end = os.pipe()
        os.write(write_end, PASSWORD.encode())
        os.close(write_end)
        words = ["--password-fd", read_end]
    assert place.dm("points", *words).out == "no restore points\n"
    if source == "descriptor":
        os.close(read_end)


def test_a_repository_without_a_password_says_that_it_is_not_encrypted(dm: Terminal, tmp_path: Path) -> None:
    said = dm("repo", "create", (tmp_path / "r").as_uri(), "--tier", "cool")
    assert "NOT encrypted" in said.out
    made = dm("repo", "create", (tmp_path / "s").as_uri(), "--json").document["repository"]
    assert (made["encryption"], made["tier"]) == ("none", "hot")


def test_help_and_errors_load_neither_azure_nor_numpy_nor_rich(place: Place) -> None:
    code = (
        "import sys; from agent.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('azure', 'numpy', 'rich', 'zstandard', 'cryptography') if name in sys.modules])"
    )
    for words in (["--help"], ["backup", "--help"], ["nonsense"], ["repo"], ["points", "--flag", "X"]):
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "[]", words


def test_listing_a_folder_s_points_loads_nothing_of_azure_no_numpy_and_as_json_no_rich(place: Place) -> None:
    place.repo()
    code = (
        "import sys; from agent.cli import main; main(sys.argv[1:])\n"
        "print([name for name in ('azure', 'numpy', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, "points", "--json"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_name_that_the_terminal_cannot_show_is_shown_otherwise(place: Place) -> None:
    place.repo()
    place.back_up(resource="Gr\u00f6\u00dfe \u4e03")
    words = [sys.executable, "-m", "agent.cli", "points"]
    done = subprocess.run(words, capture_output=True, check=True, env={**os.environ, "PYTHONIOENCODING": "latin-1"})
    assert "Gr\u00f6\u00dfe \\u4e03".encode("latin-1") in done.stdout


def test_all_disks_of_a_point_come_into_a_folder(place: Place) -> None:
    place.repo()
    data = place.folder / "data.img"
    data.write_bytes(os.urandom(3 * MIB + 512))
    to = place.folder / "out"
    to.mkdir()
    place.back_up("--disk", f"data={data}")
    said = place.dm("restore", "--point", place.point(), "--all-disks", "--to", to)
    assert (to / "disk.img").read_bytes() == place.image.read_bytes()
    assert (to / "data").read_bytes() == data.read_bytes()
    assert "disk.img" in said.out
    place.dm("restore", "--point", place.point(), "--all-disks", "--disk", 1, "--to", to, code=2)
