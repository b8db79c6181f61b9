# SPDX-License-Identifier: Apache-2.0
"""Disks written to page blobs: what is sent and what is not, and every failure on the way. test_targets has what targets share."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest
from azure.storage.blob import BlobLeaseClient
from hypothesis import given
from hypothesis import strategies as st

from mover.backup import BackupSettings
from mover.disk.page_blob import MARK
from mover.disk.page_source import PageBlobSource
from mover.disk.page_target import HOLE, PageBlobTarget, filled
from mover.errors import AccessDenied, SasExpired, SourceError, StoreError, StoreUnavailable, TargetError, VerifyFailed
from mover.repository.repository import Repository
from mover.restore import Restore, RestoreResult, RestoreSettings
from mover.store import azure_pages
from mover.store.memory import MemoryStore
from tests.azure.conftest import MIB, BlobDisk, open_blob
from tests.azure.front import MOST, Front, Reply, Request, error
from tests.mover.disks import MemoryDisk, back_up, quiet
from tests.mover.store.clock import ManualClock

pytestmark = pytest.mark.azurite
RNG = random.Random(17)
SIZE = 12 * MIB


class Saved:
    """A disk in a repository."""

    def __init__(self, blocks: list[int], size: int = SIZE) -> None:
        self.disk = MemoryDisk(size)
        self.disk.fill(RNG, blocks)
        self.repository = Repository.create(MemoryStore())
        self._jobs = iter(range(100))
        self.back_up()

    def back_up(self) -> None:
        one = BackupSettings(workers=1)  # blocks are packed in their order
        done = back_up(self.repository, f"job-{next(self._jobs)}", self.disk, settings=one)
        self.point = self.repository.find_point(done.point)

    def restore(self, url: str, clock: ManualClock | None = None, **options: bool) -> tuple[RestoreResult, int]:
        """(the result, requests to the target)"""
        target = PageBlobTarget(open_blob(url, clock), self.disk.size, **options)
        try:
            job = Restore(self.repository, self.point, RestoreSettings(verify=True), quiet())
            return job.run({0: target})[0], target.blob.requests
        finally:
            target.close()


@pytest.fixture
def saved() -> Saved:
    return Saved([0, 1, 2, 3, 4, 7, 11])


def puts(front: Front) -> list[Request]:
    return [request for request in front.log if request.method == "PUT" and request.fields.get("comp") == "page"]


def is_write(request: Request) -> bool:
    return request.headers.get("x-ms-page-write") == "update"


def test_an_upload_takes_pages_of_at_most_4_mib_and_none_that_is_zero(
    saved: Saved, page_blob: BlobDisk, front: Front
) -> None:
    saved.disk.data[7 * MIB + 512 : 8 * MIB - 512] = bytes(MIB - 1024)  # a hole, within a block
    saved.back_up()
    url = page_blob.waits_for_upload(SIZE)
    saved.restore(url)
    sizes = [last - first + 1 for first, last in (request.range for request in puts(front))]
    assert all(size <= MOST for size in sizes)
    assert sum(sizes) == 6 * MIB + 1024 + 512 + 512  # what claims it, the footer
    assert len(sizes) == 7  # the claim, 0 to 4 as 4 + 1, the two ends of 7, 11, the footer
    assert front.uploaded(url, SIZE) == saved.disk.data


@given(st.lists(st.tuples(st.integers(1, 300), st.booleans()), max_size=8))
def test_holes_are_left_out_and_nothing_else(parts: list[tuple[int, bool]]) -> None:
    data = b"".join((b"\1" if full else b"\0") * 512 * pages for pages, full in parts)
    found = list(filled(data))
    rest = bytearray(data)
    for low, high in found:
        rest[low:high] = bytes(high - low)
        assert low % 512 == 0
        assert high % 512 == 0
        assert data[low]
        assert data[high - 512]
    assert not any(rest)
    assert all(later[0] - earlier[1] >= HOLE for earlier, later in itertools.pairwise(found))
    assert bytes(HOLE) not in b"|".join(data[low:high] for low, high in found)


def test_in_place_only_what_differs_is_sent(saved: Saved, page_blob: BlobDisk, front: Front) -> None:
    saved.restore(page_blob.url(name="made"))
    content = page_blob.content(name="made")
    assert content == saved.disk.data
    with page_blob.client("made") as client:
        client.upload_page(RNG.randbytes(512), 3 * MIB, 512)
        client.upload_page(RNG.randbytes(512), 9 * MIB + 1024, 512)
    front.log.clear()
    done, _ = saved.restore(page_blob.url(name="made"), in_place=True)
    sent = {(request.headers["x-ms-page-write"], request.range) for request in puts(front)}
    assert sent == {("update", (3 * MIB, 4 * MIB - 1)), ("clear", (9 * MIB, 10 * MIB - 1))}
    assert done.written == 2 * MIB
    assert page_blob.content(name="made") == content


def test_in_place_over_a_blob_of_another_size(saved: Saved, page_blob: BlobDisk) -> None:
    for size in (SIZE - 4 * MIB, SIZE + 4 * MIB):
        name = f"made-{size}"
        with page_blob.client(name) as client:
            client.create_page_blob(size)
            client.upload_page(RNG.randbytes(MIB), size - MIB, MIB)
        saved.restore(page_blob.url(name=name), in_place=True)
        assert page_blob.content(name=name) == saved.disk.data


def test_a_vhd_is_not_cut_to_a_raw_disk(saved: Saved, page_blob: BlobDisk) -> None:
    saved.restore(page_blob.url(name="made"), as_vhd=True)
    before = page_blob.content(name="made")
    with pytest.raises(TargetError, match="would be none afterwards"):
        saved.restore(page_blob.url(name="made"), in_place=True)
    saved.restore(page_blob.url(name="made"), in_place=True, as_vhd=True)
    assert page_blob.content(name="made")[:-512] == before[:-512] == saved.disk.data


# -- what fails -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply",
    [
        error(503, "ServerBusy"),
        error(503, "ServerBusy", retry_after="7"),
        error(429, "TooManyRequests", x_ms_retry_after_ms="900"),
        error(500, "OperationTimedOut"),
        error(400, "Crc64Mismatch"),
        Reply(0, cut=-1),
    ],
    ids=["busy", "retry-after", "429", "timed out", "damaged on the way", "no answer"],
)
def test_a_write_that_fails_in_passing_is_sent_again(
    saved: Saved, page_blob: BlobDisk, front: Front, reply: Reply
) -> None:
    failures = iter([reply] * 6)
    front.faults.append(lambda request, _: next(failures, None) if is_write(request) else None)
    clock = ManualClock()
    url = page_blob.waits_for_upload(SIZE)
    saved.restore(url, clock)
    assert front.uploaded(url, SIZE) == saved.disk.data
    if reply.headers.get("retry-after"):
        assert max(clock.waits) >= 7


def test_an_answer_that_is_lost_changes_nothing(saved: Saved, page_blob: BlobDisk, front: Front) -> None:
    """Each request is carried out and its answer lost, once: making the blob, its lease, pages, the footer, the mark."""
    lost: set[tuple[str, str, str]] = set()

    def loses(request: Request) -> bool:
        what = (request.method, request.fields.get("comp", ""), request.headers.get("x-ms-range", ""))
        if request.method != "PUT" or what in lost:
            return False
        lost.add(what)
        return True

    front.loses = loses
    saved.restore(page_blob.url(name="made"), as_vhd=True)
    assert {comp for _, comp, _ in lost} == {"", "lease", "page", "metadata"}
    assert page_blob.content(name="made")[:-512] == saved.disk.data


def test_what_does_not_pass_ends_the_run_and_the_next_goes_on(saved: Saved, page_blob: BlobDisk, front: Front) -> None:
    """500 for one range only, the third that is written."""
    seen: list[int] = []

    def fault(request: Request, _: Front) -> Reply | None:
        if not is_write(request):
            return None
        if request.range[0] not in seen:
            seen.append(request.range[0])
        return error(500, "InternalError") if seen.index(request.range[0]) == 2 else None

    front.faults.append(fault)
    url = page_blob.waits_for_upload(SIZE)
    with pytest.raises(StoreUnavailable):
        saved.restore(url)
    front.faults.clear()
    done, _ = saved.restore(url)
    assert done.equal > 0
    assert front.uploaded(url, SIZE) == saved.disk.data


def test_access_that_ends_ends_the_run_and_a_new_sas_goes_on(saved: Saved, page_blob: BlobDisk, front: Front) -> None:
    blob = page_blob.waits_for_upload(SIZE)
    writes = 0

    def end(request: Request, running: Front) -> Reply | None:
        nonlocal writes
        if is_write(request):
            writes += 1
            if writes == 3:
                running.revoke(blob)
        return None

    front.faults.append(end)
    with pytest.raises(SasExpired) as caught:
        saved.restore(blob)
    assert "sig=" not in str(caught.value)
    front.faults.clear()
    again = front.upload(page_blob.url(name="upload"))
    done, _ = saved.restore(again)
    assert done.equal > 0
    assert front.uploaded(again, SIZE) == saved.disk.data


def test_an_unfinished_blob_says_so_until_it_is_whole(saved: Saved, page_blob: BlobDisk, front: Front) -> None:
    front.faults.append(
        lambda request, _: error(403, "AuthorizationFailure") if is_write(request) and request.range[0] else None
    )
    url = page_blob.url(name="made")
    with pytest.raises(AccessDenied):
        saved.restore(url)
    marked = MARK.removeprefix("x-ms-meta-")
    with page_blob.client("made") as client:
        assert client.get_blob_properties().metadata == {marked: "unfinished"}
    front.faults.clear()
    saved.restore(url)
    with page_blob.client("made") as client:
        properties = client.get_blob_properties()
    assert properties.metadata == {}
    assert properties.lease.state != "leased"
    assert page_blob.content(name="made") == saved.disk.data


def test_a_lease_that_a_dead_worker_left_is_waited_for_and_a_vm_s_is_not(saved: Saved, page_blob: BlobDisk) -> None:
    with page_blob.client("made") as client:
        client.create_page_blob(SIZE, metadata={MARK.removeprefix("x-ms-meta-"): "unfinished"})
        lease = client.acquire_lease(lease_duration=60)

        class Freed(ManualClock):
            def wait(self, event: object, seconds: float) -> bool:
                if self.waits:
                    lease.break_lease(0)
                return super().wait(event, seconds)  # type: ignore[arg-type]

        saved.restore(page_blob.url(name="made"), Freed())
        assert page_blob.content(name="made") == saved.disk.data
        client.acquire_lease(lease_duration=-1)
    with pytest.raises(TargetError, match="leased without end") as caught:
        saved.restore(page_blob.url(name="made"), in_place=True)
    assert "detach" in str(caught.value)


def test_a_blob_that_another_restore_finished_meanwhile_is_only_compared(saved: Saved, page_blob: BlobDisk) -> None:
    other = Saved([5])
    with page_blob.client("made") as client:
        client.create_page_blob(SIZE, metadata={MARK.removeprefix("x-ms-meta-"): "unfinished"})
        lease = client.acquire_lease(lease_duration=60)

        class Finished(ManualClock):
            def wait(self, event: object, seconds: float) -> bool:
                client.upload_page(bytes(other.disk.data[5 * MIB : 6 * MIB]), 5 * MIB, MIB, lease=lease)
                client.set_blob_metadata({}, lease=lease)
                lease.release()
                return super().wait(event, seconds)  # type: ignore[arg-type]

        with pytest.raises(TargetError, match="exists and is not this disk"):
            saved.restore(page_blob.url(name="made"), Finished())
    assert page_blob.content(name="made") == other.disk.data


def test_a_lease_is_renewed_and_its_loss_ends_the_run(saved: Saved, page_blob: BlobDisk, front: Front) -> None:
    clock = ManualClock()
    target = PageBlobTarget(open_blob(page_blob.url(name="made"), clock), SIZE)
    for at in range(4):
        clock.advance(20)
        target.write(at * MIB, b"1" * MIB)
    renewals = [request for request in front.log if request.headers.get("x-ms-lease-action") == "renew"]
    assert len(renewals) == 4
    with page_blob.client("made") as client:
        BlobLeaseClient(client).break_lease(0)
        client.acquire_lease(lease_duration=60)
    with pytest.raises(TargetError, match="leased by another"):
        target.write(5 * MIB, b"1" * MIB)
    target.close()


def test_where_pages_are_not_listed_everything_is_compared(saved: Saved, page_blob: BlobDisk, front: Front) -> None:
    front.faults.append(
        lambda request, _: error(400, "UnsupportedHeader") if request.fields.get("comp") == "pagelist" else None
    )
    url = page_blob.waits_for_upload(SIZE)
    saved.restore(url)
    assert front.uploaded(url, SIZE) == saved.disk.data


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda blob, front: front.upload(blob.url(name="none")).replace("/md-1/", "/md-9/"), "no such upload"),
        (lambda blob, front: small_upload(blob, front), "smaller than the disk"),
        (lambda blob, front: blob.url(blob.snapshot()), "a snapshot cannot be written"),
        (lambda blob, front: block_blob(blob), "no page blob"),
    ],
    ids=["no upload", "small upload", "snapshot", "block blob"],
)
def test_what_cannot_be_a_target_is_refused_before_a_byte_is_sent(
    saved: Saved, page_blob: BlobDisk, front: Front, make: Callable[[BlobDisk, Front], str], what: str
) -> None:
    url = make(page_blob, front)
    with pytest.raises(TargetError, match=what) as caught:
        saved.restore(url)
    assert "sig" not in str(caught.value)
    assert not puts(front)


def small_upload(blob: BlobDisk, front: Front) -> str:
    with blob.client("small") as client:
        client.create_page_blob(SIZE)
    return front.upload(blob.url(name="small"))


def block_blob(blob: BlobDisk) -> str:
    with blob.client("blocks") as client:
        client.upload_blob(b"not pages")
    return blob.url(name="blocks")


@pytest.mark.parametrize("unlisted", [False, True])
def test_what_an_earlier_restore_left_in_an_upload_is_gone(page_blob: BlobDisk, front: Front, unlisted: bool) -> None:
    """Its footer before the first byte is written: half of one disk and half of another are none. And what lies behind."""
    first, second = Saved(list(range(20)), 20 * MIB), Saved([0, 1, 2, 3, 4, 7, 11])
    url = page_blob.waits_for_upload(20 * MIB)
    first.restore(url)
    if unlisted:
        front.faults.append(
            lambda request, _: error(403, "AuthorizationFailure") if request.fields.get("comp") == "pagelist" else None
        )
    front.faults.append(lambda request, _: error(400, "InvalidHeaderValue") if is_write(request) else None)
    with pytest.raises(StoreError):
        second.restore(url)
    assert page_blob.content(name="upload")[12 * MIB :] == bytes(8 * MIB + 512)
    front.faults.clear()
    second.restore(url)
    assert front.uploaded(url, SIZE) == second.disk.data


def test_a_blob_is_marked_while_it_is_written_in_place_and_keeps_what_is_said_of_it(
    saved: Saved, page_blob: BlobDisk, front: Front
) -> None:
    saved.restore(page_blob.url(name="made"), as_vhd=True)
    with page_blob.client("made") as client:
        client.set_blob_metadata({"owner": "me"})
        other = Saved([1, 2, 3])
        front.faults.append(lambda request, _: error(400, "InvalidHeaderValue") if is_write(request) else None)
        with pytest.raises(StoreError):
            other.restore(page_blob.url(name="made"), in_place=True, as_vhd=True)
        front.faults.clear()
        assert client.get_blob_properties().metadata == {"owner": "me", MARK.removeprefix("x-ms-meta-"): "unfinished"}
        with pytest.raises(SourceError, match="has not finished"):
            PageBlobSource(open_blob(page_blob.url(name="made")))
        other.restore(page_blob.url(name="made"), in_place=True, as_vhd=True)
        assert client.get_blob_properties().metadata == {"owner": "me"}
    assert page_blob.content(name="made")[:-512] == other.disk.data


def test_in_place_the_blob_is_looked_at_once_nobody_else_writes_it(saved: Saved, page_blob: BlobDisk) -> None:
    with page_blob.client("made") as client:
        client.create_page_blob(SIZE)
        lease = client.acquire_lease(lease_duration=60)

        class Grown(ManualClock):
            def wait(self, event: object, seconds: float) -> bool:
                if not self.waits:
                    client.resize_blob(16 * MIB, lease=lease)
                    client.upload_page(b"1" * MIB, 15 * MIB, MIB, lease=lease)
                    lease.release()
                return super().wait(event, seconds)  # type: ignore[arg-type]

        saved.restore(page_blob.url(name="made"), Grown(), in_place=True)
    assert page_blob.content(name="made") == saved.disk.data


@pytest.mark.parametrize("refusal", [error(403, "AuthorizationFailure"), error(409, "LeaseAlreadyPresent")])
def test_an_upload_that_may_not_be_leased_is_written_without(
    saved: Saved, page_blob: BlobDisk, front: Front, refusal: Reply
) -> None:
    """By an answer of the service, or since the service itself holds its blob."""
    url = page_blob.waits_for_upload(SIZE)
    there = {"x-ms-blob-type": "PageBlob", "content-length": str(20 * MIB + 512), "x-ms-lease-duration": "infinite"}
    front.faults.append(lambda request, _: refusal if request.fields.get("comp") == "lease" else None)
    front.faults.append(lambda request, _: Reply(200, there) if request.method == "HEAD" else None)
    saved.restore(url)
    front.faults.clear()
    assert front.uploaded(url, SIZE) == saved.disk.data


def unleased(request: Request, _: Front) -> Reply | None:
    return error(403, "AuthorizationPermissionMismatch") if request.fields.get("comp") == "lease" else None


def test_where_nothing_can_be_leased_the_restore_that_came_last_has_the_upload(
    saved: Saved, page_blob: BlobDisk, front: Front
) -> None:
    url, clock = page_blob.waits_for_upload(SIZE), ManualClock()
    front.faults.append(unleased)
    first = PageBlobTarget(open_blob(url, clock), SIZE)
    second = Saved([1, 5])
    done, _ = second.restore(url)
    assert done.verified == SIZE
    with pytest.raises(TargetError, match="another restore writes the target"):
        first.finish(0.0)
    clock.advance(16)
    with pytest.raises(TargetError, match="another restore writes the target"):
        first.write(0, b"1" * MIB)
    first.close()
    assert front.uploaded(url, SIZE) == second.disk.data


def test_what_another_wrote_into_an_upload_that_cannot_be_leased_is_found(
    saved: Saved, page_blob: BlobDisk, front: Front
) -> None:
    url = page_blob.waits_for_upload(SIZE)
    front.faults.append(unleased)
    late = PageBlobTarget(open_blob(url), SIZE)

    def writes_too(request: Request, _: Front) -> Reply | None:
        if is_write(request) and request.range[0] == 11 * MIB:
            late.blob.pages.write(late.blob.name, 8 * MIB, b"x" * MIB)
        return None

    front.faults.append(writes_too)
    with pytest.raises(VerifyFailed):
        saved.restore(url)
    late.close()
    with pytest.raises(ValueError, match="no footer"):
        front.uploaded(url, SIZE)


def test_what_appears_behind_an_uploaded_disk_is_found(saved: Saved, page_blob: BlobDisk, front: Front) -> None:
    url = page_blob.waits_for_upload(SIZE)

    def behind(request: Request, _: Front) -> Reply | None:
        if is_write(request) and request.range[0] == 11 * MIB:
            with page_blob.client("upload") as client:
                client.upload_page(b"x" * 512, 15 * MIB, 512)
        return None

    front.faults.append(behind)
    with pytest.raises(VerifyFailed, match="behind the disk"):
        saved.restore(url)


@pytest.mark.parametrize("duration", ["", "fixed"])
def test_an_upload_that_is_leased_is_another_restore_s_only_for_a_time(
    saved: Saved, page_blob: BlobDisk, front: Front, duration: str
) -> None:
    """Azure's own lease has no end, and whether its host tells that is not known."""
    url = page_blob.waits_for_upload(SIZE)
    there = {"x-ms-blob-type": "PageBlob", "content-length": str(20 * MIB + 512), "x-ms-lease-duration": duration}
    leased = error(409, "LeaseAlreadyPresent")
    front.faults.append(lambda request, _: leased if request.fields.get("comp") == "lease" else None)
    front.faults.append(lambda request, _: Reply(200, there) if request.method == "HEAD" else None)
    if duration:
        with pytest.raises(TargetError, match="another restore writes the target"):
            saved.restore(url)
        assert not puts(front)
    else:
        saved.restore(url)
        front.faults.clear()
        assert front.uploaded(url, SIZE) == saved.disk.data


