# SPDX-License-Identifier: Apache-2.0
"""`restore` to page blobs and managed disks' uploads, as people and appliances ask for it."""

from __future__ import annotations

import random
import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from agent.protocol import RepositoryReference, RestorePayload, RestoreTarget, Result, Secret, encode
from agent.protocol import TestConnectionPayload as Connection
from tests.agent.conftest import Place, Said
from tests.agent.rig import Rig
from tests.azure.conftest import MIB, BlobDisk
from tests.azure.front import Front, Reply, Request

pytestmark = pytest.mark.azurite
OPERATIONS = Path(__file__).parents[2] / "docs/operations.md"
RNG = random.Random(23)
SIZE = 12 * MIB


class Vm:
    """A VM of two disks with a restore point, and what it takes to restore it."""

    def __init__(self, place: Place, blob: BlobDisk, front: Front) -> None:
        self.place, self.blob, self.front = place, blob, front
        made = place.folder.joinpath("repository").exists()
        if not made:
            place.repo()
        self.password = ("--password-file", place.password_file) if made else ()
        self.disks = {name: place.folder / f"{name}.img" for name in ("os", "data")}
        for number, path in enumerate(self.disks.values()):
            path.write_bytes(bytes(MIB) + RNG.randbytes(5 * MIB) + bytes(SIZE - 6 * MIB - MIB * number))
        place.folder.joinpath("vm.json").write_text('{"vm": 1}')
        words = [word for name, path in self.disks.items() for word in ("--disk", f"{name}={path}")]
        place.dm("backup", "--resource", "vm1", *words, "--config-document", place.folder / "vm.json", *self.password)
        self.point = place.dm("points", "--json", *self.password).document["points"][-1]["point"]

    def content(self, name: str) -> bytes:
        return self.disks[name].read_bytes()

    def file(self, name: str, url: str) -> Path:
        """A file that holds a URL."""
        path = self.place.folder / name
        path.write_text(url + "\n")
        return path

    def restore(self, *words: object, code: int = 0) -> Said:
        return self.place.dm("restore", "--point", self.point, *words, code=code)

    def puts(self) -> list[Request]:
        return [request for request in self.front.log if request.method == "PUT"]


@pytest.fixture
def vm(request: pytest.FixtureRequest, place: Place, page_blob: BlobDisk, front: Front) -> Vm:
    if "strict" in request.fixturenames:
        request.getfixturevalue("strict")  # makes the repository
    return Vm(place, page_blob, front)


def test_a_disk_to_a_new_page_blob_and_the_same_again(vm: Vm) -> None:
    url = vm.file("url", vm.blob.url(name="made"))
    said = vm.restore("--to", f"@{url}", "--verify", "--json").document
    assert vm.blob.content(name="made") == vm.content("os")
    assert said["statistics"]["verified"] == SIZE
    assert said["statistics"]["target_requests"] > 5
    again = vm.restore("--to", f"@{url}")
    assert "written 0 B, already there 5.0 MiB" in again.out
    assert "requests to the target" in again.out
    other = vm.restore("--disk", "1", "--to", f"@{url}", code=1)
    assert other.error[0] == "the target exists and is not this disk"


def test_a_vm_s_disks_to_uploads_and_its_document_in_the_result(vm: Vm, monkeypatch: pytest.MonkeyPatch) -> None:
    urls = [vm.blob.waits_for_upload(SIZE, "up0"), vm.blob.waits_for_upload(SIZE - MIB, "up1")]
    monkeypatch.setenv("DISK_URL", urls[0])
    data = vm.file("data-url", urls[1])
    said = vm.restore("--all-disks", "--to", f"data=@{data}", "--to", "0=env:DISK_URL", "--json")
    assert [vm.front.uploaded(url, SIZE - MIB * n) for n, url in enumerate(urls)] == [
        vm.content("os"),
        vm.content("data"),
    ]
    result = said.document
    assert list(result["details"]) == ["disk 0", "disk 1"]
    assert "sig" not in said.out + said.err
    assert result["document"] == "eyJ2bSI6IDF9"


def test_a_plan_names_what_the_restore_then_does_and_writes_nothing(vm: Vm) -> None:
    url = vm.file("url", vm.blob.url(name="made"))
    plan = vm.restore("--to", f"@{url}", "--dry-run", "--json").document["statistics"]
    assert not vm.puts()
    assert plan["seconds"] >= plan["write"] / (60 * MIB)
    people = vm.restore("--to", f"@{url}", "--dry-run")
    assert people.out.startswith("nothing was written")
    done = vm.restore("--to", f"@{url}", "--json").document
    pages = [request for request in vm.puts() if request.headers.get("x-ms-page-write") == "update"]
    assert plan["write_calls"] == len(pages)
    assert plan["write"] == done["statistics"]["written"] == 5 * MIB
    assert plan["zero"] == done["statistics"]["zero"] == SIZE - 5 * MIB
    assert plan["fetch"] == done["statistics"]["fetched"]
    assert plan["fetch_calls"] == done["api_calls"]["read_into"]["data-pack"]["calls"]
    file = vm.restore("--to", vm.place.folder / "out", "--dry-run", "--json").document["statistics"]
    assert file["write"] == plan["write"]
    assert not vm.place.folder.joinpath("out.partial").exists()


