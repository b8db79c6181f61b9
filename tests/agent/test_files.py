# SPDX-License-Identifier: Apache-2.0
"""`files` as its users run it: over a restore point of a repository, and over images."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flr.fs.ext.open import open_ext
from tests.agent.conftest import Place, Terminal
from tests.flr.corpus import arrays, truth
from tests.flr.corpus.image import opened
from tests.flr.corpus.mounted import mounted, need, run
from tests.flr.fs.ext.images import image

MIB = 1 << 20


@pytest.fixture
def guest(place: Place) -> Place:
    """A place whose point has an ext4 disk with the corpus's tree on it."""
    made = image("ext4")
    place.image.unlink()
    run("cp", "--sparse=always", made.image, place.image)
    place.repo()
    place.back_up()
    return place


def binary(*words: str | os.PathLike[str], cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    """The program itself, for what is no text."""
    command = [sys.executable, "-m", "agent.cli", *map(str, words)]
    return subprocess.run(
        command, capture_output=True, cwd=cwd, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    )


def test_volumes_tell_what_there_is(guest: Place) -> None:
    said = guest.dm("files", "volumes", "--point", guest.point())
    assert "ext4 file system" in said.out
    assert "opens; journal clean" in said.out
    document = guest.dm("files", "volumes", "--point", guest.point(), "--json").document
    assert document["volumes"][0]["volume"]["holds"] == "ext"
    assert document["volumes"][0]["file_system"]["kind"] == "ext4"


def test_a_listing_has_what_ls_has(guest: Place) -> None:
    said = guest.dm("files", "list", "--point", guest.point(), "/special")
    lines = {line.split()[-1]: line for line in said.out.splitlines() if " -> " not in line}
    assert lines["suid"].split()[:4] == ["-rwsr-sr-x", "1000", "100000", "1"]
    assert lines["block"].split()[3:5] == ["259,", "70000"]
    assert "link-absolute -> /etc/passwd" in said.out
    facts = image("ext4").truth
    entries = guest.dm("files", "list", "--point", guest.point(), "/special", "--json", "--details").document["entries"]
    by_name = {entry["path"]: entry for entry in entries}
    below = {path[9:].decode() for path in facts if path.startswith(b"/special/") and b"/" not in path[9:]}
    assert by_name.keys() == below
    fact = facts[b"/special/suid"]
    assert (by_name["suid"]["mode"], by_name["suid"]["modified_ns"]) == (fact.mode & 0o7777, fact.modified)
    assert "user.binary" in by_name["xattrs"]["xattrs"]


def test_names_that_are_no_text_are_shown_escaped_and_can_be_asked_for(guest: Place) -> None:
    point = guest.point()
    said = guest.dm("files", "list", "--point", point, "/odd")
    assert r"caf\xe9.txt" in said.out
    assert r"new\x0aline.txt" in said.out
    assert "\x1b" not in said.out
    assert "\u202e" not in said.out
    entries = guest.dm("files", "list", "--point", point, "/odd", "--json").document["entries"]
    assert any(entry.get("path_base64") == "Y2Fm6S50eHQ=" for entry in entries)
    command = ["files", "cat", "--repository", guest.url, "--point", point, os.fsdecode(b"/odd/caf\xe9.txt")]
    assert binary(*command).stdout == b"caf\xe9.txt"


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["deep.txt"], 1),
        (["file_00009*"], 10 - 2),  # of 90 to 99, those that 7 divides are gone
        (["--regex", r"^file_00009[0-9]_"], 8),
        (["DEEP.TXT"], 0),
        (["DEEP.TXT", "--ignore-case"], 1),
        (["tree/a0/*/file 1"], 5),
        (["**/file 1"], 25),
        (["--in", "/tree/a1", "file*"], 20),
        (["--type", "folder", "a?"], 5),
        (["--type", "link", "link-6[01]"], 2),
        (["--larger", "100MiB"], 1),
        (["--owner", "3000000000"], 1),
        (["time-*", "--newer", "2200-01-01"], 1),
        (["time-*", "--older", "1965-01-01"], 2),
    ],
)
def test_find_finds(guest: Place, words: list[str], found: int) -> None:
    said = guest.dm("files", "find", "--point", guest.point(), "--json", *words).document
    assert len(said["found"]) == found
    assert said["problems"] == []
    lines = guest.dm("files", "find", "--point", guest.point(), *words).out.splitlines()
    assert len(lines) == found