@pytest.mark.parametrize("reply", [Reply(200, {}, b"<html/>"), Reply(200, {"x-ms-request-id": "1"}), Reply(201)])
def test_a_proxy_s_answer_to_a_write_is_none(saved: Saved, page_blob: BlobDisk, front: Front, reply: Reply) -> None:
    front.faults.append(lambda request, _: reply if is_write(request) else None)
    with pytest.raises(StoreError, match="not the service's"):
        saved.restore(page_blob.url(name="made"))
    with page_blob.client("made") as client:
        assert MARK.removeprefix("x-ms-meta-") in client.get_blob_properties().metadata


def test_what_is_said_of_a_blob_outlives_a_restore_that_failed_in_its_owner_s_spelling(
    saved: Saved, page_blob: BlobDisk, front: Front
) -> None:
    saved.restore(page_blob.url(name="made"))
    other = Saved([1, 2, 3])
    with page_blob.client("made") as client:
        client.set_blob_metadata({"Owner": "me"})
        front.faults.append(lambda request, _: error(400, "InvalidHeaderValue") if is_write(request) else None)
        with pytest.raises(StoreError):
            other.restore(page_blob.url(name="made"), in_place=True)
        front.faults.clear()
        other.restore(page_blob.url(name="made"))
        assert client.get_blob_properties().metadata == {"Owner": "me"}
    assert page_blob.content(name="made") == other.disk.data