def test_the_plan_of_a_vm_is_of_all_its_disks(vm: Vm) -> None:
    words = [word for name in vm.disks for word in ("--to", f"{name}=@{vm.file(name, vm.blob.url(name=name))}")]
    plan = vm.restore("--all-disks", *words, "--dry-run", "--json").document["statistics"]
    assert plan["size"] == 2 * SIZE - MIB
    assert plan["write"] == 10 * MIB
    assert not vm.puts()


def test_every_target_is_looked_at_before_the_first_is_written(vm: Vm) -> None:
    good, twice = vm.file("good", vm.blob.url(name="made")), vm.file("twice", vm.blob.url(name="made"))
    ended = vm.blob.waits_for_upload(SIZE)
    vm.front.revoke(ended)
    bad = vm.file("bad", ended)
    with vm.blob.client("small") as client:
        client.create_page_blob(MIB)
    with vm.blob.client("held") as client:
        client.create_page_blob(SIZE)
    small, readable = vm.file("small", vm.blob.url(name="small")), vm.file("r", vm.blob.url_with("r", name="held"))
    for words, code, what in (
        (("--to", f"os=@{good}", "--to", f"data=@{bad}"), 3, "refused access"),
        (("--to", f"os=@{good}", "--to", f"data=@{small}"), 1, "exists and is not this disk"),
        (("--to", f"os=@{good}", "--to", f"data=@{readable}"), 3, "the SAS is not for writing"),
        (("--to", f"os=@{good}", "--to", f"data=@{small}", "--dry-run"), 1, "exists and is not this disk"),
        (("--to", f"os=@{good}", "--to", f"data=@{twice}"), 2, "two disks have the same target"),
        (("--to", f"os=@{good}", "--to", f"data=@{good}"), 2, "two disks have the same target"),
        (("--to", f"os=@{good}"), 2, "a disk of the VM has no target"),
        (("--to", f"os=@{good}", "--to", f"0=@{bad}"), 2, "a disk has two targets"),
        (("--to", f"os=@{good}", "--to", f"swap=@{bad}"), 2, "has no such disk"),
        (("--to", f"os=@{good}", "--to", f"7=@{bad}"), 2, "has no such disk"),
        (("--to", f"os=@{good}", "--to", str(vm.place.folder)), 2, "page blobs and a folder at once"),
        (("--to", f"@{good}"), 2, "a page blob for no disk"),
        (("--to", f"os=@{good}", "--to", f"\u00b2=@{bad}"), 2, "has no such disk"),
    ):
        said = vm.restore("--all-disks", *words, code=code)
        assert what in said.error[0]
        assert "sig=" not in said.out + said.err
    assert not vm.puts()
    said = vm.restore("--to", f"os=@{good}", code=2)
    assert said.error[0] == "a page blob for one of several disks"


def test_a_name_that_is_another_disk_s_number_is_refused(place: Place, page_blob: BlobDisk) -> None:
    place.repo()
    place.image.write_bytes(RNG.randbytes(MIB))
    place.dm("backup", "--resource", "vm1", "--disk", f"1={place.image}", "--disk", f"0={place.image}")
    url = place.folder / "url"
    url.write_text(page_blob.url(name="made"))
    words = ("--all-disks", "--to", f"0=@{url}", "--to", f"1=@{url}")
    said = place.dm("restore", "--point", place.point(), *words, code=2)
    assert said.error[0] == "a disk's name is another one's number"


@pytest.mark.parametrize(
    "url",
    [
        "https://md-1.x.net/a/b?sig=SECRET\nX: y",
        "https://md-1.x.net/a/b?sig=SECRET\u00e9",
        "https://x.net/a/b ?sig=SECRET",
    ],
)
def test_a_url_that_is_none_is_told_without_its_secret(vm: Vm, url: str) -> None:
    place = vm.file("url", url)
    for words in (
        ("restore", "--point", vm.point, "--to", f"@{place}"),
        ("backup", "--resource", "v", "--disk", f"os=@{place}"),
    ):
        said = vm.place.dm(*words, code=2)
        assert "SECRET" not in said.out + said.err
        assert "characters that are none" in said.error[0]


