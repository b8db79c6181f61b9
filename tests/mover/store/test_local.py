# SPDX-License-Identifier: Apache-2.0
"""The local store passes the suite; and what only it can do wrong: crashes, processes, disks that fail or vanish."""

from __future__ import annotations

import errno
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from mover.errors import AccessDenied, LeaseLost, ObjectNotFound, StoreError, StoreFull, UsageError
from mover.store.local import LocalStore
from mover.store.local_mount import refuse_network
from mover.store.local_open_files import OpenFiles
from tests.mover.store.clock import ManualClock
from tests.mover.store.conformance import Conformance, LapsedLeases, Place, names, read


@pytest.fixture(scope="class")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    clock, root, opened = ManualClock(), tmp_path_factory.mktemp("local") / "made" / "by-the-store", []

    def open_store() -> LocalStore:
        opened.append(LocalStore(root, clock))
        return opened[-1]

    yield Place(open_store, clock.pass_until)
    for store in opened:
        store.close()


class TestLocal(Conformance):
    pass


class TestLocalLapsedLeases(LapsedLeases):
    pass


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    store = LocalStore(tmp_path / "store")
    yield store
    store.close()


def files(root: Path) -> list[str]:
    return sorted(
        str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and ".locks" not in path.parts
    )


# -- what is on the disk


def test_objects_are_plain_files_and_records_have_a_first_line(store: LocalStore, tmp_path: Path) -> None:
    store.put("packs/s/1", [b"content", b" of a pack"])
    store.create_record("points/r/p", b'{"people": "can read"}\n', {"state": "open"})
    root = tmp_path / "store"
    assert files(root) == ["packs/s/1", "points/r/p"]
    assert (root / "packs/s/1").read_bytes() == b"content of a pack"
    first, content = (root / "points/r/p").read_bytes().split(b"\n", 1)
    assert first.startswith(b"DMREC1 {")
    assert json.loads(first[7:])["metadata"] == {"state": "open"}
    assert content == b'{"people": "can read"}\n'


@pytest.mark.parametrize(
    "content", [b'DMREC1 {"etag": "x", "metadata": {}}\ncontent', b"DMREC1 {", b"DMREC1 {\n\n", b"DMREC1"]
)
def test_an_object_that_looks_like_a_record_reads_back(store: LocalStore, content: bytes) -> None:
    store.put("a", [content[:3], content[3:]])
    assert read(store, "a") == content
    assert [(entry.size, dict(entry.metadata)) for entry in store.list("")] == [(len(content), {})]


def test_a_copy_without_the_folders_that_begin_with_a_dot_is_whole(tmp_path: Path, store: LocalStore) -> None:
    store.put("packs/1", [b"pack"])
    etag = store.create_record("points/1", b"point", {"a": "b"}).etag
    (tmp_path / "copy").mkdir()
    for name in ("packs", "points"):
        (tmp_path / "store" / name).rename(tmp_path / "copy" / name)
    copy = LocalStore(tmp_path / "copy")
    assert names(copy, "") == ["packs/1", "points/1"]
    copy.replace_record("points/1", b"new", {}, etag=etag, lease=copy.acquire_lease("points/1", 15))
    assert read(copy, "points/1") == b"new"
    copy.close()


def test_reading_makes_nothing(tmp_path: Path) -> None:
    absent = LocalStore(tmp_path / "absent")
    assert names(absent, "") == []
    for call in (lambda: absent.read("a", 0, 1), lambda: absent.read_record("a"), lambda: absent.delete("a")):
        with pytest.raises(ObjectNotFound):
            call()
    assert list(tmp_path.iterdir()) == []


def test_deletion_takes_emptied_folders_with_it(store: LocalStore, tmp_path: Path) -> None:
    store.put("packs/s/1", [b""])
    store.put("packs/t/1", [b""])
    store.delete("packs/s/1")
    assert sorted(path.name for path in (tmp_path / "store/packs").iterdir()) == ["t"]
    store.put("packs/s/2", [b""])
    assert names(store, "") == ["packs/s/2", "packs/t/1"]


def test_puts_and_deletions_in_one_folder_do_not_fail_each_other(tmp_path: Path) -> None:
    stores = [LocalStore(tmp_path / "store") for _ in range(4)]
    failures: list[Exception] = []

    def churn(number: int) -> None:
        try:
            for turn in range(100):
                stores[number].put(f"a/b/{number}-{turn}", [b"x"])
                stores[number].delete(f"a/b/{number}-{turn}")
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=churn, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert files(tmp_path / "store") == []


def test_an_object_and_a_folder_cannot_share_a_name(store: LocalStore) -> None:
    store.put("a/b", [b""])
    store.put("c", [b""])
    for name in ("a", "c/d", "c/d/e"):
        with pytest.raises(StoreError, match="share a name") as refused:
            store.put(name, [b""])
        assert refused.value.value == name
        for call in (store.size, store.delete):
            with pytest.raises(ObjectNotFound):
                call(name)