def test_find_gives_bare_paths_to_programs(guest: Place) -> None:
    done = binary("files", "find", "--repository", guest.url, "--point", guest.point(), "--null", "--in", "/odd")
    names = {path for path in done.stdout.split(b"\0") if path}
    assert names == {path for path in image("ext4").truth if path.startswith(b"/odd/")}


def test_cat_is_the_file(guest: Place) -> None:
    for name in (b"/big.bin", b"/special/size_65537", b"/special/fallocated", b"/special/size_0"):
        done = binary("files", "cat", "--repository", guest.url, "--point", guest.point(), os.fsdecode(name))
        assert done.returncode == 0, done.stderr
        assert hashlib.sha256(done.stdout).hexdigest() == image("ext4").truth[name].content


def test_get_takes_a_file_with_its_holes(guest: Place) -> None:
    to = guest.folder / "sparse"
    guest.dm("files", "get", "--point", guest.point(), "/special/sparse", "--to", to)
    fact = image("ext4").truth[b"/special/sparse"]
    assert hashlib.sha256(to.read_bytes()).hexdigest() == fact.content
    assert to.stat().st_blocks * 512 < MIB
    assert to.stat().st_mtime_ns == fact.modified
    again = guest.dm("files", "get", "--point", guest.point(), "/special/sparse", "--to", to, code=2)
    assert "nothing is written over" in again.error[2]