@pytest.mark.parametrize("words", [(), ("--all-disks",)])
def test_a_url_in_an_argument_is_refused_without_being_shown(vm: Vm, words: tuple[str, ...]) -> None:
    said = vm.restore(*words, "--to", "https://md-1.blob.core.windows.net/a/b?sig=SECRETSIG", code=2)
    assert "SECRETSIG" not in said.out + said.err
    assert "@FILE" in said.error[2]


def test_access_that_ends_on_the_way_has_its_own_error_and_a_new_sas_goes_on(vm: Vm) -> None:
    upload = vm.blob.waits_for_upload(SIZE)
    seen: list[int] = []

    def ends(request: Request, front: Front) -> Reply | None:
        if request.headers.get("x-ms-page-write") == "update":
            seen.append(request.range[0])
            if len(seen) == 3:  # the first is what claims it
                front.revoke(upload)
        return None

    vm.front.faults.append(ends)
    said = vm.restore("--to", f"@{vm.file('url', upload)}", "--json", code=3).document
    assert said["error"]["type"] == "SasExpired"
    vm.front.faults.clear()
    again = vm.front.upload(vm.blob.url(name="upload"))
    done = vm.restore("--to", f"@{vm.file('url', again)}", "--json").document
    assert done["statistics"]["equal"] > 0
    assert vm.front.uploaded(again, SIZE) == vm.content("os")


def test_a_disk_s_sas_needs_the_rights_that_the_page_names_and_no_more(vm: Vm) -> None:
    rows = dict(re.findall(r"^\| `(backup --disk|restore --to)` \| `(\w+)` \|", OPERATIONS.read_text(), re.MULTILINE))
    assert rows == {"backup --disk": "r", "restore --to": "rw"}
    for verb, words in (
        ("backup --disk", ("backup", "--resource", "vm2", "--disk")),
        ("restore --to", ("restore", "--point", vm.point, "--to")),
    ):
        letters = rows[verb]
        for left in [letters.replace(letter, "") or "c" for letter in letters]:  # a SAS needs some right
            url = vm.file("url", vm.blob.url_with(left, name="made" if "to" in verb else "disk.vhd"))
            said = vm.place.dm(*words, f"@{url}" if "to" in verb else f"os=@{url}", "--json", code=3)
            assert said.document["error"]["type"] == "AccessDenied"
        url = vm.file("url", vm.blob.url_with(letters, name="made" if "to" in verb else "disk.vhd"))
        vm.place.dm(*words, f"@{url}" if "to" in verb else f"os=@{url}")
    assert vm.blob.content(name="made") == vm.content("os")


def test_by_a_worker_with_sealed_urls(vm: Vm, strict: Rig) -> None:
    """The SAS travels sealed, and stands in no record, no event and no log."""
    urls = [vm.blob.waits_for_upload(SIZE, "up0"), vm.blob.waits_for_upload(SIZE - MIB, "up1")]
    repository = RepositoryReference(url=vm.place.url, password=Secret(file=str(vm.place.password_file)))
    targets = tuple(RestoreTarget(disk=name, url=Secret(clear=url)) for name, url in zip(vm.disks, urls, strict=True))
    look = Connection(blobs=tuple(target.url for target in targets))
    strict.appliance.issue("test-connection", look, job="t")
    payload = RestorePayload(what="vm", repository=repository, point=vm.point, targets=targets, verify=True)
    strict.appliance.issue("restore", payload, job="r")
    for _ in range(2):
        assert strict.worker().serve("w", once=True) == 0
    events = strict.events()
    done = {event.job: event for event in events if isinstance(event, Result)}
    assert {job: result.status for job, result in done.items()} == {"t": "success", "r": "success"}
    assert f"{20 * MIB + 512} bytes" in done["t"].details["blob 0"]
    assert [vm.front.uploaded(url, SIZE - MIB * n) for n, url in enumerate(urls)] == [
        vm.content("os"),
        vm.content("data"),
    ]
    said = b"".join(encode(event) for event in events)
    said += b"".join(strict.state.read_record(entry.name).data for entry in strict.state.list("jobs/"))
    said += repr(strict.logs).encode()
    for url in urls:
        assert parse_qs(urlsplit(url).query)["sig"][0].encode() not in said


def test_a_command_names_one_place(vm: Vm) -> None:
    url = Secret(environment="URL")
    repository = RepositoryReference(url=vm.place.url)
    targets = (RestoreTarget(disk=0, url=url),)
    for what, words in (
        ("disk", {}),
        ("vm", {}),
        ("disk", {"to": "/x", "url": url}),
        ("vm", {"to": "/x", "targets": targets}),
        ("vm", {"url": url}),
        ("disk", {"targets": targets}),
    ):
        with pytest.raises(ValueError, match="goes to one of"):
            RestorePayload(what=what, repository=repository, point="p", **words)  # type: ignore[arg-type]