def test_a_disk_that_is_written_while_it_is_compared_is_noticed(
    saved: Saved, page_blob: BlobDisk, front: Front
) -> None:
    saved.restore(page_blob.url(name="made"))

    def written(request: Request, _: Front) -> Reply | None:
        if request.method == "GET" and request.range[0] == 11 * MIB:
            with page_blob.client("made") as client:
                client.upload_page(b"x" * 512, 0, 512)
        return None

    front.faults.append(written)
    with pytest.raises(TargetError, match="written while it was compared"):
        saved.restore(page_blob.url(name="made"))


def test_a_finished_blob_is_compared_without_a_lease(saved: Saved, page_blob: BlobDisk) -> None:
    with page_blob.client("made") as client:
        client.create_page_blob(SIZE, metadata={MARK.removeprefix("x-ms-meta-"): "unfinished"})
        lease = client.acquire_lease(lease_duration=60)

        class Finished(ManualClock):
            def wait(self, event: object, seconds: float) -> bool:
                client.set_blob_metadata({}, lease=lease)
                lease.release()
                return super().wait(event, seconds)  # type: ignore[arg-type]

        target = PageBlobTarget(open_blob(page_blob.url(name="made"), Finished()), SIZE)
        assert target.existed
        assert client.get_blob_properties().lease.state == "available"
        target.close()


