# SPDX-License-Identifier: Apache-2.0
"""Disks that are page blobs: what is read of them, what changed, and every failure on the way."""

from __future__ import annotations

import itertools
import random
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.protocol import BackupPayload, Disk, PreviousSnapshot, RepositoryReference, Result, Secret, encode
from mover.backup import BackupSettings
from mover.disk import page_ranges as page_ranges_module
from mover.disk import vhd
from mover.disk.changes import Changes
from mover.disk.page_blob import PageBlob
from mover.disk.page_source import MOST_RANGES, PageBlobSource
from mover.errors import Cancelled, SasExpired, SourceChanged, SourceError, StoreError, StoreUnavailable
from mover.repository.repository import Repository
from mover.store.memory import MemoryStore
from mover.store.patience import Patience
from tests.agent.conftest import Place
from tests.agent.rig import Rig
from tests.azure.conftest import MIB, BlobDisk, open_blob
from tests.azure.front import NOTHING_CHANGED, Fault, Front, Reply, Request, error
from tests.mover.disks import back_up, checkpointed, restore
from tests.mover.store.clock import ManualClock

pytestmark = pytest.mark.azurite
RNG = random.Random(5)


def read(source: PageBlobSource) -> bytes:
    data = bytearray(source.size)
    for start, length in source.extents():
        part = bytearray(length)
        source.read_into(start, [part])
        data[start : start + length] = part
    return bytes(data)


def test_only_pages_with_data_are_read(page_blob: BlobDisk, front: Front) -> None:
    page_blob.write(0, RNG.randbytes(MIB))
    page_blob.write(5 * MIB + 512, RNG.randbytes(3 * 512))
    page_blob.write(11 * MIB, RNG.randbytes(MIB))
    source = PageBlobSource(open_blob(page_blob.url()))
    assert list(source.extents()) == [(0, MIB), (5 * MIB + 512, 3 * 512), (11 * MIB, MIB)]
    assert read(source) == page_blob.content()
    assert source.size == 12 * MIB
    source.close()


@pytest.mark.parametrize("most", [MOST_RANGES, 3])
def test_of_a_fragmented_disk_its_data_is_read_and_little_else(page_blob: BlobDisk, front: Front, most: int) -> None:
    """Up to a bound of ranges that are remembered; beyond, whole blocks are read."""
    for at in range(0, 12, 2):
        page_blob.write(at * MIB + 1024, RNG.randbytes(512))
        page_blob.write(at * MIB + 8192, RNG.randbytes(512))
    source = PageBlobSource(open_blob(page_blob.url()), most_ranges=most)
    list(source.extents())
    front.log.clear()
    data = [bytearray(b"x" * MIB) for _ in range(8)]
    source.read_into(MIB, data)
    assert b"".join(data) == page_blob.content()[MIB : 9 * MIB]
    read = sum(last + 1 - first for first, last in (request.range for request in front.log))
    assert read == (4 * (8192 - 1024 + 512) if most > 3 else 8 * MIB)
    source.close()