# -- leases


def test_a_lease_does_not_outlive_the_boot(tmp_path: Path) -> None:
    clock = ManualClock()
    before = LocalStore(tmp_path, clock, boot="one")
    etag = before.create_record("a", b"", {}).etag
    lease = before.acquire_lease("a", 60)
    after = LocalStore(tmp_path, clock, boot="two")
    assert not after.read_record("a").leased
    with pytest.raises(LeaseLost):
        after.replace_record("a", b"1", {}, etag=etag, lease=lease)
    assert after.acquire_lease("a", 15) != lease
    before.close()
    after.close()


@pytest.mark.parametrize("torn", [b"", b'{"id": "x"', b"\x00" * 100, b"[]"])
def test_a_lease_file_torn_by_a_power_cut_is_no_lease(store: LocalStore, tmp_path: Path, torn: bytes) -> None:
    store.create_record("a", b"", {})
    store.acquire_lease("a", 60)
    [path] = (tmp_path / "store/.leases").iterdir()
    path.write_bytes(torn)
    assert not store.read_record("a").leased
    store.acquire_lease("a", 60)


def test_a_record_that_a_person_removed_leaves_no_lease_behind(store: LocalStore, tmp_path: Path) -> None:
    store.create_record("a", b"", {})
    store.acquire_lease("a", 60)
    (tmp_path / "store/a").unlink()
    etag = store.create_record("a", b"", {}).etag
    store.replace_record("a", b"1", {}, etag=etag, lease=None)


# -- listings


def test_a_record_that_is_replaced_does_not_slip_past_a_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    """On tmpfs (and btrfs) a replaced name moves to the end of its folder, behind where a readdir() that runs stops."""
    memory = Path("/dev/shm")
    if not memory.is_dir():
        pytest.skip("needs a tmpfs at /dev/shm")
    with TemporaryDirectory(dir=memory) as folder:
        store = LocalStore(folder)
        for number in range(2_000):  # more than one getdents() of names
            store.create_record(f"points/{number:04d}", b"", {})
        scan = os.scandir
        with scan(f"{folder}/points") as found:
            last = f"points/{[item.name for item in found][-1]}"
        etag, done, threads = store.read_record(last).etag, threading.Event(), []

        def replace() -> None:
            store.replace_record(last, b"", {}, etag=etag, lease=None)
            done.set()

        class Interrupted:
            def __init__(self, path: str) -> None:
                self._found = scan(path)

            def __enter__(self) -> Iterator[os.DirEntry[str]]:
                first = next(self._found)
                threads.append(threading.Thread(target=replace))
                threads[-1].start()
                done.wait(0.5)  # it must wait for the scan; without that it is done at once
                return itertools.chain([first], self._found)

            def __exit__(self, *_: object) -> None:
                self._found.close()

        monkeypatch.setattr(os, "scandir", Interrupted)
        assert len(names(store, "points/")) == 2_000
        monkeypatch.undo()
        for thread in threads:
            thread.join()
        assert done.is_set()
        store.close()


# -- processes


def python(code: str, *arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
    )


STOPPED_BEFORE_THE_NAME = """
import os, sys, time
from mover.store.local import LocalStore
def stop(*_):
    print("written", flush=True)
    time.sleep(3600)
os.rename = stop if sys.argv[2] == "rename" else os.rename
os.fsync = stop if sys.argv[2] == "fsync" else os.fsync
LocalStore(sys.argv[1]).put("packs/1", [b"x" * 1000000])
"""