def test_pages_that_may_not_be_listed_are_no_reason_to_write(saved: Saved, page_blob: BlobDisk, front: Front) -> None:
    denied = error(403, "AuthorizationFailure")
    front.faults.append(lambda request, _: denied if request.fields.get("comp") == "pagelist" else None)
    with pytest.raises(AccessDenied):
        saved.restore(page_blob.url(name="made"))
    assert not puts(front)


def test_a_lease_is_renewed_before_each_attempt(saved: Saved, page_blob: BlobDisk, front: Front) -> None:
    """A store that is busy for longer than a lease lasts."""
    clock = ManualClock()
    asked: list[str] = []

    def busy(request: Request, _: Front) -> Reply | None:
        asked.append(request.headers.get("x-ms-lease-action") or request.headers.get("x-ms-page-write", ""))
        return error(503, "ServerBusy", retry_after="30") if is_write(request) and asked.count("update") <= 3 else None

    front.faults.append(busy)
    target = PageBlobTarget(open_blob(page_blob.url(name="made"), clock), SIZE)
    asked.clear()
    target.write(0, b"1" * MIB)
    assert asked == ["update", "renew", "update", "renew", "update", "renew", "update"]
    target.close()


def test_a_blob_larger_than_azure_s_is_refused(page_blob: BlobDisk, front: Front) -> None:
    with pytest.raises(TargetError, match="larger than a page blob can be"):
        PageBlobTarget(open_blob(page_blob.url(name="made")), (8 << 40) + 512)
    with pytest.raises(TargetError, match="larger than a page blob can be"):
        PageBlobTarget(open_blob(page_blob.url(name="made")), 8 << 40, as_vhd=True)
    assert not front.log