@pytest.mark.parametrize("exported", [False, True])
def test_full_and_incrementals_restore_byte_for_byte(
    page_blob: BlobDisk, front: Front, tmp_path: Path, exported: bool
) -> None:
    repository = Repository.create(MemoryStore())
    front.results = 60
    states, points = [], []
    previous = previous_url = ""
    for turn in range(5):
        for _ in range(20):
            page_blob.write(RNG.randrange(12 * MIB // 512 - 16) * 512, RNG.randbytes(512 * RNG.randrange(1, 16)))
        if turn:
            page_blob.clear(turn * MIB, MIB)
            page_blob.clear(RNG.randrange(8 * 2048) * 512, 512 * 5)
        taken = page_blob.snapshot()
        url = front.export(page_blob.url(taken)) if exported else page_blob.url(taken)
        source = PageBlobSource(open_blob(url), name="os", identity="disk-1", snapshot=taken)
        changes: dict[str, Changes] = {}
        if previous:
            front.log.clear()
            changes[source.identity] = source.changes_since(previous_url, previous)
            asked = next(request for request in front.log if request.is_diff)
            named = asked.headers.get("x-ms-previous-snapshot-url") if exported else asked.fields.get("prevsnapshot")
            assert named == (previous_url if exported else previous)
        done = back_up(repository, f"job-{turn}", source, changes=changes)
        if previous:
            assert not done.notes
            assert done.statistics.skipped > 0
        source.close()
        states.append(page_blob.content(taken))
        points.append(done.point)
        previous, previous_url = taken, url
    for number, (point, state) in enumerate(zip(points, states, strict=True)):
        restore(repository, point, str(tmp_path / str(number)))
        assert (tmp_path / str(number)).read_bytes() == state


# -- what is distrusted ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong", ["base", "identity", "lying map", "resized", "no such snapshot", "refused", "nameless"]
)
def test_a_diff_that_cannot_be_believed_means_that_everything_is_read(
    place: Place, page_blob: BlobDisk, front: Front, wrong: str
) -> None:
    """A lying service, another disk, another base: the point restores byte for byte all the same, and says why it took longer."""
    place.repo()
    page_blob.write(0, RNG.randbytes(12 * MIB))
    first = page_blob.snapshot()
    back_up_blob(place, page_blob, front, first, identity="disk-1")
    page_blob.write(3 * MIB, RNG.randbytes(MIB))
    if wrong == "resized":
        page_blob.resize(14 * MIB)
        page_blob.write(13 * MIB, RNG.randbytes(MIB))
    second = page_blob.snapshot()
    if wrong == "lying map":
        page_blob.write(0, RNG.randbytes(12 * MIB))
        second = page_blob.snapshot()
        front.faults.append(lambda request, _: NOTHING_CHANGED if request.is_diff else None)
    if wrong == "refused":
        front.faults.append(lambda request, _: error(409, "BlobOverwriteMode") if request.is_diff else None)
    said = back_up_blob(
        place,
        page_blob,
        front,
        second,
        previous=first,
        identity="disk-2" if wrong == "identity" else "disk-1",
        base={"base": "another", "nameless": None}.get(wrong, first),
        gone=wrong == "no such snapshot",
    )
    assert any("everything is read" in note for note in said["notes"]), said["notes"]
    to = place.folder / "restored"
    place.dm("restore", "--point", place.point(), "--to", to)
    assert to.read_bytes() == page_blob.content(second)


def back_up_blob(
    place: Place,
    blob: BlobDisk,
    front: Front,
    snapshot: str,
    *,
    previous: str = "",
    identity: str = "disk-1",
    base: str | None = "",
    gone: bool = False,
    code: int = 0,
) -> dict[str, Any]:
    """By the command line, of an exported snapshot; the URLs are in files."""
    urls = place.folder / "url", place.folder / "previous"
    urls[0].write_text(front.export(blob.url(snapshot)))
    words: list[object] = ["--disk", f"os=@{urls[0]}", "--disk-identity", identity]
    if base is not None:
        words += ["--snapshot-id", snapshot]
    if previous:
        urls[1].write_text(front.export(blob.url(previous)))
        if gone:
            urls[1].write_text(urls[1].read_text().replace("md-", "md-9"))
        words += ["--previous-snapshot", f"@{urls[1]}"]
        if base is not None:
            words += ["--previous-snapshot-id", base or previous]
    said = place.dm("backup", "--resource", "vm1", *words, "--json", code=code)
    for url in urls:
        if url.exists():
            sig = url.read_text().rpartition("sig=")[2]
            assert sig not in said.out + said.err
    document: dict[str, Any] = said.document
    return document


def test_by_the_command_line_an_incremental_reads_what_changed(place: Place, page_blob: BlobDisk, front: Front) -> None:
    place.repo()
    page_blob.write(0, RNG.randbytes(12 * MIB))
    first = page_blob.snapshot()
    back_up_blob(place, page_blob, front, first)
    page_blob.write(7 * MIB + 512, RNG.randbytes(512))
    second = page_blob.snapshot()
    said = back_up_blob(place, page_blob, front, second, previous=first)
    assert said["notes"] == []
    assert said["statistics"]["new"] == MIB
    assert said["statistics"]["skipped"] > 0
    to = place.folder / "restored"
    place.dm("restore", "--point", place.point(), "--to", to)
    assert to.read_bytes() == page_blob.content(second)


# -- failures on the way --------------------------------------------------------------------------------------------


def opened(blob: BlobDisk) -> PageBlobSource:
    return PageBlobSource(open_blob(blob.url()))


def once(reply: Reply, when: Callable[[Request], bool] = lambda request: request.method == "GET") -> Fault:
    left = iter([1])
    return lambda request, front: reply if when(request) and next(left, 0) else None


@pytest.mark.parametrize(
    "reply",
    [
        error(503, "ServerBusy"),
        error(429, "TooManyRequests", retry_after="7"),
        error(500, "OperationTimedOut"),
        error(500, "InternalError"),
        Reply(206, {"content-range": f"bytes 0-{MIB - 1}/{12 * MIB}"}, bytes(MIB), cut=1000),
    ],
    ids=["busy", "throttled", "timed out", "failed", "cut"],
)
def test_what_passes_is_ridden_out(page_blob: BlobDisk, front: Front, reply: Reply) -> None:
    page_blob.write(0, RNG.randbytes(MIB))
    source = opened(page_blob)
    front.faults.append(once(reply, lambda request: request.headers.get("range", "").startswith("bytes=0-1048575")))
    front.faults.append(once(reply, lambda request: request.fields.get("comp") == "pagelist"))
    assert read(source) == page_blob.content()
    source.close()


def test_a_piece_that_takes_the_service_too_long_is_halved(
    page_blob: BlobDisk, front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_ranges_module, "LEAST_PIECE", MIB)
    for at in range(12):
        page_blob.write(at * MIB + 512, RNG.randbytes(512))

    def slow(request: Request, front: Front) -> Reply | None:
        low, high = request.range
        too_much = request.fields.get("comp") == "pagelist" and high - low > 2 * MIB
        return error(500, "OperationTimedOut") if too_much else None

    front.faults.append(slow)
    front.results = 2
    source = opened(page_blob)
    assert sorted(set(source.extents())) == [(at * MIB + 512, 512) for at in range(12)]
    source.close()


def test_a_store_that_is_busy_for_a_minute_is_waited_for(page_blob: BlobDisk, front: Front) -> None:
    """Nothing but 503 for a minute of the clock, in the midst of reading."""
    page_blob.write(0, RNG.randbytes(12 * MIB))
    clock = ManualClock()
    reads = itertools.count()
    ends: list[float] = []

    def busy(request: Request, _: Front) -> Reply | None:
        if not ends and next(reads) == 4:
            ends.append(clock.monotonic() + 60)
        return error(503, "ServerBusy") if ends and clock.monotonic() < ends[0] else None

    front.faults.append(busy)
    source = PageBlobSource(open_blob(page_blob.url(), clock))
    assert read(source) == page_blob.content()
    assert sum(clock.waits) >= 60
    source.close()


@pytest.mark.parametrize(
    "reply",
    [
        Reply(206, {"content-range": f"bytes 0-{MIB - 1}/{12 * MIB}"}, b"x" * (MIB // 2)),
        Reply(206, {"content-range": f"bytes 0-{MIB - 1}/{12 * MIB}"}, b"x" * MIB, cut=MIB - 1),
        Reply(0, cut=-1),
    ],
    ids=["short body", "cut at its last byte", "no answer"],
)
def test_half_an_answer_is_none(page_blob: BlobDisk, front: Front, reply: Reply) -> None:
    page_blob.write(0, RNG.randbytes(MIB))
    source = opened(page_blob)
    failures = iter([reply] * 3)
    front.faults.append(lambda request, _: next(failures, None))
    data = bytearray(MIB)
    source.read_into(0, [data])
    assert data == page_blob.content()[:MIB]
    assert next(failures, None) is None
    source.close()


def test_a_slow_drip_is_read_to_its_end(page_blob: BlobDisk, front: Front) -> None:
    content = RNG.randbytes(MIB)
    page_blob.write(0, content)
    source = opened(page_blob)
    front.faults.append(once(Reply(206, {"content-range": f"bytes 0-{MIB - 1}/{12 * MIB}"}, content, drip=0.02)))
    before, data = len(front.log), bytearray(MIB)
    source.read_into(0, [data])
    assert data == content
    assert len(front.log) == before + 1  # and it was not asked twice
    source.close()


def test_a_range_that_the_service_cannot_give_ends_the_run_and_the_next_goes_on(
    page_blob: BlobDisk, front: Front, tmp_path: Path
) -> None:
    for at in range(12):
        page_blob.write(at * MIB, RNG.randbytes(MIB - 512))
    repository = Repository.create(MemoryStore())
    front.faults.append(
        lambda request, _: (
            error(500, "InternalError")
            if is_range(request) and request.range[0] <= 7 * MIB < request.range[1]
            else None
        )
    )
    for ending in (True, False):
        source = opened(page_blob)
        if ending:
            with pytest.raises(StoreUnavailable):
                back_up(repository, "job", source)
        else:
            front.faults.clear()
            done = back_up(repository, "job", source)
        source.close()
    assert done.resumed
    restore(repository, done.point, str(tmp_path / "restored"))
    assert (tmp_path / "restored").read_bytes() == page_blob.content()


@pytest.mark.parametrize("number", range(10))
def test_a_sas_that_ends_ends_the_run_and_the_next_one_goes_on(
    place: Place, page_blob: BlobDisk, front: Front, number: int
) -> None:
    """At any request: the run has an error of its own, and the same job with a new SAS ends as if nothing had been."""
    place.repo()
    for at in range(12):
        page_blob.write(at * MIB, RNG.randbytes(MIB - 512))
    taken = page_blob.snapshot()
    url = place.folder / "url"
    url.write_text(front.export(page_blob.url(taken)))
    before = len(front.log)
    place.dm("backup", "--resource", "other", "--disk", f"os=@{url}")
    after = random.Random(number).randrange(len(front.log) - before)
    export = front.export(page_blob.url(taken))
    url.write_text(export)
    requests = itertools.count()

    def ends(request: Request, running: Front) -> Reply | None:
        if next(requests) >= after:
            running.revoke(export)
        return None

    front.faults.append(ends)
    words = ("backup", "--resource", "vm1", "--disk", f"os=@{url}", "--job", "j1")
    said = place.dm(*words, "--json", code=3)
    assert said.document["error"]["type"] == ("SasExpired" if after else "AccessDenied")
    assert "sig=" not in said.out + said.err
    front.faults.clear()
    url.write_text(front.export(page_blob.url(taken)))
    place.dm(*words)
    to = place.folder / "restored"
    place.dm("restore", "--point", place.point(), "--to", to)
    assert to.read_bytes() == page_blob.content(taken)


def test_a_sas_whose_time_is_over_says_so(page_blob: BlobDisk) -> None:
    with pytest.raises(SasExpired, match="expired at"):
        PageBlobSource(open_blob(page_blob.url_with("r", hours=-1)))


def test_a_wrong_range_or_a_proxy_s_page_is_no_disk(page_blob: BlobDisk, front: Front) -> None:
    page_blob.write(0, RNG.randbytes(MIB))
    source = opened(page_blob)
    front.faults.append(once(Reply(206, {"content-range": f"bytes 512-{MIB + 511}/{12 * MIB}"}, bytes(MIB)), is_range))
    with pytest.raises(StoreError, match="not the range"):
        source.read_into(0, [bytearray(MIB)])
    for body in (b"<html/>", b"<PageList><PageRange><Start>x</Start></PageRange></PageList>", b"<PageList>"):
        front.faults[:] = [once(Reply(200, {}, body))]
        with pytest.raises(StoreError, match="not a list of page ranges"):
            list(source.extents())
    source.close()


def is_range(request: Request) -> bool:
    return "range" in request.headers


def test_a_blob_that_changes_while_it_is_read_is_noticed(page_blob: BlobDisk) -> None:
    source = opened(page_blob)
    page_blob.write(0, RNG.randbytes(512))
    with pytest.raises(SourceChanged):
        source.read_into(0, [bytearray(512)])
    with pytest.raises(SourceChanged):
        source.check_unchanged()
    source.close()


def test_a_blob_that_changes_while_its_pages_are_listed_is_noticed(page_blob: BlobDisk, front: Front) -> None:
    for at in range(12):
        page_blob.write(at * MIB, RNG.randbytes(512))
    front.results = 4

    def changed(request: Request, _: Front) -> Reply | None:
        if request.fields.get("marker"):
            page_blob.write(0, RNG.randbytes(512))
        return None

    source = opened(page_blob)
    front.faults.append(changed)
    with pytest.raises(SourceChanged):
        list(source.extents())
    source.close()


def test_a_long_list_can_be_cancelled(page_blob: BlobDisk, front: Front) -> None:
    for at in range(12):
        page_blob.write(at * MIB, RNG.randbytes(512))
    front.results = 2
    cancel = threading.Event()

    def cancelled(request: Request, _: Front) -> Reply | None:
        if request.fields.get("marker"):
            cancel.set()
        return None

    clock = ManualClock()
    source = PageBlobSource(PageBlob(page_blob.url(), clock=clock, patience=Patience(clock, cancel=cancel)))
    front.faults.append(cancelled)
    front.log.clear()
    with pytest.raises(Cancelled):
        list(source.extents())
    assert len(front.log) == 2
    source.close()


def test_another_export_of_the_same_state_is_gone_on_with(page_blob: BlobDisk, front: Front, tmp_path: Path) -> None:
    """Its ETag may be another; that it is the same state is the issuer's word."""
    page_blob.write(0, RNG.randbytes(4 * MIB))
    page_blob.write(8 * MIB, RNG.randbytes(4 * MIB))
    with page_blob.client("twin") as client:
        client.create_page_blob(12 * MIB)
        for at in range(0, 12 * MIB, 4 * MIB):
            client.upload_page(page_blob.content()[at : at + 4 * MIB], at, 4 * MIB)
    repository = Repository.create(MemoryStore())
    every = BackupSettings(workers=1, checkpoint_seconds=0.0)

    def export(name: str) -> PageBlobSource:
        url = front.export(page_blob.url(name=name))
        return PageBlobSource(open_blob(url), name="os", identity="disk-1", snapshot="s1")

    def ends(request: Request, _: Front) -> Reply | None:
        if not (is_range(request) and request.range[0] >= 8 * MIB):
            return None
        while not checkpointed(repository, 8):
            threading.Event().wait(0.01)
        return error(404, "BlobNotFound")

    first = export("disk.vhd")
    front.faults.append(ends)
    with pytest.raises(SasExpired):
        back_up(repository, "job", first, settings=every)
    first.close()
    front.faults.clear()
    front.log.clear()
    second = export("twin")
    done = back_up(repository, "job", second, settings=every)
    second.close()
    assert done.resumed
    assert not [request.range for request in front.log if is_range(request) and 512 <= request.range[0] < 8 * MIB]
    restore(repository, done.point, str(tmp_path / "restored"))
    assert (tmp_path / "restored").read_bytes() == page_blob.content()


def test_a_vhd_s_footer_is_no_part_of_the_disk_and_a_vhdx_is_refused(page_blob: BlobDisk) -> None:
    page_blob.write(12 * MIB - 512, vhd.make_footer(12 * MIB - 512, uuid.uuid4(), 0.0))
    source = opened(page_blob)
    assert (source.size, source.is_vhd) == (12 * MIB - 512, True)
    assert all(start + length <= source.size for start, length in source.extents())
    source.close()
    page_blob.write(0, b"vhdxfile".ljust(512, b"\0"))
    with pytest.raises(SourceError, match="VHDX"):
        opened(page_blob)


def test_a_url_in_an_argument_is_refused_without_being_shown(place: Place) -> None:
    place.repo()
    for words in (
        ("--disk", "os=https://md-1.blob.core.windows.net/a/b?sig=SECRETSIG"),
        ("--disk", "os=@x", "--previous-snapshot", "https://md-1.blob.core.windows.net/a/b?sig=SECRETSIG"),
    ):
        said = place.dm("backup", "--resource", "vm1", *words, code=2)
        assert "SECRETSIG" not in said.out + said.err
        assert "@FILE" in said.error[2]


def test_by_a_worker_with_sealed_urls(place: Place, strict: Rig, page_blob: BlobDisk, front: Front) -> None:
    """The SAS travels sealed, and stands in no record, no event and no log."""
    page_blob.write(0, RNG.randbytes(12 * MIB))
    urls: list[str] = []
    for turn in range(2):
        page_blob.write(turn * MIB, RNG.randbytes(MIB))
        urls.append(front.export(page_blob.url(page_blob.snapshot())))
        previous = PreviousSnapshot(url=Secret(clear=urls[0]), snapshot="s0") if turn else None
        disk = Disk(url=Secret(clear=urls[turn]), name="os", identity="disk-1", snapshot=f"s{turn}", previous=previous)
        repository = RepositoryReference(url=place.url, password=Secret(file=str(place.password_file)))
        payload = BackupPayload(what="disk", repository=repository, resource="vm1", disks=(disk,))
        strict.appliance.issue("backup", payload, job=f"b{turn}")
        assert strict.worker().serve("w", once=True) == 0
    events = strict.events()
    done = [event for event in events if isinstance(event, Result)]
    assert [result.status for result in done] == ["success", "success"]
    assert done[1].statistics["new"] == MIB
    said = b"".join(encode(event) for event in events)
    said += b"".join(strict.state.read_record(entry.name).data for entry in strict.state.list("jobs/"))
    said += repr(strict.logs).encode()
    for url in urls:
        assert url.rpartition("sig=")[2].encode() not in said