def test_get_takes_a_tree_as_a_tar_that_gives_back_everything(guest: Place, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: GNU tar gives files to their owners")
    to = guest.folder / "all.tar"
    said = guest.dm("files", "get", "--point", guest.point(), "/", "--to", to, code=5)
    assert "special/socket: a socket is not put into an archive" in said.err
    assert to.stat().st_size < 40 * MIB  # holes of 300 MiB are not in it
    out = tmp_path / "out"
    out.mkdir()
    run("tar", "--acls", "--xattrs", "--xattrs-include=*", "--warning=no-timestamp", "-C", out, "-xpf", to)
    real = image("ext4").truth
    found = truth.kernel(out)
    found[b"/special/socket"] = real[b"/special/socket"]
    for facts in (real, found):
        for fact in facts.values():
            if fact.mode & 0o170000 == 0o040000:
                fact.size = fact.links = 0  # of another file system's folders
    assert truth.differences(real, found, frozenset({"changed", "accessed", "created"})) == []


def test_get_takes_several_as_one_tar_on_standard_output(guest: Place) -> None:
    words = [
        "files",
        "get",
        "--repository",
        guest.url,
        "--point",
        guest.point(),
        "/tree/a0",
        "/special/hard1",
        "--to",
        "-",
    ]
    done = binary(*words)
    listed = (
        subprocess.run(["tar", "tf", "-"], input=done.stdout, capture_output=True, check=True)
        .stdout.decode()
        .split("\n")
    )
    assert "a0/b0/file 0" in listed
    assert "hard1" in listed
    assert done.returncode == 0


def test_diff_tells_what_became_of_a_folder(guest: Place) -> None:
    need("mkfs.ext4")
    first = guest.point()
    with mounted(guest.image) as place:
        (place / "tree" / "new").write_text("new")
        (place / "tree" / "a0" / "b0" / "file 0").unlink()
        with open(place / "tree" / "a1" / "b1" / "file 1", "r+b") as file:
            file.write(b"other")
        quiet = place / "tree" / "a2" / "b2" / "file 2"
        status = quiet.stat()
        quiet.write_bytes(b"x" * status.st_size)
        os.utime(quiet, ns=(status.st_atime_ns, status.st_mtime_ns))
        (place / "tree" / "a3" / "b3" / "file 3").chmod(0o600)
    guest.back_up()
    second = guest.point()
    words = ["files", "diff", "--point", second, "--since", first, "/tree"]
    lines = guest.dm(*words).out.splitlines()
    assert lines == [
        "+ /tree/new",
        "- /tree/a0/b0/file 0",
        "~ /tree/a1/b1/file 1  (modified)",
        "~ /tree/a3/b3/file 3  (mode)",
    ]
    changes = guest.dm(*words, "--contents", "--json").document["changes"]
    assert {(one["path"], tuple(one["how"])) for one in changes if one["what"] == "changed"} == {
        ("/tree/a1/b1/file 1", ("modified", "content")),
        ("/tree/a2/b2/file 2", ("content",)),
        ("/tree/a3/b3/file 3", ("mode",)),
    }


def test_images_are_looked_into_without_a_repository(dm: Terminal) -> None:
    said = dm("files", "list", "--image", image("ext4").image, "/tree")
    assert said.out.count("\n") == 5


def test_a_busy_disk_is_told_with_its_journal_and_without(dm: Terminal, tmp_path: Path) -> None:
    copy = tmp_path / "busy"
    need("mkfs.ext4")
    with open(copy, "wb") as file:
        file.truncate(64 * MIB)
    run("mkfs.ext4", "-q", copy)
    snapshot = tmp_path / "snapshot"
    with mounted(copy) as place:
        (place / "made").write_text("just now")
        fd = os.open(place / "made", os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        run("cp", copy, snapshot)
    assert "made" in dm("files", "list", "--image", snapshot).out
    assert "made" not in dm("files", "list", "--image", snapshot, "--without-journal").out
    assert "replayed: " in dm("files", "volumes", "--image", snapshot).out


# -- what is wrong


def test_errors_say_what_value_and_hint(guest: Place) -> None:
    point = guest.point()
    for words, code, what in [
        (["list", "/no/such"], 4, "a folder has no such entry"),
        (["list", "/big.bin/below"], 2, "not a folder"),
        (["cat", "/tree"], 2, "not a file"),
        (["cat", "/special/link-loop-a"], 5, "links lead to links"),
        (["list", "--volume", "0p9"], 4, "no such volume"),
        (["find", "--regex", "("], 2, "not a pattern"),
        (["find", "--type", "pipe"], 2, "not a type"),
        (["find", "x", "--regex", "y"], 2, "a glob and a regular expression"),
        (["get", "/special/fifo", "--to", str(guest.folder / "x")], 2, "neither a file nor a folder"),
        (["get", "/big.bin", "--to", str(guest.folder / "no" / "such")], 1, "cannot be written"),
        (["diff", "--since", "0000dead"], 4, "no such restore point"),
    ]:
        said = guest.dm("files", *words, "--point", point, code=code)
        assert what in said.error[0], (words, said.err)
        assert said.error[2]
    assert not (guest.folder / "x").exists()


def test_neither_or_both_of_point_and_image_are_refused(dm: Terminal, place: Place) -> None:
    assert "neither or both" in dm("files", "list", code=2).error[0]
    assert "neither or both" in dm("files", "list", "--point", "abcd", "--image", place.image, code=2).error[0]
    said = dm("files", "list", "--image", "https://a.blob.core.windows.net/c/b?sig=secret", code=2)
    assert "secret" not in said.err


def test_a_disk_without_anything_known_says_so(dm: Terminal, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_bytes(b"\x55" * MIB)
    said = dm("files", "list", "--image", empty, code=2)
    assert "nothing on these disks can be opened" in said.error[0]
    assert dm("files", "volumes", "--image", empty).code == 0


def test_one_damaged_chunk_is_of_its_files_alone(guest: Place) -> None:
    """64 bytes of a pack are overwritten where the large file stands."""
    guest.dm("files", "get", "--point", guest.point(), "/", "--to", guest.folder / "whole.tar", code=5)
    whole = run("tar", "tf", guest.folder / "whole.tar").splitlines()
    pack = max((guest.folder / "repository" / "packs").rglob("*"), key=lambda path: path.stat().st_size)
    raw = bytearray(pack.read_bytes())
    raw[len(raw) // 3 : len(raw) // 3 + 64] = bytes(64)
    pack.chmod(0o600)
    pack.write_bytes(raw)
    said = guest.dm("files", "get", "--point", guest.point(), "/", "--to", guest.folder / "rest.tar", code=5)
    assert "the rest is zeros" in said.err or "cannot be read" in said.err
    left = run("tar", "tf", guest.folder / "rest.tar").splitlines()
    assert len(left) > len(whole) - 400
    assert "./tree/a4/b4/file 3" in left


def test_damage_that_was_read_around_is_told_at_the_end(dm: Terminal, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    run("cp", image("ext4-no-checksums").image, copy)
    with opened(copy) as disk:
        fs = open_ext(disk)
        many = next(e.number for e in fs.entries(fs.root()).entries if e.name == b"many")
        span = list(fs._mapping.spans(fs.inode(many), 0, 100))[-1]
        place = span.physical * 4096
    with open(copy, "r+b") as file:
        file.seek(place)
        file.write(b"\xff" * 4096)
    for words in (["list", "/many"], ["find", "file_*"], ["get", "/many", "--to", str(tmp_path / "many.tar")]):
        said = dm("files", *words, "--image", copy, code=5)
        assert "the rest of block" in said.err


def test_a_hard_link_names_what_is_in_the_archive(dm: Terminal, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    with open(copy, "wb") as file:
        file.truncate(16 * MIB)
    run("mkfs.ext4", "-q", "-O", "^metadata_csum", copy)
    with mounted(copy) as place:
        for name in ("a", "z"):
            (place / name).write_bytes(name.encode() * 70_000)
            for k in range(3):
                os.link(place / name, place / f"{name}{k}")
    run("debugfs", "-w", "-R", "set_inode_field /a block[0] 0xdeadbeef", copy)
    said = dm("files", "get", "--image", copy, "/", "--to", tmp_path / "out.tar", code=5)
    assert said.err.count("an extent tree's block is none") == 4
    out = tmp_path / "out"
    out.mkdir()
    run("tar", "-C", out, "-xf", tmp_path / "out.tar")
    assert sorted(path.name for path in out.iterdir() if path.is_file()) == ["z", "z0", "z1", "z2"]
    assert (out / "z2").stat().st_nlink == 4


def test_attributes_with_signs_in_their_names_come_back(dm: Terminal, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    with open(copy, "wb") as file:
        file.truncate(16 * MIB)
    run("mkfs.ext4", "-q", copy)
    names = ["user.a=b", "user.a%3Db", "user.100%"]
    with mounted(copy) as place:
        (place / "file").write_text("x")
        for name in names:
            os.setxattr(place / "file", name, name.encode())
    dm("files", "get", "--image", copy, "/file", "--tar", "--to", tmp_path / "out.tar")
    out = tmp_path / "out"
    out.mkdir()
    run("tar", "--xattrs", "--xattrs-include=*", "-C", out, "-xf", tmp_path / "out.tar")
    assert {name: os.getxattr(out / "file", name) for name in os.listxattr(out / "file")} == {
        n: n.encode() for n in names
    }


def test_output_that_cannot_be_written_is_told() -> None:
    path = str(image("ext4").image)
    for words in (["cat", "/big.bin"], ["list", "/many"], ["find", "file*"], ["find", "file*", "--null"]):
        with open("/dev/full", "wb") as full:
            command = [sys.executable, "-m", "agent.cli", "files", *words, "--image", path]
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, cwd=Path(__file__).parents[2])
        assert done.returncode == 1, done.stderr
        assert b"No space left" in done.stderr
        assert b"Traceback" not in done.stderr


def test_words_that_are_no_text_are_told_where_they_must_be_some() -> None:
    path = str(image("ext4").image)
    bad = os.fsdecode(b"\xff")
    for words in (["list", "--image", path, "--volume", bad], ["list", "--point", bad], ["list", bad, "--image", path]):
        for more in ([], ["--json"]):
            done = binary("files", *words, *more)
            assert done.returncode in (2, 4), done.stderr
            assert b"Traceback" not in done.stderr


def test_points_of_two_resources_are_not_compared(guest: Place) -> None:
    first = guest.point()
    guest.back_up(resource="vm2")
    points = guest.dm("points", "--json").document["points"]
    other = next(one["point"] for one in points if one["resource"] == "vm2")
    said = guest.dm("files", "diff", "--point", other, "--since", first, code=2)
    assert "two resources" in said.error[0]


def test_a_missing_disk_of_a_group_is_named(dm: Terminal) -> None:
    made = arrays.groups()
    words = [word for name in ("whole0", "whole2") for word in ("--image", str(made.disk(name)))]
    said = dm("files", "volumes", *words)
    assert "a disk of this volume group is not in this restore point" in " ".join(said.out.split())
    assert "part of vg:vgw" in said.out
    what, value, hint = dm("files", "list", "--volume", "vgw/stripes", *words, code=5).error
    assert "not in this restore point" in what
    assert "PV " in value
    assert hint


def test_a_cut_image_says_so_and_gives_what_is_left(dm: Terminal, tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    cut.write_bytes(image("ext4").image.read_bytes()[: 100 * MIB])
    said = dm("files", "volumes", "--image", cut)
    assert "the image is cut" in said.err
    what, value, hint = dm("files", "get", "--image", cut, "/big.bin", "--to", tmp_path / "big", code=5).error
    assert "outside of its volume" in what
    assert str(100 * MIB) in value
    assert "shorter than its structures say" in hint
    assert not (tmp_path / "big").exists()


def test_several_volumes_want_a_choice(dm: Terminal, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for path in (one, two):
        with open(path, "wb") as file:
            file.truncate(32 * MIB)
        run("mkfs.ext4", "-q", path)
    said = dm("files", "list", "--image", one, "--image", two, code=2)
    assert said.error[1] == "0, 1"
    assert "lost+found" in dm("files", "list", "--image", one, "--image", two, "--volume", "1").out


@pytest.fixture(autouse=True)
def _needs() -> None:
    need("mkfs.ext4", "mount")


def test_single_files_that_cannot_be_read_do_not_stop_the_rest(dm: Terminal, tmp_path: Path) -> None:
    """An inode of one file is cut to pieces; its neighbours come out."""
    copy = tmp_path / "copy"
    run("cp", image("ext4-no-checksums").image, copy)
    run("debugfs", "-w", "-R", "set_inode_field /tree/a0/b0/file\\ 1 block[0] 0xdeadbeef", copy)
    number = json.loads(binary("files", "list", "--image", copy, "--json", "/tree/a0/b0/file 1").stdout)["entries"][0][
        "node"
    ][0]
    run("debugfs", "-w", "-R", f"set_inode_field <{number}> block[0] 0xdeadbeef", copy)
    to = tmp_path / "out.tar"
    said = dm("files", "get", "--image", copy, "/tree", "--to", to, code=5)
    assert "tree/a0/b0/file 1: an extent tree's block is none" in said.err
    listed = run("tar", "tf", to)
    assert "tree/a0/b0/file 2" in listed
    assert "tree/a0/b0/file 1" not in listed
    assert listed.count("file ") == 99