@pytest.mark.parametrize("code", ["UnsupportedHeader", "InvalidHeaderValue"])
def test_a_host_that_knows_neither_crc_64_nor_clears_is_written_all_the_same(
    saved: Saved, page_blob: BlobDisk, front: Front, code: str
) -> None:
    url = page_blob.waits_for_upload(SIZE)
    with page_blob.client("upload") as client:
        client.upload_page(b"x" * 512, 14 * MIB, 512)  # behind the disk

    def refused(request: Request, _: Front) -> Reply | None:
        newer = "x-ms-content-crc64" in request.headers or request.headers.get("x-ms-page-write") == "clear"
        return error(400, code) if newer else None

    front.faults.append(refused)
    saved.restore(url)
    assert any("content-md5" in request.headers for request in puts(front))
    front.faults.clear()
    assert front.uploaded(url, SIZE) == saved.disk.data


def test_the_service_checks_what_it_is_sent(page_blob: BlobDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that was damaged on its way is refused, by either checksum."""
    for crc64 in (azure_pages._crc64, None):
        monkeypatch.setattr(azure_pages, "_crc64", crc64)
        target = PageBlobTarget(open_blob(page_blob.url(name=f"made-{crc64 is None}")), SIZE)
        target.write(0, b"1" * MIB)
        true = azure_pages.checksum
        monkeypatch.setattr(azure_pages, "checksum", lambda data, true=true, **how: true(data[:-1] + b"2", **how))
        with pytest.raises(StoreUnavailable, match="damaged on its way"):
            target.write(MIB, b"1" * MIB)
        monkeypatch.setattr(azure_pages, "checksum", true)
        target.close()