@pytest.mark.parametrize("moment", ["rename", "fsync"])
def test_a_put_killed_before_its_end_leaves_nothing_visible(tmp_path: Path, moment: str) -> None:
    clock = ManualClock(time.time())
    store = LocalStore(tmp_path, clock)
    store.put("packs/0", [b"old"])
    with python(STOPPED_BEFORE_THE_NAME, tmp_path, moment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        [left] = (tmp_path / ".tmp").iterdir()
        clock.advance(3600)
        LocalStore(tmp_path, clock).close()
        assert left.exists()  # its writer lives
        process.kill()
    assert names(store, "") == ["packs/0"]
    with pytest.raises(ObjectNotFound):
        store.size("packs/1")
    store.put("packs/1", [b"new"])
    assert read(store, "packs/1") == b"new"
    LocalStore(tmp_path, clock).close()
    assert not left.exists()
    store.close()


def test_a_new_temporary_file_is_left_alone(store: LocalStore, tmp_path: Path) -> None:
    store.put("a", [b""])
    new = tmp_path / "store/.tmp/new"
    new.touch()
    LocalStore(tmp_path / "store").close()
    assert new.exists()


PUTS_UNTIL_KILLED = """
import sys
from mover.store.local import LocalStore
store, number = LocalStore(sys.argv[1]), 0
etag = store.create_record("record-" + sys.argv[2], b"0" * 50000, {"n": "0"}).etag
print("go", flush=True)
while True:
    number += 1
    store.put(f"packs/{sys.argv[2]}/{number}", [b"%06d" % number] * 50000)
    etag = store.replace_record("record-" + sys.argv[2], b"%d" % (number % 10) * 50000, {"n": str(number % 10)},
                                etag=etag, lease=None).etag
"""


def test_after_kills_at_random_moments_all_that_is_visible_is_whole(tmp_path: Path) -> None:
    chosen = random.Random(7)
    store = LocalStore(tmp_path)
    for run in range(8):
        with python(PUTS_UNTIL_KILLED, tmp_path, str(run)) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(chosen.random() * 0.1)  # any moment will do
            process.send_signal(signal.SIGKILL)
    for entry in store.list(""):
        if entry.name.startswith("packs/"):
            assert read(store, entry.name) == b"%06d" % int(entry.name.rsplit("/", 1)[1]) * 50_000
        else:
            record = store.read_record(entry.name)
            assert record.data == record.metadata["n"].encode() * 50_000
            store.replace_record(entry.name, b"", {}, etag=record.etag, lease=None)
    store.close()


COUNTS_UP = """
import sys
from mover.errors import ConditionFailed, LeaseConflict
from mover.store.local import LocalStore
store = LocalStore(sys.argv[1])
print("ready", flush=True)
done = 0
while done < 150:
    found = store.read_record("counter")
    try:
        if done % 3 == 0:
            lease = store.acquire_lease("counter", 15)
            try:
                store.replace_record("counter", b"%d" % (int(found.data) + 1), {}, etag=found.etag, lease=lease)
            finally:
                store.release_lease("counter", lease)
        else:
            store.replace_record("counter", b"%d" % (int(found.data) + 1), {}, etag=found.etag, lease=None)
        done += 1
    except (ConditionFailed, LeaseConflict):
        pass
"""


def test_processes_that_contend_for_one_record_lose_no_write(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.create_record("counter", b"0", {})
    processes = [python(COUNTS_UP, tmp_path) for _ in range(3)]
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    assert store.read_record("counter").data == b"450"
    store.close()


def test_processes_that_make_the_store_at_once_all_succeed(tmp_path: Path) -> None:
    code = "import sys; from mover.store.local import LocalStore; LocalStore(sys.argv[1]).put(sys.argv[2], [b'x'])"
    processes = [python(code, tmp_path / "store", str(number)) for number in range(4)]
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    store = LocalStore(tmp_path / "store")
    assert names(store, "") == ["0", "1", "2", "3"]
    assert sorted(path.name for path in (tmp_path / "store").glob(".*")) == [".leases", ".locks", ".tmp"]
    store.close()


# -- disks that fail


@pytest.mark.parametrize(
    ("number", "kind", "said"),
    [
        (errno.ENOSPC, StoreFull, "no space left"),
        (errno.EDQUOT, StoreFull, "no space left"),
        (errno.EACCES, AccessDenied, "Permission denied"),
        (errno.EPERM, AccessDenied, "not permitted"),
        (errno.EROFS, AccessDenied, "Read-only"),
        (errno.EIO, StoreError, "EIO"),
    ],
)
@pytest.mark.parametrize("call", ["writev", "fsync", "rename"])
def test_a_failing_disk_is_a_typed_error_and_leaves_nothing(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    call: str, number: int, kind: type[StoreError], said: str,
) -> None:  # fmt: skip
    store.put("there", [b"x"])
    etag = store.create_record("record", b"x", {}).etag
    before = files(tmp_path / "store")

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fail)
    for write in (
        lambda: store.put("a/b", [b"x"]),
        lambda: store.create_record("a/b", b"x", {}),
        lambda: store.replace_record("record", b"y", {}, etag=etag, lease=None),
    ):
        with pytest.raises(kind, match=said) as failed:
            write()
        assert type(failed.value) is kind
        assert failed.value.value in ("a/b", "record")
    monkeypatch.undo()
    assert files(tmp_path / "store") == before
    assert store.read_record("record").etag == etag


def test_a_read_error_is_a_typed_error(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("a", [b"x"])

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(StoreError, match="EIO") as failed:
        store.read("a", 0, 1)
    assert failed.value.value == "a"


def test_a_full_disk_is_said_as_such(tmp_path: Path) -> None:
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", mounted], check=False).returncode:
        pytest.skip("needs the right to mount")
    try:
        store = LocalStore(mounted / "store")
        store.put("small", [b"x"])
        with pytest.raises(StoreFull, match="hint: free space"):
            store.put("large", [b"x" * (2 << 20)])
        assert files(mounted / "store") == ["small"]
        store.close()
    finally:
        subprocess.run(["umount", mounted], check=True)


def test_a_folder_that_cannot_be_read_fails_the_listing(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("a/1", [b""])
    store.put("b/1", [b""])
    scan = os.scandir

    def fail_in_b(path: Path) -> Iterator[os.DirEntry[str]]:
        if str(path).endswith("b/") or path.name == "b":
            raise PermissionError(errno.EACCES, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", fail_in_b)
    listing = store.list("")
    assert next(listing).name == "a/1"
    with pytest.raises(AccessDenied):
        next(listing)


def test_a_symbolic_link_fails_the_listing(store: LocalStore, tmp_path: Path) -> None:
    store.put("a", [b""])
    (tmp_path / "store/b").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="symbolic link"):
        names(store, "")


def test_a_vanished_disk_is_not_an_empty_store(store: LocalStore, tmp_path: Path) -> None:
    store.put("a", [b""])
    (tmp_path / "store").rename(tmp_path / "away")
    for _ in range(2):
        for call in (
            lambda: names(store, ""),
            lambda: names(store, "b/"),
            lambda: store.acquire_lease("a", 15),
            lambda: store.delete("a"),
        ):
            with pytest.raises(StoreError, match="is gone"):
                call()
        with pytest.raises(StoreError):
            store.put("b", [b""])
        (tmp_path / "store").mkdir(exist_ok=True)  # as an unmounted disk leaves it
    assert list((tmp_path / "store").iterdir()) == []
    (tmp_path / "store").rmdir()
    (tmp_path / "away").rename(tmp_path / "store")
    assert names(store, "") == ["a"]


def test_a_damaged_first_line_is_an_error(store: LocalStore, tmp_path: Path) -> None:
    store.create_record("a", b"content", {"b": "c"})
    path = tmp_path / "store/a"
    for damage in (b"DMREC1 {", b'DMREC1 {"etag": 1}\n', b"DMREC1 {]\n"):
        path.write_bytes(damage)
        for call in (lambda: store.read_record("a"), lambda: names(store, "")):
            with pytest.raises(StoreError, match="first line") as damaged:
                call()
            assert damaged.value.value == "a"


# -- where it may be


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph", "glusterfs", "lustre"])
def test_a_network_file_system_is_refused(tmp_path: Path, kind: str) -> None:
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(
        "20 1 8:1 / / rw - ext4 /dev/a rw\n"
        f"21 20 0:40 / /net\\040work rw shared:1 - {kind} server:/x rw\n"
        "22 21 8:2 / /net\\040work/disk rw - xfs /dev/b rw\n"
        f"23 20 0:41 / /over rw - {kind} server:/y rw\n"
        "24 20 8:3 / /over rw - ext4 /dev/c rw\n"
    )
    for refused in ("/net work", "/net work/a/b"):
        with pytest.raises(UsageError, match=f"of type {kind}: {refused}.*hint: use a disk of this host"):
            refuse_network(Path(refused), mountinfo)
    for fine in ("/", "/network", "/net work/disk/a", "/over/a"):
        refuse_network(Path(fine), mountinfo)


def test_the_file_system_of_a_link_s_target_counts(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    store = LocalStore(tmp_path / "link")
    store.put("a", [b""])
    assert files(tmp_path / "target") == ["a"]
    store.close()


# -- open files


def test_open_files_are_bounded_and_none_is_closed_under_its_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(10):
        (tmp_path / str(number)).write_bytes(b"%d" % number)
    opened: set[int] = set()
    really_open, really_close = os.open, os.close

    def open_counted(*arguments: object) -> int:
        opened.add(descriptor := really_open(*arguments))  # type: ignore[arg-type]
        return descriptor

    def close_counted(descriptor: int) -> None:
        opened.discard(descriptor)
        really_close(descriptor)

    monkeypatch.setattr(os, "open", open_counted)
    monkeypatch.setattr(os, "close", close_counted)
    open_files = OpenFiles(tmp_path, capacity=3)
    with open_files.use("0") as held:
        for number in range(1, 10):
            with open_files.use(str(number)) as file:
                assert os.pread(file.descriptor, 1, 0) == b"%d" % number
        assert len(opened) == 4  # three in the set and the one in use
        assert os.pread(held.descriptor, 1, 0) == b"0"
    assert len(opened) == 3
    open_files.close()
    assert opened == set()


def test_a_file_is_opened_once_for_many_reads(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("a", [b"0123456789"])
    read(store, "a")

    def fail(*_: object) -> int:
        raise AssertionError("opened again")

    monkeypatch.setattr(os, "open", fail)
    assert [bytes(store.read("a", at, 1)) for at in range(10)] == [b"%d" % at for at in range(10)]
